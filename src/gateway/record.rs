//! Live measurements: one-minute buckets in bounded memory, filled in well under a microsecond each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::late::Lates;
use crate::stats::{
    bucket::{Bucket, Buckets, MAX_MINUTES, Used},
    mirror::{Answered, Compared},
    sketch::RowSketch,
};

/// Buckets kept at most, over all releases: the oldest go first.
const MAX_BUCKETS: usize = 20_000;
/// Buckets with input rows kept at most; of older ones the rows go.
const MAX_WITH_ROWS: usize = 2_000;

/// What a request is counted under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// UID of the release.
    pub release: Arc<str>,
    /// Hash of the revision.
    pub revision: Arc<str>,
    /// Epoch under which it was routed.
    pub epoch: i64,
    /// The candidate's weight then.
    pub weight: i32,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The caller's key.
    pub caller: Option<&'a str>,
    /// Whether the revision or its backend failed.
    pub failed: bool,
    /// To the last byte.
    pub latency: Duration,
    /// To the first byte, for prompts.
    pub first_byte: Option<Duration>,
    /// Tokens of prompt and answer, and their cost.
    pub used: Option<Used>,
}

/// What was seen of requests' inputs and of what was predicted from them.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Rows.
    pub rows: Option<RowSketch>,
    /// Requests that were not understood.
    pub unknown: u64,
    /// What answers predicted.
    pub predictions: Option<RowSketch>,
    /// Answers whose predictions weren't read.
    pub unread: u64,
}

/// The measurements of this process.
///
/// Requests and input rows have a lock each: whoever merges sketches must not keep those waiting who answer callers.
pub struct Recorder {
    process: String,
    started: i64,
    buckets: Mutex<State>,
    inputs: Mutex<InputState>,
    late: Mutex<Lates>,
}

#[derive(Default)]
struct InputState {
    minute: i64,
    all: BTreeMap<(i64, Slot), Inputs>,
}

#[derive(Default)]
struct State {
    minute: i64,
    all: BTreeMap<(i64, Slot), Arc<Bucket>>,
}

impl Recorder {
    /// Starts with nothing; `process` names this process.
    pub fn new(process: String) -> Self {
        let started = now();
        Self {
            process,
            started,
            buckets: Mutex::new(State {
                minute: started,
                ..State::default()
            }),
            inputs: Mutex::default(),
            late: Mutex::new(Lates::new(started)),
        }
    }

    /// The name of this process.
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Counts a request.
    pub fn record(&self, slot: &Slot, sample: &Sample<'_>) {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        self.with(slot, |bucket| {
            let traffic = &mut bucket.traffic;
            traffic.record_used(
                sample.caller,
                sample.failed,
                micros(sample.latency),
                sample.first_byte.map(micros),
                sample.used,
            );
        });
    }

    /// Counts a copy of a request under the candidate's slot, by its caller or, without a key, by what tells it from others.
    pub fn record_mirrored(
        &self,
        slot: &Slot,
        (caller, anonymous): (Option<&str>, u64),
        stable: Answered,
        candidate: Answered,
        compared: Option<&Compared>,
    ) {
        self.with(slot, |bucket| {
            let mirrored = bucket.mirrored.get_or_insert_default();
            mirrored.record(caller, anonymous, stable, candidate, compared);
        });
    }

    /// Counts a score from 0 to 1 that a caller, by the hash of its key, gave to an answer under this slot.
    pub fn record_feedback(&self, slot: &Slot, caller: u64, score: f64) {
        self.with(slot, |bucket| {
            bucket.traffic.feedback.add_score(caller, score)
        });
    }

    /// Counts a request whose inputs were not looked at.
    pub fn record_dropped(&self, slot: &Slot) {
        self.with(slot, |bucket| bucket.traffic.features_dropped += 1);
    }

    /// Counts an answer whose predictions weren't read.
    pub fn record_unread(&self, slot: &Slot) {
        self.with(slot, |bucket| bucket.traffic.predictions_unread += 1);
    }

    /// Counts what was seen of inputs and predictions.
    pub fn record_inputs(&self, slot: &Slot, inputs: Inputs) {
        let mut state = self.inputs();
        state.advance(now());
        let minute = state.minute;
        let sum = state.all.entry((minute, slot.clone())).or_default();
        sum.unknown += inputs.unknown;
        match (&mut sum.rows, inputs.rows) {
            (Some(rows), Some(more)) => {
                // Within one revision the signature doesn't change, so neither do columns' kinds.
                if rows.merge(&more).is_err() {
                    sum.unknown += more.rows;
                }
            }
            (rows @ None, more) => *rows = more,
            (_, None) => {}
        }
        sum.unread += inputs.unread;
        if let Some(more) = inputs.predictions {
            // Columns of a name are of one kind.
            let _ = sum.predictions.get_or_insert_default().merge(&more);
        }
    }

    /// Does something with what is kept for late labels.
    pub fn late<T>(&self, then: impl FnOnce(&mut Lates) -> T) -> T {
        let mut lates = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        lates.advance(now());
        then(&mut lates)
    }

    /// The buckets of the minutes from `since`.
    pub fn read(&self, since: i64) -> Buckets {
        let mut state = self.state();
        state.advance(now());
        let minute = state.minute;
        let found: Vec<((i64, Slot), Arc<Bucket>)> = state
            .all
            .iter()
            .filter(|((m, _), _)| *m >= since)
            .map(|(key, bucket)| (key.clone(), bucket.clone()))
            .collect();
        drop(state);
        let mut all: BTreeMap<(i64, Slot), Bucket> = found
            .into_iter()
            .map(|(key, bucket)| (key, (*bucket).clone()))
            .collect();
        let mut inputs = self.inputs();
        inputs.advance(minute);
        for ((m, slot), seen) in inputs.all.iter().filter(|((m, _), _)| *m >= since) {
            let bucket = all
                .entry((*m, slot.clone()))
                .or_insert_with(|| empty(*m, slot));
            bucket.traffic.features_unknown += seen.unknown;
            bucket.features.clone_from(&seen.rows);
            bucket.traffic.predictions_unread += seen.unread;
            bucket.predictions.clone_from(&seen.predictions);
        }
        drop(inputs);
        // What comes after this second is in the next answer.
        let second = unix_second();
        let late_since = self.late(|lates| {
            let (found, late_since) = lates.read(since);
            for ((m, slot), samples) in found {
                let bucket = all
                    .entry((*m, slot.clone()))
                    .or_insert_with(|| empty(*m, slot));
                bucket.late = Some(Box::new(samples.clone()));
            }
            late_since
        });
        Buckets {
            process: self.process.clone(),
            started: self.started,
            minute,
            second,
            late_since,
            buckets: all.into_values().collect(),
        }
    }

    fn with(&self, slot: &Slot, change: impl FnOnce(&mut Bucket)) {
        let mut state = self.state();
        state.advance(now());
        let minute = state.minute;
        let bucket = state
            .all
            .entry((minute, slot.clone()))
            .or_insert_with(|| Arc::new(empty(minute, slot)));
        // Copies only while somebody reads this very bucket.
        change(Arc::make_mut(bucket));
    }

    fn inputs(&self) -> MutexGuard<'_, InputState> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while counting spoils one bucket at most.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn empty(minute: i64, slot: &Slot) -> Bucket {
    Bucket {
        release: slot.release.to_string(),
        revision: slot.revision.to_string(),
        epoch: slot.epoch,
        weight: slot.weight,
        minute,
        ..Bucket::default()
    }
}

