//! What is read of Open Inference Protocol requests and answers, off the request path: input rows by name, as pandas-style columns, or as one 2-D
//! tensor in the signature's order; and predictions that labels are awaited for.

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
    late,
    record::{Inputs, Recorder, Slot},
};
use crate::{
    api::revision::Signature,
    stats::{
        labels::Prediction,
        sketch::{Cell, ColumnKind, RowSketch},
    },
};

/// Longer bodies aren't looked at.
pub const MAX_BODY: usize = 1 << 20;
/// Requests that may wait to be looked at, and their bytes.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: usize = 32 << 20;
/// Rows of one request that are looked at.
const MAX_ROWS: usize = 100_000;
/// Requests that are summed up before they go into the bucket, and how long that may take.
const BATCH: usize = 256;
const BATCH_TIME: Duration = Duration::from_millis(20);

/// A body to look at.
pub struct Job {
    /// Where it counts.
    pub slot: Slot,
    /// Which one it is.
    pub what: What,
    /// The body in pieces; empty: it was too long, or is none that can be read.
    pub body: Vec<Bytes>,
}

/// What is looked at.
#[derive(Clone)]
pub enum What {
    /// A request's inputs; what the model takes, where that is known.
    Inputs(Option<Arc<Signature>>),
    /// An answer: its id, its caller, and the unix second of its end.
    Predictions(Asked, i64),
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

impl Features {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(recorder: Arc<Recorder>) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(MAX_WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let (counter, sink) = (waiting.clone(), recorder.clone());
        std::thread::Builder::new()
            .name("features".into())
            .spawn(move || work(&jobs, &counter, &sink))?;
        Ok(Self {
            queue,
            waiting,
            recorder,
        })
    }

    /// Gives a request to be looked at, never waiting. False: it is dropped, and counted as such.
    pub fn offer(&self, job: Job) -> bool {
        let size: usize = job.body.iter().map(Bytes::len).sum();
        let (slot, what) = (job.slot.clone(), job.what.clone());
        let fits = self.waiting.fetch_add(size, Ordering::Relaxed) + size <= MAX_WAITING_BYTES;
        if fits && !job.body.is_empty() {
            match self.queue.try_send(job) {
                Ok(()) => return true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
        self.waiting.fetch_sub(size, Ordering::Relaxed);
        match what {
            What::Inputs(_) => self.recorder.record_dropped(&slot),
            What::Predictions(..) => self.recorder.late(|lates| lates.unread(&slot)),
        }
        false
    }
}

fn work(jobs: &Receiver<Job>, waiting: &AtomicUsize, recorder: &Recorder) {
    while let Ok(first) = jobs.recv() {
        let mut sums: HashMap<Slot, Inputs> = HashMap::new();
        let deadline = Instant::now() + BATCH_TIME;
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(job) = next {
            let size: usize = job.body.iter().map(Bytes::len).sum();
            waiting.fetch_sub(size, Ordering::Relaxed);
            match &job.what {
                What::Inputs(signature) => {
                    let sum = sums.entry(job.slot.clone()).or_default();
                    let understood = signature.as_ref().and_then(|signature| {
                        let sketch = sum.rows.get_or_insert_with(|| empty(signature));
                        add_rows(sketch, &job.body.concat(), signature)
                    });
                    sum.unknown += u64::from(understood.is_none());
                }
                What::Predictions(asked, at) => {
                    let rows = late::guesses(&job.body.concat());
                    recorder.late(|lates| match rows {
                        Some(rows) => lates.predicted(
                            &job.slot,
                            Prediction {
                                id: asked.id,
                                caller: asked.caller,
                                at: *at,
                                rows,
                            },
                        ),
                        None => lates.unread(&job.slot),
                    });
                }
            }
            taken += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            next = (taken < BATCH)
                .then(|| jobs.recv_timeout(left).ok())
                .flatten();
        }
        for (slot, mut inputs) in sums {
            inputs.rows = inputs.rows.filter(|rows| rows.rows > 0);
            recorder.record_inputs(&slot, inputs);
        }
    }
}

/// A sketch of no rows yet.
fn empty(signature: &Signature) -> RowSketch {
    let columns = signature.features.iter();
    RowSketch::new(columns.map(|f| (f.name.as_str(), kind(&f.kind))))
}

/// How a feature of the signature is compared.
fn kind(feature_type: &str) -> ColumnKind {
    match feature_type {
        "Number" => ColumnKind::Numeric,
        _ => ColumnKind::Categorical,
    }
}

/// Adds the rows of a request body; `None`: not understood (`FeaturesUnknown`), and nothing was added.
pub fn add_rows(sketch: &mut RowSketch, body: &[u8], signature: &Signature) -> Option<()> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let inputs = body.get("inputs")?.as_array()?;
    let known = |name: &str| signature.features.iter().any(|f| f.name == name);
    let tensors: Vec<Tensor<'_>> = inputs.iter().map(Tensor::of).collect::<Option<_>>()?;
    if tensors.iter().any(|t| known(t.name)) {
        let n = tensors.iter().map(|t| t.rows).max()?;
        // Columns of different lengths are no table.
        if n > MAX_ROWS || tensors.iter().any(|t| t.rows != n || t.width() != 1) {
            return None;
        }
        for row in 0..n {
            sketch.add(tensors.iter().map(|t| (t.name, t.cell(row))));
        }
        return Some(());
    }
    match tensors.as_slice() {
        [matrix] if matrix.width() == signature.features.len() && matrix.rows <= MAX_ROWS => {
            let width = matrix.width();
            for row in 0..matrix.rows {
                let cells = signature.features.iter().enumerate();
                sketch.add(cells.map(|(i, f)| (f.name.as_str(), matrix.cell(row * width + i))));
            }
            Some(())
        }
        _ => None,
    }
}

/// An input tensor: `[n]`, `[n, 1]` or `[n, width]`.
struct Tensor<'a> {
    name: &'a str,
    rows: usize,
    values: Vec<&'a Value>,
}

impl<'a> Tensor<'a> {
    fn of(input: &'a Value) -> Option<Self> {
        let name = input.get("name")?.as_str()?;
        let shape: Vec<usize> = input
            .get("shape")?
            .as_array()?
            .iter()
            .map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()))
            .collect::<Option<_>>()?;
        let mut values = Vec::new();
        flatten(input.get("data")?, &mut values, 0)?;
        let rows = *shape.first()?;
        let size = shape
            .iter()
            .try_fold(1usize, |product, n| product.checked_mul(*n))?;
        (shape.len() <= 2 && size == values.len() && rows > 0).then_some(Self {
            name,
            rows,
            values,
        })
    }

    fn width(&self) -> usize {
        self.values.len() / self.rows
    }

    fn cell(&self, i: usize) -> Cell<'a> {
        match self.values.get(i) {
            Some(Value::Bool(b)) => Cell::Bool(*b),
            Some(Value::Number(n)) => Cell::Number(n.as_f64().unwrap_or(f64::NAN)),
            Some(Value::String(text)) => Cell::Text(text),
            _ => Cell::Null,
        }
    }
}

