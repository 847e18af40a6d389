//! An Evaluation's runs, with gates and metrics.

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    Node,
    words::{ago, gate, mark, number, words},
};
use crate::api::{
    Evaluation,
    evaluation::EvaluationRun,
    gate::{MetricValue, Verdict},
};

/// The Evaluation as a tree: its verdict, and each target's last run, newest first.
pub fn evaluation(evaluation: &Evaluation, now: Timestamp) -> Node {
    let status = evaluation.status.clone().unwrap_or_default();
    let mut root = Node::leaf(format!(
        "Evaluation {}  {}",
        evaluation.name_any(),
        words(status.verdict, &status.message)
    ));
    let mut runs = status.runs;
    if let Some(last) = status.last_run
        && !runs.iter().any(|run| run.number == last.number)
    {
        runs.push(last);
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.number));
    root.children = runs.iter().map(|one| run(one, now)).collect();
    root
}

fn run(run: &EvaluationRun, now: Timestamp) -> Node {
    let mut line = format!(
        "{} #{} {}: {}",
        mark(run.verdict),
        run.number,
        run.target,
        words(run.verdict, &run.message)
    );
    if let Some(time) = run.completion_time.as_ref().or(run.start_time.as_ref()) {
        line.push_str(&format!(", {}", ago(time, now)));
    }
    let mut node = Node::leaf(line);
    if let Some(rows) = run.rows {
        let digest = run.dataset_digest.as_deref().unwrap_or("no digest");
        node.children
            .push(Node::leaf(format!("{rows} rows, {digest}")));
    }
    node.children
        .extend(run.gates.iter().map(|g| Node::leaf(gate(g))));
    let open = matches!(run.verdict, Verdict::Pending | Verdict::Running);
    if !run.metrics.is_empty() && !open {
        let mut metrics = Node::leaf("metrics");
        metrics.children = run.metrics.iter().map(|m| Node::leaf(metric(m))).collect();
        node.children.push(metrics);
    }
    node
}

fn metric(metric: &MetricValue) -> String {
    let mut line = match metric.value {
        Some(value) => format!("{} {}", metric.name, number(value)),
        None => format!("{} has no value", metric.name),
    };
    if let (Some(lower), Some(upper)) = (metric.lower, metric.upper) {
        line.push_str(&format!("  [{}, {}]", number(lower), number(upper)));
    }
    if let Some(message) = &metric.message {
        line.push_str(&format!("  ({message})"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_shown_newest_first_with_gates_and_metrics() {
        let object: Evaluation = serde_json::from_value(serde_json::json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "quality"},
            "spec": {"target": {"modelDeployment": {"name": "churn"}}},
            "status": {
                "verdict": "Failed", "message": "rocAuc = 0.5 < 0.6",
                "runs": [
                    {"number": 1, "target": "churn candidate v1 (attempt 1)", "verdict": "Passed", "message": "1 of 1 gates passed", "completionTime": "2026-01-01T00:00:00Z", "rows": 1500, "datasetDigest": "sha256:ab",
                     "metrics": [{"name": "rocAuc", "value": 0.7, "lower": 0.68, "upper": 0.72}],
                     "gates": [{"metric": "rocAuc", "bound": "min 0.6", "value": 0.7, "samples": 1500, "verdict": "Passed"}]},
                    {"number": 2, "target": "churn candidate v2 (attempt 2)", "verdict": "Failed", "message": "rocAuc = 0.5 < 0.6", "completionTime": "2026-01-01T00:05:00Z",
                     "gates": [{"metric": "rocAuc", "bound": "min 0.6", "value": 0.5, "samples": 1500, "verdict": "Failed"}]},
                ],
            },
        }))
        .unwrap();
        let now: Timestamp = "2026-01-01T00:06:00Z".parse().unwrap();
        let text = evaluation(&object, now).lines().join("\n");
        let expected = "\
Evaluation quality  Failed, rocAuc = 0.5 < 0.6
├─ ✖ #2 churn candidate v2 (attempt 2): Failed, rocAuc = 0.5 < 0.6, 60s ago
│  └─ ✖ rocAuc min 0.6  candidate 0.5  n=1500  Failed
└─ ✔ #1 churn candidate v1 (attempt 1): Passed, 1 of 1 gates passed, 6m ago
   ├─ 1500 rows, sha256:ab
   ├─ ✔ rocAuc min 0.6  candidate 0.7  n=1500  Passed
   └─ metrics
      └─ rocAuc 0.7  [0.68, 0.72]";
        assert_eq!(text, expected, "\n{text}");
    }
}
