//! The loop itself: workers take keys from a queue and reconcile them, one object never at the same time twice.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use kube::{Api, api::DynamicObject};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    backoff,
    driver::{Controller, Outcome, Subject},
    queue::Queue,
};
use crate::{
    cluster::{Error, Key, Refusal, Shell, act, store::version_of},
    plan::{self, Action, ended::Ended},
    telemetry::metrics,
};

/// A plan that wants to be looked at again at once waits this long: no plan can make a hot loop.
const SHORTEST: Duration = Duration::from_millis(200);
/// While a write of ours isn't visible; its echo wakes the object anyway.
const ECHO: Duration = Duration::from_millis(500);
/// An object whose namespace is being deleted is left alone for so long; it is gone before.
const LEFT: Duration = Duration::from_secs(600);
/// The same for a namespace itself.
const LEFT_PLACE: Duration = Duration::from_secs(30);
/// Fresh reads after conflicts, at once.
const CONFLICTS: usize = 3;

/// Reconciles one kind until `stop` is cancelled: reads without leadership, plans and writes only with it. It hears of changes from this call on,
/// so call it before the watches start; the work is in the future.
pub fn run<C: Controller>(
    controller: C,
    shell: Shell,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let driver = Arc::new(Driver {
        controller,
        shell,
        queue: Queue::default(),
        active: AtomicBool::new(false),
        tries: Mutex::default(),
        uids: Mutex::default(),
    });
    driver.subscribe();
    drive(driver, stop)
}

async fn drive<C: Controller>(driver: Arc<Driver<C>>, stop: CancellationToken) {
    let mut leading = driver.shell.leadership.watch();
    let began = stop.run_until_cancelled(driver.shell.caches.wait_ready());
    if began.await.is_none() {
        return;
    }
    loop {
        let led = async { leading.wait_for(|leading| *leading).await.is_ok() };
        if stop.run_until_cancelled(led).await != Some(true) {
            return;
        }
        driver.active.store(true, Ordering::SeqCst);
        // What was edited while nobody led, and what changes from now on, doesn't wait until all else was looked at.
        let caches = &driver.shell.caches;
        for key in driver.controller.keys(caches) {
            let object = driver.controller.find(caches, &key);
            if object.is_some_and(|object| object.is_unanswered()) {
                driver.queue.push(key);
            } else {
                driver.queue.push_behind(key);
            }
        }
        let mut workers = JoinSet::new();
        for _ in 0..driver.shell.settings.concurrency.max(1) {
            let (driver, stop) = (driver.clone(), stop.clone());
            workers.spawn(async move { driver.work(stop).await });
        }
        let lost = async { leading.wait_for(|leading| !*leading).await.is_ok() };
        if stop.run_until_cancelled(lost).await != Some(true) {
            // What has begun may end; a write never outlives the right to write.
            let _ = tokio::time::timeout(Duration::from_secs(5), workers.join_all()).await;
            return;
        }
        driver.active.store(false, Ordering::SeqCst);
    }
}

struct Driver<C> {
    controller: C,
    shell: Shell,
    queue: Queue,
    active: AtomicBool,
    tries: Mutex<HashMap<String, Tries>>,
    /// The uid that a key had last, so that what is remembered can be dropped with it.
    uids: Mutex<HashMap<Key, String>>,
}

/// Failures in a row of one object.
struct Tries {
    failures: u32,
    generation: Option<i64>,
    not_before: Instant,
}

/// What one look at an object came to.
struct Done {
    next: Duration,
    outcome: &'static str,
}

impl<C: Controller> Driver<C> {
    fn subscribe(self: &Arc<Self>) {
        let driver = Arc::downgrade(self);
        self.shell.caches.subscribe(Arc::new(move |caches, change| {
            let Some(driver) = driver.upgrade() else {
                return;
            };
            if driver.active.load(Ordering::SeqCst) {
                for key in driver.controller.wakes(caches, change) {
                    driver.queue.push(key);
                }
            }
        }));
    }

    async fn work(&self, stop: CancellationToken) {
        while let Some(key) = stop.run_until_cancelled(self.queue.next()).await {
            let depth = i64::try_from(self.queue.depth()).unwrap_or(i64::MAX);
            metrics::QUEUE_KEYS.with_label_values(&[C::NAME]).set(depth);
            let span = tracing::info_span!(
                "reconcile",
                controller = C::NAME,
                namespace = key.namespace,
                name = key.name
            );
            if let Some(next) = self.look(&key).instrument(span).await {
                self.queue.push_after(key.clone(), next);
            }
            self.queue.done(&key);
            // A look that finds nothing to do never waits: a worker would keep its thread until no key is left, and the other controllers,
            // the watches and the lease would wait for that.
            tokio::task::yield_now().await;
        }
    }

