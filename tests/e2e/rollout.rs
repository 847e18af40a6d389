//! The loop, shorter than the quickstart: versions come, are measured, tried on a few callers, promoted or refused.

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers, exposed},
    installation,
    space::{Space, claim_of, condition, fill_job, is},
};

/// A request for one customer, in the Open Inference Protocol.
pub fn customer() -> Value {
    json!({"inputs": [
        {"name": "months", "datatype": "INT64", "shape": [1, 1], "data": [12]},
        {"name": "charge", "datatype": "FP64", "shape": [1, 1], "data": [70.5]},
        {"name": "contract", "datatype": "BYTES", "shape": [1, 1], "data": ["month"]},
    ]})
}

/// A run that trains on one of the tables.
pub fn training(name: &str, table: &str) -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": {
        "model": {"name": "churn", "output": "pvc://models/churn"},
        "datasets": [{"name": "train", "uri": format!("pvc://data/{table}.parquet"), "label": "churned"}],
        "template": {"spec": {"containers": [{"name": "trainer", "image": "registry.example/churn:1", "command": ["python3", "train.py"]}]}},
    }})
    .to_string()
}

/// What a version must pass.
pub fn evaluation() -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "churn-quality"}, "spec": {
        "target": {"modelDeployment": {"name": "churn"}},
        "dataset": {"uri": "pvc://data/churn-holdout.parquet", "label": "churned"},
        "gates": [{"metric": "rocAuc", "min": 0.6}, {"metric": "logLoss", "maxDifference": 0.02}],
    }})
    .to_string()
}

/// The deployment; with a share above 0 its server fails that share of requests that name their caller.
pub fn deployment(broken: &str) -> Value {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "churn"}, "spec": {
        "server": {"template": {"spec": {"terminationGracePeriodSeconds": 10, "containers": [{
            "name": "server", "image": "registry.example/churn-server:1",
            "env": [{"name": "BREAK_ERROR_SHARE", "value": broken}],
            "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 6},
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        }]}}},
        "rollout": {
            "evaluations": ["churn-quality"],
            "steps": [{"setWeight": 20}, {"pause": {"duration": "8s"}}, {"setWeight": 50}, {"pause": {"duration": "8s"}}],
            "analysis": {"interval": "3s", "minRequests": 30, "gates": [{"metric": "errorRate", "max": 0.02}]},
            "bake": "5s", "progressDeadline": "4m",
        },
    }})
}

/// The tables and a claim for models.
pub async fn tables(space: &Space) {
    let fill = fill_job(
        "data",
        "registry.example/churn:1",
        &["python3", "data.py", "/to"],
    );
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [claim_of("data"), claim_of("models"), fill]}).to_string()).await;
    space.until_complete("fill-data", 120).await;
}

/// The newest entry of the history, once it speaks of another revision than those before.
fn ended(release: &Value, before: usize) -> Option<&Value> {
    release["status"]["history"]
        .as_array()
        .filter(|h| h.len() > before)?
        .last()
}

