//! One trigger: what it reads, whether it is due.
//!
//! A value counts once, by the end of its window or the time of its measurement; one that isn't fresh, is stale or has too few samples neither
//! fires nor clears.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::retraining::DRIFT_SHARE;
use crate::{
    api::{
        condition::bounded,
        model_deployment::{Trigger, TriggerStatus},
    },
    plan::{earlier, schedule},
};

/// Waits for its bound to be broken.
pub const ARMED: &str = "Armed";
/// Broken, but not for long enough, or something stands against a run now.
pub const PENDING: &str = "Pending";
/// It has started the last run.
pub const FIRED: &str = "Fired";
/// Another run is known to bring nothing, until there is new data, another recipe, or someone says `retrain`.
pub const DISARMED: &str = "Disarmed";

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The value.
    pub value: f64,
    /// End of its window, or when it was measured.
    pub time: Timestamp,
    /// Where it comes from, for people: window, columns.
    pub context: String,
    /// Samples behind it, where that is known.
    pub samples: Option<i64>,
    /// When it is too old, unless the trigger says so: twice as long as from one measurement to the next.
    pub stale_at: Option<Timestamp>,
    /// Whether it is beyond its bound, where that isn't the trigger's: the column's threshold and noise.
    pub drifted: Option<bool>,
    /// Why all that has come since the last value says nothing: it neither fires nor clears.
    pub silent: Option<String>,
}

/// What is known when a trigger is looked at.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The last value of its metric.
    pub reading: Option<Reading>,
    /// Why there is none, where somebody knows.
    pub unread: Option<String>,
    /// The detector's state after that value.
    pub detector: Option<String>,
    /// When stable's training ended.
    pub trained: Option<Timestamp>,
    /// The recipe and overrides of now; none while it can't be resolved.
    pub recipe: Option<String>,
    /// A run of this trigger made what is stable now: its first value says whether that helped.
    pub retrained: bool,
}

/// What came of looking.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// Its state.
    pub status: TriggerStatus,
    /// It is due: why, with metric, value, bound and window.
    pub due: Option<String>,
    /// The retraining that made stable did not help.
    pub did_not_help: bool,
    /// When to look again.
    pub check_at: Option<Timestamp>,
}

/// Looks at one trigger.
pub fn look(
    trigger: &Trigger,
    before: Option<&TriggerStatus>,
    facts: &Facts,
    now: Timestamp,
) -> Look {
    let mut status = before.cloned().unwrap_or_default();
    status.name.clone_from(&trigger.name);
    if status.state.is_empty() {
        status.state = ARMED.to_owned();
    }
    // A recipe that isn't there is no other recipe, and the one that comes after it may be the same.
    if let Some(recipe) = &facts.recipe
        && status.state == DISARMED
    {
        let of = status.disarmed_for.get_or_insert_with(|| recipe.clone());
        if of != recipe {
            status.state = ARMED.to_owned();
            status.disarmed_for = None;
            status.message.clear();
        }
    }
    let mut look = Look {
        status,
        ..Look::default()
    };
    if let Some(text) = &trigger.schedule {
        scheduled(trigger, text, &mut look, now);
    } else if let Some(age) = &trigger.max_age {
        aged(age, facts, &mut look, now);
    } else {
        measured(trigger, facts, &mut look, now);
    }
    if look.status.state == DISARMED {
        look.due = None;
    }
    look
}

/// Sets a trigger to rest until something is new: another recipe than this one, or, if it isn't known, than the next that is.
pub fn disarm(status: &mut TriggerStatus, recipe: Option<&str>, message: String) {
    status.state = DISARMED.to_owned();
    status.disarmed_for = recipe.map(str::to_owned);
    status.failing = 0;
    status.failing_since = None;
    status.message = message;
}

/// Notes that it has started a run: it must be broken anew before the next.
pub fn fired(status: &mut TriggerStatus, firing: i64) {
    status.state = FIRED.to_owned();
    status.failing = 0;
    status.failing_since = None;
    status.message = format!("started retraining {firing}");
}

