//! Requests whose inputs are others than the model was trained on: `temp`, a number, and `carrier`, a text.

use perennial::gateway::objects::Source;
use serde_json::{Value, json};

use crate::harness::*;

async fn checking(check: &str) -> Harness {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("stable").await], &[named("candidate").await])
        .await;
    gateway
        .traffic_policy(0, 1, json!({"signature": check}))
        .await;
    gateway
}

async fn infer(gateway: &Harness, inputs: Value) -> Answer {
    let url = gateway.url("/v2/models/m/infer");
    let mut request = post(url, &json!({"inputs": inputs}));
    let key = http::HeaderValue::from_static("k");
    request.headers_mut().insert("x-perennial-key", key);
    call(&gateway.http, request).await
}

fn good() -> Value {
    json!([{"name": "temp", "shape": [1], "datatype": "FP64", "data": [1.5]},
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]}])
}

fn bad() -> Value {
    json!([{"name": "temp", "shape": [1], "datatype": "BYTES", "data": ["warm"]},
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]}])
}

const MISMATCHES: &str = "perennial_gateway_signature_mismatches_total";

#[tokio::test]
async fn a_request_with_other_inputs_is_passed_on_with_a_warning() {
    let gateway = checking("Warn").await;
    let fine = infer(&gateway, good()).await;
    assert_eq!(
        (fine.text(), fine.header("x-perennial-signature")),
        ("stable", "")
    );
    let mut turned = good();
    turned.as_array_mut().unwrap().reverse();
    let warned = infer(&gateway, turned).await;
    let sentence = warned.header("x-perennial-signature");
    assert!(sentence.contains("come as carrier, temp"), "{sentence}");
    let warned = infer(&gateway, bad()).await;
    assert_eq!(warned.text(), "stable");
    let sentence = warned.header("x-perennial-signature");
    assert!(
        sentence.contains("`temp` is BYTES") && sentence.contains(STABLE),
        "{sentence}"
    );
    assert_eq!(gateway.count(MISMATCHES).await, 2);
    // Drift sees all of them.
    until("all were looked at", || async {
        let all = gateway.buckets().await.buckets;
        let rows = all.iter().filter_map(|b| b.features.as_ref());
        (rows.map(|r| r.rows).sum::<u64>() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_with_other_inputs_is_refused_where_that_is_enforced() {
    let gateway = checking("Enforce").await;
    assert_eq!(infer(&gateway, good()).await.text(), "stable");
    let refused = infer(&gateway, bad()).await;
    assert_eq!(refused.status, 400);
    let sentence = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        sentence.contains("feature `temp` is a Number"),
        "{sentence}"
    );
    assert_eq!(refused.json()["code"], "SignatureMismatch");
    assert_eq!(
        gateway.traffic(STABLE).await.errors,
        0,
        "it is the caller's"
    );
    // Other paths aren't predictions.
    let other = post(gateway.url("/v2/models/m/load"), &json!({}));
    assert_eq!(call(&gateway.http, other).await.status, 200);
}

#[tokio::test]
async fn a_candidate_that_refuses_what_stable_takes_is_failing() {
    let gateway = checking("Enforce").await;
    let mut revision = model_revision(CANDIDATE, "OpenInference");
    revision["data"]["model"]["signature"]["features"] =
        json!([{"name": "temp", "type": "Number"}]);
    gateway.put(Source::Revisions, revision).await;
    gateway
        .traffic_policy(100, 2, json!({"signature": "Enforce"}))
        .await;
    assert_eq!(infer(&gateway, good()).await.status, 400);
    assert_eq!(gateway.traffic(CANDIDATE).await.errors, 1);
    assert_eq!(infer(&gateway, bad()).await.status, 400);
    assert_eq!(
        gateway.traffic(CANDIDATE).await.errors,
        1,
        "stable refuses that too"
    );
}
