//! What the operator asks of an API server, as a script: the one in memory and a real one must answer it alike.

use std::{collections::BTreeMap, future::Future};

use perennial::api::{MANAGER, STATUS_MANAGER};
use serde_json::{Value, json};

/// A request. In the body `$uid` and `$version` stand for those of the object as it was answered last, `$stale` for the version before.
pub struct Request {
    pub method: &'static str,
    /// Below the namespace, with what comes before it: `apps/v1/deployments/x`.
    pub path: &'static str,
    pub query: String,
    pub content_type: &'static str,
    pub body: Value,
    /// What is compared of the answer, beside its code, reason, generation, and whether version and uid are new.
    show: &'static [&'static str],
}

impl Request {
    /// The whole path.
    pub fn url(&self, namespace: &str) -> String {
        let mut parts = self.path.split('/');
        let group = parts.next().unwrap_or_default();
        let version = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        let base = if group == "core" {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        format!("{base}/namespaces/{namespace}/{}", rest.join("/"))
    }
}

fn request(
    method: &'static str,
    path: &'static str,
    body: Value,
    show: &'static [&'static str],
) -> Request {
    Request {
        method,
        path,
        query: String::new(),
        content_type: "application/json",
        body,
        show,
    }
}

fn create(path: &'static str, body: Value, show: &'static [&'static str]) -> Request {
    Request {
        query: format!("fieldManager={MANAGER}"),
        ..request("POST", path, body, show)
    }
}

fn apply(path: &'static str, body: Value, show: &'static [&'static str]) -> Request {
    Request {
        query: format!("fieldManager={MANAGER}&force=true"),
        content_type: "application/apply-patch+yaml",
        ..request("PATCH", path, body, show)
    }
}

fn status(path: &'static str, body: Value) -> Request {
    Request {
        query: format!("fieldManager={STATUS_MANAGER}"),
        ..request(
            "PUT",
            path,
            body,
            &["/status/message", "/spec/replicas", "/metadata/labels"],
        )
    }
}

fn get(path: &'static str, show: &'static [&'static str]) -> Request {
    request("GET", path, Value::Null, show)
}

fn delete(path: &'static str, uid: &str) -> Request {
    request(
        "DELETE",
        path,
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {"uid": uid}}),
        &[],
    )
}

/// All of it.
pub fn script() -> Vec<Request> {
    let release = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m", "labels": {"a": "b"}},
        "spec": {"replicas": 2, "server": {"template": {"spec": {"containers": [{"name": "server", "image": "s:1"}]}}}},
        "status": {"message": "not taken from a POST"}});
    let of_release = |version: &str, uid: &str, message: &str| {
        json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m", "uid": uid, "resourceVersion": version},
            "status": {"message": message, "phase": "Healthy", "attempts": 0, "replicas": 0}})
    };
    let service = |labels: Value, port: i64, uid: Option<&str>| {
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": labels},
            "spec": {"selector": {"x": "y"}, "ports": [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}]}});
        if let Some(uid) = uid {
            service["metadata"]["uid"] = json!(uid);
        }
        service
    };
    let revision = |data: i64, annotations: Value| json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r", "annotations": annotations}, "revision": 1, "data": {"n": data}});
    let deployment = |replicas: i64, labels: Value, selector: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"x": selector}},
                "template": {"metadata": {"labels": {"x": selector}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
    };
    let config = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "immutable": true, "data": {"k": text}});
    const LABELS: &[&str] = &[
        "/metadata/labels",
        "/spec/ports/0/targetPort",
        "/spec/selector",
    ];
    const MARKS: &[&str] = &["/metadata/annotations", "/data"];
    const PODS: &[&str] = &["/spec/replicas", "/metadata/labels"];
    let job = |image: &str| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"backoffLimit": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}}})
    };
    vec![
        get("perennial.dev/v1alpha1/modeldeployments/m", &[]),
        create(
            "perennial.dev/v1alpha1/modeldeployments",
            release.clone(),
            &["/status", "/spec/replicas", "/metadata/labels"],
        ),
        create("perennial.dev/v1alpha1/modeldeployments", release, &[]),
        status(
            "perennial.dev/v1alpha1/modeldeployments/m/status",
            of_release("$version", "$uid", "one"),
        ),
        status(
            "perennial.dev/v1alpha1/modeldeployments/m/status",
            of_release("$version", "$uid", "one"),
        ),
        status(
            "perennial.dev/v1alpha1/modeldeployments/m/status",
            of_release("$version", "$uid", "two"),
        ),
        status(
            "perennial.dev/v1alpha1/modeldeployments/m/status",
            of_release("$stale", "$uid", "three"),
        ),
        status(
            "perennial.dev/v1alpha1/modeldeployments/m/status",
            of_release("$version", "other", "four"),
        ),
        status(
            "perennial.dev/v1alpha1/modeldeployments/n/status",
            json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "n"},
                "status": {"message": "nobody", "phase": "Healthy", "attempts": 0, "replicas": 0}}),
        ),
        get(
            "perennial.dev/v1alpha1/modeldeployments/m",
            &["/status/message", "/spec/replicas"],
        ),
        apply(
            "core/v1/services/s",
            service(
                json!({"a": "1", "b": "2"}),
                8080,
                Some("11111111-1111-4111-8111-111111111111"),
            ),
            &[],
        ),
        apply(
            "core/v1/services/s",
            service(json!({"a": "1", "b": "2"}), 8080, None),
            LABELS,
        ),
        apply(
            "core/v1/services/s",
            service(json!({"a": "1", "b": "2"}), 8080, Some("$uid")),
            LABELS,
        ),
        apply(
            "core/v1/services/s",
            service(json!({"a": "1"}), 8081, Some("$uid")),
            LABELS,
        ),
        apply(
            "core/v1/services/s",
            service(
                json!({"a": "2"}),
                8081,
                Some("11111111-1111-4111-8111-111111111111"),
            ),
            &[],
        ),
        apply(
            "apps/v1/controllerrevisions/r",
            revision(1, json!({"x": "1"})),
            MARKS,
        ),
        apply(
            "apps/v1/controllerrevisions/r",
            revision(1, json!({"y": "1"})),
            MARKS,
        ),
        apply(
            "apps/v1/controllerrevisions/r",
            revision(2, json!({"y": "1"})),
            &[],
        ),
        apply(
            "apps/v1/deployments/d",
            deployment(1, json!({"a": "1"}), "y"),
            PODS,
        ),
        apply(
            "apps/v1/deployments/d",
            deployment(3, json!({"a": "1"}), "y"),
            PODS,
        ),
        apply(
            "apps/v1/deployments/d",
            deployment(3, json!({"b": "1"}), "y"),
            PODS,
        ),
        apply(
            "apps/v1/deployments/d",
            deployment(3, json!({"b": "1"}), "z"),
            &[],
        ),
        create(
            "core/v1/configmaps",
            config("one"),
            &["/data", "/immutable"],
        ),
        create("core/v1/configmaps", config("two"), &[]),
        apply("core/v1/configmaps/c", config("two"), &[]),
        create("batch/v1/jobs", job("i:1"), &[]),
        apply("batch/v1/jobs/j", job("i:2"), &[]),
        delete(
            "core/v1/configmaps/c",
            "11111111-1111-4111-8111-111111111111",
        ),
        delete("core/v1/configmaps/c", "$uid"),
        delete("core/v1/configmaps/c", "$uid"),
        get("core/v1/configmaps/c", &[]),
        create("core/v1/configmaps", config("three"), &["/data"]),
    ]
}

