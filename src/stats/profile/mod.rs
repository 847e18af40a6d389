//! The profile of a data set: bounded, written once, compared with live traffic ever after.
//!
//! ```
//! use perennial::stats::profile::ProfileBuilder;
//! use perennial::stats::sketch::{Cell, ColumnKind};
//!
//! let mut builder = ProfileBuilder::new([("temp", ColumnKind::Numeric), ("carrier", ColumnKind::Categorical)]);
//! builder.add(&[Cell::Number(21.5), Cell::Text("UA")]);
//! let profile = builder.finish();
//! assert_eq!((profile.rows, profile.columns[0].mean), (1, Some(21.5)));
//! let json = serde_json::to_string(&profile).unwrap(); // travels with the model version
//! let live = profile.sketch(); // an empty sketch of the same columns, for the gateway
//! assert_eq!(live.columns.len(), 2);
//! # let _ = json;
//! ```

mod builder;
mod calendar;
mod sample;
pub mod season;
mod windows;

pub use builder::ProfileBuilder;
pub use calendar::Calendar;
pub use season::{Hours, Season, Seasonal};
pub use windows::{Moments, Null, RANDOM_ROWS, Windows};

use serde::{Deserialize, Serialize};

use super::sketch::{ColumnKind, ColumnSketch, MAX_COLUMNS, RowSketch};

/// Bins of a histogram at most.
pub const MAX_BINS: usize = 32;
/// Categories that are named at most; the rest is `other`.
pub const MAX_NAMED: usize = 50;
/// The serialised profile stays under this many bytes; hours of the last columns go first, then names of rare categories.
pub const MAX_BYTES: usize = 256 * 1024;
/// The quantiles of [`ColumnProfile::quantiles`], in order.
pub const QUANTILES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// What a data set looked like, column by column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Rows of the data set.
    pub rows: u64,
    /// Its columns in order: for features also the order of the model's signature.
    pub columns: Vec<ColumnProfile>,
    /// The windows of which each column's [`ColumnProfile::null`] speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
}

/// What one column looked like. Numbers are rounded to nine digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnProfile {
    /// The column's name.
    pub name: String,
    /// Numeric or categorical.
    pub kind: ColumnKind,
    /// Values that count: finite numbers, or categories.
    pub count: u64,
    /// Nulls and NaNs.
    pub nulls: u64,
    /// Infinite numbers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub infinite: u64,
    /// Values of another type than the column's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub type_changes: u64,
    /// Distinct values: exact for few, an estimate for many categories, absent for many numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
    /// The smallest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// The population standard deviation: the unit of a numeric drift score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// The [`QUANTILES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<f64>,
    /// The distribution of a numeric column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// The most frequent categories, most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Category>,
    /// Occurrences of all other categories.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other: u64,
    /// What of time the column follows, if it does: known only where rows have times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// What windows of this data set itself score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<Null>,
    /// How it differs from hour to hour: known only where rows have times, of three days or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub season: Option<Seasonal>,
    /// The same as `null` in profiles from before windows were drawn: by sample size (see [`ColumnProfile::noise_at`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noise: Vec<NoisePoint>,
}

/// A histogram whose bins hold about equally many values (fewer in the tails), or the values themselves if they are few.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Histogram {
    /// If `discrete`, the distinct values; else one more than there are bins, each bin including its lower end.
    pub edges: Vec<f64>,
    /// Values by bin.
    pub counts: Vec<u64>,
    /// Whether every value of the column is one of `edges`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discrete: bool,
}

/// A category and how often it occurred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Category {
    /// The category.
    pub name: String,
    /// Its occurrences.
    pub count: u64,
}

/// The drift score that 99 of 100 samples of this size, taken from the reference itself, stay below.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoisePoint {
    /// Values in the sample.
    pub size: u64,
    /// The 99th percentile of the score.
    pub score: f64,
}

impl Profile {
    /// An empty sketch of the same columns: what live traffic is collected in.
    #[must_use]
    pub fn sketch(&self) -> RowSketch {
        RowSketch::new(self.columns.iter().map(|c| (c.name.as_str(), c.kind)))
    }

