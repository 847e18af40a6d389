//! One world: the API server, what happens next, and what goes wrong. Everything random comes from the life's seed.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use perennial::{
    cluster::{Key, Kind},
    stats::random::Generator,
};
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use crate::{
    api::{Api, Commit, Who, text},
    check::Check,
    cluster::Cluster,
    faults::{Fault, Faults},
    gateway::Gateways,
};

/// The one namespace.
pub const NAMESPACE: &str = "ml";
/// When every life begins.
const BEGIN: &str = "2026-03-02T09:00:00Z";

thread_local! {
    /// When this thread's life began, and the operator's clock then, with what it was put forward or back since, in milliseconds.
    static CLOCK: Cell<Option<(Instant, i64)>> = const { Cell::new(None) };
}

/// The operator's clock, which faults put forward and back.
pub fn wall() -> Timestamp {
    let Some((start, offset)) = CLOCK.get() else {
        return Timestamp::UNIX_EPOCH;
    };
    let passed = i64::try_from(start.elapsed().as_millis()).unwrap_or(0);
    Timestamp::from_millisecond(offset + passed).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What happens at some time.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The watch of a kind brings what there is, to this process.
    Deliver(u64, Kind),
    /// The watch of a kind lists anew, for this process.
    Relist(u64, Kind),
    /// The operator starts again.
    Restart,
    /// A Deployment's controller and its pods go on.
    Server(Key),
    /// A Job's pod goes on.
    Job(String, u8),
    /// A gateway pod (by uid) goes on: becomes ready, takes over a release's routing.
    GatewayPod(String),
    /// A gateway pod reads a release.
    Learn(String, Kind, Key),
    /// Endpoints of the release's Service change.
    Endpoints,
    /// The garbage collector looks for orphans.
    Collect,
    /// Something goes wrong in the cluster.
    Trouble,
}

/// Everything.
pub struct World {
    pub api: Api,
    pub cluster: Cluster,
    pub gateways: Gateways,
    pub faults: Faults,
    pub check: Check,
    pub random: Generator,
    start: Instant,
    /// What the operator's clock is ahead of the cluster's, in milliseconds.
    pub skew: i64,
    /// The most that it ever was.
    pub furthest: i64,
    agenda: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    /// Kinds for which a delivery is on its way.
    pub delivering: BTreeMap<Kind, u64>,
    /// Number of the process that runs now.
    pub process: u64,
    pub running: bool,
    pub notify: Arc<Notify>,
    /// Virtual milliseconds of the last write of the operator, and how many there were.
    pub last_write: u64,
    pub writes: u64,
    /// Of those, only for newer numbers.
    pub refreshes: u64,
    /// Events that watches brought.
    pub events: u64,
    /// Edits by [`crate::faults::Race`], writes refused for them, and objects of which one was, since their last edit.
    pub edits: u64,
    pub conflicts: u64,
    pub refused: BTreeSet<String>,
    /// What the operator wrote since this was last emptied, for messages.
    pub written: Vec<String>,
    /// One object for each kind of status that was written, where that is asked for.
    pub samples: BTreeMap<String, Value>,
    /// The first thing that must not be.
    pub violation: Option<String>,
    pub trace: Option<String>,
}

/// A shared handle.
#[derive(Clone)]
pub struct Sim(pub Arc<Mutex<World>>);

