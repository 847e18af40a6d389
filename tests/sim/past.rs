//! What was, and what may come back of it: revisions that were stable, a status that is lost, a rollout that ended for want of data.

use std::collections::BTreeSet;

use perennial::{
    api::annotation,
    cluster::{Key, Kind},
};
use serde_json::Value;

use crate::{
    api::{Commit, Who, number, owner, text},
    check::{Broken, must},
    life::NAME,
    world::{NAMESPACE, World},
};

/// The mark of a new stable is written within so many milliseconds, or there was trouble.
const SOON: u64 = 300_000;
/// Commands, each with its annotation.
const COMMANDS: [(&str, &str); 6] = [
    ("promote", annotation::PROMOTE),
    ("abort", annotation::ABORT),
    ("retry", annotation::RETRY),
    ("rollback-to", annotation::ROLLBACK_TO),
    ("approve", annotation::APPROVE),
    ("retrain", annotation::RETRAIN),
];

/// A status that is lost, until it is there again.
struct Lost {
    /// Stable, if its mark was written.
    stable: Option<String>,
    /// Revisions whose mark says that they are rejected.
    rejected: Vec<String>,
    firing: i64,
}

/// What was seen so far of the release.
#[derive(Default)]
pub struct Past {
    /// Revisions that were stable, their bake not counted.
    stood: BTreeSet<String>,
    /// Since when stable is stable, and whether its mark was written since.
    since: u64,
    marked: bool,
    lost: Option<Lost>,
    /// Commands of before a status was lost, with their values.
    old: BTreeSet<(String, String)>,
    /// The last firing of before, and whether nobody has been told yet.
    fired: i64,
    forgot: bool,
    /// A revision whose rollout ended for want of data, while nobody has changed anything but `replicas` since.
    waits: Option<String>,
}

impl Past {
    /// A ControllerRevision was written.
    pub fn mark(&mut self, world: &World, commit: &Commit) {
        let release = [Kind::ModelDeployment, Kind::PromptRelease]
            .into_iter()
            .find_map(|kind| world.api.get(kind, &Key::new(NAMESPACE, NAME)));
        let stable = release.map(|r| text(r, "/status/stable/revision"));
        let stable = stable.map(|stable| format!("{NAME}-{stable}"));
        if commit.kind == Kind::ControllerRevision && Some(&commit.key.name) == stable.as_ref() {
            self.marked = true;
        }
    }

