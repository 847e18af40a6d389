//! `s3://` against a real S3 server.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use serde_json::json;

use crate::{caller, installation, space::Space};

const USER: &str = "perennial-tests";
const PASSWORD: &str = "not-a-secret-000";

/// The server, with the bucket `models`.
fn server() -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s3"}, "spec": {"selector": {"app": "s3"}, "ports": [{"port": 7070}]}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": {
            "AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://s3:7070",
        }},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "s3"}, "spec": {
            "selector": {"matchLabels": {"app": "s3"}},
            "template": {"metadata": {"labels": {"app": "s3"}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
                "initContainers": [{"name": "bucket", "image": "docker.io/perennial/busybox:1", "command": ["mkdir", "/data/models"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "containers": [{"name": "server", "image": "docker.io/perennial/s3:1", "args": ["posix", "/data"],
                    "env": [{"name": "ROOT_ACCESS_KEY", "value": USER}, {"name": "ROOT_SECRET_KEY", "value": PASSWORD}],
                    "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "volumes": [{"name": "data", "emptyDir": {}}],
            }},
        }},
    ]})
    .to_string()
}

/// Starts the server, with a data set of two rows.
pub async fn store(space: &Space) -> AmazonS3 {
    space.apply(&server()).await;
    space
        .until("Deployment", "s3", 60, "it is available", |d| {
            d["status"]["availableReplicas"] == 1
        })
        .await;
    let store = AmazonS3Builder::new()
        .with_endpoint(caller::address(space, "s3").await)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("models")
        .with_access_key_id(USER)
        .with_secret_access_key(PASSWORD)
        .build()
        .unwrap();
    let words = "word,times\nhello,3\nworld,4\n";
    put(&store, "data/words.csv", words).await;
    store
}

/// Puts an object into the bucket.
pub async fn put(store: &AmazonS3, key: &str, text: &'static str) {
    store.put(&Path::from(key), text.into()).await.unwrap();
}

#[tokio::test]
async fn a_model_is_trained_from_s3_published_to_s3_and_served_from_there() {
    let _peace = installation::in_peace().await;
    let space = Space::new("s3").await;
    let store = store(&space).await;

    let credentials = json!({"secretName": "s3"});
    let script = "cat /perennial/inputs/train/words.csv > $PERENNIAL_OUTPUT_DIR/words; echo '{\"loss\": 0.5}' > $PERENNIAL_OUTPUT_DIR/metrics.json";
    let training = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "words"}, "spec": {
        "model": {"name": "words", "output": "s3://models/words", "credentials": credentials},
        "datasets": [{"name": "train", "uri": "s3://models/data/words.csv", "credentials": credentials}],
        "template": {"spec": {"containers": [{"name": "trainer", "image": "docker.io/perennial/busybox:1", "command": ["sh", "-c", script]}]}},
    }});
    space.apply(&training.to_string()).await;
    let job = space
        .until_condition("TrainingJob", "words", 90, "Complete", "True")
        .await;
    assert_eq!(job["status"]["datasets"][0]["rows"], 2);
    let model = &job["status"]["model"];
    let version = model["version"].as_str().unwrap();
    assert_eq!(model["uri"], format!("s3://models/words/{version}"));
    let manifest = store
        .get(&Path::from(format!("words/{version}/manifest.json")))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["model"]["digest"], model["digest"]);

    let deployment = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "words"}, "spec": {
        "server": {"protocol": "HTTP", "template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "server", "image": "docker.io/perennial/busybox:1", "command": ["httpd", "-f", "-p", "8080", "-h", "/mnt/model"],
            "readinessProbe": {"httpGet": {"path": "/words", "port": 8080}, "periodSeconds": 1},
        }]}}},
    }});
    space.apply(&deployment.to_string()).await;
    space
        .until_condition("ModelDeployment", "words", 90, "Ready", "True")
        .await;
    let address = caller::address(&space, "words").await;
    let (status, _, body) = caller::ask(
        &caller::http(),
        &format!("{address}/words"),
        None,
        &serde_json::Value::Null,
    )
    .await
    .unwrap();
    assert_eq!(
        (status, body.as_ref()),
        (200, b"word,times\nhello,3\nworld,4\n".as_slice())
    );
}

