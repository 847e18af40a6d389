//! What was read from the gateways of one namespace. No IO: polls go in, measurements come out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{GatewayPod, Interest, ReleaseKey, late};
use crate::stats::bucket::{
    Bucket, Buckets, Epochs, Gateway, HourlyFeatures, MAX_MINUTES, ReleaseMeasurements, Traffic,
};

/// How often measurements are read while no rollout is going on.
pub const IDLE: Duration = Duration::from_secs(15);
/// How often epochs are asked for while one is awaited.
const EAGER: Duration = Duration::from_millis(200);
/// … and how often once it was awaited for [`EAGER_FOR`].
const PATIENT: Duration = Duration::from_secs(1);
const EAGER_FOR: Duration = Duration::from_secs(10);
/// How often epochs are asked for while a gateway reports what keeps callers from being answered.
const CONCERNED: Duration = Duration::from_secs(5);

/// The gateways of a namespace.
#[derive(Default)]
pub struct Namespace {
    releases: HashMap<String, Release>,
    pods: HashMap<String, Pod>,
    last_poll: Option<Instant>,
    last_measured: Option<Instant>,
    polling: bool,
    /// A ready pod was seen that was never asked.
    hurried: bool,
    /// A gateway reports a problem, or is looking into one: when to ask again.
    concerned: Option<Duration>,
    /// A release was tracked whose earlier buckets were not kept.
    from_start: bool,
}

struct Release {
    interest: Interest,
    /// Since when a ready gateway lacks the epoch.
    awaiting: Option<Instant>,
    parts: BTreeMap<Key, BTreeMap<String, Arc<Bucket>>>,
    merged: BTreeMap<Key, Arc<Bucket>>,
    hourly: BTreeMap<(i64, String), Arc<HourlyFeatures>>,
    /// By epoch and revision: what a rollout that lasts longer than minutes are kept has counted before.
    condensed: BTreeMap<(i64, String), Arc<Bucket>>,
    /// Minutes before this one were let go of: what comes of them again is counted already.
    expired_before: i64,
    since: Option<i64>,
    late: late::Kept,
    /// What the last wake was for, so that the next is only for something new.
    told: Vec<Gateway>,
}

/// Minute, epoch, revision.
type Key = (i64, i64, String);

#[derive(Default)]
struct Pod {
    process: String,
    minute: Option<i64>,
    /// The second in which its buckets were read.
    second: Option<i64>,
    epochs: Epochs,
    unreachable: Option<String>,
}

/// What to do for a namespace now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Read buckets too, not only epochs.
    pub measure: bool,
}

/// One pod's answers.
pub struct Answer {
    /// UID of the pod.
    pub pod: String,
    /// Its epochs, or why it couldn't be read.
    pub epochs: Result<Epochs, String>,
    /// Its buckets, where they were asked for.
    pub buckets: Option<Buckets>,
}

impl Namespace {
    /// Tracks a release; true if the loop should look again at once.
    pub fn track(&mut self, uid: &str, interest: Interest) -> bool {
        match self.releases.get_mut(uid) {
            Some(release) if release.interest == interest => false,
            Some(release) => {
                // What came before was not kept.
                self.from_start |=
                    release.interest.keep_late.is_none() && interest.keep_late.is_some();
                if release.interest.epoch != interest.epoch {
                    release.awaiting = None;
                    // Whether it is served already is asked now, not at the next quiet poll.
                    self.hurried = true;
                }
                release.interest = interest;
                true
            }
            None => {
                self.from_start = true;
                self.releases.insert(
                    uid.to_owned(),
                    Release {
                        interest,
                        awaiting: None,
                        parts: BTreeMap::new(),
                        merged: BTreeMap::new(),
                        hourly: BTreeMap::new(),
                        condensed: BTreeMap::new(),
                        expired_before: i64::MIN,
                        since: None,
                        late: late::Kept::default(),
                        told: Vec::new(),
                    },
                );
                true
            }
        }
    }

    /// Forgets a release.
    pub fn forget(&mut self, uid: &str) {
        self.releases.remove(uid);
    }

    /// Whether no release is tracked.
    pub fn is_unused(&self) -> bool {
        self.releases.is_empty()
    }

