//! A model that judges answers: small questions, evidence before the verdict, an error never a score.
//!
//! | step | what |
//! | --- | --- |
//! | heartbeat | what the judge must know, before and after: wrong is `JudgeDegraded` |
//! | calibration | answers that people have judged: below `minKappa` it may not gate, `JudgeNotCalibrated` |
//! | verdicts | each question `samples` times at temperature 0; the median of those that came counts, if they are more than half |
//!
//! What was asked once in a run isn't asked again: two sides that say the same have the same verdict.

mod ask;
mod calibration;
mod preset;
mod question;

use std::collections::BTreeMap;

use super::{
    details::{Details, Example},
    paired::{self, Statistic, Values},
    protocol::open_inference::Manner,
    text::{Column, Subject},
    texts::Texts,
};
use crate::{
    api::{
        gate::MetricValue,
        judge::{JudgeEvaluator, Preset, Probe},
        run::{EvaluationRunSpec, judge_key},
        verdict::{NO_STABLE, short},
    },
    data::table::Table,
    supervise::{board::shorten, failure::Failure},
};
use ask::{Judge, Verdict};
use question::Question;

/// Examples of the lowest verdicts that are kept.
const EXAMPLES: usize = 5;
/// Characters of one.
const SHOWN: usize = 300;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The metric, and what is to be known of it as `<name>.<what>`.
    pub metrics: Vec<MetricValue>,
    /// Tokens that the judge used.
    pub tokens: u64,
    /// What they cost.
    pub cost: Option<f64>,
}

/// What is judged.
pub struct Case<'a> {
    /// Answers of both sides.
    pub subject: &'a Subject<'a>,
    /// The columns that the judge sees beside the answer.
    pub inputs: Vec<(String, Column)>,
    /// Rows that people have judged.
    pub labelled: Option<&'a Table>,
    /// Seed of the run.
    pub seed: u64,
}

/// Lets every judge of the spec judge.
///
/// # Errors
/// As [`run`].
pub async fn all(
    spec: &EvaluationRunSpec,
    texts: &Texts,
    labelled: &BTreeMap<usize, Table>,
    manner: Manner<'_>,
    details: &mut Details,
) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for (place, evaluator) in spec.evaluators.iter().enumerate() {
        let Some(judge) = &evaluator.judge else {
            continue;
        };
        let inputs = judge.input.iter().filter_map(|name| {
            let column = texts.input(name)?;
            Some((name.clone(), column.clone()))
        });
        let case = Case {
            subject: &texts.subject(),
            inputs: inputs.collect(),
            labelled: labelled.get(&place),
            seed: spec.seed,
        };
        let bearer = std::env::var(judge_key(place)).ok();
        found.push(run(judge, &case, manner, bearer, details).await?);
    }
    Ok(found)
}

/// Judges all answers.
///
/// # Errors
/// `JudgeUnavailable` if it doesn't answer at all (inconclusive), `JudgeRefused` if it says no to what it is asked; `InputUnreadable` for a calibration set
/// that makes no sense.
pub async fn run(
    evaluator: &JudgeEvaluator,
    case: &Case<'_>,
    manner: Manner<'_>,
    bearer: Option<String>,
    details: &mut Details,
) -> Result<Found, Failure> {
    let mut judge = Judge::new(evaluator, manner, bearer, case.seed)?;
    let mut metrics = if evaluator.pairwise == Some(true) && case.subject.stable.is_none() {
        vec![MetricValue {
            name: evaluator.name.clone(),
            message: Some(NO_STABLE.to_owned()),
            ..MetricValue::default()
        }]
    } else {
        judged(&mut judge, case, manner.share, details).await?
    };
    let (tokens, cost) = judge.spent();
    let whole = |what: &str, value: f64| MetricValue {
        name: format!("{}.{what}", evaluator.name),
        value: Some(value),
        ..MetricValue::default()
    };
    metrics.push(whole("tokens", tokens as f64));
    metrics.extend(cost.map(|cost| whole("cost", cost)));
    Ok(Found {
        metrics,
        tokens,
        cost,
    })
}