    /// Looks at one key; says when to look again at the latest.
    async fn look(&self, key: &Key) -> Option<Duration> {
        if !self.shell.caches.ready_in(&key.namespace) {
            return Some(ECHO);
        }
        let Some(object) = self.controller.find(&self.shell.caches, key) else {
            self.forget(key);
            return None;
        };
        let (uid, generation) = (object.uid(), object.generation());
        let is_object = object.kind().is_some();
        self.recognise(key, &uid);
        if object.deleting() {
            return None;
        }
        if let Some(wait) = self.held_back(&uid, generation) {
            return Some(wait);
        }
        if let Some(what) = self.shell.memory.unseen(&self.shell.caches, &uid) {
            tracing::debug!("waiting: {what}");
            self.count("unseen");
            return Some(ECHO);
        }
        let began = Instant::now();
        let limit = self.shell.settings.reconcile_limit;
        let guarded = AssertUnwindSafe(self.reconcile(key, object)).catch_unwind();
        let (result, outcome) = match tokio::time::timeout(limit, guarded).await {
            Ok(Ok(Ok(done))) => {
                let outcome = done.outcome;
                (Ok(done), outcome)
            }
            Ok(Ok(Err(error))) => {
                let outcome = error.label();
                (Err(error), outcome)
            }
            Ok(Err(panic)) => (
                Err(Error::Bug(format!("panic: {}", words(&*panic)))),
                "panic",
            ),
            Err(_) => {
                let message = format!("the reconcile took longer than {limit:?}");
                (Err(Error::Transient(message)), "timeout")
            }
        };
        self.count(outcome);
        metrics::RECONCILE_SECONDS
            .with_label_values(&[C::NAME])
            .observe(began.elapsed().as_secs_f64());
        match result {
            Ok(done) => {
                self.tries().remove(&uid);
                Some(done.next)
            }
            Err(Error::NotLeader) => None,
            Err(Error::Leaving(message)) => {
                // A namespace may come again under its name; what was in it has another uid then.
                let wait = if is_object { LEFT } else { LEFT_PLACE };
                self.hold(&uid, generation, wait);
                tracing::info!("{message}");
                Some(wait)
            }
            Err(error) => {
                let wait = self.failed(&uid, generation, &error);
                tracing::warn!(outcome, retry_in = ?wait, "{error}");
                Some(wait)
            }
        }
    }

    async fn reconcile(&self, key: &Key, object: Arc<C::Object>) -> Result<Done, Error> {
        let mut object = object;
        for _ in 0..CONFLICTS {
            match self.once(&object).await {
                Err(Error::Conflict(message)) => {
                    tracing::debug!("reading again: {message}");
                    match self.fresh(key, &object).await? {
                        Some(newer) => object = newer,
                        None => return Ok(self.rest(&object.uid())),
                    }
                }
                other => return other,
            }
        }
        self.once(&object).await
    }

