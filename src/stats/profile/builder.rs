//! Rows in, profile out.

use super::noise::Blocks;
use super::{ColumnProfile, Profile};
use crate::stats::sketch::{Cell, ColumnKind, ColumnSketch, MAX_COLUMNS};

/// Collects the rows of a data set, in their order, into a [`Profile`]. Memory is bounded: sketches, and at most
/// 50,000 rows (whole blocks, evenly spread) for the noise.
#[derive(Clone, Debug)]
pub struct ProfileBuilder {
    rows: u64,
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    sketch: ColumnSketch,
    blocks: Blocks,
}

impl ProfileBuilder {
    /// A builder for these columns, in the order in which rows will come; those beyond 200 are left out.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, ColumnKind)>) -> Self {
        let columns = columns
            .into_iter()
            .take(MAX_COLUMNS)
            .map(|(name, kind)| Column {
                name: name.to_string(),
                sketch: ColumnSketch::new(kind),
                blocks: Blocks::default(),
            })
            .collect();
        Self { rows: 0, columns }
    }

    /// Adds one row, cells in the order of the columns; missing cells are nulls.
    pub fn add(&mut self, row: &[Cell<'_>]) {
        let index = self.rows;
        self.rows += 1;
        for (i, column) in self.columns.iter_mut().enumerate() {
            let cell = row.get(i).copied().unwrap_or(Cell::Null);
            column.sketch.add(cell);
            column.blocks.add(index, cell, column.sketch.kind());
        }
    }

    /// The profile, with the noise of each column.
    #[must_use]
    pub fn finish(self) -> Profile {
        let columns = self
            .columns
            .into_iter()
            .map(
                |Column {
                     name,
                     sketch,
                     blocks,
                 }| {
                    let mut profile = ColumnProfile::from_sketch(&name, &sketch);
                    profile.noise = blocks.noise(&profile);
                    profile
                },
            )
            .collect();
        let mut profile = Profile {
            rows: self.rows,
            columns,
        };
        profile.bound();
        profile
    }
}
