//! Calls at an even pace, and how long they took.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;

const KEYS: usize = 1000;
const CONNECTIONS: usize = 32;
/// Never more calls than this, whatever is asked for.
const MOST: usize = 1_000_000;

type Http = Client<HttpConnector, Full<Bytes>>;

/// Calls, and prints one line of JSON: latencies in milliseconds, how many failed, and how long it took.
pub async fn run(address: SocketAddr, rate: usize, seconds: usize) {
    let calls = (rate * seconds).min(MOST);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http: Http = Client::builder(TokioExecutor::new()).build(connector);
    let body = Bytes::from(
        json!({"inputs": [
            {"name": "temp", "shape": [1], "datatype": "FP64", "data": [20.5]},
            {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
        ]})
        .to_string(),
    );
    let start = Instant::now();
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|worker| {
            let (http, body) = (http.clone(), body.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut failed = 0;
                for i in (worker..calls).step_by(CONNECTIONS) {
                    let due = start + Duration::from_secs_f64(i as f64 / rate as f64);
                    let began = begin(due).await;
                    let ok = call(&http, address, &body, i).await;
                    times.push(began.elapsed());
                    failed += usize::from(!ok);
                }
                (times, failed)
            })
        })
        .collect();
    let (mut times, mut failed) = (Vec::with_capacity(calls), 0);
    for worker in workers {
        let (more, bad) = worker.await.expect("a worker");
        times.extend(more);
        failed += bad;
    }
    let took = start.elapsed();
    times.sort_unstable();
    let at = |q: f64| {
        let place = (times.len() as f64 * q) as usize;
        times.get(place).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    let line = json!({
        "calls": times.len(), "failed": failed, "seconds": took.as_secs_f64(),
        "p50": at(0.5), "p95": at(0.95), "p99": at(0.99),
    });
    println!("{line}");
}

/// Waits until a call is due. One that is late, as the calls before it were slow, began when it was due: so nothing is left out. What the timer
/// adds (a millisecond) is not the proxy's.
async fn begin(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    tokio::time::sleep_until(due.into()).await;
    Instant::now()
}

async fn call(http: &Http, address: SocketAddr, body: &Bytes, i: usize) -> bool {
    let request = http::Request::post(format!("http://{address}/v2/models/m/infer"))
        .header("x-perennial-key", format!("caller-{}", i % KEYS))
        .header("content-type", "application/json")
        .body(Full::new(body.clone()))
        .expect("a request");
    match http.request(request).await {
        Ok(answer) if answer.status() == 200 => answer.into_body().collect().await.is_ok(),
        _ => false,
    }
}
