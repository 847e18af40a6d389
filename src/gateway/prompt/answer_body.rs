//! A backend's answer on its way down: timed, its usage read, never held back for more than an event.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::events::{Events, usage};
use crate::gateway::{
    body::BoxError,
    tally::{Ended, Tally},
};

/// Of a longer answer the usage isn't read.
const MAX_READ: usize = 1 << 20;

/// What is done with an answer on its way.
pub enum Mode {
    /// Nothing.
    Plain,
    /// Its usage is read at the end.
    Json(BytesMut),
    /// Its events are read one by one.
    Events(Box<Events>),
}

impl Mode {
    /// A JSON answer.
    pub fn json() -> Self {
        Mode::Json(BytesMut::new())
    }

    /// A stream of events.
    pub fn events(hide_usage: bool) -> Self {
        Mode::Events(Box::new(Events::new(hide_usage)))
    }
}

/// The body of an answer.
pub struct Answer {
    inner: Incoming,
    mode: Mode,
    tally: Tally,
    ended: bool,
}

impl Answer {
    /// Passes a backend's answer on.
    pub fn new(inner: Incoming, mode: Mode, tally: Tally) -> Self {
        Self {
            inner,
            mode,
            tally,
            ended: false,
        }
    }

    fn read(&mut self, data: Bytes) -> Bytes {
        match &mut self.mode {
            Mode::Plain => data,
            Mode::Json(read) => {
                if read.len() + data.len() <= MAX_READ {
                    read.extend_from_slice(&data);
                }
                data
            }
            Mode::Events(events) => events.pass(data),
        }
    }

    /// Settles the account; what is still to be passed on.
    fn end(&mut self, ended: Ended) -> Bytes {
        let rest = match &mut self.mode {
            Mode::Plain => Bytes::new(),
            Mode::Json(read) => {
                let answer = serde_json::from_slice(read).ok();
                self.tally.usage = answer.as_ref().and_then(usage);
                Bytes::new()
            }
            Mode::Events(events) => {
                let rest = events.rest();
                self.tally.usage = events.usage;
                self.tally.blamed |= events.failed;
                rest
            }
        };
        self.tally.end(ended);
        rest
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    this.ended = true;
                    let rest = this.end(Ended::Complete);
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
                Poll::Ready(Some(Err(error))) => {
                    this.ended = true;
                    this.end(Ended::Broken);
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.tally.first_byte();
                        this.tally.hear(&data);
                        let data = this.read(data);
                        if !data.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // Events may still hold something back.
        self.ended || (self.inner.is_end_stream() && !matches!(self.mode, Mode::Events(_)))
    }

    fn size_hint(&self) -> SizeHint {
        match self.mode {
            Mode::Events(_) => SizeHint::default(),
            _ => self.inner.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            let ended = if self.inner.is_end_stream() {
                Ended::Complete
            } else {
                Ended::Canceled
            };
            self.end(ended);
        }
    }
}