/// The answers to the script, each as a line, from a server whose answer to a request `send` gives.
pub async fn answers<F: Future<Output = (u16, Value)>>(
    send: impl Fn(Request, String) -> F,
) -> Vec<String> {
    // Uid, version and the version before, by the object's path.
    let mut known: BTreeMap<String, (String, String, String)> = BTreeMap::new();
    let mut lines = Vec::new();
    for request in script() {
        let mut place: Vec<&str> = request.path.split('/').collect();
        let name = request
            .body
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if request.method == "POST" {
            place.push(name.as_deref().unwrap_or_default());
        }
        let place = place
            .into_iter()
            .filter(|p| *p != "status")
            .collect::<Vec<_>>()
            .join("/");
        let (uid, version, stale) = known.get(&place).cloned().unwrap_or_default();
        let body = request
            .body
            .to_string()
            .replace("$uid", &uid)
            .replace("$version", &version)
            .replace("$stale", &stale);
        let (what, show) = (format!("{} {}", request.method, request.path), request.show);
        let (code, answer) = send(request, body).await;
        let text = |pointer: &str| {
            answer
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let mut line = format!("{what}: {code}");
        if code >= 400 {
            line.push_str(&format!(" {}", text("/reason")));
        } else if answer["kind"] != "Status" {
            let (now_uid, now_version) = (text("/metadata/uid"), text("/metadata/resourceVersion"));
            let word = |same: bool, what: &str| {
                if same {
                    format!(" same {what}")
                } else {
                    format!(" new {what}")
                }
            };
            if !what.starts_with("DELETE") {
                line.push_str(&word(now_uid == uid, "uid"));
                line.push_str(&word(now_version == version, "version"));
                let generation = answer
                    .pointer("/metadata/generation")
                    .filter(|_| !place.starts_with("core"));
                line.push_str(&format!(
                    " generation {}",
                    generation.unwrap_or(&Value::Null)
                ));
                let before = if now_version == version {
                    stale
                } else {
                    version
                };
                known.insert(place, (now_uid, now_version, before));
            }
            for pointer in show {
                line.push_str(&format!(
                    " {pointer}={}",
                    answer.pointer(pointer).unwrap_or(&Value::Null)
                ));
            }
        }
        lines.push(line);
    }
    lines
}
