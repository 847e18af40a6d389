//! The chart's policy on authors, as a real API server applies it: whoever makes an object of ours may create pods, and get every
//! Secret that the object names.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::{
    harness::{Place, on_cluster},
    policy::{Policy, client_of},
};

/// Where a kind names Secrets, as its schema has it, and an object that names `the-secret` there.
fn places() -> Vec<(&'static str, &'static str, Value)> {
    let secret = || json!({"secretName": "the-secret"});
    let container = |name: &str| json!({"spec": {"containers": [{"name": name, "image": "x", "command": ["c"]}]}});
    let job =
        || json!({"model": {"name": "m", "output": "s3://b/m"}, "template": container("trainer")});
    let with = |mut spec: Value, pointer: &str, value: Value| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).expect("the parent is there")[key] = value;
        spec
    };
    let datasets = || json!([{"name": "d", "uri": "s3://b/d", "credentials": secret()}]);
    let model = || json!({"server": {"template": container("server")}});
    let taken = |more: Value| {
        with(
            model(),
            "/retraining",
            json!({"promotion": "Manual", "template": {"spec": more}}),
        )
    };
    let evaluation = || {
        json!({"target": {"modelDeployment": {"name": "m"}}, "dataset": {"uri": "s3://b/d", "label": "l"},
               "gates": [{"metric": "accuracy", "min": 0.5}]})
    };
    let prompt = || json!({"prompt": {"messages": [{"role": "user", "content": "hello"}]}, "backend": {"url": "http://nowhere.example/v1", "model": "m"}});
    let key = || json!({"secretName": "the-secret", "key": "k"});
    let judged = |more: Value| {
        let mut judge = json!({"name": "tone", "rubric": "Is it polite?", "backend": {"url": "http://judge/v1", "model": "j"}});
        judge
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"target": {"promptRelease": {"name": "p"}}, "dataset": {"uri": "s3://b/d.jsonl"},
               "evaluators": [{"judge": judge}], "gates": [{"metric": "tone", "min": 0.5}]})
    };
    let predictions = json!({"uri": "s3://b/p", "credentials": secret()});
    vec![
        (
            "TrainingJob",
            "datasets[].credentials.secretName",
            with(job(), "/datasets", datasets()),
        ),
        (
            "TrainingJob",
            "model.credentials.secretName",
            with(job(), "/model/credentials", secret()),
        ),
        (
            "ModelDeployment",
            "model.credentials.secretName",
            with(
                model(),
                "/model",
                json!({"uri": "s3://b/m", "credentials": secret()}),
            ),
        ),
        (
            "ModelDeployment",
            "server.tls.caSecretName",
            with(
                model(),
                "/server/tls",
                json!({"caSecretName": "the-secret"}),
            ),
        ),
        (
            "ModelDeployment",
            "monitoring.payloadLog.credentials.secretName",
            with(
                model(),
                "/monitoring",
                json!({"payloadLog": {"uri": "s3://b/log", "credentials": secret()}}),
            ),
        ),
        (
            "ModelDeployment",
            "traffic.tls.secretName",
            with(model(), "/traffic", json!({"tls": secret()})),
        ),
        (
            "ModelDeployment",
            "retraining.template.spec.datasets[].credentials.secretName",
            taken(with(job(), "/datasets", datasets())),
        ),
        (
            "ModelDeployment",
            "retraining.template.spec.model.credentials.secretName",
            taken(with(job(), "/model/credentials", secret())),
        ),
        (
            "PromptRelease",
            "backend.credentials.secretName",
            with(
                prompt(),
                "/backend/credentials",
                json!({"secretName": "the-secret", "key": "k"}),
            ),
        ),
        (
            "PromptRelease",
            "traffic.tls.secretName",
            with(prompt(), "/traffic", json!({"tls": secret()})),
        ),
        (
            "Evaluation",
            "dataset.credentials.secretName",
            with(evaluation(), "/dataset/credentials", secret()),
        ),
        (
            "Evaluation",
            "reference.credentials.secretName",
            with(
                evaluation(),
                "/reference",
                json!({"uri": "s3://b/r", "credentials": secret()}),
            ),
        ),
        (
            "Evaluation",
            "baseline.predictions.credentials.secretName",
            with(
                with(evaluation(), "/dataset/key", json!(["id"])),
                "/baseline",
                json!({"predictions": {"uri": "s3://b/before", "credentials": secret()}}),
            ),
        ),
        (
            "Evaluation",
            "outputCredentials.secretName",
            with(
                with(evaluation(), "/output", json!("s3://b/o")),
                "/outputCredentials",
                secret(),
            ),
        ),
        (
            "Evaluation",
            "target.predictions.credentials.secretName",
            with(evaluation(), "/target", json!({"predictions": predictions})),
        ),
        (
            "Evaluation",
            "target.endpoint.credentials.secretName",
            with(
                evaluation(),
                "/target",
                json!({"endpoint": {"url": "http://m/v2", "protocol": "OpenInference", "credentials": key()}}),
            ),
        ),
        (
            "Evaluation",
            "evaluators[].judge.backend.credentials.secretName",
            judged(
                json!({"backend": {"url": "http://judge/v1", "model": "j", "credentials": key()}}),
            ),
        ),
        (
            "Evaluation",
            "evaluators[].judge.calibration.dataset.credentials.secretName",
            judged(
                json!({"calibration": {"dataset": {"uri": "s3://b/c.jsonl", "credentials": secret()}}}),
            ),
        ),
    ]
}

