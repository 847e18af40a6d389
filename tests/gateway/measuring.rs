//! What is measured, and how the operator reads it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use perennial::cluster::measure::{GatewayPod, Interest, Measure, ReleaseKey, ReleaseKind};
use serde_json::{Value, json};

use crate::harness::*;

fn infer(rows: usize) -> Value {
    json!({"inputs": [
        {"name": "temp", "shape": [rows], "datatype": "FP64", "data": vec![20.5; rows]},
        {"name": "carrier", "shape": [rows], "datatype": "BYTES", "data": vec!["UA"; rows]},
    ]})
}

#[tokio::test]
async fn errors_are_the_revisions_and_callers_are_told_apart() {
    let gateway = Harness::start(settings(None)).await;
    let status = server(|request| async move {
        let status: u16 = request
            .uri()
            .path()
            .trim_start_matches('/')
            .parse()
            .unwrap();
        Response::builder().status(status).body("x".into()).unwrap()
    })
    .await;
    gateway.model(&[status], &[]).await;
    gateway.weight(0, 3).await;
    for (path, key) in [
        ("/200", Some("a")),
        ("/500", Some("a")),
        ("/404", Some("b")),
        ("/200", None),
        ("/503", None),
    ] {
        gateway.get(path, key).await;
    }
    let buckets = gateway.buckets().await;
    assert!(
        buckets
            .buckets
            .iter()
            .all(|b| b.release == UID && b.epoch == 3 && b.weight == 0)
    );
    let traffic = gateway.traffic(STABLE).await;
    assert_eq!((traffic.requests, traffic.errors), (5, 2));
    assert_eq!(
        (traffic.callers.callers(), traffic.callers.failures()),
        (2, 1)
    );
    assert_eq!((traffic.unkeyed, traffic.unkeyed_errors), (2, 1));
    assert_eq!(traffic.latency.count(), 5);
    let metrics = gateway.admin("/metrics").await;
    for line in [
        r#"perennial_gateway_requests_total{kind="models",outcome="ok",release="m",track="stable"} 2"#,
        r#"perennial_gateway_requests_total{kind="models",outcome="error",release="m",track="stable"} 2"#,
        r#"perennial_gateway_requests_total{kind="models",outcome="caller_error",release="m",track="stable"} 1"#,
        &format!(
            r#"perennial_gateway_revision_requests_total{{kind="models",outcome="ok",release="m",revision="{STABLE}"}} 2"#
        ),
        r#"perennial_gateway_unkeyed_total{kind="models",release="m"} 2"#,
        r#"perennial_gateway_epoch{kind="models",release="m"} 3"#,
    ] {
        assert!(metrics.text().contains(line), "{line}\n{}", metrics.text());
    }
}

#[tokio::test]
async fn input_rows_of_requests_are_sketched_by_revision() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("{}").await], &[named("{}").await])
        .await;
    gateway.weight(0, 1).await;
    let send = |body: Value| {
        call(
            &gateway.http,
            post(gateway.url("/v2/models/arrival/infer"), &body),
        )
    };
    for _ in 0..3 {
        assert_eq!(send(infer(4)).await.status, 200);
    }
    send(json!({"inputs": "?"})).await;
    let bucket = until("the rows are there", || async {
        let buckets = gateway.buckets().await.buckets;
        let known = |b: &perennial::stats::bucket::Bucket| {
            b.features.as_ref().map_or(0, |r| r.rows) + b.traffic.features_unknown
        };
        (buckets.iter().map(known).sum::<u64>() == 13).then(|| buckets[0].clone())
    })
    .await;
    assert_eq!(
        (bucket.revision.as_str(), bucket.traffic.features_unknown),
        (STABLE, 1)
    );
    let rows = bucket.features.unwrap();
    assert_eq!(
        (
            rows.columns["temp"].samples(),
            rows.columns["carrier"].samples()
        ),
        (12, 12)
    );
}

