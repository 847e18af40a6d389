//! Asking the supervisors in our training and evaluation pods, by the pod's own address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    api::{
        SUPERVISOR_PORT,
        run::{ProgressAnswer, Report},
    },
    plan::training_job::Answers,
};

/// Progress is asked for at most so often.
const PERIOD: Duration = Duration::from_secs(9);
/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(3);
/// Longest answer: a profile has at most 256 KiB.
const SIZE: usize = 1 << 20;
/// Pods that are remembered.
const REMEMBERED: usize = 4096;

/// How supervisors are reached: over the network, or what a simulation puts in its place.
pub trait Wire: Send + Sync + 'static {
    /// The body of a `GET` that was answered well; `None` for anything else.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Option<Bytes>>;
}

struct Network(Client<HttpConnector, Empty<Bytes>>);

impl Wire for Network {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Option<Bytes>> {
        async move {
            let answer = self.0.get(url.parse().ok()?).await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            let body = Limited::new(answer.into_body(), SIZE).collect().await;
            let body = body
                .inspect_err(
                    |error| tracing::warn!(url, %error, "a supervisor's answer can't be read"),
                )
                .ok()?;
            Some(body.to_bytes())
        }
        .boxed()
    }
}

/// Asks supervisors; remembers when it last did.
pub struct Supervisors {
    wire: Arc<dyn Wire>,
    asked: Mutex<HashMap<String, (Instant, Option<ProgressAnswer>)>>,
}

impl Default for Supervisors {
    fn default() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        Self::with(Arc::new(Network(client)))
    }
}

impl Supervisors {
    /// Asks in this way.
    pub fn with(wire: Arc<dyn Wire>) -> Self {
        Self {
            wire,
            asked: Mutex::default(),
        }
    }

    /// What the pod's supervisor says: its report when the pod is ready (its readiness is that there is one), else its progress.
    /// A pod that doesn't answer has said nothing.
    pub async fn ask(&self, pod: &Pod) -> Answers {
        let Some(address) = address(pod) else {
            return Answers::default();
        };
        if ready(pod) {
            let report: Option<Report> = self.get(&format!("{address}/report")).await;
            return Answers {
                report,
                progress: None,
            };
        }
        let uid = pod.uid().unwrap_or_default();
        if let Some((when, answer)) = self.lock().get(&uid)
            && when.elapsed() < PERIOD
        {
            return Answers {
                progress: answer.clone(),
                report: None,
            };
        }
        let progress: Option<ProgressAnswer> = self.get(&format!("{address}/progress")).await;
        // A pod that is still starting is asked again as soon as something changes.
        if progress.is_some() {
            let mut asked = self.lock();
            if asked.len() >= REMEMBERED {
                asked.clear();
            }
            asked.insert(uid, (Instant::now(), progress.clone()));
        }
        Answers {
            progress,
            report: None,
        }
    }

    /// Tells the pod that its report is recorded, so that it needn't wait any longer.
    pub async fn acknowledge(&self, pod: &Pod) {
        if let Some(address) = address(pod).filter(|_| ready(pod)) {
            let _: Option<Report> = self
                .get(&format!("{address}/report?acknowledge=true"))
                .await;
        }
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Option<T> {
        let read = async {
            let body = self.wire.get(url).await?;
            serde_json::from_slice(&body)
                .inspect_err(
                    |error| tracing::warn!(url, %error, "a supervisor's answer can't be read"),
                )
                .ok()
        };
        tokio::time::timeout(LIMIT, read).await.ok().flatten()
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Option<ProgressAnswer>)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `http://IP:9465` of a pod that runs.
fn address(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    match status.pod_ip.as_deref()?.parse().ok()? {
        IpAddr::V4(ip) => Some(format!("http://{ip}:{SUPERVISOR_PORT}")),
        IpAddr::V6(ip) => Some(format!("http://[{ip}]:{SUPERVISOR_PORT}")),
    }
}

fn ready(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
