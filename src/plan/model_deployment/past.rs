//! Retrainings that were started: what became of them, and what that means for the next.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{
    new_data,
    reason::retraining as reason,
    recipe::{self, Recipe},
    retraining::{Input, Output, result},
    trigger,
};
use crate::{
    api::{
        model_deployment::{Retraining, RetrainingRun, RetrainingStatus, RunLimit, TriggerStatus},
        rollout::{Outcome, RolloutState},
        training_job::TrainingPhase,
    },
    plan::{Event, rollout},
};

/// Shortest time between two runs.
const DEFAULT_COOLDOWN: SignedDuration = SignedDuration::from_hours(6);
/// Runs kept whole in status.
const MOST_RUNS: usize = 20;
/// A failed run doubles the cooldown, so often at most.
const MOST_DOUBLINGS: u32 = 4;
/// The version was neither taken nor refused.
const UNDECIDED: [&str; 3] = [
    result::SUPERSEDED,
    result::WITHDRAWN,
    result::NOT_ENOUGH_DATA,
];

/// What became of a run.
pub(super) fn follow(
    input: &Input<'_>,
    status: &mut RetrainingStatus,
    index: usize,
    output: &mut Output,
) {
    let deployment = input.deployment;
    let earlier: Vec<String> = status.runs[..index]
        .iter()
        .filter(|r| r.result != result::FAILED)
        .filter_map(|r| r.inputs.clone())
        .collect();
    let run = &mut status.runs[index];
    let job = input.jobs.iter().find(|j| j.name_any() == run.job);
    let ours = job.filter(|j| recipe::is_of(j, deployment, run.firing));
    if run.result == result::RUNNING {
        match (job, ours) {
            (_, Some(job)) => {
                run.created = true;
                let training = job.status.clone().unwrap_or_default();
                match training.phase {
                    TrainingPhase::Succeeded => {
                        run.version = training.model.as_ref().and_then(|m| m.version.clone());
                        run.inputs = recipe::inputs_of(job);
                        let known = earlier.into_iter().chain(stable_inputs(input));
                        let same = run.inputs.is_some()
                            && known.into_iter().any(|i| Some(i) == run.inputs);
                        run.result = if same {
                            result::NO_NEW_DATA
                        } else {
                            result::SUCCEEDED
                        }
                        .to_owned();
                    }
                    TrainingPhase::Failed => {
                        run.result = result::FAILED.to_owned();
                        run.message =
                            format!("{}; the run failed: {}", run.message, training.message);
                    }
                    _ => {}
                }
            }
            (Some(_), None) => {
                run.result = result::FAILED.to_owned();
                run.message = format!(
                    "{}; a TrainingJob {} that is not this firing's is in the way",
                    run.message, run.job
                );
            }
            (None, None) if run.created => {
                run.result = result::FAILED.to_owned();
                run.message = format!(
                    "{}; TrainingJob {} was deleted before it ended",
                    run.message, run.job
                );
            }
            (None, None) => {}
        }
        if run.result != result::RUNNING {
            run.message = crate::api::condition::bounded(std::mem::take(&mut run.message));
            output.events.push(ended(run));
            let (name, result) = (run.trigger.clone(), run.result.clone());
            if result == result::NO_NEW_DATA {
                // What was tried is what its job says, whatever the recipe is by now.
                let tried = ours.map(|job| recipe::key(&job.spec));
                for trigger in status.triggers.iter_mut().filter(|t| t.name == name) {
                    trigger::disarm(trigger, tried.as_deref(), "NoNewData: the last run read the same data with the same recipe; disarmed until the recipe or its data changes, the value is within the bound, or someone says `retrain`".to_owned());
                }
            }
        }
    }
    let run = &mut status.runs[index];
    if run.version.is_some()
        && (run.result == result::SUCCEEDED || UNDECIDED.contains(&run.result.as_str()))
        && let Some((result, why)) = came_of(input, run)
        && run.result != result
    {
        run.result = result.to_owned();
        if let Some(why) = why {
            let message = format!("{}; {why}", run.message);
            run.message = crate::api::condition::bounded(message);
        }
        output.events.push(ended(run));
    }
}

