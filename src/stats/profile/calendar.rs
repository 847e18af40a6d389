//! Columns that only say when it is: the hour, the weekday, the month, a number that grows. Live values of those always
//! differ from the reference's, and tell nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sample::{Kept, Places};

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// So much of a column must be explained.
const EXPLAINED: f64 = 0.95;
/// A pattern must have been seen so often; else any weather of one week would be a function of the hour of the week.
const TIMES: i64 = 3;
/// Rows in a slot, on average.
const ROWS: usize = 5;
/// Stretches of the data set, each of which must lie beyond the one before.
const STRETCHES: usize = 50;

/// What of time a column is a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Calendar {
    /// The hour of the day, or something coarser.
    HourOfDay,
    /// The hour of the week: a weekday, a weekend.
    HourOfWeek,
    /// The day of the month.
    DayOfMonth,
    /// The month.
    Month,
    /// Time itself: it only grows, or only falls.
    Time,
}

impl Calendar {
    /// For a sentence: "it follows …".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HourOfDay => "the hour of the day",
            Self::HourOfWeek => "the hour of the week",
            Self::DayOfMonth => "the day of the month",
            Self::Month => "the month",
            Self::Time => "time itself",
        }
    }

    /// The pattern's slot of a time, or `None` for [`Self::Time`].
    fn slot(self, time: i64) -> Option<i64> {
        let date = || {
            jiff::Timestamp::from_second(time)
                .map(|t| jiff::tz::Offset::UTC.to_datetime(t).date())
                .ok()
        };
        match self {
            Self::HourOfDay => Some(time.rem_euclid(DAY) / 3600),
            Self::HourOfWeek => Some(time.rem_euclid(WEEK) / 3600),
            // By hour, as the data's days may begin at another hour than those of UTC.
            Self::DayOfMonth => {
                date().map(|d| i64::from(d.day()) * 24 + time.rem_euclid(DAY) / 3600)
            }
            Self::Month => date().map(|d| i64::from(d.month())),
            Self::Time => None,
        }
    }

    /// How long the pattern takes to come back, as far as that is asked for.
    fn period(self) -> i64 {
        match self {
            Self::HourOfDay => DAY,
            Self::HourOfWeek => WEEK,
            // Weather doesn't stand still for a month, so months needn't come back.
            Self::DayOfMonth | Self::Month => 31 * DAY,
            Self::Time => 0,
        }
    }

    /// What this column follows, if it does. Only rows with times can tell.
    pub(super) fn of(places: &Places, values: &[Kept]) -> Option<Self> {
        let (first, last) = (places.rows.first()?.0, places.rows.last()?.0);
        if !places.timed {
            return None;
        }
        let rows: Vec<(i64, Kept)> = places
            .rows
            .iter()
            .map(|&(time, row)| (time, values[row as usize]))
            .filter(|(_, value)| *value != Kept::Missing)
            .collect();
        let patterns = [
            Self::HourOfDay,
            Self::HourOfWeek,
            Self::DayOfMonth,
            Self::Month,
        ];
        let repeats = |p: &Self| last - first >= TIMES * p.period();
        patterns
            .into_iter()
            .filter(repeats)
            .find(|pattern| explained(&rows, |time| pattern.slot(time)))
            .or_else(|| grows(&rows).then_some(Self::Time))
    }
}

/// Whether slots explain the column: of numbers the variance, of categories that a slot has just one (and not all the same one).
fn explained(rows: &[(i64, Kept)], slot: impl Fn(i64) -> Option<i64>) -> bool {
    let mut numbers: BTreeMap<i64, (f64, f64, f64)> = BTreeMap::new();
    let mut categories: BTreeMap<i64, BTreeMap<u64, u64>> = BTreeMap::new();
    let (mut all, mut all_categories) = ((0.0, 0.0, 0.0), BTreeMap::<u64, u64>::new());
    let mut last: Option<(i64, i64)> = None;
    // Around the first number, so that squares of large ones keep their digits.
    let offset = rows.iter().find_map(|r| match r.1 {
        Kept::Number(x) => Some(x),
        _ => None,
    });
    for &(time, value) in rows {
        let hour = time.div_euclid(3600);
        let slot = match last {
            Some((at, slot)) if at == hour => slot,
            _ => match slot(time) {
                Some(slot) => slot,
                None => return false,
            },
        };
        last = Some((hour, slot));
        match value {
            Kept::Number(x) => {
                let x = x - offset.unwrap_or(0.0);
                for sums in [&mut all, numbers.entry(slot).or_default()] {
                    *sums = (sums.0 + 1.0, sums.1 + x, sums.2 + x * x);
                }
            }
            Kept::Category(hash) => {
                *all_categories.entry(hash).or_default() += 1;
                *categories.entry(slot).or_default().entry(hash).or_default() += 1;
            }
            Kept::Missing => {}
        }
    }
    if numbers.len().max(categories.len()) * ROWS > rows.len() {
        return false;
    }
    if let Some(most) = all_categories.values().max() {
        let modes: u64 = categories.values().filter_map(|c| c.values().max()).sum();
        let share = |n: u64| n as f64 / rows.len() as f64;
        return share(*most) < EXPLAINED && share(modes) >= EXPLAINED;
    }
    let squares = |s: &(f64, f64, f64)| (s.2 - s.1 * s.1 / s.0.max(1.0)).max(0.0);
    let within: f64 = numbers.values().map(squares).sum();
    let total = squares(&all);
    total > 1e-12 * all.2.abs() && within <= (1.0 - EXPLAINED) * total
}

/// Whether a number lies higher in each stretch of time than in the one before, or lower.
fn grows(rows: &[(i64, Kept)]) -> bool {
    let values: Vec<f64> = rows
        .iter()
        .filter_map(|r| match r.1 {
            Kept::Number(x) => Some(x),
            _ => None,
        })
        .collect();
    if values.len() < STRETCHES * ROWS || values.len() < rows.len() {
        return false;
    }
    let range = |part: &[f64]| {
        part.iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| {
                (low.min(x), high.max(x))
            })
    };
    let parts: Vec<(f64, f64)> = values
        .chunks_exact(values.len() / STRETCHES)
        .map(range)
        .collect();
    let (low, high) = range(&values);
    // Stretches meet at one value at most: what is the same in both of them, or a tie in time.
    let slack = (high - low) * (1.0 - EXPLAINED);
    let all = |beyond: fn(&(f64, f64), &(f64, f64)) -> f64| {
        parts.windows(2).all(|p| beyond(&p[0], &p[1]) <= slack)
    };
    high > low && (all(|a, b| a.1 - b.0) || all(|a, b| b.1 - a.0))
}
