use super::*;
use crate::stats::random::Generator;
use crate::stats::sketch::{CallerSketch, LatencyHistogram};

/// Callers with error rates of their own, one of which makes 30 % of the traffic, during a ramp 10 → 50 with a daily cycle.
struct Rollout {
    generator: Generator,
    callers: usize,
    rate: f64,
    /// The candidate's error rate is this many times stable's.
    factor: f64,
}

impl Rollout {
    fn new(seed: u64, rate: f64, factor: f64) -> Self {
        Self {
            generator: Generator::new(seed),
            callers: 600,
            rate,
            factor,
        }
    }

    /// Runs the ramp; `look` sees the strata after each interval and says whether to stop.
    fn run(&mut self, looks: usize, mut look: impl FnMut(&[Stratum]) -> bool) {
        let place: Vec<f64> = (0..self.callers).map(|_| self.generator.unit()).collect();
        // Most callers are alike, a few fail far more often than others.
        let own: Vec<f64> = (0..self.callers)
            .map(|_| {
                self.rate
                    * if self.generator.unit() < 0.05 {
                        10.0
                    } else {
                        0.5
                    }
            })
            .collect();
        let mut done: Vec<Stratum> = Vec::new();
        let mut sides = [CallerSketch::default(), CallerSketch::default()];
        for interval in 0..looks {
            if interval == looks / 2 {
                done.push(stratum(&sides));
                sides = Default::default();
            }
            let weight = if interval < looks / 2 { 0.1 } else { 0.5 };
            let daily = 1.0 + 0.8 * (interval as f64 / looks as f64 * 9.0).sin();
            for _ in 0..60 {
                let busy = self.generator.unit() < 0.3;
                let caller = if busy {
                    0
                } else {
                    self.generator.below(self.callers)
                };
                let candidate = place[caller] < weight;
                let rate = own[caller] * daily * if candidate { self.factor } else { 1.0 };
                let failed = self.generator.unit() < rate;
                sides[usize::from(!candidate)].add(&format!("caller-{caller}"), failed);
            }
            let mut strata = done.clone();
            strata.push(stratum(&sides));
            if look(&strata) {
                return;
            }
        }
    }
}

fn stratum(sides: &[CallerSketch; 2]) -> Stratum {
    Stratum {
        candidate: sides[0].units(),
        stable: sides[1].units(),
    }
}

#[test]
fn rollouts_of_the_same_version_are_condemned_no_more_often_than_stated() {
    let alpha = 0.05;
    let runs = 120;
    let mut wrong = [0u32; 2];
    for seed in 0..runs {
        let mut condemned = [false; 2];
        Rollout::new(seed, 0.02, 1.0).run(30, |strata| {
            for (i, bound) in [Bound::MaxDifference(0.0), Bound::MaxRatio(1.0)]
                .into_iter()
                .enumerate()
            {
                condemned[i] |= rates(strata, bound, alpha).verdict == Verdict::Failed;
            }
            condemned[0] && condemned[1]
        });
        wrong
            .iter_mut()
            .zip(condemned)
            .for_each(|(count, c)| *count += u32::from(c));
    }
    // 6 + 3 sigma.
    assert!(wrong.iter().all(|&w| w <= 13), "{wrong:?} of {runs}");
}

#[test]
fn a_fivefold_error_rate_is_found_within_400_callers_of_the_candidate() {
    let mut callers = Vec::new();
    for seed in 0..20 {
        let mut found = None;
        Rollout::new(1_000 + seed, 0.02, 5.0).run(200, |strata| {
            let finding = rates(strata, Bound::MaxDifference(0.005), 0.0025);
            if finding.verdict == Verdict::Failed {
                found = Some(finding.samples);
            }
            found.is_some()
        });
        callers.push(found.unwrap_or(u64::MAX));
    }
    callers.sort_unstable();
    assert!(callers[18] <= 400, "{callers:?}");
}

#[test]
fn one_broken_caller_condemns_nobody() {
    let mut candidate = CallerSketch::default();
    let mut stable = CallerSketch::default();
    (0..5_000).for_each(|_| candidate.add("broken", true));
    for i in 0..40 {
        (0..20).for_each(|_| candidate.add(&format!("c{i}"), false));
        (0..20).for_each(|_| stable.add(&format!("s{i}"), false));
    }
    let finding = rates(
        &[stratum(&[candidate, stable])],
        Bound::MaxDifference(0.005),
        0.01,
    );
    assert_eq!(finding.verdict, Verdict::Inconclusive, "{finding:?}");
}