/// What came of the version of a run, and what to say of it; nothing, as long as it is tried or waits its turn. What nobody decided may be
/// tried again, and then has another end.
fn came_of(input: &Input<'_>, run: &RetrainingRun) -> Option<(&'static str, Option<String>)> {
    let mut rejected = input.rejected.iter();
    if let Some(rejected) = rejected.find(|r| r.version == run.version) {
        let why = format!("refused: {}", rejected.message);
        return Some((result::REJECTED, Some(why)));
    }
    let last = input.history.iter().rfind(|h| h.version == run.version);
    if last.is_some_and(|h| h.outcome == Outcome::Promoted) {
        return Some((result::PROMOTED, None));
    }
    let baking = input.stable.filter(|_| input.rollout != RolloutState::Idle);
    let baking = baking.and_then(|(_, model)| model.version.as_deref());
    if [input.candidate, baking].contains(&run.version.as_deref()) {
        return None;
    }
    if let Some(last) = last {
        let result = match last.outcome {
            // Another template is tried first; then it is its turn.
            Outcome::Superseded if input.next == run.version.as_deref() => return None,
            Outcome::Superseded => result::SUPERSEDED,
            Outcome::Withdrawn => result::WITHDRAWN,
            Outcome::Aborted if last.reason == rollout::reason::NOT_ENOUGH_DATA => {
                result::NOT_ENOUGH_DATA
            }
            Outcome::Aborted | Outcome::Promoted | Outcome::RolledBack => return None,
        };
        return Some((result, Some(last.message.clone())));
    }
    let (_, stable) = input.stable?;
    // Only newer versions of the same model than stable's are ever tried.
    let mut jobs = input.jobs.iter().filter(|j| j.name_any() == run.job);
    let model = stable.name.as_ref()?;
    let same = jobs.all(|job| job.spec.model.name == *model);
    (same && stable.version > run.version).then(|| {
        let version = stable.version.as_deref().unwrap_or_default();
        let why = format!("it was never tried, as {version}, which is newer, was stable first");
        (result::SUPERSEDED, Some(why))
    })
}

pub(super) fn ended(run: &RetrainingRun) -> Event {
    let bad = [
        result::FAILED,
        result::REJECTED,
        result::NO_NEW_DATA,
        result::DID_NOT_HELP,
    ]
    .contains(&run.result.as_str());
    let version = run
        .version
        .as_ref()
        .map(|v| format!(", version {v}"))
        .unwrap_or_default();
    Event {
        warning: bad,
        reason: match run.result.as_str() {
            result::FAILED => reason::FAILED,
            result::REJECTED => reason::REJECTED,
            result::NO_NEW_DATA => reason::NO_NEW_DATA,
            result::PROMOTED => reason::PROMOTED,
            result::DID_NOT_HELP => reason::DID_NOT_HELP,
            undecided if UNDECIDED.contains(&undecided) => reason::UNDECIDED,
            _ => reason::SUCCEEDED,
        },
        action: "Retraining",
        note: format!(
            "retraining {} ({}{version}): {}; it had fired because {}",
            run.firing, run.job, run.result, run.message
        ),
    }
}

/// What stable was made of, if its TrainingJob is still there.
pub(super) fn stable_inputs(input: &Input<'_>) -> Option<String> {
    let (_, model) = input.stable?;
    let name = model.training_job.as_ref()?;
    let job = input.jobs.iter().find(|j| j.name_any() == *name)?;
    let made = job.status.as_ref()?.model.as_ref()?.version == model.version;
    made.then(|| recipe::inputs_of(job)).flatten()
}

pub(super) fn running(status: &RetrainingStatus) -> Option<&RetrainingRun> {
    status.runs.iter().find(|r| r.result == result::RUNNING)
}

