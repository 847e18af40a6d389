//! `spec.route` with an implementation of the Gateway API that takes the calls: Traefik, beside the cluster.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    caller::{self, Callers, Http, exposed},
    installation,
    peer::{self, Peer},
    space::{Space, condition},
    words,
};

const HOST: &str = "words.example";
const WEIGHT: u8 = 50;
/// The kinds that Traefik watches: without one of them it does nothing.
const KINDS: [&str; 6] = [
    "gatewayclasses",
    "gateways",
    "httproutes",
    "grpcroutes",
    "referencegrants",
    "backendtlspolicies",
];

/// The Gateway `web` of this namespace, which takes routes of the `Same` one or of `All`, and its class.
fn gateway(namespace: &str, port: u16, from: &str) -> String {
    let group = "gateway.networking.k8s.io/v1";
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": group, "kind": "GatewayClass", "metadata": {"name": "traefik"},
            "spec": {"controllerName": "traefik.io/gateway-controller"},
        },
        {
            "apiVersion": group, "kind": "Gateway", "metadata": {"name": "web", "namespace": namespace},
            "spec": {"gatewayClassName": "traefik", "listeners": [{
                "name": "web", "port": port, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": from}},
            }]},
        },
    ]})
    .to_string()
}

/// The release: in one of its variants, with a route of this host to that Gateway.
fn deployment(web: &str, host: &str, variant: &str) -> Value {
    let mut deployment = words::deployment(json!({
        "steps": [{"setWeight": WEIGHT}, {"pause": {}}], "bake": "2s",
        "analysis": {"interval": "2s", "minRequests": 0, "gates": []},
    }));
    let spec = &mut deployment["spec"];
    spec["route"] = json!({"parentRefs": [{"name": "web", "namespace": web}], "hostnames": [host]});
    spec["server"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "VARIANT", "value": variant}]);
    deployment
}

async fn until(space: &Space, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    space
        .until("ModelDeployment", "words", 120, what, wanted)
        .await
}

/// What is said of the route, once this is why.
async fn routed(space: &Space, reason: &str) -> String {
    let what = format!("Routed has the reason {reason}");
    let release = until(space, &what, |d| condition(d, "Routed").1 == reason).await;
    condition(&release, "Routed").2
}