    /// When this namespace is to be polled next; `None` while a poll is under way.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        if self.polling || self.releases.is_empty() {
            return None;
        }
        let Some(last) = self.last_poll else {
            return Some(now);
        };
        let awaiting = self
            .releases
            .values()
            .filter_map(|r| r.awaiting)
            .map(|since| {
                if now.duration_since(since) < EAGER_FOR {
                    last + EAGER
                } else {
                    last + PATIENT
                }
            })
            .min();
        let measure = self.last_measured.unwrap_or(last) + self.interval();
        let hurried = self.hurried.then_some(last + EAGER);
        let concerned = self.concerned.map(|after| last + after);
        [awaiting, hurried, concerned, Some(measure)]
            .into_iter()
            .flatten()
            .min()
    }

    fn interval(&self) -> Duration {
        self.releases
            .values()
            .filter_map(|r| r.interest.interval)
            .map(|interval| interval.max(Duration::from_secs(1)))
            .min()
            .unwrap_or(IDLE)
            .min(IDLE)
    }

    /// Begins a poll.
    pub fn begin(&mut self, now: Instant) -> Due {
        self.polling = true;
        self.hurried = false;
        self.last_poll = Some(now);
        let due = self.from_start
            || self
                .last_measured
                .is_none_or(|last| now.duration_since(last) >= self.interval());
        if due {
            self.last_measured = Some(now);
        }
        Due { measure: due }
    }

    /// Asks soon if a ready pod was never asked; true if that is new.
    pub fn hurry(&mut self, pods: &[GatewayPod]) -> bool {
        let unseen = |p: &GatewayPod| {
            p.ready && !p.terminating && p.ip.is_some() && !self.pods.contains_key(&p.uid)
        };
        let hurried = !self.hurried && !self.polling && pods.iter().any(unseen);
        self.hurried |= hurried;
        hurried
    }

    /// The minute from which a pod's buckets are asked for.
    pub fn since(&self, pod: &str) -> i64 {
        match self.pods.get(pod) {
            Some(pod) if !self.from_start => pod.minute.unwrap_or(0),
            _ => 0,
        }
    }

    /// Takes in the answers of a poll, and says who is to be woken.
    pub fn finish(
        &mut self,
        answers: Vec<Answer>,
        due: Due,
        pods: &[GatewayPod],
        now: Instant,
    ) -> Vec<ReleaseKey> {
        self.polling = false;
        if due.measure {
            self.from_start = false;
        }
        self.pods
            .retain(|uid, _| pods.iter().any(|pod| &pod.uid == uid));
        let mut fresh: Vec<String> = Vec::new();
        for answer in answers {
            let pod = self.pods.entry(answer.pod).or_default();
            match answer.epochs {
                Ok(epochs) => {
                    if epochs.process != pod.process {
                        pod.process.clone_from(&epochs.process);
                        (pod.minute, pod.second) = (None, None);
                    }
                    pod.epochs = epochs;
                    pod.unreachable = None;
                }
                Err(sentence) => pod.unreachable = Some(sentence),
            }
            if let Some(buckets) = answer.buckets {
                if buckets.process == pod.process {
                    pod.minute = Some(buckets.minute);
                    pod.second = Some(buckets.second).filter(|s| *s > 0);
                }
                self.take(buckets, &mut fresh);
            }
        }
        self.concerned = self.concern();
        let mut woken = Vec::new();
        for (uid, release) in &mut self.releases {
            let told = gateways(&self.pods, uid, pods);
            let lacking = told
                .iter()
                .any(|g| g.ready && g.epoch.is_none_or(|e| e < release.interest.epoch))
                || !told.iter().any(|g| g.ready);
            release.awaiting = match (lacking, release.awaiting) {
                (false, _) => None,
                (true, None) => Some(now),
                (true, since) => since,
            };
            let news = told != release.told;
            release.told = told;
            if news || fresh.contains(uid) {
                woken.push(release.interest.key.clone());
            }
        }
        // In an order that doesn't depend on how they are kept.
        woken.sort();
        woken
    }

    /// How soon to ask again for what may change by itself.
    fn concern(&self) -> Option<Duration> {
        let reached = self.pods.values().filter(|p| p.unreachable.is_none());
        let served = reached.flat_map(|pod| &pod.epochs.releases);
        let tracked = served.filter(|(uid, _)| self.releases.contains_key(*uid));
        let after = tracked.filter_map(|(_, served)| match (&served.problem, served.looking) {
            (_, true) => Some(PATIENT),
            (Some(_), false) => Some(CONCERNED),
            (None, false) => None,
        });
        after.min()
    }

    fn take(&mut self, buckets: Buckets, fresh: &mut Vec<String>) {
        let begin = buckets.started.max(buckets.minute - MAX_MINUTES);
        for release in self.releases.values_mut() {
            release.since = Some(release.since.map_or(begin, |since| since.min(begin)));
            release.late.began(buckets.late_since);
        }
        for mut bucket in buckets.buckets {
            let Some(release) = self.releases.get_mut(&bucket.release) else {
                continue;
            };
            let uid = bucket.release.clone();
            let final_minute = bucket.minute < buckets.minute;
            let active = release.interest.interval.is_some();
            let late = bucket.late.take();
            if let Some(late) = late.filter(|_| release.interest.keep_late.is_some())
                && release.late.put(&buckets.process, &bucket, *late)
                && (active || final_minute)
            {
                fresh.push(uid.clone());
            }
            // Of such minutes there is nothing else any more.
            if bucket.minute < buckets.minute - MAX_MINUTES {
                continue;
            }
            // In quiet times only whole minutes are news.
            if release.put(&buckets.process, bucket) && (active || final_minute) {
                fresh.push(uid);
            }
        }
        for release in self.releases.values_mut() {
            release.expire(buckets.minute);
        }
    }

    /// The second up to which every ready gateway was read.
    fn second(&self, pods: &[GatewayPod]) -> Option<i64> {
        let ready = pods.iter().filter(|p| p.ready && !p.terminating);
        let read = ready.map(|p| self.pods.get(&p.uid).and_then(|pod| pod.second));
        read.reduce(|a, b| Some(a?.min(b?))).flatten()
    }

    /// What is known of a release.
    pub fn read(&self, uid: &str, pods: &[GatewayPod]) -> ReleaseMeasurements {
        let release = self.releases.get(uid);
        ReleaseMeasurements {
            gateways: gateways(&self.pods, uid, pods),
            buckets: release.map_or_else(Vec::new, |r| {
                let all = r.condensed.values().chain(r.merged.values());
                all.cloned().collect()
            }),
            older: release.map_or_else(Vec::new, |r| r.hourly.values().cloned().collect()),
            final_before: pods
                .iter()
                .filter(|p| p.ready && !p.terminating)
                .filter_map(|p| self.pods.get(&p.uid)?.minute)
                .min(),
            since: release.and_then(|r| r.since),
            late: release.map_or_else(Default::default, |r| r.late.read(self.second(pods))),
            ..ReleaseMeasurements::default()
        }
    }
}

