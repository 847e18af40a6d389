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

/// What we remember of our own writes, by the uid of what they were planned for. Losing it costs at most one needless write each.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

#[derive(Default)]
struct Remembered {
    applied: HashMap<(Kind, Key), Applied>,
    pending: Vec<Pending>,
    refused: Option<Refused>,
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
        self.lock()
            .entry(uid.to_owned())
            .or_default()
            .pending
            .push(Pending {
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

    /// Whether exactly this was applied to the child of this uid, and came out as this projection.
    pub(super) fn came_out_as(&self, uid: &str, kind: Kind, key: &Key, is: &Applied) -> bool {
        self.lock()
            .get(uid)
            .and_then(|r| r.applied.get(&(kind, key.clone())))
            .is_some_and(|was| {
                was.uid == is.uid && was.desired == is.desired && was.projection == is.projection
            })
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
