//! What columns look like in the hours of a day or week, so that a window is compared with like hours.
//!
//! A window is held against a mixture: what the column was in each hour of the season, weighted by the window's own rows in it. So neither the time of day
//! nor how busy it was is taken for drift. The null follows: how far windows of the reference itself are from *their* mixtures.
//!
//! It is bounded: a column's cells are kept in groups, 16 at most and fewer where there are many columns, with shares in 255ths. Within a group
//! cells have the shares that they have in all of the column. What that is off by, windows of the reference are off by, too.

use serde::{Deserialize, Serialize};

use super::sample::Places;
use super::windows::{Moments, Windows};
use super::{ColumnProfile, Profile};
use crate::stats::drift::live::Grid;

/// Hours of a week.
const HOURS: usize = 168;
const DAY: u64 = 86_400;
/// A season must have been seen so often: of a single one nobody knows how much the next differs.
const TIMES: u64 = 3;
/// Share of a window's rows that may have come at hours in which the reference has none: those are compared with all of it.
const UNSEEN: f64 = 0.1;
/// Groups of a column's cells at most.
const MAX_GROUPS: usize = 16;
/// Groups at least: below that, the columns beyond go without.
const MIN_GROUPS: usize = 4;
/// Groups of all columns: 150 kB.
const ALL_GROUPS: usize = 400;

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Season {
    /// Hours of the day.
    Day,
    /// Hours of the week.
    Week,
}

impl Season {
    /// How long it takes, in seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        match self {
            Self::Day => DAY,
            Self::Week => 7 * DAY,
        }
    }

    /// For a sentence: "like hours of the …".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// Whether data of so many seconds has seen it often enough; the last row needn't be at the very end.
    fn is_seen_in(self, total: u64) -> bool {
        total + self.seconds() / 24 >= TIMES * self.seconds()
    }

    fn slots(self) -> usize {
        match self {
            Self::Day => 24,
            Self::Week => HOURS,
        }
    }
}

/// Rows by the hour of the week, from Thursday 0:00 UTC on: Unix time begins with one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hours(Vec<u64>);

impl Hours {
    /// Adds rows of a Unix time in seconds.
    pub fn add(&mut self, second: i64, rows: u64) {
        self.0.resize(HOURS, 0);
        self.0[hour(second)] += rows;
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.0.resize(HOURS, 0);
        for (own, more) in self.0.iter_mut().zip(&other.0) {
            *own = own.saturating_add(*more);
        }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|rows| *rows == 0)
    }

    /// Rows by the hour of the season.
    fn by(&self, season: Season) -> Vec<f64> {
        let mut slots = vec![0.0; season.slots()];
        for (hour, rows) in self.0.iter().take(HOURS).enumerate() {
            slots[hour % season.slots()] += *rows as f64;
        }
        slots
    }
}

/// The hour of the week.
fn hour(second: i64) -> usize {
    second.div_euclid(3_600).rem_euclid(HOURS as i64) as usize
}

/// How a column differs from hour to hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seasonal {
    /// By hour of the week, as [`Hours`]: the share of each group of cells, in 255ths, as two hexadecimal digits; empty where there was no value.
    pub hours: Vec<String>,
    /// What windows score against like hours of the day, by length as [`Windows::lengths`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<Vec<Option<Moments>>>,
    /// The same of like hours of the week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub week: Option<Vec<Option<Moments>>>,
}

impl Seasonal {
    /// What windows of the reference score.
    #[must_use]
    pub fn windows(&self, season: Season) -> Option<&[Option<Moments>]> {
        match season {
            Season::Day => self.day.as_deref(),
            Season::Week => self.week.as_deref(),
        }
    }
}

/// How many groups each of so many columns has.
pub(super) fn groups(columns: usize) -> usize {
    (ALL_GROUPS / columns.max(1)).clamp(MIN_GROUPS, MAX_GROUPS)
}

