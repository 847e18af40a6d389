//! A caller's request as the endpoint gets it.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Request, Uri, header, request::Parts};

use crate::gateway::{answer, body::Body};

/// The request as the endpoint gets it: HTTP/1.1, origin form, our own connection's headers.
pub(super) fn request(parts: &Parts, peer: IpAddr, body: Body) -> Option<Request<Body>> {
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
