//! Retraining: exactly one TrainingJob for each firing, one at a time, and never the same for nothing.
//!
//! A firing is recorded first (`status.retraining.firing` only grows, written with a resourceVersion), then its TrainingJob is
//! created under a name that only this firing has. Once it was seen it is never made again.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::Value;

use super::{
    demand, look, model, new_data, past,
    reason::retraining as reason,
    recipe::{self, Recipe},
    trigger, triggers,
};
use crate::{
    api::{
        Evaluation, ModelDeployment, TrainingJob, annotation,
        command::HandledCommand,
        model_deployment::{
            DriftMonitoring, DriftStatus, DriftWindow, Promotion, Retraining, RetrainingRun,
            RetrainingStatus, TriggerStatus,
        },
        revision::ModelReference,
        rollout::{HistoryEntry, RejectedRevision, RolloutState},
    },
    plan::{Event, earlier},
    stats::labels::Late,
};

/// Name of the share of drifted columns among metrics.
pub const DRIFT_SHARE: &str = "driftShare";
/// Name of the command.
pub const COMMAND: &str = "retrain";

/// What came of a run.
pub mod result {
    /// Its TrainingJob is to be made, or runs.
    pub const RUNNING: &str = "Running";
    /// It made a version.
    pub const SUCCEEDED: &str = "Succeeded";
    /// It made none.
    pub const FAILED: &str = "Failed";
    /// Its version became stable.
    pub const PROMOTED: &str = "Promoted";
    /// Its version was refused; stable stays.
    pub const REJECTED: &str = "Rejected";
    /// Same recipe, same data: its version is not tried.
    pub const NO_NEW_DATA: &str = "NoNewData";
    /// Its version is stable, and the trigger's value is still beyond the bound.
    pub const DID_NOT_HELP: &str = "DidNotHelp";
    /// Its version was neither taken nor refused: another spec came, or a newer version was stable first.
    pub const SUPERSEDED: &str = "Superseded";
    /// Likewise: the spec went back to what is stable.
    pub const WITHDRAWN: &str = "Withdrawn";
    /// Likewise: there was too little data to tell.
    pub const NOT_ENOUGH_DATA: &str = "NotEnoughData";
}

/// A metric of stable, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Its name in `spec.metrics`.
    pub name: String,
    /// The value.
    pub value: f64,
    /// When it was measured.
    pub time: Timestamp,
    /// Where it comes from, for people.
    pub context: String,
    /// Samples behind it, where that is known.
    pub samples: Option<i64>,
    /// When two measurements have failed to come: it says nothing of now any more.
    pub stale_at: Option<Timestamp>,
}

/// What a retraining is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The release.
    pub deployment: &'a ModelDeployment,
    /// Hash and model of stable.
    pub stable: Option<(&'a str, &'a ModelReference)>,
    /// Windows of live inputs.
    pub window: Option<&'a DriftWindow>,
    /// `spec.monitoring.drift`.
    pub monitoring: Option<&'a DriftMonitoring>,
    /// Drift by column in the last full window.
    pub columns: &'a [DriftStatus],
    /// Names of the drifted columns, for people.
    pub drifted: &'a str,
    /// Predictions and late labels.
    pub late: &'a Late,
    /// Since when stable is.
    pub since: Option<Timestamp>,
    /// Metrics of stable.
    pub metrics: &'a [Measured],
    /// Metrics of stable from whose last measurement no verdict follows, and why.
    pub silent: &'a [(String, String)],
    /// The Evaluations that the release names, by name.
    pub evaluations: &'a BTreeMap<String, Arc<Evaluation>>,
    /// The namespace's TrainingJobs.
    pub jobs: &'a [Arc<TrainingJob>],
    /// Looks for new data.
    pub looks: look::Seen<'a>,
    /// Where the rollout is.
    pub rollout: RolloutState,
    /// The version that is tried.
    pub candidate: Option<&'a str>,
    /// The version that is to be tried, now or when what goes on has ended.
    pub next: Option<&'a str>,
    /// The ledger.
    pub rejected: &'a [RejectedRevision],
    /// The last rollouts.
    pub history: &'a [HistoryEntry],
    /// Commands that were handled.
    pub handled: &'a [HandledCommand],
}

