//! What has come to an end between two statuses of an object: the operator counts it once the later one is written, so that a crash counts
//! nothing twice.

use crate::{
    api::{
        evaluation::EvaluationStatus,
        gate::Verdict,
        model_deployment::{ModelDeploymentStatus, RetrainingStatus},
        prompt_release::PromptReleaseStatus,
        rollout::{HistoryEntry, Outcome},
        training_job::{TrainingJobStatus, TrainingPhase},
    },
    plan::{model_deployment::retraining::result, rollout::reason},
};

/// Something that ended. Every word is of a closed set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A rollout.
    Rollout {
        /// `modeldeployments` or `promptreleases`.
        kind: &'static str,
        /// How.
        outcome: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A retraining came to this result.
    Retraining(&'static str),
    /// A run of an Evaluation, with this verdict.
    Evaluation(&'static str),
    /// A TrainingJob, in this phase.
    Training(&'static str),
}

/// Reasons that a history has.
const REASONS: [&str; 14] = [
    reason::PROMOTED,
    reason::FIRST_REVISION,
    reason::GATE_FAILED,
    reason::EVALUATION_FAILED,
    reason::NOT_IMPROVED,
    reason::NO_DATA,
    reason::NOT_ENOUGH_DATA,
    reason::PROGRESS_DEADLINE_EXCEEDED,
    reason::CANDIDATE_UNAVAILABLE,
    reason::ABORTED,
    reason::ROLLED_BACK_TO,
    reason::SUPERSEDED,
    reason::WITHDRAWN,
    "Other",
];

const RESULTS: [&str; 10] = [
    result::RUNNING,
    result::SUCCEEDED,
    result::FAILED,
    result::PROMOTED,
    result::REJECTED,
    result::NO_NEW_DATA,
    result::DID_NOT_HELP,
    result::SUPERSEDED,
    result::WITHDRAWN,
    result::NOT_ENOUGH_DATA,
];

/// What ended between these of a ModelDeployment.
pub fn of_model(
    before: Option<&ModelDeploymentStatus>,
    after: &ModelDeploymentStatus,
) -> Vec<Ended> {
    let history = before.map_or(&[][..], |s| &s.history);
    let runs = before.and_then(|s| s.retraining.as_ref());
    let mut ended = rollouts("modeldeployments", history, &after.history);
    ended.extend(after.retraining.iter().flat_map(|r| retrainings(runs, r)));
    ended
}

/// What ended between these of a PromptRelease.
pub fn of_prompt(before: Option<&PromptReleaseStatus>, after: &PromptReleaseStatus) -> Vec<Ended> {
    let history = before.map_or(&[][..], |s| &s.history);
    rollouts("promptreleases", history, &after.history)
}

/// What ended between these of an Evaluation.
pub fn of_evaluation(before: Option<&EvaluationStatus>, after: &EvaluationStatus) -> Vec<Ended> {
    let Some(run) = after
        .last_run
        .as_ref()
        .filter(|r| r.completion_time.is_some())
    else {
        return Vec::new();
    };
    let known = before.and_then(|s| s.last_run.as_ref());
    let is_known = known.is_some_and(|k| k.number == run.number && k.completion_time.is_some());
    let new = (!is_known).then(|| Ended::Evaluation(verdict(run.verdict)));
    new.into_iter().collect()
}

/// What ended between these of a TrainingJob.
pub fn of_training_job(
    before: Option<&TrainingJobStatus>,
    after: &TrainingJobStatus,
) -> Vec<Ended> {
    let phase = match after.phase {
        TrainingPhase::Succeeded => "Succeeded",
        TrainingPhase::Failed => "Failed",
        _ => return Vec::new(),
    };
    let new = before.is_none_or(|b| b.phase != after.phase);
    new.then_some(Ended::Training(phase)).into_iter().collect()
}

fn rollouts(kind: &'static str, before: &[HistoryEntry], after: &[HistoryEntry]) -> Vec<Ended> {
    let key = |e: &HistoryEntry| (e.revision.clone(), e.start_time.clone(), e.end_time.clone());
    let is_new = |entry: &&HistoryEntry| before.iter().all(|known| key(known) != key(entry));
    after
        .iter()
        .filter(is_new)
        .map(|entry| Ended::Rollout {
            kind,
            outcome: match entry.outcome {
                Outcome::Promoted => "Promoted",
                Outcome::RolledBack => "RolledBack",
                Outcome::Aborted => "Aborted",
                Outcome::Superseded => "Superseded",
                Outcome::Withdrawn => "Withdrawn",
            },
            reason: closed(&REASONS, &entry.reason),
        })
        .collect()
}

fn retrainings(before: Option<&RetrainingStatus>, after: &RetrainingStatus) -> Vec<Ended> {
    let known = |firing: i64| before?.runs.iter().find(|r| r.firing == firing);
    after
        .runs
        .iter()
        .filter(|run| known(run.firing).is_none_or(|k| k.result != run.result))
        .map(|run| Ended::Retraining(closed(&RESULTS, &run.result)))
        .collect()
}

fn closed(set: &[&'static str], word: &str) -> &'static str {
    set.iter().find(|w| **w == word).copied().unwrap_or("Other")
}

/// The word for a verdict.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "Pending",
        Verdict::Running => "Running",
        Verdict::Passed => "Passed",
        Verdict::Failed => "Failed",
        Verdict::Inconclusive => "Inconclusive",
        Verdict::Error => "Error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(revision: &str, end: &str, outcome: &str, reason: &str) -> serde_json::Value {
        json!({"revision": revision, "outcome": outcome, "reason": reason, "message": "", "endTime": end})
    }

    fn model(history: &[serde_json::Value], runs: &[(i64, &str)]) -> ModelDeploymentStatus {
        let runs: Vec<_> = runs
            .iter()
            .map(|(firing, result)| {
                json!({"firing": firing, "job": "j", "created": true, "trigger": "t", "message": "", "time": "2013-07-01T00:00:00Z", "result": result})
            })
            .collect();
        serde_json::from_value(json!({"history": history, "retraining": {"runs": runs}})).unwrap()
    }

    #[test]
    fn what_is_written_again_is_counted_once() {
        let first = entry("a", "2013-07-01T00:00:00Z", "Promoted", "FirstRevision");
        let again = entry("a", "2013-07-02T00:00:00Z", "RolledBack", "GateFailed");
        let odd = entry(
            "b",
            "2013-07-03T00:00:00Z",
            "Aborted",
            "as someone likes it",
        );
        let before = model(
            std::slice::from_ref(&first),
            &[(1, "Succeeded"), (2, "Running")],
        );
        let after = model(
            &[first, again, odd],
            &[(1, "Promoted"), (2, "Running"), (3, "Running")],
        );
        assert!(of_model(Some(&after), &after).is_empty());
        let rollout = |outcome, reason| Ended::Rollout {
            kind: "modeldeployments",
            outcome,
            reason,
        };
        assert_eq!(
            of_model(Some(&before), &after),
            [
                rollout("RolledBack", "GateFailed"),
                rollout("Aborted", "Other"),
                Ended::Retraining("Promoted"),
                Ended::Retraining("Running"),
            ]
        );
        assert_eq!(of_model(None, &before).len(), 3);
    }

    #[test]
    fn a_history_that_is_full_goes_on_to_be_counted() {
        let all: Vec<_> = (10..40)
            .map(|n| {
                entry(
                    "a",
                    &format!("2013-07-01T00:00:{n}Z"),
                    "Promoted",
                    "Promoted",
                )
            })
            .collect();
        let ended = of_model(Some(&model(&all[..20], &[])), &model(&all[1..21], &[]));
        assert_eq!(ended.len(), 1);
    }

    #[test]
    fn a_run_of_an_evaluation_counts_when_it_has_ended() {
        let status = |number: i64, ended: bool| -> EvaluationStatus {
            let mut run = json!({"number": number, "target": "t", "verdict": if ended {"Failed"} else {"Running"}});
            if ended {
                run["completionTime"] = json!("2013-07-01T00:00:00Z");
            }
            serde_json::from_value(json!({"lastRun": run})).unwrap()
        };
        let failed = [Ended::Evaluation("Failed")];
        assert!(of_evaluation(None, &status(1, false)).is_empty());
        assert_eq!(
            of_evaluation(Some(&status(1, false)), &status(1, true)),
            failed
        );
        assert!(of_evaluation(Some(&status(1, true)), &status(1, true)).is_empty());
        assert_eq!(
            of_evaluation(Some(&status(1, true)), &status(2, true)),
            failed
        );
    }

    #[test]
    fn a_training_job_ends_once() {
        let status = |phase| TrainingJobStatus {
            phase,
            ..TrainingJobStatus::default()
        };
        let (running, failed) = (
            status(TrainingPhase::Running),
            status(TrainingPhase::Failed),
        );
        assert_eq!(
            of_training_job(Some(&running), &failed),
            [Ended::Training("Failed")]
        );
        assert!(of_training_job(Some(&failed), &failed).is_empty());
        assert!(of_training_job(None, &running).is_empty());
    }
}
