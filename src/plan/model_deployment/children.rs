//! What runs a revision: Deployment, headless Service, disruption budget; and the release's own Service.

use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::{Observed, frozen, scale::Size, warm_up};
pub use crate::plan::release::name;
use crate::{
    api::{
        label,
        model_deployment::{Protocol, ServerSpec},
        revision::{ArtifactCache, ModelReference, ModelRevision},
        run::{CacheRun, FetchRun, RUN_ENV},
        traffic::Tls,
    },
    plan::{
        gateway,
        pod::{
            ClaimPath, append, credentials_env, input_mount, literal, prepend, restricted,
            template_value,
        },
        revision::Named,
    },
};

/// Where the init container puts the artifact.
pub const FETCH_DIR: &str = "/perennial/model";
/// Name of the init container.
pub const FETCH: &str = "perennial-fetch";
/// Value of [`label::ROLE`] on server pods.
pub const ROLE: &str = "server";
/// Volume with the artifact.
const VOLUME: &str = "perennial-model";
/// Volume with what pods share, and where the init container has it: never in the server.
const CACHE: (&str, &str) = ("perennial-cache", "/perennial/cache");
/// Seconds that a leaving server goes on answering while its address is taken out of the gateway's table; less where the template
/// gives it less time to end (the API server wants the sleep to be shorter than that).
const LEAVE_SECONDS: i64 = 5;

/// Labels of a release's children.
pub fn labels(release: &str, role: &str) -> Map<String, Value> {
    let pairs = [
        ("app.kubernetes.io/name", release),
        ("app.kubernetes.io/component", role),
        ("app.kubernetes.io/part-of", "perennial"),
        ("app.kubernetes.io/managed-by", "perennial"),
        (label::MODEL_DEPLOYMENT, release),
        (label::ROLE, role),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect()
}

/// Labels of what belongs to a revision.
pub fn revision_labels(release: &str, hash: &str) -> Map<String, Value> {
    let mut labels = labels(release, ROLE);
    labels.insert(label::REVISION.to_owned(), json!(hash));
    labels
}

/// What selects a revision's pods.
pub fn selector(release: &str, hash: &str) -> Value {
    json!({(label::MODEL_DEPLOYMENT): release, (label::REVISION): hash, (label::ROLE): ROLE})
}

/// What selects all of the release's server pods, as text, for `kubectl scale` and autoscalers of the user's: what they all do together
/// over what one may do is how many are needed, whoever gets which callers.
pub fn selector_text(release: &str) -> String {
    format!(
        "{}={release},{}={ROLE}",
        label::MODEL_DEPLOYMENT,
        label::ROLE
    )
}

/// Metadata of a child: owned by the release.
pub fn metadata(observed: &Observed, name: &str, labels: &Map<String, Value>) -> Value {
    json!({
        "name": name,
        "namespace": observed.deployment.namespace(),
        "labels": labels,
        "ownerReferences": [observed.deployment.controller_owner_ref(&())],
    })
}

/// The container that fetches and verifies the artifact into [`FETCH_DIR`].
pub fn fetch_container(image: &str, fetch: &FetchRun, model: &ModelReference) -> Value {
    let spec = serde_json::to_string(fetch).unwrap_or_default();
    let mut mounts = vec![json!({"name": VOLUME, "mountPath": FETCH_DIR})];
    mounts.extend(input_mount("model", &model.uri).map(|(_, mount)| mount));
    if fetch.cache.is_some() {
        mounts.push(json!({"name": CACHE.0, "mountPath": CACHE.1}));
    }
    let mut container = json!({
        "name": FETCH,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["fetch"],
        "env": [{"name": RUN_ENV, "value": literal(&spec)}],
        "volumeMounts": mounts,
        "securityContext": restricted(),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    });
    if let Some(credentials) = &model.credentials {
        container["envFrom"] = json!([credentials_env("PERENNIAL_CRED_0_", credentials)]);
    }
    container
}

/// The volumes that [`fetch_container`] needs.
pub fn fetch_volumes(model: &ModelReference, cache: Option<&ArtifactCache>) -> Vec<Value> {
    let mut volumes = vec![json!({"name": VOLUME, "emptyDir": {}})];
    volumes.extend(input_mount("model", &model.uri).map(|(volume, _)| volume));
    volumes.extend(
        cache.map(
            |c| json!({"name": CACHE.0, "persistentVolumeClaim": {"claimName": c.claim_name}}),
        ),
    );
    volumes
}

/// The pods of a revision. Everything in the template comes from what is frozen: rendering it otherwise restarts every server
/// there is, so a test holds it still.
pub fn server(observed: &Observed, revision: &Named<ModelRevision>, size: &Size) -> Value {
    let release = observed.deployment.name_any();
    let labels = revision_labels(&release, &revision.hash);
    let mut server = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata(observed, &name(&release, &revision.hash), &labels),
        "spec": {
            "revisionHistoryLimit": 0, // The template never changes.
            "selector": {"matchLabels": selector(&release, &revision.hash)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template(&release, revision),
        },
    });
    if let Some(seconds) = revision.revision.server.min_ready_seconds {
        server["spec"]["minReadySeconds"] = json!(seconds);
    }
    match size {
        Size::Pods(pods) => server["spec"]["replicas"] = json!(pods),
        Size::Raised(pods, version) => {
            server["spec"]["replicas"] = json!(pods);
            server["metadata"]["resourceVersion"] = json!(version);
        }
        Size::Left => {}
    }
    server
}

