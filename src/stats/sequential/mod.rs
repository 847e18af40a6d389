//! Tests for rollouts that hold however often one looks.
//!
//! A gate is judged by a *confidence sequence*: intervals that, with probability `1 − alpha`, contain the truth at every look at
//! once. So one may look every few seconds and stop at any time (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon: *Time-uniform,
//! nonparametric, nonasymptotic confidence sequences*, Annals of Statistics 2021; Waudby-Smith, Ramdas: *Estimating means of
//! bounded random variables by betting*, JRSS B 2024).
//!
//! - **Unit.** The sticky caller: each contributes one value per stratum, the mean over its requests. Requests of one caller resemble each
//!   other; counted one by one, a single broken client would condemn a candidate. Callers without a key are one unit for each request.
//! - **Stratum.** A time during which the weight stood still: within it callers are on their side by chance alone. Sides are
//!   compared within strata and then averaged, never pooled over a ramp. Do *not* make strata of shorter intervals in which the same callers
//!   come back: they would count again and again. [`CallerSketch`](super::sketch::CallerSketch) keeps what a stratum needs.
//! - **Error budget.** A rollout spends one `alpha` over its gates: [`share`]. Steps and bake need no share of their own, as the same
//!   sequence goes on.
//!
//! ```
//! use perennial::stats::sequential::{Bound, Stratum, Units, Verdict, rates};
//!
//! let mut stratum = Stratum::default();
//! for caller in 0..400 {
//!     stratum.stable.add(0.0, 20);                                            // mean over the caller's requests, how many
//!     stratum.candidate.add(if caller % 4 == 0 { 0.5 } else { 0.0 }, 20);
//! }
//! let finding = rates(&[stratum], Bound::MaxDifference(0.005), 0.0025);
//! assert_eq!(finding.verdict, Verdict::Failed);
//! assert!(finding.lower.unwrap() > 0.05);
//! ```

mod bernoulli;
mod latency;
mod mean;
mod rate;

pub use latency::{LatencySide, LatencyStratum, latencies};
pub use mean::{means, scores};
pub use rate::rates;

use serde::{Deserialize, Serialize};

/// What is known of one side in one stratum: units with values in 0..=1 (a failure rate, a share, a score).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Units {
    /// Callers.
    pub callers: u64,
    /// The sum of their means.
    pub sum: f64,
    /// The sum of the squares of their means.
    pub sum_squares: f64,
    /// Their requests.
    pub requests: u64,
}

impl Units {
    /// Adds a caller with its mean (clamped to 0..=1) over so many requests; one without requests is left out.
    pub fn add(&mut self, mean: f64, requests: u64) {
        if requests == 0 || mean.is_nan() {
            return;
        }
        let mean = mean.clamp(0.0, 1.0);
        self.callers += 1;
        self.sum += mean;
        self.sum_squares += mean * mean;
        self.requests += requests;
    }

    /// Callers without a key: each request is a unit.
    #[must_use]
    pub fn of_requests(requests: u64, failures: u64) -> Self {
        let failures = failures.min(requests) as f64;
        Self {
            callers: requests,
            sum: failures,
            sum_squares: failures,
            requests,
        }
    }

    /// Adds other callers of the same side and stratum.
    pub fn merge(&mut self, other: &Self) {
        self.callers += other.callers;
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
        self.requests += other.requests;
    }

    /// The mean over callers.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.callers > 0).then(|| (self.sum / self.callers as f64).clamp(0.0, 1.0))
    }
}

/// Both sides during a time in which the weight stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    /// The candidate's callers.
    pub candidate: Units,
    /// Stable's callers.
    pub stable: Units,
}

/// A gate's bound: absolute on the candidate, or against stable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Bound {
    /// The candidate's value is at most this.
    Max(f64),
    /// The candidate's value is at least this.
    Min(f64),
    /// Candidate − stable is at most this.
    MaxDifference(f64),
    /// Candidate − stable is at least this.
    MinDifference(f64),
    /// Candidate / stable is at most this.
    MaxRatio(f64),
    /// Candidate / stable is at least this.
    MinRatio(f64),
}