impl Sim {
    pub fn new(seed: u64, faults: Faults, traced: bool) -> Self {
        let start = Instant::now();
        let begin: Timestamp = BEGIN.parse().expect("a constant");
        CLOCK.set(Some((start, begin.as_millisecond())));
        Self(Arc::new(Mutex::new(World {
            api: Api::new(begin, seed),
            cluster: Cluster::default(),
            gateways: Gateways::new(seed),
            faults,
            check: Check::default(),
            random: Generator::new(seed ^ 0x51),
            start,
            skew: 0,
            furthest: 0,
            agenda: BTreeMap::new(),
            sequence: 0,
            delivering: BTreeMap::new(),
            process: 0,
            running: false,
            notify: Arc::new(Notify::new()),
            last_write: 0,
            writes: 0,
            refreshes: 0,
            events: 0,
            edits: 0,
            conflicts: 0,
            refused: BTreeSet::new(),
            written: Vec::new(),
            samples: BTreeMap::new(),
            violation: None,
            trace: traced.then(String::new),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Virtual milliseconds since the life began.
    pub fn ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The cluster's clock.
    pub fn now(&self) -> Timestamp {
        let begin: Timestamp = BEGIN.parse().expect("a constant");
        begin + SignedDuration::from_millis(i64::try_from(self.ms()).unwrap_or(i64::MAX))
    }

    /// Puts the operator's clock so far ahead of the cluster's.
    pub fn set_skew(&mut self, milliseconds: i64) {
        let begin: Timestamp = BEGIN.parse().expect("a constant");
        self.skew = milliseconds;
        self.furthest = self.furthest.max(milliseconds);
        CLOCK.set(Some((self.start, begin.as_millisecond() + milliseconds)));
    }

    /// Something happens after so many milliseconds.
    pub fn after(&mut self, milliseconds: u64, event: Event) {
        self.sequence += 1;
        self.agenda
            .insert((self.ms() + milliseconds, self.sequence), event);
        self.notify.notify_one();
    }

    /// The next thing that is due.
    pub fn due(&mut self) -> Option<Event> {
        let now = self.ms();
        let first = self.agenda.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<u64> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    /// Whether nothing is on its way that the operator hasn't seen.
    pub fn is_seen(&self) -> bool {
        self.running && self.delivering.is_empty()
    }

    /// A line of the trace.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        let ms = self.ms();
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(
                trace,
                "{:>4}:{:02}.{:03}  {}",
                ms / 60_000,
                ms / 1000 % 60,
                ms % 1000,
                line()
            );
        }
    }

    pub fn violated(&mut self, what: String) {
        self.say(|| format!("VIOLATED: {what}"));
        self.violation.get_or_insert(what);
        self.notify.notify_one();
    }

    /// A fault happens (or not), and is counted.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.faults.strikes(fault);
        if strikes {
            self.say(|| format!("  fault: {fault:?}"));
        }
        strikes
    }

    /// Changes something as a user or the cluster does, and lets everything follow.
    pub fn with_api<T>(&mut self, change: impl FnOnce(&mut Api) -> T) -> T {
        self.api.now = self.now();
        let result = change(&mut self.api);
        self.settle();
        result
    }

    /// Looks at what was committed: what must hold, what follows in the cluster, what watches bring.
    fn settle(&mut self) {
        for commit in std::mem::take(&mut self.api.commits) {
            self.say(|| describe(&commit));
            if commit.who == Who::User && commit.kind.is_own() {
                self.refused.clear();
            }
            if self.faults.sampled
                && commit.kind.is_own()
                && let Some(new) = &commit.new
            {
                let mut sample = Value::clone(new);
                sample["kind"] = commit.kind.as_str().into();
                self.samples.entry(sort(&sample)).or_insert(sample);
            }
            if commit.who == Who::Operator {
                if is_refresh(&commit) {
                    self.refreshes += 1;
                } else {
                    self.last_write = self.ms();
                }
            }
            let mut check = std::mem::take(&mut self.check);
            let broken = check.commit(self, &commit);
            self.check = check;
            if let Some(what) = broken {
                self.violated(what);
            }
            crate::cluster::react(self, &commit);
            self.tell(commit.kind);
        }
    }

    /// A watch event of this kind is on its way.
    pub fn tell(&mut self, kind: Kind) {
        if self.delivering.contains_key(&kind) {
            return;
        }
        let late = self.strikes(Fault::Lag);
        let wait = 1
            + self.random.below(20) as u64
            + if late {
                self.faults.below(40_000) as u64
            } else {
                0
            };
        self.delivering.insert(kind, self.ms() + wait);
        let process = self.process;
        self.after(wait, Event::Deliver(process, kind));
    }
}

/// What makes an object's status another one for somebody who only sees conditions.
fn sort(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let conditions = conditions.into_iter().flatten();
    let words =
        conditions.map(|c| [text(c, "/type"), text(c, "/status"), text(c, "/reason")].join(" "));
    [
        text(object, "/kind"),
        text(object, "/status/phase"),
        &words.collect::<Vec<_>>().join(", "),
    ]
    .join(": ")
}

/// Whether a write only brings newer numbers of gates, which is allowed once a minute.
fn is_refresh(commit: &Commit) -> bool {
    let (Some(old), Some(new), "status") = (&commit.old, &commit.new, commit.verb) else {
        return false;
    };
    let rest = |object: &Value| {
        let mut status = object["status"].clone();
        if status["rollout"].is_object() {
            status["rollout"]["gates"] = Value::Null;
            status["rollout"]["measuredTime"] = Value::Null;
        }
        status
    };
    old["status"]["rollout"]["gates"] != new["status"]["rollout"]["gates"] && rest(old) == rest(new)
}

/// One commit as a line.
fn describe(commit: &Commit) -> String {
    let who = match commit.who {
        Who::Operator => "operator",
        Who::Cluster => "cluster ",
        Who::User => "user    ",
    };
    let mut line = format!(
        "{who} {:<6} {} {}",
        commit.verb,
        commit.kind.as_str(),
        commit.key.name
    );
    let Some(new) = &commit.new else {
        return line;
    };
    match commit.kind {
        Kind::ModelDeployment | Kind::PromptRelease if commit.verb == "status" => {
            let status = &new["status"];
            let rollout = &status["rollout"];
            let _ = write!(
                line,
                ": {} step {} weight {} epoch {} stable {} candidate {} \"{}\"",
                text(rollout, "/state"),
                rollout["step"],
                rollout["weight"],
                rollout["epoch"],
                text(status, "/stable/revision"),
                text(status, "/candidate/revision"),
                text(status, "/message"),
            );
            if let Some(firing) = status.pointer("/retraining/firing").and_then(Value::as_i64) {
                let _ = write!(line, " firing {firing}");
            }
        }
        Kind::TrainingJob | Kind::Evaluation if commit.verb == "status" => {
            let _ = write!(
                line,
                ": {}{} \"{}\"",
                text(new, "/status/phase"),
                text(new, "/status/verdict"),
                text(new, "/status/message")
            );
        }
        Kind::Deployment => {
            let _ = write!(
                line,
                ": {} of {} available",
                new.pointer("/status/availableReplicas")
                    .unwrap_or(&Value::Null),
                new["spec"]["replicas"]
            );
        }
        _ => {}
    }
    line
}
