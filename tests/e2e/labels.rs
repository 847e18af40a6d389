//! What callers learn later takes a candidate back whose answers came in time and looked fine.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::{
    caller::{self, Http},
    installation,
    space::{Space, claim_of, fill_job},
    words,
};

/// A server of the Open Inference Protocol that gives everybody this chance.
fn server(chance: &str) -> Value {
    let answer = r#"{\"outputs\": [{\"name\": \"predict_proba\", \"datatype\": \"FP64\", \"shape\": [1], \"data\": [$CHANCE]}]}"#;
    let script = format!(
        "mkdir -p /www/cgi-bin && echo ok > /www/words && printf '%s\\n' '#!/bin/sh' 'echo Content-Type: application/json; echo; echo \"{answer}\"' > /www/cgi-bin/infer \
         && chmod +x /www/cgi-bin/infer && exec httpd -f -p 8080 -h /www"
    );
    let mut deployment = words::deployment(json!({
        "steps": [{"setWeight": 50}, {"pause": {"duration": "15s"}}],
        "analysis": {"interval": "2s", "minRequests": 10, "gates": [{"metric": "liveAccuracy", "minDifference": -0.1, "minSamples": 20}]},
        "bake": "1s", "progressDeadline": "2m",
    }));
    let spec = &mut deployment["spec"];
    spec["model"] = json!({"uri": "pvc://models/m"});
    spec["metrics"] = json!([{"name": "liveAccuracy", "labels": {"metric": "accuracy", "horizon": "4s", "minCoverage": 0.8}}]);
    spec["server"]["protocol"] = json!("OpenInference");
    let pod = &mut spec["server"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "www", "emptyDir": {}}]);
    let container = &mut pod["containers"][0];
    container["command"] = json!(["sh", "-c", script]);
    container["env"] = json!([{"name": "CHANCE", "value": chance}]);
    container["volumeMounts"] = json!([{"name": "www", "mountPath": "/www"}]);
    deployment
}

async fn post(http: &Http, url: &str, key: &str, body: &Value) -> http::Response<Bytes> {
    let request = http::Request::post(url)
        .header("content-type", "application/json")
        .header("x-perennial-key", key)
        .body(Full::from(body.to_string()))
        .unwrap();
    let (parts, body) = http.request(request).await.unwrap().into_parts();
    http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

/// Asks, and tells a second later what was true: that nearly everybody stayed. Nine of ten know.
async fn customers(address: String) {
    let http = caller::http();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for turn in 0u64.. {
        ticks.tick().await;
        let (http, address) = (http.clone(), address.clone());
        tokio::spawn(async move {
            let key = format!("customer-{}", turn % 600);
            let inputs = json!({"inputs": [{"name": "months", "datatype": "INT64", "shape": [1], "data": [turn % 70]}]});
            let answer = post(&http, &format!("{address}/cgi-bin/infer"), &key, &inputs).await;
            let id = answer.headers().get("x-perennial-request-id").cloned();
            let Some(id) = id.filter(|_| answer.status() == 200 && turn % 10 > 0) else {
                return;
            };
            tokio::time::sleep(Duration::from_secs(1)).await;
            let told = json!({"id": id.to_str().unwrap(), "label": turn % 8 > 0});
            let told = post(&http, &format!("{address}/v1/feedback"), &key, &told).await;
            assert_eq!(told.status(), 204, "{:?}", told.body());
        });
    }
}

#[tokio::test]
async fn a_candidate_whose_predictions_turn_out_wrong_is_taken_back_by_labels_that_come_later() {
    let _peace = installation::in_peace().await;
    let space = Space::new("labels").await;
    let fill = fill_job(
        "models",
        words::BUSYBOX,
        &["sh", "-c", "mkdir -p /to/m && echo words > /to/m/words"],
    );
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [claim_of("models"), fill]});
    space.apply(&list.to_string()).await;
    space.until_complete("fill-models", 120).await;
    space.apply(&server("0.9").to_string()).await;
    let release = space
        .until_condition("ModelDeployment", "words", 120, "Ready", "True")
        .await;
    let stable = words::revision(&release, "stable");
    let address = caller::address(&space, "words").await;
    let customers = tokio::spawn(customers(address));

    space.apply(&server("0.2").to_string()).await;
    let ended = space
        .until(
            "ModelDeployment",
            "words",
            120,
            "the second revision's rollout has ended",
            |d| d["status"]["history"].as_array().map_or(0, Vec::len) == 2,
        )
        .await;
    customers.abort();
    let entry = ended["status"]["history"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("GateFailed")),
        "{}",
        ended["status"]
    );
    assert_eq!(words::revision(&ended, "stable"), stable);
    let gates = ended["status"]["rollout"]["gates"].as_array().unwrap();
    let gate = gates
        .iter()
        .find(|g| g["metric"] == "liveAccuracy")
        .unwrap();
    assert!(gate["value"].as_f64().unwrap() < 0.4, "{gate}");
    assert!(gate["stable"].as_f64().unwrap() > 0.7, "{gate}");
    let coverage = gate["coverage"].as_f64().unwrap();
    assert!((0.8..1.0).contains(&coverage), "{gate}");
    let message = gate["message"].as_str().unwrap();
    assert!(message.contains("requests that are 4s old"), "{message}");
}
