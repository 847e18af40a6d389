//! Two tables as one, row by row of the same key.

use std::collections::HashMap;

use super::input_failure;
use crate::{
    api::run::EvaluationRunSpec,
    data::table::{Column, Table, Values},
    supervise::failure::Failure,
};

/// The columns by which two files are joined.
///
/// # Errors
/// If nobody says.
pub fn keys(spec: &EvaluationRunSpec) -> Result<Vec<&str>, Failure> {
    let Some(key) = spec.key.as_deref().filter(|key| !key.is_empty()) else {
        return Err(input_failure(
            "InputUnreadable",
            "what belongs to a row is in two files: write dataset.key, the columns that say which row is which".to_owned(),
        ));
    };
    Ok(key.iter().map(String::as_str).collect())
}

fn row_key(table: &Table, keys: &[&str], row: usize) -> Result<String, Failure> {
    let mut text = String::new();
    for key in keys {
        text += &super::column(table, key)?.values.cell(row).to_string();
        text.push('\u{1f}');
    }
    Ok(text)
}

/// Where each key is: a row that counts twice would make a wrong number.
fn places(table: &Table, name: &str, keys: &[&str]) -> Result<HashMap<String, usize>, Failure> {
    let mut places = HashMap::with_capacity(table.rows);
    for row in 0..table.rows {
        if let Some(before) = places.insert(row_key(table, keys, row)?, row) {
            return Err(input_failure(
                "InputUnreadable",
                format!(
                    "{name}: row {} has the same {} as row {}: a key must be unique",
                    row + 1,
                    keys.join(", "),
                    before + 1
                ),
            ));
        }
    }
    Ok(places)
}

/// For each row of `left` (the dataset) the row of `right` with the same key; `None` where there is none.
///
/// # Errors
/// If a key is there twice on one side.
pub fn order(
    left: &Table,
    (right, name): (&Table, &str),
    keys: &[&str],
) -> Result<Vec<Option<usize>>, Failure> {
    places(left, "dataset", keys)?;
    let places = places(right, name, keys)?;
    let place = |row: usize| Ok(places.get(&row_key(left, keys, row)?).copied());
    (0..left.rows).map(place).collect()
}

/// Adds the columns of `right` (the predictions) to `left` (the dataset), row by row of the same key.
///
/// # Errors
/// If a key is there twice on one side, or a row of the dataset has no prediction.
pub fn join(mut left: Table, right: &Table, keys: &[&str]) -> Result<Table, Failure> {
    let order = order(&left, (right, "predictions"), keys)?;
    let missing = order.iter().filter(|place| place.is_none()).count();
    if missing > 0 {
        return Err(input_failure(
            "InputUnreadable",
            format!(
                "{missing} of {} rows of the dataset have no prediction of the same {}: predict all of them, or take them out",
                left.rows,
                keys.join(", ")
            ),
        ));
    }
    for column in right
        .columns
        .iter()
        .filter(|c| !keys.contains(&c.name.as_str()))
    {
        if left.column(&column.name).is_some() {
            continue;
        }
        left.columns.push(Column {
            name: column.name.clone(),
            values: pick(&column.values, &order),
        });
    }
    Ok(left)
}

/// These rows, in this order; nothing where there is none.
#[must_use]
pub fn pick(values: &Values, order: &[Option<usize>]) -> Values {
    fn take<T: Clone>(values: &[Option<T>], order: &[Option<usize>]) -> Vec<Option<T>> {
        let at = |place: &Option<usize>| place.and_then(|i| values.get(i).cloned().flatten());
        order.iter().map(at).collect()
    }
    match values {
        Values::Integer(v) => Values::Integer(take(v, order)),
        Values::Time(v) => Values::Time(take(v, order)),
        Values::Number(v) => Values::Number(take(v, order)),
        Values::Text(v) => Values::Text(take(v, order)),
        Values::Boolean(v) => Values::Boolean(take(v, order)),
    }
}
