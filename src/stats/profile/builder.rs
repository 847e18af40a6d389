//! Rows in, profile out.

use super::calendar::Calendar;
use super::sample::Sample;
use super::windows::{Windows, cells};
use super::{ColumnProfile, Profile, season};
use crate::stats::drift::live::Grid;
use crate::stats::sketch::{CategorySketch, Cell, ColumnKind, ColumnSketch, MAX_COLUMNS};

/// Collects the rows of a data set, in their order, into a [`Profile`]. Memory is bounded: sketches, and a sample of at most
/// 200,000 rows and four million values for the null.
#[derive(Clone, Debug)]
pub struct ProfileBuilder {
    rows: u64,
    columns: Vec<(String, ColumnSketch)>,
    sample: Sample,
}

impl ProfileBuilder {
    /// A builder for these columns, in the order in which rows will come; those beyond 200 are left out.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, ColumnKind)>) -> Self {
        let columns: Vec<_> = columns
            .into_iter()
            .take(MAX_COLUMNS)
            .map(|(name, kind)| (name.to_string(), ColumnSketch::new(kind)))
            .collect();
        Self {
            rows: 0,
            sample: Sample::new(columns.iter().map(|c| c.1.kind())),
            columns,
        }
    }

    /// Adds one row, cells in the order of the columns; missing cells are nulls.
    pub fn add(&mut self, row: &[Cell<'_>]) {
        self.add_at(None, row);
    }

    /// Adds one row that happened at a Unix time in seconds, if that is known.
    pub fn add_at(&mut self, time: Option<i64>, row: &[Cell<'_>]) {
        self.sample.add(self.rows, time, row);
        self.rows += 1;
        for (i, (_, sketch)) in self.columns.iter_mut().enumerate() {
            sketch.add(row.get(i).copied().unwrap_or(Cell::Null));
        }
    }

    /// The profile, with the null of each column.
    #[must_use]
    pub fn finish(self) -> Profile {
        let places = self.sample.places();
        let windows = Windows::of(&places, self.rows);
        let groups = season::groups(self.columns.len());
        let columns = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (name, sketch))| {
                let mut profile = ColumnProfile::from_sketch(name, sketch);
                profile.calendar = Calendar::of(&places, self.sample.values(i));
                if let Some(grid) = Grid::of(&profile) {
                    let hashes: Vec<u64> = profile
                        .categories
                        .iter()
                        .take(grid.cells() - 1)
                        .map(|c| CategorySketch::hash_of(&c.name))
                        .collect();
                    let cells = cells(&grid, &hashes, self.sample.values(i));
                    profile.null = windows.null(&places, &grid, &cells);
                    profile.season = windows.seasonal(&places, &grid, &cells, groups);
                }
                profile
            })
            .collect();
        let mut profile = Profile {
            rows: self.rows,
            columns,
            windows: Some(windows),
        };
        profile.bound();
        profile
    }
}
