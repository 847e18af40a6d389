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

#[tokio::test]
async fn copies_that_fail_keep_no_caller_from_a_pod_and_take_nobodys_place() {
    let gateway = Harness::start(settings(None)).await;
    // Well but for copies; and a copy is held until it is told.
    let (go, told) = tokio::sync::watch::channel(false);
    let mut pods = Vec::new();
    for _ in 0..2 {
        let told = told.clone();
        let pod = server(move |request| {
            let mut told = told.clone();
            async move {
                let copied = request.headers().contains_key("x-perennial-mirror");
                if copied {
                    told.wait_for(|go| *go).await.unwrap();
                }
                let status = if copied { 500 } else { 200 };
                let answer = Response::builder().status(status);
                answer.body("candidate".into()).unwrap()
            }
        });
        pods.push(pod.await);
    }
    gateway.model(&[named("stable").await], &pods).await;
    let mut deployment = deployment(gateway.port, 0, 1);
    deployment["status"]["rollout"]["mirror"] = json!(100);
    deployment["spec"]["traffic"] = json!({
        "ejection": {"consecutiveFailures": 1, "time": "1h"},
        "limits": {"concurrent": 1, "pending": 9}, "override": {"header": "x-side"},
    });
    gateway.put(Source::Models, deployment).await;
    gateway.served(1).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/", Some("k")).await.text(), "stable");
    }
    // The candidate has one place, and it is the callers'.
    let mut mine = get(gateway.url("/"));
    let side = http::HeaderValue::from_static("candidate");
    mine.headers_mut().insert("x-side", side);
    let answer = call(&gateway.http, mine).await;
    assert_eq!((answer.status, answer.text()), (200, "candidate"));
    go.send(true).unwrap();
    until("all copies have failed", || async {
        let failed = gateway.count("perennial_gateway_mirror_errors_total").await;
        (failed == 20).then_some(())
    })
    .await;
    let ejected = gateway.count("perennial_gateway_ejections_total").await;
    assert_eq!(ejected, 0);
}

/// All that was seen of copies to the candidate.
async fn copies(gateway: &Harness) -> perennial::stats::mirror::Mirrored {
    let mut sum = perennial::stats::mirror::Mirrored::default();
    let buckets = gateway.buckets().await.buckets;
    let candidates = buckets.iter().filter(|b| b.revision == CANDIDATE);
    let seen = candidates.filter_map(|b| b.mirrored.as_ref());
    seen.for_each(|mirrored| sum.merge(mirrored));
    sum
}

/// A model that answers with these outputs, or fails.
async fn answering(status: u16, outputs: serde_json::Value) -> std::net::SocketAddr {
    let body = json!({"id": "x", "outputs": outputs}).to_string();
    server(move |_| {
        let body = body.clone();
        async move {
            let answer = Response::builder().status(status);
            let answer = answer.header("content-type", "application/json");
            answer.body(body.into()).unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn answers_of_both_sides_are_compared_by_output_and_by_caller() {
    let outputs = |label: &str, p: f64| {
        json!([
            {"name": "label", "datatype": "BYTES", "shape": [1], "data": [label]},
            {"name": "p", "datatype": "FP64", "shape": [2], "data": [p, 1.0]},
        ])
    };
    let gateway = Harness::start(settings(None)).await;
    let stable = answering(200, outputs("late", 0.75)).await;
    let candidate = answering(200, outputs("late", 0.25)).await;
    gateway.model(&[stable], &[candidate]).await;
    let mut deployment = deployment(gateway.port, 0, 1);
    deployment["status"]["rollout"]["mirror"] = json!(100);
    gateway.put(Source::Models, deployment).await;
    gateway.served(1).await;
    for caller in ["a", "a", "b"] {
        let mut request = post(gateway.url("/v2/models/m/infer"), &json!({"inputs": []}));
        let key = http::HeaderValue::from_static(caller);
        request.headers_mut().insert("x-perennial-key", key);
        assert_eq!(call(&gateway.http, request).await.status, 200);
    }
    // What is no question has no answer to compare.
    assert_eq!(gateway.get("/v2/models/m", Some("a")).await.status, 200);
    let seen = until("all copies are answered", || async {
        let seen = copies(&gateway).await;
        (seen.candidate.requests == 4).then_some(seen)
    })
    .await;
    assert_eq!((seen.stable.requests, seen.candidate.errors), (4, 0));
    assert_eq!((seen.compared, seen.incomparable), (3, 1));
    let agreement = seen.agreements().candidate;
    assert_eq!((agreement.callers, agreement.mean()), (2, Some(0.75)));
    let (label, p) = (seen.outputs["label"], seen.outputs["p"]);
    assert_eq!((label.agreement(), p.agreement()), (1.0, 0.5));
    assert_eq!((p.largest, p.mean_difference()), (0.5, Some(0.25)));
    // The mean over all numbers of an answer, one for each caller.
    assert_eq!(seen.differences.count(), 2);
    assert_eq!(seen.differences.max(), Some(250_000));
    assert_eq!(seen.stable.callers.callers(), 2);
    assert_eq!(gateway.traffic(CANDIDATE).await.requests, 0);
}

#[tokio::test]
async fn a_copy_that_the_candidate_refuses_and_stable_took_is_an_error() {
    let gateway = Harness::start(settings(None)).await;
    let stable = answering(200, json!([])).await;
    gateway
        .model(&[stable], &[answering(400, json!([])).await])
        .await;
    let mut deployment = deployment(gateway.port, 0, 1);
    deployment["status"]["rollout"]["mirror"] = json!(100);
    gateway.put(Source::Models, deployment).await;
    gateway.served(1).await;
    let request = post(gateway.url("/v2/models/m/infer"), &json!({"inputs": []}));
    assert_eq!(call(&gateway.http, request).await.status, 200);
    let seen = until("the copy is answered", || async {
        let seen = copies(&gateway).await;
        (seen.candidate.requests == 1).then_some(seen)
    })
    .await;
    assert_eq!((seen.candidate.errors, seen.compared), (1, 0));
    let failed = gateway.count("perennial_gateway_mirror_errors_total").await;
    assert_eq!(failed, 1);
}
