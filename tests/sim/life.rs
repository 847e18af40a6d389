//! A life from its beginning to its end.

use std::{collections::BTreeMap, time::Duration};

use perennial::{
    api::annotation,
    cluster::{Key, Kind},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    api::{Who, text},
    cluster, end,
    faults::{Fault, Faults, Weather},
    gateway,
    process::Process,
    script::{Action, SETTINGS, Script, Shape, Which},
    world::{Event, NAMESPACE, Sim},
};

/// Name of the release and of its model.
pub const NAME: &str = "churn";
/// It must come to rest within so many virtual milliseconds.
const REST: u64 = 60 * 60_000;
/// Without a write of the operator for so long it is quiet.
const QUIET: u64 = 80_000;
/// … and must stay so.
const STILL: u64 = 25 * 60_000;

/// How a life ended.
pub struct Ended {
    pub violation: Option<String>,
    /// What there is at the end.
    pub state: String,
    /// Things that happened, and writes of the operator.
    pub steps: u64,
    /// Virtual milliseconds of the last write, and how many events watches brought.
    pub last_write: u64,
    pub events: u64,
    /// Virtual milliseconds between a last write and what people did next, added up: theirs, not the operator's.
    pub waited: u64,
    /// Edits by [`crate::faults::Race`], and writes that were refused for them.
    pub edits: u64,
    pub conflicts: u64,
    pub faults: Vec<u64>,
    pub trace: String,
    /// How many objects there are of each kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// Kinds of status that were written, and the objects of ours at the end; where that was asked for.
    pub samples: BTreeMap<String, Value>,
    pub resting: Vec<Value>,
}

/// Lives it on a runtime of its own, whose clock goes on only when there is nothing to do.
pub fn live(seed: u64, script: &Script, weather: Weather, traced: bool) -> Ended {
    lived(seed, script, Faults::new(seed, weather), traced, true)
}

/// … with these faults; `quiet`: and watches it at rest.
pub fn lived(seed: u64, script: &Script, faults: Faults, traced: bool, quiet: bool) -> Ended {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let sim = Sim::new(seed, faults, traced);
        let resync = Duration::from_secs(if script.resync { 600 } else { 7 * 86_400 });
        let mut life = Life {
            sim,
            script,
            process: None,
            resync,
            steps: 0,
            waited: 0,
            spec: script.release(),
            before: Value::Null,
            rollout: script.rollout,
            analysis: script.analysis,
        };
        life.whole(quiet).await;
        life.process = None;
        let mut world = life.sim.lock();
        Ended {
            violation: world.violation.take(),
            state: end::state(&world),
            steps: life.steps + world.writes,
            last_write: world.last_write,
            events: world.events,
            waited: life.waited,
            edits: world.edits,
            conflicts: world.conflicts,
            faults: std::mem::take(&mut world.faults.counts),
            trace: world.trace.take().unwrap_or_default(),
            objects: Kind::ALL
                .iter()
                .map(|kind| (kind.as_str(), world.api.all(*kind).count()))
                .collect(),
            samples: std::mem::take(&mut world.samples),
            resting: Kind::ALL
                .iter()
                .filter(|kind| kind.is_own() && world.faults.sampled)
                .flat_map(|kind| world.api.all(*kind).map(move |(_, object)| (kind, object)))
                .map(|(kind, object)| {
                    let mut object = Value::clone(object);
                    object["kind"] = kind.as_str().into();
                    object
                })
                .collect(),
        }
    })
}

struct Life<'a> {
    sim: Sim,
    script: &'a Script,
    process: Option<Process>,
    resync: Duration,
    steps: u64,
    waited: u64,
    /// The spec as people want it, and as it was before their last edit.
    spec: Value,
    before: Value,
    /// Numbers of the ladder and of `analysis`.
    rollout: usize,
    analysis: usize,
}

