//! The payload log, as callers and the operator see it; what is in its files is tested in `gateway::log`.

use std::time::{Duration, Instant};

use perennial::gateway::objects::Source;
use serde_json::{Value, json};

use crate::harness::*;

fn infer() -> Value {
    json!({"inputs": [
        {"name": "temp", "shape": [1], "datatype": "FP64", "data": [20.5]},
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
    ]})
}

async fn logging(gateway: &Harness, epoch: i64, log: Value) {
    let mut deployment = deployment(gateway.port, 0, epoch);
    deployment["spec"] = json!({"monitoring": {"payloadLog": log}});
    gateway.put(Source::Models, deployment).await;
    gateway.served(epoch).await;
}

/// What is reported of the log: nothing, that it is well, or a problem.
async fn reported(gateway: &Harness) -> Option<Option<String>> {
    let served = gateway.epochs().await.releases.remove(UID).unwrap();
    assert_eq!(served.problem, None, "callers are answered all the same");
    served.log.map(|log| log.problem)
}

#[tokio::test]
async fn a_log_that_can_not_be_written_costs_callers_nothing_and_is_reported() {
    let state = tempfile::tempdir().unwrap();
    let gateway = Harness::start(settings(Some(state.path()))).await;
    gateway.model(&[named("{}").await], &[]).await;
    gateway.weight(0, 1).await;
    assert_eq!(reported(&gateway).await, None, "nobody asked for one");
    let log = json!({"uri": "s3://models/log", "credentials": {"secretName": "s3"}, "rotate": {"maxRows": 1}});
    logging(&gateway, 2, log.clone()).await;
    let problem = reported(&gateway).await.flatten().unwrap();
    assert!(
        problem.starts_with("CredentialsMissing: Secret s3"),
        "{problem}"
    );

    let secret = state.path().join("credentials/s3");
    std::fs::create_dir_all(&secret).unwrap();
    let endpoint = format!("http://127.0.0.1:{}", free_port().await);
    for (key, value) in [
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_ENDPOINT_URL", &*endpoint),
    ] {
        std::fs::write(secret.join(key), value).unwrap();
    }
    assert_eq!(reported(&gateway).await, Some(None));
    let started = Instant::now();
    for _ in 0..200 {
        let url = gateway.url("/v2/models/arrival/infer");
        assert_eq!(call(&gateway.http, post(url, &infer())).await.status, 200);
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let problem = until("the store's silence is reported", || async {
        reported(&gateway).await.flatten()
    })
    .await;
    assert!(
        problem.starts_with("LogUnwritable: writing s3://models/log"),
        "{problem}"
    );
    assert_eq!(gateway.count("perennial_gateway_logged_total").await, 0);
    // The rows of live inputs are measured as ever.
    let rows = gateway.buckets().await.buckets;
    let rows = rows.iter().filter_map(|b| b.features.as_ref());
    assert_eq!(rows.map(|r| r.rows).sum::<u64>(), 200);
}