    /// The profile of a column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ColumnProfile> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Bytes that the profile takes as JSON.
    #[must_use]
    pub fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len())
    }

    /// Keeps within [`MAX_COLUMNS`] and [`MAX_BYTES`].
    fn bound(&mut self) {
        self.columns.truncate(MAX_COLUMNS);
        let mut with_hours = self.columns.len();
        while with_hours > 0 && self.bytes() > MAX_BYTES {
            with_hours = with_hours.saturating_sub(8);
            let without = &mut self.columns[with_hours..];
            without.iter_mut().for_each(|column| column.season = None);
        }
        let mut named = MAX_NAMED;
        while named > 0 && self.bytes() > MAX_BYTES {
            named /= 2;
            for column in &mut self.columns {
                column.keep_named(named);
            }
        }
        while self.bytes() > MAX_BYTES && self.columns.pop().is_some() {} // Names of columns are that long.
    }
}

impl ColumnProfile {
    /// The profile of a sketched column, without noise (which takes the rows themselves).
    #[must_use]
    pub fn from_sketch(name: &str, sketch: &ColumnSketch) -> Self {
        let mut profile = Self {
            name: name.to_string(),
            kind: sketch.kind(),
            count: sketch.samples(),
            nulls: sketch.nulls(),
            infinite: 0,
            type_changes: sketch.type_changes(),
            distinct: None,
            min: None,
            max: None,
            mean: None,
            std: None,
            quantiles: Vec::new(),
            histogram: None,
            categories: Vec::new(),
            other: 0,
            calendar: None,
            null: None,
            season: None,
            noise: Vec::new(),
        };
        if let Some(values) = sketch.numeric() {
            profile.infinite = values.infinite();
            profile.distinct = values.distinct();
            profile.min = values.min();
            profile.max = values.max();
            profile.mean = values.mean().map(|x| round(x, 9));
            profile.std = values.std().map(|x| round(x, 9));
            profile.quantiles = QUANTILES
                .iter()
                .filter_map(|&q| values.quantile(q))
                .map(|x| round(x, 9))
                .collect();
            let points: Vec<_> = values.starts().collect();
            profile.histogram = values
                .max()
                .map(|max| Histogram::of(&points, max, values.distinct().is_some()));
        }
        if let Some(values) = sketch.categorical() {
            profile.distinct = Some(values.distinct());
            profile.other = values.pooled();
            profile.categories = values
                .categories()
                .map(|(name, count)| Category {
                    name: name.to_string(),
                    count,
                })
                .collect();
            profile
                .categories
                .sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
            profile.keep_named(MAX_NAMED);
        }
        profile
    }

    /// The score below which 99 of 100 samples of `size` values from the reference itself stay: interpolated in
    /// the logarithm of the size; beyond the table by the square-root law. `None`: it wasn't measured.
    #[must_use]
    pub fn noise_at(&self, size: u64) -> Option<f64> {
        let (first, last) = (self.noise.first()?, self.noise.last()?);
        let size = size.max(1) as f64;
        let root = |point: &NoisePoint| point.score * (point.size as f64 / size).sqrt();
        if size <= first.size as f64 {
            return Some(root(first));
        }
        for pair in self.noise.windows(2) {
            let (low, high) = (pair[0].size as f64, pair[1].size as f64);
            if size <= high {
                let at = (size.ln() - low.ln()) / (high.ln() - low.ln());
                return Some(pair[0].score + at * (pair[1].score - pair[0].score));
            }
        }
        // More samples than that: the reference's own size limits how well it is known.
        Some(last.score)
    }

    fn keep_named(&mut self, most: usize) {
        for category in self.categories.drain(most.min(self.categories.len())..) {
            self.other += category.count;
        }
    }
}

impl Histogram {
    /// From ascending (lower bound, count) pairs.
    fn of(points: &[(f64, u64)], max: f64, exact: bool) -> Self {
        if exact && points.len() <= MAX_BINS {
            return Self {
                edges: points.iter().map(|p| p.0).collect(),
                counts: points.iter().map(|p| p.1).collect(),
                discrete: true,
            };
        }
        let total: u64 = points.iter().map(|p| p.1).sum();
        let (mut edges, mut counts) = (Vec::new(), Vec::new());
        let (mut open, mut done) = (0, 0);
        for &(low, count) in points {
            // A bin is closed once it has its share of what was left when it was opened.
            let bin = counts.len();
            if edges.is_empty() {
                edges.push(round(low, 9));
            } else if bin + 1 < MAX_BINS
                && open as f64 >= share_of_rest(bin) * (total - done) as f64
            {
                counts.push(open);
                done += open;
                open = 0;
                edges.push(round(low, 9));
            }
            open += count;
        }
        counts.push(open);
        edges.push(max);
        Self {
            edges,
            counts,
            discrete: false,
        }
    }

