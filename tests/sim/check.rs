//! What must hold after every write, whatever happened.

use std::collections::BTreeMap;

use perennial::{
    api::{annotation, label},
    cluster::{Key, Kind},
    plan::gateway::NAME,
};
use serde_json::Value;

use crate::{
    api::{Commit, Who, number, owner, text},
    ladder, past, retrainings,
    world::{NAMESPACE, World},
};

/// A cache is behind for at most so long, with a relist and a gateway's delay.
const BEHIND: u64 = 120_000;

/// What was seen so far.
#[derive(Default)]
pub struct Check {
    /// TrainingJobs made, by the firing that they are of.
    fired: BTreeMap<String, u32>,
    /// Since when a Deployment has no available pod.
    down: BTreeMap<String, u64>,
    /// What people have said.
    said: ladder::Said,
    /// What may be said of revisions.
    past: past::Past,
}

pub type Broken = Option<String>;

macro_rules! must {
    ($holds:expr, $($words:tt)*) => {
        if !$holds {
            return Some(format!($($words)*));
        }
    };
}
pub(crate) use must;

impl Check {
    /// What a write breaks, if it breaks something.
    pub fn commit(&mut self, world: &World, commit: &Commit) -> Broken {
        if commit.kind == Kind::Deployment {
            self.note(world, commit);
        }
        self.past.mark(world, commit);
        if commit.who != Who::Operator {
            self.past.lose(world, commit);
            self.past.edit(commit);
            self.said.hear(commit);
            return None;
        }
        if commit.kind == Kind::TrainingJob {
            self.past.edit(commit);
        }
        if commit.kind.is_own() {
            let allowed = matches!(commit.verb, "status" | "create")
                || commit.verb == "delete" && commit.kind == Kind::TrainingJob;
            must!(
                allowed,
                "the operator wrote a spec: {} {}",
                commit.verb,
                commit.kind.as_str()
            );
        }
        match (commit.kind, &commit.old, &commit.new) {
            (Kind::ModelDeployment | Kind::PromptRelease, Some(old), Some(new)) => {
                self.release(world, commit, old, new)
            }
            (Kind::TrainingJob, old, Some(new)) => self.training(world, old.as_deref(), new),
            (Kind::Deployment, Some(old), new) => server(world, &commit.key, old, new.as_deref()),
            (Kind::Job, None, Some(new)) => job(world, new),
            _ => None,
        }
    }

    fn note(&mut self, world: &World, commit: &Commit) {
        let up = commit
            .new
            .as_ref()
            .is_some_and(|d| number(d, "/status/availableReplicas") > 0);
        if up {
            self.down.insert(commit.key.name.clone(), u64::MAX);
        } else {
            let since = self.down.entry(commit.key.name.clone()).or_insert(0);
            *since = (*since).min(world.ms());
        }
    }

