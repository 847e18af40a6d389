//! ConfigMaps that a server's template names: editing one is a rollout, a missing one is said, and going back brings the old one back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    bad_input::ready,
    harness::{Place, eventually, faults::Faults, nodes::Nodes, on_cluster, operator::Operator},
};

const API: &str = "perennial.dev/v1alpha1";

/// A release whose server reads ConfigMap `settings`; each rollout is over after a few seconds.
fn release(place: &Place) -> Value {
    let container = json!({
        "name": "server", "image": "registry.example/server:1",
        "env": [{"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}],
    });
    json!({
        "apiVersion": API, "kind": "ModelDeployment", "metadata": {"name": "m", "namespace": place.namespace},
        "spec": {
            "model": {"uri": "s3://models/m", "digest": format!("sha256:{}", "0".repeat(64))},
            "server": {"template": {"spec": {"containers": [container]}}},
            "rollout": {"steps": [], "bake": "1s", "analysis": {"interval": "1s", "gates": []}},
        },
    })
}

fn settings(place: &Place, level: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": place.namespace}, "data": {"level": level}})
}

/// The hash of stable, once nothing is being rolled out and it isn't this one.
async fn stable_after(place: &Place, before: &str) -> String {
    eventually("another revision is stable", || async {
        let release = place.get(API, "ModelDeployment", "m").await?;
        let stable = release.pointer("/status/stable/revision")?.as_str()?;
        let idle = release.pointer("/status/rollout/state")? == "Idle";
        (idle && stable != before).then(|| stable.to_owned())
    })
    .await
}

/// What the pods of a revision read.
async fn level(place: &Place, hash: &str) -> Option<Value> {
    let server = place
        .get("apps/v1", "Deployment", &format!("m-{hash}"))
        .await?;
    let copy = "/spec/template/spec/containers/0/env/0/valueFrom/configMapKeyRef/name";
    let copy = server.pointer(copy)?.as_str()?;
    let copy = place.get("v1", "ConfigMap", copy).await?;
    assert_eq!(copy["immutable"], true);
    Some(copy["data"]["level"].clone())
}

async fn is_ready(place: &Place, reason: &str) -> String {
    eventually(&format!("Ready says {reason}"), || async {
        let ready = ready(place, "ModelDeployment", "m").await?;
        (ready["reason"] == reason)
            .then(|| ready["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

#[test]
fn editing_one_is_a_rollout_and_going_back_brings_back_what_it_held() {
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = Operator::new(&place, Faults::none()).await;
        let operator = operator.with_all().start().await;
        place.create(&release(&place)).await.unwrap();
        let message = is_ready(&place, "ConfigMapMissing").await;
        assert!(
            message.starts_with(
                "ConfigMap settings, which spec.server.template names, is not there: create it"
            ),
            "{message}"
        );
        place.create(&settings(&place, "1")).await.unwrap();
        let first = stable_after(&place, "").await;
        assert_eq!(level(&place, &first).await, Some(json!("1")));

        let edit = json!({"data": {"level": "2"}});
        place
            .patch("v1", "ConfigMap", "settings", edit)
            .await
            .unwrap();
        let second = stable_after(&place, &first).await;
        assert_eq!(level(&place, &second).await, Some(json!("2")));

        let back = json!({"metadata": {"annotations": {"perennial.dev/rollback-to": format!("{first}/1")}}});
        place
            .patch(API, "ModelDeployment", "m", back)
            .await
            .unwrap();
        assert_eq!(stable_after(&place, &second).await, first);
        assert_eq!(level(&place, &first).await, Some(json!("1")));

        let maps = place.api("v1", "ConfigMap");
        maps.delete("settings", &Default::default()).await.unwrap();
        is_ready(&place, "ConfigMapMissing").await;
        eventually("an Event says so", || async {
            let events = place.list("events.k8s.io/v1", "Event").await?;
            events
                .iter()
                .any(|e| e.data["reason"] == "ConfigMapMissing")
                .then_some(())
        })
        .await;
        assert_eq!(
            level(&place, &first).await,
            Some(json!("1")),
            "stable goes on from its copy"
        );
        place.create(&settings(&place, "1")).await.unwrap();
        // All that is left to say: the gateway of these nodes is at a loopback address, which no EndpointSlice may have.
        is_ready(&place, "ServiceUnreachable").await;
        operator.quiet(Duration::from_secs(3)).await;
        operator.kill().await;
    });
}
