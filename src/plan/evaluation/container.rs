//! Evaluators that are images: init containers of the run's pod, one after another, before `perennial evaluate`.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::{
    api::{
        Evaluation,
        container::ContainerEvaluator,
        evaluation::{EndpointProtocol, EvaluationRun},
        model_deployment::Protocol,
        run::{
            BIN_DIR, ContainerRun, ENDPOINT_KEY, EVALUATOR_OUTPUT_DIR, EvaluationRunSpec,
            EvaluationTarget, INPUT_DIR, PROGRAM, RESULTS_DIR, RUN_DIR, RUN_ENV,
        },
    },
    plan::pod,
};

/// Evaluators that are images, with their places.
fn containers(owner: &Evaluation) -> impl Iterator<Item = (usize, &ContainerEvaluator)> {
    let evaluators = owner.spec.evaluators.iter().enumerate();
    evaluators.filter_map(|(place, e)| Some((place, e.container.as_ref()?)))
}

/// Name of the init container of the evaluator in this place.
pub fn container_name(place: usize) -> String {
    format!("evaluator-{place}")
}

/// What the containers and `perennial evaluate` share, as volumes and mounts of the latter.
fn shared() -> [(&'static str, &'static str); 2] {
    [
        ("perennial-inputs", INPUT_DIR),
        ("perennial-results", RESULTS_DIR),
    ]
}

fn mount(volume: &str, path: &str, read_only: bool) -> Value {
    let mut mount = json!({"name": volume, "mountPath": path});
    if read_only {
        mount["readOnly"] = json!(true);
    }
    mount
}

/// Adds them to the pod: volumes, mounts of the container `evaluator`, init containers. `claims` are the mounts of claims, `credentials` what inputs are
/// fetched with.
pub(super) fn add(
    pod_spec: &mut Map<String, Value>,
    evaluator: &mut Map<String, Value>,
    run_spec: &EvaluationRunSpec,
    (owner, run, image): (&Evaluation, &EvaluationRun, &str),
    (claims, credentials): (&[Value], &[Value]),
) {
    if containers(owner).next().is_none() {
        return;
    }
    let volume = |name: &str| json!({"name": name, "emptyDir": {}});
    let mut volumes: Vec<Value> = shared().map(|(name, _)| volume(name)).to_vec();
    volumes.push(volume("perennial-bin"));
    let mounts = shared().map(|(name, path)| mount(name, path, false));
    pod::append(evaluator, "volumeMounts", mounts);
    let text = serde_json::to_string(run_spec).unwrap_or_default();
    let mut gather_mounts = vec![
        mount("perennial-inputs", INPUT_DIR, false),
        mount("perennial-run", RUN_DIR, false),
        mount("perennial-tmp", "/tmp", false),
    ];
    gather_mounts.extend_from_slice(claims);
    let mut all = vec![
        pod::install_container(image),
        json!({
            "name": "perennial-gather",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": [PROGRAM, "gather"],
            "env": [{"name": RUN_ENV, "value": pod::literal(&text)}],
            "envFrom": credentials,
            "volumeMounts": gather_mounts,
            "securityContext": pod::restricted(),
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }),
    ];
    for (place, container) in containers(owner) {
        let outputs = format!("perennial-outputs-{place}");
        volumes.push(volume(&outputs));
        for own in &container.template.spec.volumes {
            // Two evaluators may mount the same.
            let own = Value::Object(own.0.clone());
            if !volumes.contains(&own) {
                volumes.push(own);
            }
        }
        let mut mounts = vec![
            mount("perennial-bin", BIN_DIR, true),
            mount("perennial-inputs", INPUT_DIR, true),
            mount("perennial-results", RESULTS_DIR, false),
            mount(&outputs, EVALUATOR_OUTPUT_DIR, false),
        ];
        mounts.extend_from_slice(claims);
        let wrapped = ContainerRun {
            place,
            name: container.name.clone(),
            results: container.results.clone(),
            max_item_errors: run_spec.max_item_errors,
            seed: run_spec.seed,
            deadline: run_spec.deadline,
        };
        let env = environment(owner, run, run_spec, &wrapped);
        all.extend(wrap(container, place, (env, mounts)));
    }
    pod::append(pod_spec, "volumes", volumes);
    // Behind those of the overlay, which may make ready what evaluators need.
    pod::append(pod_spec, "initContainers", all);
}

