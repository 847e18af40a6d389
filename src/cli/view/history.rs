//! What has ended, of a release.

use jiff::Timestamp;

use super::{
    Node, Release,
    words::{ago, number, version},
};
use crate::api::{
    model_deployment::RetrainingStatus,
    rollout::{HistoryEntry, Outcome, RejectedRevision},
};

/// Everything that has ended: rollouts, retrainings, rejected revisions, commands.
pub fn history(release: &Release, now: Timestamp) -> Node {
    let kind = release.kind.as_str();
    let mut root = Node::leaf(format!("{kind} {}", release.name));
    let list = |title: &str, lines: Vec<String>| Node {
        text: if lines.is_empty() {
            format!("{title}: none")
        } else {
            title.to_owned()
        },
        children: lines.into_iter().map(Node::leaf).collect(),
    };
    root.children.push(list(
        "rollouts, newest first",
        release
            .history
            .iter()
            .rev()
            .map(|h| finished(h, now))
            .collect(),
    ));
    if let Some(retraining) = &release.retraining {
        root.children.push(retrainings(retraining, now, usize::MAX));
    }
    root.children.push(list(
        "rejected revisions",
        release
            .rejected
            .iter()
            .rev()
            .map(|r| ledger(r, now))
            .collect(),
    ));
    root.children.push(list(
        "commands",
        release
            .commands
            .iter()
            .map(|c| format!("{} {}: {}", c.name, c.value, c.result))
            .collect(),
    ));
    root
}

pub(super) fn retrainings(retraining: &RetrainingStatus, now: Timestamp, most: usize) -> Node {
    let mut node = Node::leaf(format!("retraining: {}", retraining.message));
    for run in retraining.runs.iter().rev().take(most) {
        let version = run
            .version
            .as_ref()
            .map(|v| format!(" → {v}"))
            .unwrap_or_default();
        node.children.push(Node::leaf(format!(
            "#{} {} {} ({}){version}: {}, {}",
            run.firing,
            run.result,
            run.job,
            run.trigger,
            run.message,
            ago(&run.time, now)
        )));
    }
    for trigger in &retraining.triggers {
        node.children.push(Node::leaf(format!(
            "trigger {} {}: {}",
            trigger.name, trigger.state, trigger.message
        )));
    }
    node
}

pub(super) fn ledger(rejected: &RejectedRevision, now: Timestamp) -> String {
    let broken = rejected.gate.as_ref().map(|broken| {
        let value = broken.value.map_or_else(|| "?".to_owned(), number);
        let stable = broken.stable.map(|s| format!(", stable {}", number(s)));
        let stable = stable.unwrap_or_default();
        format!(" [{} {value}, {}{stable}]", broken.metric, broken.bound)
    });
    format!(
        "rejected {} ({}) {}{}: {}, {}",
        rejected.revision,
        version(rejected.version.as_deref()),
        rejected.reason,
        broken.unwrap_or_default(),
        rejected.message,
        ago(&rejected.time, now)
    )
}

pub(super) fn finished(entry: &HistoryEntry, now: Timestamp) -> String {
    let sign = if entry.outcome == Outcome::Promoted {
        "✔"
    } else {
        "✖"
    };
    format!(
        "{sign} {:?} {} (revision {}) {}: {}",
        entry.outcome,
        version(entry.version.as_deref()),
        entry.revision,
        ago(&entry.end_time, now),
        entry.message
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_shown_with_cause_metric_value_and_bound() {
        let shown = |gate: serde_json::Value| {
            let mut entry = serde_json::json!({
                "revision": "cccc", "reason": "GateFailed", "message": "m", "time": "2026-01-01T00:00:00Z",
            });
            entry["gate"] = gate;
            let entry: RejectedRevision = serde_json::from_value(entry).unwrap();
            ledger(&entry, "2026-01-01T00:01:00Z".parse().unwrap())
        };
        let gate = serde_json::json!({"metric": "errorRate", "bound": "maxDifference 0.01", "value": 0.4012, "stable": 0.002});
        assert_eq!(
            shown(gate),
            "rejected cccc (?) GateFailed [errorRate 0.4012, maxDifference 0.01, stable 0.002]: m, 60s ago"
        );
        assert_eq!(
            shown(serde_json::Value::Null),
            "rejected cccc (?) GateFailed: m, 60s ago"
        );
    }
}
