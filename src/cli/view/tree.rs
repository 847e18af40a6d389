//! A release as a tree.

use jiff::Timestamp;

use super::{
    Node, Release,
    history::{finished, ledger, retrainings},
    words::{ago, gate, length, mark, number, version, words},
};
use crate::api::{
    model_deployment::DriftStatus,
    rollout::{RevisionStatus, RolloutState, RolloutStatus, Step},
};

/// A release as a tree: revisions, weight, step, gates with values, drift by column, last retraining and why.
pub fn tree(release: &Release, now: Timestamp) -> Node {
    let kind = release.kind.as_str();
    let mut root = Node::leaf(format!("{kind} {}  {}", release.name, release.summary));
    if let Some(url) = &release.url {
        root.children.push(Node::leaf(url.clone()));
    }
    let weight = release.rollout.weight;
    if let Some(stable) = &release.stable {
        root.children
            .push(Node::leaf(revision("stable", stable, 100 - weight, now)));
    }
    if let Some(candidate) = &release.candidate {
        let mut node = Node::leaf(revision("candidate", candidate, weight, now));
        node.children.push(Node::leaf(step(&release.rollout, now)));
        for evaluation in &release.rollout.evaluations {
            node.children.push(Node::leaf(format!(
                "{} evaluation {}: {}",
                mark(evaluation.verdict),
                evaluation.name,
                words(evaluation.verdict, &evaluation.message)
            )));
        }
        node.children
            .extend(release.rollout.gates.iter().map(|g| Node::leaf(gate(g))));
        root.children.push(node);
    } else if release.rollout.state == RolloutState::Baking {
        let mut node = Node::leaf(step(&release.rollout, now));
        node.children
            .extend(release.rollout.gates.iter().map(|g| Node::leaf(gate(g))));
        root.children.push(node);
    }
    if let Some(summary) = &release.drift_summary {
        let mut node = Node::leaf(format!("drift {summary}"));
        node.children
            .extend(release.drift.iter().map(|c| Node::leaf(column(c))));
        root.children.push(node);
    }
    if let Some(retraining) = &release.retraining {
        root.children.push(retrainings(retraining, now, 1));
    }
    if let Some(rejected) = release.rejected.last() {
        root.children.push(Node::leaf(ledger(rejected, now)));
    }
    if let Some(last) = release.history.last() {
        root.children
            .push(Node::leaf(format!("last rollout: {}", finished(last, now))));
    }
    root
}

fn revision(role: &str, revision: &RevisionStatus, weight: i32, now: Timestamp) -> String {
    let mut line = format!(
        "{role}  {}  revision {}  weight {weight}",
        version(revision.version.as_deref()),
        revision.revision
    );
    if revision.replicas > 0 || revision.available_replicas > 0 {
        line.push_str(&format!(
            "  pods {}/{}",
            revision.available_replicas, revision.replicas
        ));
    }
    if let Some(attempt) = revision.attempt.filter(|_| role == "candidate") {
        line.push_str(&format!("  attempt {attempt}"));
    }
    if let Some(since) = &revision.since {
        line.push_str(&format!("  since {}", ago(since, now)));
    }
    if let Some(message) = &revision.message {
        line.push_str(&format!("  ({message})"));
    }
    line
}

fn step(rollout: &RolloutStatus, now: Timestamp) -> String {
    let mut line = match rollout.state {
        RolloutState::Stepping | RolloutState::Paused => {
            let at = usize::try_from(rollout.step)
                .ok()
                .and_then(|i| rollout.steps.get(i))
                .map(step_words)
                .unwrap_or_default();
            format!("step {} of {}: {at}", rollout.step + 1, rollout.steps.len())
        }
        state => format!("{state:?}"),
    };
    if rollout.state == RolloutState::Paused {
        let at = usize::try_from(rollout.step).unwrap_or(usize::MAX);
        let step = rollout.steps.get(at);
        let verb = match step.is_some_and(|s| s.approval.is_some()) {
            true => "approve",
            false => "promote",
        };
        line.push_str(&format!(" (waits for `kubectl perennial {verb}`)"));
    }
    if let Some(since) = &rollout.since {
        line.push_str(&format!(", since {}", ago(since, now)));
    }
    if let Some(deadline) = &rollout.deadline {
        let left = deadline.0.duration_since(now).as_secs();
        line.push_str(&if left >= 0 {
            format!(", {} left", length(left))
        } else {
            ", out of time".to_owned()
        });
    }
    if let Some(ending) = &rollout.ending {
        line.push_str(&format!(" → {:?}: {}", ending.outcome, ending.message));
    }
    line
}

