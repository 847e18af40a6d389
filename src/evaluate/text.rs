//! Texts: against a reference, a pattern or a JSON Schema, and personal data in them; those of a file, or a prompt's answers with stable's beside them.
//!
//! Each metric is a mean over the rows that both sides answered (and that have a reference, where it takes one), with a bootstrapped interval;
//! `bleu` and `chrF` are of all rows as one corpus.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use super::{
    column,
    details::{Details, Example},
    grounded, input_failure,
    paired::{self, Draws, Statistic, Values},
    texts::Texts,
};
use crate::{
    api::{
        evaluation::{JsonSchemaEvaluator, TextEvaluator, TextMetric},
        gate::MetricValue,
        run::EvaluationRunSpec,
    },
    data::table::{Cell, Table},
    stats::text::{self, Finding, Readability, pii},
    supervise::failure::Failure,
};

/// Examples kept.
const EXAMPLES: usize = 10;
/// Characters of one.
const SHOWN: usize = 400;
const NO_ANSWER: &str = "no row has an answer";
const NO_PAIR: &str = "no row has both an answer and a reference";

/// Answers by row, `None` where there is none, and what they are compared with.
pub struct Subject<'a> {
    /// The target's answers.
    pub own: &'a [Option<String>],
    /// Stable's to the same rows.
    pub stable: Option<&'a [Option<String>]>,
    /// References.
    pub references: Option<&'a [Option<String>]>,
    /// A group for each row: its day.
    pub days: Option<&'a [usize]>,
}

/// The texts of a column.
pub type Column = Vec<Option<String>>;

/// Measures what the evaluators ask for; gives the metrics, and how many rows all sides answered.
///
/// # Errors
/// `UnknownPattern` for a pattern or schema that can't be read, `NothingToMeasure` where a reference is needed and nobody names its column.
pub fn run(
    spec: &EvaluationRunSpec,
    texts: &Texts,
    details: &mut Details,
) -> Result<(Vec<MetricValue>, usize), Failure> {
    let (seed, subject) = (draws(spec), texts.subject());
    let mut metrics = Vec::new();
    for evaluator in &spec.evaluators {
        if let Some(evaluator) = &evaluator.text {
            for metric in &evaluator.metrics {
                metrics.extend(subject.compared(*metric, evaluator, seed, details)?);
            }
        }
        if let Some(evaluator) = &evaluator.json_schema {
            metrics.extend(subject.schema(evaluator, seed)?);
        }
        if evaluator.pii.is_some() {
            metrics.extend(subject.personal(seed, details));
        }
        if let Some(evaluator) = &evaluator.toxicity {
            let toxic = |answer: &str| text::toxicity(answer, &evaluator.words);
            metrics.extend(subject.found("toxicityRate", "toxic words", seed, toxic, details));
        }
        if let Some(evaluator) = &evaluator.injection {
            let orders = "orders to a model";
            metrics.extend(subject.found("injectionRate", orders, seed, text::injection, details));
            for name in &evaluator.columns {
                let column = texts.input(name).map(Vec::as_slice).unwrap_or_default();
                let alone = Subject {
                    own: column,
                    stable: None,
                    references: None,
                    days: subject.days,
                };
                let metric = format!("injectionRate.{name}");
                metrics.extend(alone.mean_where(
                    &metric,
                    (seed, "no row has a text"),
                    |_, text| Some(yes(text::injection(text).is_found())),
                ));
            }
        }
        if let Some(evaluator) = &evaluator.groundedness {
            metrics.extend(grounded::run(evaluator, texts, seed, details));
        }
    }
    metrics.extend(unanswered(subject.own, subject.stable));
    Ok((metrics, subject.answered().count()))
}

/// How this run's intervals are made.
#[must_use]
pub fn draws(spec: &EvaluationRunSpec) -> Draws {
    Draws {
        seed: spec.seed,
        peeked: spec.stop_when.is_some(),
    }
}

/// The texts of a column of a table.
///
/// # Errors
/// If it was not read.
pub fn cells(table: &Table, name: &str) -> Result<Column, Failure> {
    let values = &column(table, name)?.values;
    let text = |row: usize| match values.cell(row) {
        Cell::Null => None,
        cell => Some(cell.to_string()),
    };
    Ok((0..values.len()).map(text).collect())
}

