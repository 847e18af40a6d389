//! Texts: against a reference, a pattern or a JSON Schema, and personal data in them.
//!
//! Each metric is a mean over the rows that have an answer (and a reference, where it takes one), with a bootstrapped interval; `bleu` and `chrF` are
//! of all rows as one corpus. Rows without are counted in `unansweredRows`.

use regex::Regex;
use serde_json::Value;

use super::{
    column,
    details::{Details, Example},
    enough, input_failure,
    rows::Texts,
};
use crate::{
    api::{
        evaluation::{TextEvaluator, TextMetric},
        gate::MetricValue,
        run::EvaluationRunSpec,
    },
    data::table::{Cell, Table},
    stats::{
        performance::bootstrap,
        text::{self, pii},
    },
    supervise::failure::Failure,
};

/// Draws of an interval.
const DRAWS: usize = 500;
/// Examples kept.
const EXAMPLES: usize = 10;
/// Characters of one.
const SHOWN: usize = 400;

/// Measures what the evaluators ask for.
///
/// # Errors
/// `UnknownPattern` for a pattern or schema that can't be read, `NothingToMeasure` where a reference is needed and nobody names its column,
/// `EmptyData` if no row can be measured, `TooManyUnanswered` if more than `maxItemErrors` have no answer.
pub fn run(
    spec: &EvaluationRunSpec,
    texts: &Texts,
    details: &mut Details,
) -> Result<(Vec<MetricValue>, usize), Failure> {
    let answers = cells(&texts.table, &texts.answer)?;
    let references = match &texts.reference {
        Some(name) => Some(cells(&texts.table, name)?),
        None => None,
    };
    let answered: Vec<usize> = (0..answers.len())
        .filter(|&row| answers[row].is_some())
        .collect();
    if answered.is_empty() {
        return Err(input_failure(
            "EmptyData",
            format!("none of {} rows has an answer", answers.len()),
        ));
    }
    let (count, missing) = (answers.len(), answers.len() - answered.len());
    enough(missing, count, spec.max_item_errors, "the file", "").map_err(Failure::permanent)?;
    let (evaluators, seed) = (&spec.evaluators, spec.seed);
    let mut metrics = Vec::new();
    let answer = |row: usize| answers[row].as_deref().unwrap_or_default();
    for evaluator in evaluators {
        if let Some(evaluator) = &evaluator.text {
            metrics.extend(compared(
                evaluator,
                (&answers, references.as_deref()),
                seed,
                details,
            )?);
        }
        if let Some(evaluator) = &evaluator.json_schema {
            let schema = Value::Object(evaluator.schema.0.clone());
            let validator = jsonschema::validator_for(&schema).map_err(|e| {
                input_failure(
                    "UnknownPattern",
                    format!("jsonSchema.schema can't be read: {e}"),
                )
            })?;
            let valid = |row: &usize| {
                let value = serde_json::from_str::<Value>(answer(*row));
                f64::from(u8::from(value.is_ok_and(|v| validator.is_valid(&v))))
            };
            let scores: Vec<f64> = answered.iter().map(valid).collect();
            metrics.push(mean("jsonSchemaRate", &scores, seed));
        }
        if evaluator.pii.is_some() {
            let found: Vec<_> = answered
                .iter()
                .map(|&row| pii::entities(answer(row)))
                .collect();
            let any: Vec<f64> = found
                .iter()
                .map(|f| f64::from(u8::from(!f.is_empty())))
                .collect();
            metrics.push(mean("piiRate", &any, seed));
            for entity in pii::Entity::ALL {
                let of: Vec<f64> = found
                    .iter()
                    .map(|f| f64::from(u8::from(f.contains(&entity))))
                    .collect();
                if of.iter().any(|x| *x > 0.0) {
                    metrics.push(mean(&format!("pii.{}", entity.name()), &of, seed));
                }
            }
            for (&row, entities) in answered
                .iter()
                .zip(&found)
                .filter(|(_, f)| !f.is_empty())
                .take(EXAMPLES)
            {
                let names: Vec<&str> = entities.iter().map(|e| e.name()).collect();
                // The answer itself is what must not be shown.
                details.examples.push(Example {
                    row: row + 1,
                    why: format!("personal data: {}", names.join(", ")),
                    answer: "(not shown)".to_owned(),
                    reference: None,
                });
            }
        }
    }
    metrics.push(MetricValue {
        name: "unansweredRows".to_owned(),
        value: Some((answers.len() - answered.len()) as f64),
        samples: i64::try_from(answers.len()).ok(),
        ..MetricValue::default()
    });
    Ok((metrics, answered.len()))
}

type Column = Vec<Option<String>>;

fn cells(table: &Table, name: &str) -> Result<Column, Failure> {
    let values = &column(table, name)?.values;
    let text = |row: usize| match values.cell(row) {
        Cell::Null => None,
        cell => Some(cell.to_string()),
    };
    Ok((0..values.len()).map(text).collect())
}

