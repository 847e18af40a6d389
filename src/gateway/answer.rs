//! Answers that the gateway gives itself: a sentence, in the shape that the caller's protocol has for errors.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{
    body::{Body, empty, full},
    open_inference,
    table::Revision,
};

/// Header with the hash of the revision that answered.
pub const REVISION: &str = "x-perennial-revision";
/// Header with the version that answered; a caller that sends it back stays with it.
pub const VERSION: &str = "x-perennial-version";

/// Header or trailer in which gRPC says how a call ended.
pub const GRPC_STATUS: &str = "grpc-status";

/// The caller's protocol, as far as errors go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"error": "sentence"}`, as the Open Inference Protocol has it.
    Plain,
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// No body: `grpc-status` and `grpc-message`.
    Grpc,
}

impl Shape {
    /// By the head of the request.
    pub fn of(parts: &Parts) -> Self {
        if is_grpc(&parts.headers) {
            Shape::Grpc
        } else if parts.uri.path().starts_with("/v1/") {
            Shape::OpenAi
        } else {
            Shape::Plain
        }
    }
}

/// An error with a sentence; `code` is a CamelCase or snake_case word for programs, `param` the field that is wrong.
pub fn error(
    shape: Shape,
    status: StatusCode,
    code: &str,
    param: Option<&str>,
    message: &str,
) -> Response<Body> {
    let body = match shape {
        Shape::Grpc => return grpc(status, message),
        Shape::Plain => json!({"error": message, "code": code}),
        Shape::OpenAi => {
            let kind = match status.as_u16() {
                429 => "rate_limit_error",
                400..=499 => "invalid_request_error",
                _ => "server_error",
            };
            json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
        }
    };
    let mut answer = value(status, &body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// Whether this is a gRPC call, or the answer to one.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    value.is_some_and(|v| {
        v.as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// gRPC says what went wrong in headers, under HTTP's 200. The code is the one whose HTTP status this would be.
fn grpc(status: StatusCode, message: &str) -> Response<Body> {
    let code = match status.as_u16() {
        400 => "3",
        404 => "5",
        408 => "1",
        413 => "8",
        502 | 503 => "14",
        504 => "4",
        _ => "13",
    };
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    let mut answer = Response::new(empty());
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(GRPC_STATUS, HeaderValue::from_static(code));
    if let Ok(text) = HeaderValue::from_str(&text) {
        headers.insert("grpc-message", text);
    }
    answer
}

/// An answer to a gRPC call: one message.
pub fn message(message: &[u8]) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let body = full(open_inference::framed(message)).with_trailers(async { Some(Ok(trailers)) });
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    answer
}

/// Whether a gRPC status is the server's fault: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS are what 5xx is
/// elsewhere; the rest is the caller's, or, as UNIMPLEMENTED and RESOURCE_EXHAUSTED, what 404 and 429 are.
pub fn grpc_failed(headers: &HeaderMap) -> bool {
    let status = headers.get(GRPC_STATUS).map(HeaderValue::as_bytes);
    matches!(status, Some(b"2" | b"4" | b"13" | b"14" | b"15"))
}

/// A JSON answer.
pub fn value(status: StatusCode, body: &Value) -> Response<Body> {
    let mut answer = Response::new(full(body.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

/// Says which revision answered.
pub fn sign(headers: &mut HeaderMap, revision: &Revision) {
    headers.insert(REVISION, revision.headers.0.clone());
    match &revision.headers.1 {
        Some(version) => headers.insert(VERSION, version.clone()),
        None => headers.remove(VERSION),
    };
}

/// Takes out what belongs to one connection only (RFC 9110, section 7.6.1), and what `connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-secret-hop"),
            ("x-secret-hop", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            headers.keys().map(|k| k.as_str()).collect::<Vec<_>>(),
            ["accept"]
        );
    }
}
