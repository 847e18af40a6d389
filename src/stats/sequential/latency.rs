//! Quantiles of latencies by side, from mergeable histograms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bernoulli::plausible_means;
use super::{Bound, Finding, judge};
use crate::stats::sketch::LatencyHistogram;

const SECOND: f64 = 1e6; // microseconds

/// One side's latencies in one stratum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySide {
    /// The latencies.
    pub histogram: LatencyHistogram,
    /// How many independent requests they are worth, at most their number: those of one caller resemble each other.
    pub units: f64,
}

/// Both sides during a time in which the weight stood still.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyStratum {
    /// The candidate's latencies.
    pub candidate: LatencySide,
    /// Stable's latencies.
    pub stable: LatencySide,
}

/// Judges the `quantile` (0.95 for p95) of the candidate's latency **in seconds**, or its difference (seconds) or ratio to stable's, at
/// level `alpha`.
///
/// If q is the true quantile, the share of latencies up to q is a mean of coins with probability `quantile`; the beta mixture's
/// confidence sequence says which shares are plausible, and the histogram which latencies those are (Howard, Ramdas: *Sequential
/// estimation of quantiles*, Bernoulli 2022). Ends are rounded outwards to the bucket (1.6 %). For comparisons stable's strata are
/// weighted as the candidate's are, so that a ramp or a daily cycle isn't taken for a difference; sides are combined by
/// recovering variances from the limits (Zou, Donner 2008), for ratios on logarithms. What the buckets leave open isn't chance, so both
/// sides' roundings are added as they are: two equal quantiles at the edge of a bucket are never a difference.
#[must_use]
pub fn latencies(strata: &[LatencyStratum], quantile: f64, bound: Bound, alpha: f64) -> Finding {
    let compares = bound.compares();
    let used = || {
        strata.iter().filter(move |s| {
            s.candidate.histogram.count() > 0 && (!compares || s.stable.histogram.count() > 0)
        })
    };
    let Some(candidate) = Side::of(used().map(|s| (&s.candidate, 1.0)), quantile, alpha) else {
        return Finding::nothing();
    };
    let as_candidate = |s: &LatencyStratum| {
        s.candidate.histogram.count() as f64 / s.stable.histogram.count() as f64
    };
    let stable = Side::of(
        used()
            .filter(|s| s.stable.histogram.count() > 0)
            .map(|s| (&s.stable, as_candidate(s))),
        quantile,
        alpha,
    );
    let (value, lower, upper) = match (bound, &stable) {
        (Bound::MaxDifference(_) | Bound::MinDifference(_), Some(stable)) => {
            combine(&candidate, stable, |x| x)
        }
        (Bound::MaxRatio(_) | Bound::MinRatio(_), Some(stable)) => {
            let (value, lower, upper) = combine(&candidate, stable, |x| x.max(0.5 / SECOND).ln());
            (value.exp(), lower.map(f64::exp), upper.map(f64::exp))
        }
        (Bound::Max(_) | Bound::Min(_), _) => {
            let (low, high) = (candidate.low.first, candidate.high.map(|b| b.end));
            (candidate.value.middle(), Some(low), high)
        }
        _ => return Finding::nothing(),
    };
    let limit = bound.value();
    let detectable = match (bound, lower, upper) {
        (Bound::MaxDifference(_), Some(lower), _) => Some(limit + value - lower),
        (Bound::MinDifference(_), _, Some(upper)) => Some(limit + value - upper),
        (Bound::Max(_) | Bound::MaxRatio(_), Some(lower), _) if lower > 0.0 => {
            Some(limit * value / lower)
        }
        (Bound::Min(_) | Bound::MinRatio(_), _, Some(upper)) if upper > 0.0 => {
            Some(limit * value / upper)
        }
        _ => None,
    };
    Finding {
        estimate_candidate: Some(candidate.value.middle()),
        estimate_stable: stable.map(|s| s.value.middle()),
        value: Some(value),
        lower,
        upper,
        samples: candidate.count,
        detectable,
        verdict: judge(bound, lower, upper),
    }
}

