//! The loop that polls gateway pods. Every call is bounded in time and size.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    GatewayPod, Inner, Source,
    store::{Answer, Due},
};
use crate::stats::bucket::{Buckets, Epochs};

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer.
const MAX_ANSWER: usize = 64 << 20;
/// Pods that are asked at the same time.
const CONCURRENCY: usize = 64;
/// A look at what is due even if nothing says so (clocks, namespaces whose pods changed).
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Asks over the network.
pub(super) struct Network {
    http: Http,
    permits: Semaphore,
    port: u16,
}

impl Network {
    /// With the gateways' admin port.
    pub(super) fn new(port: u16) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        connector.set_nodelay(true);
        let http: Http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(1)
            .build(connector);
        Self {
            http,
            permits: Semaphore::new(CONCURRENCY),
            port,
        }
    }
}

impl Source for Network {
    fn ask<'a>(
        &'a self,
        pod: &'a GatewayPod,
        measure: bool,
        since: i64,
    ) -> BoxFuture<'a, Option<Answer>> {
        ask(&self.http, &self.permits, pod, self.port, measure, since).boxed()
    }
}

/// Polls what is due until the future is dropped.
pub(super) async fn run(inner: Arc<Inner>, source: Arc<dyn Source>) {
    let mut polls = tokio::task::JoinSet::new();
    loop {
        let now = Instant::now().into_std();
        let mut next = now + LONGEST_SLEEP;
        let mut due = Vec::new();
        for (name, namespace) in inner.namespaces().iter_mut() {
            match namespace.next(now) {
                Some(at) if at <= now => due.push((name.clone(), namespace.begin(now))),
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        for (name, due) in due {
            polls.spawn(poll(inner.clone(), source.clone(), name, due));
        }
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = inner.changed.notified() => {}
            Some(_) = polls.join_next() => {}
        }
    }
}

async fn poll(inner: Arc<Inner>, source: Arc<dyn Source>, namespace: String, due: Due) {
    let pods = (inner.pods)(&namespace);
    let answers = join_all(pods.iter().map(|pod| {
        let since = inner
            .namespaces()
            .get(&namespace)
            .map_or(0, |known| known.since(&pod.uid));
        source.ask(pod, due.measure, since)
    }))
    .await;
    let now = Instant::now().into_std();
    let woken = match inner.namespaces().get_mut(&namespace) {
        Some(known) => known.finish(answers.into_iter().flatten().collect(), due, &pods, now),
        None => Vec::new(),
    };
    for key in woken {
        (inner.wake)(&key);
    }
}

async fn ask(
    http: &Http,
    permits: &Semaphore,
    pod: &GatewayPod,
    port: u16,
    measure: bool,
    since: i64,
) -> Option<Answer> {
    let ip = pod.ip?;
    let _permit = permits.acquire().await.ok()?;
    let address = std::net::SocketAddr::new(ip, port);
    let explain = |error: String| {
        format!(
            "gateway pod {} can't be read at {address}: {error}. Let the operator reach port {port} of the gateway's pods \
             (a NetworkPolicy may block it)",
            pod.name
        )
    };
    let epochs: Result<Epochs, String> = get(http, format!("http://{address}/epochs")).await;
    let mut answer = Answer {
        pod: pod.uid.clone(),
        epochs: epochs.map_err(explain),
        buckets: None,
    };
    if measure && answer.epochs.is_ok() {
        let url = format!("http://{address}/buckets?since={since}");
        match get::<Buckets>(http, url).await {
            Ok(buckets) => answer.buckets = Some(buckets),
            Err(error) => answer.epochs = Err(explain(error)),
        }
    }
    Some(answer)
}

async fn get<T: DeserializeOwned>(http: &Http, url: String) -> Result<T, String> {
    let uri: http::Uri = url.parse().map_err(|_| format!("`{url}` is no URL"))?;
    let read = async {
        let answer = http.get(uri).await.map_err(|e| root_cause(&e))?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|e| e.to_string())?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|e| format!("its answer makes no sense: {e}"))
    };
    match tokio::time::timeout(TIMEOUT, read).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer in {} seconds", TIMEOUT.as_secs())),
    }
}

/// The innermost error: `Connection refused` rather than `client error (Connect)`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