    /// A release is gone, or its status: what is to be rebuilt.
    pub fn lose(&mut self, world: &World, commit: &Commit) {
        if !matches!(commit.kind, Kind::ModelDeployment | Kind::PromptRelease) {
            return;
        }
        let (Some(old), new) = (&commit.old, &commit.new) else {
            return;
        };
        let Some(new) = new else {
            *self = Self::default();
            return;
        };
        if !old["status"].is_object() || new["status"].is_object() {
            return;
        }
        self.waits = None;
        let uid = text(old, "/metadata/uid");
        let revisions = world.api.all(Kind::ControllerRevision);
        let revisions: Vec<_> = revisions
            .filter(|(_, r)| owner(r).is_some_and(|(_, _, of)| of == uid))
            .map(|(key, r)| (key.name.as_str(), &r["metadata"]["annotations"]))
            .collect();
        let has = |mark: &'static str| {
            revisions
                .iter()
                .filter(move |(_, marks)| marks[mark].is_string())
        };
        let stable = text(old, "/status/stable/revision");
        let name = format!("{NAME}-{stable}");
        // What was marked can be rebuilt.
        let marked = has(annotation::STABLE_SINCE).any(|(of, _)| *of == name)
            && (self.marked || world.ms() > self.since + SOON);
        let hash = |name: &str| name.rsplit('-').next().unwrap_or_default().to_owned();
        let rejected = has(annotation::REJECTED).map(|(name, _)| hash(name));
        let rejected: Vec<String> = rejected.collect();
        if marked || !rejected.is_empty() {
            let said = |name: &str| new["metadata"]["annotations"][name].as_str();
            let old = COMMANDS.iter().filter_map(|(command, annotation)| {
                Some(((*command).to_owned(), said(annotation)?.to_owned()))
            });
            self.old.extend(old);
        }
        self.lost = Some(Lost {
            stable: marked.then(|| stable.to_owned()),
            rejected,
            firing: number(old, "/status/retraining/firing"),
        });
    }

    /// Somebody wrote something.
    pub fn edit(&mut self, commit: &Commit) {
        let (Some(old), Some(new)) = (&commit.old, &commit.new) else {
            self.waits = None;
            return;
        };
        if !matches!(commit.kind, Kind::ModelDeployment | Kind::PromptRelease) {
            if commit.who == Who::User || commit.kind == Kind::TrainingJob {
                self.waits = None;
            }
            return;
        }
        let rest = |object: &Value| {
            let mut spec = object["spec"].clone();
            if let Some(members) = spec.as_object_mut() {
                members.remove("replicas");
            }
            (
                spec,
                object["metadata"]["annotations"][annotation::RETRY].clone(),
            )
        };
        if rest(old) != rest(new) {
            self.waits = None;
        }
    }

    /// What a new status breaks, if it breaks something.
    pub fn status(&mut self, world: &World, before: &Value, after: &Value) -> Broken {
        let (stable, candidate) = (
            text(after, "/stable/revision"),
            text(after, "/candidate/revision"),
        );
        let is = &after["rollout"];
        let list = |name: &str| after[name].as_array().into_iter().flatten();
        if let Some(lost) = self.lost.take() {
            (self.fired, self.forgot) = (lost.firing, lost.firing > 0);
            if let Some(was) = &lost.stable {
                let back = before.is_object()
                    || stable == was
                    || text(is, "/previous") == was
                    || candidate == was;
                must!(
                    back,
                    "the status was lost; {was} was stable, and now `{stable}` is"
                );
            }
            for revision in &lost.rejected {
                let mut ledger = list("rejectedRevisions");
                let name = Key::new(NAMESPACE, format!("{NAME}-{revision}"));
                let marked = world.api.get(Kind::ControllerRevision, &name);
                let marked = marked.is_some_and(|r| {
                    r["metadata"]["annotations"][annotation::REJECTED].is_string()
                });
                must!(
                    before.is_object()
                        || !marked
                        || ledger.any(|r| text(r, "/revision") == revision),
                    "the status was lost, and it isn't known any more that {revision} is rejected"
                );
            }
        }
        for command in list("lastHandledCommands").filter(|c| c["result"] == "Done") {
            let (name, value) = (text(command, "/name"), text(command, "/value"));
            must!(
                !self.old.contains(&(name.to_owned(), value.to_owned())),
                "{name} {value} is of before the status was lost, and was done again"
            );
        }
        let attempt = |status: &Value| number(status, "/candidate/attempt");
        let new = !candidate.is_empty() && attempt(after) != attempt(before);
        must!(
            !new || text(after, "/candidate/source") != "Rollback"
                || self.stood.contains(candidate),
            "{candidate} was never stable, and gets all callers without a step"
        );
        must!(
            !new || text(after, "/candidate/source") == "Rollback"
                || self.waits.as_deref() != Some(candidate),
            "{candidate} ended for want of data, nothing but replicas was changed, and it is tried again"
        );
        if new && self.waits.as_deref() != Some(candidate) {
            self.waits = None;
        }
        if stable != text(before, "/stable/revision") {
            (self.since, self.marked) = (world.ms(), false);
        }
        if !stable.is_empty() && text(is, "/state") != "Baking" {
            self.stood.insert(stable.to_owned());
        }
        let count = |status: &Value| status["history"].as_array().map_or(0, Vec::len);
        let last = list("history").last();
        if let Some(last) = last.filter(|_| count(after) > count(before)) {
            let waits = last["reason"] == "NotEnoughData" && candidate.is_empty();
            self.waits = waits.then(|| text(last, "/revision").to_owned());
        }
        None
    }

    /// Whether this is the first status after one was lost that counted firings.
    pub fn firings_were_lost(&mut self) -> bool {
        std::mem::take(&mut self.forgot)
    }

    /// Whether this firing was recorded before a status was lost: its TrainingJob may be on its way.
    pub fn had_fired(&self, firing: &str) -> bool {
        self.fired.to_string() == firing
    }
}
