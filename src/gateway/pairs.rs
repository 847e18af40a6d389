//! Copied requests with what both sides answered, for the pods of Evaluations (`spec.mirrored`).
//!
//! Nothing is recorded: a pair goes to those who listen for its candidate at that moment, and where nobody does it isn't made. One who reads too slowly misses
//! some, and is told how many. The port is for pods that measure, which the gateway's NetworkPolicy says.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;

use super::{Shared, objects::Kind};
use crate::api::mirrored::Pair;

/// Listeners of a gateway pod.
pub const MOST: usize = 8;
/// Pairs that wait for a listener.
pub const WAITING: usize = 16;
/// A longer request or answer is left out of its pair.
pub const MAX_TEXT: usize = 64 << 10;

/// Who listens.
#[derive(Default)]
pub struct Pairs {
    listeners: Mutex<Vec<Listener>>,
}

struct Listener {
    release: Arc<str>,
    candidate: Arc<str>,
    lines: mpsc::Sender<Bytes>,
    /// Pairs that there was no room for.
    missed: AtomicU64,
}

impl Listener {
    fn is_for(&self, release: &str, candidate: &str) -> bool {
        !self.lines.is_closed() && *self.release == *release && *self.candidate == *candidate
    }

    fn give(&self, mut pair: Pair) {
        pair.missed = self.missed.swap(0, Ordering::Relaxed);
        let missed = pair.missed + 1;
        let line = serde_json::to_vec(&pair).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        });
        if line.is_err() || line.is_ok_and(|line| self.lines.try_send(line).is_err()) {
            self.missed.fetch_add(missed, Ordering::Relaxed);
        }
    }
}

impl Pairs {
    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody listens for this candidate.
    pub fn are_wanted(&self, release: &str, candidate: &str) -> bool {
        self.listeners()
            .iter()
            .any(|l| l.is_for(release, candidate))
    }

    /// Gives a pair to those who listen for its candidate; waits for nobody.
    pub fn give(&self, release: &str, candidate: &str, pair: &Pair) {
        let listeners = self.listeners();
        let those = listeners.iter().filter(|l| l.is_for(release, candidate));
        those.for_each(|listener| listener.give(pair.clone()));
    }

    /// Pairs of this candidate from now on; `None`: too many listen already.
    fn listen(&self, release: &Arc<str>, candidate: &Arc<str>) -> Option<mpsc::Receiver<Bytes>> {
        let mut listeners = self.listeners();
        listeners.retain(|l| !l.lines.is_closed());
        let (lines, receiver) = mpsc::channel(WAITING);
        (listeners.len() < MOST).then(|| {
            listeners.push(Listener {
                release: release.clone(),
                candidate: candidate.clone(),
                lines,
                missed: AtomicU64::new(0),
            });
            receiver
        })
    }
}

/// What is served on the port for pods that measure.
pub fn router(shared: Arc<Shared>) -> Router {
    let path = "/mirrored/{kind}/{release}/{candidate}";
    Router::new().route(path, get(listen)).with_state(shared)
}

async fn listen(
    State(shared): State<Arc<Shared>>,
    Path((kind, name, hash)): Path<(String, String, String)>,
) -> Response {
    let table = shared.table();
    let release = Kind::of_plural(&kind).and_then(|kind| {
        let mut all = table.releases();
        all.find(|r| r.kind == kind && r.name == name)
    });
    let candidate = release.and_then(|r| r.candidate.as_ref());
    let Some((release, candidate)) = release.zip(candidate.filter(|c| *c.hash == *hash)) else {
        let why = format!("{hash} is no candidate of {name} here\n");
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let Some(lines) = shared.pairs.listen(&release.uid, &candidate.hash) else {
        let why = format!("{MOST} listen already\n");
        return (StatusCode::TOO_MANY_REQUESTS, why).into_response();
    };
    // Who leaves sends its listeners to the others.
    let state = (lines, shared.leaving.subscribe());
    let lines = stream::unfold(state, |(mut lines, mut leaving)| async move {
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = leaving.wait_for(|on| *on) => None,
        };
        line.map(|line| (Ok::<_, Infallible>(line), (lines, leaving)))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_does_not_read_misses_pairs_and_is_told_how_many() {
        let pairs = Pairs::default();
        let (release, candidate): (Arc<str>, Arc<str>) = ("r".into(), "c".into());
        assert!(!pairs.are_wanted("r", "c"));
        let mut lines = pairs.listen(&release, &candidate).unwrap();
        assert!(pairs.are_wanted("r", "c"));
        assert!(!pairs.are_wanted("r", "d") && !pairs.are_wanted("q", "c"));
        for _ in 0..WAITING + 3 {
            pairs.give("r", "c", &Pair::default());
            pairs.give("r", "d", &Pair::default());
        }
        let mut read = || serde_json::from_slice::<Pair>(&lines.try_recv().unwrap()).unwrap();
        assert!((0..WAITING).all(|_| read().missed == 0));
        pairs.give("r", "c", &Pair::default());
        assert_eq!(read().missed, 3);
        pairs.give("r", "c", &Pair::default());
        assert_eq!(read().missed, 0);
        assert!(lines.try_recv().is_err(), "nothing of another candidate");
        drop(lines);
        assert!(!pairs.are_wanted("r", "c"), "it has gone");
    }

    #[test]
    fn only_so_many_listen_and_who_has_gone_makes_room() {
        let pairs = Pairs::default();
        let (release, candidate): (Arc<str>, Arc<str>) = ("r".into(), "c".into());
        let listen = || pairs.listen(&release, &candidate);
        let mut all: Vec<_> = (0..MOST).filter_map(|_| listen()).collect();
        assert_eq!(all.len(), MOST);
        assert!(listen().is_none());
        all.pop();
        assert!(listen().is_some());
    }
}
