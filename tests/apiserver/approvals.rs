//! The chart's policy on approvals, as a real API server applies it: an approval is given in one's own name.

use std::time::{Duration, Instant};

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;

use crate::{
    harness::{Place, on_cluster},
    policy::{Policy, client_of},
};

/// Releases of the namespace, as this user sees them.
async fn releases(place: &Place, user: &str) -> Api<DynamicObject> {
    let client = client_of(user, &["system:masters"]).await;
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
        let policy = Policy::apply(&place, "approvals").await;
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

        policy.remove().await;
    });
}