impl State {
    /// Goes on to the present minute, never back: buckets before it are final.
    fn advance(&mut self, now: i64) {
        if now <= self.minute {
            return;
        }
        self.minute = now;
        self.all = self.all.split_off(&(now - MAX_MINUTES, first()));
        while self.all.len() > MAX_BUCKETS {
            self.all.pop_first();
        }
    }
}

impl InputState {
    fn advance(&mut self, now: i64) {
        if now <= self.minute {
            return;
        }
        self.minute = now;
        self.all = self.all.split_off(&(now - MAX_MINUTES, first()));
        while self.all.len() > MAX_WITH_ROWS {
            self.all.pop_first();
        }
    }
}

/// Before every other slot.
pub(super) fn first() -> Slot {
    Slot {
        release: "".into(),
        revision: "".into(),
        epoch: i64::MIN,
        weight: 0,
    }
}

/// The present unix minute.
fn now() -> i64 {
    unix_second().div_euclid(60)
}

/// The present unix second.
pub fn unix_second() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot {
            release: "u".into(),
            revision: "r".into(),
            epoch: 1,
            weight: 10,
        }
    }

    fn sample(caller: Option<&str>, failed: bool) -> Sample<'_> {
        Sample {
            caller,
            failed,
            latency: Duration::from_millis(3),
            first_byte: None,
            used: Some(Used {
                prompt: 10,
                completion: 5,
                cost: Some(7),
            }),
        }
    }

    #[test]
    fn requests_are_counted_by_caller_and_those_without_one_apart() {
        let recorder = Recorder::new("p".into());
        for i in 0..10 {
            recorder.record(&slot(), &sample(Some(["a", "b"][i % 2]), i == 0));
        }
        recorder.record(&slot(), &sample(None, true));
        let all = recorder.read(0);
        let mut traffic = crate::stats::bucket::Traffic::default();
        all.buckets.iter().for_each(|b| traffic.merge(&b.traffic));
        assert_eq!((traffic.requests, traffic.errors), (11, 2));
        assert_eq!(
            (
                traffic.callers.callers(),
                traffic.unkeyed,
                traffic.unkeyed_errors
            ),
            (2, 1, 1)
        );
        assert_eq!((traffic.with_usage, traffic.prompt_tokens), (11, 110));
        // One request of each caller, and those without a key.
        assert_eq!(traffic.caller_tokens.count(), 3);
        assert_eq!(traffic.caller_costs.sum(), 21);
        assert!(recorder.read(all.minute + 1).buckets.is_empty());
    }

    #[test]
    fn memory_is_bounded_in_minutes_and_in_buckets() {
        let (mut state, mut inputs) = (State::default(), InputState::default());
        for minute in 0..=400 {
            state.advance(minute);
            inputs.advance(minute);
            for release in 0..100 {
                let slot = Slot {
                    release: format!("{release}").as_str().into(),
                    ..slot()
                };
                let bucket = empty(minute, &slot);
                state.all.insert((minute, slot.clone()), Arc::new(bucket));
                inputs.all.insert((minute, slot), Inputs::default());
            }
        }
        state.advance(401);
        inputs.advance(401);
        let oldest = state.all.first_key_value().map(|((minute, _), _)| *minute);
        assert_eq!(oldest, Some(401 - MAX_MINUTES));
        assert!(state.all.len() <= MAX_BUCKETS);
        assert_eq!(inputs.all.len(), MAX_WITH_ROWS);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_reopen_a_minute() {
        let mut state = State::default();
        state.advance(100);
        state.advance(90);
        assert_eq!(state.minute, 100);
    }
}
