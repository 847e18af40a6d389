//! From a caller to a pod of a model's revision and back.

use std::{sync::Arc, time::Instant};

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::{
    Call, Payload, caller, choose, forward, nobody,
    send::{Order, Unanswered, send},
};
use crate::{
    api::model_deployment::Protocol,
    gateway::{
        Shared,
        answer::{self, Shape},
        body::{Body, Download, Overheard, Upload, empty, full},
        route::Chosen,
        table::{Backend, Release, Table},
        tally::{Ended, Tally},
        telemetry::Count,
    },
};

/// Proxies to a pod of a model's revision.
pub(super) async fn proxy(
    shared: &Arc<Shared>,
    release: &Arc<Release>,
    table: &Table,
    mut call: Call,
) -> Response<Body> {
    let body = match &call.payload {
        Payload::Read(_, body) => Some(body),
        Payload::Coming(_) => None,
    };
    let policy = &release.policy;
    let key = caller(&call.parts.headers, body, &policy.sticky);
    let Some(chosen) = choose(table, release, &call, key.as_deref(), None) else {
        return nobody(release, &call);
    };
    let mut tally = Tally::open(shared, release, &chosen, key, call.started, call.live);
    let shape = Shape::of(&call.parts);
    let refuse = |tally: &mut Tally, (status, code, message): Refusal| {
        fail(tally, &chosen, shape, status, code, &message)
    };
    let (endpoints, protocol, grpc_port) = match &chosen.revision.backend {
        Backend::Model {
            endpoints,
            protocol,
            grpc_port,
            ..
        } => (endpoints, *protocol, *grpc_port),
        Backend::Prompt(_) => return nobody(release, &call),
        Backend::Nothing(why) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return refuse(&mut tally, (status, "RevisionUnknown", why.clone()));
        }
    };
    let looked_at = call.live
        && protocol == Protocol::OpenInference
        && call.parts.method == Method::POST
        && call.parts.uri.path().ends_with("/infer");
    let limit = policy.body(&shared.limits);
    let payload = std::mem::replace(&mut call.payload, Payload::nothing());
    let (body, size, upload) = take(payload, limit, looked_at);
    if size.is_some_and(|size| size > limit) {
        return refuse(&mut tally, too_long(limit));
    }
    let end = policy.request.map(|longest| call.started + longest);
    if let Some(breaker) = release.breakers.get(&chosen.revision.hash) {
        let wait = Instant::now() + policy.first_byte(&shared.limits);
        tally.place = breaker.enter(end.map_or(wait, |end| end.min(wait))).await;
        if tally.place.is_none() {
            tally.note_live(Count::Overflowed);
            let message = format!(
                "revision {} of {} has {} open requests and {} that wait, as many as it is given (spec.traffic.limits): try again",
                chosen.revision.hash, release.name, breaker.concurrent, breaker.pending
            );
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return refuse(&mut tally, (status, "Overloaded", message));
        }
    }
    if let Some(heard) = upload.clone().filter(|_| looked_at) {
        tally.inputs(heard);
    }
    let grpc = shape == Shape::Grpc;
    let Some(request) = forward::request(&call, grpc, body) else {
        let message = "the request's path can't be passed on".to_owned();
        return refuse(
            &mut tally,
            (StatusCode::BAD_REQUEST, "bad_request", message),
        );
    };
    let order = Order {
        grpc: grpc.then_some(grpc_port),
        policy,
        end,
        upload: upload.as_deref(),
    };
    match send(shared, endpoints, request, &order, &mut tally).await {
        Ok((response, lease)) => {
            let (mut parts, body) = response.into_parts();
            answer::strip_hop_by_hop(&mut parts.headers);
            answer::sign(&mut parts.headers, &chosen.revision);
            tally.answered(&parts, grpc);
            let body = Download::new(body, lease, tally, end);
            Response::from_parts(parts, body.boxed_unsync())
        }
        Err(failed) => {
            let refusal = match upload {
                Some(heard) if heard.too_long() => too_long(limit),
                Some(heard) if heard.failed() => (
                    StatusCode::BAD_REQUEST,
                    "bad_body",
                    "the body broke off".to_owned(),
                ),
                _ => explain(failed, shared, release, &chosen, &mut tally),
            };
            refuse(&mut tally, refusal)
        }
    }
}

type Refusal = (StatusCode, &'static str, String);

fn too_long(limit: u64) -> Refusal {
    let message = format!("the body is longer than {limit} bytes");
    (StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", message)
}

/// The body to send, its size where that is known, and what is known of it on the way.
fn take(
    payload: Payload,
    limit: u64,
    looked_at: bool,
) -> (Body, Option<u64>, Option<Arc<Overheard>>) {
    match payload {
        Payload::Read(bytes, _) => {
            let size = Some(bytes.len() as u64);
            let heard = looked_at.then(|| Overheard::whole(bytes.clone()));
            (full(bytes), size, heard)
        }
        Payload::Coming(incoming) => {
            let size = incoming.size_hint().exact();
            if size == Some(0) {
                return (empty(), size, None);
            }
            let (upload, heard) = Upload::new(incoming, limit, looked_at);
            (upload.boxed_unsync(), size, Some(heard))
        }
    }
}

fn explain(
    failed: Unanswered,
    shared: &Shared,
    release: &Release,
    chosen: &Chosen,
    tally: &mut Tally,
) -> Refusal {
    let (name, hash) = (&release.name, &chosen.revision.hash);
    let policy = &release.policy;
    // The time that the pod let pass says how it is.
    tally.judged = matches!(failed, Unanswered::Late | Unanswered::TooLong);
    match failed {
        Unanswered::Nowhere => (
            StatusCode::SERVICE_UNAVAILABLE,
            "NoEndpoint",
            format!("{name} has no pod that is ready: revision {hash}"),
        ),
        Unanswered::Failed(why) => (
            StatusCode::BAD_GATEWAY,
            "BackendFailed",
            format!("revision {hash} of {name} did not answer: {why}"),
        ),
        Unanswered::Late => (
            StatusCode::GATEWAY_TIMEOUT,
            "BackendTimeout",
            format!(
                "revision {hash} of {name} did not begin to answer in {:?} (spec.traffic.timeouts.firstByte)",
                policy.first_byte(&shared.limits)
            ),
        ),
        Unanswered::TooLong => (
            StatusCode::GATEWAY_TIMEOUT,
            "BackendTimeout",
            format!(
                "revision {hash} of {name} did not answer in {:?} (spec.traffic.timeouts.request)",
                policy.request.unwrap_or_default()
            ),
        ),
        Unanswered::Stopped => (
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            format!(
                "nothing more of the body came in {:?}",
                policy.first_byte(&shared.limits)
            ),
        ),
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
