//! Means of what has no fixed range (tokens, cost) and of scores, by an empirical-Bernstein confidence sequence.
//!
//! For values in a range of length c with mean μ, `Σ(xᵢ − μ)` crosses the boundary `u(V)` on either side at any time with probability
//! at most `alpha`, where `V = Σ(xᵢ − x̂ᵢ)²` for predictions x̂ᵢ made before xᵢ was seen (Howard, Ramdas, McAuliffe, Sekhon:
//! *Time-uniform, nonparametric, nonasymptotic confidence sequences*, Annals of Statistics 2021, theorem 4; Waudby-Smith, Ramdas 2024), and
//! u is their stitched boundary (theorem 1) with η = 2, s = 1.4 and m = c².
//!
//! What gateways keep has no order, so V is bounded for every order: with the mean of the earlier values as prediction, the deviations exceed
//! Welford's, which sum to `M₂ = Σ(xᵢ − x̄)²`, by at most `c²/i` each, and only until M₂ is used up:
//! `V ≤ M₂ + c² (¼ + ln(2 + 2 M₂/c²))`. As u grows with V, the sequence stays valid.
//!
//! With few values the terms in c decide, and the beta mixture of error rates, on `x/c`, says more: half of `alpha` goes to each of
//! the two, and what both allow is the interval.

use super::bernoulli::interval;
use super::{Bound, Finding, LatencySide, LatencyStratum, Stratum, Units, judge};

/// Values count up to so many times the mean of their side: a few that are far off must not decide how wide the interval is.
const CAP: f64 = 10.0;
/// ζ(1.4), for the stitched boundary's weights `1 / (ζ(s) (k+1)^s)`.
const ZETA: f64 = 3.105_5;
/// The exponent s.
const S: f64 = 1.4;

/// Judges the mean of the candidate's values, or its difference or ratio to stable's, at level `alpha`. One in a histogram stands for `scale`
/// (1 for tokens, a billionth for what is counted in billionths).
///
/// Values count up to ten times the mean of their side. For comparisons stable's strata are weighted as the candidate's are; sides are combined by
/// recovering variances from the limits (Zou, Donner 2008), for ratios on logarithms. Buckets' middles stand for their values: 0.8 % at most.
#[must_use]
pub fn means(strata: &[LatencyStratum], scale: f64, bound: Bound, alpha: f64) -> Finding {
    let compares = bound.compares();
    let used: Vec<&LatencyStratum> = strata
        .iter()
        .filter(|s| {
            s.candidate.histogram.count() > 0 && (!compares || s.stable.histogram.count() > 0)
        })
        .collect();
    let cap = |side: fn(&LatencyStratum) -> &LatencySide| {
        let histograms = used.iter().map(|s| &side(s).histogram);
        let (count, sum) = histograms.fold((0.0, 0.0), |(count, sum), h| {
            (count + h.count() as f64, sum + h.sum() as f64)
        });
        // None, or all of them zero: any cap will do.
        (CAP * sum / f64::max(count, 1.0)).max(1.0)
    };
    let weight = |s: &LatencyStratum| {
        s.candidate.histogram.count() as f64 / s.stable.histogram.count().max(1) as f64
    };
    let most = cap(|s| &s.candidate);
    let candidate = used.iter().map(|s| (moments(&s.candidate, most), 1.0));
    let candidate = Side::of(candidate, most);
    let most = cap(|s| &s.stable);
    let stable = used.iter().filter(|s| s.stable.histogram.count() > 0);
    let stable = Side::of(stable.map(|s| (moments(&s.stable, most), weight(s))), most);
    finding(candidate, stable, scale, bound, alpha)
}

