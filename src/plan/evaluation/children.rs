//! The child of an Evaluation: one Job per run.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::{Content, Observed, Release, container};
use crate::{
    api::{
        Credentials, Duration, Evaluation, GATEWAY_INTERNAL_PORT, GATEWAY_MIRRORED_PORT,
        SUPERVISOR_PORT,
        container::EvaluatorTemplate,
        evaluation::{
            BaselinePredictions, EvaluationRun, EvaluationSpec, Evaluator, Predictions, TableSource,
        },
        judge::JudgeEvaluator,
        label, mirrored,
        run::{
            CALIBRATION_INDEX, ENDPOINT_KEY, EvaluationRunSpec, EvaluationTarget, MANIFEST,
            MAX_ITEM_ERRORS, MirroredRun, OUTPUT_DIR, PROGRAM, PromptSide, REPORT_FILE, RUN_DIR,
            RUN_ENV, TRAINING, TRAINING_INDEX, TrainedOn, calibration, judge_key, predictions_file,
        },
    },
    plan::{pod, prompt_release::template},
};

/// How long a finished pod waits for the operator to have read its report.
const ACKNOWLEDGE_SECONDS: u64 = 120;
/// Value of [`label::ROLE`] on pods that measure.
pub const EVALUATOR: &str = "evaluator";
/// Role of the ConfigMaps with reports.
pub const REPORT_ROLE: &str = "evaluation-report";
/// Seconds that a run may take when the spec doesn't say.
pub const DEFAULT_DEADLINE: i64 = 3600;

/// Name of a run's Job.
pub fn job_name(evaluation: &str, number: i64) -> String {
    format!("{evaluation}-{number}")
}

/// The sources that a run reads, with the names of their mounts and the indices of their credentials.
pub fn sources(evaluation: &Evaluation) -> Vec<(usize, String, Cow<'_, TableSource>)> {
    let spec = &evaluation.spec;
    let dataset = spec.dataset.as_ref().map(|d| (0, "dataset", &d.source));
    let reference = spec.reference.as_ref().map(|r| (1, "reference", r));
    let predictions = spec
        .target
        .predictions
        .as_ref()
        .map(|p| (2, "predictions", &p.source));
    let all = [dataset, reference, predictions].into_iter().flatten();
    let own = all.map(|(index, name, source)| (index, name, Cow::Borrowed(source)));
    let file = spec.baseline.as_ref().and_then(|b| b.predictions.as_ref());
    let baseline = match file {
        Some(file) => Some(Cow::Borrowed(&file.source)),
        None => baseline(spec).map(|b| Cow::Owned(b.source)),
    };
    let baseline = baseline.map(|source| (4, "baseline", source));
    let own = own
        .chain(baseline)
        .map(|(index, name, source)| (index, name.to_owned(), source));
    let calibrations = judges(evaluation).filter_map(|(place, judge)| {
        let source = &judge.calibration.as_ref()?.dataset;
        let source = Cow::Borrowed(source);
        Some((CALIBRATION_INDEX + place, calibration(place), source))
    });
    own.chain(calibrations).collect()
}

/// The file that stands for stable: one that is named, or what a run wrote beside its report.
fn baseline(spec: &EvaluationSpec) -> Option<BaselinePredictions> {
    let baseline = spec.baseline.as_ref()?;
    if let Some(file) = &baseline.predictions {
        return Some(file.clone());
    }
    let (run, output) = baseline.run.as_ref().zip(spec.output.as_ref())?;
    let file = predictions_file(run);
    Some(BaselinePredictions {
        source: TableSource {
            uri: format!("{}/{file}", output.trim_end_matches('/')),
            credentials: spec.output_credentials.clone(),
            ..TableSource::default()
        },
        ..BaselinePredictions::default()
    })
}

/// Judges, with their places among the evaluators.
fn judges(evaluation: &Evaluation) -> impl Iterator<Item = (usize, &JudgeEvaluator)> {
    let evaluators = evaluation.spec.evaluators.iter().enumerate();
    evaluators.filter_map(|(place, e)| Some((place, e.judge.as_ref()?)))
}

/// As a release's kind is written in the gateway's paths.
fn kind(release: &Release) -> &'static str {
    match release {
        Release::Model(_) => "models",
        Release::Prompt(_) => "prompts",
    }
}

