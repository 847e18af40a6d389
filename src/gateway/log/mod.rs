//! The payload log: sampled requests and answers as Parquet files in an object store (`spec.monitoring.payloadLog`).
//!
//! Rows come from the thread that looks at bodies anyway, off the request path, and are written to files in memory, one for each release and revision. A
//! complete one is uploaded by a task, one at a time for each release, again after a while if that fails. Memory is bounded: what there is no room for is
//! dropped and counted, so a store that is down costs callers nothing.

pub mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;

use self::rows::{Entry, Open};
use super::{inputs::Rows, predictions::Predicted, table::Release, telemetry::Count};
use crate::{
    api::{
        payload_log::{KEYS, PayloadLog},
        revision::Signature,
    },
    data::{
        self,
        store::{Environment, Folder},
        uri::Uri,
    },
    stats::bucket::CREDENTIALS_MISSING,
};

/// What a gateway reports when the store doesn't take files.
const UNWRITABLE: &str = "LogUnwritable";
/// Bytes of a file in memory, about.
const FILE: usize = 8 << 20;
/// Bytes in memory of one release, and of all: beyond that requests are dropped.
const OF_RELEASE: usize = 24 << 20;
const OF_ALL: usize = 64 << 20;
/// How often it is looked for files that are complete.
const TICK: Duration = Duration::from_millis(200);
/// How long an upload may take …
const UPLOAD: Duration = Duration::from_secs(30);
/// … after which failures it is tried again, twice as long after each, at most so many times,
const AGAIN: Duration = Duration::from_secs(1);
const MOST_DOUBLED: u32 = 6;
/// and for how long a file is kept.
const KEPT: Duration = Duration::from_secs(3600);

/// A request that is to be logged.
#[derive(Clone)]
pub struct Logged {
    /// Its release.
    pub release: Arc<Release>,
    /// How.
    pub log: Arc<PayloadLog>,
    /// What the model takes, where that is known.
    pub signature: Option<Arc<Signature>>,
    /// What is said of it.
    pub entry: Entry,
}

/// The log of a process.
pub struct Log {
    process: String,
    credentials: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By release and revision.
    open: BTreeMap<(Arc<str>, Arc<str>), Writing>,
    complete: VecDeque<Complete>,
    /// By release: bytes in memory.
    bytes: HashMap<Arc<str>, usize>,
    /// Releases of which a file is being uploaded.
    sending: HashSet<Arc<str>>,
    /// By release: why the last upload failed.
    problems: HashMap<Arc<str>, Problem>,
    files: u64,
}

struct Writing {
    release: Arc<Release>,
    log: Arc<PayloadLog>,
    signature: Option<Arc<Signature>>,
    since: Instant,
    time: Timestamp,
    requests: u64,
    rows: Open,
}

/// A file that is to be uploaded.
struct Complete {
    release: Arc<Release>,
    log: Arc<PayloadLog>,
    name: String,
    since: Instant,
    requests: u64,
    bytes: usize,
    content: Content,
}

enum Content {
    Rows(Box<Open>),
    File(Bytes),
}

struct Problem {
    sentence: String,
    failures: u32,
    again: Instant,
}

impl Log {
    /// A log of this process; credentials are files below this directory.
    pub fn new(process: &str, credentials: &Path) -> Arc<Self> {
        Arc::new(Self {
            process: process.to_owned(),
            credentials: credentials.to_owned(),
            state: Mutex::default(),
        })
    }

    /// Uploads what is complete, until the log is gone.
    pub fn start(self: &Arc<Self>) {
        tokio::spawn(watch(Arc::downgrade(self)));
    }

