//! Live metrics: what the gateways counted, as strata for the sequential tests.

use super::{Input, gates::Sides};
use crate::stats::{
    bucket::{Stratum, Traffic},
    sequential::{Bound, Finding, LatencyStratum, latencies, rates},
};

/// Names of the built-in metrics that gates can use.
pub(super) const BUILT_IN: &str = "errorRate, latencyP50, latencyP95, latencyP99, timeToFirstToken";

/// A built-in metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Metric {
    /// Share of requests that failed, by caller.
    ErrorRate,
    /// A quantile of the latency in seconds.
    Latency(f64),
    /// The 95th percentile of the time to the first byte of the answer, in seconds.
    FirstToken,
}

impl Metric {
    /// The built-in metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "errorRate" => Metric::ErrorRate,
            "latencyP50" => Metric::Latency(0.5),
            "latencyP95" => Metric::Latency(0.95),
            "latencyP99" => Metric::Latency(0.99),
            "timeToFirstToken" => Metric::FirstToken,
            _ => return None,
        })
    }

    /// What a sample is.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::ErrorRate => "callers",
            Metric::Latency(_) | Metric::FirstToken => "requests",
        }
    }

    /// Judges the metric by the bound at level `alpha`.
    pub fn judge(self, strata: &[Stratum], bound: Bound, alpha: f64) -> Finding {
        match self {
            Metric::ErrorRate => {
                let strata: Vec<_> = strata.iter().map(Stratum::rates).collect();
                rates(&strata, bound, alpha)
            }
            Metric::Latency(quantile) => {
                let strata: Vec<_> = strata.iter().map(Stratum::latencies).collect();
                latencies(&strata, quantile, bound, alpha)
            }
            Metric::FirstToken => {
                let strata: Vec<_> = strata.iter().map(first_bytes).collect();
                latencies(&strata, 0.95, bound, alpha)
            }
        }
    }
}

fn first_bytes(stratum: &Stratum) -> LatencyStratum {
    let mut latencies = stratum.latencies();
    latencies.candidate.histogram = stratum.candidate.first_byte.clone();
    latencies.stable.histogram = stratum.stable.first_byte.clone();
    latencies
}

/// Both sides by epoch since the warm-up. What the candidate did alone, at weight 100 and in the bake, is added to the last epoch
/// in which stable served beside it: so it is compared with stable's last concurrent window.
pub(super) fn strata(input: &Input, sides: Sides) -> Vec<Stratum> {
    let (Some(stable), Some(from)) = (sides.stable, sides.from) else {
        return Vec::new();
    };
    let mut strata = input.live.strata(stable, sides.candidate, i64::MIN);
    strata.retain(|s| (from..=sides.epoch).contains(&s.epoch));
    let concurrent = |s: &Stratum| s.stable.requests > 0 && s.candidate.requests > 0;
    if let Some(last) = strata.iter().rposition(concurrent) {
        let alone = strata.split_off(last + 1);
        if let Some(window) = strata.last_mut() {
            for stratum in alone {
                window.candidate.merge(&stratum.candidate);
                window.candidate_units += stratum.candidate_units;
            }
        }
    }
    strata
}

/// Requests that a revision served in one epoch.
pub(super) fn requests(input: &Input, revision: &str, epoch: i64) -> u64 {
    let buckets = input.live.buckets.iter();
    let served = |traffic: &Traffic| traffic.requests;
    buckets
        .filter(|b| b.revision == revision && b.epoch == epoch)
        .map(|b| served(&b.traffic))
        .sum()
}
