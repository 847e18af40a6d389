//! What the gateway adds to a request: the same calls directly to a server and through the gateway, alternating in one process,
//! so that only the difference counts. `make bench`; `cargo bench --bench gateway -- 3000 10` for 3,000 calls a second for 10 seconds.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use perennial::gateway::{
    Gateway, Limits, Settings,
    objects::{Change, Source},
};
use serde_json::{Value, json};

const KEYS: usize = 1000;
const CONNECTIONS: usize = 16;

type Http = Client<HttpConnector, Full<Bytes>>;

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let (rate, seconds) = (
        numbers.first().copied().unwrap_or(1000),
        numbers.get(1).copied().unwrap_or(5),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads");
    runtime.block_on(run(rate, seconds));
}

async fn run(rate: u64, seconds: u64) {
    let server = server().await;
    let port = free_port().await;
    let gateway = Gateway::start(Settings {
        address: Some(Ipv4Addr::LOCALHOST.into()),
        shared_port: 0,
        internal_port: 0,
        admin_port: 0,
        leave: Duration::ZERO,
        limits: Limits::default(),
        ..Settings::default()
    })
    .await
    .expect("the gateway starts");
    tell(&gateway, server, port).await;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http: Http = Client::builder(TokioExecutor::new()).build(connector);
    let proxied = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    until_served(&http, proxied).await;

    let body = Bytes::from(
        json!({"inputs": [
            {"name": "temp", "shape": [1], "datatype": "FP64", "data": [20.5]},
            {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
        ]})
        .to_string(),
    );
    println!(
        "{rate} calls a second for {seconds} s each, {CONNECTIONS} at once, {} bytes, sticky, counted, inputs sketched",
        body.len()
    );
    println!(
        "{:>22} {:>9} {:>9} {:>9} {:>9} {:>12}",
        "", "p50 ms", "p95 ms", "p99 ms", "failed", "CPU µs/call"
    );
    let mut medians = Vec::new();
    for (what, address) in [
        ("direct", server),
        ("through the gateway", proxied),
        ("direct again", server),
    ] {
        let (mut times, failed, cpu) = load(&http, address, &body, rate, seconds).await;
        times.sort_unstable();
        let at = |q: f64| {
            times
                .get((times.len() as f64 * q) as usize)
                .map_or(0.0, |t| t.as_secs_f64() * 1e3)
        };
        println!(
            "{what:>22} {:>9.3} {:>9.3} {:>9.3} {failed:>9} {:>12.0}",
            at(0.5),
            at(0.95),
            at(0.99),
            cpu.as_secs_f64() * 1e6 / times.len().max(1) as f64
        );
        medians.push((at(0.5), at(0.99)));
    }
    let direct = |f: fn(&(f64, f64)) -> f64| (f(&medians[0]) + f(&medians[2])) / 2.0;
    println!(
        "added: p50 {:.3} ms, p99 {:.3} ms",
        medians[1].0 - direct(|m| m.0),
        medians[1].1 - direct(|m| m.1)
    );
    gateway.stop().await;
}

/// Calls at an even pace, late ones counted from when they were due; latencies, failures and CPU time of the whole process.
async fn load(
    http: &Http,
    address: SocketAddr,
    body: &Bytes,
    rate: u64,
    seconds: u64,
) -> (Vec<Duration>, usize, Duration) {
    let calls = usize::try_from(rate * seconds).expect("a number of calls");
    let (before, start) = (cpu_time(), Instant::now());
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|worker| {
            let (http, body) = (http.clone(), body.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut failed = 0;
                for i in (worker..calls).step_by(CONNECTIONS) {
                    let due = start + Duration::from_secs_f64(i as f64 / rate as f64);
                    tokio::time::sleep_until(due.into()).await;
                    let request =
                        http::Request::post(format!("http://{address}/v2/models/m/infer"))
                            .header("x-perennial-key", format!("caller-{}", i % KEYS))
                            .header("content-type", "application/json")
                            .body(Full::new(body.clone()))
                            .expect("a request");
                    let began = Instant::now();
                    let ok = match http.request(request).await {
                        Ok(answer) if answer.status() == 200 => {
                            answer.into_body().collect().await.is_ok()
                        }
                        _ => false,
                    };
                    times.push(began.elapsed());
                    failed += usize::from(!ok);
                }
                (times, failed)
            })
        })
        .collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for worker in workers {
        let (more, bad) = worker.await.expect("a worker");
        times.extend(more);
        failed += bad;
    }
    (times, failed, cpu_time().saturating_sub(before))
}

/// User and system time of this process, in the kernel's hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// A model server that answers at once.
async fn server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let answer = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                request.into_body().collect().await?;
                Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from_static(
                    b"{\"outputs\":[]}",
                ))))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    address
}

async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn tell(gateway: &Gateway, server: SocketAddr, port: u16) {
    let owner = json!([{"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "name": "m", "uid": "u", "controller": true}]);
    let revision = |hash: &str| {
        json!({"metadata": {"name": format!("m-{hash}"), "ownerReferences": owner}, "data": {
            "model": {"uri": "x", "signature": {"features": [{"name": "temp", "type": "Number"}, {"name": "carrier", "type": "String"}]}},
            "server": {"template": {"spec": {"containers": [{"name": "server"}]}}}, "helperImage": "h"}})
    };
    let slice = |hash: &str| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("m-{hash}-1"), "labels": {"kubernetes.io/service-name": format!("m-{hash}")}},
            "ports": [{"port": server.port()}], "endpoints": [{"addresses": [server.ip()]}]})
    };
    let release = json!({"metadata": {"name": "m", "uid": "u"}, "status": {
        "stable": {"revision": "aaaaaaaaaa"}, "candidate": {"revision": "bbbbbbbbbb"},
        "rollout": {"weight": 10, "epoch": 1}, "gateway": {"port": port}}});
    let mut all = vec![(Source::Models, release)];
    for hash in ["aaaaaaaaaa", "bbbbbbbbbb"] {
        all.push((Source::Revisions, revision(hash)));
        all.push((Source::Endpoints, slice(hash)));
    }
    for (source, object) in all {
        put(gateway, source, object).await;
    }
}

async fn put(gateway: &Gateway, source: Source, object: Value) {
    let object = Box::new(serde_json::from_value(object).expect("an object"));
    gateway
        .changes()
        .send(Change::Put(source, object))
        .await
        .expect("the gateway runs");
}

async fn until_served(http: &Http, address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let request = http::Request::get(format!("http://{address}/"))
            .body(Full::default())
            .expect("a request");
        if http
            .request(request)
            .await
            .is_ok_and(|answer| answer.status() == 200)
        {
            return;
        }
        assert!(Instant::now() < deadline, "the gateway doesn't serve");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