    /// Takes a request, or drops it: there is no room.
    pub fn add(
        &self,
        logged: &Logged,
        revision: &Arc<str>,
        inputs: Option<&Rows<'_>>,
        predicted: Option<&Predicted>,
    ) {
        let release = &logged.release;
        let mut state = self.state();
        let all: usize = state.bytes.values().sum();
        let own = state.bytes.get(&release.uid).copied().unwrap_or(0);
        if own >= OF_RELEASE || all >= OF_ALL {
            return dropped(release, 1);
        }
        let key = (release.uid.clone(), revision.clone());
        let same = |w: &Writing| w.log == logged.log && w.signature == logged.signature;
        if state.open.get(&key).is_some_and(|w| !same(w)) {
            state.complete(&key, &self.process);
        }
        let file = state.open.entry(key.clone()).or_insert_with(|| Writing {
            release: release.clone(),
            log: logged.log.clone(),
            signature: logged.signature.clone(),
            since: Instant::now(),
            time: Timestamp::now(),
            requests: 0,
            rows: Open::new(&logged.log, logged.signature.as_deref()),
        });
        let before = file.rows.bytes();
        let names = (&*release.uid, &**revision);
        if !file.rows.add(names, &logged.entry, inputs, predicted) {
            return dropped(release, 1);
        }
        file.requests += 1;
        let more = file.rows.bytes() - before;
        let is_full = file.rows.rows() >= file.log.max_rows() || file.rows.bytes() >= FILE;
        *state.bytes.entry(release.uid.clone()).or_default() += more;
        if is_full {
            state.complete(&key, &self.process);
        }
    }

    /// Why what is logged of this release doesn't reach the store, as a reason and a sentence.
    pub fn problem(&self, release: &str, log: &PayloadLog) -> Option<String> {
        let known = self
            .state()
            .problems
            .get(release)
            .map(|p| p.sentence.clone());
        known.or_else(|| self.environment(log).err())
    }

