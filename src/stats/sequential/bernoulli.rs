//! The confidence sequence under everything else: the beta mixture for values in 0..=1.
//!
//! For values with mean p, `Π (q/p)^x ((1−q)/(1−p))^(1−x)` is a supermartingale for every q, as it is convex in x and has
//! expectation 1 for a coin; mixed over a Beta(½, ½) prior for q it is
//! `B(½+S, ½+n−S) / B(½, ½) / (p^S (1−p)^(n−S))`, and by Ville's inequality it ever reaches `1/alpha` with probability at most `alpha`
//! (Robbins 1970; Howard et al. 2021, section 3). Those p for which it hasn't are the interval.

use statrs::function::beta::ln_beta;

/// ln of the mixture martingale at `p`, for `n` units (also fractional) with mean `mean`.
fn evidence(p: f64, mean: f64, n: f64) -> f64 {
    let s = mean * n;
    let term = |count: f64, p: f64| if count > 0.0 { count * p.ln() } else { 0.0 };
    let prior = std::f64::consts::PI.ln(); // ln B(½, ½)
    ln_beta(0.5 + s, 0.5 + n - s) - prior - term(s, p) - term(n - s, 1.0 - p)
}

/// The ends of the set of `p` that aren't refuted at level `alpha`.
pub(super) fn interval(mean: f64, n: f64, alpha: f64) -> (f64, f64) {
    if !(n > 0.0 && mean.is_finite()) {
        return (0.0, 1.0);
    }
    let mean = mean.clamp(0.0, 1.0);
    let refuted = |p: f64| evidence(p, mean, n) >= -alpha.ln();
    let low = if refuted(0.0) || mean > 0.0 {
        edge(mean, 0.0, refuted)
    } else {
        0.0
    };
    let high = if mean < 1.0 {
        edge(mean, 1.0, refuted)
    } else {
        1.0
    };
    (low, high)
}

/// The range of observed means that don't refute a true mean of `p`.
pub(super) fn plausible_means(p: f64, n: f64, alpha: f64) -> (f64, f64) {
    if n.is_nan() || n <= 0.0 {
        return (0.0, 1.0);
    }
    let refuted = |mean: f64| evidence(p, mean, n) >= -alpha.ln();
    let side = |end: f64| {
        if refuted(end) {
            edge(p, end, refuted)
        } else {
            end
        }
    };
    (side(0.0), side(1.0))
}

/// Where between `inside` and `outside` refutation begins.
fn edge(mut inside: f64, mut outside: f64, refuted: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..36 {
        let middle = f64::midpoint(inside, outside);
        if refuted(middle) {
            outside = middle
        } else {
            inside = middle
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::Generator;

    #[test]
    fn the_interval_holds_the_truth_at_every_look_at_once() {
        let alpha = 0.05;
        for p in [0.01, 0.3] {
            let mut wrong = 0;
            for run in 0..400 {
                let mut generator = Generator::new(run);
                let mut failures = 0.0;
                let mut left = false;
                for n in 1..=1_000u32 {
                    failures += f64::from(u8::from(generator.unit() < p));
                    let n = f64::from(n);
                    left |= evidence(p, failures / n, n) >= -f64::ln(alpha);
                }
                wrong += u32::from(left);
            }
            assert!(wrong <= 33, "{wrong} of 400 at {p}"); // 20 + 3 sigma
        }
    }

    #[test]
    fn intervals_shrink_and_contain_the_mean() {
        assert_eq!(interval(0.3, 0.0, 0.05), (0.0, 1.0));
        let mut last = 2.0;
        for n in [10.0, 100.0, 1_000.0, 10_000.0] {
            let (low, high) = interval(0.02, n, 0.01);
            assert!(
                low <= 0.02 && 0.02 <= high && high - low < last,
                "{n}: {low} {high}"
            );
            last = high - low;
        }
        let (low, high) = interval(0.0, 500.0, 0.01);
        assert!(low == 0.0 && (0.005..0.03).contains(&high), "{high}");
        let (low, high) = interval(1.0, 500.0, 0.01);
        assert!(high == 1.0 && (0.97..0.995).contains(&low), "{low}");
    }

    #[test]
    fn plausible_means_are_those_whose_interval_has_the_truth() {
        let (low, high) = plausible_means(0.95, 2_000.0, 0.01);
        assert!(interval(low, 2_000.0, 0.01).1 >= 0.95 - 1e-6);
        assert!(interval(high, 2_000.0, 0.01).0 <= 0.95 + 1e-6);
        assert!(low < 0.95 && high > 0.95 && high < 1.0);
        assert_eq!(plausible_means(0.95, 20.0, 0.01).1, 1.0);
    }
}
