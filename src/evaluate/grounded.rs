//! Whether answers keep to their context and to the question, by words and facts: `grounded.lexical`, `grounded.facts`, and with a question
//! `relevance.answer` and `relevance.context`. The definitions are [`crate::stats::text::grounded`]'s.

use super::{
    details::{Details, Example},
    paired::Draws,
    texts::Texts,
};
use crate::{
    api::{evaluation::GroundednessEvaluator, gate::MetricValue},
    stats::text::{
        grounded::{self, Terms},
        pii,
    },
    supervise::board::shorten,
};

/// Examples kept.
const EXAMPLES: usize = 5;
/// Characters of one.
const SHOWN: usize = 300;

/// Measures all answers.
#[must_use]
pub fn run(
    evaluator: &GroundednessEvaluator,
    texts: &Texts,
    seed: Draws,
    details: &mut Details,
) -> Vec<MetricValue> {
    let contexts = |row: usize| -> Vec<&str> {
        let columns = evaluator
            .context
            .iter()
            .filter_map(|name| texts.input(name));
        columns
            .filter_map(|column| column[row].as_deref())
            .collect()
    };
    let asked = evaluator
        .question
        .as_ref()
        .and_then(|name| texts.input(name));
    let question = |row: usize| asked.and_then(|column| column[row].as_deref());
    let mut metrics = measure("grounded.lexical", texts, seed, |row, answer| {
        grounded::lexical(answer, &contexts(row)).map(|(score, _)| score)
    });
    metrics.extend(measure("grounded.facts", texts, seed, |row, answer| {
        let mut sources = contexts(row);
        sources.extend(question(row));
        grounded::facts(answer, &sources).map(|(score, _)| score)
    }));
    if let Some(asked) = asked {
        let terms = Terms::of(asked.iter().flatten().map(String::as_str));
        metrics.extend(measure("relevance.answer", texts, seed, |row, answer| {
            terms.overlap(question(row)?, &[answer])
        }));
        metrics.extend(measure("relevance.context", texts, seed, |row, _| {
            terms.overlap(question(row)?, &contexts(row))
        }));
    }
    let personal = |text: &str| !pii::entities(text).is_empty();
    let unsupported = texts.subject().answered().filter_map(|(row, answer, _)| {
        let mut sources = contexts(row);
        sources.extend(question(row));
        let (score, missing) = grounded::facts(answer, &sources)?;
        let shown = !missing.is_empty() && !personal(answer);
        shown.then(|| (score, row, answer.to_owned(), missing))
    });
    let mut unsupported: Vec<_> = unsupported.collect();
    unsupported.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, row, answer, missing) in unsupported.into_iter().take(EXAMPLES) {
        details.examples.push(Example {
            row: row + 1,
            why: shorten(
                &format!("not in the context: {}", missing.join(", ")),
                SHOWN,
            ),
            answer: shorten(&answer, SHOWN),
            reference: None,
        });
    }
    metrics
}

fn measure(
    name: &str,
    texts: &Texts,
    seed: Draws,
    score: impl Fn(usize, &str) -> Option<f64>,
) -> Vec<MetricValue> {
    let excuse = "no answer says anything that could be looked up";
    texts.subject().mean_where(name, (seed, excuse), score)
}
