//! Who is served by which revision, while that changes and when things are missing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use perennial::gateway::{objects::Source, watch};
use serde_json::{Value, json};

use crate::harness::*;

async fn sides(gateway: &Harness, callers: usize) -> BTreeMap<String, String> {
    let mut sides = BTreeMap::new();
    for i in 0..callers {
        let key = format!("caller-{i}");
        let answer = gateway.get("/v2/models/arrival", Some(&key)).await;
        assert_eq!(answer.status, 200);
        let (hash, version) = if answer.text() == "stable" {
            (STABLE, "v1")
        } else {
            (CANDIDATE, "v2")
        };
        assert_eq!(
            (
                answer.header("x-perennial-revision"),
                answer.header("x-perennial-version")
            ),
            (hash, version)
        );
        sides.insert(key, answer.text().to_owned());
    }
    sides
}

#[tokio::test]
async fn callers_stick_and_only_move_to_the_candidate_as_its_weight_grows() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("stable").await], &[named("candidate").await])
        .await;
    let mut before = BTreeMap::new();
    for (epoch, weight) in [(1, 0), (2, 10), (3, 50), (4, 100)] {
        gateway.weight(weight, epoch).await;
        let now = sides(&gateway, 200).await;
        assert_eq!(
            now,
            sides(&gateway, 200).await,
            "the same callers go the same way again"
        );
        for (key, side) in &before {
            assert!(
                side == "stable" || now[key] == "candidate",
                "{key} went back at {weight}"
            );
        }
        let share = now.values().filter(|s| *s == "candidate").count();
        assert!(
            share.abs_diff(2 * weight as usize) <= 25,
            "{share} of 200 at {weight}"
        );
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_the_table_is_swapped() {
    let gateway = Arc::new(Harness::start(settings(None)).await);
    gateway
        .model(&[named("stable").await], &[named("candidate").await])
        .await;
    gateway.weight(0, 1).await;
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (gateway, stop, served) = (gateway.clone(), stop.clone(), served.clone());
            tokio::spawn(async move {
                let mut i = 0;
                while !stop.load(Ordering::Relaxed) {
                    i += 1;
                    let answer = gateway
                        .get("/", Some(&format!("{caller}-{}", i % 50)))
                        .await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for epoch in 2..302 {
        gateway
            .weight(i32::try_from(epoch * 7 % 101).unwrap(), epoch)
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 300);
}

#[tokio::test]
async fn without_a_ready_pod_callers_are_told_so_and_the_epoch_is_not_served() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[named("stable").await], &[]).await;
    gateway
        .put(Source::Endpoints, slice(CANDIDATE, 0, None))
        .await;
    gateway.weight(0, 1).await;
    gateway
        .put(Source::Models, deployment(gateway.port, 100, 2))
        .await;
    let waiting = until("the gateway says what it waits for", || async {
        let epochs = gateway.epochs().await;
        epochs.releases[UID].waiting.clone()
    })
    .await;
    assert!(waiting.contains(CANDIDATE), "{waiting}");
    assert_eq!(gateway.epochs().await.releases[UID].epoch, 1);
    assert_eq!(
        gateway.get("/", Some("k")).await.text(),
        "stable",
        "the candidate can't answer, so stable does"
    );
    gateway.put(Source::Endpoints, slice(STABLE, 0, None)).await;
    let answer = until("stable's pod is gone", || async {
        let answer = gateway.get("/v2/x", Some("k")).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(answer.header("retry-after"), "1");
    assert!(
        answer.json()["error"]
            .as_str()
            .unwrap()
            .contains("no pod that is ready"),
        "{answer:?}"
    );
    gateway
        .endpoints(CANDIDATE, &[named("candidate").await])
        .await;
    gateway.served(2).await;
}

#[tokio::test]
async fn a_gateway_that_starts_without_the_api_server_serves_what_was_on_disk() {
    let state = tempfile::tempdir().unwrap();
    let (stable, candidate) = (named("stable").await, named("candidate").await);
    let first = Harness::start(settings(Some(state.path()))).await;
    assert_eq!(
        first.admin("/readyz").await.status,
        503,
        "there is no table yet"
    );
    first.model(&[stable], &[candidate]).await;
    first.weight(50, 7).await;
    let before = sides(&first, 20).await;
    let port = first.port;
    first.gateway.stop().await;

    let mut second = Harness::start(settings(Some(state.path()))).await;
    second.port = port;
    let mut config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    config.connect_timeout = Some(std::time::Duration::from_millis(200));
    let unreachable = kube::Client::try_from(config).unwrap();
    let changes = second.gateway.changes();
    let watches = tokio::spawn(async move { watch::watch(unreachable, "ns", &changes).await });
    assert_eq!(second.admin("/readyz").await.status, 200);
    assert_eq!(second.epochs().await.releases[UID].epoch, 7);
    assert_eq!(sides(&second, 20).await, before);
    watches.abort();
}

#[tokio::test]
async fn a_table_that_is_broken_on_disk_is_not_used_and_written_anew() {
    for broken in ["", "{\"releases\": [[", "null"] {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("table.json");
        std::fs::write(&file, broken).unwrap();
        let gateway = Harness::start(settings(Some(state.path()))).await;
        assert_eq!(gateway.admin("/readyz").await.status, 503, "{broken}");
        gateway.model(&[named("stable").await], &[]).await;
        gateway.weight(0, 3).await;
        assert_eq!(gateway.get("/", None).await.text(), "stable");
        gateway.gateway.stop().await;
        let second = Harness::start(settings(Some(state.path()))).await;
        assert_eq!(second.admin("/readyz").await.status, 200, "{broken}");
        assert_eq!(second.epochs().await.releases[UID].epoch, 3);
    }
}

#[tokio::test]
async fn a_broken_object_stops_nobody() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("stable").await], &[named("candidate").await])
        .await;
    gateway.weight(0, 1).await;
    let mut broken = deployment(gateway.port, 0, 2);
    broken["status"]["rollout"] = json!("?");
    gateway.put(Source::Models, broken).await;
    let mut other = deployment(free_port().await, 0, 3);
    (other["metadata"]["name"], other["metadata"]["uid"]) = (json!("other"), json!("u-2"));
    other["status"]["stable"]["revision"] = json!("cccccccccc");
    gateway.put(Source::Models, other).await;
    until("the other release is known", || async {
        gateway.epochs().await.releases.get("u-2").map(|_| ())
    })
    .await;
    let epochs = gateway.epochs().await;
    assert_eq!(epochs.releases[UID].epoch, 1);
    assert!(
        epochs.releases["u-2"]
            .waiting
            .as_ref()
            .unwrap()
            .contains("cccccccccc")
    );
    assert_eq!(gateway.get("/", None).await.text(), "stable");
    assert!(
        gateway
            .admin("/metrics")
            .await
            .text()
            .contains("perennial_gateway_undecodable_objects_total 1")
    );
}

#[tokio::test]
async fn the_shared_port_chooses_by_what_the_request_says() {
    let gateway = Harness::start(settings(None)).await;
    let seen = Seen::default();
    let server = {
        let seen = seen.clone();
        server(move |request| {
            let seen = seen.clone();
            async move {
                seen.note(request).await;
                axum::response::Response::new("stable".into())
            }
        })
        .await
    };
    gateway.model(&[server], &[named("candidate").await]).await;
    gateway.weight(0, 1).await;
    let base = format!("http://{}", gateway.gateway.shared_address);
    for (path, arrived) in [
        ("/v2/models/m/infer", "/v2/models/m/infer"),
        ("/v2/models/arrival/ready", "/v2/models/arrival/ready"),
        ("/models/m/v2/models/x/infer?a=1", "/v2/models/x/infer?a=1"),
        ("/models/m", "/"),
    ] {
        let answer = call(&gateway.http, get(format!("{base}{path}"))).await;
        assert_eq!((answer.status, answer.text()), (200, "stable"), "{path}");
        assert_eq!(seen.last().0.uri.to_string(), arrived);
    }
    let answer = call(
        &gateway.http,
        post(
            format!("{base}/v1/chat/completions"),
            &json!({"model": "m"}),
        ),
    )
    .await;
    assert_eq!(answer.status, 200);
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "nobody"})),
        ("/v2/models/nobody/infer", json!({})),
        ("/x", json!({})),
    ] {
        let answer = call(&gateway.http, post(format!("{base}{path}"), &body)).await;
        assert_eq!(answer.status, 404);
        assert!(!answer.json()["error"].is_null(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_revision_has_an_internal_address_that_is_in_no_live_measurement() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("stable").await], &[named("candidate").await])
        .await;
    gateway.weight(0, 1).await;
    let base = format!(
        "http://{}/revisions/models/m",
        gateway.gateway.internal_address
    );
    for (hash, name) in [(STABLE, "stable"), (CANDIDATE, "candidate")] {
        let answer = call(&gateway.http, get(format!("{base}/{hash}/v2/models/x"))).await;
        assert_eq!((answer.status, answer.text()), (200, name));
        assert_eq!(answer.header("x-perennial-revision"), hash);
    }
    assert_eq!(
        call(&gateway.http, get(format!("{base}/0000000000/v2")))
            .await
            .status,
        503
    );
    assert_eq!(
        call(&gateway.http, get(format!("{base}-of-nobody/{STABLE}/v2")))
            .await
            .status,
        404
    );
    assert!(gateway.buckets().await.buckets.is_empty());
    assert!(
        !gateway
            .admin("/metrics")
            .await
            .text()
            .contains("requests_total{")
    );
}

#[tokio::test]
async fn a_port_is_opened_with_its_release_and_closed_with_it() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("stable").await], &[named("candidate").await])
        .await;
    gateway.weight(0, 1).await;
    let taken = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = taken.local_addr().unwrap().port();
    gateway.put(Source::Models, deployment(port, 0, 2)).await;
    until("the port can't be opened", || async {
        gateway.epochs().await.releases[UID]
            .waiting
            .clone()
            .filter(|w| w.contains("could not be opened"))
    })
    .await;
    drop(taken);
    gateway.served(2).await;
    let moved = call(&gateway.http, get(format!("http://127.0.0.1:{port}/"))).await;
    assert_eq!(moved.text(), "stable");
    assert!(
        client().request(get(gateway.url("/"))).await.is_err(),
        "the old port is closed"
    );
    let value: Value = serde_json::to_value(gateway.epochs().await).unwrap();
    assert_eq!(value["releases"][UID], json!({"epoch": 2}));
}
