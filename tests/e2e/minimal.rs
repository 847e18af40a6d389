//! docs/examples/minimal.yaml, as it is.

use kube::Client;
use serde_json::json;

use crate::{
    caller,
    installation::{self, root},
    rollout,
    space::{Space, condition},
};

/// The stand-in for a language model, of the quickstart, as Service `llm` on port 8000.
pub fn stand_in() -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llm"}, "spec": {"selector": {"app": "llm"}, "ports": [{"port": 8000}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llm"}, "spec": {
            "selector": {"matchLabels": {"app": "llm"}},
            "template": {"metadata": {"labels": {"app": "llm"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "stand-in", "image": installation::quickstart_image(), "command": ["python3", "/app/llm.py"],
                // A busy machine must not take the only backend away: its callers would fail, and no release could help it.
                "resources": {"requests": {"cpu": "100m"}},
                "startupProbe": {"httpGet": {"path": "/healthz", "port": 8000}, "periodSeconds": 1, "failureThreshold": 90},
            }]}},
        }},
    ]})
    .to_string()
}

#[tokio::test]
async fn minimal_yaml_applies_as_it_is_and_becomes_ready() {
    let _peace = installation::in_peace().await;
    let space = Space::new("minimal").await;
    let client: Client = space.client.clone();
    let models = Space::named(client, "models".to_owned()).await;
    models.apply(&stand_in()).await;
    rollout::tables(&space).await;

    let example = std::fs::read_to_string(root().join("docs/examples/minimal.yaml")).unwrap();
    space.apply(&example).await;
    let job = space
        .until_condition("TrainingJob", "churn-1", 120, "Ready", "True")
        .await;
    let version = job["status"]["model"]["version"].as_str().unwrap();
    assert_eq!(job["status"]["phase"], "Succeeded");
    assert_eq!(job["status"]["datasets"][0]["rows"], 3000);
    assert!(
        job["status"]["model"]["profile"].is_string(),
        "its data is profiled"
    );

    let ready = |kind, name| space.until_condition(kind, name, 180, "Ready", "True");
    let (deployment, prompt) = tokio::join!(
        ready("ModelDeployment", "churn"),
        ready("PromptRelease", "greet")
    );
    assert_eq!(deployment["status"]["stable"]["version"], version);
    assert_eq!(condition(&prompt, "Available").0, "True");
    let evaluation = space
        .until(
            "Evaluation",
            "churn-quality",
            120,
            "its verdict is Passed",
            |e| e["status"]["verdict"] == "Passed",
        )
        .await;
    assert_eq!(condition(&evaluation, "Ready").0, "True");
    assert_eq!(evaluation["status"]["lastRun"]["rows"], 1500);

    // What users would do next: ask them.
    let http = caller::http();
    let model = caller::address(&space, "churn").await;
    let (status, revision, body) = caller::ask(
        &http,
        &format!("{model}/v2/models/churn/infer"),
        Some("somebody"),
        &rollout::customer(),
    )
    .await
    .unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    assert_eq!(deployment["status"]["stable"]["revision"], revision);
    let greet = caller::address(&space, "greet").await;
    let question =
        json!({"model": "greet", "prompt": {"id": "greet", "variables": {"name": "Ada"}}});
    let (status, _, body) = caller::ask(
        &http,
        &format!("{greet}/v1/chat/completions"),
        None,
        &question,
    )
    .await
    .unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("Greet Ada in one line."), "{body}");
}
