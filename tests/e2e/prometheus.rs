//! Gates on what a real Prometheus says of the gateway's own metrics.

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers},
    installation,
    space::{Space, claim_of, condition, fill_job},
    words,
};

/// Beginning of the namespace where the server is that the operator's configuration names.
pub const NAMESPACE: &str = "prometheus";

/// A Prometheus that scrapes this namespace's gateway each second.
fn server(namespace: &str) -> String {
    let config = json!({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{
            "job_name": "gateway",
            "dns_sd_configs": [{"names": [format!("gateway-metrics.{namespace}.svc.cluster.local")], "type": "A", "port": 9466, "refresh_interval": "1s"}],
            "relabel_configs": [{"target_label": "namespace", "replacement": namespace}],
        }],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gateway-metrics"}, "spec": {
            "clusterIP": "None", "selector": {"perennial.dev/role": "gateway"}, "ports": [{"port": 9466}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "prometheus"}, "spec": {
            "selector": {"app": "prometheus"}, "ports": [{"port": 9090}]}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prometheus"}, "data": {"prometheus.yml": config.to_string()}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "prometheus"}, "spec": {
            "selector": {"matchLabels": {"app": "prometheus"}},
            "template": {"metadata": {"labels": {"app": "prometheus"}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "server", "image": "docker.io/perennial/prometheus:1",
                    "args": ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/data"],
                    "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
                    "securityContext": {"runAsUser": 65532},
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus"}, {"name": "data", "mountPath": "/data"}]}],
                "securityContext": {"fsGroup": 65532},
                "volumes": [{"name": "config", "configMap": {"name": "prometheus"}}, {"name": "data", "emptyDir": {}}],
            }},
        }},
    ]})
    .to_string()
}

const ROLLOUT: &str = r#"{
    "steps": [{"setWeight": 50}, {"pause": {"duration": "10s"}}],
    "analysis": {"interval": "2s", "minRequests": 20, "gates": [{"metric": "failures", "max": 0.2}]},
    "bake": "4s", "progressDeadline": "5m"
}"#;

/// The share of failed requests of the revision in the last seconds.
fn with_metric(mut deployment: Value) -> Value {
    let counter = "perennial_gateway_revision_requests_total";
    let of = |more: &str| {
        format!(
            r#"sum(rate({counter}{{release="{{{{ name }}}}",revision="{{{{ revision }}}}"{more}}}[8s]))"#
        )
    };
    let query = format!("{} / {}", of(r#",outcome="error""#), of(""));
    deployment["spec"]["model"] = json!({"uri": "pvc://models/words"});
    deployment["spec"]["metrics"] =
        json!([{"name": "failures", "prometheus": {"source": "default", "query": query}}]);
    deployment
}

fn next(text: &str) -> Value {
    let mut deployment = with_metric(words::deployment(serde_json::from_str(ROLLOUT).unwrap()));
    deployment["spec"]["server"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "REVISION", "value": text}]);
    deployment
}

/// The last entry of a history of so many.
async fn ended(space: &Space, entries: usize) -> Value {
    let what = "the rollout has ended";
    let release = space
        .until("ModelDeployment", "words", 240, what, |d| {
            d["status"]["rollout"]["state"] == "Idle" && words::history(d).len() == entries
        })
        .await;
    release["status"]["history"][entries - 1].clone()
}

fn gate(release: &Value) -> &Value {
    let gates = release["status"]["rollout"]["gates"].as_array();
    let mut gates = gates.into_iter().flatten();
    gates
        .find(|g| g["metric"] == "failures")
        .unwrap_or(&Value::Null)
}

#[tokio::test]
async fn a_gate_on_a_query_promotes_a_good_version_waits_for_a_server_that_is_down_and_takes_a_bad_version_back()
 {
    let _peace = installation::in_peace().await;
    let space = Space::new(NAMESPACE).await;
    space.apply(&server(&space.name)).await;
    let fill = "mkdir /to/words && echo first > /to/words/words";
    let fill = fill_job("models", words::BUSYBOX, &["sh", "-c", fill]);
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [claim_of("models"), fill]});
    space.apply(&objects.to_string()).await;
    space.until_complete("fill-models", 60).await;
    space.apply(&next("first").to_string()).await;
    space
        .until_condition("ModelDeployment", "words", 120, "Ready", "True")
        .await;
    let url = format!("{}/words", caller::address(&space, "words").await);
    let callers = Callers::start(&url, &Value::Null, 40);
    space
        .until("Deployment", "prometheus", 60, "it is available", |d| {
            d["status"]["availableReplicas"] == 1
        })
        .await;

    // Another namespace's numbers are nobody's business, and who asks for them hears it at once.
    let mut curious = next("first");
    curious["spec"]["metrics"][0]["prometheus"]["query"] =
        json!("sum(up{namespace=\"kube-system\"})");
    space.apply(&curious.to_string()).await;
    let told = space
        .until("ModelDeployment", "words", 60, "it is refused", |d| {
            condition(d, "Ready").1 == "MetricRefused"
        })
        .await;
    let message = condition(&told, "Ready").2;
    assert!(message.contains("may only ask for"), "{message}");

    // A version like the one before.
    space.apply(&next("second").to_string()).await;
    let entry = ended(&space, 2).await;
    assert_eq!(entry["outcome"], "Promoted", "{entry}");
    let release = space.read("ModelDeployment", "words").await.unwrap();
    assert_eq!(gate(&release)["verdict"], "Passed", "{}", gate(&release));
    let message = gate(&release)["message"].as_str().unwrap();
    assert!(message.contains("Prometheus source default"), "{message}");

    // Nobody answers: an error, no step ends; when somebody does, it goes on.
    let scale = async |replicas: u8| {
        let replicas = format!("--replicas={replicas}");
        let arguments = ["scale", "deployment/prometheus", &replicas];
        space.kubectl(&arguments, "").await.unwrap();
    };
    scale(0).await;
    space
        .until("Deployment", "prometheus", 60, "it is gone", |d| {
            d["status"]["replicas"].as_i64().unwrap_or(0) == 0
        })
        .await;
    space.apply(&next("third").to_string()).await;
    let late = space
        .until("ModelDeployment", "words", 120, "the step waits", |d| {
            let message = d["status"]["message"].as_str().unwrap_or_default();
            gate(d)["verdict"] == "Error" && message.contains("waits for data: failures")
        })
        .await;
    assert_eq!(late["status"]["rollout"]["weight"], 50);
    let message = gate(&late)["message"].as_str().unwrap();
    assert!(message.contains("Prometheus source default"), "{message}");
    scale(1).await;
    let entry = ended(&space, 3).await;
    assert_eq!(entry["outcome"], "Promoted", "{entry}");
    assert_eq!(callers.seen().failed, 0, "{:?}", callers.seen().failures);

    // A server that listens nowhere.
    let bad = words::broken_deployment(serde_json::from_str(ROLLOUT).unwrap());
    space.apply(&with_metric(bad).to_string()).await;
    let entry = ended(&space, 4).await;
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("GateFailed")),
        "{entry}"
    );
    let message = entry["message"].as_str().unwrap();
    assert!(message.contains("failures"), "{message}");
    assert!(callers.stop().await.failed > 0);
}
