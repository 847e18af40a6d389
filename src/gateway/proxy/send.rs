//! Sending to a pod: which one, how long, and whether once more.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::gateway::{
    Shared,
    body::{Body, Overheard, empty},
    certificates::Trust,
    policy::Policy,
    pool::{Failure, Lease, Target},
    table::Endpoints,
    tally::Tally,
    telemetry::Count,
};

/// A request that surely wasn't sent is tried at so many pods.
const ATTEMPTS: usize = 3;

/// Why there is no answer.
pub(super) enum Unanswered {
    /// There is no pod.
    Nowhere,
    /// What the last pod did.
    Failed(String),
    /// The answer did not begin in time.
    Late,
    /// The caller's time was over.
    TooLong,
    /// The caller stopped sending.
    Stopped,
}

/// What is to be sent.
pub(super) struct Order<'a> {
    /// Whether it is gRPC: over HTTP/2, to this port if that is another one.
    pub grpc: Option<Option<u16>>,
    /// TLS to the pods.
    pub trust: Option<Trust>,
    /// How long it may take.
    pub policy: &'a Policy,
    /// The end of the caller's time.
    pub end: Option<Instant>,
    /// The body on its way up, if there is one.
    pub upload: Option<&'a Overheard>,
}

/// Sends to an endpoint; what surely was not sent is tried at others, and once more what does no harm if it comes twice.
pub(super) async fn send(
    shared: &Arc<Shared>,
    endpoints: &Endpoints,
    request: Request<Body>,
    order: &Order<'_>,
    tally: &mut Tally,
) -> Result<(Response<Incoming>, Lease), Unanswered> {
    let harmless = order.upload.is_none()
        && order.grpc.is_none()
        && matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
    let wait = order.policy.first_byte(&shared.limits);
    let began = Instant::now();
    let mut request = Some(request);
    let mut spare = harmless;
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut failed = String::new();
    for attempt in 0..ATTEMPTS {
        let Some(now) = request.take() else { break };
        let Some(endpoint) = endpoints.pick(&tried, shared.now()) else {
            return Err(Unanswered::Nowhere);
        };
        if attempt > 0 {
            tally.note_live(Count::Retried);
        }
        if std::mem::take(&mut spare) {
            request = Some(copy(&now));
        }
        tally.at(&endpoint);
        let target = target(shared, endpoint.address, order);
        let sent = shared.pool.send(&target, now);
        match within(sent, began + wait, wait, order).await? {
            Ok(answer) => return Ok(answer),
            Err(Failure::Unsent(unsent, why)) => {
                request = Some(*unsent);
                failed = why;
            }
            Err(Failure::Sent(why)) => {
                // The caller broke off, or sent too much: no fault of the pod's.
                if order.upload.is_some_and(Overheard::is_spoilt) {
                    return Err(Unanswered::Failed(why));
                }
                failed = why;
            }
        }
        tally.judge(true);
        tried.push(endpoint.address);
    }
    Err(Unanswered::Failed(failed))
}

fn target(shared: &Shared, address: SocketAddr, order: &Order<'_>) -> Target {
    let port = order.grpc.flatten().unwrap_or(address.port());
    Target {
        address: SocketAddr::new(address.ip(), port),
        http2: order.grpc.is_some(),
        trust: order.trust.clone(),
        connect: order.policy.connect(&shared.limits),
    }
}

fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Waits for an answer to begin: until `deadline`, but while the caller is sending, for as long after each piece.
async fn within<T>(
    sent: impl Future<Output = T>,
    mut deadline: Instant,
    wait: std::time::Duration,
    order: &Order<'_>,
) -> Result<T, Unanswered> {
    let mut sent = std::pin::pin!(sent);
    loop {
        let until = order.end.map_or(deadline, |end| end.min(deadline));
        if let Ok(answer) = tokio::time::timeout_at(until.into(), sent.as_mut()).await {
            return Ok(answer);
        }
        let now = Instant::now();
        if order.end.is_some_and(|end| now >= end) {
            return Err(Unanswered::TooLong);
        }
        match order.upload.and_then(Overheard::unfinished) {
            Some(upload) if upload.last + wait > now => deadline = upload.last + wait,
            Some(upload) if upload.caller_is_slow => return Err(Unanswered::Stopped),
            _ => return Err(Unanswered::Late),
        }
    }
}
