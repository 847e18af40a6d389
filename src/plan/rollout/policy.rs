//! `analysis` with its defaults, and the ladder.

use crate::api::{
    gate::Gate,
    rollout::{NoData, OnInconclusive, Pause, RolloutSpec, Step},
};

const MINUTE: u64 = 60_000;

/// `spec.rollout` with its defaults; lengths of time in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Policy {
    /// The bounds.
    pub gates: Vec<Gate>,
    /// Requests before a step may end.
    pub min_requests: i64,
    /// Looks at which a live gate may be Failed.
    pub failure_limit: i64,
    /// What a step's end without data means.
    pub no_data: NoData,
    /// What an Inconclusive verdict at a step's end leads to.
    pub on_inconclusive: OnInconclusive,
    /// How often measurements are looked at.
    pub interval: u64,
    /// How long the promoted revision is watched.
    pub bake: u64,
    /// How long a state may take.
    pub progress_deadline: u64,
}

impl Policy {
    pub fn of(spec: &RolloutSpec) -> Self {
        let analysis = spec.analysis.clone().unwrap_or_default();
        let millis = |d: &Option<crate::api::Duration>, default| {
            d.as_ref().map_or(default, crate::api::Duration::millis)
        };
        Self {
            gates: analysis.gates.unwrap_or_else(default_gates),
            min_requests: analysis.min_requests.unwrap_or(100),
            failure_limit: analysis.failure_limit.unwrap_or(0).max(0),
            no_data: analysis.no_data.unwrap_or_default(),
            on_inconclusive: analysis.on_inconclusive.unwrap_or_default(),
            interval: millis(&analysis.interval, 15_000).max(1000),
            bake: millis(&spec.bake, 10 * MINUTE),
            // Below ten seconds no pod starts; a deadline of zero would reject everything.
            progress_deadline: millis(&spec.progress_deadline, 30 * MINUTE).max(10_000),
        }
    }
}

/// The steps of a rollout: those of the spec, else 10 %, a pause, 50 %, a pause.
pub(super) fn ladder(spec: &RolloutSpec) -> Vec<Step> {
    let weight = |w| Step {
        set_weight: Some(w),
        ..Step::default()
    };
    let pause = || Step {
        pause: Some(Pause {
            duration: Some(crate::api::Duration::from_secs(300)),
        }),
        ..Step::default()
    };
    spec.steps
        .clone()
        .unwrap_or_else(|| vec![weight(10), pause(), weight(50), pause()])
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

/// Length of a step's pause in milliseconds; `None` if the step is no pause, or one until promoted.
pub(super) fn timed_pause(step: &Step) -> Option<u64> {
    step.pause.as_ref()?.duration.as_ref().map(|d| d.millis())
}

/// Percentage of stable's requests that are copied at this step: as the last `setMirror` says, unless a `setWeight` came after it.
pub(super) fn mirror_at(steps: &[Step], at: usize) -> i32 {
    let said = |step: &Step| match (&step.set_mirror, step.set_weight) {
        (Some(mirror), _) => Some(mirror.percent.clamp(0, 100)),
        (None, Some(weight)) if weight > 0 => Some(0),
        _ => None,
    };
    let passed = steps.iter().take(at.saturating_add(1)).rev();
    passed.into_iter().find_map(said).unwrap_or(0)
}

/// The candidate's first minute, or half of the first pause (of the bake, without one) where that is shorter.
pub(super) fn warm_up(steps: &[Step], bake: u64) -> u64 {
    let first = steps.iter().find_map(timed_pause).unwrap_or(bake);
    MINUTE.min(first / 2)
}