/// What is decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// `status.retraining`.
    pub status: Option<RetrainingStatus>,
    /// TrainingJob to create, after the status is recorded.
    pub create: Option<Value>,
    /// Looks for new data that are due.
    pub looks: Vec<look::Wanted>,
    /// Condition Retraining: status, reason, message. `None`: there is nothing to say.
    pub condition: Option<(bool, &'static str, String)>,
    /// The `retrain` command, handled.
    pub handled: Option<HandledCommand>,
    /// For changes.
    pub events: Vec<Event>,
    /// When to look again.
    pub check_at: Option<Timestamp>,
}

/// Sees what became of the runs that were started. Comes before anything is decided about versions, so that one which brings nothing
/// new is never tried.
pub fn follow_runs(input: &Input<'_>, status: &mut RetrainingStatus) -> Vec<Event> {
    let mut output = Output::default();
    if let Some(retraining) = &input.deployment.spec.retraining {
        // Copied before its TrainingJob goes, whatever came of the runs.
        let _ = recipe::resolve(retraining, input.jobs, status);
        for index in 0..status.runs.len() {
            past::follow(input, status, index, &mut output);
        }
    }
    output.events
}

/// Follows the runs that were started, and starts one if a trigger is due and nothing stands against it.
pub fn decide(input: &Input<'_>, before: Option<&RetrainingStatus>, now: Timestamp) -> Output {
    let mut output = Output::default();
    let command = command(input);
    let Some(retraining) = &input.deployment.spec.retraining else {
        output.handled = command.map(|value| {
            let why = "refused: spec.retraining is not set, so there is no recipe";
            answer(value, why)
        });
        output.status = before.cloned();
        output.condition = before.map(|_| {
            (
                false,
                reason::NOT_CONFIGURED,
                "spec.retraining is not set".to_owned(),
            )
        });
        return output;
    };
    let mut status = before.cloned().unwrap_or_default();
    let recipe = recipe::resolve(retraining, input.jobs, &mut status);
    let resolved = recipe.as_ref().ok().cloned();
    let recipe = recipe.and_then(|recipe| {
        demand::windows(retraining)?;
        demand::improvement(input.deployment, retraining)?;
        Ok(recipe)
    });
    for index in 0..status.runs.len() {
        past::follow(input, &mut status, index, &mut output);
    }
    let resolved = resolved.as_ref();
    let looks = triggers::look(input, retraining, &mut status, resolved, now, &mut output);
    output.check_at = earlier(output.check_at, trigger::check_at(&looks));
    let mut due: Vec<(String, String)> = looks
        .iter()
        .filter_map(|l| Some((l.status.name.clone(), l.due.clone()?)))
        .collect();
    if let Some(value) = command {
        due.clear();
        match commanded(input, &status, &recipe, value) {
            Ok(()) => {
                fire(
                    input,
                    &mut status,
                    COMMAND,
                    "someone said `retrain`",
                    now,
                    &mut output,
                );
                arm(&mut status);
                output.handled = Some(answer(value, "Done"));
            }
            Err(why) => output.handled = Some(answer(value, &format!("refused: {why}"))),
        }
    }
    if let Some((name, why)) = due.first() {
        match &recipe {
            Ok(recipe) => start(
                input,
                retraining,
                &mut status,
                recipe,
                (name, why),
                now,
                &mut output,
            ),
            Err((_, message)) => hold(&mut status, name, why, message),
        }
    }
    past::drop_old(&mut status, retraining.limit.as_ref());
    if let (Some(run), Ok(recipe)) = (
        status
            .runs
            .iter()
            .find(|r| !r.created && r.result == result::RUNNING),
        &recipe,
    ) {
        output.create = Some(recipe::job(input.deployment, recipe, run));
    }
    let doubt = triggers::doubt(input, retraining, resolved);
    output.condition = Some(past::condition(&status, &recipe, doubt));
    status.message = output
        .condition
        .as_ref()
        .map(|c| c.2.clone())
        .unwrap_or_default();
    output.status = Some(status);
    output
}

/// The command, unless it was handled.
fn command<'a>(input: &Input<'a>) -> Option<&'a str> {
    let value = input.deployment.annotations().get(annotation::RETRAIN)?;
    let done = input.handled.iter().any(|h| h.is_of(COMMAND, value));
    (!done).then_some(value.as_str())
}

