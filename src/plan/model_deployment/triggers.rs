//! What the triggers of a release see.

use jiff::Timestamp;

use super::{
    concept, drift, new_data, past,
    reason::retraining as reason,
    recipe::Recipe,
    retraining::{DRIFT_SHARE, Input, Output, result},
    trigger::{self, Facts, Look, Reading},
};
use crate::api::{
    model_deployment::{
        DriftStatus, DriftWindow, Protocol, Retraining, RetrainingStatus, Trigger, TriggerStatus,
    },
    rollout::MetricSource,
};

/// Shows every trigger what it watches.
pub(super) fn look(
    input: &Input<'_>,
    retraining: &Retraining,
    status: &mut RetrainingStatus,
    recipe: Option<&Recipe>,
    now: Timestamp,
    output: &mut Output,
) -> Vec<Look> {
    let Some((revision, model)) = input.stable else {
        status.triggers.clear();
        return Vec::new();
    };
    // Another stable starts anew; what a schedule waits for stays, and what is known of data.
    let anew = status.revision.as_deref() != Some(revision);
    if anew {
        status.revision = Some(revision.to_owned());
        for trigger in &mut status.triggers {
            *trigger = TriggerStatus {
                name: trigger.name.clone(),
                next_time: trigger.next_time.clone(),
                datasets: std::mem::take(&mut trigger.datasets),
                ..Default::default()
            };
        }
    }
    let made_by = status.runs.iter().rposition(|r| {
        r.version.is_some() && r.version == model.version && r.result != result::DID_NOT_HELP
    });
    let looks: Vec<Look> = retraining
        .triggers
        .iter()
        .map(|t| {
            if let Some(new_data) = &t.new_data {
                let name = &t.name;
                let trigger = new_data::Trigger { name, new_data };
                let (look, wanted) = trigger.look(input, status, recipe, now);
                output.looks.extend(wanted);
                return look;
            }
            let before = status.triggers.iter().find(|s| s.name == t.name);
            let (reading, detector) = match &t.concept {
                Some(concept) => concept::reading(input, concept, before).unzip(),
                None => (reading(input, t), None),
            };
            let facts = Facts {
                reading,
                unread: unread(input, t),
                detector,
                trained: model.trained_time.as_ref().map(|t| t.0),
                recipe: recipe.map(|r| r.key.clone()),
                retrained: made_by.is_some_and(|i| status.runs[i].trigger == t.name),
            };
            trigger::look(t, before, &facts, now)
        })
        .collect();
    if looks.iter().any(|l| l.did_not_help)
        && let Some(index) = made_by
    {
        let run = &mut status.runs[index];
        run.result = result::DID_NOT_HELP.to_owned();
        output.events.push(past::ended(run));
    }
    status.triggers = looks.iter().map(|l| l.status.clone()).collect();
    looks
}

/// The value that a trigger watches, if there is one.
fn reading(input: &Input<'_>, trigger: &Trigger) -> Option<Reading> {
    if let Some(column) = trigger::column(trigger) {
        return drift_of(input, |row| !row.prediction && row.column == column);
    }
    if trigger::predictions(trigger) {
        return drift_of(input, |row| row.prediction);
    }
    let name = trigger::metric(trigger)?;
    if name == DRIFT_SHARE {
        let columns = if input.drifted.is_empty() {
            String::new()
        } else {
            format!(": {}", input.drifted)
        };
        let window = window(input)?;
        return Some(Reading {
            value: window.share?,
            context: format!("{}{columns}", over(window)?),
            ..of_window(input, window)?
        });
    }
    let metric = input.metrics.iter().find(|m| m.name == name)?;
    Some(Reading {
        value: metric.value,
        time: metric.time,
        context: metric.context.clone(),
        samples: metric.samples,
        stale_at: metric.stale_at,
        drifted: None,
        silent: None,
    })
}

/// Why the metric that a trigger watches has no value.
fn unread(input: &Input<'_>, trigger: &Trigger) -> Option<String> {
    let name = trigger::metric(trigger)?;
    let mut silent = input.silent.iter();
    let (_, why) = silent.find(|(silent, _)| silent == name)?;
    Some(why.clone())
}

/// The last full window, if it is stable's.
fn window<'a>(input: &Input<'a>) -> Option<&'a DriftWindow> {
    let (revision, _) = input.stable?;
    input.window.filter(|window| window.revision == revision)
}

fn of_window(input: &Input<'_>, window: &DriftWindow) -> Option<Reading> {
    let end = window.end.as_ref()?.0;
    // One that few requests fill lasts longer than it must.
    let lasted = window
        .start
        .as_ref()
        .map(|start| end.duration_since(start.0));
    let length = drift::length(input.monitoring);
    let length = lasted.map_or(length, |lasted| lasted.max(length));
    Some(Reading {
        value: 0.0,
        time: end,
        context: String::new(),
        samples: Some(window.rows),
        stale_at: end.checked_add(length.saturating_mul(2)).ok(),
        drifted: None,
        silent: None,
    })
}

fn over(window: &DriftWindow) -> Option<String> {
    let end = window.end.as_ref()?.0;
    let start = window.start.as_ref().map_or(end, |t| t.0);
    Some(format!("over {} rows from {start} to {end}", window.rows))
}

