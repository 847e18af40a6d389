//! How far windows of the reference itself stray from it: what a live window must exceed to have drifted.
//!
//! Of each length that the profile knows, `k` windows fit into the reference side by side. With `m` and `s`, mean and standard
//! deviation of the cube roots of their squared scores, the next window of the same kind stays below
//!
//!     b = ((m + t·s·√(1 + 1/k)) ^ 3/2) · √((k + 1)/(k − 1))
//!
//! with probability 1 − α, `t` being that quantile of Student's distribution with `k − 1` degrees of freedom (a prediction bound: Hahn
//! and Meeker, *Statistical Intervals*, 1991, chapter 4); the last factor is there because a window of the reference is part of
//! what it was compared with, and a live one isn't. α is 1 % divided by the number of columns (Bonferroni), so that one window in
//! a hundred at most raises an alarm in any column.
//!
//! - **Tails.** The bound is never below √(h² + a²), with `h` the highest score of a window of the reference and `a` what `n` rows drawn at random
//!   stay below: a storm that the reference has seen is no drift.
//! - **Rows.** Windows of `r` rows also differ by chance, by `c/r` in the mean square (`c` from samples drawn at random), where a live window of
//!   `n` rows does by `c/n`: b² grows by `c/n − c/r`.
//! - **Length.** Both distances are convex: a window scores no more than its parts do on average. So a bound for shorter windows holds for longer
//!   ones, and the smallest of them counts: few long windows say less than many short ones. Between lengths it is interpolated; for windows
//!   shorter than all, it grows with the square root, up to what a single value of the reference scores.
//! - **Season.** Where a window is held against like hours, so were the windows of the reference, each of which is one of as many as there are seasons in
//!   what it was compared with. Chance is scaled by how much numbers spread in these hours, and isn't taken off for windows of more rows.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::stats::profile::{ColumnProfile, Null, RANDOM_ROWS, Season, Windows};

/// A window of the reference is a false alarm so often, in any of the columns.
pub const FALSE_ALARMS: f64 = 0.01;
/// Windows beside each other aren't independent: no more than so many count.
const MOST_INDEPENDENT: f64 = 12.0;

/// The live window, as far as noise depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// How long it lasted, if that is known.
    pub seconds: Option<u64>,
    /// Columns that are judged.
    pub columns: usize,
    /// The like hours that it is held against, if it is.
    pub like: Option<Like>,
}

/// What noise depends on of like hours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Like {
    pub season: Season,
    /// As how many values they are known.
    pub values: f64,
    /// How much they spread, by how much all of the column does: numbers drawn at random score in proportion.
    pub spread: f64,
}

/// The score that a window of `samples` values of the reference stays below. `None`: the profile doesn't say.
pub(super) fn bound(
    column: &ColumnProfile,
    windows: Option<&Windows>,
    samples: u64,
    span: Span,
) -> Option<f64> {
    let (Some(null), Some(windows)) = (&column.null, windows) else {
        return column.noise_at(samples);
    };
    let alpha = FALSE_ALARMS / span.columns.max(1) as f64;
    let samples = samples.max(1) as f64;
    let (known, spread) = span.like.map_or((column.count as f64, 1.0), |like| {
        (like.values, like.spread)
    });
    let chance = null.random.mean_square() * RANDOM_ROWS as f64 * spread * spread;
    let by_chance = spread * at_random(null, samples, known, alpha)?;
    let season = span.like.map(|like| like.season);
    let seasonal = season.and_then(|season| column.season.as_ref()?.windows(season));
    let bounds: Vec<(f64, f64)> = windows
        .lengths
        .iter()
        .zip(&windows.rows)
        .zip(seasonal.unwrap_or(&null.windows))
        .filter_map(|((&length, &rows), moments)| {
            let k = windows.fit(length).min(MOST_INDEPENDENT);
            let t = StudentsT::new(0.0, 1.0, k - 1.0)
                .ok()?
                .inverse_cdf(1.0 - alpha);
            let moments = moments.as_ref()?;
            let parts = windows.fit(season.map_or(length, |s| s.seconds().max(length)));
            let fewer = 1.0 / samples - 1.0 / rows;
            let fewer = if season.is_some() {
                fewer.max(0.0)
            } else {
                fewer
            };
            let likely = (parts + 1.0) / (parts - 1.0)
                * moments.score(t * (1.0 + 1.0 / k).sqrt()).powi(2)
                + chance * fewer;
            let highest = moments.max.powi(2) + by_chance.powi(2);
            Some((length as f64, likely.max(highest).sqrt()))
        })
        .collect();
    let length = if windows.timed {
        // Without a duration, as long as the reference took for so many rows.
        let own = samples * windows.total as f64 / (column.count + column.nulls).max(1) as f64;
        span.seconds.map_or(own, |s| s as f64)
    } else {
        samples
    };
    Some(at_length(&bounds, length.max(1.0)).map_or(by_chance, |b| b.min(null.most).max(by_chance)))
}

/// What `n` values drawn at random from as many as the reference is a sample of stay below.
fn at_random(null: &Null, n: f64, reference: f64, alpha: f64) -> Option<f64> {
    let z = Normal::new(0.0, 1.0).ok()?.inverse_cdf(1.0 - alpha);
    let share = 1.0 / n + 1.0 / reference.max(1.0);
    Some(null.random.score(z) * (RANDOM_ROWS as f64 * share).sqrt())
}

/// The bound at a length, from those at ascending ones: the smallest of all that aren't longer.
fn at_length(bounds: &[(f64, f64)], length: f64) -> Option<f64> {
    let &(shortest, first) = bounds.first()?;
    if length < shortest {
        return Some(first * (shortest / length).sqrt());
    }
    bounds
        .iter()
        .take_while(|b| b.0 <= length)
        .map(|b| b.1)
        .reduce(f64::min)
}