async fn judged(
    judge: &mut Judge<'_>,
    case: &Case<'_>,
    share: f64,
    details: &mut Details,
) -> Result<Vec<MetricValue>, Failure> {
    let evaluator = judge.evaluator;
    let name = evaluator.name.as_str();
    let mut trouble = heartbeat(judge).await?;
    if let Some(trouble) = trouble {
        // What it says would count for nothing, and costs.
        return Ok(vec![without(name, trouble)]);
    }
    let calibrated = match case.labelled {
        Some(table) => Some(calibration::run(judge, table).await?),
        None => None,
    };
    let items = items(evaluator, case);
    let questions: Vec<Question> = items.iter().flat_map(Item::questions).cloned().collect();
    judge.ask(&questions).await?;
    trouble = heartbeat(judge).await?;
    let verdicts: Vec<&Verdict> = questions.iter().filter_map(|q| judge.said(q)).collect();
    let missing = verdicts.iter().filter(|v| v.score.is_none()).count();
    let refusals = verdicts.iter().filter(|v| v.refused > 0).count();
    let of = |what: &str, count: usize| MetricValue {
        name: format!("{name}.{what}"),
        value: (!verdicts.is_empty()).then(|| count as f64 / verdicts.len() as f64),
        samples: i64::try_from(verdicts.len()).ok(),
        ..MetricValue::default()
    };
    let torn = verdicts.iter().filter(|v| v.torn).count();
    let mut metrics = vec![
        of("errors", missing),
        of("refusals", refusals),
        of("disagreement", torn),
    ];
    let mut values = Values {
        stable: case.subject.stable.map(|_| Vec::new()),
        ..Values::default()
    };
    let mut flips = 0;
    let mut low: Vec<(f64, &Item)> = Vec::new();
    for item in &items {
        let Some((own, stable, flip)) = item.score(judge) else {
            continue;
        };
        values.rows.push(item.row);
        values.own.push(own);
        if let Some(stable) = stable {
            values.stable.get_or_insert_default().push(stable);
        }
        flips += usize::from(flip);
        low.push((own, item));
    }
    if evaluator.pairwise == Some(true) {
        let flipped = flips as f64 / values.rows.len().max(1) as f64;
        metrics.push(MetricValue {
            name: format!("{name}.flips"),
            value: Some(flipped),
            samples: i64::try_from(values.rows.len()).ok(),
            ..MetricValue::default()
        });
    }
    if trouble.is_none() && missing as f64 > share * verdicts.len() as f64 {
        trouble = Some(format!(
            "JudgeErrors: {missing} of {} questions have no verdict of judge {name} ({refusals} of them refused), and maxItemErrors allows {}{}",
            verdicts.len(),
            short(share),
            judge.last_trouble()
        ));
    }
    if let Some(trouble) = trouble {
        metrics.insert(0, without(name, trouble));
        metrics.extend(calibrated.iter().flat_map(|c| c.metrics(name)));
        return Ok(metrics);
    }
    examples(judge, low, details);
    let excuse = "no answer has a verdict";
    let days = case.subject.days;
    let mut own = paired::measure(name, &values, days, Statistic::Mean, (case.seed, excuse));
    if let Some(calibrated) = &calibrated {
        if let Some(why) = calibrated.doubt(name) {
            for metric in &mut own {
                metric.inconclusive = true;
                metric.message = Some(why.clone());
            }
        }
        own.extend(calibrated.corrected(evaluator, &values.own, case.seed));
        own.extend(calibrated.metrics(name));
    } else {
        details.notes.push(format!(
            "Judge {name} ({}) was held against no people's verdicts: write calibration.",
            evaluator.backend.model
        ));
    }
    own.extend(metrics);
    Ok(own)
}

fn without(name: &str, trouble: String) -> MetricValue {
    MetricValue {
        name: name.to_owned(),
        message: Some(trouble),
        inconclusive: true,
        ..MetricValue::default()
    }
}

/// Asks what the judge must know; gives what it doesn't.
async fn heartbeat(judge: &mut Judge<'_>) -> Result<Option<String>, Failure> {
    let evaluator = judge.evaluator;
    let probes = preset::heartbeat(evaluator);
    let items: Vec<Item> = probes.iter().map(|p| of_probe(evaluator, p)).collect();
    let questions: Vec<Question> = items.iter().flat_map(Item::questions).cloned().collect();
    judge.forget(&questions);
    judge.ask(&questions).await?;
    let scale = question::scale(evaluator);
    let width = f64::from(scale.max - scale.min);
    for (place, (probe, item)) in probes.iter().zip(&items).enumerate() {
        let score = item.score(judge).map(|(own, ..)| own);
        // Of a pair: the share that the target wins.
        let expected = match (evaluator.pairwise, probe.verdict) {
            (Some(true), 1) => 1.0,
            (Some(true), 2) => 0.0,
            (Some(true), _) => 0.5,
            (_, verdict) => f64::from(verdict),
        };
        let got = match score {
            Some(score) if (score - expected).abs() <= width / 4.0 => continue,
            Some(score) => format!("says {}", short(score)),
            None => "gives no verdict".to_owned(),
        };
        return Ok(Some(format!(
            "JudgeDegraded: of heartbeat {} judge {} {got} where {} is right{}",
            place + 1,
            evaluator.name,
            short(expected),
            judge.last_trouble()
        )));
    }
    Ok(None)
}

