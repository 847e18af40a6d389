//! Live metrics: what the gateways counted, as strata for the sequential tests.

use serde::{Deserialize, Serialize};

use super::{Input, gates::Sides};
use crate::stats::{
    bucket,
    sequential::{self, Bound, Finding, LatencySide, LatencyStratum, latencies, rates},
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
                let strata: Vec<_> = strata.iter().map(|s| s.rates).collect();
                rates(&strata, bound, alpha)
            }
            Metric::Latency(quantile) => {
                let strata: Vec<_> = strata.iter().map(|s| s.latencies.clone()).collect();
                latencies(&strata, quantile, bound, alpha)
            }
            Metric::FirstToken => {
                let strata: Vec<_> = strata.iter().map(|s| s.first_bytes.clone()).collect();
                latencies(&strata, 0.95, bound, alpha)
            }
        }
    }
}

/// Both sides under one epoch, as the tests need them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stratum {
    rates: sequential::Stratum,
    latencies: LatencyStratum,
    first_bytes: LatencyStratum,
}

impl Stratum {
    fn of(stratum: &bucket::Stratum) -> Self {
        Self {
            rates: stratum.rates(),
            latencies: stratum.latencies(),
            first_bytes: stratum.first_bytes(),
        }
    }

    /// Adds what the candidate did alone.
    fn add_candidate(&mut self, alone: &Self) {
        let add = |to: &mut LatencySide, from: &LatencySide| {
            to.histogram.merge(&from.histogram);
            // Callers that come back are the same ones.
            to.units = to.units.max(from.units);
        };
        self.rates.candidate.merge(&alone.rates.candidate);
        add(&mut self.latencies.candidate, &alone.latencies.candidate);
        add(
            &mut self.first_bytes.candidate,
            &alone.first_bytes.candidate,
        );
    }
}

/// Both sides by epoch since the warm-up. What the candidate did alone, at weight 100 and in the bake, is added to the last epoch
/// in which stable served beside it: so it is compared with stable's last concurrent window, the one that status keeps if nothing else is
/// left of it.
pub(super) fn strata(input: &Input, sides: Sides) -> Vec<Stratum> {
    let (mut strata, last) = counted(input, sides);
    let alone = strata.split_off(last.map_or(0, |last| last + 1));
    if let Some(window) = strata.last_mut() {
        for stratum in alone {
            window.candidate.merge(&stratum.candidate);
        }
        return strata.iter().map(Stratum::of).collect();
    }
    let kept = sides
        .window
        .and_then(|text| serde_json::from_str::<Stratum>(text).ok());
    let alone: Vec<Stratum> = alone.iter().map(Stratum::of).collect();
    match kept {
        Some(mut window) => {
            alone.iter().for_each(|s| window.add_candidate(s));
            vec![window]
        }
        None => alone,
    }
}

/// The last epoch in which both sides served, as status keeps it.
pub(super) fn window(input: &Input, sides: Sides) -> Option<String> {
    let (strata, last) = counted(input, sides);
    serde_json::to_string(&Stratum::of(strata.get(last?)?)).ok()
}

/// What the gateways counted by epoch, and the place of the last epoch in which both sides served.
fn counted(input: &Input, sides: Sides) -> (Vec<bucket::Stratum>, Option<usize>) {
    let (Some(stable), Some(from)) = (sides.stable, sides.from) else {
        return (Vec::new(), None);
    };
    let mut strata = input.live.strata(stable, sides.candidate, i64::MIN);
    strata.retain(|s| (from..=sides.epoch).contains(&s.epoch));
    let last = strata
        .iter()
        .rposition(|s| s.stable.requests > 0 && s.candidate.requests > 0);
    (strata, last)
}

/// Requests that a revision served in one epoch.
pub(super) fn requests(input: &Input, revision: &str, epoch: i64) -> u64 {
    let buckets = input.live.buckets.iter();
    let served = |traffic: &bucket::Traffic| traffic.requests;
    buckets
        .filter(|b| b.revision == revision && b.epoch == epoch)
        .map(|b| served(&b.traffic))
        .sum()
}
