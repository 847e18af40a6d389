//! Pieces of pods that several kinds need: mounts for URIs, credentials, security, and what a pod says is wrong.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Map, Value, json};

use crate::api::{
    Credentials, PodTemplate,
    prompt_release::KeyReference,
    run::{BIN_DIR, PROGRAM, Summary, VOLUME_DIR},
};

/// A `pvc://CLAIM/PATH` taken apart; `None` for other schemes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    /// Name of the PersistentVolumeClaim.
    pub claim: String,
    /// Path below its root, without slashes at the ends; may be empty.
    pub path: String,
}

impl ClaimPath {
    /// Reads a `pvc://` URI.
    pub fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix("pvc://")?;
        let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
        Some(Self {
            claim: claim.to_owned(),
            path: path.trim_matches('/').to_owned(),
        })
    }

    /// The directory that holds what the path names: what is mounted for reading, as mounting a file by sub-path would
    /// make an empty directory of that name where the file is missing.
    pub fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

/// Volume and read-only mount for reading a `pvc://` URI at `/perennial/volumes/<name>`; `None` for other schemes.
pub fn input_mount(name: &str, uri: &str) -> Option<(Value, Value)> {
    let claim = ClaimPath::parse(uri)?;
    let volume = format!("perennial-in-{name}");
    let mut mount =
        json!({"name": volume, "mountPath": format!("{VOLUME_DIR}/{name}"), "readOnly": true});
    if !claim.parent().is_empty() {
        mount["subPath"] = json!(claim.parent());
    }
    Some((
        json!({"name": volume, "persistentVolumeClaim": {"claimName": claim.claim, "readOnly": true}}),
        mount,
    ))
}

/// `envFrom` entry that gives a Secret's keys to the container under a prefix.
pub fn credentials_env(prefix: &str, credentials: &Credentials) -> Value {
    json!({"prefix": prefix, "secretRef": {"name": credentials.secret_name}})
}

/// `env` entry that gives one key of a Secret to the container.
pub fn key_env(name: &str, key: &KeyReference) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": key.secret_name, "key": key.key}}})
}

/// Security context of our own containers: the restricted Pod Security Standard.
pub fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Init container that puts the operator's static binary into the emptyDir `perennial-bin`.
pub fn install_container(image: &str) -> Value {
    json!({
        "name": "perennial-install",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PROGRAM, "install", BIN_DIR],
        "volumeMounts": [{"name": "perennial-bin", "mountPath": BIN_DIR}],
        "securityContext": restricted(),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    })
}

/// An environment value that the kubelet must not expand: `$` doubled.
pub fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

/// Appends to an array member of an object, making it when absent.
pub fn append(object: &mut Map<String, Value>, key: &str, items: impl IntoIterator<Item = Value>) {
    let list = object.entry(key.to_owned()).or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.extend(items);
    }
}

/// Puts items before those of an array member of an object, making it when absent.
pub fn prepend(object: &mut Map<String, Value>, key: &str, items: Vec<Value>) {
    let list = object.entry(key.to_owned()).or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.splice(0..0, items);
    }
}

/// The template as JSON: `{metadata: {labels, annotations}, spec}`.
pub fn template_value(
    template: &PodTemplate,
) -> (Map<String, Value>, Map<String, Value>, Map<String, Value>) {
    let object = |value: Option<&Value>| {
        value
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let value = serde_json::to_value(template).unwrap_or_default();
    (
        object(value.pointer("/metadata/labels")),
        object(value.pointer("/metadata/annotations")),
        object(value.get("spec")),
    )
}

/// What a pod says is wrong, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// CamelCase reason: the kubelet's or the scheduler's own.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// What keeps a pod that has not ended from running: scheduling, images, configuration, crashes.
pub fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    for container in containers {
        if let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) {
            let reason = waiting.reason.clone().unwrap_or_default();
            let words = waiting.message.clone().unwrap_or_default();
            match reason.as_str() {
                "" | "ContainerCreating" | "PodInitializing" => {}
                "CrashLoopBackOff" => {
                    let last = last_words(container).unwrap_or(words);
                    return Some(Trouble {
                        message: format!(
                            "container {} of pod {name} keeps crashing ({} restarts): {last}",
                            container.name, container.restart_count
                        ),
                        reason,
                    });
                }
                _ => {
                    return Some(Trouble {
                        message: format!(
                            "container {} of pod {name} ({}): {words}",
                            container.name, container.image
                        ),
                        reason,
                    });
                }
            }
        }
    }
    let scheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(Trouble {
        reason: scheduled
            .reason
            .clone()
            .unwrap_or_else(|| "Unschedulable".to_owned()),
        message: format!(
            "pod {name} can't be scheduled: {}",
            scheduled.message.clone().unwrap_or_default()
        ),
    })
}

