//! Copies of stable's requests for the candidate: nobody waits for them, their answers go to nobody, and what there is no room for
//! is left out and counted. How the candidate fared with them, beside stable, is measured.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, header, request::Parts, response};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use super::{Call, Payload, caller::random, serve};
use crate::{
    api::mirrored::{Pair, Side},
    gateway::{
        Shared,
        answer::grpc_failed,
        body::Overheard,
        compare::{Kept, compare},
        pairs::MAX_TEXT,
        record::Slot,
        route::{Chosen, Why, unit},
        table::Release,
        telemetry::Count,
    },
    stats::mirror::{Answered, Compared},
};

/// Header by which a server can tell a copy.
pub const MIRROR: &str = "x-perennial-mirror";
/// Copies that are open at once.
pub const MOST: usize = 64;
/// The longest that a copy is waited for.
const LONGEST: Duration = Duration::from_secs(120);

/// A request that will be copied when its own answer has ended.
pub struct Copy {
    shared: Arc<Shared>,
    release: Arc<Release>,
    parts: Parts,
    peer: IpAddr,
    secure: bool,
    body: Source,
    /// What stable answered.
    answer: Kept,
}

/// Where the body is.
pub enum Source {
    /// There, with its fields.
    Whole(Bytes, Map<String, Value>),
    /// Overheard on its way up.
    Heard(Arc<Overheard>),
    /// There was none.
    Nothing,
}

/// Whether this request is one of those that are copied.
pub fn is_wanted(release: &Release, call: &Call, chosen: &Chosen) -> bool {
    let tried = release.candidate.as_ref();
    call.live
        && release.mirror > 0
        && !chosen.candidate
        && chosen.why != Why::Override
        && tried.is_some_and(|candidate| candidate.is_available())
        && unit(random()) < f64::from(release.mirror) / 100.0
}

impl Copy {
    /// A copy of this call.
    pub fn of(shared: &Arc<Shared>, release: &Arc<Release>, call: &Call, body: Source) -> Self {
        let mut parts = call.parts.clone();
        let headers = &mut parts.headers;
        headers.insert(MIRROR, HeaderValue::from_static("true"));
        // What was streamed is whole now.
        headers.remove(header::TRANSFER_ENCODING);
        Self {
            shared: shared.clone(),
            release: release.clone(),
            parts,
            peer: call.peer,
            secure: call.secure,
            body,
            answer: Kept::default(),
        }
    }

    /// The head of stable's answer is there.
    pub fn head(&mut self, parts: &response::Parts) {
        self.answer = Kept::head(parts);
    }

    /// A piece of stable's answer goes by.
    pub fn hear(&mut self, data: &Bytes) {
        self.answer.add(data);
    }

