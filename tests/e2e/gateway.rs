//! Callers notice nothing while gateways and servers come and go under them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers},
    installation,
    space::Space,
    words,
};

/// The pods of the namespace's gateway, by name.
async fn gateways(space: &Space) -> Vec<String> {
    let pods = space.list("Pod", "perennial.dev/role=gateway").await;
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    pods.iter().map(name).collect()
}

#[tokio::test]
async fn no_request_is_lost_while_gateways_and_servers_come_and_go() {
    let _peace = installation::in_peace().await;
    let space = Space::new("gateway").await;
    words::served(&space, &words::deployment(json!({"steps": []}))).await;
    let url = format!("{}/words", caller::address(&space, "words").await);
    let callers = Callers::start(&url, &Value::Null, 80);

    // Another gateway takes the place of the one that serves.
    let before = gateways(&space).await;
    let restart = ["rollout", "restart", "deployment/perennial-gateway"];
    space.kubectl(&restart, "").await.unwrap();
    let status = [
        "rollout",
        "status",
        "deployment/perennial-gateway",
        "--timeout=120s",
    ];
    space.kubectl(&status, "").await.unwrap();
    for pod in &before {
        space.until_gone("Pod", pod, 120).await;
    }

    // More servers, and fewer.
    for replicas in [3, 1] {
        let scale = format!("--replicas={replicas}");
        let scale = ["scale", "modeldeployment/words", &scale];
        space.kubectl(&scale, "").await.unwrap();
        let what = "its pods are as many as were asked for";
        let done = |o: &Value| {
            o["status"]["stable"]["availableReplicas"] == replicas
                && o["status"]["replicas"] == replicas
        };
        space
            .until("ModelDeployment", "words", 120, what, done)
            .await;
    }

    // Another revision takes the place of the one that serves, at once.
    let mut next = words::deployment(json!({"steps": [], "bake": "1s"}));
    next["spec"]["server"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "ANOTHER", "value": "revision"}]);
    space.apply(&next.to_string()).await;
    let before = callers.seen().by_revision.len();
    space
        .until(
            "ModelDeployment",
            "words",
            180,
            "the rollout has ended",
            |o| {
                o["status"]["rollout"]["state"] == "Idle"
                    && o["status"]["history"].as_array().map_or(0, Vec::len) == 2
            },
        )
        .await;
    // Its callers see it a moment later.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while callers.seen().by_revision.len() == before {
        assert!(
            tokio::time::Instant::now() < deadline,
            "nobody saw the new revision"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let seen = callers.stop().await;
    assert!(seen.requests > 500, "{seen:?}");
    assert_eq!(seen.failed, 0, "{:?}", seen.failures);
}