/// What is asked of one row.
struct Item {
    row: usize,
    own: Question,
    /// Stable's answer alone, or the pair in the other order.
    other: Option<Question>,
    pair: bool,
}

impl Item {
    fn questions(&self) -> impl Iterator<Item = &Question> {
        std::iter::once(&self.own).chain(&self.other)
    }

    /// The target's score, stable's, and whether a pair was decided by its order.
    fn score(&self, judge: &Judge<'_>) -> Option<(f64, Option<f64>, bool)> {
        let of = |question: &Question| judge.said(question)?.score;
        let own = of(&self.own)?;
        let Some(other) = &self.other else {
            return Some((own, None, false));
        };
        let other = of(other)?;
        if !self.pair {
            return Some((own, Some(other), false));
        }
        // Who won in each order: 1 the first, 2 the second, 0 neither.
        let wins = |verdict: f64, place: f64| (verdict - place).abs() < 0.25;
        let target = (wins(own, 1.0), wins(other, 2.0));
        let stable = (wins(own, 2.0), wins(other, 1.0));
        let flip = (target.0 && stable.1) || (stable.0 && target.1);
        let share = match (target, stable) {
            ((true, true), _) => 1.0,
            (_, (true, true)) => 0.0,
            _ => 0.5,
        };
        Some((share, Some(1.0 - share), flip))
    }
}

fn items(evaluator: &JudgeEvaluator, case: &Case<'_>) -> Vec<Item> {
    let text = |column: &Column, row: usize| column[row].clone().unwrap_or_default();
    case.subject
        .answered()
        .map(|(row, own, stable)| {
            let inputs = case.inputs.iter();
            let inputs: Vec<(String, String)> = inputs
                .map(|(name, column)| (name.clone(), text(column, row)))
                .collect();
            item(evaluator, row, &inputs, (own, stable))
        })
        .collect()
}

fn of_probe(evaluator: &JudgeEvaluator, probe: &Probe) -> Item {
    let inputs = evaluator.input.iter().map(|name| {
        let text = probe.input.get(name).cloned();
        (name.clone(), text.unwrap_or_default())
    });
    let inputs: Vec<(String, String)> = inputs.collect();
    let stable = probe.stable.as_deref();
    item(evaluator, 0, &inputs, (&probe.answer, stable))
}

fn item(
    evaluator: &JudgeEvaluator,
    row: usize,
    inputs: &[(String, String)],
    (own, stable): (&str, Option<&str>),
) -> Item {
    let with = |more: &[(&str, &str)]| {
        let more = more.iter();
        let more = more.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Question {
            parts: inputs.iter().cloned().chain(more).collect(),
        }
    };
    if evaluator.pairwise == Some(true) {
        let stable = stable.unwrap_or_default();
        return Item {
            row,
            own: with(&[("first", own), ("second", stable)]),
            other: Some(with(&[("first", stable), ("second", own)])),
            pair: true,
        };
    }
    let alone = |answer: &str| match evaluator.preset {
        Some(Preset::ContextRelevance) => with(&[]),
        _ => with(&[("answer", answer)]),
    };
    Item {
        row,
        own: alone(own),
        other: stable.map(alone),
        pair: false,
    }
}

/// The lowest verdicts, with their evidence.
fn examples(judge: &Judge<'_>, mut low: Vec<(f64, &Item)>, details: &mut Details) {
    let best = f64::from(question::scale(judge.evaluator).max);
    low.retain(|(score, item)| !item.pair && *score < best);
    low.sort_by(|a, b| a.0.total_cmp(&b.0));
    let personal = |text: &str| !crate::stats::text::pii::entities(text).is_empty();
    let shown = low.into_iter().filter_map(|(score, item)| {
        let evidence = judge.said(&item.own)?.evidence.clone();
        let answer = item.own.parts.last().map(|(_, text)| text.clone())?;
        (!personal(&evidence) && !personal(&answer)).then_some((score, item.row, answer, evidence))
    });
    for (score, row, answer, evidence) in shown.take(EXAMPLES) {
        details.examples.push(Example {
            row: row + 1,
            why: format!(
                "{} {}: {}",
                judge.evaluator.name,
                short(score),
                shorten(&evidence, SHOWN)
            ),
            answer: shorten(&answer, SHOWN),
            reference: None,
        });
    }
}
