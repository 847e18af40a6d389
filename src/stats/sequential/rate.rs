//! Means of values in 0..=1 by side: error rates, guardrail rates, feedback scores.

use super::bernoulli::interval;
use super::{Bound, Finding, Stratum, Units, first, judge};

/// The design effect is believed only as far as this many failing callers speak for it.
const PRIOR_FAILING: f64 = 5.0;

/// Judges the candidate's mean over callers, or its difference or ratio to stable's, at level `alpha`.
///
/// Each side is averaged over the strata (comparisons: those that both sides have, weighted by `n_c n_s / (n_c + n_s)`, Cochran–
/// Mantel–Haenszel) and gets the beta mixture's confidence sequence with its *effective* number of callers: callers whose means vary less
/// than coins do, because they are means over many requests, count for more than one, up to their requests (the design
/// effect of survey sampling: Korn, Graubard 1998), as far as failing callers were seen that show it. The two sides are combined by recovering
/// variances from the limits (Newcombe 1998; Zou, Donner 2008). A simulation in this module's tests checks the error rate.
#[must_use]
pub fn rates(strata: &[Stratum], bound: Bound, alpha: f64) -> Finding {
    if !bound.compares() {
        let Some(side) = Side::of(
            strata
                .iter()
                .map(|s| (s.candidate, s.candidate.callers as f64)),
            alpha,
        ) else {
            return Finding::nothing();
        };
        let stable: Units = total(strata.iter().map(|s| s.stable));
        let finding = Finding {
            estimate_candidate: Some(side.mean),
            estimate_stable: stable.mean(),
            value: Some(side.mean),
            lower: Some(side.low),
            upper: Some(side.high),
            samples: side.callers,
            detectable: None,
            verdict: judge(bound, Some(side.low), Some(side.high)),
        };
        return Finding {
            detectable: detectable(&side, None, bound, alpha),
            ..finding
        };
    }
    let both = || {
        strata
            .iter()
            .filter(|s| s.candidate.callers > 0 && s.stable.callers > 0)
    };
    let weight = |s: &Stratum| {
        let (c, b) = (s.candidate.callers as f64, s.stable.callers as f64);
        c * b / (c + b)
    };
    let sides = (
        Side::of(both().map(|s| (s.candidate, weight(s))), alpha),
        Side::of(both().map(|s| (s.stable, weight(s))), alpha),
    );
    let (Some(candidate), Some(stable)) = sides else {
        return Finding::nothing();
    };
    let (value, lower, upper) = match bound {
        Bound::MaxRatio(_) | Bound::MinRatio(_) => ratio(&candidate, &stable),
        _ => {
            let (lower, upper) = contrast(&candidate, &stable, 1.0);
            (Some(candidate.mean - stable.mean), Some(lower), Some(upper))
        }
    };
    Finding {
        estimate_candidate: Some(candidate.mean),
        estimate_stable: Some(stable.mean),
        value,
        lower,
        upper,
        samples: candidate.callers,
        detectable: detectable(&candidate, Some(&stable), bound, alpha),
        verdict: judge(bound, lower, upper),
    }
}

/// One side over all strata.
#[derive(Clone, Copy, Debug)]
struct Side {
    mean: f64,
    low: f64,
    high: f64,
    effective: f64,
    callers: u64,
}

impl Side {
    /// From the units and weight of each stratum.
    fn of(strata: impl Iterator<Item = (Units, f64)> + Clone, alpha: f64) -> Option<Self> {
        let weights: f64 = strata.clone().map(|s| s.1).sum();
        let all = total(strata.clone().map(|s| s.0));
        if all.callers == 0 || weights <= 0.0 {
            return None;
        }
        let (mut mean, mut spread, mut squares) = (0.0, 0.0, 0.0);
        for (units, weight) in strata.filter(|s| s.0.callers > 0) {
            let n = units.callers as f64;
            let own = units.sum / n;
            let weight = weight / weights;
            mean += weight * own;
            spread += weight * weight / n;
            squares += (units.sum_squares - n * own * own).max(0.0);
        }
        let n = all.callers as f64;
        // Of a coin with about this mean; never zero.
        let shrunk = (mean * n + 0.5) / (n + 1.0);
        let measured = (squares / n / (shrunk * (1.0 - shrunk))).min(1.0);
        let failing = kish(all.sum, all.sum_squares)
            .min(kish(n - all.sum, n - 2.0 * all.sum + all.sum_squares));
        let design = (failing * measured + PRIOR_FAILING) / (failing + PRIOR_FAILING);
        let effective = (1.0 / spread / design)
            .min(all.requests as f64)
            .max(1.0 / spread);
        let (low, high) = interval(mean, effective, alpha);
        Some(Self {
            mean: mean.clamp(0.0, 1.0),
            low,
            high,
            effective,
            callers: all.callers,
        })
    }

