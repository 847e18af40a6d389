//! How many requests a revision is given at once: those beyond wait, and those beyond them are refused at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limit of one revision.
pub struct Breaker {
    open: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Requests that are open at once.
    pub concurrent: usize,
    /// Requests that wait.
    pub pending: usize,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Breaker {
    /// A limit.
    pub fn new((concurrent, pending): (usize, usize)) -> Self {
        Self {
            open: Arc::new(Semaphore::new(concurrent.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            concurrent,
            pending,
        }
    }

    /// Whether whoever comes now must wait.
    pub fn is_full(&self) -> bool {
        self.open.available_permits() == 0
    }

    /// A place, until it is dropped. `None`: too many are open, and as many wait as may, or it took until the deadline.
    pub async fn enter(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.open.clone().try_acquire_owned() {
            return Some(place);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.pending {
            return None;
        }
        let place = self.open.clone().acquire_owned();
        let place = tokio::time::timeout_at(deadline.into(), place).await;
        place.ok()?.ok()
    }
}
