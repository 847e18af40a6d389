//! What there is at the end, and what may not be.

use std::fmt::Write as _;

use perennial::{
    api::label,
    cluster::{Key, Kind},
};
use serde_json::Value;

use crate::{
    api::{number, text},
    life::NAME,
    script::SETTINGS,
    world::{NAMESPACE, World},
};

fn release(world: &World) -> Option<(Kind, &Value)> {
    let key = Key::new(NAMESPACE, NAME);
    [Kind::ModelDeployment, Kind::PromptRelease]
        .into_iter()
        .find_map(|kind| Some((kind, &**world.api.get(kind, &key)?)))
}

/// A revision by what is in it.
fn content(world: &World, hash: &str) -> String {
    if hash.is_empty() {
        return "-".to_owned();
    }
    let Some(revision) = world.api.get(
        Kind::ControllerRevision,
        &Key::new(NAMESPACE, format!("{NAME}-{hash}")),
    ) else {
        return "gone".to_owned();
    };
    let data = &revision["data"];
    let copy = text(data, &format!("/configMaps/{SETTINGS}/copy"));
    let copy = world.api.get(Kind::ConfigMap, &Key::new(NAMESPACE, copy));
    let settings = copy.map_or(String::new(), |c| {
        format!(" with settings {}", text(c, "/data/LEVEL"))
    });
    let image = [
        text(data, "/server/template/spec/containers/0/image"),
        text(data, "/prompt/messages/0/content"),
    ]
    .concat();
    format!("{image} of {}{settings}", text(data, "/model/trainingJob"))
}

/// Whether a release waits for a person.
pub fn is_paused(world: &World, kind: Kind) -> bool {
    world
        .api
        .get(kind, &Key::new(NAMESPACE, NAME))
        .is_some_and(|r| text(r, "/status/rollout/state") == "Paused")
}

/// Whether it waits for an approval.
pub fn is_at_approval(world: &World, kind: Kind) -> bool {
    let release = world.api.get(kind, &Key::new(NAMESPACE, NAME));
    release.is_some_and(|r| {
        let rollout = &r["status"]["rollout"];
        let step = usize::try_from(number(rollout, "/step")).unwrap_or(usize::MAX);
        rollout["steps"][step]["approval"].is_object()
    })
}

/// Whether nothing is under way; `patient`: nor will be when a retraining's cooldown or limit is over.
pub fn is_at_rest(world: &World, patient: bool) -> bool {
    let Some((_, release)) = release(world) else {
        return true;
    };
    let state = text(release, "/status/rollout/state");
    let scaled_away = matches!(state, "Preparing" | "Baking") && release["spec"]["replicas"] == 0;
    let triggers = release.pointer("/status/retraining/triggers");
    let triggers = triggers.and_then(Value::as_array).into_iter().flatten();
    let due = patient
        && !scaled_away
        && state != "Paused"
        && triggers
            .into_iter()
            .any(|t| text(t, "/message").starts_with("due ("));
    let jobs = world
        .api
        .all(Kind::Job)
        .all(|(_, job)| job.pointer("/status/conditions").is_some());
    let trained = world
        .api
        .all(Kind::TrainingJob)
        .all(|(_, job)| job.pointer("/status/completionTime").is_some());
    let measured = world.api.all(Kind::Evaluation).all(|(_, evaluation)| {
        let last = &evaluation["status"]["lastRun"];
        match text(last, "/verdict") {
            "Running" | "Pending" => false,
            "Error" => number(last, "/failures") >= 3,
            _ => true,
        }
    });
    let serves = !text(release, "/status/stable/revision").is_empty();
    let seen = release["status"]["observedGeneration"] == release["metadata"]["generation"];
    (matches!(state, "Idle" | "Paused") || scaled_away)
        && !due
        && jobs
        && trained
        && measured
        && seen
        && serves
}

