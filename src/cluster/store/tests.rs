use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::*;

fn store() -> Store<ConfigMap> {
    Store::new(Kind::ConfigMap, &[String::new()])
}

fn map(name: &str, version: u64, label: &str, owner: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {
        "namespace": "ns", "name": name, "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
        "labels": {"perennial.dev/revision": label},
        "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": owner, "uid": owner, "controller": true}],
    }}))
    .unwrap()
}

fn put(store: &Store<ConfigMap>, object: ConfigMap) -> Vec<Change> {
    store.put("", Entry::Valid(Box::new(object)))
}

fn names(objects: &[Arc<ConfigMap>]) -> Vec<String> {
    objects
        .iter()
        .filter_map(|o| o.metadata.name.clone())
        .collect()
}

#[test]
fn a_store_is_complete_only_after_its_first_list_and_keeps_the_old_one_while_a_new_one_comes() {
    let store = store();
    store.begin("");
    put(&store, map("a", 1, "x", "o"));
    put(&store, map("b", 2, "x", "o"));
    assert!(!store.ready_in(""));
    store.complete("");
    assert!(store.ready_in(""));
    store.begin("");
    put(&store, map("b", 2, "x", "o"));
    assert_eq!(
        store.keys().len(),
        2,
        "what was known stays until the list is complete"
    );
    assert!(store.ready_in(""));
    let gone = store.complete("");
    assert_eq!(gone.len(), 1);
    assert!(gone[0].deleted && gone[0].key.name == "a");
    assert_eq!(store.keys().len(), 1);
}

#[test]
fn indexes_follow_labels_owners_and_deletes() {
    let store = store();
    put(&store, map("a", 1, "x", "o"));
    put(&store, map("b", 2, "x", "p"));
    assert_eq!(
        names(&store.labelled("ns", "perennial.dev/revision", "x")),
        ["a", "b"]
    );
    assert_eq!(names(&store.owned_by("o")), ["a"]);
    let changes = put(&store, map("a", 3, "y", "p"));
    assert_eq!(
        changes.len(),
        2,
        "the old owner hears of it too: {changes:?}"
    );
    assert_eq!(changes[0].owner.as_ref().unwrap().uid, "o");
    assert_eq!(
        names(&store.labelled("ns", "perennial.dev/revision", "x")),
        ["b"]
    );
    assert_eq!(names(&store.owned_by("p")), ["a", "b"]);
    store.remove("", &map("a", 4, "y", "p").metadata);
    assert_eq!(names(&store.owned_by("p")), ["b"]);
    assert_eq!(store.seen("ns"), 4);
    assert!(store.in_namespace("n").is_empty() && store.in_namespace("nsx").is_empty());
}

#[test]
fn what_is_known_already_is_no_change() {
    let store = store();
    assert_eq!(put(&store, map("a", 1, "x", "o")).len(), 1);
    assert!(put(&store, map("a", 1, "x", "o")).is_empty());
    let mut again = map("a", 2, "x", "o");
    again.metadata.uid = Some("another".to_owned());
    let changes = put(&store, again);
    assert!(
        changes.iter().any(|c| c.deleted && c.uid == "uid-a"),
        "{changes:?}"
    );
    assert!(
        changes.iter().any(|c| !c.deleted && c.uid == "another"),
        "{changes:?}"
    );
}

#[test]
fn an_object_that_does_not_decode_is_known_to_be_there_and_stops_no_other() {
    let store = store();
    put(&store, map("good", 1, "x", "o"));
    let broken = map("broken", 2, "x", "o").metadata;
    store.put(
        "",
        Entry::Invalid(Box::new(broken.clone()), "wrong".to_owned()),
    );
    let key = Key::of(&broken);
    assert_eq!(store.invalid(&key).as_deref(), Some("wrong"));
    assert!(store.get(&key).is_none());
    assert_eq!(store.keys().len(), 1);
    put(&store, map("broken", 3, "x", "o"));
    assert!(
        store.invalid(&key).is_none() && store.get(&key).is_some(),
        "mended"
    );
}

#[test]
fn namespaces_are_complete_one_by_one() {
    let store: Store<ConfigMap> =
        Store::new(Kind::ConfigMap, &["ns".to_owned(), "other".to_owned()]);
    store.begin("ns");
    store.put("ns", Entry::Valid(Box::new(map("a", 7, "x", "o"))));
    store.complete("ns");
    assert!(store.ready_in("ns") && !store.ready_in("other"));
    store.begin("other");
    assert!(
        store.complete("other").is_empty(),
        "objects of another namespace aren't gone"
    );
    assert!(store.ready_in("other") && !store.ready_in("third"));
    assert_eq!((store.seen("ns"), store.seen("other")), (7, 0));
}
