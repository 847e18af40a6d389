//! The chart's admission policies on a real API server, for one namespace.

use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::harness::{Place, config};

/// A policy of the chart that holds in one namespace.
pub struct Policy {
    client: Client,
    name: String,
}

impl Policy {
    /// Renders the chart with Helm and applies the policy that it calls `perennial-<which>`, for this namespace alone.
    pub async fn apply(place: &Place, which: &str) -> Self {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/perennial");
        let rendered = std::process::Command::new("helm")
            .args(["template", "perennial", chart])
            .args(["--show-only", "templates/admission.yaml"])
            .output()
            .expect("helm is among the cluster's programs");
        assert!(
            rendered.status.success(),
            "{}",
            String::from_utf8_lossy(&rendered.stderr)
        );
        let text = String::from_utf8(rendered.stdout).unwrap();
        let wanted = format!("perennial-{which}");
        let mut policy = text
            .split("---\n")
            .filter_map(|document| serde_yaml::from_str::<Value>(document).ok())
            .find(|d| {
                d["kind"] == "ValidatingAdmissionPolicy" && d["metadata"]["name"] == wanted.as_str()
            })
            .expect("the chart has the policy");
        let name = format!("{which}-{}", place.namespace);
        policy["metadata"]["name"] = json!(name);
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {
                "matchLabels": {"kubernetes.io/metadata.name": place.namespace}}}},
        });
        let applied = Self {
            client: place.client.clone(),
            name,
        };
        for object in [policy, binding] {
            let kind = object["kind"].as_str().unwrap();
            applied
                .api(kind)
                .patch(
                    &applied.name,
                    &PatchParams::apply("tests").force(),
                    &Patch::Apply(&object),
                )
                .await
                .unwrap();
        }
        applied
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(self.client.clone(), &ApiResource::from_gvk(&gvk))
    }

    /// Takes it away again.
    pub async fn remove(self) {
        for kind in [
            "ValidatingAdmissionPolicyBinding",
            "ValidatingAdmissionPolicy",
        ] {
            let _ = self.api(kind).delete(&self.name, &Default::default()).await;
        }
    }
}

/// A client that is this user, in these groups.
pub async fn client_of(user: &str, groups: &[&str]) -> Client {
    let mut config = config().await;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(groups.iter().map(|g| (*g).to_owned()).collect());
    Client::try_from(config).unwrap()
}
