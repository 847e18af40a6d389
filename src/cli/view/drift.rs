//! Drift, column by column.

use jiff::Timestamp;

use super::{
    Release,
    words::{ago, number},
};

/// A table of the columns with what was measured, the window, and the operator's sentence.
pub fn drift(release: &Release, now: Timestamp) -> String {
    let (kind, name) = (release.kind.as_str(), &release.name);
    let summary = release.drift_summary.as_deref().unwrap_or("not measured");
    let mut lines = vec![format!("{kind} {name}  drift {summary}")];
    if let Some(window) = &release.drift_window
        && let (Some(start), Some(end)) = (&window.start, &window.end)
    {
        let minutes = end.0.duration_since(start.0).as_secs() / 60;
        let (rows, revision) = (window.rows, &window.revision);
        lines.push(format!(
            "the {rows} rows that revision {revision} was asked in {minutes} min, until {}",
            ago(end, now)
        ));
    }
    if !release.drift.is_empty() {
        let mut rows = vec![
            ["", "COLUMN", "SCORE", "THRESHOLD", "NOISE", "ROWS", "BY"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(release.drift.iter().map(|column| {
            let mark = match (column.score, column.drifted) {
                (None, _) => "?",
                (_, true) => "✖",
                (_, false) => "✔",
            };
            vec![
                mark.to_owned(),
                column.column.clone(),
                column.score.map_or("-".to_owned(), number),
                number(column.threshold),
                column.noise.map_or("-".to_owned(), number),
                column.samples.to_string(),
                match column.score {
                    Some(_) => column.method.clone(),
                    None => column.reason.clone(),
                },
            ]
        }));
        lines.extend(table(&rows));
    }
    let said = release
        .conditions
        .iter()
        .find(|c| c.type_ == "DriftDetected");
    lines.extend(said.map(|c| format!("{}: {}", c.reason, c.message)));
    lines.join("\n")
}

/// Rows of cells as lines, each column as wide as its widest cell.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    rows.iter()
        .map(|row| {
            let cells = row.iter().enumerate();
            let line: Vec<String> = cells
                .map(|(at, cell)| format!("{cell:<width$}", width = width(at)))
                .collect();
            line.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ModelDeployment;

    #[test]
    fn drift_is_a_table_with_what_was_measured_and_what_was_not() {
        let object: ModelDeployment = serde_json::from_value(serde_json::json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "churn"},
            "spec": {"server": {"template": {"spec": {"containers": [{"name": "server"}]}}}},
            "status": {
                "driftSummary": "1/2",
                "driftWindow": {"revision": "aaaa", "next": "2026-01-01T00:05:00Z", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:05:00Z", "rows": 5000, "share": 0.5},
                "drift": [
                    {"column": "temp", "method": "Wasserstein", "score": 4.12, "threshold": 3.0, "noise": 0.11, "samples": 5000, "drifted": true, "reason": "Observed"},
                    {"column": "origin", "method": "JensenShannon", "score": 0.01, "threshold": 0.2, "noise": 0.03, "samples": 5000, "reason": "Observed"},
                    {"column": "dest", "method": "JensenShannon", "threshold": 0.2, "samples": 0, "reason": "NotObserved"},
                ],
                "conditions": [{"type": "DriftDetected", "status": "True", "reason": "Drifted", "message": "1 of 2 columns drifted: temp", "lastTransitionTime": "2026-01-01T00:05:00Z"}],
            },
        }))
        .unwrap();
        let now: Timestamp = "2026-01-01T00:06:00Z".parse().unwrap();
        let text = drift(&Release::from(&object), now);
        let expected = "\
ModelDeployment churn  drift 1/2
the 5000 rows that revision aaaa was asked in 5 min, until 60s ago
   COLUMN  SCORE  THRESHOLD  NOISE  ROWS  BY
✖  temp    4.12   3          0.11   5000  Wasserstein
✔  origin  0.01   0.2        0.03   5000  JensenShannon
?  dest    -      0.2        -      0     NotObserved
Drifted: 1 of 2 columns drifted: temp";
        assert_eq!(text, expected, "\n{text}");
    }
}
