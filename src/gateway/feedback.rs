//! Feedback on answers: `POST /v1/feedback {"id": …, "score": 0…1}`, or `"label": …` for what was true; the id as the answer carried it.
//!
//! The id says itself what it is about (revision, epoch, caller's hash, time, whether its predictions are in the sample that labels count for) and is signed with a key that comes from the release's UID, which
//! callers don't know. So every replica understands it, and a restart loses nothing. What a process remembers, bounded, is only which
//! ids it has heard of, so that one answer is judged once.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Shared,
    answer::{self, Shape},
    body::{Body, empty},
    predictions,
    proxy::{self, Call, Payload},
    record::{Slot, unix_second},
    route::Chosen,
    table::Release,
    telemetry::Count,
};
use crate::stats::{labels::Label, sketch::CategorySketch};
use http_body_util::BodyExt;

/// Header with the id of an answer.
pub const ID: &str = "x-perennial-request-id";
/// Where feedback is given.
const PATH: &str = "/v1/feedback";
/// Feedback that comes later is refused, in minutes.
const LATEST: i64 = 24 * 60;
/// Ids that are remembered as heard of.
const REMEMBERED: usize = 100_000;
/// First byte of an id: how the rest is read …
const FORM: u8 = 1;
/// … and of one whose predictions are in the sample.
const SAMPLED: u8 = 2;
/// Bytes before the revision's hash, and of the signature at the end.
const HEAD: usize = 1 + 8 + 1 + 8 + 8 + 8;
const SIGNATURE: usize = 16;

/// What a process knows of feedback.
pub struct Feedback {
    nonce: AtomicU64,
    heard: Mutex<(HashSet<u64>, VecDeque<u64>)>,
}

/// What an id is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    revision: String,
    epoch: i64,
    weight: u8,
    /// Unix minute of the answer.
    minute: i64,
    /// Hash of the caller's key; of something unique, without one.
    pub caller: u64,
    /// The answer, among all of the release.
    pub nonce: u64,
    /// Whether what it predicts is in the sample that labels count for.
    pub sampled: bool,
}

impl Default for Feedback {
    fn default() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        Self {
            nonce: AtomicU64::new(RandomState::new().build_hasher().finish()),
            heard: Mutex::default(),
        }
    }
}

impl Feedback {
    /// What the id of an answer says that this revision gives to this caller now.
    pub fn about(&self, release: &Release, chosen: &Chosen, caller: Option<&str>) -> About {
        let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
        About {
            revision: chosen.revision.hash.to_string(),
            epoch: release.epoch,
            weight: u8::try_from(release.weight).unwrap_or_default(),
            minute: minute(),
            caller: match caller {
                Some(key) => CategorySketch::hash_of(key),
                None => CategorySketch::hash_of(&format!("{nonce:x}")),
            },
            nonce,
            sampled: false,
        }
    }

    /// Whether this is the first time that this id is heard of, as far as is remembered.
    fn is_new(&self, nonce: u64) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *heard;
        if !known.insert(nonce) {
            return false;
        }
        order.push_back(nonce);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        true
    }
}

impl About {
    /// The id, of an answer of the release with this UID.
    pub fn header(&self, uid: &str) -> HeaderValue {
        let text = self.write(uid);
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("none"))
    }

    fn write(&self, uid: &str) -> String {
        let mut bytes = Vec::with_capacity(HEAD + self.revision.len() + SIGNATURE);
        bytes.push(if self.sampled { SAMPLED } else { FORM });
        bytes.extend(self.epoch.to_be_bytes());
        bytes.push(self.weight);
        bytes.extend(self.minute.to_be_bytes());
        bytes.extend(self.caller.to_be_bytes());
        bytes.extend(self.nonce.to_be_bytes());
        bytes.extend(self.revision.as_bytes());
        let signature = signature(uid, &bytes);
        bytes.extend(signature);
        hex::encode(bytes)
    }

    fn slot(&self, release: &Release) -> Slot {
        Slot {
            release: release.uid.clone(),
            revision: self.revision.as_str().into(),
            epoch: self.epoch,
            weight: i32::from(self.weight),
        }
    }

    /// `None`: it isn't one of this release's.
    fn read(text: &str, uid: &str) -> Option<Self> {
        if text.len() > 512 {
            return None;
        }
        let bytes = hex::decode(text).ok()?;
        let (said, signed) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE)?)?;
        // Compared in constant time: no byte of a signature can be guessed by itself.
        let expected = signature(uid, said);
        let differs = signed
            .iter()
            .zip(expected)
            .fold(0, |all, (a, b)| all | (a ^ b));
        let (head, revision) = said.split_at_checked(HEAD)?;
        if differs != 0 {
            return None;
        }
        let sampled = match *head.first()? {
            FORM => false,
            SAMPLED => true,
            _ => return None,
        };
        let number = |at: usize| Some(u64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            revision: String::from_utf8(revision.to_vec()).ok()?,
            epoch: number(1)?.cast_signed(),
            weight: *head.get(9)?,
            minute: number(10)?.cast_signed(),
            caller: number(18)?,
            nonce: number(26)?,
            sampled,
        })
    }
}

/// The hash is taken twice, so that nobody can lengthen what was signed.
fn signature(uid: &str, said: &[u8]) -> [u8; SIGNATURE] {
    let keyed = |what: &[u8]| {
        let hash = Sha256::new().chain_update("perennial feedback\0");
        hash.chain_update(uid)
            .chain_update("\0")
            .chain_update(what)
            .finalize()
    };
    let inner = keyed(said);
    let mut out = [0; SIGNATURE];
    for (to, from) in out.iter_mut().zip(keyed(&inner)) {
        *to = from;
    }
    out
}

