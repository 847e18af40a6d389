//! The loop closes on real traffic: what callers send drifts, the trigger fires once, one run retrains, and its version passes the
//! gates and the canary under their eyes.

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers},
    installation,
    rollout::{self, deployment, evaluation, training},
    space::{Space, condition},
    words::{history, version},
};

/// Rows of one request.
const ROWS: u32 = 100;

/// Customers as in the training data, but each pays 40 more: numbers at even quantiles, so that nothing else drifts.
fn dearer_customers() -> Value {
    // Shuffled by steps that share no factor with their number.
    let share =
        |i: u32, step: u32| f64::from(i * step % ROWS) / f64::from(ROWS) + 0.5 / f64::from(ROWS);
    let months: Vec<f64> = (0..ROWS)
        .map(|i| 1.0 + (share(i, 73) * 71.0).floor())
        .collect();
    let charges: Vec<f64> = (0..ROWS)
        .map(|i| {
            let odds = (share(i, 1) / (1.0 - share(i, 1))).ln();
            (65.0 + 20.0 * odds / 1.8).clamp(20.0, 120.0) + 40.0
        })
        .collect();
    let contracts: Vec<&str> = (0..ROWS)
        .map(|i| match share(i, 31) {
            s if s < 0.55 => "month",
            s if s < 0.8 => "year",
            _ => "two-years",
        })
        .collect();
    json!({"inputs": [
        {"name": "months", "datatype": "INT64", "shape": [ROWS, 1], "data": months.iter().map(|m| *m as i64).collect::<Vec<_>>()},
        {"name": "charge", "datatype": "FP64", "shape": [ROWS, 1], "data": charges},
        {"name": "contract", "datatype": "BYTES", "shape": [ROWS, 1], "data": contracts},
    ]})
}

/// The deployment, with windows as short as they can be.
fn watched() -> String {
    let mut deployment = deployment("");
    let spec = &mut deployment["spec"];
    spec["monitoring"] =
        json!({"drift": {"window": "1m", "minSamples": 1000, "thresholds": {"*": 0.3}}});
    spec["retraining"] = json!({
        "from": "churn-a",
        "datasets": [{"name": "train", "uri": "pvc://data/churn-dear.parquet"}],
        "triggers": [{"name": "inputs-drifted", "drift": {"share": {"max": 0.25}}, "windows": 1}],
    });
    spec["rollout"]["steps"] = json!([{"setWeight": 30}, {"pause": {"duration": "6s"}}]);
    spec["rollout"]["analysis"]["minRequests"] = json!(10);
    deployment.to_string()
}

async fn until(space: &Space, seconds: u64, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    space
        .until("ModelDeployment", "churn", seconds, what, wanted)
        .await
}

#[tokio::test]
async fn drifting_traffic_retrains_once_and_the_new_version_is_promoted_under_it() {
    // Minutes are waited for here, so it begins with the others and minds neither a restart of the operator nor other settings.
    let _light = installation::whatever_happens().await;
    let space = Space::enter(installation::LOOP).await;
    rollout::tables(&space).await;
    for object in [training("churn-a", "churn"), evaluation(), watched()] {
        space.apply(&object).await;
    }
    let first = version(&space, "churn-a").await;
    space
        .until_condition("ModelDeployment", "churn", 180, "Ready", "True")
        .await;
    let address = caller::address(&space, "churn").await;
    let callers = Callers::start(
        &format!("{address}/v2/models/churn/infer"),
        &dearer_customers(),
        6,
    );

    // One of three columns drifts, the trigger fires, and one run is made.
    let fired = until(&space, 300, "the trigger has fired", |d| {
        d["status"]["retraining"]["firing"] == 1
    })
    .await;
    let (_, _, message) = condition(&fired, "DriftDetected");
    assert_eq!(fired["status"]["driftSummary"], "1/3", "{message}");
    let drifted: Vec<&Value> = fired["status"]["drift"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|column| column["drifted"] == true && column["prediction"] != true)
        .map(|column| &column["column"])
        .collect();
    assert_eq!(drifted, ["charge"], "{}", fired["status"]["drift"]);
    let shown = space.perennial(&["status", "churn"]).await.unwrap();
    for word in [
        "drift 1/3",
        "✖ charge",
        "✔ months",
        "✔ contract",
        "trigger inputs-drifted",
    ] {
        assert!(shown.contains(word), "`{word}` isn't in:\n{shown}");
    }
    let shown = space.perennial(&["drift", "churn"]).await.unwrap();
    for word in [
        "drift 1/3",
        "COLUMN",
        "✖  charge",
        "Wasserstein",
        "JensenShannon",
    ] {
        assert!(shown.contains(word), "`{word}` isn't in:\n{shown}");
    }
    // What was predicted meanwhile is what later predictions are compared with.
    space
        .until(
            "ConfigMap",
            "churn-predictions",
            60,
            "predictions are kept",
            |kept| kept["binaryData"].is_object() || kept["data"].is_object(),
        )
        .await;
    let run = &fired["status"]["retraining"]["runs"][0];
    let job = run["job"].as_str().unwrap().to_owned();
    let second = version(&space, &job).await;
    let made = space.read("TrainingJob", &job).await.unwrap();
    let because = made["metadata"]["annotations"]["perennial.dev/fired-because"]
        .as_str()
        .unwrap();
    assert!(
        because.contains("charge") && because.contains("0.25"),
        "{because}"
    );
    assert_eq!(
        made["spec"]["datasets"][0]["uri"],
        "pvc://data/churn-dear.parquet"
    );
    assert!(
        made["metadata"]["ownerReferences"].is_null(),
        "lineage outlives the release"
    );

    // Its version passes the gates and the canary, and what came of the firing is recorded.
    let promoted = until(
        &space,
        240,
        "the retrained version is stable and all is quiet",
        |d| {
            d["status"]["rollout"]["state"] == "Idle"
                && d["status"]["retraining"]["runs"][0]["result"] == "Promoted"
        },
    )
    .await;
    assert_eq!(promoted["status"]["stable"]["version"], second.as_str());
    assert_eq!(
        history(&promoted),
        [
            (first, "Promoted".to_owned()),
            (second.clone(), "Promoted".to_owned())
        ]
    );
    let evaluated = space.read("Evaluation", "churn-quality").await.unwrap();
    assert_eq!(
        evaluated["status"]["runs"].as_array().unwrap().len(),
        2,
        "one run for each version: {}",
        evaluated["status"]
    );
    let shown = space.perennial(&["eval", "churn-quality"]).await.unwrap();
    for word in [
        "Passed",
        "✔ rocAuc min 0.6",
        "1500 rows",
        "metrics",
        &second,
    ] {
        assert!(shown.contains(word), "`{word}` isn't in:\n{shown}");
    }
    let digest = made["status"]["datasets"][0]["digest"].as_str().unwrap();
    let shown = space.perennial(&["lineage", "churn"]).await.unwrap();
    for word in [digest, &job, "churn-dear.parquet  3000 rows"] {
        assert!(shown.contains(word), "`{word}` isn't in:\n{shown}");
    }
    let jobs = space.list("TrainingJob", "").await;
    assert_eq!(jobs.len(), 2, "the first run and one retraining");
    assert_eq!(promoted["status"]["retraining"]["firing"], 1);
    let seen = callers.stop().await;
    assert_eq!(seen.failed, 0, "callers don't notice: {seen:?}");
    assert_eq!(seen.by_revision.len(), 2, "{seen:?}");
}
