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
    features::{Answer, Asked, Inputs, Job},
    feedback,
    late::mixed,
    log::{Logged, rows::Entry},
    proxy::mirror::Copy,
    record::{Sample, Slot, unix_second},
    route::{Chosen, Why},
    table::{Backend, Endpoint, Release},
    telemetry::{Count, Meters, Outcome, RevisionMeters},
    tensors::Form,
};
use crate::{
    api::{payload_log::PayloadLog, revision::Signature},
    stats::{bucket::Used, mirror::Answered},
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
    /// Whether the endpoint answered, or let the caller wait in vain: what it did says how it is.
    pub judged: bool,
    /// Its place among those that are open at once.
    pub place: Option<OwnedSemaphorePermit>,
    /// Whether this is a copy itself: what becomes of it must not keep callers from a pod.
    pub copied: bool,
    /// A copy for the candidate, sent when this has ended.
    pub mirror: Option<Copy>,
    inputs: Option<(Arc<Overheard>, Form)>,
    /// The answer, if it predicts something; and which one it is, if labels are awaited for that.
    predictions: Option<(Option<Asked>, Kept)>,
    /// What its answer was named by: a number among all of the release, and the header.
    named: Option<(u64, http::HeaderValue)>,
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
            named: None,
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
    pub fn name(&mut self, headers: &mut http::HeaderMap) {
        // Whoever may say what answers are worth, may not say it of others'.
        headers.remove(feedback::ID);
        if self.live {
            let about = self.about();
            let header = about.header(&self.release.uid);
            self.named = Some((about.nonce, header.clone()));
            headers.insert(feedback::ID, header);
        }
    }

    /// As [`Tally::name`], of an answer that predicts something, which is looked at when it has ended; it may be one of those that labels are awaited for.
    pub fn name_prediction(&mut self, parts: &mut http::response::Parts) {
        // A status before any message: a call that failed.
        let failed = parts.headers.contains_key("grpc-status");
        if !self.live || failed || !parts.status.is_success() {
            return self.name(&mut parts.headers);
        }
        let mut about = self.about();
        let (release, revision) = (&self.release.uid, &self.chosen.revision.hash);
        let lates = &self.shared.recorder;
        about.sampled = self
            .release
            .labels
            .is_some_and(|of| lates.late(|l| l.wants(release, revision, about.nonce, of.kept)));
        let asked = about.sampled.then_some(Asked {
            id: about.nonce,
            caller: about.caller,
        });
        self.predictions = Some((asked, Kept::predicting(parts)));
        let header = about.header(release);
        self.named = Some((about.nonce, header.clone()));
        parts.headers.insert(feedback::ID, header);
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
    pub fn inputs(&mut self, overheard: Arc<Overheard>, form: Form) {
        self.inputs = Some((overheard, form));
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
        self.look(slot, ended == Ended::Complete, latency);
    }

    /// Gives inputs, unless they were refused, and a whole answer to be looked at.
    fn look(&mut self, slot: Slot, whole: bool, latency: Duration) {
        let answer = self.predictions.take().filter(|_| whole);
        let answer = answer.map(|(asked, kept)| {
            let (form, body) = kept.body();
            Answer {
                asked: asked.map(|asked| (asked, unix_second())),
                form,
                body,
            }
        });
        // A call of gRPC that was refused has no message.
        let said = |a: &Answer| a.form != Form::Message || !a.body.is_empty();
        let answer = answer.filter(said);
        let is_call = |i: &(_, Form)| i.1 == Form::Message;
        let refused = (400..500).contains(&self.status)
            || (answer.is_none() && self.inputs.as_ref().is_some_and(is_call));
        let overheard = self.inputs.take().filter(|_| !refused);
        let signature = match &self.chosen.revision.backend {
            Backend::Model { signature, .. } => signature.clone(),
            _ => None,
        };
        let logged = self.release.log.clone().filter(|_| overheard.is_some());
        let logged = logged.and_then(|log| self.logged(log, signature.clone(), latency));
        let inputs = overheard.map(|(overheard, form)| Inputs {
            signature,
            form,
            body: overheard.take(),
        });
        if inputs.is_none() && answer.is_none() {
            return;
        }
        let job = Job {
            slot,
            inputs,
            answer,
            logged,
        };
        if !self.shared.features.offer(job) {
            self.shared.telemetry.features_dropped.inc();
        }
    }

    /// What the payload log says of it, if it is in its sample: evenly by the hash of its id, which no replica gives twice.
    fn logged(
        &mut self,
        log: Arc<PayloadLog>,
        signature: Option<Arc<Signature>>,
        latency: Duration,
    ) -> Option<Logged> {
        let (nonce, id) = self.named.take().unwrap_or_else(|| {
            let about = self.about();
            (about.nonce, about.header(&self.release.uid))
        });
        let place = (mixed(nonce) >> 11) as f64 / (1u64 << 53) as f64;
        (place < log.sampling()).then(|| Logged {
            release: self.release.clone(),
            log,
            signature,
            entry: Entry {
                time: jiff::Timestamp::now().as_microsecond(),
                id: id.to_str().unwrap_or_default().to_owned(),
                status: self.status,
                latency: latency.as_secs_f64(),
            },
        })
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.end(Ended::Canceled);
    }
}