/// Until when cooldown or limit stand against another run.
pub(super) fn wait(
    retraining: &Retraining,
    status: &RetrainingStatus,
    now: Timestamp,
) -> Option<(Timestamp, String)> {
    let runs = &status.runs;
    let last = runs.last()?;
    let failures = runs
        .iter()
        .rev()
        .take_while(|r| r.result == result::FAILED)
        .count();
    let failures = u32::try_from(failures)
        .unwrap_or(u32::MAX)
        .min(MOST_DOUBLINGS);
    let cooldown = retraining
        .cooldown
        .as_ref()
        .map_or(DEFAULT_COOLDOWN, |c| c.to_signed());
    let cooldown = cooldown.saturating_mul(1 << failures);
    let cool = last.time.0.checked_add(cooldown).unwrap_or(Timestamp::MAX);
    let cool = (cool > now).then(|| match failures {
        0 => (cool, "cooldown".to_owned()),
        n => (cool, format!("cooldown after {n} failed runs")),
    });
    let limited = retraining.limit.as_ref().and_then(|limit| {
        let most = usize::try_from(limit.runs).unwrap_or(1).max(1);
        let starts = status
            .earlier_runs
            .iter()
            .chain(runs.iter().map(|r| &r.time));
        let at = starts
            .rev()
            .nth(most - 1)?
            .0
            .checked_add(limit.per.to_signed())
            .unwrap_or(Timestamp::MAX);
        (at > now).then(|| (at, format!("limit of {most} runs in {}", limit.per)))
    });
    match (cool, limited) {
        (Some(a), Some(b)) => Some(if a.0 >= b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}

/// Keeps status bounded: runs whole up to [`MOST_RUNS`], of those before only when they began, as far as the limit counts them.
pub(super) fn drop_old(status: &mut RetrainingStatus, limit: Option<&RunLimit>) {
    let excess = status.runs.len().saturating_sub(MOST_RUNS);
    let old = status.runs.drain(..excess).map(|run| run.time);
    status.earlier_runs.extend(old);
    let counted = limit.and_then(|l| usize::try_from(l.runs).ok());
    let kept = counted.unwrap_or(0).saturating_sub(MOST_RUNS);
    let excess = status.earlier_runs.len().saturating_sub(kept);
    status.earlier_runs.drain(..excess);
}

pub(super) fn condition(
    status: &RetrainingStatus,
    recipe: &Result<Recipe, (&'static str, String)>,
    doubt: Option<(&'static str, String)>,
) -> (bool, &'static str, String) {
    if let Some(run) = running(status) {
        return (
            true,
            reason::RUNNING,
            format!(
                "retraining {} ({}), because {}",
                run.firing, run.job, run.message
            ),
        );
    }
    if let Err((reason, message)) = recipe {
        return (false, reason, message.clone());
    }
    let waits = |t: &&TriggerStatus| t.message.starts_with("due (");
    if let Some(trigger) = status.triggers.iter().find(waits) {
        return (
            false,
            reason::WAITING,
            format!("trigger {} is {}", trigger.name, trigger.message),
        );
    }
    if let Some(trigger) = status
        .triggers
        .iter()
        .find(|t| t.state == trigger::DISARMED)
    {
        let reason = if trigger.message.starts_with(reason::NO_NEW_DATA) {
            reason::NO_NEW_DATA
        } else {
            reason::DID_NOT_HELP
        };
        return (
            false,
            reason,
            format!("trigger {}: {}", trigger.name, trigger.message),
        );
    }
    if let Some((reason, message)) = doubt {
        return (false, reason, message);
    }
    let unseen = |t: &&TriggerStatus| t.message.starts_with(new_data::UNSEEN);
    if let Some(trigger) = status.triggers.iter().find(unseen) {
        return (
            false,
            reason::DATA_UNREADABLE,
            format!("trigger {} {}", trigger.name, trigger.message),
        );
    }
    let last = status.runs.last();
    match last {
        Some(run) => (
            false,
            reason::ARMED,
            format!("retraining {} ({}): {}", run.firing, run.job, run.result),
        ),
        None => (false, reason::ARMED, "no trigger has fired".to_owned()),
    }
}
