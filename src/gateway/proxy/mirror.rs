//! Copies of stable's requests for the candidate: nobody waits for them, their answers go nowhere, and what there is no room for
//! is left out and counted.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use super::{Call, Payload, caller::random, serve};
use crate::gateway::{
    Shared,
    answer::grpc_failed,
    body::Overheard,
    route::{Chosen, Why, unit},
    table::Release,
    telemetry::Count,
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
        }
    }

    /// Sends it off, if there is room.
    pub fn start(self) {
        let note = |what| self.shared.meters(&self.release).note(what);
        let (bytes, fields) = match &self.body {
            Source::Nothing => (Bytes::new(), Map::new()),
            Source::Whole(bytes, fields) => (bytes.clone(), fields.clone()),
            Source::Heard(heard) => match heard.copy() {
                Some(bytes) => (bytes, Map::new()),
                None => return note(Count::MirrorDropped),
            },
        };
        let Ok(place) = self.shared.mirrors.clone().try_acquire_owned() else {
            return note(Count::MirrorDropped);
        };
        tokio::spawn(async move {
            let (shared, release) = (self.shared.clone(), self.release.clone());
            let answered = tokio::time::timeout(LONGEST, self.send(bytes, fields)).await;
            shared.meters(&release).note(match answered {
                Ok(true) => Count::Mirrored,
                Ok(false) | Err(_) => Count::MirrorFailed,
            });
            drop(place);
        });
    }

    /// Sends it to the candidate, and reads the answer to its end. Whether it was one.
    fn send(
        self,
        bytes: Bytes,
        fields: Map<String, Value>,
    ) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(async move {
            let Self {
                shared,
                release,
                parts,
                peer,
                secure,
                ..
            } = self;
            let Some(candidate) = release.candidate.as_ref().map(|c| c.hash.to_string()) else {
                return false;
            };
            let call = Call {
                parts,
                payload: Payload::Read(bytes, fields),
                peer,
                secure,
                started: std::time::Instant::now(),
                live: false,
                revision: Some(candidate),
            };
            let table = shared.table();
            let answer = serve(&shared, &release, &table, call).await;
            let (parts, body) = answer.into_parts();
            let Ok(body) = drain(body).await else {
                return false;
            };
            let said = body.unwrap_or(parts.headers);
            !parts.status.is_server_error() && !grpc_failed(&said)
        })
    }
}

/// Reads to the end without keeping anything; the trailers, if there were any.
async fn drain(mut body: crate::gateway::body::Body) -> Result<Option<http::HeaderMap>, ()> {
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        if let Ok(last) = frame.map_err(|_| ())?.into_trailers() {
            trailers = Some(last);
        }
    }
    Ok(trailers)
}
