//! The chart's policy on approvals, as a real API server applies it: an approval is given in one's own name.

use std::time::{Duration, Instant};

use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::harness::{Place, config, on_cluster};

/// The chart's second policy, under another name; nothing in it depends on values.
fn policy(name: &str) -> Value {
    let chart = include_str!("../../charts/perennial/templates/admission.yaml");
    let document = chart
        .split("---\n")
        .find(|d| d.contains("-approvals\n"))
        .expect("the policy on approvals");
    let lines = document.split("{{- range").next().unwrap_or_default();
    let lines: Vec<&str> = lines
        .lines()
        .filter(|line| !line.contains("labels: {{-"))
        .collect();
    let mut policy: Value =
        serde_yaml::from_str(&lines.join("\n").replace("{{ $name }}", "it")).expect("yaml");
    policy["metadata"]["name"] = json!(name);
    policy
}

async fn apply(client: &Client, kind: &str, object: &Value) {
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let parameters = PatchParams::apply("tests").force();
    api.patch(name, &parameters, &Patch::Apply(object))
        .await
        .unwrap();
}

async fn remove(client: &Client, kind: &str, name: &str) {
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let _ = api.delete(name, &Default::default()).await;
}

/// Releases of the namespace, as this user sees them.
async fn releases(place: &Place, user: &str) -> Api<DynamicObject> {
    let mut config: Config = config().await;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    let client = Client::try_from(config).unwrap();
    let gvk = GroupVersionKind::gvk("perennial.dev", "v1alpha1", "PromptRelease");
    Api::namespaced_with(client, &place.namespace, &ApiResource::from_gvk(&gvk))
}

/// What the API server says when they write this: `None` if it took it.
async fn refusal(api: &Api<DynamicObject>, annotation: &str, value: &str) -> Option<String> {
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    let patched = api
        .patch("p", &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    patched.err().map(|error| error.to_string())
}

#[test]
fn an_approval_is_admitted_only_in_its_authors_own_name() {
    on_cluster(|place| async move {
        let name = format!("approvals-{}", place.namespace);
        apply(&place.client, "ValidatingAdmissionPolicy", &policy(&name)).await;
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": place.namespace}}}},
        });
        apply(&place.client, "ValidatingAdmissionPolicyBinding", &binding).await;
        place
            .create(&json!({
                "apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease",
                "metadata": {"name": "p", "namespace": place.namespace},
                "spec": {"prompt": {"messages": [{"role": "user", "content": "hello"}]},
                         "backend": {"url": "http://nowhere.example", "model": "m"}},
            }))
            .await
            .unwrap();
        let approve = "perennial.dev/approve";
        let (jane, john) = (
            releases(&place, "jane").await,
            releases(&place, "john").await,
        );
        let of_team = releases(&place, "team/jane").await;

        // A policy takes a moment to be in force.
        let deadline = Instant::now() + Duration::from_secs(60);
        // Each time another value: what stands there already isn't judged again.
        let mut attempt = 0;
        let refused = loop {
            attempt += 1;
            let value = format!("abc.{attempt}/jane");
            if let Some(refused) = refusal(&john, approve, &value).await {
                break refused;
            }
            assert!(Instant::now() < deadline, "john approves as jane");
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        assert!(refused.contains("in one's own name"), "{refused}");
        assert!(refused.contains("john"), "{refused}");

        assert_eq!(refusal(&jane, approve, "abc/jane").await, None);
        assert_eq!(refusal(&jane, approve, "abc.2/jane").await, None);
        assert!(refusal(&jane, approve, "abc/team/jane").await.is_some());
        assert!(refusal(&jane, approve, "jane").await.is_some());
        assert_eq!(refusal(&of_team, approve, "abc/team/jane").await, None);
        // Others go on writing what isn't theirs to approve.
        assert_eq!(refusal(&john, "note", "seen").await, None);

        remove(&place.client, "ValidatingAdmissionPolicyBinding", &name).await;
        remove(&place.client, "ValidatingAdmissionPolicy", &name).await;
    });
}
