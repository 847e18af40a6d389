//! A request's way: which release, which revision, which endpoint.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    request::Parts,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::{Map, Value, json};

use super::{
    Shared,
    answer::{self, Shape},
    body::{Body, Download, Overheard, Upload, empty, full},
    objects::Kind,
    pool::{Failure, Lease},
    prompt,
    route::{self, Chosen, Why},
    table::{Backend, Endpoints, Release, Table},
    tally::{Ended, Tally},
};
use crate::api::model_deployment::Protocol;

/// Header with the caller's key.
pub const KEY: &str = "x-perennial-key";
/// Requests that name their model in the body are read whole, up to this.
const MAX_READ: usize = 16 << 20;
/// Longest wait for such a body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

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
        Entry::Shared => by_content(&table, call).await,
        Entry::Internal => by_address(&table, call),
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

/// `/revisions/<models|prompts>/<release>/<revision>/…`
fn by_address(table: &Table, mut call: Call) -> Found {
    let path = call.parts.uri.path().to_owned();
    let mut segments = path.splitn(6, '/').skip(1);
    let found = (segments.next() == Some("revisions"))
        .then(|| {
            let kind = Kind::of_plural(segments.next()?)?;
            let release = table.by_name(kind, segments.next()?)?;
            let revision = segments.next()?.to_owned();
            Some((release.clone(), revision))
        })
        .flatten();
    let Some((release, revision)) = found else {
        let message = "write /revisions/models/<release>/<revision>/… or /revisions/prompts/<release>/<revision>/…, of a release of this namespace";
        return Err(unknown(&call, message));
    };
    set_path(&mut call.parts, segments.next().unwrap_or_default());
    call.revision = Some(revision);
    Ok((release, call))
}

/// By `/models/<release>/…`, `/prompts/<release>/…`, `/v2/models/<model>…`, or the body's `prompt.id` or `model`.
async fn by_content(table: &Table, mut call: Call) -> Found {
    let path = call.parts.uri.path().to_owned();
    let segments: Vec<&str> = path.splitn(4, '/').skip(1).collect();
    match segments.as_slice() {
        [plural, name, rest @ ..] if Kind::of_plural(plural).is_some() => {
            let release = Kind::of_plural(plural).and_then(|kind| table.by_name(kind, name));
            let Some(release) = release.cloned() else {
                return Err(unknown(
                    &call,
                    &format!("there is no release {plural}/{name} in this namespace"),
                ));
            };
            set_path(&mut call.parts, rest.first().copied().unwrap_or_default());
            Ok((release, call))
        }
        ["v2", "models", rest] => {
            let name = rest.split('/').next().unwrap_or_default();
            match table.by_model(name) {
                Some(release) => Ok((release.clone(), call)),
                None => {
                    let message = format!(
                        "no ModelDeployment of this namespace is named `{name}`, and not exactly one serves a model of that name"
                    );
                    Err(unknown(&call, &message))
                }
            }
        }
        ["v1", "models"] if call.parts.method == Method::GET => {
            Err(Box::new(models(table.releases())))
        }
        ["v1", ..] if call.parts.method == Method::POST => {
            call = read(call).await?;
            let Payload::Read(_, body) = &call.payload else {
                return Err(unknown(&call, "the body could not be read"));
            };
            let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
            let prompt = text(body.get("prompt").and_then(|p| p.get("id")))
                .or_else(|| text(body.get("prompt_id")));
            let model = text(body.get("model"));
            let named =
                |name: &str| match (name.strip_prefix("prompt/"), name.strip_prefix("model/")) {
                    (Some(name), _) => table.by_name(Kind::Prompt, name),
                    (_, Some(name)) => table.by_model(name),
                    _ => table
                        .by_name(Kind::Prompt, name)
                        .or_else(|| table.by_model(name)),
                };
            let release = match (&prompt, &model) {
                (Some(id), _) => table.by_name(Kind::Prompt, id),
                (None, Some(model)) => named(model),
                (None, None) => None,
            };
            match release {
                Some(release) => Ok((release.clone(), call)),
                None => {
                    let name = prompt.or(model).unwrap_or_default();
                    let message = format!(
                        "no release of this namespace is named `{name}`: put a release's name into prompt.id or model"
                    );
                    Err(unknown(&call, &message))
                }
            }
        }
        _ => {
            let message = "this port is shared by all releases: name one with prompt.id or model in an OpenAI body, with /v2/models/<model>/…, \
                           or with /models/<release>/… or /prompts/<release>/… before the path";
            Err(unknown(&call, message))
        }
    }
}

/// OpenAI's list of models: what can be called by these names.
pub fn models<'a>(releases: impl Iterator<Item = &'a Arc<Release>>) -> Response<Body> {
    let speaks = |release: &&Arc<Release>| match release.stable.as_ref().map(|r| &r.backend) {
        Some(Backend::Model { protocol, .. }) => *protocol == Protocol::OpenAi,
        _ => release.kind == Kind::Prompt,
    };
    let data: Vec<Value> = releases
        .filter(speaks)
        .map(|r| json!({"id": r.name, "object": "model", "owned_by": "perennial"}))
        .collect();
    answer::value(StatusCode::OK, &json!({"object": "list", "data": data}))
}

