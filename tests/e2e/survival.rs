//! The operator killed at any moment, also twice, ends where it would have ended; callers don't notice.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::{
    caller::{self, Callers},
    installation,
    space::{Space, claim_of, is},
};

const BUSYBOX: &str = "docker.io/perennial/busybox:1";

fn training(name: &str, words: &str) -> String {
    let script = format!(
        "for step in 1 2 3 4 5; do sleep 1; done; echo {words} > $PERENNIAL_OUTPUT_DIR/words"
    );
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": {
        "model": {"name": "words", "output": "pvc://models/words"},
        "template": {"spec": {"containers": [{"name": "trainer", "image": BUSYBOX, "command": ["sh", "-c", script]}]}},
    }})
    .to_string()
}

fn deployment() -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "words"}, "spec": {
        "server": {"protocol": "HTTP", "template": {"spec": {"terminationGracePeriodSeconds": 5, "containers": [{
            "name": "server", "image": BUSYBOX, "command": ["httpd", "-f", "-p", "8080", "-h", "/mnt/model"],
            "readinessProbe": {"httpGet": {"path": "/words", "port": 8080}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        }]}}},
        "rollout": {
            "steps": [{"setWeight": 25}, {"pause": {"duration": "6s"}}, {"setWeight": 60}, {"pause": {"duration": "6s"}}],
            "analysis": {"interval": "2s", "minRequests": 20, "gates": [{"metric": "errorRate", "max": 0.05}]},
            "bake": "5s",
        },
    }})
    .to_string()
}

/// Kills the operator without warning after a random time of up to so long, and waits until another pod of it is ready.
async fn kill_within(space: &Space, seconds: f64) {
    // A hasher is seeded at random: as good a die as any.
    let share = RandomState::new().hash_one(seconds.to_bits()) as f64 / u64::MAX as f64;
    let delay = Duration::from_secs_f64(share * seconds);
    tokio::time::sleep(delay).await; // the moment is what is tried here
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), installation::NAMESPACE);
    let mut killed = Vec::new();
    for pod in pods.list(&ListParams::default()).await.unwrap().items {
        let name = pod.metadata.name.unwrap_or_default();
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::background()
        };
        pods.delete(&name, &parameters).await.unwrap();
        killed.push(name);
    }
    eprintln!("killed {killed:?} after {delay:?}");
    assert!(!killed.is_empty(), "the operator runs");
}

fn entries(release: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let history = release["status"]["history"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    history
        .iter()
        .map(|entry| (text(&entry["version"]), text(&entry["outcome"])))
        .collect()
}

#[tokio::test]
async fn an_operator_that_is_killed_at_any_moment_ends_where_it_would_have_ended() {
    let _alone = installation::alone().await;
    let space = Space::new("crash").await;
    space.apply(&claim_of("models").to_string()).await;

    // During a training, twice.
    space.apply(&training("words-a", "first")).await;
    space.apply(&deployment()).await;
    kill_within(&space, 3.0).await;
    kill_within(&space, 6.0).await;
    let first = space
        .until_condition("TrainingJob", "words-a", 120, "Complete", "True")
        .await;
    assert_eq!(
        (&first["status"]["attempts"], &first["status"]["failures"]),
        (&json!(1), &json!(0)),
        "{}",
        first["status"]
    );
    assert_eq!(
        space
            .list(
                "Job",
                "perennial.dev/training-job=words-a,perennial.dev/role=trainer"
            )
            .await
            .len(),
        1
    );
    let healthy = space
        .until_condition("ModelDeployment", "words", 120, "Ready", "True")
        .await;
    let version = |job: &Value| {
        job["status"]["model"]["version"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(healthy["status"]["stable"]["version"], version(&first));

    // During a rollout, twice, under the eyes of callers.
    let address = caller::address(&space, "words").await;
    let callers = Callers::start(&format!("{address}/words"), &Value::Null, 40);
    space.apply(&training("words-b", "second")).await;
    space
        .until(
            "ModelDeployment",
            "words",
            120,
            "there is a candidate",
            |d| d["status"]["candidate"].is_object(),
        )
        .await;
    kill_within(&space, 6.0).await;
    space
        .until(
            "ModelDeployment",
            "words",
            120,
            "the candidate has callers",
            |d| d["status"]["rollout"]["weight"].as_i64() > Some(0),
        )
        .await;
    kill_within(&space, 6.0).await;
    let promoted = space
        .until(
            "ModelDeployment",
            "words",
            180,
            "the second version is stable and all is quiet",
            |d| {
                d["status"]["rollout"]["state"] == "Idle"
                    && is(d, "Ready", "True")
                    && d["status"]["candidate"].is_null()
                    && d["status"]["stable"]["version"] != version(&first)
            },
        )
        .await;
    let second = space.read("TrainingJob", "words-b").await.unwrap();
    let promotion = (version(&second), "Promoted".to_owned());
    assert_eq!(
        entries(&promoted)
            .iter()
            .filter(|entry| **entry == promotion)
            .count(),
        1,
        "{:?}",
        entries(&promoted)
    );
    assert_eq!(promoted["status"]["stable"]["version"], version(&second));
    assert_eq!(promoted["status"]["rejectedRevisions"], Value::Null);
    assert_eq!(second["status"]["attempts"], 1);
    assert_eq!(
        space
            .list("ControllerRevision", "perennial.dev/model-deployment=words")
            .await
            .len(),
        2
    );
    let seen = callers.stop().await;
    assert_eq!(seen.failed, 0, "callers don't notice: {seen:?}");
    assert_eq!(seen.by_revision.len(), 2, "{seen:?}");
}
