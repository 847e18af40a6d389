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

/// Unix seconds of a column that says when rows happened: a time, or a number of seconds, milli-, micro- or nanoseconds (told
/// apart by its size: seconds stay below 10¹¹ until the year 5138).
fn seconds(cell: Cell<'_>) -> Option<i64> {
    let number = match cell {
        Cell::Time(micros) => return Some(micros.div_euclid(1_000_000)),
        Cell::Integer(x) => x as f64,
        Cell::Number(x) if x.is_finite() => x,
        _ => return None,
    };
    let unit = match number.abs() {
        x if x < 1e11 => 1.0,
        x if x < 1e14 => 1e3,
        x if x < 1e17 => 1e6,
        _ => 1e9,
    };
    Some((number / unit).floor() as i64)
}

/// Profiles these columns in this order, without those that have no [`column_kind`]. With the column that says when rows
/// happened, the profile knows what windows of it look like, and which columns follow the calendar.
///
/// # Errors
/// If a column isn't there or the table is broken.
pub fn build(source: &Source, columns: &[&str], time: Option<&str>) -> Result<Profile> {
    let mut kept = Vec::new();
    for name in columns {
        if let Some(kind) = column_kind(source.field(name)?.kind) {
            kept.push((*name, kind));
        }
    }
    let names: Vec<&str> = kept.iter().map(|(name, _)| *name).collect();
    let mut builder = ProfileBuilder::new(kept);
    let read: Vec<&str> = names.iter().copied().chain(time).collect();
    source.scan(&read, |batch| {
        let mut cells = Vec::with_capacity(names.len());
        for row in 0..batch.rows {
            cells.clear();
            cells.extend(
                batch
                    .columns
                    .iter()
                    .take(names.len())
                    .map(|c| sketch_cell(c.values.cell(row))),
            );
            let time = batch.columns.get(names.len());
            builder.add_at(time.and_then(|c| seconds(c.values.cell(row))), &cells);
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
        let profile = build(&source, &["c", "t", "x", "late"], None).unwrap();
        let names: Vec<&str> = profile.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["c", "x", "late"]);
        assert_eq!((profile.rows, profile.columns[1].mean), (2, Some(2.0)));
        assert!(build(&source, &["nope"], None).is_err());
    }
    #[test]
    fn the_time_orders_rows_and_is_read_in_whatever_unit() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.csv");
        // Backwards in the file; x has a slow wave over the days.
        let rows: Vec<String> = (0..2_000i64)
            .rev()
            .map(|i| {
                let x = (i as f64 / 100.0).sin();
                let day = 1 + i / 100;
                format!(
                    "2013-01-{day:02}T{:02}:00:00Z,{},{x}\n",
                    i % 24,
                    1_357_000_000_000 + i * 864_000
                )
            })
            .collect();
        std::fs::write(&path, format!("t,ms,x\n{}", rows.concat())).unwrap();
        let source = Source::open(&path, None).unwrap();
        let total = |time| {
            let windows = build(&source, &["x"], Some(time)).unwrap().windows.unwrap();
            assert!(windows.timed);
            windows.total
        };
        assert!((18 * 86_400..20 * 86_400).contains(&total("t")));
        assert_eq!(total("ms"), 1_999 * 864);
        let ordered = build(&source, &["x"], None).unwrap().windows.unwrap();
        assert!(!ordered.timed && ordered.total == 2_000);
    }
}