fn entries(release: &Value) -> usize {
    release["status"]["history"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_better_version_is_promoted_and_worse_ones_reach_no_more_callers_than_the_step_exposed() {
    let _peace = installation::in_peace().await;
    let space = Space::new("rollout").await;
    tables(&space).await;

    // The first version has nothing to be compared with: it serves when it is ready and its evaluation passed.
    for object in [
        training("churn-a", "churn"),
        evaluation(),
        deployment("").to_string(),
    ] {
        space.apply(&object).await;
    }
    let first = space
        .until_condition("TrainingJob", "churn-a", 120, "Complete", "True")
        .await;
    let healthy = space
        .until_condition("ModelDeployment", "churn", 180, "Ready", "True")
        .await;
    assert_eq!(
        healthy["status"]["stable"]["version"],
        first["status"]["model"]["version"]
    );
    let uid = healthy["metadata"]["uid"].as_str().unwrap().to_owned();
    let address = caller::address(&space, "churn").await;
    let callers = Callers::start(&format!("{address}/v2/models/churn/infer"), &customer(), 25);

    // The second one goes through the steps under their eyes, and none of them sees a failure.
    let before = entries(&healthy);
    space.apply(&training("churn-b", "churn-more")).await;
    for weight in [20, 50] {
        space
            .until(
                "ModelDeployment",
                "churn",
                180,
                &format!("the candidate has {weight} %"),
                |d| d["status"]["rollout"]["weight"] == weight,
            )
            .await;
    }
    let promoted = space
        .until(
            "ModelDeployment",
            "churn",
            120,
            "the second version's rollout has ended",
            |d| ended(d, before).is_some(),
        )
        .await;
    let second = space.read("TrainingJob", "churn-b").await.unwrap();
    let entry = ended(&promoted, before).unwrap();
    assert_eq!(
        (&entry["outcome"], &entry["version"]),
        (&json!("Promoted"), &second["status"]["model"]["version"]),
        "{entry}"
    );
    let settled = space
        .until(
            "ModelDeployment",
            "churn",
            60,
            "the bake has ended and it is Ready",
            |d| d["status"]["rollout"]["state"] == "Idle" && is(d, "Ready", "True"),
        )
        .await;
    let stable = settled["status"]["stable"]["revision"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(entry["revision"], stable);
    let seen = callers.seen();
    assert_eq!(seen.failed, 0, "{seen:?}");
    assert_eq!(
        seen.by_revision.len(),
        2,
        "both revisions answered: {seen:?}"
    );

    // A version that learnt nothing gets no traffic, and stable still satisfies the spec.
    let before = entries(&settled);
    space
        .apply(&training("churn-swapped", "churn-swapped"))
        .await;
    let refused = space
        .until(
            "ModelDeployment",
            "churn",
            180,
            "the third version's rollout has ended",
            |d| ended(d, before).is_some(),
        )
        .await;
    let entry = ended(&refused, before).unwrap();
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("EvaluationFailed")),
        "{entry}"
    );
    assert!(
        entry["message"].as_str().unwrap().contains("churn-quality"),
        "{entry}"
    );
    let refused = space
        .until_condition("ModelDeployment", "churn", 30, "CandidateRejected", "True")
        .await;
    assert_eq!(condition(&refused, "Ready").0, "True");
    let seen = callers.seen();
    assert_eq!(
        (seen.failed, seen.by_revision.len()),
        (0, 2),
        "it got no traffic: {seen:?}"
    );

    // A server that fails, which only live traffic shows, is taken back; only those whom the step exposed saw it.
    let before = entries(&refused);
    space.apply(&deployment("0.6").to_string()).await;
    let back = space
        .until(
            "ModelDeployment",
            "churn",
            180,
            "the failing server's rollout has ended",
            |d| ended(d, before).is_some(),
        )
        .await;
    let entry = ended(&back, before).unwrap();
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("GateFailed")),
        "{entry}"
    );
    assert!(
        entry["message"].as_str().unwrap().contains("errorRate"),
        "{entry}"
    );
    let revision = entry["revision"].as_str().unwrap();
    let after = callers.seen();
    assert!(
        after.failed > 0,
        "somebody must have seen it fail: {after:?}"
    );
    let stalled = space
        .until_condition("ModelDeployment", "churn", 30, "Stalled", "True")
        .await;
    assert_eq!(
        (
            condition(&stalled, "Ready").0.as_str(),
            condition(&stalled, "Ready").1.as_str()
        ),
        ("False", "RevisionRejected")
    );
    assert_eq!(condition(&stalled, "Available").0, "True");
    assert_eq!(stalled["status"]["phase"], "RolledBack");
    assert_eq!(stalled["status"]["stable"]["revision"], stable);
    // Going back to the good spec is no rollout: it is stable already.
    space.apply(&deployment("").to_string()).await;
    space
        .until_condition("ModelDeployment", "churn", 60, "Ready", "True")
        .await;
    let seen = callers.stop().await;
    assert_eq!(
        seen.failed, after.failed,
        "nobody fails once the rollout has ended: {seen:?}"
    );
    assert!(
        seen.requests > after.requests,
        "stable never stopped answering"
    );
    let others: Vec<_> = seen
        .failed_callers
        .iter()
        .filter(|key| !exposed(&uid, revision, key, 20.0))
        .collect();
    assert!(
        others.is_empty(),
        "callers outside of the canary's 20 % saw failures: {others:?}"
    );
    assert!(
        seen.failures
            .keys()
            .all(|failure| failure.contains(revision)),
        "all failures are the candidate's answers: {seen:?}"
    );
}