/// Drift of one row in the last full window; nothing, if it wasn't compared.
fn drift_of(input: &Input<'_>, is: impl Fn(&DriftStatus) -> bool) -> Option<Reading> {
    let window = window(input)?;
    let found = input.columns.iter().find(|row| is(row))?;
    let counted = found.reason == drift::OBSERVED;
    let noise = found
        .noise
        .map(|noise| format!(", noise {noise}"))
        .unwrap_or_default();
    let context = format!("(threshold {}{noise}) {}", found.threshold, over(window)?);
    Some(Reading {
        value: found.score.filter(|_| counted)?,
        context,
        drifted: Some(found.drifted),
        samples: Some(found.samples),
        ..of_window(input, window)?
    })
}

/// What keeps a trigger from doing what its author may think: reason and sentence.
pub(super) fn doubt(
    input: &Input<'_>,
    retraining: &Retraining,
    recipe: Option<&Recipe>,
) -> Option<(&'static str, String)> {
    retraining
        .triggers
        .iter()
        .find_map(|trigger| doubt_of(input, trigger, recipe))
}

fn doubt_of(
    input: &Input<'_>,
    trigger: &Trigger,
    recipe: Option<&Recipe>,
) -> Option<(&'static str, String)> {
    let spec = &input.deployment.spec;
    let name = &trigger.name;
    if let Some(new_data) = &trigger.new_data {
        let (reason, message) = new_data::watched(new_data, &recipe?.spec).err()?;
        return Some((reason, format!("trigger {name}: {message}")));
    }
    if let Some(column) = trigger::column(trigger) {
        let watched = input.monitoring.and_then(|m| m.columns.as_ref());
        return watched
            .filter(|columns| columns.iter().all(|c| c != column))
            .map(|_| {
                let message = format!(
                    "trigger {name} watches the column {column}, which monitoring.drift.columns leaves out: name it there, or correct the trigger"
                );
                (reason::METRIC_UNKNOWN, message)
            });
    }
    if trigger::predictions(trigger) && spec.server.protocol() != Protocol::OpenInference {
        let message = format!(
            "trigger {name} watches predictions, and those of a server that speaks another protocol than OpenInference can't be read: leave it out"
        );
        return Some((reason::METRIC_UNKNOWN, message));
    }
    if trigger::predictions(trigger)
        && let Some(season) = input.monitoring.and_then(drift::season)
        && drift::predictions::is_shorter(drift::length(input.monitoring), season)
    {
        let message = format!(
            "trigger {name} watches predictions, which are compared with one earlier window: with monitoring.drift.season that takes a window of a {} or longer",
            season.name()
        );
        return Some((reason::METRIC_UNKNOWN, message));
    }
    if let Some(concept) = &trigger.concept {
        return concept::doubt(spec, name, concept);
    }
    let metric = trigger::metric(trigger).filter(|m| *m != DRIFT_SHARE)?;
    let Some(source) = spec.metrics.iter().find(|m| m.name == metric) else {
        let message = format!(
            "trigger {name} watches {metric}, which is neither driftShare nor one of spec.metrics: add it there, or correct the name"
        );
        return Some((reason::METRIC_UNKNOWN, message));
    };
    if let Some((gate, bound)) = looser_gate(input, trigger, source) {
        let message = format!(
            "trigger {name} is stricter than the gate {gate} on {metric} ({bound}): a version that passes the gate can fire the trigger at once, and so for ever; make the gate as strict, or the trigger looser"
        );
        return Some((reason::STRICTER_THAN_GATE, message));
    }
    let asked = source.evaluation.as_ref()?;
    let evaluation = input.evaluations.get(&asked.name)?;
    if evaluation.spec.schedule.is_some() {
        return None;
    }
    let never = trigger.windows.is_some_and(|n| n > 1) || trigger.hold.is_some();
    let then = match never {
        true => "the trigger can never fire",
        false => "it can fire only right after a promotion",
    };
    let message = format!(
        "trigger {name} watches {metric} of Evaluation {}, which measures each revision once: {then}; give the Evaluation a schedule",
        asked.name
    );
    Some((reason::METRIC_NEVER_CHANGES, message))
}

/// A gate of the rollout on the same metric that lets more pass than the trigger does: where it is, and its bound.
fn looser_gate(
    input: &Input<'_>,
    trigger: &Trigger,
    source: &MetricSource,
) -> Option<(String, String)> {
    let rollout = input.deployment.spec.rollout.as_ref()?;
    let analysis = rollout
        .analysis
        .iter()
        .flat_map(|a| a.gates.iter().flatten());
    let in_analysis = analysis
        .filter(|gate| gate.metric == source.name)
        .map(|gate| ("of rollout.analysis".to_owned(), gate));
    let asked = source.evaluation.as_ref();
    let demanded = asked.filter(|asked| rollout.evaluations.contains(&asked.name));
    let evaluation = demanded.and_then(|asked| Some((asked, input.evaluations.get(&asked.name)?)));
    let in_evaluation = evaluation.into_iter().flat_map(|(asked, evaluation)| {
        let gates = evaluation.spec.gates.iter();
        gates
            .filter(|gate| gate.metric == asked.metric)
            .map(|gate| (format!("of Evaluation {}", asked.name), gate))
    });
    in_analysis.chain(in_evaluation).find_map(|(place, gate)| {
        let max = trigger.max.zip(gate.max).filter(|(own, gate)| own < gate);
        let min = trigger.min.zip(gate.min).filter(|(own, gate)| own > gate);
        let words = max
            .map(|(own, gate)| format!("max {own}, the gate's {gate}"))
            .or(min.map(|(own, gate)| format!("min {own}, the gate's {gate}")))?;
        Some((place, words))
    })
}
