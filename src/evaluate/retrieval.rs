//! Rankings: how good the order is that the predictions give to each question's rows, as means over the questions.
//!
//! The baseline is an order at random. A question without a relevant row says nothing, and is left out.

use std::collections::HashMap;

use super::{
    column,
    details::Details,
    input_failure,
    measure::{Columns, Compared},
    paired::{self, Statistic, Values},
    rows::Rows,
    truth::Truth,
};
use crate::{
    api::{evaluation::RetrievalEvaluator, gate::MetricValue},
    stats::ranking::{Question, average_precision, ndcg, precision_at, recall_at, reciprocal_rank},
    supervise::failure::Failure,
};

/// Items that are looked at, where the spec doesn't say.
const FIRST: i32 = 10;

/// A measure of one question, where it is defined.
type Measure<'a> = dyn Fn(&Question) -> Option<f64> + 'a;

/// Measures both sides on the questions that have a relevant row.
///
/// # Errors
/// `UnknownLabel` for labels of several classes, `InputUnreadable` for what is worth less than nothing.
pub fn run(
    evaluator: &RetrievalEvaluator,
    rows: &Rows,
    truth: &Truth,
    compared: &Compared,
    (seed, details): (u64, &mut Details),
) -> Result<Vec<MetricValue>, Failure> {
    let worth = worth(truth, compared)?;
    let questions = questions(evaluator, rows, compared)?;
    let rank = |scores: &[f64]| -> Vec<Question> {
        let of = |items: &Vec<usize>| {
            let pick = |all: &[f64]| items.iter().map(|&item| all[item]).collect::<Vec<f64>>();
            Question::new(&pick(&worth), &pick(scores))
        };
        questions.iter().map(of).collect()
    };
    let own = rank(&scores(&compared.own));
    let stable = compared.stable.as_ref().map(|s| rank(&scores(s)));
    let random = rank(&vec![0.0; worth.len()]);
    let k = usize::try_from(evaluator.k.unwrap_or(FIRST)).unwrap_or(1);
    let empty = own.iter().filter(|q| reciprocal_rank(q).is_none()).count();
    if empty > 0 {
        details.notes.push(format!(
            "Retrieval: {empty} of {} questions have no relevant row and are left out.",
            own.len()
        ));
    }
    let measures: [(&str, &Measure<'_>); 5] = [
        ("retrieval.ndcg", &|q| ndcg(q, Some(k))),
        ("retrieval.map", &average_precision),
        ("retrieval.mrr", &reciprocal_rank),
        ("retrieval.recall", &|q| recall_at(q, k)),
        ("retrieval.precision", &|q| {
            reciprocal_rank(q).and(precision_at(q, k))
        }),
    ];
    let mut metrics = Vec::new();
    for (name, measure) in measures {
        let mut values = Values {
            stable: stable.as_ref().map(|_| Vec::new()),
            ..Values::default()
        };
        let (mut sum, mut count) = (0.0, 0.0);
        for (place, items) in questions.iter().enumerate() {
            let theirs = stable.as_ref().map(|all| measure(&all[place]));
            // Whether it is defined depends on the labels only, which are the same on both sides.
            let (Some(value), Some(first)) = (measure(&own[place]), items.first()) else {
                continue;
            };
            values.rows.push(compared.kept[*first]);
            values.own.push(value);
            if let (Some(stable), Some(theirs)) = (&mut values.stable, theirs.flatten()) {
                stable.push(theirs);
            }
            sum += measure(&random[place]).unwrap_or_default();
            count += 1.0;
        }
        let excuse = (seed, "no question has a relevant row");
        let days = rows.days.as_deref();
        let samples = i64::try_from(values.rows.len()).ok();
        metrics.extend(paired::measure(
            name,
            &values,
            days,
            Statistic::Mean,
            excuse,
        ));
        metrics.push(MetricValue {
            name: format!("baseline.{name}"),
            value: (count > 0.0).then(|| sum / count),
            samples,
            ..MetricValue::default()
        });
    }
    Ok(metrics)
}

/// What each row that counts is worth.
fn worth(truth: &Truth, compared: &Compared) -> Result<Vec<f64>, Failure> {
    match truth {
        Truth::Binary { .. } => {
            let worth = |relevant: &bool| f64::from(u8::from(*relevant));
            Ok(compared.classes.iter().map(worth).collect())
        }
        Truth::Number(_) => match compared.numbers.iter().find(|x| **x < 0.0) {
            Some(negative) => Err(input_failure(
                "InputUnreadable",
                format!(
                    "retrieval: the label says what a row is worth, and one is worth {negative}: write 0 for what isn't relevant, and more for what is"
                ),
            )),
            None => Ok(compared.numbers.clone()),
        },
        Truth::Multi { .. } => Err(input_failure(
            "UnknownLabel",
            "retrieval: the label says what a row is worth, and it has several classes: write a number, or which class is relevant, evaluators: [{classification: {positive: …}}]".to_owned(),
        )),
    }
}

/// What orders the rows.
fn scores(columns: &Columns) -> Vec<f64> {
    match &columns.scores {
        Some(scores) => scores.clone(),
        None if columns.numbers.is_empty() => columns
            .predicted
            .iter()
            .map(|positive| f64::from(u8::from(*positive)))
            .collect(),
        None => columns.numbers.clone(),
    }
}

/// Rows of each question, as places among those that count.
fn questions(
    evaluator: &RetrievalEvaluator,
    rows: &Rows,
    compared: &Compared,
) -> Result<Vec<Vec<usize>>, Failure> {
    let name = &evaluator.question;
    let values = &column(&rows.table, name)?.values;
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut questions: Vec<Vec<usize>> = Vec::new();
    for (item, &row) in compared.kept.iter().enumerate() {
        let cell = values.cell(row);
        if cell.is_missing() {
            return Err(input_failure(
                "InputUnreadable",
                format!(
                    "retrieval: row {} has no `{name}`, which says to which question it belongs",
                    row + 1
                ),
            ));
        }
        let place = *places.entry(cell.to_string()).or_insert(questions.len());
        if place == questions.len() {
            questions.push(Vec::new());
        }
        questions[place].push(item);
    }
    Ok(questions)
}
