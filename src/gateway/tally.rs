//! One request's account: made when it is routed, settled exactly once, when its answer has ended or nobody waits for it any more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Shared, answer,
    body::Overheard,
    compare::Kept,
    features::{Asked, Job, What},
    feedback,
    proxy::mirror::Copy,
    record::{Sample, Slot, unix_second},
    route::{Chosen, Why},
    table::{Backend, Endpoint, Release},
    telemetry::{Count, Meters, Outcome, RevisionMeters},
};
use crate::stats::{bucket::Used, mirror::Answered};

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
    /// Whether the endpoint answered, or let the caller wait in vain: what it did says how it is.
    pub judged: bool,
    /// Its place among those that are open at once.
    pub place: Option<OwnedSemaphorePermit>,
    /// Whether this is a copy itself: what becomes of it must not keep callers from a pod.
    pub copied: bool,
    /// A copy for the candidate, sent when this has ended.
    pub mirror: Option<Copy>,
    inputs: Option<Arc<Overheard>>,
    /// The answer, if labels are awaited for what it predicts.
    predictions: Option<(Asked, Kept)>,
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
        // Whoever chooses the side is no sample of callers.
        let counted = live && chosen.why != Why::Override;
        let tally = Self {
            shared: shared.clone(),
            release: release.clone(),
            chosen: chosen.clone(),
            caller,
            started,
            first_byte: None,
            status: 0,
            blamed: false,
            usage: None,
            judged: false,
            place: None,
            copied: false,
            mirror: None,
            inputs: None,
            predictions: None,
            endpoint: None,
            live: counted,
            settled: false,
        };
        // Known before the revision can be gone: whoever ends late brings no series back.
        if counted {
            tally.of_revision();
        }
        match chosen.why {
            Why::FellBack if live => tally.note(Count::FellBack),
            Why::Override if live => tally.note(Count::Overridden),
            _ => {}
        }
        if counted && tally.caller.is_none() {
            tally.note(Count::Unkeyed);
        }
        tally
    }

    /// The head of the endpoint's answer is there.
    pub fn answered(&mut self, parts: &http::response::Parts, grpc: bool) {
        self.status = parts.status.as_u16();
        self.judged = true;
        self.blamed |= grpc && answer::grpc_failed(&parts.headers);
        self.copy_head(parts);
    }

    /// The head of the answer, for whom it is copied.
    pub fn copy_head(&mut self, parts: &http::response::Parts) {
        if let Some(copy) = &mut self.mirror {
            copy.head(parts);
        }
    }

    /// A piece of the answer's body goes by.
    pub fn hear(&mut self, data: &bytes::Bytes) {
        if let Some((_, kept)) = &mut self.predictions {
            kept.add(data);
        }
        if let Some(copy) = &mut self.mirror {
            copy.hear(data);
        }
    }

    /// The answer ends with these trailers.
    pub fn trailers(&mut self, trailers: &http::HeaderMap) {
        self.blamed |= answer::grpc_failed(trailers);
    }

    /// Counts something of this release, if this is live traffic.
    pub fn note_live(&self, what: Count) {
        if self.live {
            self.note(what);
        }
    }

    /// Counts something of this release.
    fn note(&self, what: Count) {
        self.meters().note(what);
    }

    fn meters(&self) -> &Meters {
        self.shared.meters(&self.release)
    }

    /// Gives the answer its id, by which feedback on it is taken.
    pub fn name(&self, headers: &mut http::HeaderMap) {
        // Whoever may say what answers are worth, may not say it of others'.
        headers.remove(feedback::ID);
        if self.live {
            let about = self.about();
            headers.insert(feedback::ID, about.header(&self.release.uid));
        }
    }

    /// As [`Tally::name`], of an answer that predicts something: it may be one of those that labels are awaited for.
    pub fn name_prediction(&mut self, parts: &mut http::response::Parts) {
        let terms = self.release.labels.filter(|_| parts.status.is_success());
        let Some(terms) = terms.filter(|_| self.live) else {
            return self.name(&mut parts.headers);
        };
        let mut about = self.about();
        let (release, revision) = (&self.release.uid, &self.chosen.revision.hash);
        let lates = &self.shared.recorder;
        about.sampled = lates.late(|l| l.wants(release, revision, about.nonce, terms.kept));
        if about.sampled {
            let asked = Asked {
                id: about.nonce,
                caller: about.caller,
            };
            self.predictions = Some((asked, Kept::head(parts)));
        }
        parts.headers.insert(feedback::ID, about.header(release));
    }

    fn about(&self) -> feedback::About {
        let all = &self.shared.feedback;
        all.about(&self.release, &self.chosen, self.caller.as_deref())
    }

    /// What the request used, where the backend said so.
    fn used(&self) -> Option<Used> {
        let (prompt, completion) = self.usage?;
        let prices = match &self.chosen.revision.backend {
            Backend::Prompt(compiled) => compiled.prices.as_ref(),
            _ => None,
        };
        Some(Used {
            prompt,
            completion,
            cost: prices.map(|p| p.billionths(prompt, completion)),
        })
    }

    fn of_revision(&self) -> &RevisionMeters {
        let (release, revision) = (&self.release, &self.chosen.revision);
        let telemetry = &self.shared.telemetry;
        let make = || telemetry.revision_meters(release.kind, &release.name, &revision.hash);
        revision.meters.get_or_init(make)
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

    /// The request is at no endpoint any more, and what became of it there is known: `failed`, or answered.
    pub fn judge(&mut self, failed: bool) {
        if self.copied {
            return self.leave();
        }
        let now = self.shared.now();
        if let (Some(endpoint), Backend::Model { endpoints, .. }) =
            (&self.endpoint, &self.chosen.revision.backend)
        {
            let rule = &self.release.policy.ejection;
            if !failed {
                endpoint.succeeded(now);
            } else if endpoints.failed(endpoint, rule, now) {
                self.note(Count::Ejected);
                let pod = endpoint.address;
                tracing::warn!(release = self.release.name, revision = %self.chosen.revision.hash, %pod, "a pod that keeps failing is left out for a while");
            }
        }
        self.leave();
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
        let failed = self.blamed || self.status >= 500 || ended == Ended::Broken;
        if self.judged && (failed || ended != Ended::Canceled) {
            self.judge(failed);
        }
        self.leave();
        self.place = None;
        let latency = self.started.elapsed();
        let copy = self.mirror.take();
        if let Some(copy) = copy.filter(|_| ended != Ended::Canceled) {
            let latency = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            let stable = Answered { failed, latency };
            copy.start(self.caller.clone(), self.status, stable);
        }
        self.shared.telemetry.open.dec();
        if !self.live {
            return;
        }
        let outcome = match (failed, ended) {
            (true, _) => Outcome::Error,
            (false, Ended::Canceled) => Outcome::Canceled,
            (false, _) if self.status >= 400 => Outcome::CallerError,
            (false, _) => Outcome::Ok,
        };
        let prompt = matches!(self.chosen.revision.backend, Backend::Prompt(_));
        let first_byte = self.first_byte.filter(|_| prompt);
        self.meters()
            .count(self.chosen.candidate, outcome, latency, first_byte);
        self.of_revision().count(outcome);
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
            used: self.used(),
        };
        self.shared.recorder.record(&slot, &sample);
        if let Some((asked, kept)) = self.predictions.take()
            && ended == Ended::Complete
        {
            let job = Job {
                slot: slot.clone(),
                what: What::Predictions(asked, unix_second()),
                body: kept.json(),
            };
            // One that there is no time for is counted as unread.
            self.shared.features.offer(job);
        }
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
            what: What::Inputs(signature),
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