impl Bound {
    /// The bound's number.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Max(x)
            | Self::Min(x)
            | Self::MaxDifference(x)
            | Self::MinDifference(x)
            | Self::MaxRatio(x)
            | Self::MinRatio(x) => x,
        }
    }

    /// Whether it bounds from above.
    #[must_use]
    pub fn is_upper(self) -> bool {
        matches!(
            self,
            Self::Max(_) | Self::MaxDifference(_) | Self::MaxRatio(_)
        )
    }

    /// Whether it compares with stable.
    #[must_use]
    pub fn compares(self) -> bool {
        !matches!(self, Self::Max(_) | Self::Min(_))
    }
}

/// What a confidence sequence says about a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Wholly within the bound: safety is proven.
    Passed,
    /// Wholly beyond the bound: harm is proven.
    Failed,
    /// Neither yet.
    Inconclusive,
}

/// What is known about a gate by now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The candidate's value (for a comparison, over the strata that both sides have).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimate_candidate: Option<f64>,
    /// Stable's value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimate_stable: Option<f64>,
    /// What the bound is about: the candidate's value, the difference or the ratio.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<f64>,
    /// Lower end of the confidence sequence for `value`; absent: unbounded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lower: Option<f64>,
    /// Upper end; absent: unbounded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upper: Option<f64>,
    /// The candidate's units.
    pub samples: u64,
    /// The smallest `value` beyond the bound that would have been seen as such by now; absent: none would.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detectable: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
}

impl Finding {
    /// Nothing is known.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            estimate_candidate: None,
            estimate_stable: None,
            value: None,
            lower: None,
            upper: None,
            samples: 0,
            detectable: None,
            verdict: Verdict::Inconclusive,
        }
    }
}

/// Judges an interval by a bound: `Failed` when it lies wholly beyond, `Passed` when wholly within (ends included).
#[must_use]
pub fn judge(bound: Bound, lower: Option<f64>, upper: Option<f64>) -> Verdict {
    let (lower, upper) = (
        lower.unwrap_or(f64::NEG_INFINITY),
        upper.unwrap_or(f64::INFINITY),
    );
    let limit = bound.value();
    // NaN compares false: inconclusive.
    let (beyond, within) = if bound.is_upper() {
        (lower > limit, upper <= limit)
    } else {
        (upper < limit, lower >= limit)
    };
    match (beyond, within) {
        (true, false) => Verdict::Failed,
        (false, true) => Verdict::Passed,
        _ => Verdict::Inconclusive,
    }
}

/// What a gate may spend of a rollout's error rate, as the `place`th (from 0) of those judged so far, of which `first` were there from the
/// beginning. Those share nine tenths evenly (Bonferroni: valid whatever depends on what); of the last tenth the kth that came later has
/// 1 / (k (k + 1)), which never sums to more than 1, however many come.
#[must_use]
pub fn share(alpha: f64, first: usize, place: usize) -> f64 {
    let first = first.max(1);
    match (place + 1).saturating_sub(first) {
        0 => alpha * (1.0 - LATER) / first as f64,
        k => alpha * LATER / (k as f64 * (k as f64 + 1.0)),
    }
}

/// Part of the error rate that is kept for gates which are put in under way.
const LATER: f64 = 0.1;

/// The smallest `x` in `low..=high` for which `holds` does, if it does at `high`, to so many bits of the range; `holds` must stay true
/// once it is.
fn first(mut low: f64, mut high: f64, bits: u32, holds: impl Fn(f64) -> bool) -> Option<f64> {
    if !holds(high) {
        return None;
    }
    for _ in 0..bits {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            high = middle
        } else {
            low = middle
        }
    }
    Some(high)
}

#[cfg(test)]
mod tests;
