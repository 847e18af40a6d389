//! Reasons of events, conditions, the ledger and the history: each a constant with what it means.

/// A candidate is prepared.
pub const ROLLOUT_STARTED: &str = "RolloutStarted";
/// The candidate is ready and its evaluations passed: the steps begin.
pub const CANDIDATE_READY: &str = "CandidateReady";
/// The candidate's share of callers was raised.
pub const WEIGHT_RAISED: &str = "WeightRaised";
/// The candidate gets copies of stable's requests; their answers go to nobody, and gates can compare them with stable's.
pub const MIRRORING: &str = "Mirroring";
/// The rollout waits for `promote`.
pub const WAITING_FOR_PROMOTION: &str = "WaitingForPromotion";
/// The rollout waits for a person's approval, in their own name.
pub const WAITING_FOR_APPROVAL: &str = "WaitingForApproval";
/// A person approved the candidate.
pub const APPROVED: &str = "Approved";
/// The candidate is measured by the Evaluations that a step names.
pub const EVALUATING: &str = "Evaluating";
/// A person told the rollout to go on.
pub const PROMOTED_BY_COMMAND: &str = "PromotedByCommand";
/// A command was refused; its echo in the status says why.
pub const COMMAND_REFUSED: &str = "CommandRefused";
/// All pods of a candidate with traffic are gone: its callers went back to stable.
pub const CANDIDATE_UNAVAILABLE: &str = "CandidateUnavailable";
/// The candidate has all callers.
pub const PROMOTING: &str = "Promoting";
/// The candidate became stable and is watched; the old revision's pods stay.
pub const BAKING: &str = "Baking";
/// The rollout ended well.
pub const PROMOTED: &str = "Promoted";
/// The first revision serves.
pub const FIRST_REVISION: &str = "FirstRevision";
/// Callers go back to stable.
pub const ROLLING_BACK: &str = "RollingBack";
/// A gate failed.
pub const GATE_FAILED: &str = "GateFailed";
/// An evaluation that the candidate had to pass failed.
pub const EVALUATION_FAILED: &str = "EvaluationFailed";
/// The version of a retraining is not shown to be better than stable (`retraining.requireImprovement`).
pub const NOT_IMPROVED: &str = "NotImproved";
/// A step ended without enough data, and `noData: Fail` says that this fails.
pub const NO_DATA: &str = "NoData";
/// There was not enough data to decide in time; nothing is rejected.
pub const NOT_ENOUGH_DATA: &str = "NotEnoughData";
/// A state took longer than `progressDeadline`.
pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// A person aborted the rollout.
pub const ABORTED: &str = "Aborted";
/// A person went back to an earlier revision.
pub const ROLLED_BACK_TO: &str = "RolledBackTo";
/// Another spec took the candidate's place.
pub const SUPERSEDED: &str = "Superseded";
/// The spec went back to stable's.
pub const WITHDRAWN: &str = "Withdrawn";
/// A rejected revision may be tried again.
pub const RETRIED: &str = "Retried";
/// A lost status was rebuilt from the marks on ControllerRevisions.
pub const STATUS_REBUILT: &str = "StatusRebuilt";
/// Stable is what the spec asks for, and callers are answered.
pub const HEALTHY: &str = "Healthy";
/// A rollout of the spec is going on.
pub const ROLLOUT_IN_PROGRESS: &str = "RolloutInProgress";
/// The first revision is on its way.
pub const INITIALIZING: &str = "Initializing";
/// The rollout waits for a person.
pub const PAUSED: &str = "Paused";
/// What the spec asks for was tried and refused.
pub const REVISION_REJECTED: &str = "RevisionRejected";
/// No pod of stable can answer.
pub const STABLE_UNAVAILABLE: &str = "StableUnavailable";
/// Ready gateway pods don't serve the present routing yet.
pub const GATEWAYS_BEHIND: &str = "GatewaysBehind";
/// There is no ready gateway pod.
pub const NO_GATEWAY: &str = "NoGateway";
/// The release's Service has no ready endpoint: callers don't reach the gateway by it yet.
pub const SERVICE_UNREACHABLE: &str = "ServiceUnreachable";
/// A gateway says what keeps callers from being answered.
pub const GATEWAY_PROBLEM: &str = "GatewayProblem";
/// A Secret that the gateway needs to answer callers, or a key of it, isn't there.
pub const CREDENTIALS_MISSING: &str = "CredentialsMissing";
/// The gateway can't connect to the backend of a prompt that has callers. It goes by itself once the gateway can.
pub const BACKEND_UNREACHABLE: &str = "BackendUnreachable";
/// `replicas` is 0.
pub const SCALED_TO_ZERO: &str = "ScaledToZero";
/// No rollout is going on.
pub const IDLE: &str = "Idle";
/// There is nothing that needs help.
pub const NOT_STALLED: &str = "NotStalled";

/// Reason and sentence of what a gateway reports as `<reason>: <sentence>`.
pub(super) fn of_problem(problem: &str) -> (&'static str, &str) {
    let known = [CREDENTIALS_MISSING, BACKEND_UNREACHABLE];
    let named = problem.split_once(": ").and_then(|(name, sentence)| {
        let reason = known.into_iter().find(|reason| *reason == name)?;
        Some((reason, sentence))
    });
    named.unwrap_or((GATEWAY_PROBLEM, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bucket;

    #[test]
    fn what_gateways_report_is_a_reason_of_its_own_where_there_is_one() {
        let missing = format!("{}: key `a` of Secret b", bucket::CREDENTIALS_MISSING);
        let expected = (CREDENTIALS_MISSING, "key `a` of Secret b");
        assert_eq!(of_problem(&missing), expected);
        let down = format!("{}: no: really", bucket::BACKEND_UNREACHABLE);
        assert_eq!(of_problem(&down), (BACKEND_UNREACHABLE, "no: really"));
        for other in ["Another: thing", "no colon"] {
            assert_eq!(of_problem(other), (GATEWAY_PROBLEM, other));
        }
    }
}
