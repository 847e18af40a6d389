//! Evaluators that are images, as users write them: on real pods, beside a rollout.

use serde_json::{Value, json};

use crate::{
    installation, rollout,
    space::{Space, condition},
};

const SCRIPT: &str = include_str!("evaluator.py");

/// An evaluator of the trainer's image.
fn container(command: &[&str], more: &Value) -> Value {
    let mut one =
        json!({"name": "evaluator", "image": "registry.example/churn:1", "command": command});
    if let (Some(one), Some(more)) = (one.as_object_mut(), more.as_object()) {
        one.extend(more.clone());
    }
    json!({"container": {"template": {"spec": {"containers": [one]}}, "results": {"path": "results.json", "format": "Json"}}})
}

/// What a version must pass, by the users' own script.
fn quality() -> String {
    let mount = json!({"volumeMounts": [{"name": "script", "mountPath": "/script"}]});
    let mut evaluator = container(&["python3", "/script/evaluator.py"], &mount);
    evaluator["container"]["template"]["spec"]["volumes"] =
        json!([{"name": "script", "configMap": {"name": "script"}}]);
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "churn-quality"}, "spec": {
        "target": {"modelDeployment": {"name": "churn"}},
        "dataset": {"uri": "pvc://data/churn-holdout.parquet"},
        "evaluators": [evaluator],
        "gates": [{"metric": "rocAuc", "min": 0.6, "minSamples": 1000}, {"metric": "accuracy", "minDifference": -0.05}],
    }})
    .to_string()
}

#[tokio::test]
async fn a_users_own_evaluator_lets_a_good_version_through_and_refuses_one_that_learnt_nothing() {
    let _peace = installation::in_peace().await;
    let space = Space::new("containers").await;
    rollout::tables(&space).await;
    let script = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "script"}, "data": {"evaluator.py": SCRIPT}});
    for object in [
        script.to_string(),
        rollout::training("churn-a", "churn"),
        quality(),
        rollout::deployment("").to_string(),
    ] {
        space.apply(&object).await;
    }
    let healthy = space
        .until_condition("ModelDeployment", "churn", 300, "Ready", "True")
        .await;
    let evaluation = space.read("Evaluation", "churn-quality").await.unwrap();
    let run = &evaluation["status"]["lastRun"];
    assert_eq!(run["verdict"], "Passed", "{run}");
    assert_eq!(run["gates"][0]["samples"], 1500, "{run}");
    assert!(
        run["datasetDigest"]
            .as_str()
            .is_some_and(|d| d.starts_with("sha256:")),
        "{run}"
    );
    let before = healthy["status"]["history"].as_array().map_or(0, Vec::len);

    space
        .apply(&rollout::training("churn-swapped", "churn-swapped"))
        .await;
    let refused = space
        .until(
            "ModelDeployment",
            "churn",
            240,
            "the second version's rollout has ended",
            |d| {
                let history = d["status"]["history"].as_array();
                history.is_some_and(|h| h.len() > before)
            },
        )
        .await;
    let entry = refused["status"]["history"].as_array().unwrap().last();
    let entry = entry.unwrap();
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("EvaluationFailed")),
        "{entry}"
    );
    let evaluation = space.read("Evaluation", "churn-quality").await.unwrap();
    let runs = evaluation["status"]["runs"].as_array().unwrap();
    let failed = runs.iter().find(|run| run["verdict"] == "Failed").unwrap();
    assert!(
        failed["gates"][1]["stable"].is_number(),
        "it was compared with stable: {failed}"
    );
    assert_eq!(condition(&evaluation, "Ready").0, "True");

    // What the trainers said of their versions.
    for (name, verdict) in [("churn-a", "Passed"), ("churn-swapped", "Failed")] {
        let said = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": format!("{name}-said")}, "spec": {
            "target": {"trainingJob": {"name": name}}, "gates": [{"metric": "rocAuc", "min": 0.65}],
        }});
        space.apply(&said.to_string()).await;
        space
            .until(
                "Evaluation",
                &format!("{name}-said"),
                60,
                "it is judged",
                |e| e["status"]["verdict"] == verdict,
            )
            .await;
    }
}

#[tokio::test]
async fn an_evaluator_that_crashes_leaves_nothing_or_is_killed_is_an_error_in_words() {
    let _peace = installation::in_peace().await;
    let space = Space::new("containers-bad").await;
    space.volume("data", &[("rows.csv", "a\n1\n2\n")]).await;
    let eats = "x = []\nwhile True: x.append(bytearray(b'x' * 1_000_000))";
    let limit = json!({"resources": {"limits": {"memory": "64Mi"}}});
    let cases = [
        (
            "crashes",
            container(&["sh", "-c", "echo no such model >&2; exit 3"], &json!({})),
            "EvaluatorFailed: evaluators[0].container ended with exit code 3: no such model",
        ),
        (
            "leaves-nothing",
            container(&["true"], &json!({})),
            "ResultsMissing: evaluators[0].container: it ended well and left no file results.json",
        ),
        (
            "leaves-nonsense",
            container(
                &[
                    "sh",
                    "-c",
                    "echo '{\"metrics\": {\"x\": \"good\"}}' > $PERENNIAL_OUTPUT_DIR/results.json",
                ],
                &json!({}),
            ),
            "ResultsUnreadable: evaluators[0].container: results.json: the field `metrics.x` is a text",
        ),
        (
            "eats",
            container(&["python3", "-c", eats], &limit),
            "container evaluator-0: OOMKilled, exit code 137",
        ),
    ];
    for (name, evaluator, _) in &cases {
        let object = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": name}, "spec": {
            "target": {"predictions": {"uri": "pvc://data/rows.csv"}}, "evaluators": [evaluator], "gates": [{"metric": "x", "min": 0.5}],
        }});
        space.apply(&object.to_string()).await;
    }
    for (name, _, message) in &cases {
        let ended = space
            .until("Evaluation", name, 180, "it says what is wrong", |e| {
                e["status"]["verdict"] == "Error"
            })
            .await;
        let said = ended["status"]["lastRun"]["message"].as_str();
        assert!(
            said.is_some_and(|s| s.contains(message)),
            "{name}: {said:?}"
        );
    }
}
