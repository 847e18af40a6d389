//! Predictions that labels are awaited for, and the labels that come.

use std::time::Duration;

use perennial::{
    cluster::measure::{GatewayPod, Interest, Measure, ReleaseKey, ReleaseKind},
    gateway::objects::Source,
    stats::{
        bucket::Bucket,
        labels::{Metric, Outcomes, Samples},
    },
};
use serde_json::{Value, json};

use crate::harness::*;

const ID: &str = "x-perennial-request-id";

/// A server that answers with what its path says, in the Open Inference Protocol: rows of class 1 with this probability.
async fn model(probability: f64) -> std::net::SocketAddr {
    server(move |request| async move {
        let path = request.uri().path().to_owned();
        let rows = match path.as_str() {
            "/v2/models/two/infer" => 2,
            "/v2/models/many/infer" => 65,
            _ => 1,
        };
        let body = match path.as_str() {
            "/v2/models/text/infer" => "no prediction".to_owned(),
            _ => json!({"model_name": "arrival", "outputs": [
                {"name": "predict", "datatype": "INT64", "shape": [rows, 1], "data": vec![1; rows]},
                {"name": "predict_proba", "datatype": "FP64", "shape": [rows, 2], "data": vec![[1.0 - probability, probability]; rows]},
            ]})
            .to_string(),
        };
        let status = if path == "/v2/models/broken/infer" { 500 } else { 200 };
        axum::response::Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap()
    })
    .await
}

/// Routes so much to the candidate, with a metric that waits for labels.
async fn labelled(gateway: &Harness, weight: i32, epoch: i64, horizon: &str) {
    let mut deployment = deployment(gateway.port, weight, epoch);
    deployment["spec"] = json!({"metrics": [
        {"name": "other", "prometheus": {"source": "default", "query": "up"}},
        {"name": "live", "labels": {"metric": "logLoss", "horizon": horizon, "minCoverage": 0.9}},
    ]});
    gateway.put(Source::Models, deployment).await;
    gateway.served(epoch).await;
}

async fn infer(gateway: &Harness, model: &str, key: &str) -> Answer {
    let inputs =
        json!({"inputs": [{"name": "temp", "shape": [1], "datatype": "FP64", "data": [20.5]}]});
    let mut request = post(gateway.url(&format!("/v2/models/{model}/infer")), &inputs);
    request
        .headers_mut()
        .insert("x-perennial-key", key.parse().unwrap());
    call(&gateway.http, request).await
}

async fn tell(gateway: &Harness, id: &str, label: Value) -> Answer {
    let body = json!({"id": id, "label": label});
    call(&gateway.http, post(gateway.url("/v1/feedback"), &body)).await
}

fn late(buckets: &[Bucket]) -> Vec<&Samples> {
    buckets.iter().filter_map(|b| b.late.as_deref()).collect()
}

/// Waits until so many predictions were read, or couldn't be.
async fn read(gateway: &Harness, predictions: usize, unread: u64) -> Vec<Bucket> {
    until("the predictions are read", || async {
        let buckets = gateway.buckets().await.buckets;
        let all = late(&buckets);
        let seen = all.iter().map(|s| s.predictions.len()).sum::<usize>();
        let not = all.iter().map(|s| s.unread).sum::<u64>();
        assert!(seen <= predictions && not <= unread, "{all:?}");
        ((seen, not) == (predictions, unread)).then_some(buckets)
    })
    .await
}

#[tokio::test]
async fn what_an_answer_predicted_is_known_when_its_label_comes_whatever_is_routed_how_then() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[model(0.75).await], &[model(0.25).await])
        .await;
    labelled(&gateway, 0, 1, "1h").await;
    let one = infer(&gateway, "arrival", "a").await;
    let two = infer(&gateway, "two", "b").await;
    assert!(
        one.text().contains("predict_proba"),
        "the answer is the server's"
    );
    labelled(&gateway, 100, 2, "1h").await;
    for (answer, label) in [(&one, json!(1)), (&two, json!([true, 0]))] {
        let told = tell(&gateway, answer.header(ID), label).await;
        assert_eq!((told.status, told.text()), (204, ""));
    }
    let again = tell(&gateway, one.header(ID), json!(0)).await;
    assert_eq!(again.status, 409, "{}", again.text());

    let buckets = read(&gateway, 2, 0).await;
    let with: Vec<&Bucket> = buckets.iter().filter(|b| b.late.is_some()).collect();
    assert!(
        with.iter().all(|b| b.epoch == 1 && b.revision == STABLE),
        "{with:?}"
    );
    let all = late(&buckets);
    let predictions: Vec<_> = all.iter().flat_map(|s| &s.predictions).collect();
    assert_eq!(
        predictions.iter().map(|p| p.rows.len()).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_ne!(predictions[0].caller, predictions[1].caller);
    assert_eq!(predictions[0].rows[0].probabilities, [0.25, 0.75]);
    let labels: Vec<_> = all.iter().flat_map(|s| &s.labels).collect();
    assert_eq!(
        labels
            .iter()
            .map(|l| (l.id, l.rows.clone()))
            .collect::<Vec<_>>(),
        [
            (predictions[0].id, vec!["1".to_owned()]),
            (predictions[1].id, vec!["1".to_owned(), "0".to_owned()]),
        ]
    );
    assert_eq!(gateway.count("perennial_gateway_labels_total").await, 2);
    assert_eq!(gateway.count("perennial_gateway_feedback_total").await, 0);
}

