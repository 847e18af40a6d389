//! The children of a TrainingJob: one Job per attempt, and the profile's ConfigMap.

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::Observed;
use crate::{
    api::{
        Duration, SUPERVISOR_PORT, TrainingJob, label,
        run::{BIN_DIR, INPUT_DIR, OUTPUT_DIR, PROGRESS_FILE, RUN_DIR, RUN_ENV, TrainingRun},
    },
    plan::pod::{self, ClaimPath},
};

/// How long a finished pod waits for the operator to have read its report.
const ACKNOWLEDGE_SECONDS: u64 = 120;

/// Name of an attempt's Job: a function of owner and attempt, so that making it twice makes one.
pub fn job_name(training_job: &str, attempt: i32) -> String {
    format!("{training_job}-{attempt}")
}

/// Name of the Job that reads a missed report again.
pub fn report_job_name(training_job: &str) -> String {
    format!("{training_job}-report")
}

/// Name of the ConfigMap with a version's profile: by version, as it outlives the TrainingJob and its name may be used again.
pub fn profile_name(model: &str, version: &str) -> String {
    format!("{model}-{version}")
}

/// `<UTC start yyyymmdd-hhmmss>-<6 hex of the UID>`: named without coordination, sorts by time.
pub fn version(start: Timestamp, uid: &str) -> String {
    let hex: String = uid
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(6)
        .collect();
    format!("{}-{hex}", start.strftime("%Y%m%d-%H%M%S"))
}

/// URI of a version.
pub fn output(training_job: &TrainingJob, version: &str) -> String {
    format!(
        "{}/{version}",
        training_job.spec.model.output.trim_end_matches('/')
    )
}

fn labels(owner: &TrainingJob, role: &str) -> Map<String, Value> {
    let name = owner.name_any();
    let labels = json!({
        "app.kubernetes.io/name": "perennial",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": role,
        "app.kubernetes.io/managed-by": "perennial",
        label::TRAINING_JOB: name,
        label::MODEL: owner.spec.model.name,
        label::ROLE: role,
    });
    labels.as_object().cloned().unwrap_or_default()
}