impl<'a> Subject<'a> {
    /// Rows that every side answered, with what was said.
    pub fn answered(&self) -> impl Iterator<Item = (usize, &'a str, Option<&'a str>)> + use<'a> {
        let (own, stable) = (self.own, self.stable);
        own.iter().enumerate().filter_map(move |(row, answer)| {
            let answer = answer.as_deref()?;
            match stable {
                None => Some((row, answer, None)),
                Some(stable) => Some((row, answer, Some(stable[row].as_deref()?))),
            }
        })
    }

    /// Those that have a reference, too.
    fn referenced(&self, references: &'a [Option<String>]) -> Vec<Pair<'a>> {
        self.answered()
            .filter_map(|(row, own, stable)| {
                let reference = references[row].as_deref()?;
                Some(Pair {
                    row,
                    own,
                    stable,
                    reference,
                })
            })
            .collect()
    }

    /// The mean of a score of single answers.
    fn mean(&self, name: &str, seed: Draws, score: impl Fn(&str) -> f64) -> Vec<MetricValue> {
        self.mean_where(name, (seed, NO_ANSWER), |_, answer| Some(score(answer)))
    }

    /// The mean of a score over rows in which both sides have one.
    pub(super) fn mean_where(
        &self,
        name: &str,
        (seed, excuse): (Draws, &str),
        score: impl Fn(usize, &str) -> Option<f64>,
    ) -> Vec<MetricValue> {
        let mut values = self.none();
        for (row, own, stable) in self.answered() {
            let (own, stable) = (score(row, own), stable.map(|text| score(row, text)));
            let Some(own) = own else { continue };
            match stable {
                Some(None) => continue,
                Some(Some(stable)) => values.stable.get_or_insert_default().push(stable),
                None => {}
            }
            values.rows.push(row);
            values.own.push(own);
        }
        let mean = Statistic::Mean;
        paired::measure(name, &values, self.days, mean, (seed, excuse))
    }

    fn none(&self) -> Values {
        Values {
            stable: self.stable.map(|_| Vec::new()),
            ..Values::default()
        }
    }

    fn compared(
        &self,
        metric: TextMetric,
        evaluator: &TextEvaluator,
        seed: Draws,
        details: &mut Details,
    ) -> Result<Vec<MetricValue>, Failure> {
        if metric == TextMetric::Regex {
            let pattern = pattern(evaluator)?;
            return Ok(self.mean("regex", seed, |answer| yes(pattern.is_match(answer))));
        }
        if let Some((name, score)) = by_itself(metric) {
            let excuse = "no answer has a word";
            return Ok(self.mean_where(name, (seed, excuse), |_, answer| score(answer)));
        }
        let Some(references) = self.references else {
            return Err(input_failure(
                "NothingToMeasure",
                "the text evaluator compares with a reference, and nobody says which column has it: write dataset.reference or target.predictions.reference".to_owned(),
            ));
        };
        let pairs = self.referenced(references);
        let (name, score) = match metric {
            TextMetric::Bleu => {
                let bleu = |pairs: &[(&str, &str)]| text::corpus_bleu(pairs).score;
                return Ok(self.corpus("bleu", &pairs, bleu));
            }
            TextMetric::ChrF => {
                return Ok(self.corpus("chrF", &pairs, |pairs| text::chrf_corpus(pairs, 0)));
            }
            single => by_row(single),
        };
        let mut values = self.none();
        for pair in &pairs {
            values.rows.push(pair.row);
            values.own.push(score(pair.own, pair.reference));
            if let Some(stable) = pair.stable {
                let theirs = score(stable, pair.reference);
                values.stable.get_or_insert_default().push(theirs);
            }
        }
        if details.examples.is_empty() {
            details.examples = worst(name, &pairs, &values.own);
        }
        let mean = Statistic::Mean;
        Ok(paired::measure(
            name,
            &values,
            self.days,
            mean,
            (seed, NO_PAIR),
        ))
    }

    /// A score of all rows as one corpus.
    fn corpus(
        &self,
        name: &str,
        pairs: &[Pair<'_>],
        score: impl Fn(&[(&str, &str)]) -> f64,
    ) -> Vec<MetricValue> {
        let own: Vec<(&str, &str)> = pairs.iter().map(|p| (p.own, p.reference)).collect();
        let stable = pairs.iter().map(|p| Some((p.stable?, p.reference)));
        let stable: Option<Vec<(&str, &str)>> = stable.collect();
        let own = score(&own);
        let metric = |prefix: &str, value: f64| {
            let value = Some(value).filter(|x| x.is_finite() && !pairs.is_empty());
            MetricValue {
                name: format!("{prefix}{name}"),
                value,
                samples: i64::try_from(pairs.len()).ok(),
                message: value.is_none().then(|| NO_PAIR.to_owned()),
                ..MetricValue::default()
            }
        };
        let mut metrics = vec![metric("", own)];
        if let Some(stable) = stable.filter(|_| self.stable.is_some()) {
            let stable = score(&stable);
            metrics.push(metric("stable.", stable));
            metrics.push(metric("difference.", own - stable));
        }
        metrics
    }

    fn schema(
        &self,
        evaluator: &JsonSchemaEvaluator,
        seed: Draws,
    ) -> Result<Vec<MetricValue>, Failure> {
        let schema = Value::Object(evaluator.schema.0.clone());
        let validator = jsonschema::validator_for(&schema).map_err(|e| {
            input_failure(
                "UnknownPattern",
                format!("jsonSchema.schema can't be read: {e}"),
            )
        })?;
        Ok(self.mean("jsonSchemaRate", seed, |answer| {
            let value = serde_json::from_str::<Value>(answer);
            yes(value.is_ok_and(|v| validator.is_valid(&v)))
        }))
    }

    /// The share of answers in which a rule finds something; examples say what, and not the answer.
    fn found(
        &self,
        name: &str,
        what: &str,
        seed: Draws,
        rule: impl Fn(&str) -> Finding,
        details: &mut Details,
    ) -> Vec<MetricValue> {
        let own = self.answered().map(|(row, own, _)| (row, rule(own)));
        let shown = own.filter(|(_, finding)| finding.is_found());
        for (row, finding) in shown.take(EXAMPLES) {
            details.examples.push(Example {
                row: row + 1,
                why: format!("{what}: {}", finding.evidence.join(", ")),
                answer: "(not shown)".to_owned(),
                reference: None,
            });
        }
        self.mean(name, seed, |answer| yes(rule(answer).is_found()))
    }

    fn personal(&self, seed: Draws, details: &mut Details) -> Vec<MetricValue> {
        let found: Vec<(usize, Found, Option<Found>)> = self
            .answered()
            .map(|(row, own, stable)| (row, pii::entities(own), stable.map(pii::entities)))
            .collect();
        let rate = |name: &str, is: &dyn Fn(&Found) -> bool| {
            let values = Values {
                rows: found.iter().map(|(row, ..)| *row).collect(),
                own: found.iter().map(|(_, own, _)| yes(is(own))).collect(),
                stable: self.stable.map(|_| {
                    let theirs = found.iter().filter_map(|(.., stable)| stable.as_ref());
                    theirs.map(|f| yes(is(f))).collect()
                }),
            };
            let mean = Statistic::Mean;
            paired::measure(name, &values, self.days, mean, (seed, NO_ANSWER))
        };
        let mut metrics = rate("piiRate", &|f| !f.is_empty());
        for entity in pii::Entity::ALL {
            let name = format!("pii.{}", entity.name());
            let of = rate(&name, &|f| f.contains(&entity));
            if of.iter().any(|m| m.value.is_some_and(|x| x != 0.0)) {
                metrics.extend(of);
            }
        }
        let with = found.iter().filter(|(_, own, _)| !own.is_empty());
        for (row, entities, _) in with.take(EXAMPLES) {
            let names: Vec<&str> = entities.iter().map(|e| e.name()).collect();
            details.examples.push(Example {
                row: row + 1,
                why: format!("personal data: {}", names.join(", ")),
                // The answer itself is what must not be shown.
                answer: "(not shown)".to_owned(),
                reference: None,
            });
        }
        metrics
    }
}

/// Kinds of personal data in a text.
type Found = BTreeSet<pii::Entity>;

/// What both sides said of a row, and what they should have.
struct Pair<'a> {
    row: usize,
    own: &'a str,
    stable: Option<&'a str>,
    reference: &'a str,
}

