//! ConfigMaps that the server's template names: part of the revision, read from copies.

use serde_json::{Value, json};

use super::world::{World, quick};
use crate::plan::{Action, model_deployment::plan, revision::HASH_LENGTH};

const V1: &str = "20130401-000000-aaaaaa";

/// A release whose server reads ConfigMap `settings`, and `extra` if that is there.
fn reading() -> World {
    let spec = quick(json!({"server": {"template": {"spec": {
        "containers": [{
            "name": "server", "image": "s:1",
            "envFrom": [{"configMapRef": {"name": "extra", "optional": true}}],
            "env": [{"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}}],
        }],
        "volumes": [{"name": "v", "configMap": {"name": "settings"}}],
    }}}}));
    let mut world = World::new(spec);
    world.train("q1", V1, "sha256:d1");
    world
}

fn stable(world: &World) -> String {
    let stable = world.status().stable.as_ref().expect("a stable revision");
    stable.revision.clone()
}

/// What the pods of a revision read: ConfigMap of the volume, of `env`, of `envFrom`.
fn read(world: &World, hash: &str) -> [String; 3] {
    let server = world
        .object("Deployment", &format!("churn-{hash}"))
        .unwrap();
    let spec = &server["spec"]["template"]["spec"];
    [
        "/volumes/0/configMap/name",
        "/containers/0/env/0/valueFrom/configMapKeyRef/name",
        "/containers/0/envFrom/0/configMapRef/name",
    ]
    .map(|place| {
        let name = spec.pointer(place).and_then(Value::as_str);
        name.unwrap_or_default().to_owned()
    })
}

fn level(world: &World, copy: &str) -> Value {
    let copy = world.object("ConfigMap", copy).expect("the copy");
    assert_eq!(copy["immutable"], true);
    copy["data"]["level"].clone()
}

fn serving(content: Value) -> World {
    let mut world = reading();
    world.config_maps.insert("settings".to_owned(), content);
    world.pass(3);
    world
}

#[test]
fn pods_read_an_immutable_copy() {
    let world = serving(json!({"level": "1"}));
    let hash = stable(&world);
    let (copy, extra) = (format!("churn-{hash}-1"), format!("churn-{hash}-0"));
    assert_eq!(read(&world, &hash), [copy.clone(), copy.clone(), extra]);
    assert_eq!(level(&world, &copy), "1");
    // What is optional and wasn't there stays away, even should it come.
    assert_eq!(world.names("ConfigMap"), [copy]);
}

#[test]
fn another_content_is_another_revision_and_the_old_one_comes_back_from_its_copy() {
    let mut world = serving(json!({"level": "1"}));
    let first = stable(&world);
    world
        .config_maps
        .insert("settings".to_owned(), json!({"level": "2"}));
    world.step(usize::MAX);
    let candidate = world.status().candidate.clone().expect("a candidate");
    assert_ne!(candidate.revision, first);
    world.pass(3);
    let second = stable(&world);
    assert_eq!(second, candidate.revision);
    assert_eq!(level(&world, &format!("churn-{first}-1")), "1");
    assert_eq!(level(&world, &format!("churn-{second}-1")), "2");
    world.annotate("perennial.dev/rollback-to", format!("{first}/1"));
    world.pass(3);
    assert_eq!(stable(&world), first);
    assert_eq!(read(&world, &first)[0], format!("churn-{first}-1"));
    assert_eq!(level(&world, &format!("churn-{first}-1")), "1");
}

#[test]
fn what_is_optional_makes_a_revision_when_it_comes() {
    let mut world = serving(json!({"level": "1"}));
    let first = stable(&world);
    world
        .config_maps
        .insert("extra".to_owned(), json!({"a": "b"}));
    world.pass(3);
    assert_ne!(stable(&world), first);
    let copy = &read(&world, &stable(&world))[2];
    assert!(world.object("ConfigMap", copy).is_some());
}

#[test]
fn what_is_missing_is_named_once_and_healed_when_it_comes() {
    let mut world = reading();
    world.settle();
    for (content, words) in [
        (
            None,
            "ConfigMap settings, which spec.server.template names, is not there: create it",
        ),
        (
            Some(json!({"other": "1"})),
            "ConfigMap settings has no key level, which spec.server.template reads: add it",
        ),
    ] {
        if let Some(content) = content {
            world.config_maps.insert("settings".to_owned(), content);
        }
        world.pass(1);
        for kind in ["Ready", "Stalled"] {
            let (status, reason, message) = world.condition(kind);
            assert_eq!(status == "True", kind == "Stalled");
            assert_eq!(reason, "ConfigMapMissing");
            assert!(message.starts_with(words), "{message}");
        }
    }
    assert_eq!(world.events, ["ConfigMapMissing", "ConfigMapMissing"]);
    assert!(world.names("ControllerRevision").is_empty() && world.names("ConfigMap").is_empty());
    world
        .config_maps
        .insert("settings".to_owned(), json!({"level": "1"}));
    world.pass(3);
    assert_eq!(world.condition("Ready").0, "True");
}

#[test]
fn stable_goes_on_from_its_copy_when_the_config_map_is_deleted() {
    let mut world = serving(json!({"level": "1"}));
    let before = world.objects.clone();
    world.config_maps.clear();
    world.pass(3);
    assert_eq!(world.condition("Ready").1, "ConfigMapMissing");
    assert_eq!(world.condition("Available").0, "True");
    assert_eq!(world.objects, before);
}

#[test]
fn a_copy_that_was_deleted_is_made_again_or_said_to_be_lost() {
    let mut world = serving(json!({"level": "1"}));
    let hash = stable(&world);
    let key = ("ConfigMap".to_owned(), format!("churn-{hash}-1"));
    world.objects.remove(&key);
    world.pass(1);
    assert_eq!(level(&world, &key.1), "1");
    world.objects.remove(&key);
    world.config_maps.clear();
    world.pass(1);
    let message = world.status().stable.as_ref().unwrap().message.clone();
    let message = message.unwrap_or_default();
    assert!(
        message.contains("give settings back what it held"),
        "{message}"
    );
}

#[test]
fn copies_go_with_their_revision() {
    let mut world = serving(json!({"level": "0"}));
    for level in 1..14 {
        let content = json!({"level": level.to_string()});
        world.config_maps.insert("settings".to_owned(), content);
        world.pass(4);
    }
    let of = |kind: &str| -> Vec<String> {
        let hash = |name: &str| name["churn-".len()..][..HASH_LENGTH].to_owned();
        world.names(kind).into_iter().map(hash).collect()
    };
    assert_eq!(of("ConfigMap"), of("ControllerRevision"));
    assert_eq!(of("ConfigMap").len(), 11, "stable and ten before it");
}

#[test]
fn the_copy_is_there_before_what_names_it() {
    let mut world = reading();
    world
        .config_maps
        .insert("settings".to_owned(), json!({"level": "1"}));
    let actions = plan(&world.observed(), world.now).actions;
    let place = |kind: &str| {
        let is =
            |a: &Action<_>| matches!(a, Action::Apply(v) | Action::Create(v) if v["kind"] == kind);
        actions.iter().position(is).unwrap()
    };
    assert!(place("ConfigMap") < place("ControllerRevision"));
    assert!(place("ControllerRevision") < place("Deployment"));
    // Killed in between, and the content changed meanwhile: nothing of it stays.
    world.step(1);
    assert_eq!(world.names("ConfigMap").len(), 1);
    world
        .config_maps
        .insert("settings".to_owned(), json!({"level": "2"}));
    world.pass(3);
    assert_eq!(
        world.names("ConfigMap"),
        [format!("churn-{}-1", stable(&world))]
    );
}
