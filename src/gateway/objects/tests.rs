//! What is taken up of the cluster's objects.

use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::{parse::SERVICE_NAME, *};

fn object(value: Value) -> Box<DynamicObject> {
    Box::new(serde_json::from_value(value).unwrap())
}

fn deployment(weight: i32) -> Value {
    json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"name": "m", "uid": "u"},
        "spec": {"server": {"somethingNew": 1}},
        "status": {
            "stable": {"revision": "aaaaaaaaaa", "version": "v1", "replicas": 1}, "candidate": {"revision": "bbbbbbbbbb"},
            "rollout": {"weight": weight, "epoch": 4, "state": "AStateOfTheFuture"},
            "gateway": {"port": 20001, "total": 1},
        },
    })
}

#[test]
fn a_status_that_makes_no_sense_leaves_what_was_known_in_effect() {
    let mut objects = Objects::default();
    let (changed, errors) = objects.apply(Change::Put(Source::Models, object(deployment(10))));
    assert!(changed && errors.is_empty(), "{errors:?}");
    let before = objects.clone();
    for broken in [
        json!({"rollout": 7}),
        json!({"rollout": {"weight": 101}}),
        json!("x"),
    ] {
        let mut deployment = deployment(50);
        deployment["status"] = broken;
        let mut other = deployment.clone();
        other["metadata"]["name"] = json!("other");
        other["status"] = Value::Null;
        let all = vec![*object(deployment), *object(other)];
        let (_, errors) = objects.apply(Change::All(Source::Models, all));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let key = (Kind::Model, "m".to_owned());
        assert_eq!(objects.releases.get(&key), before.releases.get(&key));
        assert!(
            objects
                .releases
                .contains_key(&(Kind::Model, "other".to_owned()))
        );
    }
}

#[test]
fn revisions_and_slices_of_others_are_not_taken_up() {
    let mut objects = Objects::default();
    let revision = |owner: &str, name: &str, data: Value| {
        object(json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "x", "kind": owner, "name": "m", "uid": "u", "controller": true}]}, "data": data}))
    };
    let server = json!({"server": {"template": {"spec": {"containers": [{"name": "server"}]}}, "port": 9000},
        "model": {"version": "v1", "uri": "x"}, "helperImage": "h"});
    objects.apply(Change::Put(
        Source::Revisions,
        revision("StatefulSet", "m-1", json!({})),
    ));
    assert!(objects.revisions.is_empty());
    let (_, errors) = objects.apply(Change::Put(
        Source::Revisions,
        revision("ModelDeployment", "m-aaaaaaaaaa", server),
    ));
    assert!(errors.is_empty(), "{errors:?}");
    match &objects.revisions[&(Kind::Model, "m".into(), "aaaaaaaaaa".into())] {
        RevisionObject::Model(model) => {
            assert_eq!((model.port, model.version.as_deref()), (9000, Some("v1")))
        }
        RevisionObject::Prompt(_) => panic!("it is a model's"),
    }
    let slice = |service: &str| {
        object(
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{service}-x"), "labels": {(SERVICE_NAME): service}},
            "ports": [{"name": "http", "port": 9000}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]}),
        )
    };
    objects.apply(Change::Put(Source::Endpoints, slice("postgres")));
    objects.apply(Change::Put(Source::Endpoints, slice("m-aaaaaaaaaa")));
    let seen: Vec<_> = objects
        .slices
        .values()
        .map(|s| (s.ready.len(), s.port))
        .collect();
    assert_eq!(seen, [(1, Some(9000))]);
    let text = serde_json::to_string(&objects).unwrap();
    assert_eq!(serde_json::from_str::<Objects>(&text).unwrap(), objects);
    assert!(
        objects
            .apply(Change::Gone(Source::Revisions, "m-aaaaaaaaaa".into()))
            .0
    );
    assert!(objects.revisions.is_empty());
}
