//! The pods of a revision, which of them gets the next request, and which are left out.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::gateway::policy::EjectionRule;

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
    /// Failures one after another.
    failures: AtomicU32,
    /// Times that it was left out, less one for each success since.
    ejections: AtomicU32,
    /// Left out until then, in the gateway's milliseconds.
    until: AtomicU64,
}

impl Endpoint {
    /// One that nothing is known of.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            until: AtomicU64::new(0),
        }
    }

    /// Whether it is left out at this time.
    pub fn is_ejected(&self, now: u64) -> bool {
        self.until.load(Relaxed) > now
    }

    /// It answered.
    pub fn succeeded(&self, now: u64) {
        if self.failures.load(Relaxed) != 0 && !self.is_ejected(now) {
            self.failures.store(0, Relaxed);
        }
        let ejections = self.ejections.load(Relaxed);
        if ejections != 0 && !self.is_ejected(now) {
            self.ejections.store(ejections - 1, Relaxed);
        }
    }
}

impl Endpoints {
    /// An endpoint: of two that follow each other in turn, the one with fewer open requests. One that was `tried` or is left out
    /// only if there is no other.
    pub fn pick(&self, tried: &[SocketAddr], now: u64) -> Option<Arc<Endpoint>> {
        let n = self.list.len();
        if n == 0 {
            return None;
        }
        let turn = self.next.fetch_add(1, Relaxed);
        let open = |e: &Arc<Endpoint>| e.open.load(Relaxed);
        let find = |usable: &dyn Fn(&Endpoint) -> bool| {
            let mut found = (0..n)
                .map(|i| &self.list[turn.wrapping_add(i) % n])
                .filter(|e| usable(e));
            let first = found.next()?;
            match found.next() {
                Some(second) if open(second) < open(first) => Some(second.clone()),
                _ => Some(first.clone()),
            }
        };
        let fresh = |e: &Endpoint| !tried.contains(&e.address);
        find(&|e| fresh(e) && !e.is_ejected(now))
            .or_else(|| find(&fresh))
            .or_else(|| find(&|_| true))
    }

    /// A request to this endpoint failed. True: it is left out from now on, for longer each time; at most half of all are.
    pub fn failed(&self, endpoint: &Endpoint, rule: &EjectionRule, now: u64) -> bool {
        let failures = endpoint.failures.fetch_add(1, Relaxed).saturating_add(1);
        if rule.failures == 0 || failures < rule.failures || endpoint.is_ejected(now) {
            return false;
        }
        let out = self.list.iter().filter(|e| e.is_ejected(now)).count();
        if out + 1 > self.list.len() / 2 {
            return false;
        }
        let times = endpoint.ejections.fetch_add(1, Relaxed).min(16);
        let length = rule.time.saturating_mul(1 << times).min(rule.longest);
        endpoint.until.store(now + millis(length), Relaxed);
        // When it is back, one more failure is enough.
        endpoint.failures.store(rule.failures - 1, Relaxed);
        true
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.sick || self.list.is_empty()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 1)
}
