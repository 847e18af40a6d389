//! What stands around a server, with real pods: warm-up, autoscalers, the way in from outside.

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers},
    installation, peer,
    space::{Space, claim_of, condition, fill_job},
    words,
};

const STEPS: &str = r#"{"steps": [{"setWeight": 50}, {"pause": {"duration": "3s"}}], "bake": "3s", "analysis": {"interval": "2s", "minRequests": 0, "gates": []}}"#;

/// A release of an artifact that is there already: nothing is trained.
fn deployment() -> Value {
    let mut deployment = words::deployment(serde_json::from_str(STEPS).unwrap());
    deployment["spec"]["model"] = json!({"uri": "pvc://models/m"});
    deployment
}

/// The artifact, and the deployment that serves it: gives the deployment, Ready.
async fn served(space: &Space, deployment: &Value) -> Value {
    let fill = fill_job(
        "models",
        words::BUSYBOX,
        &["sh", "-c", "mkdir -p /to/m && echo words > /to/m/words"],
    );
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [claim_of("models"), fill]});
    space.apply(&list.to_string()).await;
    space.until_complete("fill-models", 120).await;
    space.apply(&deployment.to_string()).await;
    space
        .until_condition("ModelDeployment", "words", 120, "Ready", "True")
        .await
}

#[tokio::test]
async fn a_server_is_warmed_up_before_its_pod_is_ready_and_a_refused_warm_up_is_told_in_its_words()
{
    let _peace = installation::in_peace().await;
    let space = Space::new("warm").await;
    let mut deployment = deployment();
    deployment["spec"]["server"]["minReadySeconds"] = json!(2);
    deployment["spec"]["server"]["warmUp"] = json!({"requests": [{"path": "/words"}], "rounds": 3});
    let release = served(&space, &deployment).await;
    let stable = words::revision(&release, "stable");
    let server = space
        .read("Deployment", &format!("words-{stable}"))
        .await
        .unwrap();
    assert_eq!(server["spec"]["minReadySeconds"], 2);
    let pods = space
        .list("Pod", &format!("perennial.dev/revision={stable}"))
        .await;
    let beside = |pod: &Value| {
        let containers = pod["status"]["initContainerStatuses"].as_array().cloned();
        let mut containers = containers.into_iter().flatten();
        containers.any(|c| c["name"] == "perennial-warm-up" && c["ready"] == true)
    };
    assert!(pods.iter().all(beside), "{pods:?}");

    // A candidate whose warm-up is a mistake gets nobody, and says why.
    deployment["spec"]["server"]["warmUp"] = json!({"requests": [{"path": "/nothing"}]});
    space.apply(&deployment.to_string()).await;
    let said = space
        .until(
            "ModelDeployment",
            "words",
            120,
            "the warm-up is refused",
            |d| {
                let message = d["status"]["candidate"]["message"].as_str();
                message.is_some_and(|m| {
                    m.contains("server.warmUp: request 1 (/nothing) was answered with 404")
                })
            },
        )
        .await;
    assert_eq!(said["status"]["rollout"]["weight"], 0);
    assert_eq!(condition(&said, "Available").0, "True");
}

#[tokio::test]
async fn autoscaling_and_a_route_come_and_go_without_a_rollout() {
    let _peace = installation::in_peace().await;
    let space = Space::new("scaled").await;
    space
        .kubectl(
            &["apply", "--server-side", "-f", "-"],
            &peer::cached("gateway-api", "httproutes"),
        )
        .await
        .unwrap();
    let mut deployment = deployment();
    deployment["spec"]["autoscaling"] = json!({"minReplicas": 2, "maxReplicas": 4});
    deployment["spec"]["route"] =
        json!({"parentRefs": [{"name": "web"}], "hostnames": ["words.example"]});
    let release = served(&space, &deployment).await;
    let stable = format!("words-{}", words::revision(&release, "stable"));
    space
        .until("Deployment", &stable, 60, "two pods are available", |d| {
            d["status"]["availableReplicas"] == 2
        })
        .await;
    let autoscaler = space
        .read("HorizontalPodAutoscaler", &stable)
        .await
        .unwrap();
    assert_eq!(autoscaler["spec"]["maxReplicas"], 4);
    let route = space
        .until("HTTPRoute", "words", 60, "it is there", |_| true)
        .await;
    assert_eq!(route["spec"]["rules"][0]["backendRefs"][0]["name"], "words");
    // Its number is its own.
    space
        .kubectl(&["scale", "deployment", &stable, "--replicas=3"], "")
        .await
        .unwrap();
    space
        .until(
            "ModelDeployment",
            "words",
            60,
            "stable has three pods",
            |d| d["status"]["stable"]["availableReplicas"] == 3,
        )
        .await;
    deployment["spec"]
        .as_object_mut()
        .unwrap()
        .remove("autoscaling");
    deployment["spec"].as_object_mut().unwrap().remove("route");
    deployment["spec"]["replicas"] = json!(1);
    space.apply(&deployment.to_string()).await;
    space
        .until_gone("HorizontalPodAutoscaler", &stable, 60)
        .await;
    space.until_gone("HTTPRoute", "words", 60).await;
    let settled = space
        .until("ModelDeployment", "words", 60, "there is one pod", |d| {
            d["status"]["replicas"] == 1 && condition(d, "Routed").1 == "NoRoute"
        })
        .await;
    assert_eq!(words::history(&settled).len(), 1, "no rollout");
}

