//! Open Inference Protocol requests and answers are looked at here, off the request path: input rows by name, as pandas-style columns, or as one 2-D
//! tensor in the signature's order; and what is predicted. Both are sketched, kept for labels that are awaited, and logged.

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
    log::{self, Log, Logged},
    predictions::{self, Predicted},
    record::{self, Recorder, Slot},
    tensors::{self, Form, Side},
};
use crate::{
    api::revision::Signature,
    stats::{
        self,
        labels::Prediction,
        sketch::{Cell, ColumnKind, RowSketch},
    },
};

/// Longer bodies aren't looked at.
pub const MAX_BODY: usize = 1 << 20;
/// Requests that may wait to be looked at, and their bytes.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: usize = 32 << 20;
/// What a request that is logged counts for beside its bodies.
const LOGGED: usize = 512;
/// Rows of one request that are looked at.
const MAX_ROWS: usize = 100_000;
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
            rows.sketch(sum.rows.get_or_insert_with(|| empty(signature)));
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
    Rows::of(&body, signature)?.sketch(sketch);
    Some(())
}

/// The rows of a request.
pub enum Rows<'a> {
    /// Columns by name, all of one length, some of which the signature may not have.
    Named(Vec<Tensor<'a>>),
    /// One tensor, in the signature's order.
    Matrix(Tensor<'a>, &'a Signature),
}

impl<'a> Rows<'a> {
    /// Reads them; `None`: not understood.
    pub fn of(body: &'a Value, signature: &'a Signature) -> Option<Self> {
        let inputs = body.get("inputs")?.as_array()?;
        let known = |name: &str| signature.features.iter().any(|f| f.name == name);
        let mut tensors: Vec<Tensor<'_>> = inputs.iter().map(Tensor::of).collect::<Option<_>>()?;
        let rows = tensors.iter().map(|t| t.rows).max()?;
        if rows > MAX_ROWS {
            return None;
        }
        if tensors.iter().any(|t| known(t.name)) {
            // Columns of different lengths are no table.
            let is_column = |t: &Tensor<'_>| t.rows == rows && t.width() == 1;
            return tensors
                .iter()
                .all(is_column)
                .then_some(Self::Named(tensors));
        }
        let matrix = tensors.pop()?;
        let fits = tensors.is_empty() && matrix.width() == signature.features.len();
        fits.then_some(Self::Matrix(matrix, signature))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Named(tensors) => tensors.first().map_or(0, |t| t.rows),
            Self::Matrix(matrix, _) => matrix.rows,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A feature's value.
    pub fn cell(&self, feature: &str, row: usize) -> Cell<'a> {
        match self {
            Self::Named(tensors) => {
                let tensor = tensors.iter().find(|t| t.name == feature);
                tensor.map_or(Cell::Null, |t| t.cell(row))
            }
            Self::Matrix(matrix, signature) => {
                let at = signature.features.iter().position(|f| f.name == feature);
                at.map_or(Cell::Null, |i| matrix.cell(row * matrix.width() + i))
            }
        }
    }

    fn sketch(&self, sketch: &mut RowSketch) {
        for row in 0..self.len() {
            match self {
                Self::Named(tensors) => sketch.add(tensors.iter().map(|t| (t.name, t.cell(row)))),
                Self::Matrix(matrix, signature) => {
                    let (width, cells) = (matrix.width(), signature.features.iter().enumerate());
                    sketch.add(cells.map(|(i, f)| (f.name.as_str(), matrix.cell(row * width + i))));
                }
            }
        }
    }
}

/// An input tensor: `[n]`, `[n, 1]` or `[n, width]`.
pub struct Tensor<'a> {
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
        let log = Log::new("p", std::path::Path::new("/nowhere"));
        let features = Features::start(recorder.clone(), log).unwrap();
        let slot = Slot {
            release: "u".into(),
            revision: "r".into(),
            epoch: 1,
            weight: 0,
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
