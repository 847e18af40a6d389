//! What the plugin shows, as pure text from an object's status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::release::ReleaseKind;
use crate::api::{
    ModelDeployment, PromptRelease,
    command::HandledCommand,
    gate::{GateStatus, Verdict},
    model_deployment::{DriftStatus, RetrainingStatus},
    rollout::{
        HistoryEntry, Outcome, RejectedRevision, RevisionStatus, RolloutState, RolloutStatus, Step,
    },
};

/// What both kinds of release have.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which kind.
    pub kind: ReleaseKind,
    /// Its name.
    pub name: String,
    /// Phase and message.
    pub summary: String,
    /// Where clients call it.
    pub url: Option<String>,
    /// The revision that serves.
    pub stable: Option<RevisionStatus>,
    /// The revision that is tried.
    pub candidate: Option<RevisionStatus>,
    /// The rollout.
    pub rollout: RolloutStatus,
    /// Drift by column.
    pub drift: Vec<DriftStatus>,
    /// `3/9`, or why there is none.
    pub drift_summary: Option<String>,
    /// Retraining.
    pub retraining: Option<RetrainingStatus>,
    /// The ledger.
    pub rejected: Vec<RejectedRevision>,
    /// Finished rollouts.
    pub history: Vec<HistoryEntry>,
    /// Commands that were handled.
    pub commands: Vec<HandledCommand>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

impl From<&ModelDeployment> for Release {
    fn from(object: &ModelDeployment) -> Self {
        let status = object.status.clone().unwrap_or_default();
        Self {
            kind: ReleaseKind::Model,
            name: object.name_any(),
            summary: format!("{:?}: {}", status.phase, status.message),
            url: status.url,
            stable: status.stable,
            candidate: status.candidate,
            rollout: status.rollout.unwrap_or_default(),
            drift: status.drift,
            drift_summary: status.drift_summary,
            retraining: status.retraining,
            rejected: status.rejected_revisions,
            history: status.history,
            commands: status.last_handled_commands,
            conditions: status.conditions,
        }
    }
}

impl From<&PromptRelease> for Release {
    fn from(object: &PromptRelease) -> Self {
        let status = object.status.clone().unwrap_or_default();
        Self {
            kind: ReleaseKind::Prompt,
            name: object.name_any(),
            summary: format!("{:?}: {}", status.phase, status.message),
            url: status.url,
            stable: status.stable,
            candidate: status.candidate,
            rollout: status.rollout.unwrap_or_default(),
            drift: Vec::new(),
            drift_summary: None,
            retraining: None,
            rejected: status.rejected_revisions,
            history: status.history,
            commands: status.last_handled_commands,
            conditions: status.conditions,
        }
    }
}

/// A line with what hangs below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The line.
    pub text: String,
    /// What hangs below it.
    pub children: Vec<Node>,
}

impl Node {
    fn leaf(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            children: Vec::new(),
        }
    }

    /// The tree as lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.text.clone()];
        let last = self.children.len().saturating_sub(1);
        for (index, child) in self.children.iter().enumerate() {
            let (first, rest) = if index == last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            for (number, line) in child.lines().into_iter().enumerate() {
                lines.push(format!("{}{line}", if number == 0 { first } else { rest }));
            }
        }
        lines
    }
}

/// A release as a tree: revisions, weight, step, gates with values, drift by column, last retraining and why.
pub fn tree(release: &Release, now: Timestamp) -> Node {
    let kind = match release.kind {
        ReleaseKind::Model => "ModelDeployment",
        ReleaseKind::Prompt => "PromptRelease",
    };
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

/// Everything that has ended: rollouts, retrainings, rejected revisions, commands.
pub fn history(release: &Release, now: Timestamp) -> Node {
    let mut root = Node::leaf(format!(
        "{} {}",
        if release.kind == ReleaseKind::Model {
            "ModelDeployment"
        } else {
            "PromptRelease"
        },
        release.name
    ));
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
        line.push_str(" (waits for `kubectl perennial promote`)");
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
    match (&step.set_weight, &step.pause) {
        (Some(weight), _) => format!("setWeight {weight}"),
        (_, Some(pause)) => pause.duration.as_ref().map_or_else(
            || "pause until promoted".to_owned(),
            |d| format!("pause {d}"),
        ),
        _ => String::new(),
    }
}

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "✔",
        Verdict::Failed | Verdict::Error => "✖",
        Verdict::Pending | Verdict::Running => "…",
        Verdict::Inconclusive => "?",
    }
}

fn words(verdict: Verdict, message: &str) -> String {
    if message.is_empty() {
        format!("{verdict:?}")
    } else {
        format!("{verdict:?}, {message}")
    }
}

fn gate(gate: &GateStatus) -> String {
    let mut line = format!("{} {} {}", mark(gate.verdict), gate.metric, gate.bound);
    if let Some(value) = gate.value {
        line.push_str(&format!("  candidate {}", number(value)));
    }
    if let Some(stable) = gate.stable {
        line.push_str(&format!("  stable {}", number(stable)));
    }
    if let (Some(lower), Some(upper)) = (gate.lower, gate.upper) {
        line.push_str(&format!("  [{}, {}]", number(lower), number(upper)));
    }
    line.push_str(&format!(
        "  n={}  {}",
        gate.samples,
        words(gate.verdict, &gate.message)
    ));
    line
}

fn column(column: &DriftStatus) -> String {
    let (mark, score) = match (column.score, column.drifted) {
        (None, _) => ("?", column.reason.clone()),
        (Some(score), true) => ("✖", number(score)),
        (Some(score), false) => ("✔", number(score)),
    };
    let noise = column
        .noise
        .map(|n| format!(", noise {}", number(n)))
        .unwrap_or_default();
    format!(
        "{mark} {}  {score}  (threshold {}{noise}, n={})",
        column.column,
        number(column.threshold),
        column.samples
    )
}

/// A prompt's version is a whole SHA-256; the first twelve digits are enough for people.
fn version(version: Option<&str>) -> &str {
    match version {
        Some(hash) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            &hash[..12]
        }
        Some(version) => version,
        None => "?",
    }
}

fn retrainings(retraining: &RetrainingStatus, now: Timestamp, most: usize) -> Node {
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

fn ledger(rejected: &RejectedRevision, now: Timestamp) -> String {
    format!(
        "rejected {} ({}): {}, {}",
        rejected.revision,
        version(rejected.version.as_deref()),
        rejected.message,
        ago(&rejected.time, now)
    )
}

fn finished(entry: &HistoryEntry, now: Timestamp) -> String {
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

fn ago(time: &Time, now: Timestamp) -> String {
    format!(
        "{} ago",
        length(now.duration_since(time.0).as_secs().max(0))
    )
}

fn length(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn number(value: f64) -> String {
    if value == 0.0 || (value.abs() >= 0.001 && value.abs() < 100_000.0) {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.2e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
