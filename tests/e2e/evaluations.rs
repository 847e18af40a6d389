//! Evaluations with every evaluator of a model, on a schedule, with their reports: on real pods.

use serde_json::{Value, json};

use crate::{
    installation, rollout,
    space::{Space, condition},
};

/// Everything that is measured of a model, every minute.
fn nightly() -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "nightly"}, "spec": {
        "target": {"modelDeployment": {"name": "churn"}},
        "dataset": {"uri": "pvc://data/churn-holdout.parquet", "label": "churned"},
        "reference": {"uri": "pvc://data/churn.parquet"},
        "evaluators": [
            {"classification": {}},
            {"calibration": {"bins": 10}},
            {"fairness": {"sensitive": ["contract"], "minGroupSize": 100}},
            {"featureImportance": {"repeats": 2}},
            {"dataQuality": {}},
            {"drift": {}},
        ],
        "gates": [
            {"metric": "rocAuc", "min": 0.6},
            {"metric": "ece", "max": 0.3},
            {"metric": "featureImportance.contract", "min": 0.0},
            {"metric": "missingShare", "max": 0.1},
            {"metric": "driftShare", "max": 0.5},
        ],
        "schedule": "* * * * *",
        "timeZone": "Europe/Berlin",
        "seed": 7,
        "output": "pvc://models/reports",
    }})
    .to_string()
}

/// On rows that the version was trained on, which are said to be held out.
fn leaky() -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "leaky"}, "spec": {
        "target": {"modelDeployment": {"name": "churn"}},
        "dataset": {"uri": "pvc://data/churn.parquet", "label": "churned", "disjointFrom": "Training"},
        "gates": [{"metric": "rocAuc", "min": 0.6}],
    }})
    .to_string()
}

/// A metric of a run.
fn metric(run: &Value, name: &str) -> f64 {
    let metrics = run["metrics"].as_array().expect("metrics");
    let found = metrics.iter().find(|m| m["name"] == name);
    let value = found.and_then(|m| m["value"].as_f64());
    value.unwrap_or_else(|| panic!("no value of {name} in {metrics:?}"))
}

#[tokio::test]
async fn an_evaluation_is_repeated_on_its_schedule_and_leaves_reports() {
    let _peace = installation::in_peace().await;
    let space = Space::new("evaluations").await;
    rollout::tables(&space).await;
    let mut deployment = rollout::deployment("");
    deployment["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("rollout");
    for object in [
        rollout::training("churn-a", "churn"),
        deployment.to_string(),
        nightly(),
    ] {
        space.apply(&object).await;
    }

    let first = space
        .until("Evaluation", "nightly", 300, "it was measured", |e| {
            e["status"]["verdict"] == "Passed"
        })
        .await;
    assert_eq!(condition(&first, "Ready").0, "True");
    let run = &first["status"]["lastRun"];
    assert_eq!(run["rows"], 1500);
    assert!(metric(run, "rocAuc") > metric(run, "baseline.rocAuc"));
    // Who pays by the month leaves more often, and the model has learned it: shuffled, that column costs the most.
    let contract = metric(run, "featureImportance.contract");
    assert!(contract > metric(run, "featureImportance.charge"));
    assert!(metric(run, "demographicParityDifference.contract") > 0.1);
    assert_eq!(metric(run, "insufficientGroups.contract"), 0.0);
    assert_eq!(metric(run, "driftedColumns"), 0.0, "drawn alike");

    space.apply(&leaky()).await;
    let refused = space
        .until("Evaluation", "leaky", 120, "it was looked at", |e| {
            e["status"]["verdict"] == "Error"
        })
        .await;
    let message = refused["status"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("TrainedOnRows: 3000 of 3000 rows of the dataset"),
        "{message}"
    );

    let repeated = space
        .until(
            "Evaluation",
            "nightly",
            240,
            "two runs were scheduled",
            |e| {
                let history = e["status"]["history"].as_array();
                let scheduled = |h: &&Value| h["scheduledTime"].is_string();
                history.is_some_and(|h| h.iter().filter(scheduled).count() >= 2)
            },
        )
        .await;
    let times: Vec<&str> = repeated["status"]["history"]
        .as_array()
        .expect("a history")
        .iter()
        .filter_map(|h| h["completionTime"].as_str())
        .collect();
    assert!(
        times.is_sorted_by(|a, b| a < b),
        "fresh each time: {times:?}"
    );
    assert!(repeated["status"]["nextRunTime"].is_string());

    let report = &repeated["status"]["lastRun"]["report"];
    assert!(report["configMap"].is_string(), "{report}");
    assert!(
        report["uri"]
            .as_str()
            .is_some_and(|uri| uri.starts_with("pvc://models/reports/nightly-")),
        "{report}"
    );
    let page = space
        .perennial(&["report", "nightly", "--output", "-"])
        .await
        .expect("the report is fetched");
    for part in ["<!doctype html>", "featureImportance", "two-years", "<svg"] {
        assert!(
            page.to_lowercase().contains(&part.to_lowercase()),
            "no {part} in the report"
        );
    }
    assert!(!page.contains("<script"), "it runs nothing");
}