fn scheduled(trigger: &Trigger, text: &str, look: &mut Look, now: Timestamp) {
    let status = &mut look.status;
    let next = match schedule::next(text, trigger.time_zone.as_deref(), now) {
        Ok(next) => next,
        Err(message) => {
            status.message = message;
            status.next_time = None;
            return;
        }
    };
    // An edited schedule counts from now; one that was missed is made up for once.
    let kept = status
        .next_time
        .as_ref()
        .map(|t| t.0)
        .filter(|t| *t <= next);
    let due = kept.is_some_and(|t| t <= now);
    status.next_time = Some(Time(if due { next } else { kept.unwrap_or(next) }));
    look.check_at = status.next_time.as_ref().map(|t| t.0);
    // A disarmed one lets its times pass: none of them is a reason to try the same again.
    if status.state == DISARMED {
        return;
    }
    if due || status.state == PENDING {
        status.state = PENDING.to_owned();
        look.due = Some(format!("the schedule `{text}` says so"));
    } else {
        status.message = format!("next at {}", look.check_at.unwrap_or(now));
    }
}

fn aged(age: &crate::api::Duration, facts: &Facts, look: &mut Look, now: Timestamp) {
    let status = &mut look.status;
    let Some(trained) = facts.trained else {
        status.message = "it is not known when stable's training ended".to_owned();
        return;
    };
    let at = trained + age.to_signed();
    status.next_time = Some(Time(at));
    if at <= now {
        if status.state != DISARMED {
            status.state = PENDING.to_owned();
        }
        look.due = Some(format!(
            "stable's training ended at {trained}, longer ago than {age}"
        ));
    } else {
        status.state = ARMED.to_owned();
        status.message = format!("stable's training ended at {trained}: old at {at}");
        look.check_at = Some(at);
    }
}

/// The bounds of a trigger on a value.
fn bounds(trigger: &Trigger) -> (Option<f64>, Option<f64>) {
    match &trigger.drift {
        Some(drift) => (None, drift.share.as_ref().map(|s| s.max)),
        None => (trigger.min, trigger.max),
    }
}

/// The column whose drift a trigger watches, if it watches one.
pub fn column(trigger: &Trigger) -> Option<&str> {
    trigger.drift.as_ref()?.column.as_deref()
}

/// Whether a trigger watches what is predicted.
pub fn predictions(trigger: &Trigger) -> bool {
    trigger
        .drift
        .as_ref()
        .is_some_and(|d| d.prediction == Some(true))
}

/// The metric that a trigger reads, if it reads one.
pub fn metric(trigger: &Trigger) -> Option<&str> {
    match &trigger.drift {
        Some(drift) => drift.share.as_ref().map(|_| DRIFT_SHARE),
        None => trigger.metric.as_deref(),
    }
}

/// On which side of the bound a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Beyond,
    /// Not beyond, but not far enough from it to clear.
    Between,
    Within,
}

/// Where a value is, and the bound in words.
fn side(trigger: &Trigger, reading: &Reading) -> (Side, String) {
    if let Some(drifted) = reading.drifted {
        let side = if drifted { Side::Beyond } else { Side::Within };
        return (side, String::new());
    }
    let (min, max) = bounds(trigger);
    let value = reading.value;
    let below = |bound: Option<f64>| bound.is_some_and(|bound| value < bound);
    let above = |bound: Option<f64>| bound.is_some_and(|bound| value > bound);
    let clear = |bound: Option<f64>| bound.map(|bound| trigger.clear.unwrap_or(bound));
    let side = if below(min) || above(max) {
        Side::Beyond
    } else if below(clear(min)) || above(clear(max)) {
        Side::Between
    } else {
        Side::Within
    };
    let words = match (min, max) {
        (Some(min), _) if below(Some(min)) => format!(" (min {min})"),
        (_, Some(max)) if above(Some(max)) => format!(" (max {max})"),
        (Some(min), None) => format!(" (min {min})"),
        (None, Some(max)) => format!(" (max {max})"),
        (Some(min), Some(max)) => format!(" (min {min}, max {max})"),
        (None, None) => " (no bound)".to_owned(),
    };
    (side, words)
}

/// Why a value neither fires nor clears.
fn says_nothing(trigger: &Trigger, reading: &Reading, now: Timestamp) -> Option<String> {
    let needed = trigger.min_samples.unwrap_or(0);
    match reading.samples {
        _ if needed == 0 => {}
        None => {
            return Some(format!(
                "nobody says how many samples are behind it, and minSamples is {needed}"
            ));
        }
        Some(samples) if samples < needed => {
            return Some(format!("{samples} of {needed} samples (minSamples)"));
        }
        Some(_) => {}
    }
    let at = stale_at(trigger, reading).filter(|at| *at <= now)?;
    Some(format!("measured at {}, stale since {at}", reading.time))
}

