//! A gateway, servers behind it, and a caller in front.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, response::Response, serve::ListenerExt};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use perennial::{
    gateway::{
        Gateway, Limits, Settings,
        objects::{Change, Source},
    },
    stats::bucket::{Buckets, Epochs, Traffic},
};
use serde_json::{Value, json};

pub const UID: &str = "9e0f5c5e-0000-4000-8000-000000000001";
pub const STABLE: &str = "aaaaaaaaaa";
pub const CANDIDATE: &str = "bbbbbbbbbb";
const LONGEST: Duration = Duration::from_secs(20);

/// Starts a server; it serves until the test ends.
pub async fn server<F, Fut>(handler: F) -> SocketAddr
where
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    // Its own small writes must not wait for acknowledgements either.
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    address
}

/// A server that answers everything with its name.
pub async fn named(name: &'static str) -> SocketAddr {
    server(move |_| async move { Response::new(name.into()) }).await
}

/// A port that nobody listens on.
pub async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    listener.local_addr().unwrap().port()
}

pub fn settings(state: Option<&Path>) -> Settings {
    Settings {
        state: state.map(Into::into),
        credentials: state.map_or("/nowhere".into(), |s| s.join("credentials")),
        address: Some(Ipv4Addr::LOCALHOST.into()),
        shared_port: 0,
        internal_port: 0,
        admin_port: 0,
        mirrored_port: 0,
        limits: Limits {
            body: 1 << 20,
            connect: Duration::from_secs(1),
            response: Duration::from_secs(2),
            ..Limits::default()
        },
        leave: Duration::ZERO,
        drain: Duration::from_secs(10),
        hand_over: Duration::from_secs(10),
    }
}

/// A gateway with one ModelDeployment `m`, if it was told of it.
pub struct Harness {
    pub gateway: Gateway,
    pub port: u16,
    pub http: Http,
}

pub type Http = Client<HttpConnector, Full<Bytes>>;

pub fn client() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A read answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", self.body))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub async fn call(http: &Http, request: http::Request<Full<Bytes>>) -> Answer {
    let answer = tokio::time::timeout(LONGEST, http.request(request))
        .await
        .unwrap()
        .unwrap();
    let (parts, body) = answer.into_parts();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

pub fn get(url: String) -> http::Request<Full<Bytes>> {
    http::Request::get(url).body(Full::default()).unwrap()
}

