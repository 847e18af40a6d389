//! A bounded sample of a data set's rows, with their places in its order.

use crate::stats::random::mix;
use crate::stats::sketch::{CategorySketch, Cell, ColumnKind};

/// Values kept at most, over all columns: 32 MB.
const MAX_VALUES: usize = 4_000_000;
/// Rows kept at most.
const MAX_ROWS: usize = 200_000;
/// A row without a time.
const NO_TIME: i64 = i64::MIN;

/// Rows kept: all while they fit, then those with the luckiest hash of their number, so that no order of the file matters.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    most: usize,
    level: u32,
    indices: Vec<u64>,
    times: Vec<i64>,
    columns: Vec<(ColumnKind, Vec<Kept>)>,
}

/// A value: enough to tell its cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kept {
    Missing,
    Number(f64),
    Category(u64),
}

/// Where rows stand: their times in seconds, or their numbers.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Ascending: (place, row of the sample).
    pub(super) rows: Vec<(i64, u32)>,
    pub(super) timed: bool,
}

impl Sample {
    pub(super) fn new(kinds: impl IntoIterator<Item = ColumnKind>) -> Self {
        let columns: Vec<_> = kinds.into_iter().map(|kind| (kind, Vec::new())).collect();
        Self {
            most: (MAX_VALUES / columns.len().max(1)).clamp(1_000, MAX_ROWS),
            level: 0,
            indices: Vec::new(),
            times: Vec::new(),
            columns,
        }
    }

    pub(super) fn add(&mut self, index: u64, time: Option<i64>, row: &[Cell<'_>]) {
        if !self.keeps(index) {
            return;
        }
        if self.indices.len() == self.most {
            self.thin();
            if !self.keeps(index) {
                return;
            }
        }
        self.indices.push(index);
        self.times.push(time.unwrap_or(NO_TIME));
        for (i, (kind, values)) in self.columns.iter_mut().enumerate() {
            let cell = row.get(i).copied().unwrap_or(Cell::Null);
            values.push(match (*kind, cell) {
                (ColumnKind::Numeric, Cell::Number(x)) if x.is_finite() => Kept::Number(x + 0.0),
                (ColumnKind::Categorical, cell) => cell.category().map_or(Kept::Missing, |name| {
                    Kept::Category(CategorySketch::hash_of(&name))
                }),
                _ => Kept::Missing,
            });
        }
    }

    pub(super) fn values(&self, column: usize) -> &[Kept] {
        &self.columns[column].1
    }

    /// By time if nearly all rows have one and they differ, else by number.
    pub(super) fn places(&self) -> Places {
        let row = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
        let mut rows: Vec<(i64, u32)> = self
            .times
            .iter()
            .enumerate()
            .filter(|(_, time)| **time != NO_TIME)
            .map(|(i, time)| (*time, row(i)))
            .collect();
        rows.sort_unstable();
        let differ = matches!((rows.first(), rows.last()), (Some(a), Some(b)) if a.0 < b.0);
        if differ && 10 * rows.len() >= 9 * self.times.len() {
            return Places { rows, timed: true };
        }
        let rows = self
            .indices
            .iter()
            .enumerate()
            .map(|(i, index)| (i64::try_from(*index).unwrap_or(i64::MAX), row(i)))
            .collect();
        Places { rows, timed: false }
    }

    fn keeps(&self, index: u64) -> bool {
        mix(index).trailing_zeros() >= self.level
    }

    fn thin(&mut self) {
        self.level += 1;
        let kept: Vec<usize> = (0..self.indices.len())
            .filter(|&i| self.keeps(self.indices[i]))
            .collect();
        self.indices = kept.iter().map(|&i| self.indices[i]).collect();
        self.times = kept.iter().map(|&i| self.times[i]).collect();
        for (_, values) in &mut self.columns {
            *values = kept.iter().map(|&i| values[i]).collect();
        }
    }
}

impl Places {
    /// From the first to the last, in seconds or rows; `total` are the rows of the data set.
    pub(super) fn length(&self, total: u64) -> u64 {
        match (self.timed, self.rows.first(), self.rows.last()) {
            (true, Some(first), Some(last)) => last.0.saturating_sub(first.0).unsigned_abs(),
            (true, ..) => 0,
            (false, ..) => total,
        }
    }
}