/// The end in a few lines, in words that don't depend on when things happened.
pub fn state(world: &World) -> String {
    let mut out = String::new();
    let Some((_, release)) = release(world) else {
        return "no release".to_owned();
    };
    let status = &release["status"];
    let rollout = &status["rollout"];
    let _ = writeln!(
        out,
        "{} step {} weight {}, stable {}, candidate {}",
        text(rollout, "/state"),
        rollout["step"],
        rollout["weight"],
        content(world, text(status, "/stable/revision")),
        content(world, text(status, "/candidate/revision")),
    );
    let mut rejected: Vec<String> = list(status, "rejectedRevisions")
        .map(|r| content(world, text(r, "/revision")))
        .collect();
    rejected.sort();
    let _ = writeln!(out, "rejected: {}", rejected.join(", "));
    for entry in list(status, "history") {
        let _ = writeln!(
            out,
            "history: {} {}",
            content(world, text(entry, "/revision")),
            text(entry, "/outcome")
        );
    }
    for command in list(status, "lastHandledCommands") {
        let done = text(command, "/result") == "Done";
        let _ = writeln!(
            out,
            "command: {} {}",
            text(command, "/name"),
            if done { "done" } else { "refused" }
        );
    }
    for run in status
        .pointer("/retraining/runs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let _ = writeln!(
            out,
            "retraining {}: {}",
            run["firing"],
            text(run, "/result")
        );
    }
    // In an order that doesn't depend on hashes.
    let mut pods = Vec::new();
    for (_, deployment) in world.api.all(Kind::Deployment) {
        let hash = deployment["metadata"]["labels"][label::REVISION]
            .as_str()
            .unwrap_or_default();
        let what = if hash.is_empty() {
            "gateway".to_owned()
        } else {
            content(world, hash)
        };
        pods.push(format!(
            "pods of {what}: {} of {}\n",
            number(deployment, "/status/availableReplicas"),
            deployment["spec"]["replicas"]
        ));
    }
    pods.sort();
    out.extend(pods);
    for (key, job) in world.api.all(Kind::TrainingJob) {
        let _ = writeln!(out, "training {}: {}", key.name, text(job, "/status/phase"));
    }
    let _ = writeln!(out, "services: {}", world.api.all(Kind::Service).count());
    let ready = list(status, "conditions")
        .filter(|c| c["type"] == "Ready")
        .map(|c| format!("{} {}", text(c, "/status"), text(c, "/reason")));
    let _ = writeln!(out, "ready: {}", ready.collect::<String>());
    out
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

/// What may not be when all is quiet. `wanted`: the last wish was fulfilled.
pub fn wrong(world: &World, kind: Kind, wanted: Option<&str>, firings: usize) -> Option<String> {
    let release = world.api.get(kind, &Key::new(NAMESPACE, NAME))?;
    let status = &release["status"];
    let (stable, candidate) = (
        text(status, "/stable/revision"),
        text(status, "/candidate/revision"),
    );
    let state_of = || state(world);
    let paused = is_paused(world, kind);
    if !paused
        && (number(status, "/rollout/weight") != 0 || !candidate.is_empty())
        && release["spec"]["replicas"] != 0
    {
        return Some(format!(
            "nothing goes on, and there is a candidate:\n{}",
            state_of()
        ));
    }
    if let Some(word) = wanted {
        let image = content(world, stable);
        if !image.starts_with(&format!("s:{word}-last")) {
            return Some(format!(
                "the last wish, s:{word}-last, is not stable:\n{}",
                state_of()
            ));
        }
    }
    let uid = text(release, "/metadata/uid");
    for route in world.gateways.routes(uid) {
        if route.stable != stable || route.weight != number(status, "/rollout/weight") {
            return Some(format!(
                "a gateway routes to {} with {} % for {}:\n{}",
                route.stable,
                route.weight,
                route.candidate,
                state_of()
            ));
        }
    }
    for (key, deployment) in world.api.all(Kind::Deployment) {
        if let Some(name) = crate::cluster::missing_settings(&world.api, deployment) {
            return Some(format!(
                "{} reads ConfigMap {name}, which is gone:\n{}",
                key.name,
                state_of()
            ));
        }
    }
    let service = world.api.get(Kind::Service, &Key::new(NAMESPACE, NAME));
    if service.is_none() {
        return Some(format!("its Service is gone:\n{}", state_of()));
    }
    if kind == Kind::ModelDeployment {
        if crate::cluster::available(&world.api, NAME, stable) < 1
            && release["spec"]["replicas"] != 0
        {
            return Some(format!("stable has no pods:\n{}", state_of()));
        }
        for (key, deployment) in world.api.all(Kind::Deployment) {
            let hash = deployment["metadata"]["labels"][label::REVISION]
                .as_str()
                .unwrap_or_default();
            if !hash.is_empty() && hash != stable && hash != candidate {
                return Some(format!("{} was left behind:\n{}", key.name, state_of()));
            }
            if hash == stable
                && !hash.is_empty()
                && deployment["spec"]["replicas"] != release["spec"]["replicas"]
            {
                return Some(format!(
                    "stable has {} pods:\n{}",
                    deployment["spec"]["replicas"],
                    state_of()
                ));
            }
        }
    }
    let recorded = usize::try_from(number(status, "/retraining/firing")).unwrap_or(0);
    if recorded > firings {
        return Some(format!(
            "{recorded} firings, but {firings} TrainingJobs:\n{}",
            state_of()
        ));
    }
    for (what, value) in world
        .api
        .all(Kind::Service)
        .chain(world.api.all(Kind::PodDisruptionBudget))
        .chain(world.api.all(Kind::ControllerRevision))
    {
        if let Some((_, _, owner)) = crate::api::owner(value)
            && !world.api.lives(owner)
        {
            return Some(format!("{} has no owner that lives", what.name));
        }
    }
    None
}