/// As [`means`], of callers' means in 0…1 (scores).
#[must_use]
pub fn scores(strata: &[Stratum], bound: Bound, alpha: f64) -> Finding {
    let compares = bound.compares();
    let used = || {
        let both =
            move |s: &&Stratum| s.candidate.callers > 0 && (!compares || s.stable.callers > 0);
        strata.iter().filter(both)
    };
    let of = |units: &Units| {
        let n = units.callers as f64;
        let mean = units.sum / n;
        Moments {
            count: units.callers,
            n,
            mean,
            variance: (units.sum_squares / n - mean * mean).max(0.0),
        }
    };
    let weight = |s: &Stratum| s.candidate.callers as f64 / s.stable.callers as f64;
    let candidate = Side::of(used().map(|s| (of(&s.candidate), 1.0)), 1.0);
    let stable = used().filter(|s| s.stable.callers > 0);
    let stable = Side::of(stable.map(|s| (of(&s.stable), weight(s))), 1.0);
    finding(candidate, stable, 1.0, bound, alpha)
}

/// A side in one stratum.
#[derive(Clone, Copy, Debug)]
struct Moments {
    /// Values.
    count: u64,
    /// Independent ones that they are worth.
    n: f64,
    mean: f64,
    variance: f64,
}

fn moments(side: &LatencySide, cap: f64) -> Moments {
    let count = side.histogram.count();
    let (mut sum, mut squares) = (0.0, 0.0);
    for (first, last, n) in side.histogram.buckets() {
        let value = f64::midpoint(first as f64, last as f64).min(cap);
        sum += value * n as f64;
        squares += value * value * n as f64;
    }
    let all = count as f64;
    let mean = sum / all;
    Moments {
        count,
        n: side.units.clamp(1.0, all),
        mean,
        variance: (squares / all - mean * mean).max(0.0),
    }
}

/// One side over all strata.
#[derive(Clone, Copy, Debug)]
struct Side {
    count: u64,
    n: f64,
    mean: f64,
    variance: f64,
    range: f64,
}

impl Side {
    /// Strata with the weight of one of their values.
    fn of(strata: impl Iterator<Item = (Moments, f64)>, range: f64) -> Option<Self> {
        let (mut count, mut total, mut sum, mut within) = (0, 0.0, 0.0, 0.0);
        let (mut units, mut squares) = (0.0, 0.0);
        for (of, weight) in strata {
            let values = weight * of.count as f64;
            count += of.count;
            total += values;
            sum += values * of.mean;
            within += values * of.variance;
            let each = values / of.n;
            units += of.n * each;
            squares += of.n * each * each;
        }
        (count > 0).then(|| Self {
            count,
            n: units * units / squares, // Kish 1965
            mean: sum / total,
            variance: within / total,
            range,
        })
    }

    /// The ends of the interval around the mean, at level `alpha` for both together.
    fn ends(&self, alpha: f64) -> (f64, f64) {
        let c = self.range;
        let m2 = self.n * self.variance;
        let v = m2 + c * c * (0.25 + (2.0 + 2.0 * m2 / (c * c)).ln());
        // Half for this, a quarter to each end, and half for the mixture.
        let radius = boundary(v, c, alpha / 4.0) / self.n;
        let (low, high) = interval(self.mean / c, self.n, alpha / 2.0);
        (
            (low * c).max(self.mean - radius).min(self.mean),
            (high * c).min(self.mean + radius).max(self.mean),
        )
    }
}

/// The stitched boundary for sums with intrinsic time `v` and scale `c`, crossed at any time with probability at most `alpha`.
fn boundary(v: f64, c: f64, alpha: f64) -> f64 {
    let m = c * c;
    let v = v.max(m);
    let (eta, k2) = (2f64, (2f64.sqrt() + 1.0) / 2.0);
    let k1 = (eta.powf(0.25) + eta.powf(-0.25)) / 2f64.sqrt();
    let epoch = (v / m).log2() + 1.0;
    let l = S * epoch.ln() + (ZETA / alpha).ln();
    (k1 * k1 * v * l + (k2 * c * l).powi(2)).sqrt() + k2 * c * l
}

