//! What has ended, of a release.

use jiff::Timestamp;

use super::{
    Node, Release,
    words::{ago, version},
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
    format!(
        "rejected {} ({}): {}, {}",
        rejected.revision,
        version(rejected.version.as_deref()),
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