/// Paths below `spec` of a CRD's schema where a Secret is named, but for what pod templates leave open.
fn named_in(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let here = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if matches!(name.as_str(), "secretName" | "caSecretName") {
            found.insert(here);
        } else {
            named_in(property, &here, found);
            named_in(&property["items"], &format!("{here}[]"), found);
        }
    }
}

#[test]
fn every_field_that_names_a_secret_is_in_the_table_below() {
    for crd in perennial::api::crds() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let mut found = BTreeSet::new();
        named_in(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
            "",
            &mut found,
        );
        let table: BTreeSet<String> = places()
            .iter()
            .filter(|(k, ..)| *k == kind)
            .map(|(_, path, _)| (*path).to_owned())
            .collect();
        assert_eq!(
            found, table,
            "{kind}: the policy in charts/perennial/templates/admission.yaml must ask about each of them"
        );
    }
}

/// Lets a user do this in the namespace.
async fn grant(place: &Place, user: &str, rules: Value) {
    let name = user.replace(':', "-");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    place.create(&role).await.unwrap();
    place.create(&binding).await.unwrap();
}

/// What the API server says when this client makes the object, which it only tries: `None` if it would take it.
async fn refusal(client: &Client, place: &Place, kind: &str, spec: &Value) -> Option<String> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("perennial.dev", "v1alpha1", kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &place.namespace, &resource);
    let object = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": kind, "metadata": {"name": "o", "namespace": place.namespace}, "spec": spec});
    let tried = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    api.create(&tried, &serde_json::from_value(object).unwrap())
        .await
        .err()
        .map(|error| error.to_string())
}

#[test]
fn an_object_is_admitted_only_if_its_author_may_create_pods_and_get_each_secret_it_names() {
    on_cluster(|place| async move {
        let policy = Policy::apply(&place, "authors").await;
        let ours = json!({"apiGroups": ["perennial.dev"], "resources": ["*"], "verbs": ["create", "update", "patch"]});
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]});
        let secret = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["the-secret"], "verbs": ["get"]});
        grant(&place, "writer", json!([ours])).await;
        grant(&place, "author", json!([ours, pods])).await;
        grant(&place, "owner", json!([ours, pods, secret])).await;
        let (writer, author, owner) = (
            client_of("writer", &[]).await,
            client_of("author", &[]).await,
            client_of("owner", &[]).await,
        );

        // A policy takes a moment to be in force.
        let (kind, _, plain) = &places()[0];
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let refused = refusal(&writer, &place, kind, plain).await;
            if refused
                .as_ref()
                .is_some_and(|r| r.contains("may not create pods"))
            {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "someone who may not create pods gets some made: {refused:?}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for (kind, path, spec) in places() {
            let refused = refusal(&writer, &place, kind, &spec)
                .await
                .unwrap_or_default();
            assert!(
                refused.contains("writer may not create pods in namespace"),
                "{kind} {path}: {refused}"
            );
            let refused = refusal(&author, &place, kind, &spec)
                .await
                .unwrap_or_default();
            assert!(
                refused.contains("author may not get Secret the-secret in namespace"),
                "{kind} {path}: {refused}"
            );
            assert_eq!(
                refusal(&owner, &place, kind, &spec).await,
                None,
                "{kind} {path}: the owner of the Secret"
            );
        }
        policy.remove().await;
    });
}