    /// Values in all bins.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The share of a bin in what it and all later ones hold: the bins in the middle hold 1/25 each, those towards the tails
/// less and less, as a tail's bins are wide.
fn share_of_rest(bin: usize) -> f64 {
    let weight = |i: usize| (i + 1).min(MAX_BINS - i).min(8) as f64;
    weight(bin) / (bin..MAX_BINS).map(weight).sum::<f64>()
}

/// So many significant digits: short to write. Nine are as exact as the finest bucket of a sketch.
fn round(x: f64, digits: usize) -> f64 {
    format!("{x:.*e}", digits - 1).parse().unwrap_or(x)
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod null_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::Generator;
    use crate::stats::sketch::Cell;

    #[test]
    fn a_profile_of_continuous_values_has_full_bins_and_smaller_ones_in_the_tails() {
        let mut generator = Generator::new(2);
        let mut sketch = ColumnSketch::new(ColumnKind::Numeric);
        for _ in 0..20_000 {
            sketch.add(Cell::Number(-generator.unit().ln()));
        }
        let profile = ColumnProfile::from_sketch("x", &sketch);
        let histogram = profile.histogram.unwrap();
        assert_eq!((histogram.counts.len(), histogram.edges.len()), (32, 33));
        assert_eq!(histogram.total(), 20_000);
        assert!(
            histogram.counts.iter().all(|&c| (60..1000).contains(&c)),
            "{:?}",
            histogram.counts
        );
        assert!(
            (profile.mean.unwrap() - 1.0).abs() < 0.03 && (profile.std.unwrap() - 1.0).abs() < 0.05
        );
    }

    #[test]
    fn few_distinct_values_are_profiled_as_they_are() {
        let mut sketch = ColumnSketch::new(ColumnKind::Numeric);
        for i in 0..700 {
            sketch.add(Cell::Number(f64::from(i % 7) + 1.0));
        }
        let profile = ColumnProfile::from_sketch("dow", &sketch);
        let histogram = profile.histogram.unwrap();
        assert!(histogram.discrete);
        assert_eq!(histogram.edges, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(profile.distinct, Some(7));
    }

    #[test]
    fn a_profile_of_many_wide_columns_stays_under_its_limit() {
        let names: Vec<String> = (0..250).map(|i| format!("column-{i}")).collect();
        let mut builder =
            ProfileBuilder::new(names.iter().map(|n| (n.as_str(), ColumnKind::Categorical)));
        for row in 0..120 {
            let text = format!(
                "{}-{}",
                "a long category name that takes its sixty bytes or so",
                row % 60
            );
            let cells: Vec<Cell<'_>> = (0..250).map(|_| Cell::Text(&text)).collect();
            builder.add(&cells);
        }
        let profile = builder.finish();
        assert_eq!(profile.columns.len(), 200);
        assert!(profile.bytes() <= MAX_BYTES, "{}", profile.bytes());
        let column = &profile.columns[0];
        assert_eq!(
            column.categories.iter().map(|c| c.count).sum::<u64>() + column.other,
            120
        );
    }

    #[test]
    fn an_empty_or_constant_column_has_a_profile_too() {
        let empty = ColumnProfile::from_sketch("x", &ColumnSketch::new(ColumnKind::Numeric));
        assert_eq!((empty.count, empty.mean, empty.histogram), (0, None, None));
        let mut sketch = ColumnSketch::new(ColumnKind::Numeric);
        (0..10).for_each(|_| sketch.add(Cell::Number(4.5)));
        let constant = ColumnProfile::from_sketch("x", &sketch);
        assert_eq!((constant.mean, constant.std), (Some(4.5), Some(0.0)));
        assert_eq!(constant.histogram.unwrap().edges, [4.5]);
    }

    #[test]
    fn noise_is_interpolated_between_sizes() {
        let mut column = ColumnProfile::from_sketch("x", &ColumnSketch::new(ColumnKind::Numeric));
        assert_eq!(column.noise_at(1000), None);
        column.noise = vec![
            NoisePoint {
                size: 500,
                score: 0.4,
            },
            NoisePoint {
                size: 2000,
                score: 0.2,
            },
        ];
        assert_eq!(column.noise_at(125), Some(0.8));
        assert!((column.noise_at(1000).unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(column.noise_at(1_000_000), Some(0.2));
    }
}