/// Reads the body as a JSON object.
pub async fn read(mut call: Call) -> Result<Call, Box<Response<Body>>> {
    let Payload::Coming(body) = call.payload else {
        return Ok(call);
    };
    call.payload = Payload::Read(Bytes::new(), Map::new());
    let collected =
        tokio::time::timeout(READ_TIMEOUT, Limited::new(body, MAX_READ).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is longer than {} MiB", MAX_READ >> 20);
            return Err(refusal(
                &call,
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_long",
                &message,
            ));
        }
        Ok(Err(error)) => {
            let message = format!("the body could not be read: {error}");
            return Err(refusal(
                &call,
                StatusCode::BAD_REQUEST,
                "bad_body",
                &message,
            ));
        }
        Err(_) => {
            let message = format!(
                "the body did not come in {} seconds",
                READ_TIMEOUT.as_secs()
            );
            return Err(refusal(
                &call,
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                &message,
            ));
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(body)) => {
            call.payload = Payload::Read(bytes, body);
            Ok(call)
        }
        Ok(_) => Err(refusal(
            &call,
            StatusCode::BAD_REQUEST,
            "bad_body",
            "the body must be a JSON object",
        )),
        Err(error) => {
            let message = format!("the body is no JSON: {error}");
            Err(refusal(
                &call,
                StatusCode::BAD_REQUEST,
                "bad_body",
                &message,
            ))
        }
    }
}

fn set_path(parts: &mut Parts, rest: &str) {
    let query = parts.uri.query().map_or(String::new(), |q| format!("?{q}"));
    // It was part of a valid URI, so it is one.
    if let Ok(uri) = format!("/{rest}{query}").parse() {
        parts.uri = uri;
    }
}

/// The caller's key: the header, else OpenAI's `user`, else the conversation.
pub fn caller(headers: &HeaderMap, body: Option<&Map<String, Value>>) -> Option<String> {
    let header = headers
        .get(KEY)
        .and_then(|v| v.to_str().ok())
        .filter(|v| !v.is_empty());
    if let Some(key) = header {
        return Some(key.to_owned());
    }
    let body = body?;
    let text = |value: Option<&Value>| {
        value
            .and_then(Value::as_str)
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
    };
    let metadata = |name: &str| text(body.get("metadata").and_then(|m| m.get(name)));
    let conversation = body.get("conversation");
    text(body.get("user"))
        .or_else(|| metadata("conversation_id"))
        .or_else(|| metadata("session_id"))
        .or_else(|| text(conversation))
        .or_else(|| text(conversation.and_then(|c| c.get("id"))))
        .or_else(|| metadata("user_id"))
}

/// Chooses the revision: what was asked for by address, else by the caller's key.
pub fn choose(
    table: &Table,
    release: &Release,
    call: &Call,
    key: Option<&str>,
    version: Option<&str>,
) -> Option<Chosen> {
    if let Some(hash) = &call.revision {
        let revision = table.revision(release.kind, &release.name, hash)?;
        return Some(Chosen {
            revision: revision.clone(),
            candidate: release
                .candidate
                .as_ref()
                .is_some_and(|c| c.hash == revision.hash),
            why: Why::Version,
        });
    }
    let sent = call
        .parts
        .headers
        .get(answer::VERSION)
        .and_then(|v| v.to_str().ok());
    route::choose(release, key, version.or(sent), random())
}

/// 64 random bits: the standard library's hasher is keyed anew each time, from the system's randomness.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
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
            let speaks_openai = |r: &Arc<super::table::Revision>| {
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
            model(shared, release, table, call).await
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.starts_with("application/json"))
}

/// Proxies to a pod of a model's revision.
async fn model(
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
    let Some(request) = upstream(&call.parts, call.peer, body) else {
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

/// The request as the endpoint gets it: HTTP/1.1, origin form, our own connection's headers.
fn upstream(parts: &Parts, peer: IpAddr, body: Body) -> Option<Request<Body>> {
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = path.parse::<Uri>().ok()?;
    let mut headers = parts.headers.clone();
    answer::strip_hop_by_hop(&mut headers);
    headers.remove(header::EXPECT);
    let host = headers
        .get(header::HOST)
        .cloned()
        .or_else(|| HeaderValue::from_str(parts.uri.authority()?.as_str()).ok());
    let forwarded = |name: &'static str| HeaderName::from_static(name);
    if let Some(host) = &host {
        headers.insert(header::HOST, host.clone());
        headers
            .entry(forwarded("x-forwarded-host"))
            .or_insert(host.clone());
    } else {
        headers.insert(header::HOST, HeaderValue::from_static("perennial"));
    }
    headers
        .entry(forwarded("x-forwarded-proto"))
        .or_insert(HeaderValue::from_static("http"));
    let before = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect::<Vec<_>>()
        .join(", ");
    let peer = peer.to_canonical();
    let all = if before.is_empty() {
        peer.to_string()
    } else {
        format!("{before}, {peer}")
    };
    if let Ok(value) = HeaderValue::from_str(&all) {
        headers.insert(forwarded("x-forwarded-for"), value);
    }
    *request.headers_mut() = headers;
    Some(request)
}
