//! From a caller to a pod of a model's revision and back.

use std::{sync::Arc, time::Instant};

use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::{
    Call, Payload, caller, choose, forward,
    mirror::{self, Copy, Source},
    nobody,
    send::{Order, Unanswered, send},
};
use crate::{
    api::{
        model_deployment::{Protocol, ServerTls},
        traffic::SignatureCheck,
    },
    gateway::{
        Shared,
        answer::{self, Shape},
        body::{Body, Download, Overheard, Upload, empty, full},
        certificates::Trust,
        open_inference::Method,
        route::Chosen,
        signature,
        table::{Backend, Release, Revision, Table},
        tally::{Ended, Tally},
        telemetry::Count,
        tensors::Form,
    },
};

/// Header of answers to requests whose inputs are others than the model's: what is wrong.
const SIGNATURE: &str = "x-perennial-signature";

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
    let Some(chosen) = choose(shared, table, release, &call, key.as_deref(), None) else {
        return nobody(release, &call);
    };
    let mut tally = Tally::open(shared, release, &chosen, key, call.started, call.live);
    tally.copied = call.copied;
    let shape = Shape::of(&call.parts);
    let refuse = |tally: &mut Tally, (status, code, message): Refusal| {
        fail(tally, &chosen, shape, status, code, &message)
    };
    let (endpoints, protocol, grpc_port, tls) = match &chosen.revision.backend {
        Backend::Model {
            endpoints,
            protocol,
            grpc_port,
            tls,
            ..
        } => (endpoints, *protocol, *grpc_port, tls),
        Backend::Prompt(_) => return nobody(release, &call),
        Backend::Nothing(why) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return refuse(&mut tally, (status, "RevisionUnknown", why.clone()));
        }
    };
    let warning = match judge(&call, release, &chosen) {
        Ok(()) => None,
        Err((refused, sentence)) => {
            tally.note_live(Count::OtherSignature);
            if refused {
                // What stable takes and the candidate refuses is the candidate's doing, not the caller's.
                tally.blamed = chosen.candidate && fits(&call, release.stable.as_ref());
                let status = StatusCode::BAD_REQUEST;
                return refuse(&mut tally, (status, "SignatureMismatch", sentence));
            }
            Some(sentence)
        }
    };
    let asks = is_inference(&call) || is_rpc_inference(&call);
    let looked_at = call.live && protocol == Protocol::OpenInference && asks;
    let limit = policy.body(&shared.limits);
    let copied = mirror::is_wanted(release, &call, &chosen);
    let payload = std::mem::replace(&mut call.payload, Payload::nothing());
    let (body, size, upload) = take(payload, limit, looked_at || copied);
    if copied {
        let source = upload.clone().map_or(Source::Nothing, Source::Heard);
        tally.mirror = Some(Copy::of(shared, release, &call, source));
    }
    if size.is_some_and(|size| size > limit) {
        return refuse(&mut tally, too_long(limit));
    }
    let end = policy.request.map(|longest| call.started + longest);
    let wait = call.started + policy.first_byte(&shared.limits);
    let wait = end.map_or(wait, |end| end.min(wait));
    if let Err(refusal) = admit(release, &chosen, &mut tally, wait).await {
        return refuse(&mut tally, refusal);
    }
    if let Some(heard) = upload.clone().filter(|_| looked_at) {
        tally.inputs(heard, Form::of(&call.parts.headers));
    }
    let grpc = shape == Shape::Grpc;
    let Some(request) = forward::request(&call, policy, grpc, body) else {
        let message = "the request's path can't be passed on".to_owned();
        return refuse(
            &mut tally,
            (StatusCode::BAD_REQUEST, "bad_request", message),
        );
    };
    let trust = match tls
        .as_ref()
        .map(|tls| trust(shared, tls, &release.name, grpc))
    {
        None => None,
        Some(Ok(trust)) => Some(trust),
        Some(Err(why)) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return refuse(&mut tally, (status, "CredentialsMissing", why));
        }
    };
    let order = Order {
        trust,
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
            match looked_at {
                true => tally.name_prediction(&mut parts),
                false => tally.name(&mut parts.headers),
            }
            if let Some(warning) = warning.and_then(|w| HeaderValue::from_str(&w).ok()) {
                parts.headers.insert(SIGNATURE, warning);
            }
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

/// Whom a server is believed by.
fn trust(shared: &Shared, tls: &ServerTls, release: &str, http2: bool) -> Result<Trust, String> {
    let name = tls.server_name.as_deref().unwrap_or(release);
    Ok(Trust {
        config: shared.certificates.client(&tls.ca_secret_name, http2)?,
        name: name
            .to_owned()
            .try_into()
            .map_err(|_| format!("server.tls.serverName: `{name}` is no name of a server"))?,
    })
}

/// Whether the inputs are what the model takes, where that is looked at; whether it is refused otherwise, and what is wrong.
fn judge(call: &Call, release: &Release, chosen: &Chosen) -> Result<(), (bool, String)> {
    let Some(check) = release.policy.signature else {
        return Ok(());
    };
    let told = |sentence| (check == SignatureCheck::Enforce, sentence);
    let revision = &chosen.revision;
    compared(call, revision).map_err(|why| {
        told(format!(
            "{why} (revision {} of {})",
            revision.hash, release.name
        ))
    })
}

fn fits(call: &Call, revision: Option<&Arc<Revision>>) -> bool {
    revision.is_some_and(|revision| compared(call, revision).is_ok())
}

fn compared(call: &Call, revision: &Revision) -> Result<(), String> {
    match (&call.payload, &revision.backend) {
        (
            Payload::Read(body, _),
            Backend::Model {
                signature: Some(signature),
                protocol: Protocol::OpenInference,
                ..
            },
        ) => match (is_inference(call), is_rpc_inference(call)) {
            (true, _) => signature::check(&call.parts.headers, body, signature),
            (_, true) => signature::check_message(body, signature),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether this asks a model for predictions, over HTTP.
pub(super) fn is_inference(call: &Call) -> bool {
    call.parts.method == http::Method::POST && call.parts.uri.path().ends_with("/infer")
}

/// Whether this asks a model for predictions, over gRPC.
pub(super) fn is_rpc_inference(call: &Call) -> bool {
    Shape::of(&call.parts) == Shape::Grpc
        && Method::of(call.parts.uri.path()) == Some(Method::Infer)
}

/// What a caller is told instead of an answer: status, code, sentence.
pub type Refusal = (StatusCode, &'static str, String);

/// Waits, if it must, until the revision may be given another request.
///
/// # Errors
/// It has more than enough.
pub async fn admit(
    release: &Release,
    chosen: &Chosen,
    tally: &mut Tally,
    deadline: Instant,
) -> Result<(), Refusal> {
    let hash = &chosen.revision.hash;
    let Some(breaker) = release.breakers.get(hash).filter(|_| !tally.copied) else {
        return Ok(());
    };
    tally.place = breaker.enter(deadline).await;
    if tally.place.is_some() {
        return Ok(());
    }
    tally.note_live(Count::Overflowed);
    let message = format!(
        "revision {hash} of {} has {} open requests and {} that wait, as many as it is given (spec.traffic.limits): try again",
        release.name, breaker.concurrent, breaker.pending
    );
    Err((StatusCode::SERVICE_UNAVAILABLE, "Overloaded", message))
}

fn too_long(limit: u64) -> Refusal {
    let message = format!("the body is longer than {limit} bytes");
    (StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", message)
}

/// The body to send, its size where that is known, and what is known of it on the way.
fn take(payload: Payload, limit: u64, keep: bool) -> (Body, Option<u64>, Option<Arc<Overheard>>) {
    match payload {
        Payload::Read(bytes, _) => {
            let size = Some(bytes.len() as u64);
            let heard = keep.then(|| Overheard::whole(bytes.clone()));
            (full(bytes), size, heard)
        }
        Payload::Coming(incoming) => {
            let size = incoming.size_hint().exact();
            if size == Some(0) {
                return (empty(), size, None);
            }
            let (upload, heard) = Upload::new(incoming, limit, keep);
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