/// The Job of an attempt.
pub fn attempt_job(
    observed: &Observed,
    name: &str,
    attempt: i32,
    version: &str,
    start: Timestamp,
) -> Value {
    let owner = &observed.job;
    let spec = &owner.spec;
    let run = TrainingRun {
        namespace: owner.namespace().unwrap_or_default(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        attempt,
        model: spec.model.name.clone(),
        version: version.to_owned(),
        output: output(owner, version),
        datasets: spec.datasets.clone(),
        parameters: spec.parameters.clone(),
        stall_timeout: spec.progress.as_ref().and_then(|p| p.stall_timeout.clone()),
        deadline: spec
            .active_deadline_seconds
            .map(|s| start + jiff::SignedDuration::from_secs(s)),
        acknowledge_timeout: Duration::from_secs(ACKNOWLEDGE_SECONDS),
    };
    let mut job_labels = labels(owner, "trainer");
    job_labels.insert(label::ATTEMPT.to_owned(), json!(attempt.to_string()));
    let (mut pod_labels, annotations, mut pod) = pod::template_value(&spec.template);
    pod_labels.extend(job_labels.clone());

    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for (name, path) in [
        ("perennial-bin", BIN_DIR),
        ("perennial-run", RUN_DIR),
        ("perennial-inputs", INPUT_DIR),
    ] {
        volumes.push(json!({"name": name, "emptyDir": {}}));
        mounts.push(json!({"name": name, "mountPath": path}));
    }
    let mut env_from = Vec::new();
    for (index, dataset) in spec.datasets.iter().enumerate() {
        if let Some((volume, mount)) = pod::input_mount(&dataset.name, &dataset.uri) {
            volumes.push(volume);
            mounts.push(mount);
        }
        if let Some(path) = &dataset.mount_path {
            // The supervisor puts links there, which takes a directory that every user may write.
            let volume = format!("perennial-at-{}", dataset.name);
            volumes.push(json!({"name": volume, "emptyDir": {}}));
            mounts.push(json!({"name": volume, "mountPath": path}));
        }
        if let Some(credentials) = &dataset.credentials {
            env_from.push(pod::credentials_env(
                &format!("PERENNIAL_CRED_{index}_"),
                credentials,
            ));
        }
    }
    if let Some(credentials) = &spec.model.credentials {
        env_from.push(pod::credentials_env("PERENNIAL_CRED_OUT_", credentials));
    }
    match ClaimPath::parse(&run.output) {
        Some(claim) => {
            volumes.push(json!({"name": "perennial-output", "persistentVolumeClaim": {"claimName": claim.claim}}));
            mounts.push(
                json!({"name": "perennial-output", "mountPath": OUTPUT_DIR, "subPath": claim.path}),
            );
        }
        None => {
            volumes.push(json!({"name": "perennial-output", "emptyDir": {}}));
            mounts.push(json!({"name": "perennial-output", "mountPath": OUTPUT_DIR}));
        }
    }
    let mut env = vec![
        json!({"name": RUN_ENV, "value": pod::literal(&serde_json::to_string(&run).unwrap_or_default())}),
        json!({"name": "PERENNIAL_INPUT_DIR", "value": INPUT_DIR}),
        json!({"name": "PERENNIAL_OUTPUT_DIR", "value": OUTPUT_DIR}),
        json!({"name": "PERENNIAL_PROGRESS_FILE", "value": PROGRESS_FILE}),
        json!({"name": "PERENNIAL_MODEL_VERSION", "value": version}),
        json!({"name": "PERENNIAL_ATTEMPT", "value": attempt.to_string()}),
    ];
    for (name, value) in &spec.parameters {
        env.push(json!({"name": format!("PERENNIAL_PARAM_{}", name.to_uppercase()), "value": pod::literal(value)}));
    }

    let trainer = trainer_name(owner);
    if let Some(Value::Array(containers)) = pod.get_mut("containers") {
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            if container.get("name").and_then(Value::as_str) != Some(&trainer) {
                continue;
            }
            let mut command = vec![
                json!(format!("{BIN_DIR}/perennial")),
                json!("supervise"),
                json!("--"),
            ];
            if let Some(Value::Array(own)) = container.remove("command") {
                command.extend(own);
            }
            container.insert("command".to_owned(), Value::Array(command));
            pod::prepend(container, "env", env.clone());
            pod::append(container, "envFrom", env_from.clone());
            pod::append(container, "volumeMounts", mounts.clone());
            // Ready means: the report can be read. The operator hears of the end by a watch event.
            container.entry("readinessProbe").or_insert_with(|| json!({"httpGet": {"path": "/done", "port": SUPERVISOR_PORT}, "periodSeconds": 1}));
        }
    }
    pod::prepend(
        &mut pod,
        "initContainers",
        vec![pod::install_container(&observed.image)],
    );
    pod::append(&mut pod, "volumes", volumes);
    pod.insert("restartPolicy".to_owned(), json!("Never"));
    pod.entry("automountServiceAccountToken")
        .or_insert(json!(false));
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": owner.namespace(),
            "labels": job_labels,
            "ownerReferences": [owner.controller_owner_ref(&())],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"metadata": {"labels": pod_labels, "annotations": annotations}, "spec": pod},
        },
    })
}

/// Name of the container that trains.
pub fn trainer_name(owner: &TrainingJob) -> String {
    owner
        .spec
        .template
        .main_container("trainer")
        .map_or_else(|| "trainer".to_owned(), |c| c.name.clone())
}

/// Immutable ConfigMap with the profile of the training data: labelled, not owned.
pub fn profile_config_map(owner: &TrainingJob, version: &str, profile: &Value) -> Value {
    let mut labels = labels(owner, "profile");
    labels.insert("perennial.dev/version".to_owned(), json!(version));
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": profile_name(&owner.spec.model.name, version), "namespace": owner.namespace(), "labels": labels},
        "immutable": true,
        "data": {"profile.json": profile.to_string()},
    })
}