    /// The same side, had its mean been another.
    fn at(&self, mean: f64, alpha: f64) -> Self {
        let (low, high) = interval(mean, self.effective, alpha);
        Self {
            mean,
            low,
            high,
            ..*self
        }
    }
}

/// How many equal parts a sum is worth (Kish 1965).
fn kish(sum: f64, sum_squares: f64) -> f64 {
    if sum_squares > 0.0 {
        sum * sum / sum_squares
    } else {
        0.0
    }
}

fn total(units: impl Iterator<Item = Units>) -> Units {
    units.fold(Units::default(), |mut sum, more| {
        sum.merge(&more);
        sum
    })
}

/// The interval of candidate − factor · stable.
fn contrast(candidate: &Side, stable: &Side, factor: f64) -> (f64, f64) {
    let value = candidate.mean - factor * stable.mean;
    let down = (candidate.mean - candidate.low).hypot(factor * (stable.high - stable.mean));
    let up = (candidate.high - candidate.mean).hypot(factor * (stable.mean - stable.low));
    (value - down, value + up)
}

/// The ratio and its interval: the factors for which the contrast doesn't exclude zero.
fn ratio(candidate: &Side, stable: &Side) -> (Option<f64>, Option<f64>, Option<f64>) {
    const LARGEST: f64 = 1e6;
    let value = (stable.mean > 0.0).then(|| candidate.mean / stable.mean);
    // Both ends of the contrast fall as the factor grows.
    let lower = first(0.0, LARGEST, 40, |r| {
        contrast(candidate, stable, r).0 <= 0.0
    });
    let upper = first(0.0, LARGEST, 40, |r| {
        contrast(candidate, stable, r).1 <= 0.0
    });
    (value, lower.or(Some(LARGEST)), upper)
}

/// The smallest value beyond the bound that would be seen as such with what has been collected.
fn detectable(candidate: &Side, stable: Option<&Side>, bound: Bound, alpha: f64) -> Option<f64> {
    let value = |mean: f64| match (bound, stable) {
        (Bound::MaxDifference(_) | Bound::MinDifference(_), Some(stable)) => mean - stable.mean,
        (Bound::MaxRatio(_) | Bound::MinRatio(_), Some(stable)) => mean / stable.mean,
        _ => mean,
    };
    let failed = |mean: f64| {
        let side = candidate.at(mean, alpha);
        let (lower, upper, limit) = match (bound, stable) {
            (Bound::MaxDifference(_) | Bound::MinDifference(_), Some(stable)) => {
                let (lower, upper) = contrast(&side, stable, 1.0);
                (lower, upper, bound.value())
            }
            (Bound::MaxRatio(_) | Bound::MinRatio(_), Some(stable)) => {
                let (lower, upper) = contrast(&side, stable, bound.value());
                (lower, upper, 0.0)
            }
            _ => (side.low, side.high, bound.value()),
        };
        if bound.is_upper() {
            lower > limit
        } else {
            upper < limit
        }
    };
    // Shown with four digits, and each bit costs as much as a verdict.
    const BITS: u32 = 20;
    let mean = if bound.is_upper() {
        first(0.0, 1.0, BITS, failed)
    } else {
        first(0.0, 1.0, BITS, |x| failed(1.0 - x)).map(|x| 1.0 - x)
    };
    mean.map(value).filter(|v| v.is_finite())
}
