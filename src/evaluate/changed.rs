//! Rows that stable answers otherwise: an average that stays where it was may hide many that changed places.

use serde::Serialize;

use super::{
    measure::{Columns, Compared},
    rows::Rows,
    truth::Truth,
};
use crate::{api::verdict::short, supervise::board::shorten};

/// Rows shown of those that got worse, and of those that got better.
const SHOWN: usize = 10;
/// Columns shown of a row, and bytes of them.
const COLUMNS: usize = 8;
const BYTES: usize = 200;

/// What became of rows that both sides answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Rows that both answered.
    pub rows: usize,
    /// Rows that stable answers right (a number: nearer the truth) and this model doesn't.
    pub worse: usize,
    /// Rows that this model answers right (or nearer), and stable doesn't.
    pub better: usize,
    /// The furthest of both, those that got worse first.
    pub examples: Vec<Example>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    /// Its row, from 1.
    pub row: usize,
    /// Whether it got worse.
    pub worse: bool,
    /// What is true.
    pub label: String,
    /// What stable says.
    pub stable: String,
    /// What this model says.
    pub answer: String,
    /// What the model is given, shortened.
    pub inputs: String,
}

/// What changed against stable; `None` without it.
#[must_use]
pub fn of(rows: &Rows, truth: &Truth, compared: &Compared) -> Option<Changed> {
    let stable = compared.stable.as_ref()?;
    // How far each row moved away from the truth, and towards it if negative: of classes at least 1, and by as much as the score moved.
    let moved: Vec<f64> = (0..compared.kept.len())
        .map(|i| match truth {
            Truth::Binary { .. } => {
                let wrong =
                    |c: &Columns| f64::from(u8::from(c.predicted[i] != compared.classes[i]));
                let turned = wrong(&compared.own) - wrong(stable);
                turned * (1.0 + apart(&compared.own, stable, i))
            }
            Truth::Multi { .. } => {
                let wrong = |c: &Columns| f64::from(u8::from(c.kinds[i] != compared.kinds[i]));
                wrong(&compared.own) - wrong(stable)
            }
            Truth::Number(_) => {
                let off = |c: &Columns| (c.numbers[i] - compared.numbers[i]).abs();
                off(&compared.own) - off(stable)
            }
        })
        .collect();
    let mut order: Vec<usize> = (0..moved.len()).collect();
    order.sort_by(|&a, &b| moved[b].total_cmp(&moved[a]));
    let worse = order.iter().take_while(|&&i| moved[i] > 0.0).count();
    let better = order.iter().rev().take_while(|&&i| moved[i] < 0.0).count();
    let shown = order[..worse.min(SHOWN)]
        .iter()
        .chain(order.iter().rev().take(better.min(SHOWN)));
    let examples = shown.map(|&i| Example {
        row: compared.kept[i] + 1,
        worse: moved[i] > 0.0,
        label: label(truth, compared, i),
        stable: said(truth, compared, stable, i),
        answer: said(truth, compared, &compared.own, i),
        inputs: inputs(rows, compared.kept[i]),
    });
    Some(Changed {
        rows: moved.len(),
        worse,
        better,
        examples: examples.collect(),
    })
}

/// How far the scores of a row are apart; 0 without them.
fn apart(own: &Columns, stable: &Columns, i: usize) -> f64 {
    let scores = own.scores.as_ref().zip(stable.scores.as_ref());
    scores.map_or(0.0, |(own, stable)| (own[i] - stable[i]).abs())
}

fn label(truth: &Truth, compared: &Compared, i: usize) -> String {
    match truth {
        Truth::Binary { name, .. } => class(name, compared.classes[i]),
        Truth::Multi { .. } => compared.labels[compared.kinds[i]].clone(),
        Truth::Number(_) => short(compared.numbers[i]),
    }
}

fn said(truth: &Truth, compared: &Compared, columns: &Columns, i: usize) -> String {
    match truth {
        Truth::Binary { name, .. } => {
            let class = class(name, columns.predicted[i]);
            match &columns.scores {
                Some(scores) => format!("{class} ({})", short(scores[i])),
                None => class,
            }
        }
        Truth::Multi { .. } => compared.labels[columns.kinds[i]].clone(),
        Truth::Number(_) => short(columns.numbers[i]),
    }
}

/// A class by name: the positive one, or that it isn't it.
fn class(name: &str, positive: bool) -> String {
    if positive {
        name.to_owned()
    } else {
        format!("not {name}")
    }
}

fn inputs(rows: &Rows, row: usize) -> String {
    let columns = rows
        .features
        .iter()
        .filter_map(|name| rows.table.columns.iter().find(|c| c.name == *name));
    let cells = columns
        .take(COLUMNS)
        .map(|c| format!("{} {}", c.name, c.values.cell(row)));
    shorten(&cells.collect::<Vec<_>>().join(", "), BYTES)
}