/// Data may be flat or nested as the shape says.
fn flatten<'a>(data: &'a Value, values: &mut Vec<&'a Value>, depth: usize) -> Option<()> {
    match data {
        Value::Array(items) if depth <= 2 => items
            .iter()
            .try_for_each(|item| flatten(item, values, depth + 1)),
        Value::Array(_) | Value::Object(_) => None,
        value => {
            values.push(value);
            Some(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::revision::Feature;
    use serde_json::json;

    fn signature() -> Signature {
        let feature = |name: &str, kind: &str| Feature {
            name: name.into(),
            kind: kind.into(),
        };
        Signature {
            features: vec![
                feature("temp", "Number"),
                feature("carrier", "String"),
                feature("late", "Boolean"),
            ],
            label: None,
        }
    }

    fn rows(body: &[u8]) -> Option<RowSketch> {
        let mut sketch = empty(&signature());
        let added = add_rows(&mut sketch, body, &signature());
        assert!(added.is_some() || sketch == empty(&signature()));
        added.map(|()| sketch)
    }

    fn read(inputs: Value) -> Option<RowSketch> {
        rows(json!({"inputs": inputs}).to_string().as_bytes())
    }

    fn counts(sketch: &RowSketch) -> (u64, Vec<u64>) {
        (
            sketch.rows,
            ["temp", "carrier", "late"]
                .map(|c| sketch.columns[c].samples())
                .to_vec(),
        )
    }

    #[test]
    fn inputs_are_taken_by_name_flat_or_nested() {
        let sketch = read(json!([
            {"name": "temp", "shape": [3], "datatype": "FP64", "data": [1.5, null, 3]},
            {"name": "carrier", "shape": [3, 1], "datatype": "BYTES", "data": [["UA"], ["AA"], ["UA"]]},
            {"name": "late", "shape": [3], "datatype": "BOOL", "data": [true, false, true]},
            {"name": "surprise", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]},
        ])).unwrap();
        assert_eq!(counts(&sketch), (3, vec![2, 3, 3]));
        assert_eq!(sketch.columns["temp"].nulls(), 1);
        assert_eq!(sketch.unknown["surprise"], 3);
    }

    #[test]
    fn one_unnamed_matrix_is_taken_in_the_signatures_order() {
        let sketch = read(json!([{"name": "input-0", "shape": [2, 3], "datatype": "FP32", "data": [1.0, 7, 0, 2.0, 8, 1]}])).unwrap();
        assert_eq!(counts(&sketch), (2, vec![2, 2, 2]));
        let nested = read(json!([{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[1.0, 7, 0], [2.0, 8, 1]]}])).unwrap();
        assert_eq!(nested, sketch);
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        for (why, inputs) in [
            (
                "another width",
                json!([{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]),
            ),
            (
                "shape and data differ",
                json!([{"name": "temp", "shape": [3], "datatype": "FP32", "data": [1, 2]}]),
            ),
            (
                "columns of different lengths",
                json!([{"name": "temp", "shape": [1], "data": [1]}, {"name": "carrier", "shape": [2], "data": ["a", "b"]}]),
            ),
            (
                "binary data",
                json!([{"name": "temp", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]),
            ),
            (
                "three dimensions",
                json!([{"name": "x", "shape": [1, 1, 3], "data": [[[1, 2, 3]]]}]),
            ),
            (
                "an overflow",
                json!([{"name": "x", "shape": [9_223_372_036_854_775_807u64, 9_223_372_036_854_775_807u64], "data": []}]),
            ),
            (
                "no rows",
                json!([{"name": "temp", "shape": [0], "data": []}]),
            ),
        ] {
            assert!(read(inputs).is_none(), "{why}");
        }
        assert!(rows(b"not json").is_none());
    }

    #[test]
    fn requests_are_looked_at_off_the_path_and_counted_where_they_belong() {
        let recorder = Arc::new(Recorder::new("p".into()));
        let features = Features::start(recorder.clone()).unwrap();
        let slot = Slot {
            release: "u".into(),
            revision: "r".into(),
            epoch: 1,
            weight: 0,
        };
        let body = json!({"inputs": [{"name": "temp", "shape": [2], "data": [1, 2]}]}).to_string();
        let job = |signature: Option<Signature>, body: Vec<Bytes>| Job {
            slot: slot.clone(),
            what: What::Inputs(signature.map(Arc::new)),
            body,
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