fn wrap(
    evaluator: &ContainerEvaluator,
    place: usize,
    (env, mounts): (Vec<Value>, Vec<Value>),
) -> Option<Value> {
    let own = evaluator.template.spec.containers.first()?;
    let Ok(Value::Object(mut container)) = serde_json::to_value(own) else {
        return None;
    };
    let mut command = vec![
        json!(format!("{BIN_DIR}/perennial")),
        json!("evaluator"),
        json!("--"),
    ];
    command.extend(own.command.iter().map(|word| json!(word)));
    container.insert("name".to_owned(), json!(container_name(place)));
    container.insert("command".to_owned(), Value::Array(command));
    // One that runs on beside the others leaves no results in time.
    container.remove("restartPolicy");
    pod::prepend(&mut container, "env", env);
    pod::append(&mut container, "volumeMounts", mounts);
    Some(Value::Object(container))
}

/// What a container is told: docs/evaluation.md has the list.
fn environment(
    owner: &Evaluation,
    run: &EvaluationRun,
    run_spec: &EvaluationRunSpec,
    wrapped: &ContainerRun,
) -> Vec<Value> {
    let text = serde_json::to_string(wrapped).unwrap_or_default();
    let mut said: Vec<(&str, String)> = vec![
        (RUN_ENV, text),
        ("PERENNIAL_EVALUATION", owner.name_any()),
        ("PERENNIAL_RUN_NUMBER", run.number.to_string()),
        ("PERENNIAL_INPUT_DIR", INPUT_DIR.to_owned()),
        ("PERENNIAL_OUTPUT_DIR", EVALUATOR_OUTPUT_DIR.to_owned()),
        ("PERENNIAL_SEED", run_spec.seed.to_string()),
    ];
    let mut target = |url: &str, protocol: &str, model: Option<&str>, stable: Option<String>| {
        said.push(("PERENNIAL_TARGET_URL", url.to_owned()));
        said.push(("PERENNIAL_TARGET_PROTOCOL", protocol.to_owned()));
        said.extend(model.map(|model| ("PERENNIAL_TARGET_MODEL", model.to_owned())));
        said.extend(stable.map(|url| ("PERENNIAL_STABLE_URL", url)));
    };
    match &run_spec.target {
        EvaluationTarget::Model {
            url,
            baseline_url,
            protocol,
            ..
        } => {
            let (protocol, end) = match protocol {
                Protocol::OpenInference => ("OpenInference", ""),
                Protocol::OpenAi => ("OpenAI", "/v1"),
                Protocol::Http => ("HTTP", ""),
            };
            let stable = baseline_url.as_ref().map(|url| format!("{url}{end}"));
            target(&format!("{url}{end}"), protocol, None, stable);
        }
        EvaluationTarget::Prompt {
            release,
            own,
            stable,
        } => {
            let stable = stable.as_ref().map(|side| side.url.clone());
            target(&own.url, "OpenAI", Some(release), stable);
        }
        EvaluationTarget::Endpoint {
            url,
            protocol,
            model,
            ..
        } => {
            let protocol = match protocol {
                EndpointProtocol::OpenInference => "OpenInference",
                EndpointProtocol::OpenAi => "OpenAI",
            };
            target(url, protocol, model.as_deref(), None);
        }
        EvaluationTarget::Predictions(_) => {}
    }
    said.extend(run.revision.clone().map(|r| ("PERENNIAL_REVISION", r)));
    said.extend(
        run.baseline
            .clone()
            .map(|r| ("PERENNIAL_STABLE_REVISION", r)),
    );
    let literal =
        |(name, value): (&str, String)| json!({"name": name, "value": pod::literal(&value)});
    let mut env: Vec<Value> = said.into_iter().map(literal).collect();
    let endpoint = owner.spec.target.endpoint.as_ref();
    if let Some(key) = endpoint.and_then(|e| e.credentials.as_ref()) {
        env.push(pod::key_env(ENDPOINT_KEY, key));
    }
    env
}
