//! Open Inference Protocol requests and answers are looked at here, off the request path: inputs and predictions are sketched, kept for labels that are
//! awaited, and logged.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;

use super::{
    inputs::{self, Rows},
    log::{self, Log, Logged},
    predictions::{self, Predicted},
    record::{self, Recorder, Slot},
    tensors::{self, Form, Side},
};
use crate::{
    api::revision::Signature,
    stats::{self, labels::Prediction},
};

/// Longer bodies aren't looked at.
pub const MAX_BODY: usize = 1 << 20;
/// Requests that may wait to be looked at, and their bytes.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: usize = 32 << 20;
/// What a request that is logged counts for beside its bodies.
const LOGGED: usize = 512;
/// Requests that are summed up before they go into the bucket, and how long that may take.
const BATCH: usize = 256;
const BATCH_TIME: Duration = Duration::from_millis(20);

/// A request and its answer to look at.
#[derive(Clone)]
pub struct Job {
    /// Where it counts.
    pub slot: Slot,
    /// The inputs, unless they were refused or are none.
    pub inputs: Option<Inputs>,
    /// The answer, where it predicts something.
    pub answer: Option<Answer>,
    /// If it is in the payload log.
    pub logged: Option<Logged>,
}

/// A request's body.
#[derive(Clone)]
pub struct Inputs {
    /// What the model takes, where that is known.
    pub signature: Option<Arc<Signature>>,
    /// How it says what it says.
    pub form: Form,
    /// The body in pieces; empty: it was too long, or is none that can be read.
    pub body: Vec<Bytes>,
}

/// An answer's body.
#[derive(Clone)]
pub struct Answer {
    /// If labels are awaited for it: which one it is, and the unix second of its end.
    pub asked: Option<(Asked, i64)>,
    /// How it says what it says.
    pub form: Form,
    /// The body in pieces; empty: it was too long, or is none that can be read.
    pub body: Vec<Bytes>,
}

impl Job {
    fn size(&self) -> usize {
        let inputs = self.inputs.iter().flat_map(|i| &i.body);
        let answer = self.answer.iter().flat_map(|a| &a.body);
        let bodies: usize = inputs.chain(answer).map(Bytes::len).sum();
        bodies + self.logged.as_ref().map_or(0, |_| LOGGED)
    }
}

/// An answer whose predictions are in the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its id, among all of the release.
    pub id: u64,
    /// Hash of the caller's key; of something unique, without one.
    pub caller: u64,
}

/// Gives requests to the thread that looks at them.
pub struct Features {
    queue: SyncSender<Job>,
    waiting: Arc<AtomicUsize>,
    recorder: Arc<Recorder>,
}

/// What the thread gives what it has seen to.
struct Sinks {
    recorder: Arc<Recorder>,
    log: Arc<Log>,
}

impl Features {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(recorder: Arc<Recorder>, log: Arc<Log>) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(MAX_WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let sinks = Sinks {
            recorder: recorder.clone(),
            log,
        };
        let counter = waiting.clone();
        std::thread::Builder::new()
            .name("features".into())
            .spawn(move || work(&jobs, &counter, &sinks))?;
        Ok(Self {
            queue,
            waiting,
            recorder,
        })
    }

    /// Gives a request and its answer to be looked at, never waiting; what there is no room for, and what is no body, is dropped and counted as such.
    /// False: that is so of the inputs.
    pub fn offer(&self, mut job: Job) -> bool {
        let unread = job.answer.take_if(|answer| answer.body.is_empty());
        let dropped = job.inputs.take_if(|inputs| inputs.body.is_empty());
        self.give_up(&job.slot, dropped.as_ref(), unread.as_ref());
        let (whole, size) = (dropped.is_none(), job.size());
        if size == 0 {
            return whole;
        }
        let fits = self.waiting.fetch_add(size, Ordering::Relaxed) + size <= MAX_WAITING_BYTES;
        let left = match fits {
            true => self.queue.try_send(job).err().map(|e| match e {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
            }),
            false => Some(job),
        };
        let Some(job) = left else { return whole };
        self.waiting.fetch_sub(size, Ordering::Relaxed);
        self.give_up(&job.slot, job.inputs.as_ref(), job.answer.as_ref());
        if let Some(logged) = &job.logged {
            log::dropped(&logged.release, 1);
        }
        whole && job.inputs.is_none()
    }

    /// Whether all that was offered was looked at.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    fn give_up(&self, slot: &Slot, inputs: Option<&Inputs>, answer: Option<&Answer>) {
        if inputs.is_some() {
            self.recorder.record_dropped(slot);
        }
        if let Some(answer) = answer {
            self.recorder.record_unread(slot);
            if answer.asked.is_some() {
                self.recorder.late(|lates| lates.unread(slot));
            }
        }
    }
}