fn gateways(known: &HashMap<String, Pod>, uid: &str, pods: &[GatewayPod]) -> Vec<Gateway> {
    let mut gateways: Vec<Gateway> = pods
        .iter()
        .filter(|pod| !pod.terminating)
        .map(|pod| {
            let seen = known.get(&pod.uid);
            let reached = seen.filter(|p| p.unreachable.is_none());
            let served = reached.and_then(|p| p.epochs.releases.get(uid));
            Gateway {
                pod: pod.name.clone(),
                ready: pod.ready,
                epoch: served.map(|s| s.epoch),
                waiting: served.and_then(|s| s.waiting.clone()),
                problem: served.and_then(|s| s.problem.clone()),
                unreachable: seen.and_then(|p| p.unreachable.clone()),
                log: served.and_then(|s| s.log.clone()),
            }
        })
        .collect();
    gateways.sort_by(|a, b| a.pod.cmp(&b.pod));
    gateways
}

impl Release {
    /// Puts a process's bucket in the place of what was known of it; false if that was the same.
    fn put(&mut self, process: &str, bucket: Bucket) -> bool {
        if bucket.minute < self.expired_before {
            return false;
        }
        let key = (bucket.minute, bucket.epoch, bucket.revision.clone());
        let parts = self.parts.entry(key.clone()).or_default();
        if parts.get(process).is_some_and(|old| **old == bucket) {
            return false;
        }
        parts.insert(process.to_owned(), Arc::new(bucket));
        let mut all = parts.values();
        let Some(first) = all.next() else {
            return false;
        };
        let mut merged = first.clone();
        for part in all {
            let sum = Arc::make_mut(&mut merged);
            sum.merge_counts(part);
            match (&mut sum.features, &part.features) {
                (Some(rows), Some(more)) => {
                    if rows.merge(more).is_err() {
                        sum.traffic.features_unknown += more.rows;
                    }
                }
                (rows @ None, Some(more)) => *rows = Some(more.clone()),
                (_, None) => {}
            }
            if let Some(more) = &part.predictions {
                let rows = sum.predictions.get_or_insert_default();
                if rows.merge(more).is_err() {
                    sum.traffic.predictions_unread += more.rows;
                }
            }
        }
        self.merged.insert(key, merged);
        true
    }