/// Where copies are listened to, if they are what is measured.
fn mirrored_run(observed: &Observed, run: &EvaluationRun) -> Option<MirroredRun> {
    let mirrored = observed.evaluation.spec.mirrored.as_ref()?;
    let release = observed.release.as_ref()?;
    let namespace = observed.evaluation.namespace().unwrap_or_default();
    let service = mirrored::SERVICE;
    Some(MirroredRun {
        address: format!("{service}.{namespace}.svc:{GATEWAY_MIRRORED_PORT}"),
        path: mirrored::path(kind(release), &release.name(), run.revision.as_deref()?),
        requests: mirrored.requests(),
    })
}

fn revision_url(observed: &Observed, release: &Release, revision: &str) -> String {
    let namespace = observed.evaluation.namespace().unwrap_or_default();
    let (kind, name) = (kind(release), release.name());
    format!(
        "http://perennial-gateway.{namespace}.svc:{GATEWAY_INTERNAL_PORT}/revisions/{kind}/{name}/{revision}"
    )
}

/// A prompt's revision, if it is one that can be rendered (another is no candidate).
fn prompt_side(observed: &Observed, release: &Release, revision: &str) -> Option<PromptSide> {
    let Content::Prompt(content) = observed.revisions.get(revision)? else {
        return None;
    };
    Some(PromptSide {
        url: format!("{}/v1", revision_url(observed, release, revision)),
        takes: template::takes(&content.prompt).ok()?,
        prices: content.backend.prices.clone(),
    })
}

fn target(observed: &Observed, run: &EvaluationRun) -> Option<EvaluationTarget> {
    if let Some(predictions) = &observed.evaluation.spec.target.predictions {
        return Some(EvaluationTarget::Predictions(predictions.clone()));
    }
    if let Some(endpoint) = &observed.evaluation.spec.target.endpoint {
        return Some(EvaluationTarget::Endpoint {
            url: endpoint.url.clone(),
            protocol: endpoint.protocol,
            model: endpoint.model.clone(),
            prices: endpoint.prices.clone(),
        });
    }
    let revision = run.revision.as_ref()?;
    let release = observed.release.as_ref()?;
    let baseline = run.baseline.as_ref();
    match observed.revisions.get(revision)? {
        Content::Model(content) => Some(EvaluationTarget::Model {
            url: revision_url(observed, release, revision),
            baseline_url: baseline.map(|b| revision_url(observed, release, b)),
            protocol: content.server.protocol(),
            signature: content.model.signature.clone(),
        }),
        Content::Prompt(_) => Some(EvaluationTarget::Prompt {
            release: release.name(),
            own: prompt_side(observed, release, revision)?,
            stable: baseline.and_then(|b| prompt_side(observed, release, b)),
        }),
    }
}

/// What the measured version was trained on, where the dataset must have none of it; with the credentials that its pod may have.
fn trained_on(
    observed: &Observed,
    run: &EvaluationRun,
) -> Option<(TrainedOn, Option<Credentials>)> {
    let spec = &observed.evaluation.spec;
    spec.dataset.as_ref()?.disjoint_from?;
    let Content::Model(content) = observed.revisions.get(run.revision.as_ref()?)? else {
        return None;
    };
    let model = &content.model;
    // Who made the Evaluation may read the Secrets that it names, and these alone.
    let tables = [
        spec.dataset.as_ref().map(|d| &d.source),
        spec.reference.as_ref(),
    ];
    let tables = tables.into_iter().flatten().map(|t| t.credentials.as_ref());
    let mut named = tables.chain([spec.output_credentials.as_ref()]).flatten();
    let wanted = model.credentials.as_ref();
    let allowed = wanted.filter(|wanted| named.any(|one| one == *wanted));
    let trained = TrainedOn {
        version: model.version.clone().unwrap_or_else(|| model.uri.clone()),
        uri: model.uri.clone(),
        digest: model.digest.clone(),
        unnamed_secret: match allowed {
            Some(_) => None,
            None => wanted.map(|c| c.secret_name.clone()),
        },
    };
    Some((trained, allowed.cloned()))
}