    fn release(&mut self, world: &World, commit: &Commit, old: &Value, new: &Value) -> Broken {
        let (before, after) = (&old["status"], &new["status"]);
        let (was, is) = (&before["rollout"], &after["rollout"]);
        let (stable, candidate) = (
            text(after, "/stable/revision"),
            text(after, "/candidate/revision"),
        );
        let (weight, state) = (number(is, "/weight"), text(is, "/state"));
        let rejected = |hash: &str| -> bool {
            let ledger = after["rejectedRevisions"].as_array();
            ledger
                .into_iter()
                .flatten()
                .any(|r| text(r, "/revision") == hash)
        };
        let models = commit.kind == Kind::ModelDeployment;
        if let Some(broken) = self.past.status(world, before, after) {
            return Some(broken);
        }
        if self.past.firings_were_lost() {
            // Of those whose TrainingJobs are gone nothing is known, and their numbers are given again.
            let of = format!("{}/", text(new, "/metadata/uid"));
            let firing = |mark: &str| mark.strip_prefix(&of).and_then(|n| n.parse::<i64>().ok());
            let jobs = world.api.all(Kind::TrainingJob);
            let known = jobs.filter_map(|(_, job)| {
                firing(job["metadata"]["annotations"][annotation::FIRING].as_str()?)
            });
            let known = known.max().unwrap_or(0);
            self.fired
                .retain(|mark, _| firing(mark).is_none_or(|n| n <= known));
        }
        let handled = |status: &Value| {
            let commands = status["lastHandledCommands"]
                .as_array()
                .into_iter()
                .flatten();
            let mut aborts = commands.filter(|c| c["name"] == "abort" && c["result"] == "Done");
            aborts.next().map(|c| text(c, "/value").to_owned())
        };
        if let Some(abort) = handled(after).filter(|a| handled(before).as_ref() != Some(a)) {
            let aborted = abort.split('/').next().unwrap_or_default();
            must!(
                weight == 0 && stable != aborted,
                "{aborted} was aborted, and has callers"
            );
        }
        must!(
            (0..=100).contains(&weight),
            "weights don't sum to 100: the candidate's is {weight}"
        );
        must!(
            candidate.is_empty() || candidate != stable,
            "{candidate} is stable and candidate at once"
        );
        must!(
            candidate.is_empty() || !rejected(candidate) || weight == 0,
            "the rejected revision {candidate} has {weight} % of callers"
        );
        must!(
            stable.is_empty() || !rejected(stable),
            "the rejected revision {stable} is stable"
        );
        if candidate != text(before, "/candidate/revision")
            && text(before, "/stable/revision") != candidate
        {
            must!(
                candidate.is_empty() || !rejected(candidate),
                "the rejected revision {candidate} is tried again"
            );
        }
        if weight > 0 {
            must!(
                !candidate.is_empty(),
                "{weight} % of callers go to no candidate"
            );
            if models {
                must!(
                    number(after, "/candidate/availableReplicas") > 0,
                    "{weight} % of callers on a candidate without available pods"
                );
                let since = self
                    .down
                    .get(&format!("{}-{candidate}", commit.key.name))
                    .copied()
                    .unwrap_or(0);
                let seen = since.saturating_add(BEHIND) > world.ms();
                must!(
                    weight <= number(was, "/weight") || seen,
                    "the weight was raised to {weight} for a candidate that has long had no available pod"
                );
            }
        }
        let waits = match state {
            "" | "Idle" | "Paused" => true,
            "Preparing" => new["spec"]["replicas"] == 0,
            "Stepping" => text(new, "/spec/rollout/analysis/noData") == "Wait",
            "Baking" => {
                text(new, "/spec/rollout/analysis/noData") == "Wait" || new["spec"]["replicas"] == 0
            }
            _ => false,
        };
        must!(
            waits || is["deadline"].is_string(),
            "{state} has no deadline"
        );
        if before.is_object() {
            for field in [
                "/attempts",
                "/observedGeneration",
                "/rollout/epoch",
                "/retraining/firing",
            ] {
                let (a, b) = (number(before, field), number(after, field));
                must!(b >= a, "{field} fell from {a} to {b}");
            }
            let route = |status: &Value| {
                let weight = number(status, "/rollout/weight");
                let tried = if weight > 0 {
                    text(status, "/candidate/revision").to_owned()
                } else {
                    String::new()
                };
                (text(status, "/stable/revision").to_owned(), weight, tried)
            };
            let (a, b) = (route(before), route(after));
            let grew = number(is, "/epoch") > number(was, "/epoch");
            must!(
                a == b || grew,
                "the routing changed from {a:?} to {b:?} under one epoch"
            );
            let (a, b) = (
                number(before, "/retraining/firing"),
                number(after, "/retraining/firing"),
            );
            must!(b - a <= 1, "{} firings at once", b - a);
        }
        let broken = ladder::check(&self.said, before, after, models)
            .or_else(|| retrainings::check(before, after, &new["spec"]["retraining"]));
        if broken.is_some() {
            return broken;
        }
        let count = |list: &str| after[list].as_array().map_or(0, Vec::len);
        must!(
            count("history") <= 20 && count("rejectedRevisions") <= 50,
            "the status grows without bound"
        );
        must!(
            number(after, "/observedGeneration") <= number(new, "/metadata/generation"),
            "a generation that isn't there was observed"
        );
        None
    }

