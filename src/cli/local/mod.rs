//! `perennial drift --reference A --current B` and `perennial eval -f FILE`: without a cluster, by the code that runs in one.
//!
//! Exit codes: 0 no drift, or the gates passed; 1 drift, or a gate failed; 2 it could not be measured; 3 too little data for a verdict.

mod drift;
mod eval;

use clap::ValueEnum;

pub use drift::{DriftFiles, drift};
pub use eval::{EvalFiles, eval};

/// It could not be measured.
pub(super) const UNMEASURED: u8 = 2;
/// Too little data for a verdict.
const INCONCLUSIVE: u8 = 3;
/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// One self-contained page.
    Html,
}

/// Columns of equal width.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |i: usize| {
        rows.iter()
            .map(|row| row[i].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
