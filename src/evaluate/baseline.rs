//! A file of what was predicted for the same rows, which stands where stable would.

use super::{
    answer::Answers,
    column, enough,
    join::{keys, order, pick},
    rows::{predicted, read},
    text::{Column as Texts, cells},
};
use crate::{
    api::{evaluation::BaselinePredictions, run::EvaluationRunSpec},
    data::table::{Column, Source, Table},
    supervise::failure::Failure,
};

fn names(from: &BaselinePredictions) -> (&str, &str) {
    (
        from.prediction.as_deref().unwrap_or("prediction"),
        from.score.as_deref().unwrap_or("score"),
    )
}

/// Columns of the file, in the order of the rows that are measured; nothing where it doesn't have one.
fn aligned(
    spec: &EvaluationRunSpec,
    file: &Source,
    rows: &Table,
    columns: &[&str],
) -> Result<Table, Failure> {
    let keys = keys(spec)?;
    let found = read("baseline", file, &[columns, &keys].concat())?;
    let order = order(rows, (&found, "baseline"), &keys)?;
    let columns = columns.iter().map(|name| {
        Ok(Column {
            name: (*name).to_owned(),
            values: pick(&column(&found, name)?.values, &order),
        })
    });
    Ok(Table {
        columns: columns.collect::<Result<_, Failure>>()?,
        rows: rows.rows,
    })
}

fn whole(missing: usize, rows: &Table, spec: &EvaluationRunSpec) -> Result<(), Failure> {
    let share = spec.max_item_errors;
    enough(missing, rows.rows, share, "the baseline", "").map_err(Failure::permanent)
}

/// What it predicts for these rows.
///
/// # Errors
/// `InputUnreadable` for a file without such columns or keys, `TooManyUnanswered` where more than `maxItemErrors` of the rows aren't in it.
pub fn answers(
    spec: &EvaluationRunSpec,
    (from, file): (&BaselinePredictions, &Source),
    rows: &Table,
) -> Result<Answers, Failure> {
    let (prediction, score) = names(from);
    let said = (from.prediction.is_some(), from.score.is_some());
    let columns = predicted("baseline", file, [(prediction, said.0), (score, said.1)])?;
    let table = aligned(spec, file, rows, &columns)?;
    let answers = Answers::of_table(&table, (prediction, score), "baseline")?;
    whole(answers.missing(), rows, spec)?;
    Ok(answers)
}

/// What it says to these rows.
///
/// # Errors
/// As [`answers`].
pub fn texts(
    spec: &EvaluationRunSpec,
    (from, file): (&BaselinePredictions, &Source),
    rows: &Table,
) -> Result<Texts, Failure> {
    let (prediction, _) = names(from);
    let table = aligned(spec, file, rows, &[prediction])?;
    let texts = cells(&table, prediction)?;
    whole(texts.iter().filter(|t| t.is_none()).count(), rows, spec)?;
    Ok(texts)
}
