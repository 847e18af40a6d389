//! One request's account: made when it is routed, settled exactly once, when its answer has ended or nobody waits for it any more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Shared,
    body::Overheard,
    features::Job,
    record::{Sample, Slot},
    route::{Chosen, Why},
    table::{Backend, Endpoint, Release},
    telemetry::Outcome,
};

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// To its last byte.
    Complete,
    /// The connection broke, or the answer didn't come in time.
    Broken,
    /// The caller went away.
    Canceled,
}

/// A request's account.
pub struct Tally {
    shared: Arc<Shared>,
    release: Arc<Release>,
    chosen: Chosen,
    caller: Option<String>,
    started: Instant,
    first_byte: Option<Duration>,
    /// Status of the answer.
    pub status: u16,
    /// It was the revision's fault whatever the status says.
    pub blamed: bool,
    /// Tokens of prompt and answer.
    pub usage: Option<(u64, u64)>,
    inputs: Option<Arc<Overheard>>,
    endpoint: Option<Arc<Endpoint>>,
    live: bool,
    settled: bool,
}

impl Tally {
    /// Opens the account of a request that began at `started`; `live` is false for what came by an internal address.
    pub fn open(
        shared: &Arc<Shared>,
        release: &Arc<Release>,
        chosen: &Chosen,
        caller: Option<String>,
        started: Instant,
        live: bool,
    ) -> Self {
        shared.telemetry.open.inc();
        if live {
            let meters = release
                .meters
                .get_or_init(|| shared.telemetry.meters(release.kind, &release.name));
            if chosen.why == Why::FellBack {
                meters.fell_back();
            }
            if caller.is_none() {
                meters.unkeyed();
            }
        }
        Self {
            shared: shared.clone(),
            release: release.clone(),
            chosen: chosen.clone(),
            caller,
            started,
            first_byte: None,
            status: 0,
            blamed: false,
            usage: None,
            inputs: None,
            endpoint: None,
            live,
            settled: false,
        }
    }

    /// The body that is to be looked at for input rows.
    pub fn inputs(&mut self, overheard: Arc<Overheard>) {
        self.inputs = Some(overheard);
    }

    /// The request is open at this endpoint now.
    pub fn at(&mut self, endpoint: &Arc<Endpoint>) {
        self.leave();
        endpoint.open.fetch_add(1, Ordering::Relaxed);
        self.endpoint = Some(endpoint.clone());
    }

    fn leave(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The first byte of the answer's body is there.
    pub fn first_byte(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.started.elapsed());
        }
    }

    /// Settles the account; only the first call counts.
    pub fn end(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        self.leave();
        self.shared.telemetry.open.dec();
        if !self.live {
            return;
        }
        let latency = self.started.elapsed();
        let failed = self.blamed || self.status >= 500 || ended == Ended::Broken;
        let outcome = match (failed, ended) {
            (true, _) => Outcome::Error,
            (false, Ended::Canceled) => Outcome::Canceled,
            (false, _) if self.status >= 400 => Outcome::CallerError,
            (false, _) => Outcome::Ok,
        };
        let prompt = matches!(self.chosen.revision.backend, Backend::Prompt(_));
        let first_byte = self.first_byte.filter(|_| prompt);
        if let Some(meters) = self.release.meters.get() {
            meters.count(self.chosen.candidate, outcome, latency, first_byte);
        }
        let slot = Slot {
            release: self.release.uid.clone(),
            revision: self.chosen.revision.hash.clone(),
            epoch: self.release.epoch,
            weight: self.release.weight,
        };
        let sample = Sample {
            caller: self.caller.as_deref(),
            failed,
            // Of a caller that went away: at least so long, so that slowness shows.
            latency,
            first_byte,
            usage: self.usage,
        };
        self.shared.recorder.record(&slot, &sample);
        self.look(slot);
    }

    /// Gives the inputs to be looked at, unless they were refused.
    fn look(&mut self, slot: Slot) {
        let refused = (400..500).contains(&self.status);
        let (Some(overheard), false) = (self.inputs.take(), refused) else {
            return;
        };
        let signature = match &self.chosen.revision.backend {
            Backend::Model { signature, .. } => signature.clone(),
            _ => None,
        };
        let job = Job {
            slot,
            signature,
            body: overheard.take(),
        };
        if !self.shared.features.offer(job) {
            self.shared.telemetry.features_dropped.inc();
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.end(Ended::Canceled);
    }
}