fn yes(b: bool) -> f64 {
    f64::from(u8::from(b))
}

fn pattern(evaluator: &TextEvaluator) -> Result<Regex, Failure> {
    let wrong = |text: String| input_failure("UnknownPattern", text);
    let pattern = evaluator.pattern.as_deref();
    let pattern = pattern.ok_or_else(|| wrong("the metric regex needs text.pattern".to_owned()))?;
    Regex::new(pattern).map_err(|e| wrong(format!("text.pattern is no regular expression: {e}")))
}

/// A score of one answer, 0 to 1.
type Score = fn(&str, &str) -> f64;

/// A score of an answer by itself; none where it can't be told.
type Own = fn(&str) -> Option<f64>;

/// Scores that need no reference.
fn by_itself(metric: TextMetric) -> Option<(&'static str, Own)> {
    Some(match metric {
        TextMetric::RefusalRate => ("refusalRate", |a| Some(yes(text::refusal(a).is_found()))),
        TextMetric::ReadingEase => ("readingEase", |a| Readability::of(a).reading_ease()),
        TextMetric::ReadingGrade => ("readingGrade", |a| Readability::of(a).grade()),
        _ => return None,
    })
}

/// Scores of single rows.
fn by_row(metric: TextMetric) -> (&'static str, Score) {
    match metric {
        TextMetric::Exact => ("exact", |a, r| yes(a == r)),
        TextMetric::Contains => ("contains", |a, r| yes(a.contains(r))),
        TextMetric::Rouge1 => ("rouge1", |a, r| text::rouge_n(a, r, 1).f),
        TextMetric::Rouge2 => ("rouge2", |a, r| text::rouge_n(a, r, 2).f),
        TextMetric::RougeL => ("rougeL", |a, r| text::rouge_l(a, r).f),
        TextMetric::EditSimilarity => ("editSimilarity", text::levenshtein_similarity),
        TextMetric::TokenF1
        | TextMetric::Regex
        | TextMetric::Bleu
        | TextMetric::ChrF
        | TextMetric::RefusalRate
        | TextMetric::ReadingEase
        | TextMetric::ReadingGrade => ("tokenF1", text::token_f1),
    }
}