/// What a pod of this Evaluation does with this target.
fn run_spec(owner: &Evaluation, target: EvaluationTarget) -> EvaluationRunSpec {
    let spec = &owner.spec;
    let (dataset, predictions) = (spec.dataset.as_ref(), spec.target.predictions.as_ref());
    EvaluationRunSpec {
        namespace: owner.namespace().unwrap_or_default(),
        name: owner.name_any(),
        number: 0,
        target,
        dataset: spec.dataset.as_ref().map(|d| d.source.clone()),
        label: dataset
            .and_then(|d| d.label.clone())
            .or_else(|| predictions.and_then(|p| p.label.clone())),
        text_reference: dataset
            .and_then(|d| d.reference.clone())
            .or_else(|| predictions.and_then(|p| p.reference.clone())),
        features: spec.dataset.as_ref().and_then(|d| d.features.clone()),
        key: spec.dataset.as_ref().and_then(|d| d.key.clone()),
        time: spec
            .dataset
            .as_ref()
            .and_then(|d| d.time.as_ref())
            .map(|t| t.column.clone()),
        reference: spec.reference.clone(),
        baseline: baseline(spec),
        mirrored: None,
        training: None,
        evaluators: spec.evaluators.iter().map(told).collect(),
        sampling: spec.sampling.clone(),
        requests: spec.requests.clone().unwrap_or_default(),
        max_item_errors: spec.max_item_errors.unwrap_or(MAX_ITEM_ERRORS),
        stop_when: spec.stop_when.clone(),
        gates: spec.gates.clone(),
        subject: String::new(),
        output: spec.output.clone(),
        output_predictions: spec.output_predictions == Some(true),
        seed: spec
            .seed
            .and_then(|s| u64::try_from(s).ok())
            .unwrap_or_default(),
        deadline: None,
        acknowledge_timeout: Duration::from_secs(ACKNOWLEDGE_SECONDS),
    }
}

/// An evaluator as its pod is told: what runs in a container is written in the pod already, and an environment has a bound.
fn told(evaluator: &Evaluator) -> Evaluator {
    let mut evaluator = evaluator.clone();
    if let Some(container) = &mut evaluator.container {
        container.template = EvaluatorTemplate::default();
    }
    evaluator
}

/// What a run does that measures a file of predictions without a cluster. `joined`: the labels are in a file of their own.
pub fn local_run(owner: &Evaluation, predictions: Predictions, joined: bool) -> EvaluationRunSpec {
    let mut run = run_spec(owner, EvaluationTarget::Predictions(predictions));
    if !joined {
        run.dataset = None;
    }
    run.output = None;
    run.output_predictions = false;
    run
}

/// Name of the ConfigMap with a run's report.
pub fn report_name(evaluation: &str, number: i64) -> String {
    format!("{evaluation}-{number}-report")
}

/// Immutable ConfigMap with a run's report.
pub fn report_config_map(owner: &Evaluation, number: i64, html: &ByteString) -> Value {
    let name = owner.name_any();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": report_name(&name, number),
            "namespace": owner.namespace(),
            "labels": {
                "app.kubernetes.io/name": "perennial",
                "app.kubernetes.io/instance": name,
                "app.kubernetes.io/component": "evaluation-report",
                "app.kubernetes.io/managed-by": "perennial",
                label::EVALUATION: name,
                label::ROLE: REPORT_ROLE,
                label::ATTEMPT: number.to_string(),
            },
            "ownerReferences": [owner.controller_owner_ref(&())],
        },
        "immutable": true,
        "binaryData": {REPORT_FILE: html},
    })
}