    /// Observe, plan, act: once.
    async fn once(&self, object: &Arc<C::Object>) -> Result<Done, Error> {
        let observed = match self.controller.observe(&self.shell, object).await? {
            Outcome::Ready(observed) => observed,
            Outcome::Waiting {
                reason,
                message,
                check_after,
            } => {
                tracing::debug!(reason, "waiting: {message}");
                return Ok(Done {
                    next: check_after.max(SHORTEST),
                    outcome: "waiting",
                });
            }
        };
        let now = self.shell.now();
        let plan = self.controller.plan(&observed, now);
        let ended: Vec<Ended> = plan
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Status(status) => Some(self.controller.ended(object, status)),
                _ => None,
            })
            .flatten()
            .collect();
        let mut recorded = false;
        let acted = act::carry_out(
            &self.shell,
            &**object,
            plan.actions,
            |status, refusal| self.controller.refused(object, status, refusal, now),
            &mut recorded,
        )
        .await;
        // What is in the status has happened, even if a later write failed: nobody would tell of it again.
        if recorded {
            ended.iter().for_each(count);
        }
        let done = acted.as_ref().is_ok_and(|acted| acted.refused.is_none());
        if recorded || done {
            for event in &plan.events {
                self.shell.events.send(&**object, event, now).await;
            }
        }
        let acted = acted?;
        if acted.writes > 0 {
            let why = match plan.notes.as_slice() {
                [] => "what was decided before is carried out".to_owned(),
                notes => notes.join("; "),
            };
            tracing::info!(writes = acted.writes, "{why}");
        }
        let mut next = self.rest(&object.uid()).next;
        if let Some(at) = plan.check_at {
            let wait = at.duration_since(now);
            next = next.min(Duration::try_from(wait).unwrap_or(SHORTEST));
        }
        for refusal in &acted.contested {
            self.announce(object, refusal, now).await;
        }
        if let Some(wait) = self.shell.memory.contested_for(&object.uid()) {
            next = next.min(wait);
        }
        if let Some(refusal) = &acted.refused {
            if acted.newly_refused {
                self.announce(object, refusal, now).await;
            }
            let uid = object.uid();
            next = next.min(self.shell.memory.refused_for(&uid).unwrap_or(next));
        }
        Ok(Done {
            next: next.max(SHORTEST),
            outcome: if acted.refused.is_some() {
                "refused"
            } else {
                "done"
            },
        })
    }

    async fn announce(&self, object: &Arc<C::Object>, refusal: &Refusal, now: jiff::Timestamp) {
        tracing::warn!(reason = refusal.reason.as_str(), "{}", refusal.message);
        let event = plan::Event {
            warning: true,
            reason: refusal.reason.as_str(),
            action: "Write",
            note: refusal.message.clone(),
        };
        self.shell.events.send(&**object, &event, now).await;
    }

    /// The object as the API server has it, once the cache has it too; `None` when it is gone. The cache itself is never written to.
    async fn fresh(
        &self,
        key: &Key,
        object: &Arc<C::Object>,
    ) -> Result<Option<Arc<C::Object>>, Error> {
        let uid = object.uid();
        let mut least = 0;
        if let Some(kind) = object.kind() {
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.shell.client.clone(), &key.namespace, &kind.resource());
            let live =
                tokio::time::timeout(self.shell.settings.write_limit, api.get_opt(&key.name)).await;
            match live {
                Ok(Ok(Some(live))) => least = version_of(&live.metadata),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => {
                    return Err(Error::Transient(format!(
                        "{key} can't be read again: {error}"
                    )));
                }
                Err(_) => {
                    return Err(Error::Transient(format!(
                        "{key} can't be read again in time"
                    )));
                }
            }
        }
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            tick.tick().await;
            let Some(newer) = self.controller.find(&self.shell.caches, key) else {
                return Ok(None);
            };
            let version = newer
                .resource_version()
                .and_then(|v| v.parse().ok())
                .unwrap_or(u64::MAX);
            if version >= least && self.shell.memory.unseen(&self.shell.caches, &uid).is_none() {
                return Ok(Some(newer));
            }
        }
        Err(Error::Transient(format!(
            "the cache lags behind: {key} isn't there yet as it is stored"
        )))
    }

    /// Nothing to do before the next resync, spread so that not everything comes at once.
    fn rest(&self, uid: &str) -> Done {
        Done {
            next: self
                .shell
                .settings
                .resync
                .mul_f64(0.9 + 0.1 * backoff::spread(uid)),
            outcome: "done",
        }
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<String, Tries>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rest of the back-off, unless there is a new generation.
    fn held_back(&self, uid: &str, generation: Option<i64>) -> Option<Duration> {
        let tries = self.tries();
        let held = tries.get(uid)?;
        let left = held.not_before.saturating_duration_since(Instant::now());
        (held.generation == generation && !left.is_zero()).then_some(left)
    }

    /// Leaves it alone for so long, or until there is a new generation.
    fn hold(&self, uid: &str, generation: Option<i64>, wait: Duration) {
        let held = Tries {
            failures: 0,
            generation,
            not_before: Instant::now() + wait,
        };
        self.tries().insert(uid.to_owned(), held);
    }

    fn failed(&self, uid: &str, generation: Option<i64>, error: &Error) -> Duration {
        let mut tries = self.tries();
        let entry = tries.entry(uid.to_owned()).or_insert(Tries {
            failures: 0,
            generation,
            not_before: Instant::now(),
        });
        if entry.generation != generation {
            entry.failures = 0;
            entry.generation = generation;
        }
        entry.failures += 1;
        let mut wait = backoff::after(entry.failures, uid);
        if matches!(error, Error::Bug(_)) {
            wait = wait.max(Duration::from_secs(60));
        }
        entry.not_before = Instant::now() + wait;
        wait
    }

    fn recognise(&self, key: &Key, uid: &str) {
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        if uids.get(key).is_none_or(|known| known != uid)
            && let Some(old) = uids.insert(key.clone(), uid.to_owned())
        {
            drop(uids);
            self.drop_uid(&old);
        }
    }

    fn forget(&self, key: &Key) {
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(uid) = uids.remove(key) {
            drop(uids);
            self.drop_uid(&uid);
        }
    }

    fn drop_uid(&self, uid: &str) {
        self.shell.memory.forget(uid);
        self.tries().remove(uid);
    }

    fn count(&self, outcome: &str) {
        metrics::RECONCILES
            .with_label_values(&[C::NAME, outcome])
            .inc();
    }
}

/// Counts what has ended.
fn count(ended: &Ended) {
    match ended {
        Ended::Rollout {
            kind,
            outcome,
            reason,
        } => metrics::ROLLOUTS.with_label_values(&[*kind, *outcome, *reason]),
        Ended::Retraining(result) => metrics::RETRAININGS.with_label_values(&[*result]),
        Ended::Evaluation(verdict) => metrics::EVALUATIONS.with_label_values(&[*verdict]),
        Ended::Training(phase) => metrics::TRAININGS.with_label_values(&[*phase]),
    }
    .inc();
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}