    /// Lets go of minutes that gateways don't keep either; their input rows go into hours where they are wanted. What was counted
    /// during a rollout stays, as one bucket for each revision and epoch: a sequential test must not forget.
    fn expire(&mut self, minute: i64) {
        let oldest = minute - MAX_MINUTES;
        let (keep, active) = (self.interest.keep_late, self.interest.interval.is_some());
        self.late.expire(minute, keep, active);
        self.condense(oldest);
        self.expired_before = self.expired_before.max(oldest);
        let kept = self.merged.split_off(&(oldest, i64::MIN, String::new()));
        self.parts = self.parts.split_off(&(oldest, i64::MIN, String::new()));
        let expired = std::mem::replace(&mut self.merged, kept);
        let Some(keep) = self.interest.keep_features else {
            self.hourly.clear();
            return;
        };
        for ((minute, _, revision), bucket) in expired {
            let hour = minute.div_euclid(60);
            let total = self
                .hourly
                .entry((hour, revision.clone()))
                .or_insert_with(|| {
                    Arc::new(HourlyFeatures {
                        revision,
                        hour,
                        ..HourlyFeatures::default()
                    })
                });
            let total = Arc::make_mut(total);
            total.features_unknown += bucket.traffic.features_unknown;
            if let Some(rows) = &bucket.features
                && total.features.merge(rows).is_err()
            {
                total.features_unknown += rows.rows;
            }
            if let Some(rows) = &bucket.predictions {
                // Columns of a name are of one kind.
                let _ = total.predictions.merge(rows);
            }
        }
        let hours = i64::try_from(keep.as_secs() / 3600).unwrap_or(i64::MAX);
        let oldest = minute.div_euclid(60).saturating_sub(hours + 1);
        self.hourly = self.hourly.split_off(&(oldest, String::new()));
        self.since = self.since.map(|since| since.max(oldest * 60));
    }
}

