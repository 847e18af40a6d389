//! Faults between a client and the API server: a layer around the client.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

/// When the process dies, seen from one of its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the write is sent.
    Before,
    /// After the write is committed, with the answer lost.
    AnswerLost,
    /// After the answer has arrived.
    After,
}

/// How an open watch breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Break {
    /// It ends.
    #[default]
    End,
    /// An ERROR event: what it asks for is too old (410).
    Gone,
    /// It ends in the middle of an object.
    Torn,
    /// Nothing comes any more, and it doesn't end.
    Silent,
}

impl Break {
    /// What comes last.
    async fn last(self) -> Option<Bytes> {
        match self {
            Self::End => None,
            Self::Gone => Some(Bytes::from_static(
                br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version: 1 (2)","reason":"Expired","code":410}}
"#,
            )),
            Self::Torn => Some(Bytes::from_static(br#"{"type":"MODIFIED","object":{"apiVersion":"#)),
            Self::Silent => std::future::pending().await,
        }
    }
}

/// An end that open watches wait for, and how they end.
#[derive(Clone, Default)]
struct Cut {
    now: CancellationToken,
    how: Arc<OnceLock<Break>>,
}

/// What happens to a client's requests, and what it wrote. Clones share it.
#[derive(Clone, Default)]
pub struct Faults(Arc<State>);

#[derive(Default)]
struct State {
    writes: AtomicUsize,
    written: Mutex<Vec<String>>,
    crash: Mutex<Option<(usize, Moment)>>,
    dead: CancellationToken,
    /// How watches that are open end.
    watches: Mutex<Cut>,
    no_watch: AtomicBool,
}

impl Faults {
    /// No faults: writes are counted.
    pub fn none() -> Self {
        Self::default()
    }

    /// The process dies at its write number `at` (from 0).
    pub fn crash_at(at: usize, moment: Moment) -> Self {
        let faults = Self::default();
        *faults.0.crash.lock().unwrap() = Some((at, moment));
        faults
    }

    /// A client with these faults.
    pub async fn client(&self) -> Client {
        ClientBuilder::try_from(super::config().await)
            .unwrap()
            .with_layer(self)
            .build()
    }

    /// Writes so far: creates, applies, status, deletes; Events and Leases don't count.
    pub fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// The writes, as `PATCH /apis/…`.
    pub fn written(&self) -> Vec<String> {
        self.0.written.lock().unwrap().clone()
    }

    /// Nothing goes through any more.
    pub fn cut_off(&self) {
        self.0.dead.cancel();
    }

    /// Resolves when the process has died.
    pub async fn died(&self) {
        self.0.dead.cancelled().await;
    }

    /// Whether the process has died.
    pub fn dead(&self) -> bool {
        self.0.dead.is_cancelled()
    }

    /// Ends every watch that is open, and refuses lists and watches until [`Faults::mend`].
    pub fn cut_watches(&self) {
        self.0.no_watch.store(true, Ordering::SeqCst);
        self.break_watches(Break::End);
    }

    /// Breaks every watch that is open; others may be opened at once.
    pub fn break_watches(&self, how: Break) {
        let cut = std::mem::take(&mut *self.0.watches.lock().unwrap());
        let _ = cut.how.set(how);
        cut.now.cancel();
    }

    /// Watches work again.
    pub fn mend(&self) {
        self.0.no_watch.store(false, Ordering::SeqCst);
    }
}

/// The client with its faults.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty {
            inner,
            faults: self.clone(),
        }
    }
}

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = self.faults.0.clone();
        let is_watch = request.method() == Method::GET
            && request
                .uri()
                .query()
                .is_some_and(|q| q.contains("watch=true"));
        // A list before a watch: what reads one object has its name in the path, and is left alone.
        let is_list = request.method() == Method::GET
            && request.uri().query().is_some_and(|q| q.contains("limit="));
        let number = count(&state, &request);
        let crash = *state.crash.lock().unwrap();
        let moment = crash.and_then(|(at, moment)| (Some(at) == number).then_some(moment));
        if moment == Some(Moment::Before) {
            state.dead.cancel();
        }
        if state.dead.is_cancelled() {
            return Box::pin(async { Err("the process is dead".into()) });
        }
        if (is_watch || is_list) && state.no_watch.load(Ordering::SeqCst) {
            return Box::pin(async { Err("watches are cut".into()) });
        }
        // Taken before the watch is open: one that opens during the cut ends at once.
        let cut = state.watches.lock().unwrap().clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await.map_err(Into::into)?;
            let (parts, body) = response.into_parts();
            let body = body.map_err(Into::into).boxed_unsync();
            match moment {
                Some(Moment::AnswerLost) => {
                    state.dead.cancel();
                    return Err("the answer is lost".into());
                }
                Some(Moment::After) => {
                    // The answer is all there before the process dies; nothing more is sent.
                    let whole = body.collect().await?.to_bytes();
                    state.dead.cancel();
                    let body = http_body_util::Full::new(whole)
                        .map_err(|never| match never {})
                        .boxed_unsync();
                    return Ok(Response::from_parts(parts, body));
                }
                Some(Moment::Before) | None => {}
            }
            if !is_watch {
                return Ok(Response::from_parts(parts, body));
            }
            let dead = state.dead.clone();
            let ended = async move {
                tokio::select! {
                    () = cut.now.cancelled() => {}
                    () = dead.cancelled() => {}
                }
            };
            let last = futures::stream::once(async move {
                match cut.how.get() {
                    Some(how) => how.last().await,
                    None => None,
                }
            });
            let last = last.filter_map(|bytes| async { bytes.map(|b| Ok(Frame::data(b))) });
            let frames = BodyStream::new(body)
                .take_until(Box::pin(ended))
                .map(|frame: Result<Frame<Bytes>, BoxError>| frame)
                .chain(last);
            Ok(Response::from_parts(
                parts,
                BodyExt::boxed_unsync(StreamBody::new(frames)),
            ))
        })
    }
}

/// The number of this write, if it is one that counts.
fn count(state: &State, request: &Request<Body>) -> Option<usize> {
    let (path, query) = (
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
    );
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let aside = path.contains("/events") || path.contains("/leases") || query.contains("dryRun");
    if is_read || aside || state.dead.is_cancelled() {
        return None;
    }
    state
        .written
        .lock()
        .unwrap()
        .push(format!("{} {path}", request.method()));
    Some(state.writes.fetch_add(1, Ordering::SeqCst))
}
