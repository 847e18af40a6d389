//! Whether a judge may be trusted: its verdicts on answers that people have judged.

use super::{ask::Judge, item, question, question::Question};
use crate::{
    api::{gate::MetricValue, judge::JudgeEvaluator, verdict::short},
    data::table::Table,
    evaluate::{column, input_failure, measure::LEVEL, text},
    stats::{
        agreement::{corrected, kappa},
        performance::bootstrap,
        random::Generator,
    },
    supervise::failure::Failure,
};

/// Kappa that a judge must reach, where the spec doesn't say: "moderate" (Landis, Koch 1977) begins above it.
const MIN_KAPPA: f64 = 0.4;
/// Draws of an interval.
const DRAWS: usize = 1000;

/// What people and judge said of the same answers.
pub struct Calibrated {
    people: Vec<f64>,
    judge: Vec<f64>,
    /// Answers without a verdict of the judge.
    missing: usize,
    least: f64,
    kappa: (f64, Option<(f64, f64)>),
    agreement: (f64, Option<(f64, f64)>),
}

/// Has the judge judge what people have.
///
/// # Errors
/// If the table lacks a column, or people's verdicts aren't on the scale.
pub async fn run(judge: &mut Judge<'_>, table: &Table) -> Result<Calibrated, Failure> {
    let evaluator = judge.evaluator;
    let asked = evaluator.calibration.as_ref();
    let label = asked.and_then(|c| c.label.as_deref()).unwrap_or("label");
    let answer = asked.and_then(|c| c.answer.as_deref()).unwrap_or("answer");
    let answers = text::cells(table, answer)?;
    let mut inputs = Vec::with_capacity(evaluator.input.len());
    for name in &evaluator.input {
        inputs.push((name, text::cells(table, name)?));
    }
    let labels = &column(table, label)?.values;
    let scale = question::scale(evaluator);
    let mut questions: Vec<(f64, Question)> = Vec::new();
    for row in 0..table.rows {
        let cell = labels.cell(row);
        let truth = match cell {
            crate::data::table::Cell::Boolean(yes) => Some(f64::from(u8::from(yes))),
            cell => cell.number(),
        };
        let truth = truth.filter(|x| (f64::from(scale.min)..=f64::from(scale.max)).contains(x));
        let Some(truth) = truth else {
            return Err(input_failure(
                "InputUnreadable",
                format!(
                    "calibration of judge {}: `{label}` in row {} is `{cell}`, and people's verdicts are numbers from {} to {}",
                    evaluator.name,
                    row + 1,
                    scale.min,
                    scale.max
                ),
            ));
        };
        let texts: Vec<(String, String)> = inputs
            .iter()
            .map(|(name, column)| ((*name).clone(), column[row].clone().unwrap_or_default()))
            .collect();
        let answer = answers[row].as_deref().unwrap_or_default();
        questions.push((truth, item(evaluator, row, &texts, (answer, None)).own));
    }
    let all: Vec<Question> = questions.iter().map(|(_, q)| q.clone()).collect();
    judge.ask(&all).await?;
    let said = questions
        .iter()
        .filter_map(|(truth, q)| Some((*truth, judge.said(q)?.score?)));
    let (people, by_judge): (Vec<f64>, Vec<f64>) = said.unzip();
    let least = asked.and_then(|c| c.min_kappa).unwrap_or(MIN_KAPPA);
    Ok(of(people, by_judge, questions.len(), least, judge.seed))
}

fn agreement(a: &[f64], b: &[f64], weights: Option<&[f64]>) -> f64 {
    let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
    let (mut same, mut all) = (0.0, 0.0);
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        all += weight(i);
        if (a - b).abs() < 0.25 {
            same += weight(i);
        }
    }
    same / all
}

fn of(people: Vec<f64>, judge: Vec<f64>, rows: usize, least: f64, seed: u64) -> Calibrated {
    let both = |weights: Option<&[f64]>| {
        vec![
            kappa(&people, &judge, weights),
            agreement(&people, &judge, weights),
        ]
    };
    let points = both(None);
    let ends = match people.is_empty() {
        true => vec![None, None],
        false => bootstrap(people.len(), None, DRAWS, LEVEL, seed, |w| both(Some(w))),
    };
    let end = |place: usize| ends.get(place).copied().flatten();
    Calibrated {
        missing: rows - people.len(),
        least,
        kappa: (points[0], end(0)),
        agreement: (points[1], end(1)),
        people,
        judge,
    }
}