    /// Completes every file and waits until all are uploaded, at most so long.
    pub async fn flush(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        loop {
            {
                let mut state = self.state();
                let open: Vec<_> = state.open.keys().cloned().collect();
                for key in open {
                    state.complete(&key, &self.process);
                }
                if state.complete.is_empty() && state.sending.is_empty() {
                    return;
                }
            }
            if Instant::now() >= deadline {
                return tracing::warn!("not all of the payload log could be written");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The variables that the Secret has, as it is mounted now.
    fn environment(&self, log: &PayloadLog) -> Result<Environment, String> {
        let Some(credentials) = &log.credentials else {
            return Ok(Environment::prefixed("PERENNIAL_PAYLOAD_LOG_"));
        };
        let secret = &credentials.secret_name;
        let missing = || {
            format!(
                "{CREDENTIALS_MISSING}: Secret {secret} (spec.monitoring.payloadLog.credentials) isn't mounted here: create it in this namespace with the bucket's keys (for s3:// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), and it will be within a minute"
            )
        };
        // A name of a Secret has no slash and isn't `..`: it can't lead elsewhere.
        if secret.contains('/') || secret == ".." {
            return Err(missing());
        }
        let read = |key: &str| {
            let path = self.credentials.join(secret).join(key);
            Some((key.to_owned(), std::fs::read_to_string(path).ok()?))
        };
        let found: Vec<_> = KEYS.into_iter().filter_map(read).collect();
        match found.is_empty() {
            true => Err(missing()),
            false => Ok(Environment::of(found)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that are to be uploaded now.
    fn due(&self, now: Instant) -> Vec<Complete> {
        let mut state = self.state();
        let is_over = |w: &Writing| now.duration_since(w.since) >= w.log.every();
        let over = state.open.iter().filter(|(_, w)| is_over(w));
        for key in over.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            state.complete(&key, &self.process);
        }
        let mut due = Vec::new();
        for file in std::mem::take(&mut state.complete) {
            let release = file.release.uid.clone();
            if now.duration_since(file.since) >= KEPT {
                state.release(&file);
                dropped(&file.release, file.requests);
                continue;
            }
            let waits = state.problems.get(&release).is_some_and(|p| now < p.again);
            match waits || !state.sending.insert(release) {
                true => state.complete.push_back(file),
                false => due.push(file),
            }
        }
        due
    }

    async fn upload(&self, mut file: Complete) {
        let sent = self.send(&mut file).await;
        let mut state = self.state();
        let release = file.release.uid.clone();
        state.sending.remove(&release);
        match sent {
            Ok(()) => {
                state.release(&file);
                state.problems.remove(&release);
                count(&file.release, Count::Logged, file.requests);
            }
            Err(sentence) => {
                let now = Instant::now();
                let problem = state.problems.entry(release).or_insert_with(|| {
                    tracing::warn!(
                        release = file.release.name,
                        "the payload log waits: {sentence}"
                    );
                    // What was said first, so that the condition stands still.
                    Problem {
                        sentence,
                        failures: 0,
                        again: now,
                    }
                });
                problem.again = now + AGAIN * 2u32.pow(problem.failures.min(MOST_DOUBLED));
                problem.failures += 1;
                state.complete.push_front(file);
            }
        }
    }

    async fn send(&self, file: &mut Complete) -> Result<(), String> {
        let uri = &file.log.uri;
        let unwritable = |e: String| format!("{UNWRITABLE}: {e}");
        let bytes = match &mut file.content {
            Content::File(bytes) => bytes.clone(),
            Content::Rows(rows) => {
                let rows = std::mem::replace(&mut **rows, Open::new(&PayloadLog::default(), None));
                let made = tokio::task::spawn_blocking(move || rows.parquet()).await;
                let made = made.map_err(|e| e.to_string()).and_then(|made| made);
                let bytes = Bytes::from(made.map_err(unwritable)?);
                file.content = Content::File(bytes.clone());
                bytes
            }
        };
        let environment = self.environment(&file.log)?;
        let parsed: Uri = uri
            .parse()
            .map_err(|e: data::Error| unwritable(e.to_string()))?;
        let folder = Folder::open(&parsed, &environment);
        let folder = folder.map_err(|e| unwritable(e.to_string()))?;
        let folder = folder.ok_or_else(|| {
            unwritable(format!(
                "{uri} is no bucket: write s3://…, gs://… or az://…"
            ))
        })?;
        match tokio::time::timeout(UPLOAD, folder.put(&file.name, bytes)).await {
            Ok(done) => done.map_err(|e| unwritable(e.to_string())),
            Err(_) => Err(unwritable(format!(
                "{uri} doesn't take a file in {} s",
                UPLOAD.as_secs()
            ))),
        }
    }
}

impl State {
    /// A file gets no more rows.
    fn complete(&mut self, key: &(Arc<str>, Arc<str>), process: &str) {
        let Some(file) = self.open.remove(key) else {
            return;
        };
        self.files += 1;
        let time = file.time.strftime("%Y-%m-%d/%H%M%S");
        self.complete.push_back(Complete {
            name: format!("{time}-{process}-{}.parquet", self.files),
            since: Instant::now(),
            requests: file.requests,
            bytes: file.rows.bytes(),
            content: Content::Rows(Box::new(file.rows)),
            release: file.release,
            log: file.log,
        });
    }

    /// Its memory is free.
    fn release(&mut self, file: &Complete) {
        if let Some(bytes) = self.bytes.get_mut(&file.release.uid) {
            *bytes = bytes.saturating_sub(file.bytes);
            if *bytes == 0 {
                self.bytes.remove(&file.release.uid);
            }
        }
    }
}

async fn watch(weak: Weak<Log>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(log) = weak.upgrade() else { return };
        for file in log.due(Instant::now()) {
            let log = log.clone();
            tokio::spawn(async move { log.upload(file).await });
        }
    }
}

/// Requests that are not in the log.
pub fn dropped(release: &Release, requests: u64) {
    count(release, Count::LogDropped, requests);
}

fn count(release: &Release, what: Count, requests: u64) {
    // Made with the first request.
    if let Some(meters) = release.meters.get() {
        meters.add(what, requests);
    }
}
