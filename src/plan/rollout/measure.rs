//! Live metrics: what the gateways counted, as strata for the sequential tests.

use std::collections::BTreeMap;

use super::{Input, gates::Sides};
use crate::stats::{
    bucket::Traffic,
    sequential::{
        Bound, Finding, LatencySide, LatencyStratum, Stratum, Units, latencies, rates,
    },
};

/// Names of the built-in metrics that gates can use.
pub(super) const BUILT_IN: &str =
    "errorRate, latencyP50, latencyP95, latencyP99, timeToFirstToken";

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
    pub fn judge(self, strata: &Strata, bound: Bound, alpha: f64) -> Finding {
        let quantile = match self {
            Metric::ErrorRate => {
                let strata: Vec<Stratum> = strata
                    .values()
                    .map(|[stable, candidate]| Stratum {
                        candidate: units(candidate),
                        stable: units(stable),
                    })
                    .collect();
                return rates(&strata, bound, alpha);
            }
            Metric::Latency(quantile) => quantile,
            Metric::FirstToken => 0.95,
        };
        let side = |traffic: &Traffic| LatencySide {
            histogram: match self {
                Metric::FirstToken => traffic.first_byte.clone(),
                _ => traffic.latency.clone(),
            },
            units: traffic.callers.count as f64,
        };
        let strata: Vec<LatencyStratum> = strata
            .values()
            .map(|[stable, candidate]| LatencyStratum {
                candidate: side(candidate),
                stable: side(stable),
            })
            .collect();
        latencies(&strata, quantile, bound, alpha)
    }
}

/// Stable's and the candidate's traffic while the weight stood still, by epoch.
pub(super) type Strata = BTreeMap<i64, [Traffic; 2]>;

/// Traffic by epoch since the warm-up. What the candidate did alone, at weight 100 and in the bake, is added to the last epoch in
/// which stable served beside it: so it is compared with stable's last concurrent window.
pub(super) fn strata(input: &Input, sides: Sides) -> Strata {
    let (Some(stable), Some(from)) = (sides.stable, sides.from) else {
        return Strata::new();
    };
    let mut strata = Strata::new();
    for bucket in &input.live.buckets {
        let side = match &bucket.revision {
            revision if revision == stable => 0,
            revision if revision == sides.candidate => 1,
            _ => continue,
        };
        if (from..=sides.epoch).contains(&bucket.epoch) {
            strata.entry(bucket.epoch).or_default()[side].merge(&bucket.traffic);
        }
    }
    let concurrent = |s: &[Traffic; 2]| s.iter().all(|t| t.requests > 0);
    let last = strata
        .iter()
        .rev()
        .find(|(_, s)| concurrent(s))
        .map(|(epoch, _)| *epoch);
    if let Some(last) = last {
        let alone: Vec<Traffic> = strata
            .split_off(&(last + 1))
            .into_values()
            .map(|[_, candidate]| candidate)
            .collect();
        if let Some([_, candidate]) = strata.get_mut(&last) {
            alone.iter().for_each(|t| candidate.merge(t));
        }
    }
    strata
}

/// Requests that the candidate served in one epoch.
pub(super) fn requests(input: &Input, candidate: &str, epoch: i64) -> u64 {
    input
        .live
        .buckets
        .iter()
        .filter(|b| b.revision == candidate && b.epoch == epoch)
        .map(|b| b.traffic.requests)
        .sum()
}

/// Callers as units: one for each caller, minute and gateway.
fn units(traffic: &Traffic) -> Units {
    let callers = &traffic.callers;
    Units {
        callers: callers.count,
        sum: callers.rates,
        sum_squares: callers.rates_squared,
        requests: callers.requests,
    }
}
