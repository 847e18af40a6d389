//! What the triggers of a release see.

use jiff::Timestamp;

use super::{
    past,
    retraining::{DRIFT_SHARE, Input, Output, result},
    trigger::{self, Facts, Look, Reading},
};
use crate::api::model_deployment::{Retraining, RetrainingStatus, Trigger, TriggerStatus};

/// Shows every trigger what it watches.
pub(super) fn look(
    input: &Input<'_>,
    retraining: &Retraining,
    status: &mut RetrainingStatus,
    key: &str,
    now: Timestamp,
    output: &mut Output,
) -> Vec<Look> {
    let Some((revision, model)) = input.stable else {
        status.triggers.clear();
        return Vec::new();
    };
    // Another stable starts anew; what a schedule waits for stays.
    let anew = status.revision.as_deref() != Some(revision);
    if anew {
        status.revision = Some(revision.to_owned());
        for trigger in &mut status.triggers {
            *trigger = TriggerStatus {
                name: trigger.name.clone(),
                next_time: trigger.next_time.clone(),
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
            let facts = Facts {
                reading: reading(input, t),
                trained: model.trained_time.as_ref().map(|t| t.0),
                recipe: key.to_owned(),
                retrained: made_by.is_some_and(|i| status.runs[i].trigger == t.name),
            };
            let before = status.triggers.iter().find(|s| s.name == t.name);
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
    let name = trigger::metric(trigger)?;
    if name == DRIFT_SHARE {
        let window = input.window?;
        let (revision, _) = input.stable?;
        let end = window.end.as_ref()?.0;
        let start = window.start.as_ref().map_or(end, |t| t.0);
        let columns = if input.drifted.is_empty() {
            String::new()
        } else {
            format!(": {}", input.drifted)
        };
        return (window.revision == revision).then_some(Reading {
            value: window.share?,
            time: end,
            context: format!("over {} rows from {start} to {end}{columns}", window.rows),
        });
    }
    let metric = input.metrics.iter().find(|m| m.name == name)?;
    Some(Reading {
        value: metric.value,
        time: metric.time,
        context: metric.context.clone(),
    })
}