/// When a value is too old to fire or clear.
fn stale_at(trigger: &Trigger, reading: &Reading) -> Option<Timestamp> {
    match &trigger.stale_after {
        Some(age) => reading.time.checked_add(age.to_signed()).ok(),
        None => reading.stale_at,
    }
}

fn measured(trigger: &Trigger, facts: &Facts, look: &mut Look, now: Timestamp) {
    let status = &mut look.status;
    let name = match (column(trigger), &trigger.concept) {
        (Some(column), _) => format!("drift of {column}"),
        (None, Some(concept)) => format!("mean loss of {}", concept.metric),
        (None, None) if predictions(trigger) => "drift of the predictions".to_owned(),
        (None, None) => metric(trigger).unwrap_or_default().to_owned(),
    };
    let Some(reading) = &facts.reading else {
        if status.state == ARMED {
            let why = facts.unread.as_ref().map(|why| format!(": {why}"));
            let why = why.unwrap_or_default();
            status.message = bounded(format!("waits for a value of {name}{why}"));
        }
        return;
    };
    if let Some(why) = &reading.silent {
        // It was looked at, and is not looked at again.
        status.counted_until = Some(Time(reading.time));
        status.detector.clone_from(&facts.detector);
        if status.state != DISARMED {
            status.message = bounded(format!("{name}: {why}: it neither fires nor clears"));
        }
        return;
    }
    let windows = trigger
        .windows
        .unwrap_or(if trigger.drift.is_some() || name == DRIFT_SHARE {
            2
        } else {
            1
        });
    let (side, bound) = side(trigger, reading);
    let value = super::drift::round(reading.value);
    let saying = format!("{name} {value}{bound} {}", reading.context);
    if let Some(why) = says_nothing(trigger, reading, now) {
        if status.state == ARMED || status.state == PENDING {
            status.message = format!("{saying}: {why}: it neither fires nor clears");
        }
        return;
    }
    let first = status.value.is_none();
    let fresh = status
        .counted_until
        .as_ref()
        .is_none_or(|t| t.0 < reading.time);
    if fresh {
        status.counted_until = Some(Time(reading.time));
        status.detector.clone_from(&facts.detector);
        status.value = Some(value);
        match side {
            Side::Within => {
                status.state = ARMED.to_owned();
                status.disarmed_for = None;
                status.failing = 0;
                status.failing_since = None;
                status.message = format!("{saying}: within the bound");
                return;
            }
            Side::Beyond if first && facts.retrained && status.state != DISARMED => {
                look.did_not_help = true;
                disarm(
                    status,
                    facts.recipe.as_deref(),
                    format!(
                        "RetrainingDidNotHelp: {saying} is still beyond the bound after the retraining; disarmed until the value is within it, the recipe or its data changes, or someone says `retrain`"
                    ),
                );
                return;
            }
            Side::Beyond => {
                status.failing += 1;
                status.failing_since.get_or_insert(Time(reading.time));
            }
            Side::Between => {}
        }
    }
    if status.state == DISARMED {
        return;
    }
    let lasted = status
        .failing_since
        .as_ref()
        .map(|t| reading.time.duration_since(t.0));
    let long_enough = trigger
        .hold
        .as_ref()
        .is_none_or(|hold| status.failing >= 2 && lasted.is_some_and(|l| l >= hold.to_signed()));
    // What was due before, while something stood against it, still is.
    let due = status.failing >= windows
        && long_enough
        && side != Side::Within
        && (fresh || status.state == PENDING);
    if fresh {
        let hold = trigger
            .hold
            .as_ref()
            .map(|h| format!(", for {h}"))
            .unwrap_or_default();
        let said = match (side, trigger.clear) {
            (Side::Between, Some(clear)) => {
                format!("; neither beyond the bound nor at {clear}, where it clears")
            }
            _ => String::new(),
        };
        status.message = format!(
            "{saying}: beyond the bound in {} of {windows} windows{hold}{said}",
            status.failing
        );
        if due || (side == Side::Beyond && status.state != FIRED) {
            status.state = PENDING.to_owned();
        }
    }
    if due {
        look.due = Some(format!(
            "{saying}, beyond the bound in {} windows",
            status.failing
        ));
    }
    if status.state == PENDING {
        look.check_at = stale_at(trigger, reading);
    }
}

/// The earliest of all.
pub fn check_at(looks: &[Look]) -> Option<Timestamp> {
    looks
        .iter()
        .fold(None, |at, look| earlier(at, look.check_at))
}
