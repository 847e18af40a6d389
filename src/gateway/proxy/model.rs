//! From a caller to a pod of a model's revision and back.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::{Call, Payload, caller, choose, forward, nobody};
use crate::{
    api::model_deployment::Protocol,
    gateway::{
        Shared,
        answer::{self, Shape},
        body::{Body, Download, Overheard, Upload, empty, full},
        pool::{Failure, Lease},
        route::Chosen,
        table::{Backend, Endpoints, Release, Table},
        tally::{Ended, Tally},
    },
};

/// Proxies to a pod of a model's revision.
pub(super) async fn proxy(
    shared: &Arc<Shared>,
    release: &Arc<Release>,
    table: &Table,
    call: Call,
) -> Response<Body> {
    let body = match &call.payload {
        Payload::Read(_, body) => Some(body),
        Payload::Coming(_) => None,
    };
    let key = caller(&call.parts.headers, body);
    let Some(chosen) = choose(table, release, &call, key.as_deref(), None) else {
        return nobody(release, &call);
    };
    let mut tally = Tally::open(shared, release, &chosen, key, call.started, call.live);
    let shape = Shape::of(call.parts.uri.path());
    let (endpoints, protocol) = match &chosen.revision.backend {
        Backend::Model {
            endpoints,
            protocol,
            ..
        } => (endpoints, *protocol),
        Backend::Prompt(_) => return nobody(release, &call),
        Backend::Nothing(why) => {
            return fail(
                &mut tally,
                &chosen,
                shape,
                StatusCode::SERVICE_UNAVAILABLE,
                "RevisionUnknown",
                why,
            );
        }
    };
    let looked_at = call.live
        && protocol == Protocol::OpenInference
        && call.parts.method == Method::POST
        && call.parts.uri.path().ends_with("/infer");
    let limit = shared.limits.body;
    let mut overheard = None;
    let (body, size) = match call.payload {
        Payload::Read(bytes, _) => {
            let size = bytes.len() as u64;
            (full(bytes), Some(size))
        }
        Payload::Coming(incoming) => {
            let size = incoming.size_hint().exact();
            if size == Some(0) {
                (empty(), Some(0))
            } else {
                let (upload, heard) = Upload::new(incoming, limit, looked_at);
                overheard = Some(heard);
                (upload.boxed_unsync(), size)
            }
        }
    };
    let too_long = || format!("the body is longer than {limit} bytes");
    if size.is_some_and(|size| size > limit) {
        return fail(
            &mut tally,
            &chosen,
            shape,
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_long",
            &too_long(),
        );
    }
    if let Some(heard) = overheard.clone().filter(|_| looked_at) {
        tally.inputs(heard);
    }
    let Some(request) = forward::request(&call.parts, call.peer, body) else {
        return fail(
            &mut tally,
            &chosen,
            shape,
            StatusCode::BAD_REQUEST,
            "bad_request",
            "the request's path can't be passed on",
        );
    };
    match send(shared, endpoints, request, size == Some(0), &mut tally).await {
        Ok((response, lease)) => {
            let (mut parts, body) = response.into_parts();
            answer::strip_hop_by_hop(&mut parts.headers);
            answer::sign(&mut parts.headers, &chosen.revision);
            tally.status = parts.status.as_u16();
            Response::from_parts(parts, Download::new(body, lease, tally).boxed_unsync())
        }
        Err(failed) => {
            if overheard.as_ref().is_some_and(|o| o.too_long()) {
                return fail(
                    &mut tally,
                    &chosen,
                    shape,
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_long",
                    &too_long(),
                );
            }
            if overheard.is_some_and(|o: Arc<Overheard>| o.failed()) {
                return fail(
                    &mut tally,
                    &chosen,
                    shape,
                    StatusCode::BAD_REQUEST,
                    "bad_body",
                    "the body broke off",
                );
            }
            let (status, code, message) = match failed {
                Unanswered::Nowhere => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "NoEndpoint",
                    format!(
                        "{} has no pod that is ready: revision {}",
                        release.name, chosen.revision.hash
                    ),
                ),
                Unanswered::Failed(why) => (
                    StatusCode::BAD_GATEWAY,
                    "BackendFailed",
                    format!(
                        "revision {} of {} did not answer: {why}",
                        chosen.revision.hash, release.name
                    ),
                ),
                Unanswered::Late => (
                    StatusCode::GATEWAY_TIMEOUT,
                    "BackendTimeout",
                    format!(
                        "revision {} of {} did not begin to answer in {} seconds",
                        chosen.revision.hash,
                        release.name,
                        shared.limits.response.as_secs()
                    ),
                ),
            };
            fail(&mut tally, &chosen, shape, status, code, &message)
        }
    }
}

/// An answer of the gateway's own in the place of the revision's; settles the account.
pub fn fail(
    tally: &mut Tally,
    chosen: &Chosen,
    shape: Shape,
    status: StatusCode,
    code: &str,
    message: &str,
) -> Response<Body> {
    let mut response = answer::error(shape, status, code, None, message);
    answer::sign(response.headers_mut(), &chosen.revision);
    tally.status = status.as_u16();
    tally.end(Ended::Complete);
    response
}

enum Unanswered {
    Nowhere,
    Failed(String),
    Late,
}

/// Sends to an endpoint; what surely was not sent, or does no harm if it comes twice, is tried once on another one.
async fn send(
    shared: &Arc<Shared>,
    endpoints: &Endpoints,
    request: Request<Body>,
    no_body: bool,
    tally: &mut Tally,
) -> Result<(Response<Incoming>, Lease), Unanswered> {
    let harmless = no_body
        && matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
    let copy = |request: &Request<Body>| {
        let mut copy = Request::new(empty());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy
    };
    let deadline = tokio::time::Instant::now() + shared.limits.response;
    let mut request = Some(request);
    let mut failed: Option<(SocketAddr, String)> = None;
    for attempt in 0..2 {
        let Some(endpoint) = endpoints.pick(failed.as_ref().map(|f| f.0)) else {
            return Err(Unanswered::Nowhere);
        };
        let Some(now) = request.take() else { break };
        if harmless && attempt == 0 {
            request = Some(copy(&now));
        }
        tally.at(&endpoint);
        let sent = tokio::time::timeout_at(deadline, shared.pool.send(endpoint.address, now)).await;
        match sent {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Failure::Unsent(unsent, why))) => {
                request = Some(*unsent);
                failed = Some((endpoint.address, why));
            }
            Ok(Err(Failure::Sent(why))) => failed = Some((endpoint.address, why)),
            Err(_) => return Err(Unanswered::Late),
        }
    }
    Err(Unanswered::Failed(failed.map_or_else(String::new, |f| f.1)))
}