fn answer(value: &str, result: &str) -> HandledCommand {
    HandledCommand::new(COMMAND, value, result)
}

fn commanded(
    input: &Input<'_>,
    status: &RetrainingStatus,
    recipe: &Result<Recipe, (&'static str, String)>,
    value: &str,
) -> Result<(), String> {
    let Some((stable, _)) = input.stable else {
        return Err("there is no stable revision yet".to_owned());
    };
    if value.split('/').next() != Some(stable) {
        return Err(format!(
            "the stable revision is {stable}; write {stable}/<anything new>"
        ));
    }
    if let Some(run) = past::running(status) {
        return Err(format!("{} is still running", run.job));
    }
    recipe
        .as_ref()
        .map(|_| ())
        .map_err(|(_, message)| message.clone())
}

/// Fires, unless something stands against it.
fn start(
    input: &Input<'_>,
    retraining: &Retraining,
    status: &mut RetrainingStatus,
    recipe: &Recipe,
    (name, why): (&str, &str),
    now: Timestamp,
    output: &mut Output,
) {
    let pinned = recipe::inputs_pinned(&recipe.spec);
    let known = status
        .runs
        .iter()
        .filter(|r| r.result != result::FAILED)
        .filter_map(|r| r.inputs.clone())
        .chain(past::stable_inputs(input));
    if pinned.is_some() && known.into_iter().any(|i| Some(i) == pinned) {
        for trigger in status.triggers.iter_mut().filter(|t| t.name == name) {
            trigger::disarm(
                trigger,
                Some(&recipe.key),
                format!(
                    "NoNewData: {why}, but the recipe pins the data that was trained on already; name newer data in retraining.datasets, or say `retrain`"
                ),
            );
        }
        return;
    }
    if let Some(run) = past::running(status) {
        let why_not = format!("{} is still running", run.job);
        return hold(status, name, why, &why_not);
    }
    if input.rollout != RolloutState::Idle {
        return hold(status, name, why, "a rollout is going on");
    }
    if let Some((at, because)) = past::wait(retraining, status, now) {
        output.check_at = earlier(output.check_at, Some(at));
        return hold(status, name, why, &format!("{because} until {at}"));
    }
    if let Some(at) = demand::opens(retraining, now) {
        output.check_at = earlier(output.check_at, Some(at));
        let why_not = format!("no maintenance window is open until {at}");
        return hold(status, name, why, &why_not);
    }
    fire(input, status, name, why, now, output);
}

/// A new chance for what was disarmed: someone said so, or there is new data.
fn arm(status: &mut RetrainingStatus) {
    let disarmed = |t: &&mut TriggerStatus| t.state == trigger::DISARMED;
    for trigger in status.triggers.iter_mut().filter(disarmed) {
        trigger.state = trigger::ARMED.to_owned();
        trigger.disarmed_for = None;
    }
}

fn hold(status: &mut RetrainingStatus, name: &str, why: &str, why_not: &str) {
    for trigger in status.triggers.iter_mut().filter(|t| t.name == name) {
        trigger.state = trigger::PENDING.to_owned();
        trigger.message =
            crate::api::condition::bounded(format!("due ({why}), but waits: {why_not}"));
    }
}

fn fire(
    input: &Input<'_>,
    status: &mut RetrainingStatus,
    name: &str,
    why: &str,
    now: Timestamp,
    output: &mut Output,
) {
    status.firing += 1;
    let firing = status.firing;
    let run = RetrainingRun {
        firing,
        job: recipe::job_name(input.deployment, firing),
        created: false,
        trigger: name.to_owned(),
        message: crate::api::condition::bounded(why.to_owned()),
        time: Time(now),
        version: None,
        result: result::RUNNING.to_owned(),
        inputs: None,
        promotion: model::is_manual(input.deployment).then_some(Promotion::Manual),
    };
    let mut is_new = false;
    for trigger in &mut status.triggers {
        if trigger.name == name {
            trigger::fired(trigger, firing);
        }
        is_new |= new_data::read(trigger, firing);
    }
    if is_new {
        arm(status);
    }
    output.events.push(Event {
        warning: false,
        reason: reason::STARTED,
        action: "Retraining",
        note: format!(
            "retraining {firing} ({}): trigger {name} fired because {why}",
            run.job
        ),
    });
    status.runs.push(run);
}
