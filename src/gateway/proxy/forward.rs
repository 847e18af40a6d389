//! A caller's request as the endpoint gets it.

use http::{HeaderName, HeaderValue, Request, Uri, Version, header};

use super::Call;
use crate::gateway::{answer, body::Body, policy::Policy};

/// What proxies say of a request as its first receiver saw it.
const SEEN_BEFORE: [&str; 4] = [
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "forwarded",
];

/// The request as the endpoint gets it, with our own connection's headers: HTTP/1.1 in origin form, or gRPC over HTTP/2.
///
/// `x-forwarded-for` grows by the peer's address, as at every proxy: from its right end on it is true. The others say what one proxy saw, so
/// whoever isn't trusted says nothing by them.
pub(super) fn request(
    call: &Call,
    policy: &Policy,
    grpc: bool,
    body: Body,
) -> Option<Request<Body>> {
    let parts = &call.parts;
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    let mut headers = parts.headers.clone();
    answer::strip_hop_by_hop(&mut headers);
    headers.remove(header::EXPECT);
    let peer = call.peer.to_canonical();
    if !policy.trusts(peer) {
        for name in SEEN_BEFORE {
            headers.remove(name);
        }
    }
    let host = headers
        .get(header::HOST)
        .cloned()
        .or_else(|| HeaderValue::from_str(parts.uri.authority()?.as_str()).ok());
    let forwarded = |name: &'static str| HeaderName::from_static(name);
    if let Some(host) = &host {
        headers
            .entry(forwarded("x-forwarded-host"))
            .or_insert(host.clone());
    }
    let host = host.unwrap_or(HeaderValue::from_static("perennial"));
    if grpc {
        // HTTP/2 has the host in the address; `te` is how gRPC asks for trailers.
        let uri = format!("http://{}{path}", host.to_str().ok()?);
        *request.uri_mut() = uri.parse::<Uri>().ok()?;
        *request.version_mut() = Version::HTTP_2;
        headers.remove(header::HOST);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        *request.uri_mut() = path.parse::<Uri>().ok()?;
        headers.insert(header::HOST, host);
    }
    let proto = if call.secure { "https" } else { "http" };
    headers
        .entry(forwarded("x-forwarded-proto"))
        .or_insert(HeaderValue::from_static(proto));
    let before = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect::<Vec<_>>()
        .join(", ");
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
