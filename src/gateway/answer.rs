//! Answers that the gateway gives itself: a sentence, in the shape that the caller's protocol has for errors.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{
    body::{Body, full},
    table::Revision,
};

/// Header with the hash of the revision that answered.
pub const REVISION: &str = "x-perennial-revision";
/// Header with the version that answered; a caller that sends it back stays with it.
pub const VERSION: &str = "x-perennial-version";

/// The caller's protocol, as far as errors go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"error": "sentence"}`, as the Open Inference Protocol has it.
    Plain,
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
}

impl Shape {
    /// By the path of the request.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v1/") {
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