impl Windows {
    /// How a column differs from hour to hour, of which these values were kept; `None` without times, or of fewer than three days.
    pub(super) fn seasonal(
        &self,
        places: &Places,
        grid: &Grid,
        cells: &[Option<u16>],
        groups: usize,
    ) -> Option<Seasonal> {
        if !self.timed || !Season::Day.is_seen_in(self.total) {
            return None;
        }
        let groups = groups.min(grid.cells());
        let mut counts = vec![vec![0u64; groups]; HOURS];
        for &(time, row) in &places.rows {
            if let Some(cell) = cells[row as usize] {
                counts[hour(time)][grid.group(usize::from(cell), groups)] += 1;
            }
        }
        let hours: Vec<String> = counts.iter().map(|counts| encode(counts)).collect();
        let null = |season| self.against_like_hours(season, places, grid, cells, &hours);
        let (day, week) = (null(Season::Day), null(Season::Week));
        Some(Seasonal { hours, day, week })
    }

    fn against_like_hours(
        &self,
        season: Season,
        places: &Places,
        grid: &Grid,
        cells: &[Option<u16>],
        hours: &[String],
    ) -> Option<Vec<Option<Moments>>> {
        if !season.is_seen_in(self.total) {
            return None;
        }
        let like = Like::of(grid, hours, &self.hours, season)?;
        let mut counts = vec![0.0; grid.cells()];
        let mut slots = vec![0.0; season.slots()];
        let of_length = |(&length, &rows): (&u64, &f64)| {
            self.moments(places, length, |window| {
                counts.fill(0.0);
                slots.fill(0.0);
                let mut seen = 0.0;
                for &(time, row) in &places.rows[window] {
                    slots[hour(time) % season.slots()] += 1.0;
                    if let Some(cell) = cells[row as usize] {
                        counts[usize::from(cell)] += 1.0;
                        seen += 1.0;
                    }
                }
                (seen >= rows / 4.0).then(|| grid.with(&like.mix(&slots)).score(&counts))
            })
        };
        Some(self.lengths.iter().zip(&self.rows).map(of_length).collect())
    }
}

/// What a column of the reference is in each hour of a season.
pub(crate) struct Like {
    /// Rows of the reference by hour of the season.
    rows: Vec<f64>,
    /// Shares of groups in each; `None`: it had no value then.
    slots: Vec<Option<Vec<f64>>>,
    /// Shares of groups in all of it.
    whole: Vec<f64>,
    /// The group of each cell, and the cell's share in that.
    cells: Vec<(usize, f64)>,
}

impl Like {
    /// `None` if these aren't shares of that column's cells.
    pub(crate) fn of(grid: &Grid, hours: &[String], rows: &Hours, season: Season) -> Option<Self> {
        let table: Vec<Option<Vec<f64>>> = hours.iter().map(|text| decode(text)).collect();
        let groups = table.iter().flatten().map(Vec::len).max()?;
        if groups > grid.cells() || table.iter().flatten().any(|t| t.len() != groups) {
            return None;
        }
        let shares = grid.shares();
        let mut whole = vec![0.0; groups];
        for (cell, share) in shares.iter().enumerate() {
            whole[grid.group(cell, groups)] += share;
        }
        let within = |(cell, share): (usize, &f64)| {
            let group = grid.group(cell, groups);
            (group, share / whole[group].max(f64::MIN_POSITIVE))
        };
        let cells = shares.iter().enumerate().map(within).collect();
        let mut all = vec![0.0; season.slots()];
        let mut slots = vec![None; season.slots()];
        for (hour, (shares, rows)) in table.iter().zip(&rows.0).take(HOURS).enumerate() {
            let (Some(shares), slot) = (shares, hour % season.slots()) else {
                continue;
            };
            all[slot] += *rows as f64;
            let sums = slots[slot].get_or_insert_with(|| vec![0.0; groups]);
            for (sum, share) in sums.iter_mut().zip(shares) {
                *sum += *rows as f64 * share;
            }
        }
        for (slot, rows) in slots.iter_mut().zip(&all) {
            *slot = slot.take().filter(|_| *rows > 0.0);
            slot.iter_mut().flatten().for_each(|sum| *sum /= rows);
        }
        Some(Self {
            rows: all,
            slots,
            whole,
            cells,
        })
    }