/// Waits until a request of this host is answered with this status.
async fn answered(http: &Http, url: &str, host: &str, wanted: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = caller::ask_host(http, url, Some(host), Some("someone"), &Value::Null).await;
        if answer.as_ref().is_ok_and(|(status, ..)| *status == wanted) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{host} is to be answered with {wanted}: {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Another variant, once half of the callers are its: its revision.
async fn tried(space: &Space, callers: &Callers, deployment: &Value) -> String {
    space.apply(&deployment.to_string()).await;
    let paused = until(space, "the candidate waits with half of the callers", |d| {
        d["status"]["phase"] == "Paused" && d["status"]["rollout"]["weight"] == WEIGHT
    });
    let candidate = words::revision(&paused.await, "candidate");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !callers.seen().by_revision.contains_key(&candidate) {
        assert!(Instant::now() < deadline, "nobody saw {candidate}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    candidate
}

/// Waits until the rollout of this number has ended, and so.
async fn ended(space: &Space, number: usize, outcome: &str) {
    let what = format!("rollout {number} has ended");
    let idle = until(space, &what, |d| {
        words::history(d).len() == number && d["status"]["rollout"]["state"] == "Idle"
    });
    let history = words::history(&idle.await);
    assert_eq!(history[number - 1].1, outcome, "{history:?}");
}

#[tokio::test]
async fn callers_of_a_route_lose_nothing_over_rollouts_and_are_led_here_only_while_it_is_wanted() {
    let _peace = installation::in_peace().await;
    let (space, outside) = (Space::new("route").await, Space::new("route-web").await);
    let web = outside.name.as_str();
    for kind in KINDS {
        peer::install(&space, "gateway-api", kind).await;
    }
    let healthy = words::served(&space, &deployment(web, HOST, "first")).await;
    let uid = healthy["metadata"]["uid"].as_str().unwrap();
    let nobody = routed(&space, "RoutePending").await;
    assert!(nobody.contains("0 of 1 parents"), "{nobody}");

    // What the implementation says of the route is said of the release.
    let port = peer::free_port();
    let address = format!("--entrypoints.web.address=127.0.0.1:{port}");
    let arguments = [
        address.as_str(),
        "--providers.kubernetesgateway=true",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        "--log.level=INFO",
    ];
    let _traefik = Peer::start("traefik", &arguments, &[]);
    outside.apply(&gateway(web, port, "Same")).await;
    assert_eq!(
        routed(&space, "RouteRefused").await,
        "traefik.io/gateway-controller says of web: Accepted is False (NotAllowedByListeners)"
    );
    outside.apply(&gateway(web, port, "All")).await;
    assert_eq!(
        routed(&space, "RouteAccepted").await,
        "its HTTPRoute is accepted by traefik.io/gateway-controller"
    );
    let made = space.read("HTTPRoute", "words").await.unwrap();

    // Requests of its host, and of no other, come through to the model.
    let (http, url) = (caller::http(), format!("http://127.0.0.1:{port}/words"));
    answered(&http, &url, HOST, 200).await;
    answered(&http, &url, "another.example", 404).await;

    // One candidate is promoted under its callers, another taken back; who gets which is our gateway's to say, as without a route.
    let callers = Callers::start_host(&url, Some(HOST), &Value::Null, 40);
    let second = tried(&space, &callers, &deployment(web, HOST, "second")).await;
    for number in 0..100 {
        let key = format!("someone-{number}");
        let answer = caller::ask_host(&http, &url, Some(HOST), Some(&key), &Value::Null).await;
        let (status, by, _) = answer.unwrap();
        let candidates = exposed(uid, &second, &key, f64::from(WEIGHT));
        assert_eq!((status, by == second), (200, candidates), "{key}: {by}");
    }
    space.perennial(&["promote", "words"]).await.unwrap();
    ended(&space, 2, "Promoted").await;
    tried(&space, &callers, &deployment(web, HOST, "third")).await;
    space.perennial(&["abort", "words"]).await.unwrap();
    ended(&space, 3, "Aborted").await;

    // Our gateway's pods, which are what the implementation knows, are replaced.
    let gateways = space.list("Pod", "perennial.dev/role=gateway").await;
    let restart = ["rollout", "restart", "deployment/perennial-gateway"];
    space.kubectl(&restart, "").await.unwrap();
    for pod in &gateways {
        let name = pod["metadata"]["name"].as_str().unwrap();
        space.until_gone("Pod", name, 120).await;
    }
    let seen = callers.stop().await;
    assert_eq!(seen.failed, 0, "{:?}", seen.failures);
    assert_eq!(seen.by_revision.len(), 3, "{seen:?}");
    let now = space.read("HTTPRoute", "words").await.unwrap();
    assert_eq!(now["spec"], made["spec"], "no rollout touches the route");

    // Another host takes the place of the first; without a route nobody is led here.
    let mut stable = deployment(web, "other.example", "second");
    space.apply(&stable.to_string()).await;
    answered(&http, &url, "other.example", 200).await;
    answered(&http, &url, HOST, 404).await;
    routed(&space, "RouteAccepted").await;
    stable["spec"].as_object_mut().unwrap().remove("route");
    space.apply(&stable.to_string()).await;
    routed(&space, "NoRoute").await;
    space.until_gone("HTTPRoute", "words", 60).await;
    answered(&http, &url, "other.example", 404).await;
    let class = ["delete", "gatewayclass", "traefik"];
    outside.kubectl(&class, "").await.unwrap();
}
