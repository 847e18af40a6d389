//! Autoscalers decide how many pods there are; a rollout says how few may be.

use serde_json::{Value, json};

use super::world::{World, quick};
use crate::api::rollout::RolloutState;

const V1: &str = "20130401-000000-aaaaaa";
const V2: &str = "20130501-000000-bbbbbb";

fn autoscaled(steps: Value) -> World {
    let mut world = World::new(quick(json!({
        "autoscaling": {"minReplicas": 2, "maxReplicas": 10, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]},
        "rollout": {"steps": steps, "bake": "1m", "analysis": {"minRequests": 0, "gates": []}},
    })));
    world.train("q1", V1, "sha256:d1");
    world.pass(3);
    world
}

fn stable(world: &World) -> String {
    let stable = world.status().stable.as_ref().expect("a stable revision");
    format!("churn-{}", stable.revision)
}

fn pods(world: &World, name: &str) -> i64 {
    let server = world.object("Deployment", name).expect("a Deployment");
    server["spec"]["replicas"].as_i64().unwrap_or_default()
}

/// Fewest and most pods by an autoscaler.
fn bounds(world: &World, name: &str) -> (i64, i64) {
    let autoscaler = world.object("HorizontalPodAutoscaler", name);
    let spec = &autoscaler.expect("an autoscaler")["spec"];
    let number = |key: &str| spec[key].as_i64().unwrap_or_default();
    (number("minReplicas"), number("maxReplicas"))
}

/// What an autoscaler does.
fn scale(world: &mut World, name: &str, pods: i64) {
    let key = ("Deployment".to_owned(), name.to_owned());
    world.objects.get_mut(&key).unwrap()["spec"]["replicas"] = json!(pods);
}

#[test]
fn an_autoscalers_number_is_left_alone() {
    let mut world = autoscaled(json!([]));
    let name = stable(&world);
    assert_eq!((pods(&world, &name), bounds(&world, &name)), (2, (2, 10)));
    let autoscaler = world.object("HorizontalPodAutoscaler", &name).unwrap();
    assert_eq!(autoscaler["spec"]["scaleTargetRef"]["name"], name.as_str());
    assert_eq!(
        autoscaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        60
    );
    assert_eq!(world.names("PodDisruptionBudget"), [name.as_str()]);
    scale(&mut world, &name, 7);
    world.pass(5);
    assert_eq!((pods(&world, &name), bounds(&world, &name)), (7, (2, 10)));
    assert_eq!(world.status().stable.as_ref().unwrap().replicas, 7);
    // Fewer than there may be are raised at once, and no further.
    scale(&mut world, &name, 1);
    world.pass(1);
    assert_eq!(pods(&world, &name), 2);
    assert_eq!(world.condition("Autoscaled").1, "AutoscalerStarting");
}

#[test]
fn a_candidate_has_what_its_share_needs_and_stable_keeps_what_it_had() {
    let steps = json!([{"setWeight": 25}, {"pause": {}}]);
    let mut world = autoscaled(steps);
    let before = stable(&world);
    scale(&mut world, &before, 8);
    world.settle();
    world.train("q2", V2, "sha256:d2");
    world.pass(2);
    let candidate = world.status().candidate.clone().expect("a candidate");
    let name = format!("churn-{}", candidate.revision);
    assert_eq!(world.status().rollout.as_ref().unwrap().weight, 25);
    assert_eq!((pods(&world, &name), bounds(&world, &name)), (2, (2, 10)));
    assert_eq!(
        bounds(&world, &before),
        (8, 10),
        "callers may all come back: it doesn't shrink"
    );
    // More load: each by its own.
    scale(&mut world, &name, 4);
    scale(&mut world, &before, 9);
    world.pass(1);
    assert_eq!((pods(&world, &name), pods(&world, &before)), (4, 9));
    assert_eq!(bounds(&world, &name), (3, 10), "a quarter of nine");
    // To get every caller it needs as many as stable has.
    world.annotate("perennial.dev/promote", format!("{}/1", candidate.revision));
    for _ in 0..20 {
        world.now += jiff::SignedDuration::from_secs(2);
        world.settle();
        if world.status().rollout.as_ref().unwrap().state == RolloutState::Baking {
            break;
        }
    }
    assert_eq!(stable(&world), name);
    assert_eq!(pods(&world, &name), 9);
    assert_eq!(bounds(&world, &name), (2, 10), "its autoscaler is free");
    assert_eq!(
        bounds(&world, &before),
        (9, 10),
        "the one before may have to take everything back"
    );
    world.pass(3);
    assert_eq!(world.names("HorizontalPodAutoscaler"), [name.as_str()]);
    assert_eq!(world.names("Deployment"), [name.as_str()]);
    assert_eq!(
        pods(&world, &name),
        9,
        "promotion restarts and removes none"
    );
}