pub fn post(url: String, body: &Value) -> http::Request<Full<Bytes>> {
    http::Request::post(url)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// Waits for a condition, with a deadline.
pub async fn until<T, Fut: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> Fut,
) -> T {
    let deadline = Instant::now() + LONGEST;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Harness {
    pub async fn start(settings: Settings) -> Self {
        Self {
            gateway: Gateway::start(settings).await.unwrap(),
            port: free_port().await,
            http: client(),
        }
    }

    pub async fn put(&self, source: Source, object: Value) {
        let object = Box::new(serde_json::from_value(object).unwrap());
        self.gateway
            .changes()
            .send(Change::Put(source, object))
            .await
            .unwrap();
    }

    /// Says that all that was put is all there is.
    pub async fn endpoints(&self, hash: &str, addresses: &[SocketAddr]) {
        // One slice for each, as their ports differ.
        for (i, address) in addresses.iter().enumerate() {
            self.put(Source::Endpoints, slice(hash, i, Some(*address)))
                .await;
        }
    }

    /// A ModelDeployment `m` with both revisions.
    pub async fn model(&self, stable: &[SocketAddr], candidate: &[SocketAddr]) {
        for hash in [STABLE, CANDIDATE] {
            self.put(Source::Revisions, model_revision(hash, "OpenInference"))
                .await;
        }
        self.endpoints(STABLE, stable).await;
        self.endpoints(CANDIDATE, candidate).await;
    }

    /// Routes so much to the candidate, and waits until that is served.
    pub async fn weight(&self, weight: i32, epoch: i64) {
        self.put(Source::Models, deployment(self.port, weight, epoch))
            .await;
        self.served(epoch).await;
    }

    /// As [`Harness::weight`], with a `spec.traffic`.
    pub async fn traffic_policy(&self, weight: i32, epoch: i64, traffic: Value) {
        let mut deployment = deployment(self.port, weight, epoch);
        deployment["spec"] = json!({"traffic": traffic});
        self.put(Source::Models, deployment).await;
        self.served(epoch).await;
    }

    /// A counter of this release, from `/metrics`.
    pub async fn count(&self, name: &str) -> u64 {
        let metrics = self.admin("/metrics").await;
        let of_release = format!("{name}{{kind=\"models\",release=\"m\"}} ");
        let line = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(&of_release).map(str::to_owned));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub async fn served(&self, epoch: i64) {
        until("the epoch is served", || async {
            let epochs = self.epochs().await;
            epochs
                .releases
                .get(UID)
                .filter(|r| r.epoch >= epoch)
                .map(|_| ())
        })
        .await;
    }

    pub async fn admin(&self, path: &str) -> Answer {
        call(
            &self.http,
            get(format!("http://{}{path}", self.gateway.admin_address)),
        )
        .await
    }

    pub async fn epochs(&self) -> Epochs {
        serde_json::from_slice(&self.admin("/epochs").await.body).unwrap()
    }

    pub async fn buckets(&self) -> Buckets {
        serde_json::from_slice(&self.admin("/buckets?since=0").await.body).unwrap()
    }

    /// All that was measured of a revision.
    pub async fn traffic(&self, hash: &str) -> Traffic {
        let mut sum = Traffic::default();
        for bucket in self
            .buckets()
            .await
            .buckets
            .iter()
            .filter(|b| b.revision == hash)
        {
            sum.merge(&bucket.traffic);
        }
        sum
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub async fn get(&self, path: &str, key: Option<&str>) -> Answer {
        let mut request = get(self.url(path));
        if let Some(key) = key {
            request
                .headers_mut()
                .insert("x-perennial-key", key.parse().unwrap());
        }
        call(&self.http, request).await
    }
}

pub fn deployment(port: u16, weight: i32, epoch: i64) -> Value {
    json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"name": "m", "namespace": "ns", "uid": UID},
        "spec": {},
        "status": {
            "stable": {"revision": STABLE, "version": "v1"},
            "candidate": {"revision": CANDIDATE, "version": "v2"},
            "rollout": {"weight": weight, "epoch": epoch},
            "gateway": {"port": port},
        },
    })
}

pub fn model_revision(hash: &str, protocol: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": format!("m-{hash}"), "ownerReferences": [
            {"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "name": "m", "uid": UID, "controller": true}]},
        "revision": 1,
        "data": {
            "model": {"name": "arrival", "version": if hash == STABLE { "v1" } else { "v2" }, "uri": "s3://x", "signature": {"features": [
                {"name": "temp", "type": "Number"}, {"name": "carrier", "type": "String"}]}},
            "server": {"protocol": protocol, "template": {"spec": {"containers": [{"name": "server"}]}}},
            "helperImage": "h",
        },
    })
}

pub fn slice(hash: &str, i: usize, address: Option<SocketAddr>) -> Value {
    let service = format!("m-{hash}");
    let ready: Vec<Value> = address
        .iter()
        .map(|a| json!({"addresses": [a.ip()], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-{i}"), "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": address.map_or(1, |a| a.port())}],
        "endpoints": ready,
    })
}

/// What a server was sent, for looking at it afterwards.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>);

impl Seen {
    pub async fn note(&self, request: Request) {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|b| b.to_bytes())
            .unwrap_or_default();
        self.0.lock().unwrap().push((parts, body));
    }

    pub fn last(&self) -> (http::request::Parts, Bytes) {
        self.0.lock().unwrap().last().cloned().unwrap()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
