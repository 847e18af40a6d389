//! Copies of stable's requests for the candidate.

use std::time::{Duration, Instant};

use axum::response::Response;
use perennial::gateway::objects::Source;
use serde_json::json;

use crate::harness::*;

/// A gateway whose candidate has no caller and gets so many copies.
async fn mirrored(percent: i32, candidate: std::net::SocketAddr) -> Harness {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[named("stable").await], &[candidate]).await;
    let mut deployment = deployment(gateway.port, 0, 1);
    deployment["status"]["rollout"]["mirror"] = json!(percent);
    gateway.put(Source::Models, deployment).await;
    gateway.served(1).await;
    gateway
}

async fn noting(seen: &Seen) -> std::net::SocketAddr {
    let seen = seen.clone();
    server(move |request| {
        let seen = seen.clone();
        async move {
            seen.note(request).await;
            Response::new("candidate".into())
        }
    })
    .await
}

#[tokio::test]
async fn the_candidate_gets_a_copy_and_the_caller_stables_answer() {
    let seen = Seen::default();
    let gateway = mirrored(100, noting(&seen).await).await;
    let body =
        json!({"inputs": [{"name": "temp", "shape": [1], "datatype": "FP64", "data": [1.5]}]});
    let mut request = post(gateway.url("/v2/models/m/infer?a=1"), &body);
    let key = http::HeaderValue::from_static("k");
    request.headers_mut().insert("x-perennial-key", key);
    let answer = call(&gateway.http, request).await;
    assert_eq!((answer.status, answer.text()), (200, "stable"));
    assert_eq!(answer.header("x-perennial-revision"), STABLE);
    until("the copy is answered", || async {
        (gateway.count("perennial_gateway_mirrored_total").await == 1).then_some(())
    })
    .await;
    let (parts, copied) = seen.last();
    assert_eq!(parts.uri.to_string(), "/v2/models/m/infer?a=1");
    assert_eq!(parts.headers["x-perennial-mirror"], "true");
    assert_eq!(copied, body.to_string());
    // It is in no live measurement, and stable's request in one only.
    assert_eq!(gateway.traffic(CANDIDATE).await.requests, 0);
    assert_eq!(gateway.traffic(STABLE).await.requests, 1);
    assert_eq!(gateway.get("/", Some("k")).await.text(), "stable");
    until("a request without a body is copied too", || async {
        (seen.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn only_so_many_are_copied() {
    let seen = Seen::default();
    let gateway = mirrored(30, noting(&seen).await).await;
    for _ in 0..200 {
        assert_eq!(gateway.get("/", Some("k")).await.text(), "stable");
    }
    until("all copies are answered", || async {
        let answered = gateway.count("perennial_gateway_mirrored_total").await;
        (answered == seen.len() as u64).then_some(())
    })
    .await;
    // 60 are expected; five standard deviations are 32.
    assert!((28..=92).contains(&seen.len()), "{}", seen.len());
}

#[tokio::test]
async fn a_candidate_that_hangs_or_fails_costs_callers_nothing() {
    let hangs = server(|_| std::future::pending()).await;
    let gateway = mirrored(100, hangs).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(gateway.get("/", Some("k")).await.text(), "stable");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    // 64 are open; the others were not made.
    let dropped = gateway.count("perennial_gateway_mirror_dropped_total");
    assert_eq!(dropped.await, 100 - 64);
    let traffic = gateway.traffic(STABLE).await;
    assert_eq!((traffic.requests, traffic.errors), (100, 0));
    until("they are given up", || async {
        let failed = gateway.count("perennial_gateway_mirror_errors_total").await;
        (failed == 64).then_some(())
    })
    .await;
}