    /// Sends it off, if there is room: stable has answered this caller, with this status, or failed.
    pub fn start(mut self, caller: Option<String>, status: u16, stable: Answered) {
        let note = |what| self.shared.meters(&self.release).note(what);
        let (bytes, fields) = match &self.body {
            Source::Nothing => (Bytes::new(), Map::new()),
            Source::Whole(bytes, fields) => (bytes.clone(), fields.clone()),
            Source::Heard(heard) => match heard.copy() {
                Some(bytes) => (bytes, Map::new()),
                None => return note(Count::MirrorDropped),
            },
        };
        // Copies have places of their own; where callers have none left, the candidate has enough to do.
        let tried = self.release.candidate.as_ref();
        let breaker = tried.and_then(|candidate| self.release.breakers.get(&candidate.hash));
        if breaker.is_some_and(|breaker| breaker.is_full()) {
            return note(Count::MirrorDropped);
        }
        let Ok(place) = self.shared.mirrors.clone().try_acquire_owned() else {
            return note(Count::MirrorDropped);
        };
        let Some(candidate) = tried.map(|candidate| candidate.hash.clone()) else {
            return;
        };
        let slot = Slot {
            release: self.release.uid.clone(),
            revision: candidate,
            epoch: self.release.epoch,
            weight: self.release.weight,
        };
        let answer = std::mem::take(&mut self.answer);
        // What is only asked about (health, metadata) may be another for each version.
        let asks = self.parts.method == Method::POST;
        let heard = asks && self.shared.pairs.are_wanted(&slot.release, &slot.revision);
        let request = heard.then(|| bytes.clone());
        tokio::spawn(async move {
            let (shared, release) = (self.shared.clone(), self.release.clone());
            let began = Instant::now();
            let answered = tokio::time::timeout(LONGEST, self.send(bytes, fields)).await;
            let latency = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let answered = answered.ok().flatten();
            // What stable takes and the candidate refuses is the candidate's doing.
            let refused = |kept: &Kept| kept.status >= 400 && status < 400 && !stable.failed;
            let failed = answered.as_ref().is_none_or(refused);
            let looked_at = match answered {
                Some(theirs) if asks && !failed && !stable.failed => {
                    // Reading them is no work for the threads that serve callers.
                    let looking = tokio::task::spawn_blocking(move || {
                        let texts = request.map(|request| texts(&request, &answer, &theirs));
                        (compare(&answer, &theirs), texts.unwrap_or_default())
                    });
                    looking.await.ok()
                }
                _ => None,
            };
            let (compared, texts) = looked_at.unwrap_or_default();
            shared.recorder.record_mirrored(
                &slot,
                (caller.as_deref(), random()),
                stable,
                Answered { failed, latency },
                compared.as_ref(),
            );
            if heard {
                let (of_release, revision) = (&*slot.release, &*slot.revision);
                let pair = pair(stable, Answered { failed, latency }, compared, texts);
                shared.pairs.give(of_release, revision, &pair);
            }
            shared.meters(&release).note(match failed {
                false => Count::Mirrored,
                true => Count::MirrorFailed,
            });
            drop(place);
        });
    }

    /// Sends it to the candidate, and reads the answer to its end; `None`: that wasn't one.
    fn send(
        self,
        bytes: Bytes,
        fields: Map<String, Value>,
    ) -> Pin<Box<dyn Future<Output = Option<Kept>> + Send>> {
        Box::pin(async move {
            let Self {
                shared,
                release,
                parts,
                peer,
                secure,
                ..
            } = self;
            let candidate = release.candidate.as_ref()?.hash.to_string();
            let call = Call {
                parts,
                payload: Payload::Read(bytes, fields),
                peer,
                secure,
                started: Instant::now(),
                live: false,
                copied: true,
                revision: Some(candidate),
            };
            let table = shared.table();
            let answer = serve(&shared, &release, &table, call).await;
            let (parts, mut body) = answer.into_parts();
            let (mut kept, mut trailers) = (Kept::head(&parts), None);
            while let Some(frame) = body.frame().await {
                match frame.ok()?.into_data() {
                    Ok(data) => kept.add(&data),
                    Err(last) => trailers = last.into_trailers().ok(),
                }
            }
            let said = trailers.unwrap_or(parts.headers);
            let failed = parts.status.is_server_error() || grpc_failed(&said);
            (!failed).then_some(kept)
        })
    }
}

/// Bodies of a request and of both answers, as far as they are texts.
type Texts = (Option<String>, Option<String>, Option<String>);

fn texts(request: &Bytes, stable: &Kept, candidate: &Kept) -> Texts {
    let whole = request.len() <= MAX_TEXT;
    let request = whole.then(|| String::from_utf8(request.to_vec()).ok());
    (request.flatten(), stable.text(), candidate.text())
}

/// What a listener is told of a copy.
fn pair(
    stable: Answered,
    candidate: Answered,
    compared: Option<Compared>,
    (request, said, theirs): Texts,
) -> Pair {
    let side = |answered: Answered, answer| Side {
        failed: answered.failed,
        latency: answered.latency,
        answer,
    };
    Pair {
        request,
        stable: side(stable, said),
        candidate: side(candidate, theirs),
        agreement: compared.as_ref().map(|c| c.agreement),
        difference: compared.and_then(|c| c.difference),
        missed: 0,
    }
}
