//! A model that is a file of words, trained by a line of shell and served by busybox: for tests that need real pods and nothing heavy.

use serde_json::{Value, json};

use crate::space::{Space, claim_of};

/// The image of trainer and server.
pub const BUSYBOX: &str = "docker.io/perennial/busybox:1";

/// The spec of a run that takes so many seconds and writes these words.
pub fn recipe(words: &str, seconds: u32) -> Value {
    let script = format!("sleep {seconds}; echo {words} > $PERENNIAL_OUTPUT_DIR/words");
    json!({
        "model": {"name": "words", "output": "pvc://models/words"},
        "template": {"spec": {"containers": [{"name": "trainer", "image": BUSYBOX, "command": ["sh", "-c", script]}]}},
    })
}

/// A run of that recipe.
pub fn training(name: &str, words: &str, seconds: u32) -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": recipe(words, seconds)}).to_string()
}

/// The ModelDeployment `words` with this rollout; clients ask it for `/words`.
pub fn deployment(rollout: Value) -> Value {
    served_by(
        &["httpd", "-f", "-p", "8080", "-h", "/mnt/model"],
        json!({"httpGet": {"path": "/words", "port": 8080}, "periodSeconds": 1}),
        rollout,
    )
}

/// The same with a server that claims to be ready and listens nowhere: nothing but traffic shows that.
pub fn broken_deployment(rollout: Value) -> Value {
    served_by(
        &["sleep", "10000"],
        json!({"exec": {"command": ["true"]}, "periodSeconds": 1}),
        rollout,
    )
}

fn served_by(command: &[&str], ready: Value, rollout: Value) -> Value {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "words"}, "spec": {
        "server": {"protocol": "HTTP", "template": {"spec": {"terminationGracePeriodSeconds": 5, "containers": [{
            "name": "server", "image": BUSYBOX, "command": command, "readinessProbe": ready,
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        }]}}},
        "rollout": rollout,
    }})
}

/// A claim for the models, a first version of the model, and the deployment that serves it: gives the deployment, Ready.
pub async fn served(space: &Space, deployment: &Value) -> Value {
    space.apply(&claim_of("models").to_string()).await;
    space.apply(&training("words-a", "first", 0)).await;
    space.apply(&deployment.to_string()).await;
    space
        .until_condition("TrainingJob", "words-a", 120, "Complete", "True")
        .await;
    space
        .until_condition("ModelDeployment", "words", 120, "Ready", "True")
        .await
}

/// The version that a run made.
pub async fn version(space: &Space, job: &str) -> String {
    let job = space
        .until_condition("TrainingJob", job, 240, "Complete", "True")
        .await;
    job["status"]["model"]["version"]
        .as_str()
        .expect("a version")
        .to_owned()
}

/// Versions and outcomes of the history, oldest first.
pub fn history(release: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = release["status"]["history"].as_array();
    entries
        .into_iter()
        .flatten()
        .map(|entry| (text(&entry["version"]), text(&entry["outcome"])))
        .collect()
}

/// The revision in this place of the status: `stable` or `candidate`.
pub fn revision(release: &Value, role: &str) -> String {
    release["status"][role]["revision"]
        .as_str()
        .unwrap_or_else(|| panic!("there is no {role}: {}", release["status"]))
        .to_owned()
}