/// What autoscalers read is measured.
async fn metrics_server(space: &Space) {
    let manifest = installation::root().join("hack/cluster/etc/metrics-server.yaml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let system = Space::at(&space.client, "kube-system");
    system.apply(&manifest).await;
    system
        .until_condition("Deployment", "metrics-server", 120, "Available", "True")
        .await;
}

#[tokio::test]
async fn load_scales_stable_up_and_a_rollout_goes_through_meanwhile_without_a_lost_request() {
    let _peace = installation::in_peace().await;
    let space = Space::new("loaded").await;
    metrics_server(&space).await;
    let mut deployment = deployment();
    let spec = &mut deployment["spec"];
    let container = &mut spec["server"]["template"]["spec"]["containers"][0];
    container["resources"] = json!({"requests": {"cpu": "20m"}});
    spec["autoscaling"] = json!({
        "minReplicas": 1, "maxReplicas": 4,
        "metrics": [{"type": "ContainerResource", "containerResource": {"container": "server", "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}],
    });
    let release = served(&space, &deployment).await;
    let stable = words::revision(&release, "stable");
    let address = caller::address(&space, "words").await;
    let callers = Callers::start(&format!("{address}/words"), &Value::Null, 100);
    space
        .until(
            "ModelDeployment",
            "words",
            240,
            "load has scaled stable up",
            |d| {
                d["status"]["stable"]["availableReplicas"].as_i64() >= Some(2)
                    && condition(d, "Autoscaled").0 == "True"
            },
        )
        .await;
    deployment["spec"]["server"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "N", "value": "2"}]);
    space.apply(&deployment.to_string()).await;
    let promoted = space
        .until(
            "ModelDeployment",
            "words",
            240,
            "the candidate is stable",
            |d| words::history(d).len() == 2 && d["status"]["rollout"]["state"] == "Idle",
        )
        .await;
    assert_ne!(words::revision(&promoted, "stable"), stable);
    assert_eq!(words::history(&promoted)[1].1, "Promoted");
    assert!(
        promoted["status"]["stable"]["replicas"].as_i64() >= Some(2),
        "it has as many as stable had: {}",
        promoted["status"]["stable"]
    );
    let seen = callers.stop().await;
    assert_eq!(seen.failed, 0, "{seen:?}");
    assert_eq!(seen.by_revision.len(), 2, "{seen:?}");
}

/// Waits until the spec asks for so many pods and all of them can answer.
async fn sized(space: &Space, pods: i64) {
    let what = format!("there are {pods} pods, as asked for");
    let done = |d: &Value| {
        d["spec"]["replicas"] == pods && d["status"]["stable"]["availableReplicas"] == pods
    };
    space
        .until("ModelDeployment", "words", 240, &what, done)
        .await;
}

/// What KEDA makes of a ScaledObject, too.
#[tokio::test]
async fn a_users_own_autoscaler_sizes_the_release_through_a_rollout_and_nobody_fights_it() {
    let _peace = installation::in_peace().await;
    let space = Space::new("own-scaler").await;
    metrics_server(&space).await;
    let mut deployment = deployment();
    let container = "/spec/server/template/spec/containers/0";
    let container = deployment.pointer_mut(container).unwrap();
    container["resources"] = json!({"requests": {"cpu": "20m"}});
    served(&space, &deployment).await;
    // Written once, and no part of what is applied.
    let patch = ["patch", "modeldeployment", "words", "--type=merge"];
    let once = [&patch[..], &["--patch", r#"{"spec": {"replicas": 1}}"#]].concat();
    space.kubectl(&once, "").await.unwrap();
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "own"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "name": "words"},
            "minReplicas": 2, "maxReplicas": 3,
            "metrics": [{"type": "ContainerResource", "containerResource": {"container": "server", "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 20}}}],
        },
    });
    space.apply(&autoscaler.to_string()).await;
    sized(&space, 2).await;

    let address = caller::address(&space, "words").await;
    let callers = Callers::start(&format!("{address}/words"), &Value::Null, 100);
    sized(&space, 3).await;
    deployment["spec"]["server"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "N", "value": "2"}]);
    space.apply(&deployment.to_string()).await;
    let promoted = space
        .until(
            "ModelDeployment",
            "words",
            240,
            "the candidate is stable",
            |d| words::history(d).len() == 2 && d["status"]["rollout"]["state"] == "Idle",
        )
        .await;
    assert_eq!(words::history(&promoted)[1].1, "Promoted");
    let seen = callers.stop().await;
    assert_eq!(seen.failed, 0, "{seen:?}");
    assert_eq!(seen.by_revision.len(), 2, "{seen:?}");
    sized(&space, 3).await;
    // A generation for each change of the spec: made, the first number, the autoscaler's two, the other revision.
    let now = space.read("ModelDeployment", "words").await.unwrap();
    assert_eq!(now["metadata"]["generation"], 5, "{}", now["metadata"]);
}
