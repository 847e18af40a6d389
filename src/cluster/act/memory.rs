//! What we remember of our own writes. Losing it costs at most one needless write each.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::cluster::{
    cache::{Caches, Kind},
    error::Refusal,
    kind::Key,
    store::version_of,
};

/// Longest wait until a write of ours is visible, for children: one could have lost our label on the way in, and then never is.
const LONGEST_ECHO: Duration = Duration::from_secs(60);

/// So often in a row an object of ours is set right at once when somebody changes it.
const REPAIRS: u32 = 5;
/// Whoever hasn't changed it for so long has given up.
const CALM: Duration = Duration::from_secs(600);

/// What we remember of our own writes, by the uid of what they were planned for. Losing it costs at most one needless write each.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

#[derive(Default)]
struct Remembered {
    applied: HashMap<(Kind, Key), Applied>,
    settled: HashMap<(Kind, Key), Settled>,
    pending: Vec<Pending>,
    refused: Option<Refused>,
    contests: HashMap<(Kind, Key), Contest>,
}

/// An object of ours that somebody else changes.
struct Contest {
    /// How often it was set right.
    repairs: u32,
    /// When last.
    last: Instant,
    /// What is said of it, until it is set right again.
    held: Option<Refused>,
}

/// A child that was compared: at this resourceVersion it is as this (a digest) says, and is ours.
#[derive(PartialEq, Eq)]
pub(super) struct Settled {
    pub version: String,
    pub desired: String,
}

pub(super) struct Applied {
    pub uid: String,
    pub desired: String,
    pub projection: String,
}

struct Pending {
    kind: Kind,
    key: Key,
    since: Instant,
    until: Echo,
}

pub(super) enum Echo {
    /// This resourceVersion or a newer one.
    Version(u64),
    /// This uid is gone, or on its way.
    Gone(String),
}

pub(super) struct Refused {
    pub refusal: Refusal,
    pub desired: String,
    pub generation: Option<i64>,
    pub until: Instant,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is remembered of an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// A write for this object that the caches don't show yet, as a sentence. While there is one, nothing may be planned for it.
    pub fn unseen(&self, caches: &Caches, uid: &str) -> Option<String> {
        let mut memory = self.lock();
        let remembered = memory.get_mut(uid)?;
        remembered.pending.retain(|p| !p.visible(caches));
        remembered.pending.first().map(|p| {
            format!(
                "{} {} as it was written isn't visible yet",
                p.kind.as_str(),
                p.key
            )
        })
    }

    /// The time until the refusal of one of this object's writes is forgotten.
    pub fn refused_for(&self, uid: &str) -> Option<Duration> {
        let memory = self.lock();
        let refused = memory.get(uid)?.refused.as_ref()?;
        Some(refused.until.saturating_duration_since(Instant::now()))
    }

    pub(super) fn wrote(&self, uid: &str, kind: Kind, key: &Key, until: Echo) {
        let mut memory = self.lock();
        let remembered = memory.entry(uid.to_owned()).or_default();
        if matches!(until, Echo::Gone(_)) {
            remembered.applied.remove(&(kind, key.clone()));
            remembered.settled.remove(&(kind, key.clone()));
        }
        remembered.pending.push(Pending {
            kind,
            key: key.clone(),
            since: Instant::now(),
            until,
        });
    }

    pub(super) fn applied(&self, uid: &str, kind: Kind, key: &Key, applied: Applied) {
        self.lock()
            .entry(uid.to_owned())
            .or_default()
            .applied
            .insert((kind, key.clone()), applied);
    }

    /// Whether this was found before: then nothing needs to be compared.
    pub(super) fn is_settled(&self, uid: &str, kind: Kind, key: &Key, is: &Settled) -> bool {
        let memory = self.lock();
        let settled = memory
            .get(uid)
            .and_then(|r| r.settled.get(&(kind, key.clone())));
        settled == Some(is)
    }

    pub(super) fn settle(&self, uid: &str, kind: Kind, key: &Key, is: Settled) {
        let mut memory = self.lock();
        let remembered = memory.entry(uid.to_owned()).or_default();
        remembered.settled.insert((kind, key.clone()), is);
    }

