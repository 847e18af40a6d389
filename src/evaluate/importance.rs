//! Feature importance by permutation (Breiman 2001): what the model loses when a column is shuffled.
//!
//! The loss is of `rocAuc` where the model gives probabilities, else of `accuracy`; for numbers it is what `rmse` grows by. At most
//! [`MOST_ROWS`] rows are asked again, drawn with the seed.

use super::{
    answer::Answers,
    details::{Details, Importance},
    input_failure,
    measure::Compared,
    protocol::open_inference::{self, Manner},
    rows::{Rows, draw},
    truth::Truth,
};
use crate::{
    api::{evaluation::FeatureImportance, gate::MetricValue},
    data::table::Table,
    stats::{
        performance::{Binary, Multiclass, Regression},
        random::Generator,
    },
    supervise::failure::Failure,
};

/// How often each column is shuffled, where the spec doesn't say.
const REPEATS: i32 = 5;
/// Rows that are asked again for each column and repeat.
pub const MOST_ROWS: usize = 2000;

/// Asks the model at `url` again and again.
///
/// # Errors
/// As [`open_inference::ask`]; `NothingToMeasure` if the loss isn't defined on this data.
pub async fn run(
    evaluator: &FeatureImportance,
    url: &str,
    (rows, truth, answers): (&Rows, &Truth, &Answers),
    (seed, manner): (u64, Manner<'_>),
    details: &mut Details,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<MetricValue>, Failure> {
    // Only rows that count as they are.
    let usable: Vec<usize> = Compared::of(rows, truth, answers, None)?.kept;
    let chosen: Vec<usize> = draw(usable.len(), MOST_ROWS, seed)
        .into_iter()
        .map(|i| usable[i])
        .collect();
    let (rows, truth) = (rows.of_rows(&chosen), truth.of_rows(&chosen));
    let answers = Answers {
        rows: chosen
            .iter()
            .map(|&row| answers.rows[row].clone())
            .collect(),
        classes: answers.classes.clone(),
    };
    let Some((score, whole)) = score(&rows, &truth, &answers)? else {
        return Err(input_failure(
            "NothingToMeasure",
            "featureImportance needs labels of both classes, or numbers that differ".to_owned(),
        ));
    };
    let repeats = usize::try_from(evaluator.repeats.unwrap_or(REPEATS)).unwrap_or(1);
    let calls = rows.features.len() * repeats;
    let mut found = Vec::with_capacity(rows.features.len());
    for (index, name) in rows.features.iter().enumerate() {
        let mut losses = Vec::with_capacity(repeats);
        for repeat in 0..repeats {
            let place = index * repeats + repeat;
            let shuffled = shuffle(&rows, name, seed.wrapping_add(1 + place as u64));
            let asked =
                open_inference::ask(url, "the model", &shuffled, &truth, manner, &|_| ()).await?;
            progress(place + 1, calls);
            if let Some((_, without)) = self::score(&shuffled, &truth, &asked)? {
                losses.push(whole - without);
            }
        }
        if losses.is_empty() {
            continue;
        }
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let squares: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        found.push(Importance {
            column: name.clone(),
            mean,
            std: (squares / losses.len() as f64).sqrt(),
        });
    }
    found.sort_by(|a, b| b.mean.total_cmp(&a.mean));
    details.notes.push(format!(
        "Feature importance: loss of {score} when a column is shuffled, mean of {repeats} times {} rows.",
        rows.count
    ));
    let samples = i64::try_from(rows.count).ok();
    let metrics = found.iter().map(|one| MetricValue {
        name: format!("featureImportance.{}", one.column),
        value: Some(one.mean),
        samples,
        ..MetricValue::default()
    });
    let metrics = metrics.collect();
    details.importance = found;
    Ok(metrics)
}

/// The rows with one column in another order.
fn shuffle(rows: &Rows, name: &str, seed: u64) -> Rows {
    let mut order: Vec<usize> = (0..rows.count).collect();
    let mut generator = Generator::new(seed);
    for last in (1..order.len()).rev() {
        order.swap(last, generator.below(last + 1));
    }
    let other = rows.of_rows(&order);
    let columns = rows.table.columns.iter().zip(other.table.columns);
    let columns = columns.map(|(own, shuffled)| {
        if own.name == name {
            shuffled
        } else {
            own.clone()
        }
    });
    Rows {
        table: Table {
            columns: columns.collect(),
            rows: rows.count,
        },
        features: rows.features.clone(),
        label: rows.label.clone(),
        days: rows.days.clone(),
        ..*rows
    }
}

/// How good answers are, higher is better, and what that is called; `None` where it isn't defined.
fn score(
    rows: &Rows,
    truth: &Truth,
    answers: &Answers,
) -> Result<Option<(&'static str, f64)>, Failure> {
    let compared = Compared::of(rows, truth, answers, None)?;
    let own = &compared.own;
    let (name, value) = match truth {
        Truth::Binary { .. } => {
            let data = Binary::new(&compared.classes, &own.predicted, own.scores.as_deref());
            let report = data.measure(None);
            if own.scores.is_some() {
                ("rocAuc", report.roc_auc)
            } else {
                ("accuracy", report.accuracy)
            }
        }
        Truth::Multi { .. } => {
            let distributions = own.distributions.as_deref();
            let report =
                Multiclass::new(&compared.labels, &compared.kinds, &own.kinds, distributions)
                    .measure(None);
            match distributions {
                Some(_) => ("rocAuc", report.roc_auc),
                None => ("accuracy", report.accuracy),
            }
        }
        Truth::Number(_) => {
            let report = Regression::new(&compared.numbers, &own.numbers).measure(None);
            ("rmse", -report.rmse)
        }
    };
    Ok(value.is_finite().then_some((name, value)))
}
