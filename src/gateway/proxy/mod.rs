//! A request's way: which release, which revision, which endpoint.

mod caller;
mod find;
mod forward;
pub mod mirror;
mod model;
mod read;
mod send;

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use serde_json::{Map, Value};

pub use self::{
    caller::{KEY, caller, choose, random},
    find::models,
    model::{admit, fail},
    read::read,
};
use super::{
    Shared,
    answer::{self, GRPC_STATUS, Shape},
    body::{Arriving, Body},
    feedback,
    objects::Kind,
    prompt,
    table::{Backend, Release, Revision, Table},
};
use crate::api::model_deployment::Protocol;

/// By which port a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A release's own.
    Release(u16),
    /// The one that all share.
    Shared,
    /// The one where revisions have an address.
    Internal,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS.
    pub secure: bool,
}

/// A request that has found its release.
pub struct Call {
    /// Everything but the body.
    pub parts: Parts,
    /// The body.
    pub payload: Payload,
    /// Who sent it.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// When its head was there.
    pub started: Instant,
    /// Whether it counts as live traffic.
    pub live: bool,
    /// Whether it is a copy, for which nobody waits.
    pub copied: bool,
    /// Where the caller asked for one by address.
    pub revision: Option<String>,
}

/// A request's body.
pub enum Payload {
    /// Still coming.
    Coming(Arriving),
    /// Read, as its release had to be found.
    Read(Bytes, Map<String, Value>),
}

impl Payload {
    /// A body that was taken.
    fn nothing() -> Self {
        Payload::Read(Bytes::new(), Map::new())
    }
}

/// Answers a request.
pub async fn answer(
    shared: &Arc<Shared>,
    entry: Entry,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let table = shared.table();
    let (parts, body) = request.into_parts();
    let call = Call {
        parts,
        payload: Payload::Coming(body.into()),
        peer: peer.address,
        secure: peer.secure,
        started,
        live: entry != Entry::Internal,
        copied: false,
        revision: None,
    };
    let found = match entry {
        Entry::Release(port) => match table.by_port(port) {
            Some(release) => Ok((release.clone(), call)),
            None => Err(unknown(&call, &format!("no release has port {port} now"))),
        },
        Entry::Shared => find::by_content(shared, &table, call).await,
        Entry::Internal => find::by_address(&table, call),
    };
    match found {
        Ok((release, call)) => serve(shared, &release, &table, call).await,
        Err(refusal) => {
            // What the gateway knows itself is no refusal.
            if refusal.status() != StatusCode::OK || refusal.headers().contains_key(GRPC_STATUS) {
                shared.telemetry.unrouted.inc();
            }
            *refusal
        }
    }
}

type Found = Result<(Arc<Release>, Call), Box<Response<Body>>>;

fn unknown(call: &Call, message: &str) -> Box<Response<Body>> {
    refusal(call, StatusCode::NOT_FOUND, "not_found", message)
}

fn refusal(call: &Call, status: StatusCode, code: &str, message: &str) -> Box<Response<Body>> {
    let shape = Shape::of(&call.parts);
    Box::new(answer::error(shape, status, code, None, message))
}

/// What a caller is told where there is nobody to answer.
pub fn nobody(release: &Release, call: &Call) -> Response<Body> {
    let message = match &call.revision {
        Some(revision) => format!("revision {revision} of {} isn't known here", release.name),
        None => format!("{} has no revision that serves yet", release.name),
    };
    *refusal(
        call,
        StatusCode::SERVICE_UNAVAILABLE,
        "NoRevision",
        &message,
    )
}

async fn serve(
    shared: &Arc<Shared>,
    release: &Arc<Release>,
    table: &Table,
    call: Call,
) -> Response<Body> {
    if feedback::is_meant(&call) {
        return feedback::answer(shared, release, call).await;
    }
    match release.kind {
        Kind::Prompt => prompt::answer(shared, release, table, call).await,
        Kind::Model => {
            let read = match wanted(release, &call) {
                Wanted::Nothing => Ok(call),
                Wanted::Fields => read::read_anything(call).await,
                Wanted::Object => read(call).await,
            };
            let call = match read {
                Ok(call) => call,
                Err(refusal) => return *refusal,
            };
            model::proxy(shared, release, table, call).await
        }
    }
}

/// What of a body must be known before the request can go anywhere.
enum Wanted {
    Nothing,
    Fields,
    Object,
}

fn wanted(release: &Release, call: &Call) -> Wanted {
    let headers = &call.parts.headers;
    let policy = &release.policy;
    if policy.signature.is_some() && model::is_rpc_inference(call) {
        return Wanted::Fields;
    }
    let is_binary = headers.contains_key("inference-header-content-length");
    if call.parts.method != Method::POST || !(is_json(headers) || is_binary) {
        return Wanted::Nothing;
    }
    if policy.signature.is_some() && model::is_inference(call) {
        return Wanted::Fields;
    }
    if caller(headers, None, &policy.sticky).is_some() {
        return Wanted::Nothing;
    }
    if !policy.sticky.is_empty() {
        return match policy.reads_body() {
            true => Wanted::Fields,
            false => Wanted::Nothing,
        };
    }
    let speaks_openai = |r: &Arc<Revision>| {
        matches!(
            r.backend,
            Backend::Model {
                protocol: Protocol::OpenAi,
                ..
            }
        )
    };
    let sides = release.stable.iter().chain(&release.candidate);
    match sides.into_iter().any(speaks_openai) {
        true => Wanted::Object,
        false => Wanted::Nothing,
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.starts_with("application/json"))
}
