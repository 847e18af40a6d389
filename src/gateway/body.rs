//! Bodies on their way through: limited and overheard going up, counted and timed coming down, never gathered.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::{
    features::MAX_BODY,
    pool::Lease,
    tally::{Ended, Tally},
};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body as the gateway passes it on.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// What is known of a body going up, while it goes and after.
#[derive(Default)]
pub struct Overheard {
    too_long: AtomicBool,
    ended: AtomicBool,
    failed: AtomicBool,
    /// Whether the caller is waited for, and since when: the last piece.
    asking: AtomicBool,
    last: Mutex<Option<Instant>>,
    pieces: Mutex<Option<Vec<Bytes>>>,
}

impl Overheard {
    /// Whether it was longer than allowed.
    pub fn too_long(&self) -> bool {
        self.too_long.load(Ordering::Relaxed)
    }

    /// Whether the caller broke off.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether the caller, not the pod, is why it didn't arrive whole.
    pub fn is_spoilt(&self) -> bool {
        self.too_long() || self.failed()
    }

    /// A body that is there.
    pub fn whole(bytes: Bytes) -> Arc<Self> {
        let fits = bytes.len() <= MAX_BODY;
        Arc::new(Self {
            ended: AtomicBool::new(true),
            pieces: Mutex::new(fits.then(|| vec![bytes])),
            ..Self::default()
        })
    }

    /// How it goes, while it still does.
    pub fn unfinished(&self) -> Option<Unfinished> {
        if self.ended.load(Ordering::Relaxed) || self.is_spoilt() {
            return None;
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Unfinished {
            last: last?,
            caller_is_slow: self.asking.load(Ordering::Relaxed),
        })
    }

    fn came(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The body, if it was kept, has ended, and was not too long for that.
    pub fn copy(&self) -> Option<Bytes> {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = self.ended.load(Ordering::Relaxed);
        let pieces = pieces.as_ref().filter(|_| whole)?;
        Some(match pieces.as_slice() {
            [one] => one.clone(),
            several => several.concat().into(),
        })
    }

    /// The body's pieces, if it was kept, has ended, and was not too long to be looked at; empty otherwise.
    pub fn take(&self) -> Vec<Bytes> {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = self.ended.load(Ordering::Relaxed);
        pieces.clone().filter(|_| whole).unwrap_or_default()
    }
}

/// A body that is still on its way up.
pub struct Unfinished {
    /// When its last piece came.
    pub last: Instant,
    /// Whether the pod has taken all there was, so that the caller is waited for.
    pub caller_is_slow: bool,
}

/// A caller's body: what was read of it to know where it goes, and what still comes.
pub struct Arriving {
    read: Option<Bytes>,
    rest: Incoming,
}

impl From<Incoming> for Arriving {
    fn from(rest: Incoming) -> Self {
        Self { read: None, rest }
    }
}

impl Arriving {
    /// As [`From<Incoming>`], with these bytes before.
    pub fn after(read: Bytes, rest: Incoming) -> Self {
        let read = Some(read).filter(|bytes| !bytes.is_empty());
        Self { read, rest }
    }

    /// What is still coming, and what was read before.
    pub fn split(self) -> (Bytes, Incoming) {
        (self.read.unwrap_or_default(), self.rest)
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.size_hint();
        let read = self.read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + read);
        }
        hint.set_lower(hint.lower() + read);
        hint
    }
}

/// A caller's body on its way up.
pub struct Upload {
    inner: Arriving,
    left: u64,
    kept: usize,
    overheard: Arc<Overheard>,
}

impl Upload {
    /// Passes at most `limit` bytes; keeps the first MiB if `keep`.
    pub fn new(inner: Arriving, limit: u64, keep: bool) -> (Self, Arc<Overheard>) {
        let overheard = Arc::new(Overheard {
            pieces: Mutex::new(keep.then(Vec::new)),
            ended: AtomicBool::new(inner.is_end_stream()),
            last: Mutex::new(Some(Instant::now())),
            ..Overheard::default()
        });
        let upload = Self {
            inner,
            left: limit,
            kept: 0,
            overheard: overheard.clone(),
        };
        (upload, overheard)
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => {
                this.overheard.asking.store(true, Ordering::Relaxed);
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.overheard.ended.store(true, Ordering::Relaxed);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.overheard.failed.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.overheard.asking.store(false, Ordering::Relaxed);
                this.overheard.came();
                if let Some(data) = frame.data_ref() {
                    let size = data.len() as u64;
                    if size > this.left {
                        this.overheard.too_long.store(true, Ordering::Relaxed);
                        return Poll::Ready(Some(Err("the body is too long".into())));
                    }
                    this.left -= size;
                    this.kept += data.len();
                    let mut pieces = this
                        .overheard
                        .pieces
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    if this.kept > MAX_BODY {
                        *pieces = None;
                    } else if let Some(pieces) = pieces.as_mut() {
                        pieces.push(data.clone()); // Shares the bytes.
                    }
                }
                if this.inner.is_end_stream() {
                    this.overheard.ended.store(true, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer on its way down: counted when it has ended, and its connection given back. Cut when its time is over.
pub struct Download {
    inner: Incoming,
    lease: Option<Lease>,
    tally: Tally,
    end: Option<Pin<Box<Sleep>>>,
}

impl Download {
    /// Passes an endpoint's answer on.
    pub fn new(inner: Incoming, lease: Lease, tally: Tally, end: Option<Instant>) -> Self {
        Self {
            inner,
            end: end.map(|end| Box::pin(tokio::time::sleep_until(end.into()))),
            lease: Some(lease),
            tally,
        }
    }

    fn end(&mut self) {
        self.tally.end(Ended::Complete);
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let end = this.end.as_mut();
        if end.is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            this.tally.end(Ended::Broken);
            return Poll::Ready(Some(Err("the answer took too long".into())));
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                this.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.tally.end(Ended::Broken);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.tally.first_byte();
                if let Some(trailers) = frame.trailers_ref() {
                    this.tally.trailers(trailers);
                }
                if let Some(data) = frame.data_ref() {
                    this.tally.hear(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A body whose length is known is not asked for its end.
        if self.inner.is_end_stream() {
            self.end();
        }
    }
}