fn minute() -> i64 {
    jiff::Timestamp::now().as_second().div_euclid(60)
}

/// Whether a request gives feedback.
pub fn is_meant(call: &Call) -> bool {
    call.live && call.parts.method == Method::POST && call.parts.uri.path() == PATH
}

/// Takes feedback on an answer of this release.
pub async fn answer(shared: &Arc<Shared>, release: &Arc<Release>, call: Call) -> Response<Body> {
    let call = match proxy::read(call).await {
        Ok(call) => call,
        Err(refusal) => return *refusal,
    };
    let empty_body = Map::new();
    let body = match &call.payload {
        Payload::Read(_, body) => body,
        Payload::Coming(_) => &empty_body,
    };
    match take(shared, release, body) {
        Ok(what) => {
            shared.meters(release).note(what);
            let mut response = Response::new(empty().boxed_unsync());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err((status, code, param, message)) => {
            answer::error(Shape::OpenAi, status, code, Some(param), message)
        }
    }
}

type Refusal = (StatusCode, &'static str, &'static str, &'static str);

fn take(shared: &Shared, release: &Release, body: &Map<String, Value>) -> Result<Count, Refusal> {
    let bad = |param, message| (StatusCode::BAD_REQUEST, "bad_feedback", param, message);
    let id = body.get("id").and_then(Value::as_str).ok_or(bad(
        "id",
        "write the id of the answer, from its header x-perennial-request-id",
    ))?;
    let label = body.get("label").map(predictions::labels);
    if label.is_some() && body.contains_key("score") {
        return Err(bad("label", "write score or label, one at a time"));
    }
    let about = About::read(id, &release.uid).ok_or((
        StatusCode::NOT_FOUND,
        "unknown_id",
        "id",
        "this is no id of an answer that this release gave",
    ))?;
    let age = minute() - about.minute;
    if let Some(label) = label {
        return take_label(shared, release, &about, label, age);
    }
    let score = body.get("score").and_then(Value::as_f64);
    let score = score.filter(|s| (0.0..=1.0).contains(s)).ok_or(bad(
        "score",
        "write a score from 0 (of no use) to 1 (just right), or the label that was true",
    ))?;
    if !(-1..=LATEST).contains(&age) {
        return Err((
            StatusCode::GONE,
            "too_late",
            "id",
            "feedback is taken for 24 hours after the answer",
        ));
    }
    if !shared.feedback.is_new(about.nonce) {
        return Err((
            StatusCode::CONFLICT,
            "given_already",
            "id",
            "feedback on this answer was given already",
        ));
    }
    let slot = about.slot(release);
    shared.recorder.record_feedback(&slot, about.caller, score);
    Ok(Count::Feedback)
}

fn take_label(
    shared: &Shared,
    release: &Release,
    about: &About,
    label: Option<Vec<String>>,
    age: i64,
) -> Result<Count, Refusal> {
    let refuse = |status, code, param, message| Err((status, code, param, message));
    let Some(rows) = label else {
        let message = "write what was true: a class or a number, or a list of them, one for each row of the request (64 at most)";
        return refuse(StatusCode::BAD_REQUEST, "bad_feedback", "label", message);
    };
    let Some(terms) = release.labels else {
        let message = "no metric of this release is measured by labels: add one to spec.metrics";
        return refuse(StatusCode::BAD_REQUEST, "bad_feedback", "label", message);
    };
    if !(-1..=terms.horizon / 60 + 1).contains(&age) {
        let message = "it comes later than any horizon in spec.metrics allows";
        return refuse(StatusCode::GONE, "too_late", "id", message);
    }
    // Of others nobody knows any more what was predicted.
    if about.sampled {
        let slot = about.slot(release);
        let label = Label {
            id: about.nonce,
            at: unix_second(),
            rows,
        };
        if !shared.recorder.late(|lates| lates.label(&slot, label)) {
            let message = "the label of this answer was given already";
            return refuse(StatusCode::CONFLICT, "given_already", "id", message);
        }
    }
    Ok(Count::Labelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            revision: "5d9c7b".into(),
            epoch: 7,
            weight: 10,
            minute: 29_000_000,
            caller: u64::MAX - 3,
            nonce: 42,
            sampled: false,
        }
    }

    #[test]
    fn an_id_says_what_it_is_about_and_only_to_its_own_release() {
        let id = about().write("uid");
        assert_eq!(About::read(&id, "uid"), Some(about()));
        assert_eq!(About::read(&id, "other"), None);
        let sampled = About {
            sampled: true,
            ..about()
        };
        assert_eq!(About::read(&sampled.write("uid"), "uid"), Some(sampled));
        for at in 0..id.len() {
            let mut bytes = id.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let forged = String::from_utf8(bytes).unwrap();
            assert_eq!(About::read(&forged, "uid"), None, "{at}");
        }
        for nonsense in ["", "00", "zz", &"0".repeat(200), &id[2..]] {
            assert_eq!(About::read(nonsense, "uid"), None, "{nonsense}");
        }
    }

    #[test]
    fn an_id_counts_once_as_far_as_is_remembered() {
        let feedback = Feedback::default();
        assert!(feedback.is_new(1) && !feedback.is_new(1));
        for nonce in 2..=u64::try_from(REMEMBERED).unwrap() + 1 {
            assert!(feedback.is_new(nonce));
        }
        assert!(feedback.is_new(1), "the oldest is forgotten");
        assert_eq!(feedback.heard.lock().unwrap().0.len(), REMEMBERED);
    }
}
