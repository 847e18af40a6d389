//! Copies of stable's requests for the candidate.

use std::time::{Duration, Instant};

use axum::response::Response;
use futures::StreamExt;
use perennial::{
    api::{
        mirrored::{Pair, path},
        run::Report,
    },
    evaluate::{Places, measure},
    gateway::{
        objects::Source,
        pairs::{MOST, WAITING},
    },
    supervise::failure::Failure,
};
use serde_json::{Value, json};

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
    // The mean over all numbers of an answer, one for each caller in a minute; one may end meanwhile.
    assert!((2..=3).contains(&seen.differences.count()));
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

/// A gateway whose candidate gets a copy of each request, and what both sides answer.
async fn comparing(stable: Value, candidate: Value) -> Harness {
    let gateway = Harness::start(settings(None)).await;
    let (stable, candidate) = (answering(200, stable), answering(200, candidate));
    gateway.model(&[stable.await], &[candidate.await]).await;
    let mut deployment = deployment(gateway.port, 0, 1);
    deployment["status"]["rollout"]["mirror"] = json!(100);
    gateway.put(Source::Models, deployment).await;
    gateway.served(1).await;
    gateway
}

fn output(value: f64) -> Value {
    json!([{"name": "p", "datatype": "FP64", "shape": [1], "data": [value]}])
}

async fn infer(gateway: &Harness, x: usize) {
    let body = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [x]}]});
    let request = post(gateway.url("/v2/models/m/infer"), &body);
    assert_eq!(call(&gateway.http, request).await.status, 200);
}

/// An Evaluation's run that listens to this gateway.
async fn evaluated(gateway: &Harness, requests: usize, more: Value) -> Result<Report, Failure> {
    let mut spec = json!({
        "namespace": "ns", "name": "live", "number": 1, "seed": 7, "acknowledgeTimeout": "0s", "evaluators": [],
        "target": {"model": {"url": "http://nobody", "baselineUrl": null, "protocol": "OpenInference", "signature": null}},
        "mirrored": {"address": gateway.gateway.mirrored_address.to_string(), "path": path("models", "m", CANDIDATE), "requests": requests},
    });
    let more = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(more);
    let spec = serde_json::from_value(spec).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let measured = measure(spec, &Places::default()).await;
    measured.map(|measured| {
        assert!(measured.details.examples.is_empty());
        measured.report
    })
}

fn metric(report: &Report, name: &str) -> (Option<f64>, Option<i64>) {
    let found = report.metrics.iter().find(|m| m.name == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {:?}", report.metrics));
    (found.value, found.samples)
}

#[tokio::test]
async fn an_evaluation_measures_what_it_listens_to_and_nothing_from_before() {
    let gateway = comparing(output(0.5), output(0.75)).await;
    // Nobody listens yet.
    for x in 0..20 {
        infer(&gateway, x).await;
    }
    let callers = async {
        for x in 0..usize::MAX {
            infer(&gateway, x).await;
        }
    };
    let evaluators = json!({"evaluators": [
        {"text": {"metrics": ["regex", "exact"], "pattern": "0\\.75"}},
        {"jsonSchema": {"schema": {"required": ["outputs"]}}},
    ]});
    let report = tokio::select! {
        report = evaluated(&gateway, 30, evaluators) => report.unwrap(),
        () = callers => unreachable!(),
    };
    assert_eq!(report.summary.rows, Some(30));
    assert_eq!(metric(&report, "agreement"), (Some(0.0), Some(30)));
    assert_eq!(metric(&report, "difference"), (Some(0.25), Some(30)));
    assert_eq!(metric(&report, "errorRate"), (Some(0.0), Some(30)));
    assert_eq!(metric(&report, "stable.errorRate").0, Some(0.0));
    assert!(metric(&report, "latencyP95").0 > Some(0.0));
    assert_eq!(metric(&report, "regex").0, Some(1.0));
    assert_eq!(metric(&report, "stable.regex").0, Some(0.0));
    assert_eq!(metric(&report, "exact").0, Some(0.0), "beside stable's");
    assert_eq!(metric(&report, "jsonSchemaRate").0, Some(1.0));
    assert_eq!(gateway.traffic(CANDIDATE).await.requests, 0);
}

#[tokio::test]
async fn too_few_copies_are_not_enough_data_and_another_candidate_is_listened_to_by_nobody() {
    let gateway = comparing(output(0.5), output(0.5)).await;
    let soon = |seconds: i64| jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    let ask = evaluated(&gateway, 50, json!({"deadline": soon(4)}));
    let some = async {
        for x in 0..7 {
            infer(&gateway, x).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        std::future::pending::<()>().await;
    };
    let failure = tokio::select! {
        failure = ask => failure.unwrap_err(),
        () = some => unreachable!(),
    };
    assert!(failure.inconclusive && failure.permanent, "{failure:?}");
    assert_eq!(failure.reason, "NotEnoughData");
    assert!(failure.message.contains("of 50 requests"), "{failure:?}");
    let other = json!({"deadline": soon(3), "mirrored": {
        "address": gateway.gateway.mirrored_address.to_string(), "path": path("models", "m", STABLE), "requests": 1}});
    let failure = evaluated(&gateway, 1, other).await.unwrap_err();
    assert_eq!(failure.reason, "TargetUnreachable");
    assert!(failure.message.contains("no candidate of m"), "{failure:?}");
}

#[tokio::test]
async fn a_listener_that_does_not_read_costs_callers_nothing_and_only_so_many_may_listen() {
    let long = "x".repeat(60_000);
    let gateway = comparing(json!([{"name": "p", "data": [long]}]), output(0.5)).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let at = path("models", "m", CANDIDATE);
    let url = format!("http://{}{at}", gateway.gateway.mirrored_address);
    let slow = http.get(&url).send().await.unwrap();
    assert_eq!(slow.status(), 200);
    let mut others = Vec::new();
    for _ in 1..MOST {
        others.push(http.get(&url).send().await.unwrap());
    }
    assert_eq!(http.get(&url).send().await.unwrap().status(), 429);
    // The others leave, and one of them comes back.
    others.clear();
    until("there is room again", || async {
        (http.get(&url).send().await.unwrap().status() == 200).then_some(())
    })
    .await;
    // More than the listener's places and the connection's buffers hold.
    let sent = WAITING + 300;
    let began = Instant::now();
    for x in 0..sent {
        infer(&gateway, x).await;
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    until("all copies are answered", || async {
        let made = gateway.count("perennial_gateway_mirrored_total").await;
        let dropped = gateway
            .count("perennial_gateway_mirror_dropped_total")
            .await;
        (made + dropped == sent as u64).then_some(())
    })
    .await;
    // What it reads at last: some, and how many it missed.
    let (mut parts, mut text) = (slow.bytes_stream(), Vec::new());
    infer(&gateway, sent).await;
    let missed = loop {
        let part = tokio::time::timeout(Duration::from_secs(20), parts.next());
        text.extend_from_slice(&part.await.unwrap().unwrap().unwrap());
        let lines = text.split(|b| *b == b'\n');
        let pairs = lines.filter_map(|line| serde_json::from_slice::<Pair>(line).ok());
        if let Some(pair) = pairs.into_iter().find(|pair| pair.missed > 0) {
            break pair.missed;
        }
        infer(&gateway, 0).await;
    };
    assert!(missed > 0 && missed < sent as u64, "{missed}");
}
