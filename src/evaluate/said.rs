//! What was said of each row, as a file beside the report (`outputPredictions`): a later run can name this one as `baseline.run`.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};

use super::{
    answer::{Answer, Answers},
    join::keys,
    text::Column as Texts,
    truth::Truth,
};
use crate::{
    api::run::EvaluationRunSpec,
    data::table::{Cell, Table},
    supervise::failure::Failure,
};

/// Columns of the file beside those of the key; as [`super::baseline`] reads them.
const COLUMNS: [&str; 2] = ["prediction", "score"];

/// A line of JSON for each row: its key, and what a model says. The probability of the positive class where there is one, as then the
/// threshold of whoever compares is what decides; else the class or number.
///
/// # Errors
/// A sentence, if the rows have no key, or one named as what is written.
pub fn answers(
    spec: &EvaluationRunSpec,
    rows: &Table,
    truth: &Truth,
    said: &Answers,
) -> Result<Vec<u8>, String> {
    let place = match truth {
        Truth::Binary { name, .. } => said.classes.iter().position(|class| class == name),
        Truth::Multi { .. } | Truth::Number(_) => None,
    };
    let score = |answer: &Answer| match truth {
        Truth::Binary { .. } => answer.probabilities.get(place.unwrap_or(0)).copied(),
        Truth::Multi { .. } | Truth::Number(_) => None,
    };
    let likeliest = |answer: &Answer| {
        let all = answer.probabilities.iter().zip(&said.classes);
        all.max_by(|a, b| a.0.total_cmp(b.0))
            .map(|(_, class)| class.clone())
    };
    file(spec, rows, |row| {
        let answer = said.rows.get(row)?.as_ref()?;
        Some(match (truth, score(answer)) {
            (_, Some(score)) => ("score", json!(score)),
            (Truth::Number(_), None) => ("prediction", json!(answer.number)),
            (Truth::Binary { .. } | Truth::Multi { .. }, None) => {
                let class = answer.class.clone().or_else(|| likeliest(answer));
                ("prediction", json!(class))
            }
        })
    })
}

/// The same of texts.
///
/// # Errors
/// As [`answers`].
pub fn texts(spec: &EvaluationRunSpec, rows: &Table, said: &Texts) -> Result<Vec<u8>, String> {
    file(spec, rows, |row| {
        Some(("prediction", json!(said.get(row)?)))
    })
}

fn file(
    spec: &EvaluationRunSpec,
    rows: &Table,
    said: impl Fn(usize) -> Option<(&'static str, Value)>,
) -> Result<Vec<u8>, String> {
    let keys = keys(spec).map_err(|failure: Failure| failure.message)?;
    if let Some(key) = keys.iter().find(|key| COLUMNS.contains(key)) {
        return Err(format!(
            "a column of dataset.key is named {key}, as what was predicted would be: give it another name"
        ));
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for row in 0..rows.rows {
        let mut line = Map::new();
        for key in &keys {
            let column = super::column(rows, key).map_err(|failure| failure.message)?;
            line.insert((*key).to_owned(), value(column.values.cell(row)));
        }
        let (name, said) = said(row).unwrap_or(("prediction", Value::Null));
        line.insert(name.to_owned(), said);
        let text = Value::Object(line).to_string();
        let written = encoder.write_all(text.as_bytes());
        written
            .and_then(|()| encoder.write_all(b"\n"))
            .map_err(|error| error.to_string())?;
    }
    encoder.finish().map_err(|error| error.to_string())
}

/// A key that is read again as what it was.
fn value(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(x) => json!(x),
        Cell::Number(x) => json!(x),
        Cell::Boolean(x) => json!(x),
        Cell::Text(_) | Cell::Time(_) => json!(cell.to_string()),
    }
}
