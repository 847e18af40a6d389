//! How much windows of the reference differ from the whole of it: the null that live drift is held against.
//!
//! Neighbouring rows are alike (the same hour, the same weather), and so are neighbouring requests: a window of them isn't a
//! random sample. So whole windows are drawn from the reference, as moving blocks (Künsch, 1989), of lengths that halve from a
//! sixth of the reference down to windows of 30 rows, and scored as live traffic is. Of the scores of a length the profile keeps two numbers: mean
//! and standard deviation of their squares' cube roots. A squared score is a sum of squares of nearly normal deviations, and the cube
//! root of such a sum is nearly normal (Wilson and Hilferty, 1931), so that a bound for the next window follows from these.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::sample::{Kept, Places};
use super::season::Hours;
use super::{ColumnProfile, round};
use crate::stats::drift::live::Grid;
use crate::stats::random::Generator;
use crate::stats::sketch::ColumnSketch;

/// Of the longest windows this many fit into the reference side by side.
const FEWEST: u64 = 6;
/// Rows in a window, on average, at least.
const SMALLEST: f64 = 30.0;
/// Lengths at most.
const LENGTHS: usize = 12;
/// Windows of one length at most; they begin a quarter of their length after each other, or further.
const STARTS: u64 = 512;
/// Samples of [`RANDOM_ROWS`] rows that are drawn at random.
const DRAWS: usize = 200;
/// Rows of such a sample.
pub const RANDOM_ROWS: u64 = 500;
const SEED: u64 = 0x7065_7265_6e6e_6961;

/// The windows into which a data set was cut.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Windows {
    /// Whether lengths are seconds of the data set's time column; else they are rows in the order of the file.
    pub timed: bool,
    /// Length of the data set, in the same unit.
    pub total: u64,
    /// The lengths, ascending.
    pub lengths: Vec<u64>,
    /// Rows that were looked at in a window of each length, on average.
    pub rows: Vec<f64>,
    /// Rows that were looked at by the hour of the week, where there are times.
    #[serde(default, skip_serializing_if = "Hours::is_empty")]
    pub hours: Hours,
}

/// Mean and standard deviation of the cube roots of squared scores, and the highest score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub sd: f64,
    /// The highest score itself.
    pub max: f64,
}

impl Moments {
    /// `None` for fewer than three scores.
    fn of(scores: &[f64]) -> Option<Self> {
        let roots: Vec<f64> = scores.iter().map(|s| (s * s).cbrt()).collect();
        let n = roots.len() as f64;
        if roots.len() < 3 {
            return None;
        }
        let mean = roots.iter().sum::<f64>() / n;
        let variance = roots.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Some(Self {
            mean: round(mean, 4),
            sd: round(variance.sqrt(), 4),
            max: round(scores.iter().copied().fold(0.0, f64::max), 4),
        })
    }

    /// The mean square of the scores.
    #[must_use]
    pub fn mean_square(&self) -> f64 {
        self.mean * (self.mean * self.mean + 3.0 * self.sd * self.sd) // E[r³] of a normal r.
    }

    /// The score that lies `deviations` standard deviations above the mean.
    #[must_use]
    pub fn score(&self, deviations: f64) -> f64 {
        (self.mean + deviations * self.sd).max(0.0).powf(1.5)
    }
}

/// What the reference's own windows score in one column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Null {
    /// By length, as [`Windows::lengths`].
    pub windows: Vec<Option<Moments>>,
    /// Samples of [`RANDOM_ROWS`] rows, drawn at random.
    pub random: Moments,
    /// What a window scores at most that has a single value of the reference.
    pub most: f64,
}

impl Windows {
    pub(super) fn of(places: &Places, total: u64) -> Self {
        let length = places.length(total);
        let rows = |l: u64| places.rows.len() as f64 * l as f64 / length as f64;
        let mut lengths: Vec<u64> = std::iter::successors(Some(length / FEWEST), |l| Some(l / 2))
            .take(LENGTHS)
            .take_while(|&l| l > 0 && rows(l) >= SMALLEST)
            .collect();
        lengths.reverse();
        let mut hours = Hours::default();
        for (time, _) in places.rows.iter().filter(|_| places.timed) {
            hours.add(*time, 1);
        }
        Self {
            timed: places.timed,
            total: length,
            rows: lengths.iter().map(|&l| round(rows(l), 4)).collect(),
            lengths,
            hours,
        }
    }

    /// The windows of a column of which only sketches of equal stretches of time are known (`None`: nothing came in one), and their null, which is
    /// entered into its profile. A window is made of whole stretches.
    pub(crate) fn of_stretches(
        column: &mut ColumnProfile,
        stretches: &[Option<&ColumnSketch>],
        seconds: u64,
    ) -> Self {
        let (n, total) = (stretches.len(), column.count as f64);
        let rows = |l: usize| total * l as f64 / n.max(1) as f64;
        let most = n / FEWEST as usize;
        let lengths: Vec<usize> = std::iter::successors(Some(1), |l| Some(2 * l))
            .take_while(|&l| l <= most)
            .filter(|&l| rows(l) >= SMALLEST)
            .collect();
        let in_seconds = |l: usize| seconds.saturating_mul(l as u64);
        let windows = Self {
            timed: true,
            total: in_seconds(n),
            lengths: lengths.iter().map(|&l| in_seconds(l)).collect(),
            rows: lengths.iter().map(|&l| round(rows(l), 4)).collect(),
            hours: Hours::default(),
        };
        if let Some(grid) = Grid::of(column) {
            let parts: Vec<Vec<f64>> = stretches
                .iter()
                .map(|part| part.map_or(vec![0.0; grid.cells()], |p| counts(&grid, column, p)))
                .collect();
            let sum = |parts: &[Vec<f64>]| -> Vec<f64> {
                let cells = 0..grid.cells();
                cells.map(|c| parts.iter().map(|p| p[c]).sum()).collect()
            };
            let moments = lengths.iter().map(|&l| {
                let scores: Vec<f64> = parts
                    .windows(l)
                    .step_by((l / 4).max(1))
                    .map(sum)
                    // A night, a gap: no window of live traffic would be judged on that.
                    .filter(|counts| counts.iter().sum::<f64>() >= rows(l) / 4.0)
                    .map(|counts| grid.score(&counts))
                    .collect();
                Moments::of(&scores)
            });
            let windows = moments.collect();
            let mut ends: Vec<usize> = Vec::with_capacity(grid.cells());
            for count in sum(&parts) {
                ends.push(ends.last().copied().unwrap_or(0) + count as usize);
            }
            let all = ends.last().copied().unwrap_or(0);
            column.null = null_of(windows, &grid, |generator| {
                let drawn = generator.below(all);
                ends.partition_point(|end| *end <= drawn)
            });
        }
        windows
    }

