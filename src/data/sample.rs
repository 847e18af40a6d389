//! Columns of tables as drift compares them, in one pass over the table.

use super::{
    Error, Result,
    table::{Cell, Column, Field, Kind, Source, Values},
};
use crate::stats::drift::{Form, Sample, SampleBuilder};

/// What a column is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// What it is: numbers and times as numbers, text and booleans as categories.
    Itself,
    /// Floats: `true` is 1, text is missing.
    Floats,
    /// Categories, as values are written.
    Categories,
}

/// Reads columns in one pass, each into its sample: all of its values, or if `bounded` a sketch of a bounded size.
///
/// # Errors
/// As [`Source::scan`].
pub fn samples(source: &Source, columns: &[(&str, As)], bounded: bool) -> Result<Vec<Sample>> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let rows = usize::try_from(source.rows()).unwrap_or(usize::MAX);
    let mut builders = Vec::with_capacity(columns.len());
    for (name, way) in columns {
        let form = form(source.field(name)?, *way);
        builders.push(if bounded {
            SampleBuilder::bounded(form)
        } else {
            // What a file says of its rows is believed only so far.
            SampleBuilder::exact(form, rows.min(1 << 22))
        });
    }
    source.scan(&names, |batch| {
        if batch.columns.len() != builders.len() {
            return Err(Error::Invalid("a column is asked for twice".to_owned()));
        }
        for ((builder, column), (_, way)) in builders.iter_mut().zip(&batch.columns).zip(columns) {
            fill(builder, column, *way);
        }
        Ok(())
    })?;
    Ok(builders.into_iter().map(SampleBuilder::finish).collect())
}

fn form(field: &Field, way: As) -> Form {
    match (way, field.kind) {
        (As::Categories, _) | (As::Itself, Kind::Text | Kind::Boolean | Kind::Other) => {
            Form::Category
        }
        (As::Itself, Kind::Integer) => Form::Integer,
        (As::Itself | As::Floats, Kind::Number) if field.single => Form::Single,
        (As::Itself | As::Floats, _) => Form::Double,
    }
}

fn fill(builder: &mut SampleBuilder, column: &Column, way: As) {
    let values = &column.values;
    let cells = (0..values.len()).map(|row| values.cell(row));
    match (way, values) {
        (As::Categories, Values::Text(v)) | (As::Itself, Values::Text(v)) => {
            v.iter().for_each(|text| builder.category(text.as_deref()));
        }
        (As::Categories, _) | (As::Itself, Values::Boolean(_)) => cells.for_each(|cell| {
            let word = match cell {
                Cell::Boolean(true) => Some("true"),
                Cell::Boolean(false) => Some("false"),
                cell if cell.is_missing() => None,
                cell => return builder.category(Some(&cell.to_string())),
            };
            builder.category(word);
        }),
        (As::Itself, Values::Integer(v)) => v.iter().for_each(|x| builder.integer(*x)),
        (_, Values::Number(v)) => v.iter().for_each(|x| builder.number(*x)),
        (As::Itself | As::Floats, _) => cells.for_each(|cell| builder.number(cell.number())),
    }
}