    /// Shares of cells in hours that have so many rows each.
    pub(crate) fn mix(&self, rows: &[f64]) -> Vec<f64> {
        let total: f64 = rows.iter().sum();
        let mut groups = vec![0.0; self.whole.len()];
        for (rows, slot) in rows
            .iter()
            .zip(&self.slots)
            .filter(|(rows, _)| **rows > 0.0)
        {
            let shares = slot.as_ref().unwrap_or(&self.whole);
            for (sum, share) in groups.iter_mut().zip(shares) {
                *sum += rows / total * share;
            }
        }
        let share = |(group, within): &(usize, f64)| groups[*group] * within;
        self.cells.iter().map(share).collect()
    }

    /// As how many values of a column of `count` that mixture is known: those of many hours are of more than those of few.
    fn values(&self, rows: &[f64], count: u64) -> f64 {
        let (total, all): (f64, f64) = (rows.iter().sum(), self.rows.iter().sum());
        let variance: f64 = rows
            .iter()
            .zip(&self.rows)
            .map(|(rows, own)| (rows / total).powi(2) / if *own > 0.0 { *own } else { all })
            .sum();
        count as f64 / (variance * all)
    }
}

/// A column as it is in hours like those of a window.
pub(crate) struct LikeHours {
    /// Its shares.
    pub grid: Grid,
    /// As how many values that is known.
    pub values: f64,
    /// How much it spreads, by how much all of the column does.
    pub spread: f64,
}

/// `None`: it isn't known of the column.
pub(crate) fn like(
    column: &ColumnProfile,
    windows: &Windows,
    season: Season,
    live: &Hours,
) -> Option<LikeHours> {
    let seasonal = column.season.as_ref()?;
    seasonal.windows(season)?;
    if live.is_empty() {
        return None;
    }
    let whole = Grid::of(column)?;
    let like = Like::of(&whole, &seasonal.hours, &windows.hours, season)?;
    let rows = live.by(season);
    let grid = whole.with(&like.mix(&rows));
    Some(LikeHours {
        values: like.values(&rows, column.count),
        spread: grid.spread() / whole.spread().max(f64::MIN_POSITIVE),
        grid,
    })
}

/// Why windows can't be compared with like hours of this reference, as a sentence.
#[must_use]
pub fn unknown(reference: &Profile, season: Season) -> Option<String> {
    let Some(windows) = reference.windows.as_ref().filter(|w| w.timed) else {
        return Some("season: nobody knows when the rows of the training data were: name their time in datasets[].time of the TrainingJob, or take monitoring.drift.season out".to_owned());
    };
    if windows.hours.is_empty() {
        return Some("season: the training data was profiled before its hours were told apart: train a new version, or take monitoring.drift.season out".to_owned());
    }
    (!season.is_seen_in(windows.total)).then(|| {
        format!(
            "season: what a {} is like takes training data of three of them, and this is of {:.1} days: train on more, or take monitoring.drift.season out",
            season.name(),
            windows.total as f64 / DAY as f64
        )
    })
}

/// Why so many rows of these hours can't be compared with like hours, as a sentence.
#[must_use]
pub fn unseen(reference: &Profile, season: Season, live: &Hours, rows: u64) -> Option<String> {
    let own = reference.windows.as_ref()?.hours.by(season);
    let of_like_hours: f64 = live
        .by(season)
        .iter()
        .zip(&own)
        .filter(|(_, own)| **own > 0.0)
        .map(|(rows, _)| rows)
        .sum();
    let share = 1.0 - of_like_hours / rows.max(1) as f64;
    (share > UNSEEN).then(|| {
        format!(
            "{:.0} % of the rows came at hours of the {} in which the training data has none, or nobody noted when",
            100.0 * share,
            season.name()
        )
    })
}

fn encode(counts: &[u64]) -> String {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return String::new();
    }
    let share = |count: &u64| format!("{:02x}", (510 * count + total) / (2 * total));
    counts.iter().map(share).collect()
}

/// The shares, of which the sum is 1.
fn decode(text: &str) -> Option<Vec<f64>> {
    let digit = |c: u8| char::from(c).to_digit(16).map(f64::from);
    let pairs = text.as_bytes().chunks_exact(2);
    let shares: Vec<f64> = pairs
        .map(|pair| Some(16.0 * digit(pair[0])? + digit(pair[1])?))
        .collect::<Option<_>>()?;
    let total: f64 = shares.iter().sum();
    (total > 0.0).then(|| shares.iter().map(|share| share / total).collect())
}

#[cfg(test)]
mod tests;
