//! Callers of a release: some hundred, each with a key, over real connections from outside the cluster's pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, task::JoinHandle};

use crate::space::Space;

/// An HTTP client that keeps its connections.
pub type Http = Client<HttpConnector, Full<Bytes>>;

/// A client without anything in it.
pub fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Address of a Service that works where names don't, once somebody listens there: nodes learn of a Service's pods a moment after
/// they are ready.
pub async fn address(space: &Space, service: &str) -> String {
    let service = space
        .until("Service", service, 30, "it has an address", |s| {
            s["spec"]["clusterIP"].is_string()
        })
        .await;
    let spec = &service["spec"];
    let host = format!(
        "{}:{}",
        spec["clusterIP"].as_str().unwrap(),
        spec["ports"][0]["port"]
    );
    let listening = async {
        while tokio::net::TcpStream::connect(&host).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(15), listening).await;
    assert!(outcome.is_ok(), "nobody listens at {host} after 15 s");
    format!("http://{host}")
}

/// One request, a GET if there is nothing to say: status, revision that answered, and body; or what went wrong.
pub async fn ask(
    http: &Http,
    url: &str,
    key: Option<&str>,
    body: &Value,
) -> Result<(u16, String, Bytes), String> {
    ask_host(http, url, None, key, body).await
}

/// The same of this host, wherever the URL leads.
pub async fn ask_host(
    http: &Http,
    url: &str,
    host: Option<&str>,
    key: Option<&str>,
    body: &Value,
) -> Result<(u16, String, Bytes), String> {
    let method = if body.is_null() {
        http::Method::GET
    } else {
        http::Method::POST
    };
    let mut request = http::Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json");
    if let Some(host) = host {
        request = request.header("host", host);
    }
    if let Some(key) = key {
        request = request.header("x-perennial-key", key);
    }
    let request = request
        .body(if body.is_null() {
            Full::default()
        } else {
            Full::from(body.to_string())
        })
        .unwrap();
    let answer = async {
        let answer = http
            .request(request)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let status = answer.status().as_u16();
        let revision = answer
            .headers()
            .get("x-perennial-revision")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((status, revision, body.to_bytes()))
    };
    match tokio::time::timeout(Duration::from_secs(30), answer).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer within 30 s".to_owned()),
    }
}

/// What the callers have seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Requests that weren't answered with 200.
    pub failed: u64,
    /// The callers who saw a failure.
    pub failed_callers: BTreeSet<String>,
    /// How they failed, with counts.
    pub failures: BTreeMap<String, u64>,
    /// Answers by revision.
    pub by_revision: BTreeMap<String, u64>,
}

/// Callers that take turns until they are told to stop.
pub struct Callers {
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    work: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Two hundred callers, `rate` requests a second in all.
    pub fn start(url: &str, body: &Value, rate: u32) -> Self {
        Self::start_host(url, None, body, rate)
    }

    /// The same, who ask this host, wherever the URL leads.
    pub fn start_host(url: &str, host: Option<&'static str>, body: &Value, rate: u32) -> Self {
        const LANES: u32 = 8;
        const CALLERS: u32 = 200;
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, stopped) = watch::channel(false);
        let client = http();
        let work = (0..LANES)
            .map(|lane| {
                let (url, body, client, tally, mut stopped) = (
                    url.to_owned(),
                    body.clone(),
                    client.clone(),
                    tally.clone(),
                    stopped.clone(),
                );
                tokio::spawn(async move {
                    let mut ticks = tokio::time::interval(Duration::from_secs(1) * LANES / rate);
                    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                    let mut turn = lane;
                    loop {
                        tokio::select! {
                            _ = ticks.tick() => {}
                            _ = stopped.changed() => return,
                        }
                        let key = format!("caller-{}", turn % CALLERS);
                        turn += LANES;
                        let answer = ask_host(&client, &url, host, Some(&key), &body).await;
                        tally.lock().unwrap().add(key, answer);
                    }
                })
            })
            .collect();
        Self { tally, stop, work }
    }

    /// What they have seen so far.
    pub fn seen(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Lets each finish its request; what they have seen.
    pub async fn stop(self) -> Tally {
        self.stop.send_replace(true);
        for work in self.work {
            work.await.unwrap();
        }
        self.tally.lock().unwrap().clone()
    }
}

impl Tally {
    fn add(&mut self, key: String, answer: Result<(u16, String, Bytes), String>) {
        self.requests += 1;
        let failure = match answer {
            Ok((200, revision, _)) => {
                *self.by_revision.entry(revision).or_default() += 1;
                return;
            }
            Ok((status, revision, body)) => format!(
                "{status} from `{revision}`: {}",
                String::from_utf8_lossy(&body[..body.len().min(200)])
            ),
            Err(error) => error,
        };
        self.failed += 1;
        self.failed_callers.insert(key);
        *self.failures.entry(failure).or_default() += 1;
    }
}

/// Whether a caller is exposed to a candidate at this weight: the published rule, computed here again.
pub fn exposed(release_uid: &str, revision: &str, key: &str, weight: f64) -> bool {
    let digest = Sha256::digest(format!("{release_uid}{revision}{key}"));
    let bits = u64::from_be_bytes(digest[..8].try_into().unwrap()) >> 11;
    (bits as f64) / 2f64.powi(53) < weight / 100.0
}