fn step_words(step: &Step) -> String {
    if let Some(mirror) = &step.set_mirror {
        return format!("setMirror {}", mirror.percent);
    }
    if let Some(weight) = step.set_weight {
        return format!("setWeight {weight}");
    }
    if let Some(evaluate) = &step.evaluate {
        return format!("evaluate {}", evaluate.names.join(", "));
    }
    if step.approval.is_some() {
        return "approval".to_owned();
    }
    match step.pause.as_ref().map(|pause| &pause.duration) {
        Some(None) => "pause until promoted".to_owned(),
        Some(Some(duration)) => format!("pause {duration}"),
        None => String::new(),
    }
}

pub(super) fn column(column: &DriftStatus) -> String {
    let (mark, score) = match (column.score, column.drifted) {
        (None, _) => ("?", column.reason.clone()),
        (Some(score), true) => ("✖", number(score)),
        (Some(score), false) => ("✔", number(score)),
    };
    let noise = column
        .noise
        .map(|n| format!(", noise {}", number(n)))
        .unwrap_or_default();
    let not_counted = match column.reason.as_str() {
        "Calendar" => "; follows the calendar, not counted",
        _ if column.prediction => "; of answers, not counted",
        _ => "",
    };
    format!(
        "{mark} {}  {score}  (threshold {}{noise}, n={}{not_counted})",
        column.column,
        number(column.threshold),
        column.samples
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ModelDeployment;

    #[test]
    fn a_rollout_is_shown_as_a_tree_with_gates_drift_and_why() {
        let object: ModelDeployment = serde_json::from_value(serde_json::json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "churn"},
            "spec": {"server": {"template": {"spec": {"containers": [{"name": "server"}]}}}},
            "status": {
                "phase": "Progressing", "message": "weight 10", "url": "http://churn.a.svc",
                "stable": {"revision": "aaaa", "version": "v1", "replicas": 2, "availableReplicas": 2, "since": "2026-01-01T00:00:00Z"},
                "candidate": {"revision": "bbbb", "version": "v2", "replicas": 1, "availableReplicas": 1, "attempt": 3},
                "rollout": {"state": "Stepping", "weight": 10, "epoch": 7, "step": 1, "steps": [{"setWeight": 10}, {"pause": {"duration": "5m"}}],
                    "since": "2026-01-01T11:58:00Z",
                    "evaluations": [{"name": "quality", "verdict": "Passed", "message": "rocAuc = 0.7"}],
                    "gates": [{"metric": "errorRate", "bound": "max 0.02", "value": 0.001, "stable": 0.0012, "samples": 400, "verdict": "Inconclusive", "message": "harm of 0.01 could be seen after 900 callers"}]},
                "drift": [{"column": "temp", "score": 4.12, "threshold": 3.0, "noise": 0.11, "samples": 5000, "drifted": true}], "driftSummary": "1/9",
                "retraining": {"firing": 1, "message": "armed", "runs": [{"firing": 1, "job": "churn-abcdef-1", "created": true, "trigger": "drifted", "message": "share 0.33 > 0.25",
                    "time": "2026-01-01T10:00:00Z", "version": "v2", "result": "Succeeded"}]},
            },
        }))
        .unwrap();
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let text = tree(&Release::from(&object), now).lines().join("\n");
        let expected = "\
ModelDeployment churn  Progressing: weight 10
├─ http://churn.a.svc
├─ stable  v1  revision aaaa  weight 90  pods 2/2  since 12h ago
├─ candidate  v2  revision bbbb  weight 10  pods 1/1  attempt 3
│  ├─ step 2 of 2: pause 5m, since 2m ago
│  ├─ ✔ evaluation quality: Passed, rocAuc = 0.7
│  └─ ? errorRate max 0.02  candidate 0.001  stable 0.0012  n=400  Inconclusive, harm of 0.01 could be seen after 900 callers
├─ drift 1/9
│  └─ ✖ temp  4.12  (threshold 3, noise 0.11, n=5000)
└─ retraining: armed
   └─ #1 Succeeded churn-abcdef-1 (drifted) → v2: share 0.33 > 0.25, 2h ago";
        assert_eq!(text, expected, "\n{text}");
    }
}