#[tokio::test]
async fn only_answers_that_predict_something_are_in_the_sample() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[model(0.75).await], &[]).await;
    labelled(&gateway, 0, 1, "1h").await;
    infer(&gateway, "text", "a").await;
    infer(&gateway, "many", "a").await;
    assert_eq!(infer(&gateway, "broken", "a").await.status, 500);
    gateway.get("/v2/models/arrival", Some("a")).await;
    infer(&gateway, "arrival", "a").await;
    // What can't be read is known to be missing; errors and other answers predict nothing.
    read(&gateway, 1, 2).await;

    // Without a metric of labels nothing is kept, and none is taken.
    let plain = Harness::start(settings(None)).await;
    plain.model(&[model(0.75).await], &[]).await;
    plain.weight(0, 1).await;
    let answer = infer(&plain, "arrival", "a").await;
    let told = tell(&plain, answer.header(ID), json!(1)).await;
    assert_eq!(told.status, 400);
    assert!(told.text().contains("spec.metrics"), "{}", told.text());
    assert!(late(&plain.buckets().await.buckets).is_empty());
}

#[tokio::test]
async fn what_is_no_label_is_refused_with_a_sentence() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[model(0.75).await], &[]).await;
    labelled(&gateway, 0, 1, "1h").await;
    let answer = infer(&gateway, "arrival", "a").await;
    let id = answer.header(ID);
    for (body, status, words) in [
        (json!({"id": id, "label": null}), 400, "what was true"),
        (json!({"id": id, "label": []}), 400, "what was true"),
        (json!({"id": id, "label": {"a": 1}}), 400, "what was true"),
        (json!({"id": id, "label": vec![1; 65]}), 400, "64 at most"),
        (
            json!({"id": id, "label": 1, "score": 1}),
            400,
            "score or label",
        ),
        (json!({"id": "00", "label": 1}), 404, "no id of an answer"),
        (json!({"label": 1}), 400, "x-perennial-request-id"),
    ] {
        let told = call(&gateway.http, post(gateway.url("/v1/feedback"), &body)).await;
        assert_eq!(told.status, status, "{body} {}", told.text());
        assert!(told.text().contains(words), "{}", told.text());
    }
    assert_eq!(tell(&gateway, id, json!("1")).await.status, 204);
}

#[tokio::test]
async fn the_operator_joins_what_one_gateway_answered_with_the_labels_that_came_to_another() {
    let (first, second) = (
        Harness::start(settings(None)).await,
        Harness::start(settings(None)).await,
    );
    // Both serve the same pods, as two gateways of a namespace do.
    let pod = model(0.75).await;
    for gateway in [&first, &second] {
        gateway.model(&[pod], &[]).await;
        labelled(gateway, 0, 1, "3s").await;
    }
    let addresses = [&first, &second].map(|g| g.gateway.admin_address);
    // One operator for each, as they have different ports here; what it knows is what both say.
    let measures: Vec<Measure> = addresses
        .iter()
        .map(|address| {
            let ip = address.ip();
            Measure::with_port(
                move |_| {
                    vec![GatewayPod {
                        name: "gateway".into(),
                        uid: "gateway".into(),
                        ip: Some(ip),
                        ready: true,
                        terminating: false,
                    }]
                },
                |_| {},
                address.port(),
            )
        })
        .collect();
    let mut running = Vec::new();
    for measure in &measures {
        let task = measure.clone();
        running.push(tokio::spawn(async move { task.run().await }));
        measure.track(
            UID,
            Interest {
                key: ReleaseKey {
                    kind: ReleaseKind::Model,
                    namespace: "ns".into(),
                    name: "m".into(),
                },
                epoch: 1,
                interval: Some(Duration::from_secs(1)),
                keep_features: None,
                keep_late: Some(Duration::from_secs(3600)),
            },
        );
    }
    for i in 0..20 {
        let answer = infer(&first, "arrival", &format!("{i}")).await;
        let to = if i % 2 == 0 { &first } else { &second };
        let told = tell(to, answer.header(ID), json!(1)).await;
        assert_eq!(told.status, 204, "{}", told.text());
    }
    let outcomes = until("all are old enough, and read", || async {
        let mut known = measures[0].read("ns", UID).late;
        let other = measures[1].read("ns", UID).late;
        known.read = Some(known.read?.min(other.read?));
        known.parts.extend(other.parts);
        known.parts.sort_by_key(|part| part.minute);
        let cohort = known.cohort(STABLE, (i64::MIN, i64::MAX), 3);
        let [mut all] = Outcomes::of([&[cohort]], Metric::LogLoss, None).unwrap();
        all.pop().filter(|all| all.requests == 20)
    })
    .await;
    assert_eq!((outcomes.labelled, outcomes.callers()), (20, 20));
    let loss = outcomes.value(Metric::LogLoss).unwrap();
    assert!((loss + 0.75f64.ln()).abs() < 1e-6, "{loss}");
    running.iter().for_each(|task| task.abort());
}
