//! Metrics of copies: what `setMirror` shows of a candidate before it has a caller.

use std::collections::BTreeMap;

use super::status;
use crate::stats::{
    mirror::{DIFFERENCE, Mirrored, Output},
    sequential::{self, Bound, Finding, LatencyStratum, latencies, means, rates, scores},
};

/// What is measured of copies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Copied {
    /// Share of copies that failed, by caller.
    ErrorRate,
    /// A quantile of their latency in seconds.
    Latency(f64),
    /// How much answers agree with stable's.
    Agreement,
    /// How far their numbers are from stable's.
    Difference,
}

/// Copies under one epoch, as the tests need them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Copies {
    rates: sequential::Stratum,
    latencies: LatencyStratum,
    agreements: sequential::Stratum,
    differences: LatencyStratum,
    outputs: BTreeMap<String, Output>,
}

impl Copies {
    pub fn of(mirrored: &Mirrored) -> Self {
        // Nearly always.
        if mirrored.candidate.requests == 0 {
            return Self::default();
        }
        Self {
            rates: mirrored.rates(),
            latencies: mirrored.latencies(),
            agreements: mirrored.agreements(),
            differences: mirrored.differences(),
            outputs: mirrored.outputs.clone(),
        }
    }
}

impl Copied {
    /// The metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "mirrorErrorRate" => Copied::ErrorRate,
            "mirrorLatencyP50" => Copied::Latency(0.5),
            "mirrorLatencyP95" => Copied::Latency(0.95),
            "mirrorLatencyP99" => Copied::Latency(0.99),
            "mirrorAgreement" => Copied::Agreement,
            "mirrorDifference" => Copied::Difference,
            _ => return None,
        })
    }

    /// What a sample is.
    pub fn unit(self) -> &'static str {
        match self {
            Copied::ErrorRate | Copied::Agreement => "callers",
            Copied::Latency(_) | Copied::Difference => "copies",
        }
    }

    /// Judges the metric by the bound at level `alpha`.
    pub fn judge(self, strata: &[&Copies], bound: Bound, alpha: f64) -> Finding {
        let strata = strata.iter();
        match self {
            Copied::ErrorRate => {
                let strata: Vec<_> = strata.map(|s| s.rates).collect();
                rates(&strata, bound, alpha)
            }
            Copied::Latency(quantile) => {
                let strata: Vec<_> = strata.map(|s| s.latencies.clone()).collect();
                latencies(&strata, quantile, bound, alpha)
            }
            Copied::Agreement => {
                let strata: Vec<_> = strata.map(|s| s.agreements).collect();
                scores(&strata, bound, alpha)
            }
            Copied::Difference => {
                let strata: Vec<_> = strata.map(|s| s.differences.clone()).collect();
                means(&strata, DIFFERENCE, bound, alpha)
            }
        }
    }

    /// The output that agrees least, or differs most.
    pub fn worst<'a>(self, strata: impl Iterator<Item = &'a Copies>) -> Option<String> {
        let mut outputs: BTreeMap<&str, Output> = BTreeMap::new();
        for (name, output) in strata.flat_map(|s| &s.outputs) {
            outputs.entry(name).or_default().merge(output);
        }
        let by = |of: fn(&Output) -> Option<f64>| {
            let all = outputs.iter();
            let known = all.filter_map(move |(name, output)| Some((*name, output, of(output)?)));
            known.max_by(|(.., a), (.., b)| a.total_cmp(b))
        };
        match self {
            Copied::Agreement => {
                let (name, output, _) = by(|o| Some(-o.agreement()))?;
                let (share, values) = (status::rounded(output.agreement()), output.values);
                Some(format!(
                    "; output {name} agrees least: {share} of {values} values"
                ))
            }
            Copied::Difference => {
                let (name, output, mean) = by(Output::mean_difference)?;
                let (mean, largest) = (status::rounded(mean), status::rounded(output.largest));
                Some(format!(
                    "; output {name} differs most: {mean} on average, {largest} at most"
                ))
            }
            Copied::ErrorRate | Copied::Latency(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{
        mirror::{Answered, Compared},
        sequential::Verdict,
    };

    /// Copies of so many callers' requests: every so-manieth fails, every so-manieth has another answer by so much.
    fn copies(callers: u64, failing: u64, differing: u64, by: f64, slower: u64) -> Copies {
        let mut mirrored = Mirrored::default();
        for caller in 0..callers {
            let differs = (caller + 1) % differing == 0;
            let output = Output {
                values: 1,
                agreeing: u64::from(!differs),
                numbers: 1,
                difference: if differs { by } else { 0.0 },
                largest: if differs { by } else { 0.0 },
            };
            let compared = Compared {
                agreement: output.agreement(),
                difference: output.mean_difference(),
                outputs: vec![("y".into(), output)],
            };
            let latency = 1000 + caller % 100;
            let (failed, key) = ((caller + 1) % failing == 0, format!("caller-{caller}"));
            let stable = Answered {
                failed: false,
                latency,
            };
            let candidate = Answered {
                failed,
                latency: latency * slower,
            };
            mirrored.record(Some(&key), 0, stable, candidate, Some(&compared));
        }
        Copies::of(&mirrored)
    }

    fn verdict(name: &str, copies: &Copies, bound: Bound) -> Verdict {
        let metric = Copied::named(name).unwrap();
        metric.judge(&[copies], bound, 0.0025).verdict
    }

    #[test]
    fn each_metric_finds_what_is_worse_and_lets_pass_what_is_not() {
        let never = u64::MAX;
        let good = copies(2000, never, never, 0.0, 1);
        let bad = copies(2000, 10, 4, 2.5, 2);
        for (name, bound) in [
            ("mirrorErrorRate", Bound::Max(0.03)),
            ("mirrorErrorRate", Bound::MaxDifference(0.03)),
            ("mirrorLatencyP50", Bound::MaxRatio(1.5)),
            ("mirrorLatencyP95", Bound::MaxRatio(1.5)),
            ("mirrorLatencyP99", Bound::Max(0.0015)),
            ("mirrorAgreement", Bound::Min(0.95)),
            ("mirrorDifference", Bound::Max(0.2)),
        ] {
            assert_eq!(
                verdict(name, &bad, bound),
                Verdict::Failed,
                "{name} {bound:?}"
            );
            assert_eq!(
                verdict(name, &good, bound),
                Verdict::Passed,
                "{name} {bound:?}"
            );
            let nothing = Copies::default();
            assert_eq!(
                verdict(name, &nothing, bound),
                Verdict::Inconclusive,
                "{name}"
            );
        }
        assert_eq!(Copied::named("mirror"), None);
    }

    #[test]
    fn the_worst_output_is_named() {
        let mut all = copies(100, u64::MAX, 4, 2.5, 1);
        let fine = Output {
            values: 100,
            agreeing: 100,
            numbers: 100,
            ..Output::default()
        };
        all.outputs.insert("x".into(), fine);
        let said = |metric: Copied| metric.worst([&all].into_iter());
        assert_eq!(
            said(Copied::Agreement).unwrap(),
            "; output y agrees least: 0.75 of 100 values"
        );
        assert_eq!(
            said(Copied::Difference).unwrap(),
            "; output y differs most: 0.625 on average, 2.5 at most"
        );
        assert_eq!(said(Copied::ErrorRate), None);
    }
}