fn finding(
    candidate: Option<Side>,
    stable: Option<Side>,
    scale: f64,
    bound: Bound,
    alpha: f64,
) -> Finding {
    let Some(candidate) = candidate else {
        return Finding::nothing();
    };
    let (low, high) = candidate.ends(alpha);
    let (value, lower, upper) = match (bound, stable) {
        (Bound::Max(_) | Bound::Min(_), _) => (
            candidate.mean * scale,
            Some(low * scale),
            Some(high * scale),
        ),
        (_, None) => return Finding::nothing(),
        (Bound::MaxDifference(_) | Bound::MinDifference(_), Some(stable)) => {
            let value = candidate.mean - stable.mean;
            let (other_low, other_high) = stable.ends(alpha);
            let lower = value - (candidate.mean - low).hypot(other_high - stable.mean);
            let upper = value + (high - candidate.mean).hypot(stable.mean - other_low);
            (value * scale, Some(lower * scale), Some(upper * scale))
        }
        (Bound::MaxRatio(_) | Bound::MinRatio(_), Some(stable)) => {
            if !(candidate.mean > 0.0 && stable.mean > 0.0) {
                return Finding {
                    samples: candidate.count,
                    ..Finding::nothing()
                };
            }
            let logs = |mean: f64, (low, high): (f64, f64)| {
                let down = (low > 0.0).then(|| (mean / low).ln());
                (down, (high / mean).ln())
            };
            let (down, up) = logs(candidate.mean, (low, high));
            let (other_down, other_up) = logs(stable.mean, stable.ends(alpha));
            let value = candidate.mean / stable.mean;
            let lower = down.map(|down| value * (-down.hypot(other_up)).exp());
            let upper = other_down.map(|down| value * down.hypot(up).exp());
            (value, lower, upper)
        }
    };
    let limit = bound.value();
    let detectable = match bound {
        Bound::Max(_) | Bound::MaxDifference(_) => lower.map(|lower| limit + value - lower),
        Bound::Min(_) | Bound::MinDifference(_) => upper.map(|upper| limit - (upper - value)),
        Bound::MaxRatio(_) => lower.filter(|l| *l > 0.0).map(|l| limit * value / l),
        Bound::MinRatio(_) => upper.filter(|u| *u > 0.0).map(|u| limit * value / u),
    };
    Finding {
        estimate_candidate: Some(candidate.mean * scale),
        estimate_stable: stable.map(|s| s.mean * scale),
        value: Some(value),
        lower,
        upper,
        samples: candidate.count,
        detectable,
        verdict: judge(bound, lower, upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{random::Generator, sequential::Verdict, sketch::LatencyHistogram};

    /// A value with a long tail and this mean: exponential.
    fn tokens(generator: &mut Generator, mean: f64) -> u64 {
        (-mean * (1.0 - generator.unit()).ln()).round() as u64
    }

    fn stratum(candidate: &LatencyHistogram, stable: &LatencyHistogram) -> LatencyStratum {
        let side = |h: &LatencyHistogram| LatencySide {
            histogram: h.clone(),
            units: h.count() as f64,
        };
        LatencyStratum {
            candidate: side(candidate),
            stable: side(stable),
        }
    }

    #[test]
    fn the_interval_of_a_score_holds_the_truth_at_every_look_at_once() {
        let alpha = 0.05;
        for (name, mean, draw) in [
            (
                "coins",
                0.03,
                (|g: &mut Generator| f64::from(u8::from(g.unit() < 0.03)))
                    as fn(&mut Generator) -> f64,
            ),
            ("uniform", 0.5, |g| g.unit()),
            ("squares", 1.0 / 3.0, |g| g.unit().powi(2)),
        ] {
            let mut wrong = 0;
            for run in 0..300 {
                let mut generator = Generator::new(run);
                let (mut units, mut left) = (Units::default(), false);
                for n in 1..=1000 {
                    units.add(draw(&mut generator), 1);
                    if n % 20 > 0 {
                        continue;
                    }
                    let one = Stratum {
                        candidate: units,
                        ..Stratum::default()
                    };
                    let seen = scores(&[one], Bound::Max(0.5), alpha);
                    left |= seen.lower.unwrap() > mean || seen.upper.unwrap() < mean;
                }
                wrong += u32::from(left);
            }
            assert!(wrong <= 26, "{name}: {wrong} of 300"); // 15 + 3 sigma
        }
    }

    #[test]
    fn equal_versions_are_seldom_told_apart_and_dear_ones_are_found() {
        let alpha = 0.01;
        let (mut wrong, mut found) = (0, Vec::new());
        for run in 0..200 {
            let mut generator = Generator::new(1000 + run);
            let mut sides = [(); 3].map(|()| LatencyHistogram::default());
            let mut left = false;
            let mut when = None;
            for caller in 1..=3000u32 {
                sides[0].add(tokens(&mut generator, 400.0));
                sides[1].add(tokens(&mut generator, 400.0));
                sides[2].add(tokens(&mut generator, 800.0));
                if caller % 25 == 0 {
                    let judged = |candidate: &LatencyHistogram| {
                        let strata = [stratum(candidate, &sides[0])];
                        means(&strata, 1.0, Bound::MaxRatio(1.0), alpha).verdict
                    };
                    left |= judged(&sides[1]) != Verdict::Inconclusive;
                    if when.is_none() && judged(&sides[2]) == Verdict::Failed {
                        when = Some(caller);
                    }
                }
            }
            wrong += u32::from(left);
            found.push(when.unwrap_or(u32::MAX));
        }
        assert!(wrong <= 6, "{wrong} of 200"); // 2 + 3 sigma
        found.sort_unstable();
        assert!(found[190] <= 1000, "19 in 20 by {} callers", found[190]);
    }

    #[test]
    fn what_costs_ten_times_as_much_is_seen_with_a_hundred_callers() {
        let constant = |value: u64| {
            let mut histogram = LatencyHistogram::default();
            histogram.add_many(value, 100);
            histogram
        };
        let strata = [stratum(&constant(5000), &constant(500))];
        let seen = means(&strata, 1.0, Bound::MaxRatio(1.3), 0.01);
        assert_eq!(seen.verdict, Verdict::Failed, "{seen:?}");
    }

    #[test]
    fn values_far_off_count_up_to_the_cap_and_what_is_rounded_is_little() {
        let mut histogram = LatencyHistogram::default();
        histogram.add_many(1000, 9999);
        let before = means(
            &[stratum(&histogram, &histogram)],
            1.0,
            Bound::Max(2000.0),
            0.01,
        );
        assert!((before.value.unwrap() / 1000.0 - 1.0).abs() < 0.009);
        assert_eq!(before.verdict, Verdict::Passed);
        histogram.add(1_000_000_000);
        let after = means(
            &[stratum(&histogram, &histogram)],
            1.0,
            Bound::Max(2000.0),
            0.01,
        );
        assert!(after.value.unwrap() < 200_000.0, "{after:?}");
        assert_eq!(means(&[], 1.0, Bound::Max(1.0), 0.01), Finding::nothing());
    }

    #[test]
    fn a_ramp_is_not_taken_for_a_difference() {
        // The second stratum is dearer for both, and the candidate has most of it.
        let side = |mean: f64, n: u64, seed: u64| {
            let mut generator = Generator::new(seed);
            let mut histogram = LatencyHistogram::default();
            (0..n).for_each(|_| histogram.add(tokens(&mut generator, mean)));
            histogram
        };
        let strata = [
            stratum(&side(100.0, 500, 1), &side(100.0, 9500, 2)),
            stratum(&side(300.0, 5000, 3), &side(300.0, 5000, 4)),
        ];
        let seen = means(&strata, 1.0, Bound::MaxRatio(1.1), 0.01);
        assert!((seen.value.unwrap() - 1.0).abs() < 0.1, "{seen:?}");
        assert_ne!(seen.verdict, Verdict::Failed);
    }
}
