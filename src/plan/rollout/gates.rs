//! Gates: which are armed, what they say, and whether a step may end.

use std::collections::BTreeMap;

use super::{Input, measure};
use crate::{
    api::{
        evaluation::EvaluationRun,
        gate::{Gate, GateStatus, Proof, Verdict},
        rollout::{EvaluationGate, NoData, OnInconclusive, RolloutSpec},
    },
    stats::sequential::{Bound, Finding, judge, share},
};

/// What one rollout may be wrong about, over all its gates, steps and bake.
const ERROR_BUDGET: f64 = 0.01;
/// The pseudo gate that shows `minRequests`.
const REQUESTS: &str = "requests";

/// `analysis` with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Policy {
    /// The bounds.
    pub gates: Vec<Gate>,
    /// Requests before a step may end.
    pub min_requests: i64,
    /// What a step's end without data means.
    pub no_data: NoData,
    /// What an Inconclusive verdict at a step's end leads to.
    pub on_inconclusive: OnInconclusive,
    /// How often, in milliseconds.
    pub interval: u64,
}

impl Policy {
    pub fn of(spec: &RolloutSpec) -> Self {
        let analysis = spec.analysis.clone().unwrap_or_default();
        Self {
            gates: analysis.gates.unwrap_or_else(default_gates),
            min_requests: analysis.min_requests.unwrap_or(100),
            no_data: analysis.no_data.unwrap_or_default(),
            on_inconclusive: analysis.on_inconclusive.unwrap_or_default(),
            interval: analysis.interval.map_or(15_000, |d| d.millis()).max(1000),
        }
    }
}

/// One percentage point more errors, or half as slow again: harm that few releases would accept.
fn default_gates() -> Vec<Gate> {
    vec![
        Gate {
            metric: "errorRate".into(),
            max_difference: Some(0.01),
            ..Gate::default()
        },
        Gate {
            metric: "latencyP95".into(),
            max_ratio: Some(1.5),
            ..Gate::default()
        },
    ]
}

/// Who is judged against whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sides<'a> {
    /// The revision that is tried, or baking.
    pub candidate: &'a str,
    /// Its attempt.
    pub attempt: i64,
    /// The revision that it is compared with; none for the first one.
    pub stable: Option<&'a str>,
    /// First epoch that counts; `None` while warming up.
    pub from: Option<i64>,
    /// The epoch of the present weight.
    pub epoch: i64,
}

/// What gates and evaluations say now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// Each bound of each armed gate, and `requests`.
    pub gates: Vec<GateStatus>,
    /// Each evaluation.
    pub evaluations: Vec<EvaluationGate>,
    /// The first failure: reason's message.
    pub failed_gate: Option<String>,
    /// The first evaluation that failed.
    pub failed_evaluation: Option<String>,
    /// Why the candidate may not get traffic yet, on evaluations' account.
    pub unprepared: Vec<String>,
    /// Why a step may not end for want of data.
    pub missing: Vec<String>,
    /// Why a step may not end though there is data.
    pub inconclusive: Vec<String>,
}

/// Judges everything that is armed.
pub(super) fn judgement(input: &Input, policy: &Policy, sides: Sides) -> Judgement {
    let mut all = Judgement::default();
    for name in &input.rollout.evaluations {
        let gate = evaluation(input, sides, name);
        match gate.verdict {
            Verdict::Passed => {}
            Verdict::Failed => {
                let first = all.failed_evaluation.is_none();
                let sentence = format!("evaluation {name} failed: {}", gate.message);
                all.failed_evaluation = if first { Some(sentence) } else { all.failed_evaluation };
            }
            verdict => all
                .unprepared
                .push(format!("evaluation {name} is {verdict:?}: {}", gate.message)),
        }
        all.evaluations.push(gate);
    }
    let armed: Vec<(&Gate, Bound, Source)> = policy
        .gates
        .iter()
        .flat_map(|gate| bounds(gate).map(move |bound| (gate, bound)))
        .filter(|(_, bound)| sides.stable.is_some() || !bound.compares())
        .map(|(gate, bound)| (gate, bound, Source::of(input, &gate.metric)))
        .collect();
    let live = armed.iter().filter(|a| matches!(a.2, Source::Live(_)));
    let alpha = share(ERROR_BUDGET, live.count());
    let strata = measure::strata(input, sides);
    for (gate, bound, source) in &armed {
        let status = match source {
            // The first revision has no callers before it serves, so nothing live can hold it back.
            Source::Live(_) if sides.stable.is_none() => continue,
            Source::Live(metric) => {
                let finding = metric.judge(&strata, *bound, alpha);
                let (status, lack) = live_status(gate, *bound, finding, sides.from.is_some());
                match lack {
                    Lack::Nothing => {}
                    Lack::Data => all.missing.push(status.message.clone()),
                    Lack::Proof => all.inconclusive.push(status.message.clone()),
                }
                status
            }
            Source::Evaluation(runs) => {
                let status = evaluated(runs, gate, *bound, sides);
                if !matches!(status.verdict, Verdict::Passed | Verdict::Failed) {
                    all.unprepared.push(status.message.clone());
                }
                status
            }
            Source::Unknown => {
                let message = format!(
                    "`{}` is no metric: write a built-in one ({}), a name of spec.metrics, or a metric of one of rollout.evaluations",
                    gate.metric,
                    measure::BUILT_IN
                );
                all.unprepared.push(message.clone());
                status(gate, *bound, Verdict::Error, message)
            }
        };
        if status.verdict == Verdict::Failed && all.failed_gate.is_none() {
            all.failed_gate = Some(status.message.clone());
        }
        all.gates.push(status);
    }
    if sides.stable.is_some() && policy.min_requests > 0 {
        all.requests(measure::requests(&strata, sides.epoch), policy);
    }
    all
}

impl Judgement {
    fn requests(&mut self, seen: u64, policy: &Policy) {
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        let enough = seen >= policy.min_requests;
        let message = if enough {
            format!("the candidate served the {} requests that a step needs", policy.min_requests)
        } else {
            format!("the candidate served {seen} of the {} requests that a step needs", policy.min_requests)
        };
        if !enough {
            self.missing.push(message.clone());
        }
        self.gates.push(GateStatus {
            metric: REQUESTS.into(),
            bound: format!("min {}", policy.min_requests),
            value: Some(seen as f64),
            samples: seen,
            verdict: if enough { Verdict::Passed } else { Verdict::Inconclusive },
            message,
            ..GateStatus::default()
        });
    }
}

/// Where a gate's metric comes from.
enum Source<'a> {
    /// From the gateways.
    Live(measure::Metric),
    /// From an Evaluation: the metric's name there, and the runs of each Evaluation that may have it.
    Evaluation(Vec<(&'a str, &'a str, Option<(&'a EvaluationRun, i64)>)>),
    /// From nowhere.
    Unknown,
}

impl<'a> Source<'a> {
    fn of(input: &'a Input, name: &'a str) -> Self {
        if let Some(metric) = measure::Metric::named(name) {
            return Source::Live(metric);
        }
        let _ = name;
        Source::Unknown
    }
}