fn worst(name: &str, pairs: &[Pair<'_>], scores: &[f64]) -> Vec<Example> {
    let mut order: Vec<usize> = (0..pairs.len()).filter(|&i| scores[i] < 1.0).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let personal = |text: &str| !pii::entities(text).is_empty();
    let short = |text: &str| crate::supervise::board::shorten(text, SHOWN);
    order
        .into_iter()
        // Whether anybody asked about personal data or not: none is shown.
        .filter(|&i| !personal(pairs[i].own) && !personal(pairs[i].reference))
        .take(EXAMPLES)
        .map(|i| Example {
            row: pairs[i].row + 1,
            why: format!("{name} {}", crate::api::verdict::short(scores[i])),
            answer: short(pairs[i].own),
            reference: Some(short(pairs[i].reference)),
        })
        .collect()
}

/// Rows of each side without an answer.
fn unanswered(own: &[Option<String>], stable: Option<&[Option<String>]>) -> Vec<MetricValue> {
    let missing = |side: &[Option<String>]| side.iter().filter(|text| text.is_none()).count();
    let stable = stable.map(|side| ("stable.", missing(side)));
    let counts = std::iter::once(("", missing(own))).chain(stable);
    let metric = |name: String, value: f64| MetricValue {
        name,
        value: Some(value),
        samples: i64::try_from(own.len()).ok(),
        ..MetricValue::default()
    };
    let both = counts.flat_map(|(prefix, missing)| {
        let share = missing as f64 / own.len().max(1) as f64;
        [
            metric(format!("{prefix}unansweredRows"), missing as f64),
            metric(format!("{prefix}unansweredShare"), share),
        ]
    });
    both.collect()
}