/// The Job of a run; `None` while the revision's content isn't known yet.
pub fn run_job(observed: &Observed, run: &EvaluationRun, start: Timestamp) -> Option<Value> {
    let owner = &observed.evaluation;
    let spec = &owner.spec;
    let name = owner.name_any();
    let seconds = spec.active_deadline_seconds.unwrap_or(DEFAULT_DEADLINE);
    let mut run_spec = run_spec(owner, target(observed, run)?);
    run_spec.number = run.number;
    run_spec.subject.clone_from(&run.target);
    run_spec.mirrored = mirrored_run(observed, run);
    run_spec.deadline = Some(start + SignedDuration::from_secs(seconds));
    let labels = json!({
        "app.kubernetes.io/name": "perennial",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": "evaluator",
        "app.kubernetes.io/managed-by": "perennial",
        label::EVALUATION: name,
        label::ROLE: EVALUATOR,
    });
    let (mut volumes, mut mounts, mut env_from) = (Vec::new(), Vec::new(), Vec::new());
    for (volume, path) in [("perennial-run", RUN_DIR), ("perennial-tmp", "/tmp")] {
        volumes.push(json!({"name": volume, "emptyDir": {}}));
        mounts.push(json!({"name": volume, "mountPath": path}));
    }
    if let Some((trained, credentials)) = trained_on(observed, run) {
        // What is mounted is the directory around what a URI names: here the version's own.
        let inside = format!("{}/{MANIFEST}", trained.uri.trim_end_matches('/'));
        if let Some((volume, mount)) = pod::input_mount(TRAINING, &inside) {
            volumes.push(volume);
            mounts.push(mount);
        }
        env_from.extend(credentials.map(|credentials| {
            pod::credentials_env(&format!("PERENNIAL_CRED_{TRAINING_INDEX}_"), &credentials)
        }));
        run_spec.training = Some(trained);
    }
    let mut claims = Vec::new();
    for (index, name, source) in sources(owner) {
        if let Some((volume, mount)) = pod::input_mount(&name, &source.uri) {
            volumes.push(volume);
            claims.push(mount);
        }
        if let Some(credentials) = &source.credentials {
            env_from.push(pod::credentials_env(
                &format!("PERENNIAL_CRED_{index}_"),
                credentials,
            ));
        }
    }
    let mut evaluator = Map::from_iter([
        ("name".to_owned(), json!("evaluator")),
        ("image".to_owned(), json!(observed.image)),
        ("imagePullPolicy".to_owned(), json!("IfNotPresent")),
        ("command".to_owned(), json!([PROGRAM, "evaluate"])),
        ("securityContext".to_owned(), pod::restricted()),
        (
            "resources".to_owned(),
            json!({"requests": {"cpu": "100m", "memory": "128Mi"}}),
        ),
        (
            "readinessProbe".to_owned(),
            json!({"httpGet": {"path": "/done", "port": SUPERVISOR_PORT}, "periodSeconds": 1}),
        ),
    ]);
    let (mut pod_labels, annotations, mut pod_spec) = spec
        .template
        .as_ref()
        .map(pod::template_value)
        .unwrap_or_default();
    // The overlay: the container `evaluator` may say more, but not what runs in it.
    let mut others = Vec::new();
    if let Some(Value::Array(containers)) = pod_spec.remove("containers") {
        for container in containers {
            match container {
                Value::Object(overlay)
                    if overlay.get("name").and_then(Value::as_str) == Some("evaluator") =>
                {
                    for (key, value) in overlay {
                        if !matches!(key.as_str(), "image" | "command" | "args") {
                            evaluator.insert(key, value);
                        }
                    }
                }
                other => others.push(other),
            }
        }
    }
    let inputs = (claims.as_slice(), env_from.clone());
    let about = (owner, run, observed.image.as_str());
    container::add(
        &mut pod_spec,
        &mut evaluator,
        &run_spec,
        about,
        (inputs.0, &inputs.1),
    );
    mounts.extend(claims);
    if let Some(output) = &spec.output {
        if let Some(claim) = pod::ClaimPath::parse(output) {
            let mut mount = json!({"name": "perennial-output", "mountPath": OUTPUT_DIR});
            if !claim.path.is_empty() {
                mount["subPath"] = json!(claim.path);
            }
            volumes.push(json!({"name": "perennial-output", "persistentVolumeClaim": {"claimName": claim.claim}}));
            mounts.push(mount);
        }
        if let Some(credentials) = &spec.output_credentials {
            env_from.push(pod::credentials_env("PERENNIAL_CRED_3_", credentials));
        }
    }
    let run_text = serde_json::to_string(&run_spec).unwrap_or_default();
    let mut environment = vec![json!({"name": RUN_ENV, "value": pod::literal(&run_text)})];
    let endpoint = spec.target.endpoint.as_ref();
    if let Some(key) = endpoint.and_then(|e| e.credentials.as_ref()) {
        environment.push(pod::key_env(ENDPOINT_KEY, key));
    }
    for (place, judge) in judges(owner) {
        if let Some(key) = &judge.backend.credentials {
            environment.push(pod::key_env(&judge_key(place), key));
        }
    }
    pod::prepend(&mut evaluator, "env", environment);
    pod::append(&mut evaluator, "envFrom", env_from);
    pod::append(&mut evaluator, "volumeMounts", mounts);
    others.insert(0, Value::Object(evaluator));
    pod_spec.insert("containers".to_owned(), Value::Array(others));
    pod::append(&mut pod_spec, "volumes", volumes);
    pod_spec.insert("restartPolicy".to_owned(), json!("Never"));
    pod_spec
        .entry("automountServiceAccountToken")
        .or_insert(json!(false));
    if let Some(labels) = labels.as_object() {
        pod_labels.extend(labels.clone());
    }
    Some(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(&name, run.number),
            "namespace": owner.namespace(),
            "labels": labels,
            "ownerReferences": [owner.controller_owner_ref(&())],
        },
        "spec": {
            // Another try is another run: each pod's report is one run's.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": 3600,
            "template": {"metadata": {"labels": pod_labels, "annotations": annotations}, "spec": pod_spec},
        },
    }))
}