/// A server that says with which probability, in so many rows.
async fn saying(probability: f64) -> std::net::SocketAddr {
    server(move |request| async move {
        let (status, body) = match request.uri().path() {
            "/v2/models/text/infer" => (200, "no prediction".to_owned()),
            "/v2/models/broken/infer" => (500, "{}".to_owned()),
            _ => {
                let outputs = json!([
                    {"name": "predict", "datatype": "INT64", "shape": [2], "data": [1, 0]},
                    {"name": "predict_proba", "datatype": "FP64", "shape": [2, 2], "data": [[1.0 - probability, probability], [0.5, 0.5]]},
                ]);
                (200, json!({"outputs": outputs}).to_string())
            }
        };
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn what_answers_predict_is_sketched_by_revision() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[saying(0.25).await], &[saying(0.75).await])
        .await;
    let send = |model: &'static str| {
        call(
            &gateway.http,
            post(gateway.url(&format!("/v2/models/{model}/infer")), &infer(2)),
        )
    };
    for (weight, epoch, requests) in [(0, 1, 3), (100, 2, 2)] {
        gateway.weight(weight, epoch).await;
        for _ in 0..requests {
            assert!(send("arrival").await.text().contains("predict_proba"));
        }
    }
    send("text").await;
    assert_eq!(send("broken").await.status, 500);
    let read = |buckets: &[perennial::stats::bucket::Bucket], revision: &str| {
        let mut rows = perennial::stats::sketch::RowSketch::default();
        let mut unread = 0;
        for bucket in buckets.iter().filter(|b| b.revision == revision) {
            unread += bucket.traffic.predictions_unread;
            rows.merge(bucket.predictions.as_ref().unwrap_or(&Default::default()))
                .unwrap();
        }
        (rows, unread)
    };
    let buckets = until("the predictions are read", || async {
        let buckets = gateway.buckets().await.buckets;
        let (stable, _) = read(&buckets, STABLE);
        let (candidate, unread) = read(&buckets, CANDIDATE);
        ((stable.rows, candidate.rows, unread) == (6, 4, 1)).then_some(buckets)
    })
    .await;
    for (revision, probability) in [(STABLE, 0.25), (CANDIDATE, 0.75)] {
        let (rows, _) = read(&buckets, revision);
        let numbers = rows.columns["probability"].numeric().unwrap();
        let (low, high) = (numbers.min().unwrap(), numbers.max().unwrap());
        assert_eq!(
            (low, high),
            (f64::min(probability, 0.5), f64::max(probability, 0.5))
        );
        let classes = rows.columns["class"].categorical().unwrap();
        assert_eq!(classes.get("1"), classes.get("0"));
        assert_eq!(rows.columns.len(), 2, "what nobody said has no column");
    }
}

#[tokio::test]
async fn binary_tensors_are_sketched_like_those_in_json() {
    let head = |list: &str, name: &str| {
        let parameters = json!({"binary_data_size": 16});
        json!({list: [{"name": name, "datatype": "FP64", "shape": [2], "parameters": parameters}]})
            .to_string()
    };
    let body = |list: &str, name: &str| {
        let mut body = head(list, name).into_bytes();
        body.extend([1.5f64, -2.0].map(f64::to_le_bytes).concat());
        body
    };
    let length = |list: &str, name: &str| head(list, name).len().to_string();
    let gateway = Harness::start(settings(None)).await;
    let (answer, of) = (body("outputs", "y"), length("outputs", "y"));
    let pod = server(move |_| {
        let response = Response::builder()
            .header("content-type", "application/octet-stream")
            .header("inference-header-content-length", &of)
            .body(answer.clone().into())
            .unwrap();
        async move { response }
    })
    .await;
    gateway.model(&[pod], &[]).await;
    gateway.weight(0, 1).await;
    let request = http::Request::post(gateway.url("/v2/models/arrival/infer"))
        .header("inference-header-content-length", length("inputs", "temp"))
        .body(body("inputs", "temp").into())
        .unwrap();
    let answer = call(&gateway.http, request).await;
    assert_eq!(
        answer.body,
        body("outputs", "y"),
        "it is passed on as it came"
    );
    until("both are read", || async {
        let buckets = gateway.buckets().await.buckets;
        let bucket = buckets.into_iter().find(|b| b.predictions.is_some())?;
        let said = bucket.predictions?;
        let (inputs, said) = (&bucket.features?.columns["temp"], &said.columns["number"]);
        let range =
            |c: &perennial::stats::sketch::ColumnSketch| c.numeric().map(|n| (n.min(), n.max()));
        assert_eq!(range(inputs), range(said));
        assert_eq!(range(said), Some((Some(-2.0), Some(1.5))));
        Some(())
    })
    .await;
}