    /// Whether exactly this was applied to the child of this uid, and came out as this projection.
    pub(super) fn came_out_as(&self, uid: &str, kind: Kind, key: &Key, is: &Applied) -> bool {
        self.lock()
            .get(uid)
            .and_then(|r| r.applied.get(&(kind, key.clone())))
            .is_some_and(|was| {
                was.uid == is.uid && was.desired == is.desired && was.projection == is.projection
            })
    }

    /// An object of ours is to be set right. Returns how often it was already, if that is too often for doing it now.
    pub(super) fn repair(&self, uid: &str, kind: Kind, key: &Key) -> Option<u32> {
        let mut memory = self.lock();
        let contests = &mut memory.entry(uid.to_owned()).or_default().contests;
        let now = Instant::now();
        let contest = contests.entry((kind, key.clone())).or_insert(Contest {
            repairs: 0,
            last: now,
            held: None,
        });
        if now.duration_since(contest.last) > CALM {
            contest.repairs = 0;
        }
        // What was held until now is set right once.
        let waited = contest.held.take().is_some();
        if contest.repairs >= REPAIRS && !waited {
            return Some(contest.repairs);
        }
        contest.repairs += 1;
        contest.last = now;
        None
    }

    /// Leaves an object that is contested as it is for a while.
    pub(super) fn hold(&self, uid: &str, kind: Kind, key: &Key, refused: Refused) {
        let mut memory = self.lock();
        let contests = &mut memory.entry(uid.to_owned()).or_default().contests;
        if let Some(contest) = contests.get_mut(&(kind, key.clone())) {
            contest.held = Some(refused);
        }
    }

    /// What is said of objects that are contested, with the digests of what would be written.
    pub(super) fn contested(&self, uid: &str, desired: &[String]) -> Vec<(Refusal, String)> {
        let memory = self.lock();
        let contests = memory
            .get(uid)
            .into_iter()
            .flat_map(|r| r.contests.values());
        let held = contests.filter_map(|c| c.held.as_ref());
        held.filter(|r| Instant::now() < r.until && desired.contains(&r.desired))
            .map(|r| (r.refusal.clone(), r.desired.clone()))
            .collect()
    }

    /// The time until an object that is contested is set right again.
    pub fn contested_for(&self, uid: &str) -> Option<Duration> {
        let memory = self.lock();
        let held = memory.get(uid)?.contests.values();
        let held = held.filter_map(|c| c.held.as_ref());
        let until = held.map(|r| r.until).min()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Whether exactly this was applied to the child of this uid.
    pub(super) fn has_applied(
        &self,
        uid: &str,
        kind: Kind,
        key: &Key,
        child: &str,
        desired: &str,
    ) -> bool {
        let memory = self.lock();
        let applied = memory
            .get(uid)
            .and_then(|r| r.applied.get(&(kind, key.clone())));
        applied.is_some_and(|was| was.uid == child && was.desired == desired)
    }

    pub(super) fn refuse(&self, uid: &str, refused: Refused) {
        self.lock().entry(uid.to_owned()).or_default().refused = Some(refused);
    }

    /// The refusal that still stands for one of these writes.
    pub(super) fn standing(
        &self,
        uid: &str,
        generation: Option<i64>,
        desired: &[String],
    ) -> Option<(Refusal, String)> {
        let mut memory = self.lock();
        let remembered = memory.get_mut(uid)?;
        let refused = remembered.refused.as_ref()?;
        if refused.generation == generation
            && Instant::now() < refused.until
            && desired.contains(&refused.desired)
        {
            return Some((refused.refusal.clone(), refused.desired.clone()));
        }
        remembered.refused = None;
        None
    }
}

impl Pending {
    fn visible(&self, caches: &Caches) -> bool {
        let store = caches.store(self.kind);
        let visible = match &self.until {
            Echo::Version(version) => {
                store.seen(&self.key.namespace) >= *version
                    || store
                        .meta(&self.key)
                        .is_some_and(|m| version_of(&m) >= *version)
            }
            Echo::Gone(uid) => store
                .meta(&self.key)
                .is_none_or(|m| m.uid.as_deref() != Some(uid) || m.deletion_timestamp.is_some()),
        };
        if !visible && !self.kind.is_own() && self.since.elapsed() > LONGEST_ECHO {
            tracing::warn!(kind = self.kind.as_str(), key = %self.key, "a write of ours wasn't seen for a minute: going on without");
            return true;
        }
        visible
    }
}