impl Life<'_> {
    fn kind(&self) -> Kind {
        match self.script.shape {
            Shape::Prompt => Kind::PromptRelease,
            _ => Kind::ModelDeployment,
        }
    }

    async fn whole(&mut self, quiet: bool) {
        self.begin();
        self.process = Some(Process::start(&self.sim, self.resync));
        if self.script.paced && !self.rest().await {
            return;
        }
        for (wait, action) in self.script.actions.clone() {
            if self.script.paced {
                {
                    let world = self.sim.lock();
                    self.waited += world.ms() - world.last_write;
                }
                self.act(&action);
                if !self.rest().await {
                    return;
                }
            } else {
                self.pass(wait).await;
                self.act(&action);
            }
            if self.broken() {
                return;
            }
        }
        self.calm();
        if !self.script.paced {
            self.last_wish().await;
        }
        if self.broken() || !self.rest().await {
            return;
        }
        if quiet {
            self.quiet().await;
        }
        if self.broken() {
            return;
        }
        let mut world = self.sim.lock();
        let firings = world.check.firings();
        let wanted = if self.script.paced {
            None
        } else {
            Some("good")
        };
        if let Some(what) = end::wrong(&world, self.kind(), wanted, firings) {
            world.violated(what);
        }
    }

    fn broken(&self) -> bool {
        self.sim.lock().violation.is_some()
    }

    /// What there is before the operator.
    fn begin(&mut self) {
        let mut world = self.sim.lock();
        world.cluster.trains = "good".to_owned();
        for claim in ["models", "data"] {
            let claim = json!({"metadata": {"name": claim, "namespace": NAMESPACE}, "spec": {}});
            world.with_api(|api| api.create(Who::User, Kind::PersistentVolumeClaim, claim));
        }
        if self.script.shape == Shape::Followed {
            let job = training_job("first", None);
            world.with_api(|api| api.create(Who::User, Kind::TrainingJob, job));
        }
        if self.script.evaluated {
            let evaluation = json!({
                "metadata": {"name": "quality", "namespace": NAMESPACE},
                "spec": {"target": {"modelDeployment": {"name": NAME}}, "dataset": {"uri": "pvc://data/holdout.csv", "label": "late"},
                    "gates": [{"metric": "accuracy", "min": 0.5}], "activeDeadlineSeconds": 900},
            });
            world.with_api(|api| api.create(Who::User, Kind::Evaluation, evaluation));
        }
        if self.script.shape != Shape::Prompt {
            let evaluation = json!({
                "metadata": {"name": "deep", "namespace": NAMESPACE},
                "spec": {"target": {"modelDeployment": {"name": NAME}}, "dataset": {"uri": "pvc://data/holdout.csv", "label": "late"},
                    "gates": [{"metric": "accuracy", "min": 0.45}], "activeDeadlineSeconds": 900},
            });
            world.with_api(|api| api.create(Who::User, Kind::Evaluation, evaluation));
        }
        if self.script.settings {
            settings(&mut world, 0);
        }
        world.gateways.sees_inputs = self.script.trigger == 3;
        let release = self.release();
        let kind = self.kind();
        world.with_api(|api| api.create(Who::User, kind, release));
        if world.faults.weather == Weather::Wild {
            world.after(15_000, Event::Trouble);
        }
    }

    fn release(&self) -> Value {
        json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": self.spec})
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        let mut world = self.sim.lock();
        world.say(|| "all is well from here".to_owned());
        world.faults.weather = Weather::Calm;
        world.gateways.rate = 4.0;
        world.gateways.decay = 0.0;
        world.gateways.shifted = false;
        world.cluster.trains = "good".to_owned();
        world.cluster.shifted = false;
        // Later than everything before, also by the operator's clock.
        let skew = world.furthest;
        world.set_skew(skew);
        cluster::mend(&mut world);
        let key = Key::new(NAMESPACE, SETTINGS);
        if self.script.settings
            && world.api.get(Kind::ConfigMap, &key).is_none()
            && !self.script.paced
        {
            settings(&mut world, 0);
        }
    }

    /// Something good is asked for last, and people promote it where they are asked to.
    async fn last_wish(&mut self) {
        self.pass(20_000).await;
        let rollout = self.script.rollout(0, 0);
        self.spec["rollout"] = rollout;
        if self.script.shape != Shape::Prompt {
            self.spec["replicas"] = json!(2);
        }
        self.set_image("s:good-last".to_owned());
        self.apply();
        if self.script.shape == Shape::Followed {
            let mut world = self.sim.lock();
            world.with_api(|api| {
                api.create(Who::User, Kind::TrainingJob, training_job("last", None))
            });
        }
    }

    /// Lets so many milliseconds pass.
    async fn pass(&mut self, milliseconds: u64) {
        let until = self.sim.lock().ms() + milliseconds;
        self.until(until, |_| false).await;
    }

    /// Until everything has come to rest; false if it doesn't.
    async fn rest(&mut self) -> bool {
        let from = self.sim.lock().ms();
        let (mut asked, mut since) = (0, from);
        let rested = self
            .until(from + REST, |life| {
                let world = life.sim.lock();
                let still = world.is_seen() && world.ms() >= world.last_write.max(since) + QUIET;
                if still
                    && world.faults.weather == Weather::Calm
                    && !life.script.paced
                    && asked < 5
                    && end::is_paused(&world, life.kind())
                {
                    // Somebody looks at it and says yes.
                    asked += 1;
                    since = world.ms();
                    let approval = end::is_at_approval(&world, life.kind());
                    drop(world);
                    life.act(&match approval {
                        true => Action::Approve("jane"),
                        false => Action::Command("promote", Which::Candidate),
                    });
                    return false;
                }
                still && end::is_at_rest(&world, life.script.paced)
            })
            .await;
        if !rested && !self.broken() {
            let mut world = self.sim.lock();
            let state = end::state(&world);
            world.violated(format!(
                "it did not come to rest within {} minutes:\n{state}",
                REST / 60_000
            ));
        }
        rested
    }

    /// Nothing is written when there is nothing to do.
    async fn quiet(&mut self) {
        let (from, before) = {
            let mut world = self.sim.lock();
            world.written.clear();
            (world.ms(), world.writes - world.refreshes)
        };
        if self.script.shape == Shape::Followed && self.script.trigger != 2 {
            return; // Time goes on, and retrains, or drift is looked at.
        }
        self.until(from + STILL, |_| false).await;
        let mut world = self.sim.lock();
        // Newer numbers of gates may be written once a minute.
        let writes = world.writes - world.refreshes;
        if writes > before && world.violation.is_none() {
            let what = format!(
                "{} writes while nothing happened:\n{}",
                world.writes - before,
                world.written.join("\n")
            );
            world.violated(what);
        }
    }

    /// Goes on until `enough`, at most until a time; says whether it was enough.
    async fn until(&mut self, deadline: u64, mut enough: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            loop {
                let event = self.sim.lock().due();
                let Some(event) = event else { break };
                self.steps += 1;
                self.happen(event);
            }
            if self.broken() {
                return false;
            }
            if enough(self) {
                return true;
            }
            let (now, next, notify) = {
                let world = self.sim.lock();
                (world.ms(), world.next(), world.notify.clone())
            };
            if now >= deadline {
                return false;
            }
            // Looked at every now and then, as quiet is a matter of time.
            let next = next.unwrap_or(u64::MAX).min(deadline).min(now + 20_000);
            let sleep = tokio::time::sleep_until(
                Instant::now() + Duration::from_millis(next.saturating_sub(now)),
            );
            tokio::select! {
                () = sleep => {}
                () = notify.notified() => {}
            }
            self.kill_if_dead();
        }
    }

    fn kill_if_dead(&mut self) {
        if !self.sim.lock().running {
            self.process = None;
        }
    }

    fn happen(&mut self, event: Event) {
        let sim = self.sim.clone();
        match event {
            Event::Deliver(process, kind) => {
                if let Some(running) = &mut self.process {
                    running.deliver(&sim, process, kind);
                }
            }
            Event::Relist(process, kind) => {
                if let Some(running) = &mut self.process {
                    running.relist(&sim, process, kind);
                }
            }
            Event::Restart => {
                let running = sim.lock().running;
                if !running {
                    self.process = None;
                    self.process = Some(Process::start(&sim, self.resync));
                }
            }
            Event::Server(key) => cluster::sync(&mut sim.lock(), &key),
            Event::Job(uid, stage) => cluster::advance(&mut sim.lock(), &uid, stage),
            Event::GatewayPod(uid) => gateway::ready(&mut sim.lock(), &uid),
            Event::Learn(pod, kind, key) => gateway::learn(&mut sim.lock(), &pod, kind, &key),
            Event::Endpoints => cluster::endpoints(&mut sim.lock()),
            Event::Collect => cluster::collect(&mut sim.lock()),
            Event::Trouble => self.trouble(),
        }
    }

    /// Something goes wrong in the cluster, perhaps.
    fn trouble(&mut self) {
        let mut world = self.sim.lock();
        if world.faults.weather != Weather::Wild {
            return;
        }
        let wait = 10_000 + world.faults.below(50_000) as u64;
        world.after(wait, Event::Trouble);
        let servers: Vec<Key> = world
            .api
            .all(Kind::Deployment)
            .map(|(k, _)| k.clone())
            .filter(|k| k.name != perennial::plan::gateway::NAME)
            .collect();
        let one = |world: &mut crate::world::World, keys: &[Key]| {
            keys.get(world.faults.below(keys.len())).cloned()
        };
        if world.strikes(Fault::PodsFail)
            && let Some(key) = one(&mut world, &servers)
        {
            let long = [5_000, 30_000, 120_000][world.faults.below(3)];
            world.say(|| format!("cluster  pods of {} fail for {} s", key.name, long / 1000));
            cluster::fail_pods(&mut world, &key, long);
        }
        if world.strikes(Fault::GatewayReplaced) {
            gateway::replace_one(&mut world);
        }
        if world.strikes(Fault::Clock) {
            let step = [30_000, -30_000, 3_600_000, -3_600_000, -86_400_000, -5_000]
                [world.faults.below(6)];
            // Back to the right time, or further astray.
            let skew = match world.faults.below(3) {
                0 => 0,
                _ => (world.skew + step).clamp(-2 * 86_400_000, 2 * 3_600_000),
            };
            let before = world.skew;
            world.say(|| {
                let (from, to) = (before / 1000, skew / 1000);
                format!("the operator's clock goes from {from} s to {to} s")
            });
            world.set_skew(skew);
        }
        if world.strikes(Fault::ChildTouched) {
            touch(&mut world, &servers);
        }
        if world.strikes(Fault::StatusLost) {
            let (kind, key) = (self.kind(), Key::new(NAMESPACE, NAME));
            world.with_api(|api| {
                api.edit(Who::User, kind, &key, |object| {
                    if let Some(members) = object.as_object_mut() {
                        members.remove("status");
                    }
                })
            });
        }
    }

    fn set_image(&mut self, image: String) {
        let place = match self.script.shape {
            Shape::Prompt => "/prompt/messages/0/content",
            _ => "/server/template/spec/containers/0/image",
        };
        let before = self.spec.clone();
        if let Some(there) = self.spec.pointer_mut(place) {
            *there = json!(image);
        }
        self.before = before;
    }

    /// Applies the spec as people want it.
    fn apply(&mut self) {
        let (kind, key, spec) = (self.kind(), Key::new(NAMESPACE, NAME), self.spec.clone());
        self.sim
            .lock()
            .with_api(|api| api.edit(Who::User, kind, &key, |object| object["spec"] = spec));
    }

    fn act(&mut self, action: &Action) {
        self.sim.lock().say(|| format!("user     {action:?}"));
        match action {
            Action::Image(image) => {
                self.set_image(image.clone());
                self.apply();
            }
            Action::SelfHeal => {
                let mut spec = self.script.release();
                spec["replicas"] = self.spec["replicas"].clone();
                if spec["replicas"].is_null()
                    && let Some(members) = spec.as_object_mut()
                {
                    members.remove("replicas");
                }
                self.before = std::mem::replace(&mut self.spec, spec);
                (self.rollout, self.analysis) = (self.script.rollout, self.script.analysis);
                self.apply();
            }
            Action::Revert => {
                if !self.before.is_null() {
                    std::mem::swap(&mut self.before, &mut self.spec);
                }
                self.apply();
            }
            Action::Replicas(n) => {
                self.spec["replicas"] = json!(n);
                self.apply();
            }
            Action::Rollout(n) => {
                self.rollout = *n;
                self.spec["rollout"] = self.script.rollout(self.rollout, self.analysis);
                self.apply();
            }
            Action::Analysis(m) => {
                self.analysis = *m;
                self.spec["rollout"] = self.script.rollout(self.rollout, self.analysis);
                self.apply();
            }
            Action::Command(name, which) => self.command(name, *which),
            Action::Approve(user) => self.approve(user),
            Action::Settings(level) => settings(&mut self.sim.lock(), *level),
            Action::DropSettings => {
                let key = Key::new(NAMESPACE, SETTINGS);
                let mut world = self.sim.lock();
                world.with_api(|api| api.delete(Who::User, Kind::ConfigMap, &key, ""));
            }
            Action::Drift(shifted) => self.sim.lock().gateways.shifted = *shifted,
            Action::Train(nature) => {
                let mut world = self.sim.lock();
                let name = format!("by-hand-{}", world.api.all(Kind::TrainingJob).count());
                let job = training_job(&name, Some(nature));
                world.with_api(|api| api.create(Who::User, Kind::TrainingJob, job));
            }
            Action::Data(nature) => {
                let mut world = self.sim.lock();
                world.cluster.data += 1;
                world.cluster.trains = (*nature).to_owned();
                world.cluster.shifted = world.gateways.shifted;
            }
            Action::Decay(by) => {
                let mut world = self.sim.lock();
                world.gateways.decay = *by;
                let seed = world.ms();
                world.with_api(|api| {
                    api.edit(
                        Who::User,
                        Kind::Evaluation,
                        &Key::new(NAMESPACE, "quality"),
                        |e| e["spec"]["seed"] = json!(seed),
                    )
                });
            }
            Action::Forget => {
                let mut world = self.sim.lock();
                let ended = world
                    .api
                    .all(Kind::TrainingJob)
                    .filter(|(_, j)| j.pointer("/status/completionTime").is_some());
                let last = ended.last().map(|(k, _)| k.clone());
                if let Some(key) = last {
                    world.with_api(|api| api.delete(Who::User, Kind::TrainingJob, &key, ""));
                }
            }
            Action::Recreate => {
                let (kind, release) = (self.kind(), self.release());
                let mut world = self.sim.lock();
                world.with_api(|api| api.delete(Who::User, kind, &Key::new(NAMESPACE, NAME), ""));
                world.with_api(|api| api.create(Who::User, kind, release));
            }
            Action::Rate(rate) => self.sim.lock().gateways.rate = *rate,
        }
    }

    /// The annotation that a person's approval is.
    fn approve(&mut self, user: &str) {
        let (kind, key) = (self.kind(), Key::new(NAMESPACE, NAME));
        let mut world = self.sim.lock();
        let tried = |object: &Value| text(object, "/status/candidate/revision").to_owned();
        let tried = world.api.get(kind, &key).map(|object| tried(object));
        let Some(revision) = tried.filter(|revision| !revision.is_empty()) else {
            return;
        };
        let value = format!("{revision}.{}/{user}", world.ms());
        world.with_api(|api| {
            api.edit(Who::User, kind, &key, |object| {
                object["metadata"]["annotations"][annotation::APPROVE] = json!(value)
            })
        });
    }

    fn command(&mut self, name: &str, which: Which) {
        let (kind, key) = (self.kind(), Key::new(NAMESPACE, NAME));
        let mut world = self.sim.lock();
        let Some(object) = world.api.get(kind, &key).cloned() else {
            return;
        };
        let status = &object["status"];
        let revision = match which {
            Which::Candidate => text(status, "/candidate/revision").to_owned(),
            Which::Stable => text(status, "/stable/revision").to_owned(),
            Which::Rejected => status["rejectedRevisions"]
                .as_array()
                .and_then(|l| l.last())
                .map_or(String::new(), |r| text(r, "/revision").to_owned()),
            Which::Before => {
                let history = status["history"].as_array().into_iter().flatten().rev();
                let mut promoted = history.filter(|h| {
                    h["outcome"] == "Promoted" && h["revision"] != status["stable"]["revision"]
                });
                promoted
                    .next()
                    .map_or(String::new(), |h| text(h, "/revision").to_owned())
            }
            Which::Tried => {
                let history = || status["history"].as_array().into_iter().flatten();
                let promoted = |revision: &Value| {
                    history().any(|h| h["outcome"] == "Promoted" && h["revision"] == *revision)
                };
                let mut tried = history().rev().map(|h| &h["revision"]);
                let tried = tried.find(|revision| !promoted(revision));
                tried.and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            Which::Nonsense => "nonsense".to_owned(),
        };
        if revision.is_empty() {
            return;
        }
        let value = match which {
            Which::Nonsense => revision,
            _ => format!("{revision}/{}", world.ms()),
        };
        let annotation = match name {
            "abort" => annotation::ABORT,
            "retry" => annotation::RETRY,
            "rollback-to" => annotation::ROLLBACK_TO,
            "retrain" => annotation::RETRAIN,
            _ => annotation::PROMOTE,
        };
        world.with_api(|api| {
            api.edit(Who::User, kind, &key, |object| {
                object["metadata"]["annotations"][annotation] = json!(value)
            })
        });
    }
}