fn work(jobs: &Receiver<Job>, waiting: &AtomicUsize, sinks: &Sinks) {
    while let Ok(first) = jobs.recv() {
        let mut sums: HashMap<Slot, record::Inputs> = HashMap::new();
        let deadline = Instant::now() + BATCH_TIME;
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(job) = next {
            look(&job, sums.entry(job.slot.clone()).or_default(), sinks);
            waiting.fetch_sub(job.size(), Ordering::Relaxed);
            taken += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            next = (taken < BATCH)
                .then(|| jobs.recv_timeout(left).ok())
                .flatten();
        }
        for (slot, mut inputs) in sums {
            inputs.rows = inputs.rows.filter(|rows| rows.rows > 0);
            if let Some(rows) = &mut inputs.predictions {
                rows.columns.retain(|_, column| column.samples() > 0);
            }
            sinks.recorder.record_inputs(&slot, inputs);
        }
    }
}

fn look(job: &Job, sum: &mut record::Inputs, sinks: &Sinks) {
    let signature = job.inputs.as_ref().and_then(|i| i.signature.as_ref());
    let body: Option<Value> = job
        .inputs
        .as_ref()
        .filter(|_| signature.is_some())
        .and_then(|inputs| tensors::read(&inputs.body.concat(), inputs.form, Side::Request));
    let rows = signature
        .zip(body.as_ref())
        .and_then(|(signature, body)| Rows::of(body, signature));
    match (&rows, signature) {
        (Some(rows), Some(signature)) => {
            rows.sketch(sum.rows.get_or_insert_with(|| inputs::empty(signature)));
        }
        _ => sum.unknown += u64::from(job.inputs.is_some()),
    }
    let answer = job.answer.as_ref();
    let predicted = answer
        .and_then(|answer| tensors::read(&answer.body.concat(), answer.form, Side::Answer))
        .and_then(|answer| predictions::of(&answer));
    match &predicted {
        Some(predicted) => predicted.sketch(
            sum.predictions
                .get_or_insert_with(stats::predictions::empty),
        ),
        None => sum.unread += u64::from(answer.is_some()),
    }
    if let Some(logged) = &job.logged {
        let revision = &job.slot.revision;
        sinks
            .log
            .add(logged, revision, rows.as_ref(), predicted.as_ref());
    }
    if let Some((asked, at)) = answer.and_then(|answer| answer.asked) {
        await_label(&sinks.recorder, &job.slot, asked, at, predicted);
    }
}

/// Keeps what an answer predicts, for the label that may come.
fn await_label(
    recorder: &Recorder,
    slot: &Slot,
    asked: Asked,
    at: i64,
    predicted: Option<Predicted>,
) {
    let rows = predicted.and_then(Predicted::sampled);
    recorder.late(|lates| match rows {
        Some(rows) => lates.predicted(
            slot,
            Prediction {
                id: asked.id,
                caller: asked.caller,
                at,
                rows,
            },
        ),
        None => lates.unread(slot),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_looked_at_off_the_path_and_counted_where_they_belong() {
        let recorder = Arc::new(Recorder::new("p".into()));
        let log = Log::new("p", std::path::Path::new("/nowhere"));
        let features = Features::start(recorder.clone(), log).unwrap();
        let slot = Slot {
            release: "u".into(),
            revision: "r".into(),
            epoch: 1,
            weight: 0,
        };
        let signature = || -> Signature {
            let features = json!([{"name": "temp", "type": "Number"}]);
            serde_json::from_value(json!({ "features": features })).unwrap()
        };
        let body = json!({"inputs": [{"name": "temp", "shape": [2], "data": [1, 2]}]}).to_string();
        let job = |signature: Option<Signature>, body: Vec<Bytes>| Job {
            slot: slot.clone(),
            inputs: Some(Inputs {
                signature: signature.map(Arc::new),
                form: Form::Json,
                body,
            }),
            answer: None,
            logged: None,
        };
        assert!(features.offer(job(Some(signature()), vec![body.clone().into()])));
        assert!(features.offer(job(None, vec![body.into()])));
        assert!(!features.offer(job(Some(signature()), vec![])), "too long");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        loop {
            let all = recorder.read(0).buckets;
            let sum =
                |f: &dyn Fn(&crate::stats::bucket::Bucket) -> u64| all.iter().map(f).sum::<u64>();
            let seen = (
                sum(&|b| b.features.as_ref().map_or(0, |r| r.rows)),
                sum(&|b| b.traffic.features_unknown),
                sum(&|b| b.traffic.features_dropped),
            );
            if seen == (2, 1, 1) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{seen:?}");
            std::thread::yield_now();
        }
    }
}