    /// How many windows of that length fit into the data set side by side.
    #[must_use]
    pub fn fit(&self, length: u64) -> f64 {
        self.total as f64 / length.max(1) as f64
    }

    /// What windows of a length score: each is given by where its rows are in `places`.
    pub(super) fn moments(
        &self,
        places: &Places,
        length: u64,
        mut score: impl FnMut(Range<usize>) -> Option<f64>,
    ) -> Option<Moments> {
        let (first, last) = (places.rows[0].0, first_after(places, self.total));
        let room = last
            .saturating_sub(first)
            .unsigned_abs()
            .saturating_sub(length);
        let step = (length / 4).max(room / STARTS).max(1);
        let scores: Vec<f64> = (0..=room / step)
            .filter_map(|i| {
                let start = first.saturating_add((i * step) as i64);
                let end = start.saturating_add(length as i64);
                let from = places.rows.partition_point(|r| r.0 < start);
                let to = places.rows.partition_point(|r| r.0 < end);
                score(from..to)
            })
            .collect();
        Moments::of(&scores)
    }

    /// The null of a column of which these values were kept; `None` if it has none.
    pub(super) fn null(&self, places: &Places, grid: &Grid, cells: &[Option<u16>]) -> Option<Null> {
        let ordered: Vec<Option<u16>> = places.rows.iter().map(|r| cells[r.1 as usize]).collect();
        let present: Vec<u16> = ordered.iter().flatten().copied().collect();
        if present.is_empty() {
            return None;
        }
        let mut counts = vec![0f64; grid.cells()];
        let windows = self
            .lengths
            .iter()
            .zip(&self.rows)
            .map(|(&length, &rows)| {
                self.moments(places, length, |window| {
                    counts.fill(0.0);
                    let mut seen = 0.0;
                    for &cell in ordered[window].iter().flatten() {
                        counts[usize::from(cell)] += 1.0;
                        seen += 1.0;
                    }
                    // A night, a gap: no window of live traffic would be judged on that.
                    (seen >= rows / 4.0).then(|| grid.score(&counts))
                })
            })
            .collect();
        null_of(windows, grid, |generator| {
            usize::from(present[generator.below(present.len())])
        })
    }
}

/// What windows score, with samples of values whose cells are drawn at random.
fn null_of(
    windows: Vec<Option<Moments>>,
    grid: &Grid,
    mut draw: impl FnMut(&mut Generator) -> usize,
) -> Option<Null> {
    let mut generator = Generator::new(SEED);
    let random: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let mut counts = vec![0f64; grid.cells()];
            for _ in 0..RANDOM_ROWS {
                counts[draw(&mut generator)] += 1.0;
            }
            grid.score(&counts)
        })
        .collect();
    let most = (0..grid.cells())
        .map(|cell| {
            let mut counts = vec![0f64; grid.cells()];
            counts[cell] = 1.0;
            grid.score(&counts)
        })
        .fold(0.0, f64::max);
    Some(Null {
        windows,
        random: Moments::of(&random)?,
        most: round(most, 4),
    })
}

/// Values of a sketch of the column by cell.
fn counts(grid: &Grid, column: &ColumnProfile, part: &ColumnSketch) -> Vec<f64> {
    let mut counts = vec![0f64; grid.cells()];
    let last = grid.cells() - 1;
    if let Some(values) = part.numeric() {
        for (x, count) in values.points() {
            counts[grid.cell(x)] += count as f64;
        }
    }
    if let Some(values) = part.categorical() {
        for (name, count) in values.categories() {
            let named = column.categories.iter().take(last);
            let cell = named.map(|c| &c.name).position(|n| n == name);
            counts[cell.unwrap_or(last)] += count as f64;
        }
        counts[last] += values.pooled() as f64;
    }
    counts
}

/// Where the data set ends.
fn first_after(places: &Places, total: u64) -> i64 {
    places.rows[0]
        .0
        .saturating_add(i64::try_from(total).unwrap_or(i64::MAX))
}

/// The cell of each kept value; hashes are those of the profile's categories in order.
pub(super) fn cells(grid: &Grid, hashes: &[u64], values: &[Kept]) -> Vec<Option<u16>> {
    values
        .iter()
        .map(|value| {
            let cell = match value {
                Kept::Missing => return None,
                Kept::Number(x) => grid.cell(*x),
                Kept::Category(hash) => hashes
                    .iter()
                    .position(|h| h == hash)
                    .unwrap_or(grid.cells() - 1),
            };
            u16::try_from(cell).ok()
        })
        .collect()
}
