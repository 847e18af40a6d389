//! How long a caller may take for the head of an HTTP/1.1 request, and how long a connection may wait for the next one. hyper has one timer for both, so it is given
//! one that knows whether a head has begun, from a stream that notes when something comes.
//!
//! A connection by which nothing came yet is no protocol's: hyper-util reads until it can't be HTTP/2's preface any more, without a timer, so the stream has its own.
//! HTTP/2 needs no more: a caller in the middle of a frame can't answer hyper's pings.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Limits;

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Sleep = Pin<Box<tokio::time::Sleep>>;

/// What the timer is told by the stream; both are of one task.
#[derive(Debug, Default)]
struct Heard {
    /// How often something came that a head may begin with.
    pieces: AtomicU64,
    /// Whether the last look found nothing there. hyper looks for more while a request is answered only when it has used up what it has read: if that
    /// look found nothing, no part of the next head has come.
    nothing: AtomicBool,
}

/// A caller's stream.
pub struct Listened<S> {
    stream: S,
    heard: Arc<Heard>,
    head: Duration,
    opening: Option<Opening>,
}

/// A connection whose protocol isn't known yet.
struct Opening {
    /// Bytes of the preface that came.
    same: usize,
    end: Sleep,
}

impl<S> Listened<S> {
    /// A new connection's stream, and the timer for hyper.
    pub fn new(stream: S, limits: &Limits) -> (Self, HeadTimer) {
        let heard = Arc::new(Heard::default());
        let timer = HeadTimer {
            heard: heard.clone(),
            head: limits.head,
        };
        let opening = Opening {
            same: 0,
            end: Box::pin(tokio::time::sleep(limits.idle)),
        };
        let listened = Self {
            stream,
            heard,
            head: limits.head,
            opening: Some(opening),
        };
        (listened, timer)
    }

    fn came(&mut self, bytes: &[u8]) {
        // Empty lines before a request are no part of it.
        if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.heard.nothing.store(false, Ordering::Relaxed);
            self.heard.pieces.fetch_add(1, Ordering::Relaxed);
        }
        let Some(opening) = &mut self.opening else {
            return;
        };
        if opening.same == 0 {
            let end = tokio::time::Instant::now() + self.head;
            opening.end.as_mut().reset(end);
        }
        let rest = PREFACE.get(opening.same..).unwrap_or_default();
        opening.same += bytes.len();
        if rest.len() <= bytes.len() || !rest.starts_with(bytes) {
            self.opening = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        match &read {
            Poll::Ready(Ok(())) => {
                let came = buffer.filled().get(before..).unwrap_or_default();
                if !came.is_empty() {
                    this.came(came);
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                this.heard.nothing.store(true, Ordering::Relaxed);
                let opening = this.opening.as_mut();
                if opening.is_some_and(|o| o.end.as_mut().poll(cx).is_ready()) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }
}

/// hyper's timer for heads: it starts one when it begins to wait for a head, looks at it whenever it has read what there is, and drops it when the
/// head is whole.
pub struct HeadTimer {
    heard: Arc<Heard>,
    head: Duration,
}

impl hyper::rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        // What came while the last request was answered may be the beginning of this one.
        let begun = !self.heard.nothing.load(Ordering::Relaxed);
        let end = if begun {
            deadline.min(Instant::now() + self.head)
        } else {
            deadline
        };
        Box::pin(Wait {
            end: Box::pin(tokio::time::sleep_until(end.into())),
            begun,
            pieces: self.heard.pieces.load(Ordering::Relaxed),
            heard: self.heard.clone(),
            head: self.head,
        })
    }
}

/// The wait for a head.
struct Wait {
    end: Sleep,
    begun: bool,
    /// How many there were when it started.
    pieces: u64,
    heard: Arc<Heard>,
    head: Duration,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.begun && this.heard.pieces.load(Ordering::Relaxed) != this.pieces {
            this.begun = true;
            let end = tokio::time::Instant::now() + this.head;
            this.end.as_mut().reset(end);
        }
        this.end.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Wait {}