#[test]
fn without_autoscaling_the_spec_says_how_many() {
    let mut world = autoscaled(json!([]));
    let name = stable(&world);
    scale(&mut world, &name, 7);
    world.settle();
    world.edit(|r| {
        r.spec.autoscaling = None;
        r.spec.replicas = Some(3);
    });
    world.pass(1);
    assert_eq!(pods(&world, &name), 3);
    assert!(world.names("HorizontalPodAutoscaler").is_empty());
    assert_eq!(world.condition("Autoscaled").1, "NotAutoscaled");
    assert_eq!(stable(&world), name, "no rollout");
}

#[test]
fn a_route_leads_to_the_releases_service_where_the_cluster_knows_routes() {
    let route = json!({"parentRefs": [{"name": "web", "namespace": "infra"}], "hostnames": ["churn.example"]});
    let mut world = World::new(quick(json!({"route": route})));
    world.train("q1", V1, "sha256:d1");
    world.knows_routes = false;
    world.pass(2);
    assert!(world.names("HTTPRoute").is_empty());
    let (status, reason, message) = world.condition("Routed");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "GatewayApiMissing")
    );
    assert!(message.contains("install its CRDs"), "{message}");
    assert_eq!(world.condition("Ready").0, "True", "it serves all the same");
    world.knows_routes = true;
    world.pass(1);
    let made = world.object("HTTPRoute", "churn").unwrap().clone();
    assert_eq!(made["spec"]["rules"][0]["backendRefs"][0]["name"], "churn");
    assert_eq!(made["spec"]["rules"][0]["backendRefs"][0]["port"], 80);
    assert_eq!(made["spec"]["parentRefs"][0]["kind"], "Gateway");
    assert_eq!(world.condition("Routed").1, "RoutePending");
    let say = |world: &mut World, gateway: &str, generation: i64, status: &str, message: &str| {
        let key = ("HTTPRoute".to_owned(), "churn".to_owned());
        let route = world.objects.get_mut(&key).unwrap();
        route["metadata"]["generation"] = json!(2);
        route["status"] = json!({"parents": [{
            "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway, "namespace": "infra"},
            "controllerName": "example.com/controller",
            "conditions": [{
                "type": "Accepted", "status": status, "reason": "NotAllowedByListeners", "message": message, "observedGeneration": generation,
            }],
        }]});
        world.step(usize::MAX);
        world.condition("Routed")
    };
    for (message, words) in [
        (
            "no listener takes it",
            "(NotAllowedByListeners): no listener takes it",
        ),
        ("", "(NotAllowedByListeners)"),
    ] {
        let (_, reason, said) = say(&mut world, "web", 2, "False", message);
        assert_eq!(reason, "RouteRefused");
        assert!(said.ends_with(words), "{said}");
    }
    for (gateway, generation, reason) in [
        ("web", 2, "RouteAccepted"),
        // What was said of the route as it was, or of another Gateway, is old.
        ("web", 1, "RoutePending"),
        ("other", 2, "RoutePending"),
    ] {
        let said = say(&mut world, gateway, generation, "True", "");
        assert_eq!(said.1, reason, "{gateway} {generation}: {said:?}");
    }
    world.edit(|r| r.spec.route = None);
    world.pass(1);
    assert!(world.names("HTTPRoute").is_empty());
    assert_eq!(world.condition("Routed").1, "NoRoute");
}

#[test]
fn what_a_template_says_of_itself_is_kept() {
    let template = json!({"metadata": {"labels": {"team": "a"}}, "spec": {
        "nodeSelector": {"gpu": "yes"}, "runtimeClassName": "nvidia", "priorityClassName": "high",
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "initContainers": [{"name": "own", "image": "i:1"}],
        "containers": [
            {"name": "server", "image": "s:1", "resources": {"limits": {"nvidia.com/gpu": 1}}},
            {"name": "exporter", "image": "e:1", "ports": [{"containerPort": 9000}]},
        ],
    }});
    let server = json!({"template": template, "minReadySeconds": 5, "warmUp": {"requests": [{"path": "/v2/models/churn/infer", "body": {"inputs": []}}], "rounds": 3}});
    let mut world = World::new(quick(json!({"server": server})));
    world.train("q1", V1, "sha256:d1");
    world.pass(2);
    let name = stable(&world);
    let made = world.object("Deployment", &name).unwrap();
    assert_eq!(made["spec"]["minReadySeconds"], 5);
    let pod = &made["spec"]["template"]["spec"];
    for key in [
        "nodeSelector",
        "runtimeClassName",
        "priorityClassName",
        "affinity",
        "topologySpreadConstraints",
        "tolerations",
    ] {
        assert_eq!(pod[key], template["spec"][key], "{key}");
    }
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[0]["resources"]["limits"]["nvidia.com/gpu"], 1);
    assert_eq!(
        containers[1], template["spec"]["containers"][1],
        "only the one that serves gets something"
    );
    let names: Vec<&str> = pod["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["perennial-fetch", "own", "perennial-warm-up"]);
    let warm_up = &pod["initContainers"][2];
    assert_eq!(warm_up["restartPolicy"], "Always");
    assert_eq!(
        warm_up["env"][0]["value"],
        r#"{"port":8080,"requests":[{"path":"/v2/models/churn/infer","body":{"inputs":[]}}],"rounds":3}"#
    );
}
