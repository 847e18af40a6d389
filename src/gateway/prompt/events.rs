//! Server-sent events on their way through: passed on as they are and as they come, event by event; usage is read, and the
//! chunk that only carries it is taken out for a caller that didn't ask for it.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

/// An event that is longer than this is passed on unread.
const MAX_EVENT: usize = 1 << 20;

/// Reads events out of pieces of a stream.
#[derive(Default)]
pub struct Events {
    hide_usage: bool,
    rest: BytesMut,
    /// Tokens of prompt and answer, once they were said.
    pub usage: Option<(u64, u64)>,
    /// Whether an event carried an error.
    pub failed: bool,
}

impl Events {
    /// `hide_usage`: the caller didn't ask for the last chunk.
    pub fn new(hide_usage: bool) -> Self {
        Self {
            hide_usage,
            ..Self::default()
        }
    }

    /// What of a piece, and of what was held back before, can be passed on now: all events that are complete. May be empty.
    pub fn pass(&mut self, piece: Bytes) -> Bytes {
        // Most pieces are whole events that say nothing of interest: not copied.
        if self.rest.is_empty()
            && end_of_event(&piece) == Some(piece.len())
            && !is_interesting(&piece)
        {
            return piece;
        }
        self.rest.extend_from_slice(&piece);
        let mut out = BytesMut::new();
        while let Some(end) = first_event(&self.rest) {
            let event = self.rest.split_to(end);
            if self.keep(&event) {
                out.extend_from_slice(&event);
            }
        }
        if self.rest.len() > MAX_EVENT {
            out.extend_from_slice(&self.rest.split());
        }
        out.freeze()
    }

    /// What is left at the end of the stream.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.rest.split();
        if self.keep(&rest) {
            rest.freeze()
        } else {
            Bytes::new()
        }
    }

    fn keep(&mut self, event: &[u8]) -> bool {
        if !is_interesting(event) {
            return true;
        }
        let Some(data) = data(event).and_then(|data| serde_json::from_slice::<Value>(&data).ok())
        else {
            return true;
        };
        if data.get("error").is_some_and(|e| !e.is_null()) {
            self.failed = true;
        }
        let Some(usage) = usage(&data) else {
            return true;
        };
        self.usage = Some(usage);
        let only_usage = data
            .get("choices")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty);
        !(self.hide_usage && only_usage)
    }
}

/// `usage` of an answer or a chunk.
pub fn usage(answer: &Value) -> Option<(u64, u64)> {
    let usage = answer.get("usage")?;
    let tokens = |name: &str| usage.get(name).and_then(Value::as_u64);
    Some((
        tokens("prompt_tokens")?,
        tokens("completion_tokens").unwrap_or(0),
    ))
}

fn is_interesting(event: &[u8]) -> bool {
    contains(event, b"\"usage\"") || contains(event, b"\"error\"")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Where the first event ends: after an empty line.
fn first_event(text: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for (i, byte) in text.iter().enumerate() {
        if *byte != b'\n' {
            continue;
        }
        let line = &text[line_start..i];
        if (line.is_empty() || line == b"\r") && line_start > 0 {
            return Some(i + 1);
        }
        line_start = i + 1;
    }
    None
}

/// Where the last complete event ends.
fn end_of_event(text: &[u8]) -> Option<usize> {
    let ends = text.ends_with(b"\n\n") || text.ends_with(b"\r\n\r\n");
    ends.then_some(text.len())
}

/// The data lines of an event, joined.
fn data(event: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for line in event.split(|b| *b == b'\n') {
        if let Some(rest) = line.strip_prefix(b"data:") {
            data.extend_from_slice(rest);
        }
    }
    (!data.is_empty()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\\n\\n\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

    fn through(hide: bool, size: usize, stream: &str) -> (String, Events) {
        let mut events = Events::new(hide);
        let mut out = Vec::new();
        for piece in stream.as_bytes().chunks(size) {
            out.extend_from_slice(&events.pass(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&events.rest());
        (String::from_utf8(out).unwrap(), events)
    }

    #[test]
    fn usage_is_read_and_shown_only_to_who_asked_however_the_stream_is_cut() {
        let without: String = STREAM
            .split_inclusive("\n\n")
            .filter(|e| !e.contains("prompt_tokens"))
            .collect();
        for size in [1, 2, 3, 7, 64, 1000] {
            let (out, events) = through(false, size, STREAM);
            assert_eq!(
                (out.as_str(), events.usage),
                (STREAM, Some((7, 3))),
                "{size}"
            );
            let (out, events) = through(true, size, STREAM);
            assert_eq!(
                (out, events.usage, events.failed),
                (without.clone(), Some((7, 3)), false),
                "{size}"
            );
        }
        let windows = STREAM.replace("\n\ndata", "\r\n\r\ndata");
        assert_eq!(through(true, 5, &windows).1.usage, Some((7, 3)));
    }

    #[test]
    fn an_event_is_passed_on_as_soon_as_it_is_complete() {
        let mut events = Events::new(true);
        let first = Bytes::from_static(b"data: {\"choices\":[1]}\n\n");
        assert_eq!(events.pass(first.clone()), first);
        assert!(events.pass(Bytes::from_static(b"data: {\"cho")).is_empty());
        assert_eq!(
            events.pass(Bytes::from_static(b"ices\":[2]}\n\n")),
            "data: {\"choices\":[2]}\n\n"
        );
    }

    #[test]
    fn an_error_in_the_stream_is_noticed_and_an_endless_event_is_not_kept() {
        assert!(
            through(
                true,
                9,
                "data: {\"error\":{\"message\":\"overloaded\"}}\n\n"
            )
            .1
            .failed
        );
        let mut events = Events::new(true);
        let long = Bytes::from(vec![b'x'; MAX_EVENT + 1]);
        assert_eq!(events.pass(long.clone()).len(), long.len());
    }
}
