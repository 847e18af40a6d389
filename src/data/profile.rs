//! Profiles of tables: what travels with a model version, and live traffic is compared to.

use super::{
    Result,
    table::{Cell, Kind, Source},
};
use crate::stats::{
    profile::{Profile, ProfileBuilder},
    sketch::{Cell as SketchCell, ColumnKind},
};

/// How a column is compared; `None` for times (which only go forward) and what is no column.
#[must_use]
pub fn column_kind(kind: Kind) -> Option<ColumnKind> {
    match kind {
        Kind::Integer | Kind::Number => Some(ColumnKind::Numeric),
        Kind::Text | Kind::Boolean => Some(ColumnKind::Categorical),
        Kind::Time | Kind::Other => None,
    }
}

/// A value as sketches take it.
#[must_use]
pub fn sketch_cell(cell: Cell<'_>) -> SketchCell<'_> {
    match cell {
        Cell::Null => SketchCell::Null,
        Cell::Integer(x) | Cell::Time(x) => SketchCell::Number(x as f64),
        Cell::Number(x) => SketchCell::Number(x),
        Cell::Text(x) => SketchCell::Text(x),
        Cell::Boolean(x) => SketchCell::Bool(x),
    }
}

/// Profiles these columns in this order, without those that have no [`column_kind`].
///
/// # Errors
/// If a column isn't there or the table is broken.
pub fn build(source: &Source, columns: &[&str]) -> Result<Profile> {
    let mut kept = Vec::new();
    for name in columns {
        if let Some(kind) = column_kind(source.field(name)?.kind) {
            kept.push((*name, kind));
        }
    }
    let names: Vec<&str> = kept.iter().map(|(name, _)| *name).collect();
    let mut builder = ProfileBuilder::new(kept);
    source.scan(&names, |batch| {
        let mut cells = Vec::with_capacity(names.len());
        for row in 0..batch.rows {
            cells.clear();
            cells.extend(
                batch
                    .columns
                    .iter()
                    .map(|c| sketch_cell(c.values.cell(row))),
            );
            builder.add(&cells);
        }
        Ok(())
    })?;
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_the_columns_in_the_order_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.csv");
        std::fs::write(
            &path,
            "t,x,c,late\n2013-01-01,1,a,true\n2013-01-02,3,b,false\n",
        )
        .unwrap();
        let source = Source::open(&path, None).unwrap();
        let profile = build(&source, &["c", "t", "x", "late"]).unwrap();
        let names: Vec<&str> = profile.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["c", "x", "late"]);
        assert_eq!((profile.rows, profile.columns[1].mean), (2, Some(2.0)));
        assert!(build(&source, &["nope"]).is_err());
    }
}