/// A TrainingJob of the model `words` on this data set.
fn training(name: &str, uri: &str, publish: &str) -> serde_json::Value {
    let credentials = json!({"secretName": "s3"});
    let script = "echo words > $PERENNIAL_OUTPUT_DIR/words";
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": {
        "model": {"name": "words", "output": "s3://models/words", "credentials": credentials}, "publish": publish,
        "datasets": [{"name": "train", "uri": uri, "credentials": credentials, "features": ["times"]}],
        "template": {"spec": {"containers": [{"name": "trainer", "image": "docker.io/perennial/busybox:1", "command": ["sh", "-c", script]}]}},
    }})
}

#[tokio::test]
async fn what_callers_ask_is_logged_to_s3_and_trained_on() {
    let _peace = installation::in_peace().await;
    let space = Space::new("payload-log").await;
    let store = store(&space).await;
    let first = training("first", "s3://models/data/words.csv", "Candidate");
    space.apply(&first.to_string()).await;
    space
        .until_condition("TrainingJob", "first", 90, "Complete", "True")
        .await;

    let answer = r#"{\"outputs\": [{\"name\": \"y\", \"datatype\": \"FP64\", \"shape\": [1], \"data\": [0.5]}]}"#;
    let script = format!(
        "mkdir -p /www/cgi-bin && echo ok > /www/words && printf '%s\\n' '#!/bin/sh' 'echo Content-Type: application/json; echo; echo \"{answer}\"' > /www/cgi-bin/infer \
         && chmod +x /www/cgi-bin/infer && exec httpd -f -p 8080 -h /www"
    );
    let log = |secret: &str| {
        json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "words"}, "spec": {
            "monitoring": {"payloadLog": {"uri": "s3://models/log", "credentials": {"secretName": secret}, "rotate": {"every": "1s"}}},
            "server": {"template": {"spec": {"terminationGracePeriodSeconds": 1, "volumes": [{"name": "www", "emptyDir": {}}], "containers": [{
                "name": "server", "image": "docker.io/perennial/busybox:1", "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "www", "mountPath": "/www"}],
                "readinessProbe": {"httpGet": {"path": "/words", "port": 8080}, "periodSeconds": 1},
            }]}}},
        }})
    };
    // A Secret that isn't there keeps nobody from being served.
    space.apply(&log("elsewhere").to_string()).await;
    space
        .until_condition("ModelDeployment", "words", 120, "Ready", "True")
        .await;
    space
        .until(
            "ModelDeployment",
            "words",
            60,
            "the missing Secret is said",
            |d| {
                let conditions = d["status"]["conditions"].as_array();
                let mut all = conditions.into_iter().flatten();
                all.any(|c| c["type"] == "PayloadLogged" && c["reason"] == "CredentialsMissing")
            },
        )
        .await;
    space.apply(&log("s3").to_string()).await;
    space
        .until_condition("ModelDeployment", "words", 120, "PayloadLogged", "True")
        .await;

    let address = caller::address(&space, "words").await;
    let inputs =
        json!({"inputs": [{"name": "times", "shape": [1], "datatype": "FP64", "data": [7]}]});
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let url = format!("{address}/cgi-bin/infer");
        let (status, _, body) = caller::ask(&caller::http(), &url, None, &inputs)
            .await
            .unwrap();
        assert_eq!(status, 200, "{body:?}");
        let found: Vec<_> = store
            .list(Some(&Path::from("log")))
            .try_collect()
            .await
            .unwrap();
        if !found.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing is logged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let again = training("again", "s3://models/log", "None");
    space.apply(&again.to_string()).await;
    let job = space
        .until_condition("TrainingJob", "again", 90, "Complete", "True")
        .await;
    assert!(
        job["status"]["datasets"][0]["rows"].as_i64().unwrap() > 0,
        "{}",
        job["status"]
    );
    assert_eq!(
        job["status"]["model"]["signature"]["features"][0]["type"],
        "Number"
    );
}