/// A bucket of the histogram, in seconds: where a quantile lies is known no better.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    first: f64,
    end: f64,
}

impl Bucket {
    fn of(first: u64, last: u64) -> Self {
        Self {
            first: first as f64 / SECOND,
            end: (last + 1) as f64 / SECOND,
        }
    }

    fn middle(self) -> f64 {
        f64::midpoint(self.first, self.end)
    }

    /// How far what lies in it may be from its middle, on the given scale.
    fn rounding(self, scale: impl Fn(f64) -> f64) -> f64 {
        let middle = scale(self.middle());
        (middle - scale(self.first)).max(scale(self.end) - middle)
    }
}

/// One side's quantile.
#[derive(Clone, Copy, Debug)]
struct Side {
    value: Bucket,
    low: Bucket,
    high: Option<Bucket>,
    count: u64,
}

impl Side {
    /// From each stratum's latencies and the weight of one of them.
    fn of<'a>(
        strata: impl Iterator<Item = (&'a LatencySide, f64)>,
        quantile: f64,
        alpha: f64,
    ) -> Option<Self> {
        let mut buckets: BTreeMap<u64, (u64, f64)> = BTreeMap::new();
        let (mut count, mut units, mut squares) = (0, 0.0, 0.0);
        for (side, weight) in strata {
            for (first, last, n) in side.histogram.buckets() {
                let bucket = buckets.entry(first).or_insert((last, 0.0));
                bucket.1 += weight * n as f64;
            }
            let requests = side.histogram.count();
            count += requests;
            let own = side.units.clamp(1.0, requests as f64);
            // Each unit stands for that many latencies, each with its weight.
            let each = weight * requests as f64 / own;
            units += own * each;
            squares += own * each * each;
        }
        if count == 0 {
            return None;
        }
        let effective = units * units / squares; // Kish 1965
        let total: f64 = buckets.values().map(|b| b.1).sum();
        let at = |share: f64| {
            let mut seen = 0.0;
            let reached = buckets.iter().find(|(_, (_, weight))| {
                seen += weight;
                seen >= share * total * (1.0 - 1e-12)
            });
            reached
                .or_else(|| buckets.last_key_value())
                .map_or(Bucket::default(), |(&first, &(last, _))| {
                    Bucket::of(first, last)
                })
        };
        let (low, high) = plausible_means(quantile, effective, alpha);
        Some(Self {
            value: at(quantile),
            low: if low > 0.0 {
                at(low)
            } else {
                Bucket::default()
            },
            high: (high < 1.0).then(|| at(high)),
            count,
        })
    }
}

/// Candidate − stable on the given scale, with its ends. How much of the distance to an end comes from the value and how much from
/// the limit adds up to one on each side, so each side is off by its coarser bucket at most.
fn combine(
    candidate: &Side,
    stable: &Side,
    scale: impl Fn(f64) -> f64,
) -> (f64, Option<f64>, Option<f64>) {
    let at = |bucket: Bucket| scale(bucket.middle());
    let coarser = |a: Bucket, b: Bucket| a.rounding(&scale).max(b.rounding(&scale));
    let value = at(candidate.value) - at(stable.value);
    let distance = |above: (Bucket, Bucket), below: (Bucket, Bucket)| {
        let chance = (at(above.1) - at(above.0)).hypot(at(below.1) - at(below.0));
        chance + (coarser(above.0, above.1) + coarser(below.0, below.1)) * (1.0 + 1e-9)
    };
    let lower = stable
        .high
        .map(|high| value - distance((stable.value, high), (candidate.low, candidate.value)));
    let upper = candidate
        .high
        .map(|high| value + distance((candidate.value, high), (stable.low, stable.value)));
    (value, lower, upper)
}
