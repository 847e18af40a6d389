//! The objects that run a gateway.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{CREDENTIALS_DIR, NAME, Observed, ROLE, STATE_DIR, selector};
use crate::{
    api::{
        GATEWAY_ADMIN_PORT, GATEWAY_INTERNAL_PORT, GATEWAY_MIRRORED_PORT, GATEWAY_RELEASE_PORTS,
        GATEWAY_SHARED_PORT, GROUP, label, mirrored,
    },
    plan::{evaluation::EVALUATOR, pod::restricted},
};

/// A leaving pod takes connections for 8 seconds while its address is taken out of the Services; then open streams have 60
/// seconds, and the operator has 16 to read the last measurements.
const GRACE_SECONDS: i64 = 90;

/// Everything, in the order in which it is of use.
pub fn all(observed: &Observed) -> Vec<Value> {
    vec![
        service_account(observed),
        role(observed),
        role_binding(observed),
        network_policy(observed),
        service(observed),
        mirrored_service(observed),
        disruption_budget(observed),
        deployment(observed),
    ]
}

fn metadata(observed: &Observed) -> Value {
    json!({
        "name": NAME,
        "namespace": observed.namespace,
        "labels": {
            "app.kubernetes.io/name": NAME,
            "app.kubernetes.io/component": ROLE,
            "app.kubernetes.io/part-of": "perennial",
            "app.kubernetes.io/managed-by": "perennial",
            (label::ROLE): ROLE,
        },
    })
}

fn service_account(observed: &Observed) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(observed), "automountServiceAccountToken": false})
}

/// What the gateway reads: its routing table, and nothing else.
fn role(observed: &Observed) -> Value {
    let read = json!(["list", "watch"]);
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata(observed),
        "rules": [
            {"apiGroups": [GROUP], "resources": ["modeldeployments", "promptreleases"], "verbs": read},
            {"apiGroups": ["apps"], "resources": ["controllerrevisions"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ],
    })
}

fn role_binding(observed: &Observed) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata(observed),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": observed.namespace}],
    })
}

/// Callers reach the serving ports from anywhere; what was measured (inputs among it) only the operator reads, and what callers were answered only pods of this
/// namespace that measure.
fn network_policy(observed: &Observed) -> Value {
    let admin = match &observed.settings.operator_namespace {
        Some(namespace) => {
            json!({"ports": [{"protocol": "TCP", "port": GATEWAY_ADMIN_PORT}],
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]})
        }
        None => json!({"ports": [{"protocol": "TCP", "port": GATEWAY_ADMIN_PORT}]}),
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(observed),
        "spec": {
            "podSelector": {"matchLabels": selector()},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [
                    {"protocol": "TCP", "port": GATEWAY_SHARED_PORT},
                    {"protocol": "TCP", "port": GATEWAY_INTERNAL_PORT},
                    {"protocol": "TCP", "port": GATEWAY_RELEASE_PORTS.start, "endPort": GATEWAY_RELEASE_PORTS.end - 1},
                ]},
                admin,
                {"ports": [{"protocol": "TCP", "port": GATEWAY_MIRRORED_PORT}],
                 "from": [{"podSelector": {"matchLabels": {(label::ROLE): EVALUATOR}}}]},
            ],
        },
    })
}

fn service(observed: &Observed) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(observed),
        "spec": {
            "selector": selector(),
            "ports": [
                {"name": "http", "port": GATEWAY_SHARED_PORT, "targetPort": GATEWAY_SHARED_PORT, "protocol": "TCP"},
                {"name": "internal", "port": GATEWAY_INTERNAL_PORT, "targetPort": GATEWAY_INTERNAL_PORT, "protocol": "TCP"},
            ],
        },
    })
}

/// A name that is the addresses of all pods: each has seen other requests.
fn mirrored_service(observed: &Observed) -> Value {
    let mut metadata = metadata(observed);
    metadata["name"] = json!(mirrored::SERVICE);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            "selector": selector(),
            "ports": [{"name": "mirrored", "port": GATEWAY_MIRRORED_PORT, "targetPort": GATEWAY_MIRRORED_PORT, "protocol": "TCP"}],
        },
    })
}

/// One pod at a time; of a single one too, as a budget that never lets a node drain is worse than a short gap.
fn disruption_budget(observed: &Observed) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(observed),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
    })
}

fn deployment(observed: &Observed) -> Value {
    let probe = |path: &str, period: i64, failures: i64| json!({"httpGet": {"path": path, "port": "admin"}, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 2});
    let mut labels = metadata(observed)["labels"].clone();
    labels[label::ROLE] = json!(ROLE);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(observed),
        "spec": {
            "replicas": observed.settings.replicas.max(1),
            "selector": {"matchLabels": selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": true,
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "securityContext": {"runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": selector()},
                    }],
                    "containers": [{
                        "name": ROLE,
                        "image": observed.settings.image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["gateway"],
                        "env": [
                            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                        ],
                        "ports": [
                            {"name": "http", "containerPort": GATEWAY_SHARED_PORT, "protocol": "TCP"},
                            {"name": "admin", "containerPort": GATEWAY_ADMIN_PORT, "protocol": "TCP"},
                            {"name": "internal", "containerPort": GATEWAY_INTERNAL_PORT, "protocol": "TCP"},
                        ],
                        "startupProbe": probe("/healthz", 1, 60),
                        "readinessProbe": probe("/readyz", 2, 1),
                        "livenessProbe": probe("/healthz", 10, 3),
                        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                        "securityContext": restricted(),
                        "volumeMounts": [
                            {"name": "state", "mountPath": STATE_DIR},
                            {"name": "credentials", "mountPath": CREDENTIALS_DIR, "readOnly": true},
                        ],
                    }],
                    "volumes": [
                        {"name": "state", "emptyDir": {"sizeLimit": "64Mi"}},
                        {"name": "credentials", "projected": {"defaultMode": 0o440, "sources": credentials(observed)}},
                    ],
                },
            },
        },
    })
}

/// One optional source for each Secret: a release whose Secret isn't there doesn't keep the others from serving.
fn credentials(observed: &Observed) -> Vec<Value> {
    let keys: BTreeSet<(&str, &str)> = observed
        .credentials
        .iter()
        .map(|k| (k.secret_name.as_str(), k.key.as_str()))
        .collect();
    let secrets: BTreeSet<&str> = keys.iter().map(|(secret, _)| *secret).collect();
    secrets
        .into_iter()
        .map(|secret| {
            let items: Vec<Value> = keys
                .iter()
                .filter(|(s, _)| *s == secret)
                .map(|(_, key)| json!({"key": key, "path": format!("{secret}/{key}")}))
                .collect();
            json!({"secret": {"name": secret, "items": items, "optional": true}})
        })
        .collect()
}
