//! The pods of a revision, and which of them gets the next request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Ready endpoints with the requests that are open to each.
#[derive(Default)]
pub struct Endpoints {
    pub(super) list: Vec<Arc<Endpoint>>,
    pub(super) next: AtomicUsize,
    /// None is ready: these are those that aren't, which is better than answering nobody.
    pub(super) sick: bool,
}

/// A ready pod of a revision.
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests that are open to it.
    pub open: AtomicUsize,
}

impl Endpoints {
    /// An endpoint: of two that follow each other in turn, the one with fewer open requests; never `but`, unless there is no other.
    pub fn pick(&self, but: Option<SocketAddr>) -> Option<Arc<Endpoint>> {
        let n = self.list.len();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let usable = |i: usize| {
            let endpoint = &self.list[i % n];
            (Some(endpoint.address) != but).then_some(endpoint)
        };
        match n {
            0 => None,
            1 => Some(self.list[0].clone()),
            _ => {
                let (a, b) = (usable(turn), usable(turn.wrapping_add(1)));
                let open = |e: &Arc<Endpoint>| e.open.load(Ordering::Relaxed);
                match (a, b) {
                    (Some(a), Some(b)) if open(b) < open(a) => Some(b.clone()),
                    (Some(one), _) | (None, Some(one)) => Some(one.clone()),
                    (None, None) => self.list.first().cloned(),
                }
            }
        }
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.sick || self.list.is_empty()
    }
}
