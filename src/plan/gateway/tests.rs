use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn observed(releases: usize) -> Observed {
    Observed {
        namespace: "ml".to_owned(),
        complete: true,
        releases,
        settings: Settings {
            image: "perennial:1".to_owned(),
            replicas: 1,
            operator_namespace: Some("perennial-system".to_owned()),
        },
        ..Observed::default()
    }
}

fn applied(observed: &Observed) -> Vec<Value> {
    plan(observed, Timestamp::UNIX_EPOCH)
        .actions
        .into_iter()
        .map(|action| match action {
            Action::Apply(object) => object,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn reference(kind: &str) -> Reference {
    Reference {
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        namespace: "ml".to_owned(),
        name: NAME.to_owned(),
        uid: "1".to_owned(),
    }
}

#[test]
fn a_namespace_with_a_release_has_a_gateway_that_only_reads_its_routing_table() {
    let objects = applied(&observed(1));
    let kinds: Vec<&str> = objects
        .iter()
        .map(|o| o["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "NetworkPolicy",
            "Service",
            "Service",
            "PodDisruptionBudget",
            "Deployment"
        ]
    );
    assert!(objects.iter().all(
        |o| o["metadata"]["name"].as_str().unwrap().starts_with(NAME)
            && o["metadata"]["namespace"] == "ml"
    ));
    for rule in objects[1]["rules"].as_array().unwrap() {
        assert_eq!(rule["verbs"], serde_json::json!(["list", "watch"]));
        assert_ne!(rule["resources"][0], "secrets");
    }
}

#[test]
fn the_objects_are_what_the_api_server_knows() {
    use k8s_openapi::api::{
        apps::v1::Deployment, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
    };
    let objects = applied(&observed(1));
    let deployment: Deployment = serde_json::from_value(objects[7].clone()).unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    // Eight seconds of taking connections, sixty of draining, sixteen of handing over.
    assert!(pod.termination_grace_period_seconds.unwrap() >= 84);
    let _: PodDisruptionBudget = serde_json::from_value(objects[6].clone()).unwrap();
    let policy: NetworkPolicy = serde_json::from_value(objects[3].clone()).unwrap();
    let ingress = policy.spec.unwrap().ingress.unwrap();
    assert_eq!(ingress.len(), 3);
    // What callers were answered, only pods of this namespace that measure.
    let from = ingress[2].from.as_ref().unwrap();
    assert!(from.len() == 1 && from[0].namespace_selector.is_none());
    assert!(from[0].pod_selector.is_some());
}

#[test]
fn a_missing_secret_of_one_release_does_not_keep_the_others_from_serving() {
    let mut observed = observed(2);
    for (secret, key) in [("b", "token"), ("a", "y"), ("a", "x"), ("a", "x")] {
        observed.credentials.push(KeyReference {
            secret_name: secret.to_owned(),
            key: key.to_owned(),
        });
    }
    let deployment = applied(&observed).pop().unwrap();
    let sources = &deployment["spec"]["template"]["spec"]["volumes"][1]["projected"]["sources"];
    assert_eq!(
        *sources,
        serde_json::json!([
            {"secret": {"name": "a", "items": [{"key": "x", "path": "a/x"}, {"key": "y", "path": "a/y"}], "optional": true}},
            {"secret": {"name": "b", "items": [{"key": "token", "path": "b/token"}], "optional": true}},
        ])
    );
}

#[test]
fn the_gateway_goes_with_the_last_release_and_not_before_the_stores_are_full() {
    let mut observed = observed(0);
    observed.children = vec![reference("Deployment"), reference("Service")];
    assert_eq!(
        plan(&observed, Timestamp::UNIX_EPOCH).actions,
        [
            Action::Delete(reference("Deployment")),
            Action::Delete(reference("Service"))
        ]
    );
    observed.complete = false;
    assert!(plan(&observed, Timestamp::UNIX_EPOCH).actions.is_empty());
}

proptest! {
    #[test]
    fn releases_of_a_namespace_end_with_ports_of_their_own(uids in proptest::collection::btree_set("[0-9a-f]{8}", 1..40), shared in 20000u16..20010) {
        // Everybody starts with one port, as if all had chosen at once; a few rounds of each looking at the others.
        let uids: Vec<String> = uids.into_iter().collect();
        let mut ports: Vec<u16> = uids.iter().map(|_| shared).collect();
        for _ in 0..3 {
            for i in 0..uids.len() {
                let others: Vec<(String, u16)> = (0..uids.len()).filter(|j| *j != i).map(|j| (uids[j].clone(), ports[j])).collect();
                ports[i] = port(&uids[i], Some(ports[i]), &others).unwrap();
            }
        }
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        prop_assert_eq!(distinct.len(), uids.len());
        prop_assert_eq!(ports[0], shared);
    }
}