#[tokio::test]
async fn the_operator_reads_epochs_and_measurements_and_is_woken_by_them() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("{}").await], &[named("{}").await])
        .await;
    gateway.weight(50, 4).await;
    let ip: IpAddr = gateway.gateway.admin_address.ip();
    let pod = |name: &str, ip| GatewayPod {
        name: name.into(),
        uid: name.into(),
        ip: Some(ip),
        ready: true,
        terminating: false,
    };
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = woken.clone();
    let measure = Measure::with_port(
        move |_| vec![pod("gateway-1", ip)],
        move |key| {
            assert_eq!(key.name, "m");
            counter.fetch_add(1, Ordering::SeqCst);
        },
        gateway.gateway.admin_address.port(),
    );
    let interest = |epoch| Interest {
        key: ReleaseKey {
            kind: ReleaseKind::Model,
            namespace: "ns".into(),
            name: "m".into(),
        },
        epoch,
        interval: Some(Duration::from_secs(1)),
        keep_features: None,
        keep_late: None,
    };
    let running = measure.clone();
    let task = tokio::spawn(async move { running.run().await });
    assert!(
        !measure.read("ns", UID).is_applied(4),
        "nothing is known before it was asked for"
    );
    measure.track(UID, interest(4));
    until("the epoch is seen", || async {
        measure.read("ns", UID).is_applied(4).then_some(())
    })
    .await;
    assert!(woken.load(Ordering::SeqCst) > 0);
    for i in 0..40 {
        gateway.get("/", Some(&format!("{i}"))).await;
    }
    let live = until("the measurements are there", || async {
        let live = measure.read("ns", UID);
        let strata = live.strata(STABLE, CANDIDATE, 0);
        let seen: u64 = strata
            .iter()
            .map(|s| s.stable.requests + s.candidate.requests)
            .sum();
        (seen == 40).then_some(live)
    })
    .await;
    let strata = live.strata(STABLE, CANDIDATE, 0);
    assert!(
        strata
            .iter()
            .all(|s| s.epoch == 4 && s.weight == 50 && s.candidate.requests > 0)
    );
    // A weight change is seen within the eager interval, and wakes.
    let before = woken.load(Ordering::SeqCst);
    measure.track(UID, interest(5));
    gateway.weight(100, 5).await;
    until("the next epoch is seen", || async {
        measure.read("ns", UID).is_applied(5).then_some(())
    })
    .await;
    until("somebody was woken", || async {
        (woken.load(Ordering::SeqCst) > before).then_some(())
    })
    .await;
    task.abort();
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_data_with_a_reason() {
    let port = free_port().await;
    let pod = GatewayPod {
        name: "gateway-1".into(),
        uid: "g".into(),
        ip: Some([127, 0, 0, 1].into()),
        ready: true,
        terminating: false,
    };
    let measure = Measure::with_port(move |_| vec![pod.clone()], |_| {}, port);
    let running = measure.clone();
    let task = tokio::spawn(async move { running.run().await });
    measure.track(
        UID,
        Interest {
            key: ReleaseKey {
                kind: ReleaseKind::Model,
                namespace: "ns".into(),
                name: "m".into(),
            },
            epoch: 1,
            interval: None,
            keep_features: None,
            keep_late: None,
        },
    );
    let why = until("it is known to be blocked", || async {
        measure.read("ns", UID).blocked().map(str::to_owned)
    })
    .await;
    assert!(
        why.contains("gateway-1") && why.contains("NetworkPolicy"),
        "{why}"
    );
    task.abort();
}