#[test]
fn a_ramp_during_a_daily_cycle_is_not_pooled() {
    // Both sides fail alike: 1 % at night, when the candidate had 10 %, and 20 % by day, when it has half.
    let units = Units::of_requests;
    let night = Stratum {
        candidate: units(1_000, 10),
        stable: units(9_000, 90),
    };
    let day = Stratum {
        candidate: units(5_000, 1_000),
        stable: units(5_000, 1_000),
    };
    let finding = rates(&[night, day], Bound::MaxDifference(0.005), 0.01);
    assert!(finding.value.unwrap().abs() < 1e-12, "{finding:?}");
    assert_ne!(finding.verdict, Verdict::Failed);
}

#[test]
fn safety_is_proven_only_by_enough_callers() {
    let quiet = |n| Stratum {
        candidate: Units::of_requests(n, 0),
        stable: Units::of_requests(9 * n, 0),
    };
    let at = |n| rates(&[quiet(n)], Bound::Max(0.02), 0.01);
    assert_eq!(at(50).verdict, Verdict::Inconclusive);
    assert_eq!(at(2_000).verdict, Verdict::Passed);
    let seen = at(200).detectable.unwrap();
    assert!((0.03..0.2).contains(&seen), "{seen}");
    assert!(at(2_000).detectable.unwrap() < seen);
}

#[test]
fn nothing_observed_is_inconclusive() {
    for bound in [
        Bound::Max(0.1),
        Bound::MaxDifference(0.0),
        Bound::MinRatio(1.0),
    ] {
        assert_eq!(rates(&[], bound, 0.01), Finding::nothing());
        assert_eq!(
            rates(&[Stratum::default()], bound, 0.01),
            Finding::nothing()
        );
        assert_eq!(
            latencies(&[LatencyStratum::default()], 0.95, bound, 0.01),
            Finding::nothing()
        );
    }
    // A comparison needs both sides.
    let alone = Stratum {
        candidate: Units::of_requests(100, 50),
        ..Stratum::default()
    };
    assert_eq!(
        rates(&[alone], Bound::MaxDifference(0.0), 0.01).verdict,
        Verdict::Inconclusive
    );
    assert_eq!(
        rates(&[alone], Bound::Max(0.1), 0.01).verdict,
        Verdict::Failed
    );
}

#[test]
fn a_score_that_falls_breaks_a_minimum() {
    let mut stratum = Stratum::default();
    for i in 0..500 {
        stratum.stable.add(0.8 + 0.1 * f64::from(i % 3), 5);
        stratum.candidate.add(0.5 + 0.1 * f64::from(i % 3), 5);
    }
    for bound in [
        Bound::Min(0.7),
        Bound::MinDifference(-0.1),
        Bound::MinRatio(0.9),
    ] {
        assert_eq!(
            rates(&[stratum], bound, 0.0025).verdict,
            Verdict::Failed,
            "{bound:?}"
        );
    }
    assert_eq!(
        rates(&[stratum], Bound::MinDifference(-0.5), 0.0025).verdict,
        Verdict::Passed
    );
}

#[test]
fn an_interval_is_judged_by_where_it_lies() {
    let table = [
        (Bound::Max(0.02), Some(0.03), Some(0.05), Verdict::Failed),
        (Bound::Max(0.02), Some(0.0), Some(0.02), Verdict::Passed),
        (Bound::Max(0.02), Some(0.0), None, Verdict::Inconclusive),
        (Bound::Min(0.6), Some(0.6), None, Verdict::Passed),
        (Bound::Min(0.6), Some(0.1), Some(0.5), Verdict::Failed),
        (
            Bound::MaxRatio(1.25),
            Some(1.2),
            Some(1.3),
            Verdict::Inconclusive,
        ),
        (
            Bound::Max(f64::NAN),
            Some(0.0),
            Some(1.0),
            Verdict::Inconclusive,
        ),
    ];
    for (bound, lower, upper, verdict) in table {
        assert_eq!(
            judge(bound, lower, upper),
            verdict,
            "{bound:?} {lower:?} {upper:?}"
        );
    }
    for first in [1, 4, 50] {
        let mut spent = 0.0;
        for place in 0..10_000 {
            let share = share(0.01, first, place);
            assert!(
                share > 0.0 && (place < first || share <= 0.0005),
                "{first}, {place}: {share}"
            );
            spent += share;
        }
        assert!(spent > 0.0099 && spent <= 0.01, "{first}: {spent}");
    }
    assert!((share(0.01, 4, 3) - 0.00225).abs() < 1e-12);
}

