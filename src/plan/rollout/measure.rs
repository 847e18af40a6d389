//! Live metrics: what the gateways counted, as strata for the sequential tests.

use serde::{Deserialize, Serialize};

use jiff::{SignedDuration, Timestamp};

use super::{
    Input,
    copies::{Copied, Copies},
    gates::Sides,
    status,
};
use crate::api::gate::{Gate, GateStatus, Verdict};
use crate::stats::{
    bucket,
    sequential::{
        self, Bound, Finding, LatencySide, LatencyStratum, latencies, means, rates, scores,
    },
};

/// Names of the built-in metrics that gates can use.
pub(super) const BUILT_IN: &str = "requestRate, errorRate, latencyP50, latencyP95, latencyP99, timeToFirstToken, tokensPerRequest, costPerRequest, feedbackScore; of copies mirrorErrorRate, mirrorLatencyP50, mirrorLatencyP95, mirrorLatencyP99, mirrorAgreement, mirrorDifference";
/// Requests in a second: measured, but judged without a test ([`request_rate`]).
pub(super) const REQUEST_RATE: &str = "requestRate";
/// What costs are counted in.
const BILLIONTH: f64 = 1e-9;

/// A built-in metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Metric {
    /// Share of requests that failed, by caller.
    ErrorRate,
    /// A quantile of the latency in seconds.
    Latency(f64),
    /// The 95th percentile of the time to the first byte of the answer, in seconds.
    FirstToken,
    /// Tokens of prompt and answer.
    Tokens,
    /// What they cost, in the currency of the backend's prices.
    Cost,
    /// Callers' scores of answers.
    Feedback,
    /// What became of copies of stable's requests.
    OfCopies(Copied),
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
            "tokensPerRequest" => Metric::Tokens,
            "costPerRequest" => Metric::Cost,
            "feedbackScore" => Metric::Feedback,
            _ => Metric::OfCopies(Copied::named(name)?),
        })
    }

    /// Whether it is measured on copies, not on callers.
    pub fn is_of_copies(self) -> bool {
        matches!(self, Metric::OfCopies(_))
    }

    /// What a sample is.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::ErrorRate | Metric::Feedback => "callers",
            Metric::OfCopies(copied) => copied.unit(),
            Metric::Latency(_) | Metric::FirstToken | Metric::Tokens | Metric::Cost => "requests",
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
            Metric::Tokens => {
                let strata: Vec<_> = strata.iter().map(|s| s.tokens.clone()).collect();
                means(&strata, 1.0, bound, alpha)
            }
            Metric::Cost => {
                let strata: Vec<_> = strata.iter().map(|s| s.costs.clone()).collect();
                means(&strata, BILLIONTH, bound, alpha)
            }
            Metric::Feedback => {
                let strata: Vec<_> = strata.iter().map(|s| s.scores).collect();
                scores(&strata, bound, alpha)
            }
            Metric::OfCopies(copied) => {
                let strata: Vec<_> = strata.iter().map(|s| &s.copies).collect();
                copied.judge(&strata, bound, alpha)
            }
        }
    }

    /// Which output is the worst, for the message of a metric that has some.
    pub fn worst(self, strata: &[Stratum]) -> Option<String> {
        match self {
            Metric::OfCopies(copied) => copied.worst(strata.iter().map(|s| &s.copies)),
            _ => None,
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
    /// Absent in a window that was kept before they were measured.
    #[serde(default)]
    tokens: LatencyStratum,
    #[serde(default)]
    costs: LatencyStratum,
    #[serde(default)]
    scores: sequential::Stratum,
    #[serde(default)]
    responses: sequential::Stratum,
    /// Compared only while copies are made, so no window keeps it.
    #[serde(skip)]
    copies: Copies,
}

impl Stratum {
    fn of(stratum: &bucket::Stratum) -> Self {
        Self {
            rates: stratum.rates(),
            latencies: stratum.latencies(),
            first_bytes: stratum.first_bytes(),
            tokens: stratum.tokens(),
            costs: stratum.costs(),
            scores: stratum.scores(),
            responses: stratum.responses(),
            copies: Copies::of(&stratum.mirrored),
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
        add(&mut self.tokens.candidate, &alone.tokens.candidate);
        add(&mut self.costs.candidate, &alone.costs.candidate);
        self.scores.candidate.merge(&alone.scores.candidate);
        self.responses.candidate.merge(&alone.responses.candidate);
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
        .and_then(|text| serde_json::from_str::<Window>(text).ok());
    let alone: Vec<Stratum> = alone.iter().map(Stratum::of).collect();
    match kept {
        Some(Window { mut stratum, .. }) => {
            alone.iter().for_each(|s| stratum.add_candidate(s));
            vec![stratum]
        }
        None => alone,
    }
}

/// What status keeps when stable loses its last callers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Window {
    /// When that was.
    until: Option<Timestamp>,
    /// The last epoch in which both sides served.
    #[serde(flatten)]
    stratum: Stratum,
}

/// How long the candidate is still compared with what stable did last. Later it is another time of day, and what stable would have done
/// then is not known.
const COMPARED: SignedDuration = SignedDuration::from_mins(10);

/// The last epoch in which both sides served, as status keeps it from `until` on.
pub(super) fn window(input: &Input, sides: Sides, until: Timestamp) -> Option<String> {
    let (strata, last) = counted(input, sides);
    let stratum = Stratum::of(strata.get(last?)?);
    let until = Some(until);
    serde_json::to_string(&Window { until, stratum }).ok()
}

/// Whether stable's last callers are too long ago for comparisons.
pub(super) fn is_past(sides: Sides, now: Timestamp) -> bool {
    /// All that is asked for here.
    #[derive(Deserialize)]
    struct Until {
        until: Option<Timestamp>,
    }
    let kept = sides
        .window
        .and_then(|text| serde_json::from_str(text).ok());
    let until = kept.and_then(|Until { until }| until);
    until.is_some_and(|until| now.duration_since(until) > COMPARED)
}

/// What the gateways counted by epoch, and the place of the last epoch in which both sides served.
fn counted(input: &Input, sides: Sides) -> (Vec<bucket::Stratum>, Option<usize>) {
    let (Some(stable), Some(_)) = (sides.stable, sides.from) else {
        return (Vec::new(), None);
    };
    let mut strata = input.live.strata(stable, sides.candidate, i64::MIN);
    strata.retain(|s| sides.counts(s.epoch));
    let last = strata
        .iter()
        .rposition(|s| s.stable.requests > 0 && s.candidate.requests > 0);
    (strata, last)
}

/// How often sides whose callers answer alike may be taken for different ones.
const BIAS: f64 = 0.01;

/// Why scores say nothing, if one side's callers give them more often than the other's: who is content may be more silent than who isn't.
pub(super) fn bias(strata: &[Stratum], gate: &Gate) -> Option<String> {
    let strata: Vec<_> = strata.iter().map(|s| s.responses).collect();
    let (candidate, stable) = unlike(&strata)?;
    Some(format!(
        "{} says nothing: {candidate} of the candidate's callers gave a score and {stable} of stable's, so those who did are not alike",
        gate.metric
    ))
}

/// The candidate's and stable's rates of answering, if they are proven to differ.
pub(super) fn unlike(responses: &[sequential::Stratum]) -> Option<(f64, f64)> {
    let seen = rates(responses, Bound::MaxDifference(0.0), BIAS);
    let differ = seen.lower.is_some_and(|l| l > 0.0) || seen.upper.is_some_and(|u| u < 0.0);
    let (candidate, stable) = (seen.estimate_candidate?, seen.estimate_stable?);
    differ.then(|| (status::rounded(candidate), status::rounded(stable)))
}

/// Seconds before a rate says anything.
const SOME: i64 = 30;

/// A gate on the candidate's requests in a second at its present weight. There is no test for it: how many come depends on the hour and the
/// weight, not on the revision, so a number of requests is no sample of anything, and a comparison would only measure the split.
pub(super) fn request_rate(input: &Input, sides: Sides, gate: &Gate, bound: Bound) -> GateStatus {
    let name = &gate.metric;
    if bound.compares() {
        let message = format!(
            "{name} can't be compared with stable: how many requests a side has is decided by the weight; write min or max"
        );
        return status::gate(gate, bound, Verdict::Error, message);
    }
    let seconds = sides.seconds.filter(|_| sides.from.is_some() && sides.live);
    let Some(seconds) = seconds.filter(|s| *s >= SOME) else {
        let message = format!("{name} is not measured yet: it takes {SOME} s at one weight");
        return status::gate(gate, bound, Verdict::Pending, message);
    };
    let requests = requests(input, sides.candidate, sides.epoch);
    let value = requests as f64 / seconds as f64;
    let (verdict, said) = match sequential::judge(bound, Some(value), Some(value)) {
        sequential::Verdict::Failed => (Verdict::Failed, "beyond"),
        _ => (Verdict::Passed, "within"),
    };
    let message = format!(
        "{name} {} is {said} {}: {requests} requests in {seconds} s",
        status::rounded(value),
        status::bound(bound)
    );
    GateStatus {
        value: status::finite(Some(value)),
        samples: i64::try_from(requests).unwrap_or(i64::MAX),
        ..status::gate(gate, bound, verdict, message)
    }
}

/// Requests that the candidate served since it has all callers: after the last epoch in which stable served beside it.
pub(super) fn requests_alone(input: &Input, sides: Sides) -> u64 {
    let (strata, last) = counted(input, sides);
    let alone = strata.iter().skip(last.map_or(0, |last| last + 1));
    alone.map(|s| s.candidate.requests).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{
        bucket::{Traffic, Used},
        sketch::CategorySketch,
    };

    /// So many callers, each with so many requests that use so many tokens; every so-manieth gives this score.
    fn side(callers: u64, tokens: u64, every: u64, score: f64) -> Traffic {
        let mut traffic = Traffic::default();
        for caller in 0..callers {
            let key = format!("caller-{caller}");
            let used = Used {
                prompt: tokens / 2,
                completion: tokens / 2,
                cost: Some(tokens * 1000),
            };
            traffic.record_used(Some(&key), false, 1000, None, Some(used));
            if caller % every == 0 {
                let given = (score + (caller % 5) as f64 * 0.05).min(1.0);
                traffic
                    .feedback
                    .add_score(CategorySketch::hash_of(&key), given);
            }
        }
        traffic
    }

    fn strata(stable: Traffic, candidate: Traffic) -> Vec<Stratum> {
        vec![Stratum::of(&bucket::Stratum {
            stable,
            candidate,
            ..bucket::Stratum::default()
        })]
    }

    #[test]
    fn a_prompt_that_costs_more_is_told_by_its_tokens_and_its_cost() {
        let dear = strata(side(1000, 400, 2, 0.5), side(1000, 800, 2, 0.5));
        for metric in [Metric::Tokens, Metric::Cost] {
            let found = metric.judge(&dear, Bound::MaxRatio(1.3), 0.0025);
            assert_eq!(found.verdict, sequential::Verdict::Failed, "{found:?}");
            assert!((found.value.unwrap() - 2.0).abs() < 0.05, "{found:?}");
        }
        let cost = Metric::Cost.judge(&dear, Bound::Max(0.01), 0.0025);
        assert!(
            (cost.value.unwrap() / 0.0008 - 1.0).abs() < 0.02,
            "{cost:?}"
        );
        assert_eq!(cost.verdict, sequential::Verdict::Passed);
        let same = strata(side(1000, 400, 2, 0.5), side(1000, 400, 2, 0.5));
        let found = Metric::Cost.judge(&same, Bound::MaxRatio(1.3), 0.0025);
        assert_ne!(found.verdict, sequential::Verdict::Failed);
    }

    #[test]
    fn scores_are_compared_unless_one_side_answers_more_often() {
        let gate = Gate {
            metric: "feedbackScore".into(),
            ..Gate::default()
        };
        let worse = strata(side(2000, 9, 2, 0.7), side(2000, 9, 2, 0.4));
        let found = Metric::Feedback.judge(&worse, Bound::MinDifference(-0.05), 0.0025);
        assert_eq!(found.verdict, sequential::Verdict::Failed, "{found:?}");
        assert_eq!(bias(&worse, &gate), None);
        let eager = strata(side(2000, 9, 4, 0.7), side(2000, 9, 2, 0.4));
        let why = bias(&eager, &gate).unwrap();
        assert!(why.contains("not alike"), "{why}");
    }
}
