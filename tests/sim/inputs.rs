//! What callers send to a model, and what it was trained on: one column that shifts, and one that doesn't.

use std::sync::LazyLock;

use perennial::stats::{
    profile::ProfileBuilder,
    sketch::{Cell, ColumnKind, RowSketch},
};
use serde_json::Value;

/// Names and kinds.
const COLUMNS: [(&str, ColumnKind); 2] =
    [("age", ColumnKind::Numeric), ("size", ColumnKind::Numeric)];

/// Row number `n`: the same distribution always, but for the shift.
fn row(n: usize, shifted: bool) -> [f64; 2] {
    let at = |step: usize| (n * step % 101) as f64;
    [at(37) + if shifted { 60.0 } else { 0.0 }, at(53)]
}

/// Profiles of data that aren't shifted, and that are.
pub static PROFILES: LazyLock<[Value; 2]> = LazyLock::new(|| {
    [false, true].map(|shifted| {
        let mut builder = ProfileBuilder::new(COLUMNS);
        for n in 0..2_000 {
            builder.add(&row(n, shifted).map(Cell::Number));
        }
        serde_json::to_value(builder.finish()).expect("a profile")
    })
});

/// Counts a row of a request.
pub fn add(rows: &mut Option<RowSketch>, n: usize, shifted: bool) {
    let rows = rows.get_or_insert_with(|| RowSketch::new(COLUMNS));
    let cells = row(n, shifted).map(Cell::Number);
    rows.add(COLUMNS.iter().map(|(name, _)| *name).zip(cells));
}