fn latency_side(generator: &mut Generator, n: usize, scale: f64) -> LatencySide {
    let mut histogram = LatencyHistogram::default();
    (0..n).for_each(|_| {
        histogram.add((scale * 20_000.0 * (0.2 - generator.unit().max(1e-9).ln())) as u64)
    });
    LatencySide {
        histogram,
        units: n as f64,
    }
}

#[test]
fn latencies_of_the_same_version_are_condemned_no_more_often_than_stated() {
    let mut wrong = 0;
    for seed in 0..100 {
        let mut generator = Generator::new(seed);
        let mut stratum = LatencyStratum::default();
        for _ in 0..50 {
            for (side, n) in [(&mut stratum.candidate, 20), (&mut stratum.stable, 60)] {
                side.histogram
                    .merge(&latency_side(&mut generator, n, 1.0).histogram);
                side.units = side.histogram.count() as f64;
            }
            let finding = latencies(
                std::slice::from_ref(&stratum),
                0.95,
                Bound::MaxRatio(1.0),
                0.05,
            );
            if finding.verdict == Verdict::Failed {
                wrong += 1;
                break;
            }
        }
    }
    assert!(wrong <= 11, "{wrong} of 100"); // 5 + 3 sigma
}

#[test]
fn a_candidate_twice_as_slow_is_found_within_1500_requests() {
    let mut generator = Generator::new(3);
    let stratum = LatencyStratum {
        candidate: latency_side(&mut generator, 1_500, 2.0),
        stable: latency_side(&mut generator, 4_500, 1.0),
    };
    let finding = latencies(
        std::slice::from_ref(&stratum),
        0.95,
        Bound::MaxRatio(1.25),
        0.0025,
    );
    assert_eq!(finding.verdict, Verdict::Failed, "{finding:?}");
    assert!((finding.value.unwrap() - 2.0).abs() < 0.3, "{finding:?}");
    let seconds = finding.estimate_stable.unwrap();
    assert!((seconds - 0.0639).abs() < 0.006, "{seconds}");
    let absolute = latencies(&[stratum], 0.95, Bound::Max(1.0), 0.0025);
    assert_eq!(absolute.verdict, Verdict::Passed);
}

#[test]
fn few_latencies_leave_a_high_quantile_unbounded() {
    let mut generator = Generator::new(3);
    let stratum = LatencyStratum {
        candidate: latency_side(&mut generator, 30, 1.0),
        ..LatencyStratum::default()
    };
    let finding = latencies(&[stratum], 0.99, Bound::Max(0.5), 0.01);
    assert_eq!(
        (finding.upper, finding.verdict),
        (None, Verdict::Inconclusive)
    );
}

#[test]
fn equal_latencies_on_both_sides_of_a_bucket_s_edge_are_no_difference() {
    // So many that chance is far below what a bucket leaves open; the medians fall into neighbouring buckets.
    let side = |low: u64, high: u64| {
        let mut histogram = LatencyHistogram::default();
        (0..low).for_each(|_| histogram.add(127));
        (0..high).for_each(|_| histogram.add(128));
        let units = histogram.count() as f64;
        LatencySide { histogram, units }
    };
    let stratum = LatencyStratum {
        candidate: side(45_000, 55_000),
        stable: side(55_000, 45_000),
    };
    for bound in [Bound::MaxDifference(0.0), Bound::MaxRatio(1.0)] {
        let finding = latencies(std::slice::from_ref(&stratum), 0.5, bound, 0.01);
        assert!(finding.value > Some(bound.value()), "{finding:?}");
        assert_eq!(finding.verdict, Verdict::Inconclusive, "{finding:?}");
    }
}
