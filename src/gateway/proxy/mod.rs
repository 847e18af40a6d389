//! A request's way: which release, which revision, which endpoint.

mod caller;
mod find;
mod forward;
mod model;
mod read;

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use serde_json::{Map, Value};

pub use self::{
    caller::{KEY, caller, choose},
    find::models,
    model::fail,
    read::read,
};
use super::{
    Shared,
    answer::{self, Shape},
    body::Body,
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

/// A request that has found its release.
pub struct Call {
    /// Everything but the body.
    pub parts: Parts,
    /// The body.
    pub payload: Payload,
    /// Who sent it.
    pub peer: IpAddr,
    /// When its head was there.
    pub started: Instant,
    /// Whether it counts as live traffic.
    pub live: bool,
    /// Where the caller asked for one by address.
    pub revision: Option<String>,
}

/// A request's body.
pub enum Payload {
    /// Still coming.
    Coming(Incoming),
    /// Read, as its release had to be found.
    Read(Bytes, Map<String, Value>),
}

/// Answers a request.
pub async fn answer(
    shared: &Arc<Shared>,
    entry: Entry,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let table = shared.table();
    let (parts, body) = request.into_parts();
    let call = Call {
        parts,
        payload: Payload::Coming(body),
        peer,
        started,
        live: entry != Entry::Internal,
        revision: None,
    };
    let found = match entry {
        Entry::Release(port) => match table.by_port(port) {
            Some(release) => Ok((release.clone(), call)),
            None => Err(unknown(&call, &format!("no release has port {port} now"))),
        },
        Entry::Shared => find::by_content(&table, call).await,
        Entry::Internal => find::by_address(&table, call),
    };
    match found {
        Ok((release, call)) => serve(shared, &release, &table, call).await,
        Err(refusal) => {
            shared.telemetry.unrouted.inc();
            *refusal
        }
    }
}

type Found = Result<(Arc<Release>, Call), Box<Response<Body>>>;

fn unknown(call: &Call, message: &str) -> Box<Response<Body>> {
    refusal(call, StatusCode::NOT_FOUND, "not_found", message)
}

fn refusal(call: &Call, status: StatusCode, code: &str, message: &str) -> Box<Response<Body>> {
    let shape = Shape::of(call.parts.uri.path());
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
    match release.kind {
        Kind::Prompt => prompt::answer(shared, release, table, call).await,
        Kind::Model => {
            let speaks_openai = |r: &Arc<Revision>| {
                matches!(
                    r.backend,
                    Backend::Model {
                        protocol: Protocol::OpenAi,
                        ..
                    }
                )
            };
            let openai = release
                .stable
                .iter()
                .chain(&release.candidate)
                .any(speaks_openai);
            let must_read = openai
                && call.parts.method == Method::POST
                && !call.parts.headers.contains_key(KEY)
                && is_json(&call.parts.headers);
            let call = if must_read {
                match read(call).await {
                    Ok(call) => call,
                    Err(refusal) => return *refusal,
                }
            } else {
                call
            };
            model::proxy(shared, release, table, call).await
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.starts_with("application/json"))
}
