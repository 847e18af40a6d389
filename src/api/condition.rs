//! Conditions: metav1 `Condition`s with closed sets of types and reasons.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition types. `READY`, `RECONCILING` and `STALLED` are kstatus; the rest say more.
pub mod kind {
    /// The spec's generation is fully in effect.
    pub const READY: &str = "Ready";
    /// Work on the spec's generation is going on.
    pub const RECONCILING: &str = "Reconciling";
    /// The spec's generation can't come into effect without somebody's help.
    pub const STALLED: &str = "Stalled";
    /// Callers are answered.
    pub const AVAILABLE: &str = "Available";
    /// A rollout is going on.
    pub const PROGRESSING: &str = "Progressing";
    /// The rollout waits for a person.
    pub const PAUSED: &str = "Paused";
    /// The last rollout ended in a promotion.
    pub const PROMOTED: &str = "Promoted";
    /// The newest model version was rejected; stable goes on.
    pub const CANDIDATE_REJECTED: &str = "CandidateRejected";
    /// Live inputs have drifted from the profile of stable's training data, or predictions from stable's first window.
    pub const DRIFT_DETECTED: &str = "DriftDetected";
    /// A retraining is going on.
    pub const RETRAINING: &str = "Retraining";
    /// An autoscaler decides how many pods there are.
    pub const AUTOSCALED: &str = "Autoscaled";
    /// Callers from outside are led to the release by its HTTPRoute.
    pub const ROUTED: &str = "Routed";
    /// Sampled requests and answers reach the payload log's store.
    pub const PAYLOAD_LOGGED: &str = "PayloadLogged";
    /// The prompt can be rendered.
    pub const RENDERED: &str = "Rendered";
    /// The training run has ended well.
    pub const COMPLETE: &str = "Complete";
    /// The training run has ended badly.
    pub const FAILED: &str = "Failed";
}

/// Sets a condition in place: `lastTransitionTime` moves only when the status changes. Returns whether
/// anything but the observed generation changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: bool,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let status = if status { "True" } else { "False" };
    let message = bounded(message.into());
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(condition) => {
            let changed = condition.status != status
                || condition.reason != reason
                || condition.message != message;
            if condition.status != status {
                condition.last_transition_time = Time(now);
            }
            condition.status = status.to_owned();
            condition.reason = reason.to_owned();
            condition.message = message;
            condition.observed_generation = generation;
            changed
        }
        None => {
            conditions.push(Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                observed_generation: generation,
                last_transition_time: Time(now),
            });
            true
        }
    }
}

/// The condition of this type, if it was ever set.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Whether the condition is set and `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|c| c.status == "True")
}

/// At most 1 KiB of a message, cut at a character's edge.
pub fn bounded(mut message: String) -> String {
    const LIMIT: usize = 1024;
    if message.len() > LIMIT {
        let end = (0..=LIMIT - 3)
            .rev()
            .find(|i| message.is_char_boundary(*i))
            .unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}