/// Somebody writes the ConfigMap that the template names.
fn settings(world: &mut crate::world::World, level: usize) {
    let key = Key::new(NAMESPACE, SETTINGS);
    let data = json!({"LEVEL": level.to_string()});
    world.with_api(|api| match api.get(Kind::ConfigMap, &key) {
        Some(_) => {
            api.edit(Who::User, Kind::ConfigMap, &key, |c| c["data"] = data);
        }
        None => {
            let made =
                json!({"metadata": {"name": SETTINGS, "namespace": NAMESPACE}, "data": data});
            api.create(Who::User, Kind::ConfigMap, made);
        }
    });
}

/// Somebody deletes a child or scales it down by hand.
fn touch(world: &mut crate::world::World, servers: &[Key]) {
    match world.faults.below(4) {
        0 => {
            if let Some(key) = servers.get(world.faults.below(servers.len())).cloned() {
                world.with_api(|api| api.delete(Who::User, Kind::Deployment, &key, ""));
            }
        }
        1 => {
            if let Some(key) = servers.get(world.faults.below(servers.len())).cloned() {
                world.with_api(|api| {
                    api.edit(Who::User, Kind::Deployment, &key, |d| {
                        d["spec"]["replicas"] = json!(0)
                    })
                });
            }
        }
        2 => {
            world.with_api(|api| {
                api.delete(Who::User, Kind::Service, &Key::new(NAMESPACE, NAME), "")
            });
        }
        _ => {
            let jobs: Vec<Key> = world.api.all(Kind::Job).map(|(k, _)| k.clone()).collect();
            if let Some(key) = jobs.get(world.faults.below(jobs.len())).cloned() {
                world.with_api(|api| api.delete(Who::User, Kind::Job, &key, ""));
            }
        }
    }
}

fn training_job(name: &str, nature: Option<&str>) -> Value {
    let mut job = json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"name": NAME, "output": "pvc://models/churn"},
            "datasets": [{"name": "train", "uri": "pvc://data/train.csv", "label": "late"}],
            "template": {"spec": {"containers": [{"name": "trainer", "image": "t:1", "command": ["train"]}]}},
            "failurePolicy": {"maxRestarts": 2, "backoff": {"initial": "5s", "max": "20s"}},
        },
    });
    if let Some(nature) = nature {
        job["spec"]["parameters"] = json!({"nature": nature});
    }
    job
}
