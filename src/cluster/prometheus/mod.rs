//! Asking Prometheus: the questions of releases, at most once each interval, and the last answers.
//!
//! Controllers say what they want to know with [`Prometheus::track`] and read with [`Prometheus::read`]; both are cheap. [`Prometheus::run`]
//! asks, every question bounded in time and size, only sources that the operator's configuration names, and only about the release's own
//! namespace; it wakes a release when an answer is another than before.

mod ask;
mod query;
mod source;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::Instant,
};

pub use self::query::held_to;
pub use self::source::{Source, Sources};
use super::measure::ReleaseKey;
use crate::{
    plan::rollout::{Question, Questions},
    stats::asked::{Answer, Answered, Asked},
};

/// Questions that are open at the same time.
const CONCURRENCY: usize = 16;
/// A look at what is due even if nothing says so.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Nobody is asked more often, whatever `analysis.interval` says.
const SHORTEST: Duration = Duration::from_secs(1);

type Wake = dyn Fn(&ReleaseKey) + Send + Sync;

/// Handle to what was asked and answered. Clones share it.
#[derive(Clone)]
pub struct Prometheus {
    inner: Arc<Inner>,
}

struct Inner {
    sources: Sources,
    askers: HashMap<String, ask::Asker>,
    wake: Box<Wake>,
    releases: Mutex<HashMap<String, Release>>,
    permits: Semaphore,
    changed: Notify,
}

struct Release {
    key: ReleaseKey,
    interval: Duration,
    open: BTreeMap<Question, Open>,
    /// Questions that were looked at for what is wrong with them, and the first such thing.
    checked: Vec<Question>,
    refused: Option<String>,
}

/// A question that somebody wants answered.
struct Open {
    /// The source's name, and the query as it is sent.
    sent: (String, String),
    last: Option<Answered>,
    next: Instant,
    asking: bool,
}

impl Prometheus {
    /// With these sources; `wake` queues a reconcile and must not block.
    pub fn new(sources: Sources, wake: impl Fn(&ReleaseKey) + Send + Sync + 'static) -> Self {
        let askers = sources.iter();
        let askers = askers.map(|s| (s.name.clone(), ask::Asker::new()));
        Self {
            inner: Arc::new(Inner {
                askers: askers.collect(),
                sources,
                wake: Box::new(wake),
                releases: Mutex::default(),
                permits: Semaphore::new(CONCURRENCY),
                changed: Notify::new(),
            }),
        }
    }

    /// Keeps the release's questions asked, by its UID.
    pub fn track(&self, uid: &str, key: &ReleaseKey, questions: Questions) {
        let Questions {
            all: now,
            interval: millis,
            every,
            refused,
        } = questions;
        let interval = Duration::from_millis(millis).max(SHORTEST);
        let mut releases = self.inner.releases();
        if now.is_empty() && every.is_empty() && refused.is_none() {
            releases.remove(uid);
            return;
        }
        let release = releases.entry(uid.to_owned()).or_insert_with(|| Release {
            key: key.clone(),
            interval,
            open: BTreeMap::new(),
            checked: Vec::new(),
            refused: None,
        });
        if refused.is_some() || release.checked != every || release.refused.is_some() {
            let problem = |question: &Question| {
                let problem = self.inner.admit(question, &key.namespace).err()?;
                Some(format!("metric {}: {problem}", question.metric))
            };
            release.refused = refused.or_else(|| every.iter().find_map(problem));
            release.checked = every;
        }
        let mut anew = release.interval != interval;
        release.interval = interval;
        release.open.retain(|question, _| now.contains(question));
        let begin = Instant::now();
        for question in now {
            if release.open.contains_key(&question) {
                continue;
            }
            let (sent, last) = match self.inner.admit(&question, &key.namespace) {
                Ok(sent) => (sent, None),
                Err(problem) => (
                    Default::default(),
                    Some(Answered {
                        time: Timestamp::MAX,
                        answer: Answer::Failed(problem),
                    }),
                ),
            };
            anew = true;
            let open = Open {
                sent,
                last,
                next: begin,
                asking: false,
            };
            release.open.insert(question, open);
        }
        if anew {
            let soonest = begin + interval;
            for open in release.open.values_mut() {
                open.next = open.next.min(soonest);
            }
            drop(releases);
            self.inner.changed.notify_one();
        }
    }

    /// Forgets a release that is gone.
    pub fn forget(&self, uid: &str) {
        self.inner.releases().remove(uid);
    }

    /// The last answers; never waits for the network.
    pub fn read(&self, uid: &str) -> Asked {
        let releases = self.inner.releases();
        let Some(release) = releases.get(uid) else {
            return Asked::default();
        };
        let answers = release.open.iter().filter_map(|(question, open)| {
            let key = (question.metric.clone(), question.revision.clone());
            Some((key, open.last.clone()?))
        });
        Asked {
            answers: answers.collect(),
            refused: release.refused.clone(),
        }
    }

    /// Asks until it is dropped. One task for the whole operator; run it only while leading.
    pub async fn run(&self) {
        let mut asking = JoinSet::new();
        loop {
            let now = Instant::now();
            let mut next = now + LONGEST_SLEEP;
            let mut due = Vec::new();
            for (uid, release) in self.inner.releases().iter_mut() {
                for (question, open) in &mut release.open {
                    if open.asking || open.sent.0.is_empty() {
                        continue;
                    }
                    if open.next <= now {
                        open.asking = true;
                        due.push((uid.clone(), question.clone(), open.sent.clone()));
                    } else {
                        next = next.min(open.next);
                    }
                }
            }
            for (uid, question, sent) in due {
                asking.spawn(self.inner.clone().ask(uid, question, sent));
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.inner.changed.notified() => {}
                Some(_) = asking.join_next() => {}
            }
        }
    }
}

impl Inner {
    fn releases(&self) -> MutexGuard<'_, HashMap<String, Release>> {
        // Whole values are swapped in, so a panic elsewhere leaves nothing half done.
        self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Source and query as they are sent, or why this can't be asked.
    fn admit(&self, question: &Question, namespace: &str) -> Result<(String, String), String> {
        let source = self.sources.find(&question.source, namespace)?;
        let query = query::held_to(&question.query, &source.namespace_label, namespace)?;
        Ok((source.name.clone(), query))
    }

    async fn ask(self: Arc<Self>, uid: String, question: Question, sent: (String, String)) {
        let (name, query) = sent;
        let Ok(_permit) = self.permits.acquire().await else {
            return;
        };
        let time = Timestamp::now();
        let source = self.sources.iter().find(|s| s.name == name);
        let (Some(source), Some(asker)) = (source, self.askers.get(&name)) else {
            return;
        };
        let answer = asker.ask(source, &query).await;
        if let Answer::Failed(problem) = &answer {
            tracing::debug!(metric = question.metric, "{problem}");
        }
        let mut releases = self.releases();
        let Some(release) = releases.get_mut(&uid) else {
            return;
        };
        let interval = release.interval;
        let Some(open) = release.open.get_mut(&question) else {
            return;
        };
        open.asking = false;
        open.next = Instant::now() + interval;
        let news = open.last.as_ref().is_none_or(|l| l.answer != answer);
        open.last = Some(Answered { time, answer });
        if news {
            let key = release.key.clone();
            drop(releases);
            (self.wake)(&key);
        }
    }
}

#[cfg(test)]
mod tests;
