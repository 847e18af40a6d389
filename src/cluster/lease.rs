//! Leader election by a Lease. Expiry is judged by when *we* saw the lease change, on a monotonic clock; every write has a resourceVersion,
//! so two can't win; nothing is written past the deadline.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Whether this process may write. Clones share the answer.
#[derive(Clone)]
pub struct Leadership(Arc<Inner>);

struct Inner {
    /// The end of the right to write; `None` without it.
    until: RwLock<Option<Instant>>,
    always: bool,
    leading: watch::Sender<bool>,
}

impl Leadership {
    /// Not leading yet.
    pub fn none() -> Self {
        Self::with(false)
    }

    /// Leading for ever, without a Lease: tests, and `--leader-elect=false`.
    pub fn always() -> Self {
        Self::with(true)
    }

    fn with(always: bool) -> Self {
        Self(Arc::new(Inner {
            until: RwLock::new(None),
            always,
            leading: watch::Sender::new(always),
        }))
    }

    /// Whether a write may be sent now.
    pub fn may_write(&self) -> bool {
        self.0.always
            || self
                .0
                .until
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some_and(|until| Instant::now() < until)
    }

    /// Tells when leadership begins and ends.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.leading.subscribe()
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.until.write().unwrap_or_else(PoisonError::into_inner) = until;
        self.0.leading.send_if_modified(|leading| {
            let changed = *leading != until.is_some();
            *leading = until.is_some();
            changed
        });
    }
}

/// Times of the election.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A lease that hasn't changed for so long has expired.
    pub duration: Duration,
    /// The holder stops writing when it couldn't renew for so long; well below `duration`.
    pub deadline: Duration,
    /// Between two looks.
    pub period: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            period: Duration::from_secs(2),
        }
    }
}

/// How an election ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We were told to stop; the lease was released if we held it.
    Stopped,
    /// Somebody else has it, or we couldn't renew in time: the process should exit.
    Lost,
}

/// Takes part in the election until it is lost after it was won, or `stop` is cancelled.
///
/// `client` should have no retries of its own and be used for nothing else, so that no queue of other requests delays a renewal.
pub async fn run(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    times: Times,
    leadership: Leadership,
    stop: CancellationToken,
) -> End {
    let mut election = Election {
        api: Api::namespaced(client, namespace),
        name,
        identity,
        times,
        seen: None,
    };
    let mut held: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let limit = match held {
            // Whatever happens to the request, the deadline is looked at in time.
            Some(until) => until
                .saturating_duration_since(began)
                .min(times.deadline / 2),
            None => times.deadline / 2,
        };
        let attempt = tokio::select! {
            attempt = tokio::time::timeout(limit, election.attempt(held.is_some())) => attempt,
            () = stop.cancelled() => {
                leadership.set(None);
                if held.is_some() {
                    let _ = tokio::time::timeout(times.deadline / 2, election.release()).await;
                }
                return End::Stopped;
            }
        };
        match attempt {
            Ok(Ok(true)) => {
                if held.is_none() {
                    tracing::info!(identity, lease = name, "leading");
                }
                held = Some(began + times.deadline);
                leadership.set(held);
            }
            Ok(Ok(false)) if held.is_some() => {
                leadership.set(None);
                tracing::error!(
                    identity,
                    lease = name,
                    "leadership was lost to another process"
                );
                return End::Lost;
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::warn!(lease = name, "the lease can't be read or written: {error}")
            }
            Err(_) => tracing::warn!(lease = name, "no answer about the lease within {limit:?}"),
        }
        if held.is_some_and(|until| Instant::now() >= until) {
            leadership.set(None);
            tracing::error!(
                identity,
                lease = name,
                "the lease couldn't be renewed in time"
            );
            return End::Lost;
        }
        let pause = held.map_or(times.period, |until| {
            times
                .period
                .min(until.saturating_duration_since(Instant::now()))
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

struct Election<'a> {
    api: Api<Lease>,
    name: &'a str,
    identity: &'a str,
    times: Times,
    /// The resourceVersion that was seen last, and when it was seen first.
    seen: Option<(String, Instant)>,
}

impl Election<'_> {
    /// Tries to take or renew the lease. Whether we hold it now.
    async fn attempt(&mut self, holding: bool) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(self.name).await? else {
            return won(self
                .api
                .create(&PostParams::default(), &self.lease(None))
                .await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((version, since));
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity || holder.is_empty() {
            return won(self.replace(&lease).await);
        }
        let duration = spec
            .lease_duration_seconds
            .and_then(|s| u64::try_from(s).ok())
            .map_or(self.times.duration, Duration::from_secs);
        if holding || since.elapsed() < duration {
            return Ok(false);
        }
        tracing::info!(
            holder,
            lease = self.name,
            "the lease has expired: taking it"
        );
        won(self.replace(&lease).await)
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        self.api
            .replace(self.name, &PostParams::default(), &self.lease(Some(lease)))
            .await
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(self.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.api
            .replace(self.name, &PostParams::default(), &lease)
            .await
            .map(|_| ())
    }

    fn lease(&self, before: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = before.and_then(|l| l.spec.clone()).unwrap_or_default();
        let renewed = old.holder_identity.as_deref() == Some(self.identity);
        Lease {
            metadata: before.map_or_else(
                || ObjectMeta {
                    name: Some(self.name.to_owned()),
                    ..Default::default()
                },
                |l| l.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.to_owned()),
                lease_duration_seconds: i32::try_from(self.times.duration.as_secs().max(1)).ok(),
                acquire_time: if renewed {
                    old.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(
                    old.lease_transitions.unwrap_or(0) + i32::from(!renewed && before.is_some()),
                ),
                ..Default::default()
            }),
        }
    }
}

/// A conflict is a lost race, not an error.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
