//! Prompts: an OpenAI-compatible endpoint that renders, calls the backend, and passes the answer on as it comes.

mod answer_body;
pub mod credentials;
pub mod events;
pub mod reach;
pub mod template;

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::{Map, Value, json};

use self::{
    answer_body::{Answer, Mode},
    reach::Connector,
    template::{CompiledPrompt, RenderError},
};
use super::{
    Shared,
    answer::{self, Shape},
    body::Body,
    proxy::{
        self, Call, Payload,
        mirror::{self, Copy, Source},
    },
    route::Chosen,
    table::{Backend, Release, Table},
    tally::{Ended, Tally},
};
use crate::stats::bucket::CREDENTIALS_MISSING;

/// Client of LLM backends.
pub type Backends = Client<Connector, Full<Bytes>>;

/// Connections to LLM backends: HTTP and HTTPS with the public CAs, as the image has none.
///
/// # Errors
/// If the TLS library can't be set up.
pub fn connector(connect_timeout: Duration) -> Result<Connector, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect_timeout));
    http.enforce_http(false);
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http))
}

/// A client for LLM backends.
pub fn backends(connector: Connector) -> Backends {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        // Shorter than the five seconds after which Python's servers close.
        .pool_idle_timeout(Duration::from_secs(4))
        .build(connector)
}

/// Answers a request to a PromptRelease.
pub async fn answer(
    shared: &Arc<Shared>,
    release: &Arc<Release>,
    table: &Table,
    call: Call,
) -> Response<Body> {
    match (&call.parts.method, call.parts.uri.path()) {
        (&Method::POST, "/v1/chat/completions") => {}
        (&Method::GET, "/v1/models") => return proxy::models(std::iter::once(release)),
        (method, path) => {
            let message = format!(
                "{method} {path} isn't served here: a prompt answers POST /v1/chat/completions"
            );
            return answer::error(
                Shape::OpenAi,
                StatusCode::NOT_FOUND,
                "not_found",
                None,
                &message,
            );
        }
    }
    let call = match proxy::read(call).await {
        Ok(call) => call,
        Err(refusal) => return *refusal,
    };
    let empty = Map::new();
    let body = match &call.payload {
        Payload::Read(_, body) => body,
        Payload::Coming(_) => &empty,
    };
    let key = proxy::caller(&call.parts.headers, Some(body), &release.policy.sticky);
    let version = body
        .get("prompt")
        .and_then(|p| p.get("version"))
        .and_then(Value::as_str);
    if let Some(version) = version
        && call.revision.is_none()
        && !is_served(release, version)
    {
        let message = format!(
            "version {version} of {} isn't served now: leave out prompt.version",
            release.name
        );
        return answer::error(
            Shape::OpenAi,
            StatusCode::NOT_FOUND,
            "version_not_served",
            Some("prompt.version"),
            &message,
        );
    }
    let Some(chosen) = proxy::choose(shared, table, release, &call, key.as_deref(), version) else {
        return proxy::nobody(release, &call);
    };
    let mut tally = Tally::open(shared, release, &chosen, key, call.started, call.live);
    tally.copied = call.copied;
    let prompt = match &chosen.revision.backend {
        Backend::Prompt(prompt) => prompt.clone(),
        Backend::Nothing(why) => {
            return fail(
                &mut tally,
                &chosen,
                StatusCode::SERVICE_UNAVAILABLE,
                "RevisionUnknown",
                why,
            );
        }
        Backend::Model { .. } => return proxy::nobody(release, &call),
    };
    let deadline = call.started + prompt.timeout;
    if let Err((status, code, why)) = proxy::admit(release, &chosen, &mut tally, deadline).await {
        return fail(&mut tally, &chosen, status, code, &why);
    }
    if mirror::is_wanted(release, &call, &chosen)
        && let Payload::Read(bytes, body) = &call.payload
    {
        let body = Source::Whole(bytes.clone(), body.clone());
        tally.mirror = Some(Copy::of(shared, release, &call, body));
    }
    let rendered = match prompt.render(body) {
        Ok(rendered) => rendered,
        Err(RenderError::Prompt(why)) => {
            return fail(
                &mut tally,
                &chosen,
                StatusCode::INTERNAL_SERVER_ERROR,
                "PromptBroken",
                &why,
            );
        }
        Err(RenderError::Caller(message, param)) => {
            // What stable still takes and the candidate refuses is the candidate's doing, not the caller's.
            tally.blamed = release
                .prompts()
                .any(|other| !Arc::ptr_eq(other, &prompt) && other.render(body).is_ok());
            let mut refused = answer::error(
                Shape::OpenAi,
                StatusCode::BAD_REQUEST,
                "invalid_variable",
                param.as_deref(),
                &message,
            );
            answer::sign(refused.headers_mut(), &chosen.revision);
            tally.status = 400;
            tally.end(Ended::Complete);
            return refused;
        }
    };
    complete(
        shared,
        &call.parts.headers,
        &prompt,
        rendered,
        &chosen,
        tally,
    )
    .await
}

fn is_served(release: &Release, version: &str) -> bool {
    let candidate = release.candidate.as_ref().filter(|_| release.weight > 0);
    release
        .stable
        .iter()
        .chain(candidate)
        .any(|r| r.is_version(version))
}