impl Release {
    /// Adds minutes that are about to expire to what is kept of their epoch, while a rollout goes on; afterwards nothing is kept.
    fn condense(&mut self, oldest: i64) {
        if self.interest.interval.is_none() {
            self.condensed.clear();
            return;
        }
        let ends = (oldest, i64::MIN, String::new());
        for ((_, epoch, revision), bucket) in self.merged.range(..ends) {
            let known = self.condensed.entry((*epoch, revision.clone()));
            let all = Arc::make_mut(known.or_insert_with(|| {
                Arc::new(Bucket {
                    traffic: Traffic::default(),
                    features: None,
                    predictions: None,
                    mirrored: None,
                    late: None,
                    ..Bucket::clone(bucket)
                })
            }));
            all.merge_counts(bucket);
            // Rows of input live in the hours.
            all.traffic.features_unknown = 0;
            all.traffic.features_dropped = 0;
            all.traffic.predictions_unread = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::measure::ReleaseKind;
    use crate::stats::bucket::ServedEpoch;
    use crate::stats::labels::Guess;
    use crate::stats::sketch::{Cell, ColumnKind, RowSketch};

    fn interest(epoch: i64, interval: Option<u64>) -> Interest {
        Interest {
            key: ReleaseKey {
                kind: ReleaseKind::Model,
                namespace: "ns".into(),
                name: "m".into(),
            },
            epoch,
            interval: interval.map(Duration::from_secs),
            keep_features: None,
            keep_late: None,
        }
    }

    fn pod(name: &str, ready: bool) -> GatewayPod {
        GatewayPod {
            name: name.into(),
            uid: format!("uid-{name}"),
            ip: None,
            ready,
            terminating: false,
        }
    }

    fn bucket(minute: i64, requests: u64) -> Bucket {
        let mut rows = RowSketch::new([("temp", ColumnKind::Numeric)]);
        rows.add([("temp", Cell::Number(1.0))]);
        let mut predictions = crate::stats::predictions::empty();
        let guess = Guess {
            said: Some("yes".into()),
            ..Guess::default()
        };
        crate::stats::predictions::add(&mut predictions, &guess, false);
        Bucket {
            predictions: Some(predictions),
            release: "u".into(),
            revision: "r".into(),
            epoch: 1,
            minute,
            traffic: Traffic {
                requests,
                ..Traffic::default()
            },
            features: Some(rows),
            ..Bucket::default()
        }
    }

    fn answer(pod: &str, process: &str, epoch: i64, minute: i64, buckets: Vec<Bucket>) -> Answer {
        let served = ServedEpoch {
            epoch,
            ..ServedEpoch::default()
        };
        Answer {
            pod: format!("uid-{pod}"),
            epochs: Ok(Epochs {
                process: process.into(),
                releases: [("u".to_owned(), served)].into(),
            }),
            buckets: Some(Buckets {
                process: process.into(),
                started: minute,
                minute,
                buckets,
                ..Buckets::default()
            }),
        }
    }

    const ALL: Due = Due { measure: true };

    #[test]
    fn a_new_epoch_is_asked_for_at_once_even_in_quiet_times() {
        let (now, pods) = (Instant::now(), [pod("a", true)]);
        let mut ns = Namespace::default();
        ns.track("u", interest(1, None));
        ns.begin(now);
        ns.finish(vec![answer("a", "p", 1, 100, vec![])], ALL, &pods, now);
        assert!(ns.next(now).unwrap() >= now + IDLE);
        ns.track("u", interest(2, None));
        assert_eq!(ns.next(now), Some(now + EAGER));
    }

    #[test]
    fn what_a_gateway_is_looking_into_is_asked_again_soon_and_a_problem_until_it_is_gone() {
        let (now, pods) = (Instant::now(), [pod("a", true)]);
        let mut ns = Namespace::default();
        ns.track("u", interest(1, None));
        let asked = |ns: &mut Namespace, problem: Option<&str>, looking| {
            let mut said = answer("a", "p", 1, 100, vec![]);
            let served = said.epochs.as_mut().unwrap().releases.get_mut("u").unwrap();
            (served.problem, served.looking) = (problem.map(str::to_owned), looking);
            ns.begin(now);
            ns.finish(vec![said], ALL, &pods, now);
            ns.next(now).unwrap() - now
        };
        assert_eq!(asked(&mut ns, None, true), PATIENT);
        assert_eq!(asked(&mut ns, Some("BackendUnreachable: x"), true), PATIENT);
        assert_eq!(
            asked(&mut ns, Some("BackendUnreachable: x"), false),
            CONCERNED
        );
        assert_eq!(asked(&mut ns, None, false), IDLE);
    }

    #[test]
    fn reading_the_same_bucket_twice_counts_it_once_and_wakes_nobody() {
        let (now, pods) = (Instant::now(), [pod("a", true)]);
        let mut ns = Namespace::default();
        assert!(ns.track("u", interest(1, Some(5))));
        assert!(!ns.track("u", interest(1, Some(5))));
        let woken = ns.finish(
            vec![answer("a", "p", 1, 100, vec![bucket(100, 5)])],
            ALL,
            &pods,
            now,
        );
        assert_eq!(woken.len(), 1);
        let again = ns.finish(
            vec![answer("a", "p", 1, 100, vec![bucket(100, 5)])],
            ALL,
            &pods,
            now,
        );
        assert!(again.is_empty());
        let grown = ns.finish(
            vec![answer("a", "p", 1, 101, vec![bucket(100, 8)])],
            ALL,
            &pods,
            now,
        );
        assert_eq!(grown.len(), 1);
        let live = ns.read("u", &pods);
        assert_eq!(live.traffic("r", 0, 1000).requests, 8);
        assert_eq!((live.final_before, live.since), (Some(101), Some(100)));
    }

    #[test]
    fn processes_are_added_up_and_a_restarted_one_starts_from_nothing() {
        let (now, pods) = (Instant::now(), [pod("a", true), pod("b", true)]);
        let mut ns = Namespace::default();
        ns.track("u", interest(1, Some(5)));
        ns.finish(
            vec![
                answer("a", "p", 1, 100, vec![bucket(100, 5)]),
                answer("b", "q", 1, 100, vec![bucket(100, 7)]),
            ],
            ALL,
            &pods,
            now,
        );
        ns.finish(
            vec![answer("a", "p2", 1, 100, vec![bucket(100, 1)])],
            ALL,
            &pods,
            now,
        );
        let live = ns.read("u", &pods);
        assert_eq!(live.traffic("r", 100, 101).requests, 13);
        assert_eq!(
            live.features("r", 100, 101).rows.map(|rows| rows.rows),
            Some(3)
        );
        assert_eq!(live.predictions("r", 100, 101).rows(), 3);
        // The pod is gone; what it measured stays.
        let one = [pod("b", true)];
        ns.finish(vec![], ALL, &one, now);
        let live = ns.read("u", &one);
        assert_eq!(live.traffic("r", 100, 101).requests, 13);
        assert_eq!(live.gateways.len(), 1);
    }

    #[test]
    fn an_awaited_epoch_is_asked_for_eagerly_and_its_arrival_wakes_the_release() {
        let (now, pods) = (Instant::now(), [pod("a", true)]);
        let mut ns = Namespace::default();
        ns.track("u", interest(2, None));
        assert_eq!(ns.next(now), Some(now));
        let due = ns.begin(now);
        assert_eq!(ns.next(now), None, "a poll is under way");
        ns.finish(vec![answer("a", "p", 1, 100, vec![])], due, &pods, now);
        assert_eq!(ns.next(now), Some(now + EAGER));
        assert!(!ns.read("u", &pods).is_applied(2));
        ns.begin(now);
        let woken = ns.finish(vec![answer("a", "p", 2, 100, vec![])], ALL, &pods, now);
        assert_eq!(woken.len(), 1);
        assert!(ns.read("u", &pods).is_applied(2));
        assert_eq!(ns.next(now), Some(now + IDLE));
    }

    #[test]
    fn a_pod_that_cannot_be_read_says_why_and_its_epoch_is_not_known() {
        let (now, pods) = (Instant::now(), [pod("a", true)]);
        let mut ns = Namespace::default();
        ns.track("u", interest(1, None));
        ns.finish(vec![answer("a", "p", 1, 100, vec![])], ALL, &pods, now);
        let failed = Answer {
            pod: "uid-a".into(),
            epochs: Err("it is blocked".into()),
            buckets: None,
        };
        assert_eq!(ns.finish(vec![failed], ALL, &pods, now).len(), 1);
        let live = ns.read("u", &pods);
        assert_eq!(live.blocked(), Some("it is blocked"));
        assert!(!live.is_applied(1));
    }

    #[test]
    fn old_minutes_go_into_hours_where_a_drift_window_wants_them() {
        let (now, pods) = (Instant::now(), [pod("a", true)]);
        let mut ns = Namespace::default();
        ns.track(
            "u",
            Interest {
                keep_features: Some(Duration::from_secs(86_400)),
                ..interest(1, None)
            },
        );
        ns.finish(
            vec![answer("a", "p", 1, 600, vec![bucket(600, 1)])],
            ALL,
            &pods,
            now,
        );
        ns.finish(
            vec![answer("a", "p", 1, 1000, vec![bucket(999, 1)])],
            ALL,
            &pods,
            now,
        );
        let live = ns.read("u", &pods);
        assert_eq!((live.buckets.len(), live.older.len()), (1, 1));
        assert_eq!(live.features("r", 600, 1000).rows.map(|r| r.rows), Some(2));
        let predictions = live.predictions("r", 600, 1000);
        assert_eq!((predictions.rows(), predictions.minutes), (2, 64));
        assert_eq!(live.features("r", 601, 1000).rows.map(|r| r.rows), Some(1));
        ns.finish(vec![answer("a", "p", 1, 3000, vec![])], ALL, &pods, now);
        assert!(ns.read("u", &pods).older.len() <= 1);
    }

    #[test]
    fn a_rollout_that_outlasts_the_minutes_forgets_nothing() {
        let (now, pods) = (Instant::now(), [pod("a", true)]);
        let mut ns = Namespace::default();
        ns.track("u", interest(1, Some(5)));
        for minute in [600, 601, 800, 1000] {
            let answer = answer("a", "p", 1, minute, vec![bucket(minute, 5)]);
            ns.finish(vec![answer], ALL, &pods, now);
        }
        // What comes again of a minute that is over is counted already.
        let again = answer("a", "p", 1, 1000, vec![bucket(600, 5)]);
        ns.finish(vec![again], ALL, &pods, now);
        let requests = |ns: &Namespace| {
            let live = ns.read("u", &pods);
            let all = live.buckets.iter().map(|b| b.traffic.requests);
            (all.sum::<u64>(), live.buckets.len())
        };
        assert_eq!(requests(&ns), (20, 2));
        ns.track("u", interest(1, None));
        ns.finish(vec![answer("a", "p", 1, 1001, vec![])], ALL, &pods, now);
        assert_eq!(requests(&ns), (5, 1), "no rollout goes on any more");
    }

    #[test]
    fn nothing_tracked_means_nothing_polled() {
        let mut ns = Namespace::default();
        assert_eq!(ns.next(Instant::now()), None);
        ns.track("u", interest(1, None));
        ns.forget("u");
        assert_eq!(ns.next(Instant::now()), None);
    }
}
