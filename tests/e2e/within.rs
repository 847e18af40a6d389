//! The operator within the namespaces that it was given.

use serde_json::{Value, json};

use crate::{
    installation::{GIVEN, NAMESPACE, among_killers},
    space::Space,
    words,
};

/// Whether the operator may do this.
async fn may(space: &Space, what: &[&str]) -> bool {
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:perennial");
    let arguments = [&["auth", "can-i", account.as_str()], what].concat();
    space.kubectl(&arguments, "").await.is_ok()
}

#[tokio::test]
async fn an_operator_that_was_given_namespaces_works_there_and_touches_nothing_else() {
    let _group = among_killers().await;
    let outside = Space::new("outside").await;
    let space = Space::enter("given").await;
    let mut deployment = words::deployment(json!({"steps": []}));
    deployment["spec"]["replicas"] = json!(1);
    outside.apply(&deployment.to_string()).await;
    outside.apply(&words::training("words-a", "first", 0)).await;
    words::served(&space, &deployment).await;
    let gateway = space
        .until_condition("Deployment", "perennial-gateway", 60, "Available", "True")
        .await;
    assert_eq!(
        gateway["spec"]["replicas"], 2,
        "gateway.replicas of the chart"
    );

    // Outside nobody looked, though there was time to.
    for (kind, name) in [("ModelDeployment", "words"), ("TrainingJob", "words-a")] {
        let object = outside.read(kind, name).await.unwrap();
        assert_eq!(object["status"], Value::Null, "{kind} was touched");
        assert_eq!(
            object["metadata"]["managedFields"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
    for kind in [
        "Job",
        "Deployment",
        "Service",
        "Pod",
        "ControllerRevision",
        "Event",
    ] {
        let found = outside.list(kind, "").await;
        assert!(found.is_empty(), "{found:?}");
    }

    // What it may do: its rules in the given namespaces, its lease in its own, nothing else and nothing cluster-wide.
    assert!(may(&space, &["create", "deployments.apps"]).await);
    assert!(!may(&outside, &["list", "pods"]).await);
    assert!(!may(&outside, &["list", "pods", "--all-namespaces"]).await);
    let own = Space::at(&space.client, NAMESPACE);
    assert!(!may(&own, &["list", "pods"]).await);
    assert!(may(&own, &["update", "leases.coordination.k8s.io/perennial"]).await);
    assert!(!may(&own, &["update", "leases.coordination.k8s.io/other"]).await);
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        let bindings = own.everywhere(kind).await;
        let ours = bindings.iter().filter(|binding| {
            let subjects = binding["subjects"].as_array();
            subjects
                .into_iter()
                .flatten()
                .any(|s| s["kind"] == "ServiceAccount" && s["name"] == "perennial")
        });
        let mut places: Vec<String> = ours
            .map(|binding| {
                binding["metadata"]["namespace"]
                    .as_str()
                    .unwrap_or("the cluster")
                    .to_owned()
            })
            .collect();
        places.retain(|place| !GIVEN.iter().any(|prefix| *place == Space::name_of(prefix)));
        let expected: &[&str] = if kind == "RoleBinding" {
            &[NAMESPACE]
        } else {
            &[]
        };
        assert_eq!(places, expected, "{kind}s of the operator");
    }
}