fn fail(
    tally: &mut Tally,
    chosen: &Chosen,
    status: StatusCode,
    code: &str,
    message: &str,
) -> Response<Body> {
    proxy::fail(tally, chosen, Shape::OpenAi, status, code, message)
}

/// Calls the backend with a rendered body.
async fn complete(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    prompt: &CompiledPrompt,
    mut body: Map<String, Value>,
    chosen: &Chosen,
    mut tally: Tally,
) -> Response<Body> {
    let streams = body.get("stream") == Some(&Value::Bool(true));
    let asked = body
        .get("stream_options")
        .and_then(|o| o.get("include_usage"))
        .is_some_and(|v| v == &Value::Bool(true));
    if streams {
        // Without it a streamed answer ends without usage; a caller that didn't ask doesn't see it.
        match body.get_mut("stream_options") {
            Some(Value::Object(options)) => {
                options.insert("include_usage".into(), json!(true));
            }
            _ => {
                body.insert("stream_options".into(), json!({"include_usage": true}));
            }
        }
    }
    let authorization = match &prompt.credentials {
        None => None,
        Some(key) => match shared.credentials.bearer(key) {
            Ok(value) => Some(value),
            Err(why) => {
                return fail(
                    &mut tally,
                    chosen,
                    StatusCode::SERVICE_UNAVAILABLE,
                    CREDENTIALS_MISSING,
                    &why,
                );
            }
        },
    };
    let bytes = Bytes::from(Value::Object(body).to_string());
    let response = match call_backend(shared, headers, prompt, authorization, bytes, streams).await
    {
        Ok(response) => response,
        Err((status, code, message)) => return fail(&mut tally, chosen, status, code, &message),
    };
    let status = response.status();
    let backend = prompt.uri.host().unwrap_or_default();
    let (status, code, message) = match status.as_u16() {
        401 | 403 => (
            StatusCode::BAD_GATEWAY,
            "BackendRefusesCredentials",
            format!(
                "the backend {backend} refused the gateway's credentials ({status}): correct the Secret that backend.credentials names"
            ),
        ),
        404 => (
            StatusCode::BAD_GATEWAY,
            "BackendNotFound",
            format!(
                "the backend {backend} knows no such path or model ({status}): correct backend.url or backend.model"
            ),
        ),
        _ => return pass_on(response, streams, asked, chosen, tally),
    };
    fail(&mut tally, chosen, status, code, &message)
}

fn pass_on(
    response: Response<Incoming>,
    streams: bool,
    asked: bool,
    chosen: &Chosen,
    mut tally: Tally,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    answer::strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::SET_COOKIE);
    answer::sign(&mut parts.headers, &chosen.revision);
    tally.name(&mut parts.headers);
    tally.copy_head(&parts);
    tally.status = parts.status.as_u16();
    // The backend's limits are met by the version's load and settings, not by one caller's request.
    tally.blamed = parts.status == StatusCode::TOO_MANY_REQUESTS;
    let is = |kind: &str| {
        let value = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        value.is_some_and(|v| v.starts_with(kind))
    };
    let mode = match (streams && is("text/event-stream"), is("application/json")) {
        (true, _) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            Mode::events(!asked)
        }
        (false, true) => Mode::json(),
        (false, false) => Mode::Plain,
    };
    Response::from_parts(parts, Answer::new(body, mode, tally).boxed_unsync())
}

type BackendError = (StatusCode, &'static str, String);

/// One call; a connection that could not be made is tried once more.
async fn call_backend(
    shared: &Shared,
    headers: &HeaderMap,
    prompt: &CompiledPrompt,
    authorization: Option<HeaderValue>,
    bytes: Bytes,
    streams: bool,
) -> Result<Response<Incoming>, BackendError> {
    let backend = prompt.uri.host().unwrap_or_default();
    let deadline = tokio::time::Instant::now() + prompt.timeout;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut request = Request::new(Full::new(bytes.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = prompt.uri.clone();
        let out = request.headers_mut();
        out.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let accept = if streams {
            "text/event-stream"
        } else {
            "application/json"
        };
        out.insert(header::ACCEPT, HeaderValue::from_static(accept));
        out.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("perennial/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(value) = &authorization {
            out.insert(header::AUTHORIZATION, value.clone());
        }
        // The caller's own credentials and cookies stay here.
        for name in ["traceparent", "tracestate", "baggage", "x-request-id"] {
            if let Some(value) = headers.get(name) {
                out.insert(HeaderName::from_static(name), value.clone());
            }
        }
        let saw = |what| shared.reach.saw(&prompt.backend, shared.now(), what);
        match tokio::time::timeout_at(deadline, shared.backends.request(request)).await {
            Ok(Ok(response)) => {
                saw(Ok(()));
                return Ok(response);
            }
            Ok(Err(error)) if error.is_connect() && attempt < 2 => {}
            Ok(Err(error)) => {
                if error.is_connect() {
                    saw(Err(reach::explain(&error)));
                }
                let why = error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string);
                let message = format!("the backend {backend} did not answer: {why}");
                return Err((StatusCode::BAD_GATEWAY, "BackendFailed", message));
            }
            Err(_) => {
                let message = format!(
                    "the backend {backend} did not begin to answer in {} seconds (backend.timeout)",
                    prompt.timeout.as_secs_f64()
                );
                return Err((StatusCode::GATEWAY_TIMEOUT, "BackendTimeout", message));
            }
        }
    }
}