/// The user's pod template with the artifact in it.
fn template(release: &str, revision: &Named<ModelRevision>) -> Value {
    let ModelRevision {
        model,
        server,
        helper_image,
        cache,
        ..
    } = &revision.revision;
    let (mut labels, annotations, mut spec) = template_value(&server.template);
    labels.extend(revision_labels(release, &revision.hash));
    frozen::read_copies(&mut spec, &revision.revision);
    let main = server
        .template
        .main_container("server")
        .map(|c| c.name.clone())
        .unwrap_or_default();
    let grace = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(30); // Kubernetes' default
    let leave = LEAVE_SECONDS.min(grace - 1);
    if let Some(Value::Array(containers)) = spec.get_mut("containers") {
        for container in containers {
            if let Value::Object(container) = container
                && container.get("name").and_then(Value::as_str) == Some(&main)
            {
                serve(container, server, leave);
            }
        }
    }
    // What is in a claim is as near as a cache in another.
    let cache = cache
        .as_ref()
        .filter(|_| model.digest.is_some() && ClaimPath::parse(&model.uri).is_none());
    let fetch = FetchRun {
        uri: model.uri.clone(),
        digest: model.digest.clone(),
        target: FETCH_DIR.to_owned(),
        cache: cache.map(|cache| CacheRun {
            directory: CACHE.1.to_owned(),
            bytes: cache.bytes,
        }),
    };
    prepend(
        &mut spec,
        "initContainers",
        vec![fetch_container(helper_image, &fetch, model)],
    );
    append(&mut spec, "volumes", fetch_volumes(model, cache));
    if let Some(warm_up) = &server.warm_up {
        let container = warm_up::container(helper_image, server, warm_up);
        append(&mut spec, "initContainers", [container]);
    }
    spec.entry("automountServiceAccountToken")
        .or_insert(json!(false));
    json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec})
}

/// What the serving container gets, where it doesn't say otherwise.
fn serve(container: &mut Map<String, Value>, server: &ServerSpec, leave: i64) {
    let port = server.port();
    append(
        container,
        "volumeMounts",
        [json!({"name": VOLUME, "mountPath": server.model_path(), "readOnly": true})],
    );
    container.entry("readinessProbe").or_insert_with(|| {
        let mut probe = match server.protocol() {
            Protocol::OpenInference => {
                json!({"httpGet": {"path": "/v2/health/ready", "port": port}})
            }
            Protocol::OpenAi | Protocol::Http => json!({"tcpSocket": {"port": port}}),
        };
        probe["periodSeconds"] = json!(2);
        probe["timeoutSeconds"] = json!(2);
        probe
    });
    if leave <= 0 {
        return;
    }
    let lifecycle = container.entry("lifecycle").or_insert_with(|| json!({}));
    if let Value::Object(lifecycle) = lifecycle {
        // The kubelet's own sleep: the image need not have a shell.
        lifecycle
            .entry("preStop")
            .or_insert(json!({"sleep": {"seconds": leave}}));
    }
}

/// The addresses of a revision's ready pods, for the gateway.
pub fn endpoints(observed: &Observed, revision: &Named<ModelRevision>) -> Value {
    let release = observed.deployment.name_any();
    let port = revision.revision.server.port();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(observed, &name(&release, &revision.hash), &revision_labels(&release, &revision.hash)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": false,
            "selector": selector(&release, &revision.hash),
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    })
}

/// One pod at a time may be taken away.
pub fn disruption_budget(observed: &Observed, revision: &Named<ModelRevision>) -> Value {
    let release = observed.deployment.name_any();
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": metadata(observed, &name(&release, &revision.hash), &revision_labels(&release, &revision.hash)),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(&release, &revision.hash)}},
    })
}

/// What clients call: leads to the release's own port of the gateway.
pub fn service(observed: &Observed, port: i32) -> Value {
    let release = observed.deployment.name_any();
    let (scheme, service_port) = gateway::scheme(tls(observed));
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(observed, &release, &labels(&release, "release")),
        "spec": {
            "selector": gateway::selector(),
            "ports": [{"name": scheme, "port": service_port, "targetPort": port, "protocol": "TCP"}],
        },
    })
}

/// The certificate that callers are shown, if they speak TLS.
pub fn tls(observed: &Observed) -> Option<&Tls> {
    let traffic = observed.deployment.spec.traffic.as_ref();
    traffic.and_then(|t| t.tls.as_ref())
}