fn mean(name: &str, scores: &[f64], seed: u64) -> MetricValue {
    let weighted = |weights: &[f64]| {
        let sum: f64 = scores.iter().zip(weights).map(|(s, w)| s * w).sum();
        vec![sum / weights.iter().sum::<f64>()]
    };
    let interval = bootstrap(scores.len(), None, DRAWS, 0.95, seed, weighted);
    let interval = interval.into_iter().next().flatten();
    MetricValue {
        name: name.to_owned(),
        value: (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64),
        lower: interval.map(|i| i.0),
        upper: interval.map(|i| i.1),
        samples: i64::try_from(scores.len()).ok(),
        message: scores
            .is_empty()
            .then(|| "no row has both an answer and a reference".to_owned()),
        ..MetricValue::default()
    }
}

fn compared(
    evaluator: &TextEvaluator,
    (answers, references): (&[Option<String>], Option<&[Option<String>]>),
    seed: u64,
    details: &mut Details,
) -> Result<Vec<MetricValue>, Failure> {
    let pattern = evaluator.pattern.as_deref().map(Regex::new).transpose();
    let pattern = pattern.map_err(|e| {
        input_failure(
            "UnknownPattern",
            format!("text.pattern is no regular expression: {e}"),
        )
    })?;
    let mut metrics = Vec::new();
    for metric in &evaluator.metrics {
        if *metric == TextMetric::Regex {
            let Some(pattern) = &pattern else {
                return Err(input_failure(
                    "UnknownPattern",
                    "the metric regex needs text.pattern".to_owned(),
                ));
            };
            let scores: Vec<f64> = answers
                .iter()
                .flatten()
                .map(|answer| f64::from(u8::from(pattern.is_match(answer))))
                .collect();
            metrics.push(mean("regex", &scores, seed));
            continue;
        }
        let Some(references) = references else {
            return Err(input_failure(
                "NothingToMeasure",
                "the text evaluator compares with a reference, and nobody says which column has it: write dataset.reference or target.predictions.reference".to_owned(),
            ));
        };
        let pairs: Vec<(usize, &str, &str)> = answers
            .iter()
            .zip(references)
            .enumerate()
            .filter_map(|(row, (a, r))| Some((row, a.as_deref()?, r.as_deref()?)))
            .collect();
        let both: Vec<(&str, &str)> = pairs.iter().map(|p| (p.1, p.2)).collect();
        let corpus = match metric {
            TextMetric::Bleu => Some(("bleu", text::corpus_bleu(&both).score)),
            TextMetric::ChrF => Some(("chrF", text::chrf_corpus(&both, 0))),
            _ => None,
        };
        if let Some((name, value)) = corpus {
            metrics.push(MetricValue {
                name: name.to_owned(),
                value: (!both.is_empty() && value.is_finite()).then_some(value),
                samples: i64::try_from(both.len()).ok(),
                message: both
                    .is_empty()
                    .then(|| "no row has both an answer and a reference".to_owned()),
                ..MetricValue::default()
            });
            continue;
        }
        let (name, scores) = by_row(*metric, &both);
        if details.examples.is_empty() {
            details.examples = worst(name, &pairs, &scores);
        }
        metrics.push(mean(name, &scores, seed));
    }
    Ok(metrics)
}

/// Scores of single rows, 0 to 1.
fn by_row(metric: TextMetric, pairs: &[(&str, &str)]) -> (&'static str, Vec<f64>) {
    let yes = |b: bool| f64::from(u8::from(b));
    let (name, score): (_, fn(&str, &str) -> f64) = match metric {
        TextMetric::Exact => ("exact", |a, r| f64::from(u8::from(a == r))),
        TextMetric::Contains => {
            return (
                "contains",
                pairs.iter().map(|(a, r)| yes(a.contains(r))).collect(),
            );
        }
        TextMetric::Rouge1 => ("rouge1", |a, r| text::rouge_n(a, r, 1).f),
        TextMetric::Rouge2 => ("rouge2", |a, r| text::rouge_n(a, r, 2).f),
        TextMetric::RougeL => ("rougeL", |a, r| text::rouge_l(a, r).f),
        TextMetric::EditSimilarity => ("editSimilarity", text::levenshtein_similarity),
        TextMetric::TokenF1 | TextMetric::Regex | TextMetric::Bleu | TextMetric::ChrF => {
            ("tokenF1", text::token_f1)
        }
    };
    (name, pairs.iter().map(|(a, r)| score(a, r)).collect())
}

fn worst(name: &str, pairs: &[(usize, &str, &str)], scores: &[f64]) -> Vec<Example> {
    let mut order: Vec<usize> = (0..pairs.len()).filter(|&i| scores[i] < 1.0).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let short = |text: &str| crate::supervise::board::shorten(text, SHOWN);
    order
        .into_iter()
        .take(EXAMPLES)
        .map(|i| Example {
            row: pairs[i].0 + 1,
            why: format!("{name} {}", crate::api::verdict::short(scores[i])),
            answer: short(pairs[i].1),
            reference: Some(short(pairs[i].2)),
        })
        .collect()
}