/// How a container last ended, as a sentence.
pub fn last_words(container: &ContainerStatus) -> Option<String> {
    let ended = container
        .state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .or(container
            .last_state
            .as_ref()
            .and_then(|s| s.terminated.as_ref()))?;
    let reason = ended.reason.clone().unwrap_or_else(|| "Error".to_owned());
    let code = ended.exit_code;
    Some(match ended.message.as_deref().map(str::trim) {
        Some(message) if !message.is_empty() => match serde_json::from_str::<Summary>(message) {
            Ok(summary) => summary.message,
            Err(_) => format!("{reason}, exit code {code}: {message}"),
        },
        _ => format!("{reason}, exit code {code}"),
    })
}

/// The init container that has ended the pod.
pub fn failed_before(pod: &Pod) -> Option<&ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut all = status.init_container_statuses.iter().flatten();
    all.find(|c| {
        let ended = c.state.as_ref().and_then(|s| s.terminated.as_ref());
        ended.is_some_and(|t| t.exit_code != 0)
    })
}

/// The summary that a supervisor left as termination message of this container.
pub fn summary(pod: &Pod, container: &str) -> Option<Summary> {
    let status = pod.status.as_ref()?;
    let containers = [&status.container_statuses, &status.init_container_statuses];
    let mut containers = containers.into_iter().flatten().flatten();
    let container = containers.find(|c| c.name == container)?;
    let message = container
        .state
        .as_ref()?
        .terminated
        .as_ref()?
        .message
        .as_ref()?;
    serde_json::from_str(message).ok()
}

/// Whether the pod was taken away by the cluster (drain, preemption, eviction): not a failed attempt.
pub fn disrupted(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if let Some(condition) = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionTarget" && c.status == "True")
    {
        return Some(
            condition
                .reason
                .clone()
                .unwrap_or_else(|| "DisruptionTarget".to_owned()),
        );
    }
    match status.reason.as_deref() {
        Some(
            reason @ ("Evicted"
            | "NodeLost"
            | "Shutdown"
            | "NodeShutdown"
            | "Preempting"
            | "UnexpectedAdmissionError"
            | "NodeAffinity"),
        ) => Some(reason.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_through_its_directory() {
        for (uri, claim, parent) in [
            ("pvc://flights/2013-q1.parquet", "flights", ""),
            ("pvc://flights/a/b/c.csv", "flights", "a/b"),
            ("pvc://flights/tree/", "flights", ""),
            ("pvc://flights", "flights", ""),
        ] {
            let path = ClaimPath::parse(uri).unwrap();
            assert_eq!(
                (path.claim.as_str(), path.parent()),
                (claim, parent),
                "{uri}"
            );
        }
        assert_eq!(ClaimPath::parse("s3://bucket/key"), None);
    }

    #[test]
    fn a_waiting_container_is_quoted() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [{
            "name": "server", "image": "nowhere/x:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}}))
        .unwrap();
        let trouble = trouble(&pod).unwrap();
        assert_eq!(trouble.reason, "ErrImagePull");
        assert_eq!(
            trouble.message,
            "container server of pod p (nowhere/x:1): not found"
        );
    }
}