impl Calibrated {
    /// Why the judge may not gate; `None` if it may.
    #[must_use]
    pub fn doubt(&self, name: &str) -> Option<String> {
        let (kappa, interval) = self.kappa;
        let rows = self.people.len() + self.missing;
        let least = short(self.least);
        match interval {
            Some((lower, _)) if lower >= self.least => None,
            Some((lower, upper)) => Some(format!(
                "JudgeNotCalibrated: judge {name} agrees with people by kappa {} [{}, {}] on {rows} answers, and calibration.minKappa asks for {least} at the lower end: label more answers, or take another judge or rubric",
                short(kappa),
                short(lower),
                short(upper)
            )),
            None => Some(format!(
                "JudgeNotCalibrated: of {rows} answers that people have judged nothing follows for judge {name}, as one of them says the same of all, or nothing: label answers of both kinds"
            )),
        }
    }

    /// What was found, as metrics.
    pub fn metrics(&self, name: &str) -> Vec<MetricValue> {
        let one = |what: &str, (value, interval): (f64, Option<(f64, f64)>)| {
            let value = Some(value).filter(|x| x.is_finite());
            MetricValue {
                name: format!("{name}.{what}"),
                value,
                lower: interval.map(|i| i.0),
                upper: interval.map(|i| i.1),
                samples: i64::try_from(self.people.len()).ok(),
                message: value
                    .is_none()
                    .then(|| "it isn't defined on these labels".to_owned()),
                ..MetricValue::default()
            }
        };
        vec![one("kappa", self.kappa), one("agreement", self.agreement)]
    }

    /// The rate of a judge of yes or no, corrected for its errors (Rogan, Gladen 1978), with an interval that includes how uncertain those are.
    pub fn corrected(
        &self,
        evaluator: &JudgeEvaluator,
        scores: &[f64],
        seed: u64,
    ) -> Option<MetricValue> {
        let scale = question::scale(evaluator);
        if scale.max - scale.min != 1 || scores.is_empty() {
            return None;
        }
        let (low, high) = (f64::from(scale.min), f64::from(scale.max));
        let yes = |x: f64| f64::from(u8::from(x > (low + high) / 2.0));
        // Rates of the judge where people say yes, and where they say no.
        let rates = |weight: &dyn Fn(usize) -> f64| {
            let (mut hit, mut positive, mut rejected, mut negative) = (0.0, 0.0, 0.0, 0.0);
            for (i, (people, judge)) in self.people.iter().zip(&self.judge).enumerate() {
                if yes(*people) > 0.0 {
                    positive += weight(i);
                    hit += weight(i) * yes(*judge);
                } else {
                    negative += weight(i);
                    rejected += weight(i) * (1.0 - yes(*judge));
                }
            }
            (hit / positive, rejected / negative)
        };
        let share = scores.iter().map(|x| yes(*x)).sum::<f64>() / scores.len() as f64;
        let whole = |share: f64, (sensitivity, specificity): (f64, f64)| {
            low + corrected(share, sensitivity, specificity)
        };
        let value = whole(share, rates(&|_| 1.0));
        let mut generator = Generator::new(seed);
        let mut draws: Vec<f64> = Vec::with_capacity(DRAWS);
        for _ in 0..DRAWS {
            let mut weights = vec![0.0; self.people.len()];
            for _ in 0..self.people.len() {
                weights[generator.below(self.people.len())] += 1.0;
            }
            let drawn = (0..scores.len()).map(|_| yes(scores[generator.below(scores.len())]));
            let share = drawn.sum::<f64>() / scores.len() as f64;
            draws.push(whole(share, rates(&|i| weights[i])));
        }
        draws.retain(|x| x.is_finite());
        draws.sort_by(f64::total_cmp);
        let enough = 2 * draws.len() >= DRAWS;
        let tail = (1.0 - LEVEL) / 2.0;
        let at = |q: f64| draws[(q * (draws.len() - 1) as f64).round() as usize];
        let value = Some(value).filter(|x| x.is_finite());
        Some(MetricValue {
            name: format!("{}.corrected", evaluator.name),
            value,
            lower: (enough && value.is_some()).then(|| at(tail)),
            upper: (enough && value.is_some()).then(|| at(1.0 - tail)),
            samples: i64::try_from(scores.len()).ok(),
            message: value.is_none().then(|| "the judge is no better than chance on the labelled answers, or they are of one kind".to_owned()),
            ..MetricValue::default()
        })
    }
}