    fn training(&mut self, world: &World, old: Option<&Value>, new: &Value) -> Broken {
        if let Some(old) = old {
            let ended = old.pointer("/status/completionTime").is_some();
            must!(
                !ended || old["status"]["phase"] == new["status"]["phase"],
                "TrainingJob {} was over and went on",
                text(new, "/metadata/name")
            );
            return None;
        }
        let mark = new["metadata"]["annotations"][annotation::FIRING]
            .as_str()
            .unwrap_or_default();
        must!(
            !mark.is_empty(),
            "the operator made a TrainingJob without a firing"
        );
        let times = self.fired.entry(mark.to_owned()).or_default();
        *times += 1;
        must!(*times == 1, "{times} TrainingJobs for the firing {mark}");
        let release = label_of(new, label::MODEL_DEPLOYMENT);
        let (_, firing) = mark.rsplit_once('/').unwrap_or_default();
        let recorded = world
            .api
            .get(Kind::ModelDeployment, &Key::new(NAMESPACE, release))
            .map(|r| number(r, "/status/retraining/firing"));
        must!(
            recorded.is_some_and(|r| r.to_string() == firing) || self.past.had_fired(firing),
            "a TrainingJob for firing {firing}, but {recorded:?} is recorded"
        );
        let running = world.api.all(Kind::TrainingJob).filter(|(_, job)| {
            job["metadata"]["annotations"][annotation::FIRING].is_string()
                && job.pointer("/status/completionTime").is_none()
        });
        must!(running.count() <= 1, "two retrainings at once");
        None
    }

    /// TrainingJobs that were made for firings.
    pub fn firings(&self) -> usize {
        self.fired.len()
    }
}

fn label_of<'v>(value: &'v Value, name: &str) -> &'v str {
    value
        .pointer("/metadata/labels")
        .and_then(|l| l.get(name))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The operator shrinks or deletes servers.
fn server(world: &World, key: &Key, old: &Value, new: Option<&Value>) -> Broken {
    let left = new.map_or(0, |d| number(d, "/spec/replicas"));
    if key.name == NAME {
        let releases = world.api.all(Kind::ModelDeployment).count()
            + world.api.all(Kind::PromptRelease).count();
        must!(
            left > 0 || releases == 0,
            "the gateway was taken away from {releases} releases"
        );
        return None;
    }
    let (release, hash) = (
        label_of(old, label::MODEL_DEPLOYMENT),
        label_of(old, label::REVISION),
    );
    let object = world
        .api
        .get(Kind::ModelDeployment, &Key::new(NAMESPACE, release))?;
    if left > 0 || number(old, "/spec/replicas") == 0 || object["spec"]["replicas"] == 0 {
        return None;
    }
    let status = &object["status"];
    must!(
        text(status, "/stable/revision") != hash,
        "the pods of stable {hash} were taken away"
    );
    must!(
        text(status, "/candidate/revision") != hash || number(status, "/rollout/weight") == 0,
        "the pods of candidate {hash} were taken away while it has callers"
    );
    for route in world.gateways.routes(text(object, "/metadata/uid")) {
        let serves = route.stable == hash && route.weight < 100
            || route.candidate == hash && route.weight > 0;
        must!(
            !serves,
            "the pods of {hash} were taken away while a gateway still sends callers there"
        );
    }
    None
}

/// The operator makes a Job.
fn job(world: &World, new: &Value) -> Broken {
    let (kind, name, uid) = owner(new)?;
    let unfinished = world.api.all(Kind::Job).filter(|(_, job)| {
        owner(job).is_some_and(|(.., other)| other == uid)
            && job.pointer("/status/conditions").is_none()
            && !world.cluster.has_reported(text(job, "/metadata/uid"))
    });
    let unfinished = unfinished.count();
    match kind {
        "TrainingJob" => {
            let ended = world
                .api
                .get(Kind::TrainingJob, &Key::new(NAMESPACE, name))
                .is_some_and(|j| j.pointer("/status/completionTime").is_some());
            must!(!ended, "TrainingJob {name} was over and got another pod");
            must!(
                unfinished <= 1,
                "TrainingJob {name} has {unfinished} attempts at once"
            );
        }
        "Evaluation" => must!(
            unfinished <= 1,
            "Evaluation {name} has {unfinished} runs at once"
        ),
        _ => {}
    }
    None
}
