//! Live drift: windows of stable's inputs, compared with the profile of its training data, and of its predictions, compared with its first window.
//!
//! Windows don't overlap. One is full when it has lasted `monitoring.drift.window` *and* has `minSamples` rows, so that a
//! short window works and a quiet night is no verdict. It ends at the last minute that every gateway has closed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use predictions::Reference;
use recorded::Recorded;

use super::reason;
use crate::{
    api::{
        Duration,
        model_deployment::{DriftMonitoring, DriftStatus, DriftWindow, Season},
    },
    stats::{
        bucket::{ReleaseMeasurements, WindowFeatures},
        drift::{
            Method,
            live::{self, ColumnDrift, Drift, Reason, Rule},
        },
        profile::{self, Profile, season as like_hours},
    },
};

pub mod predictions;
pub mod recorded;

/// Seven days: a shorter window takes the weekday for drift.
const DEFAULT_WINDOW: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
/// Reason of a column that was compared and counts.
pub const OBSERVED: &str = "Observed";
/// Columns in status.
const MOST_COLUMNS: usize = 100;

/// What drift is judged on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `spec.monitoring.drift`.
    pub monitoring: &'a DriftMonitoring,
    /// Hash of stable.
    pub revision: &'a str,
    /// Since when it is stable.
    pub since: Option<Timestamp>,
    /// Profile of what it was trained on; `None`: it has none, or it isn't there.
    pub profile: Option<&'a Profile>,
    /// Why there is no profile, as a sentence.
    pub no_profile: &'a str,
    /// What gateways measured.
    pub measurements: &'a ReleaseMeasurements,
    /// What is recorded of the filling window.
    pub recorded: Option<&'a Recorded>,
    /// What its predictions are compared with.
    pub reference: Option<&'a Reference>,
}

/// What is known of drift: parts of the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// `status.driftWindow`.
    pub window: Option<DriftWindow>,
    /// `status.drift`.
    pub columns: Vec<DriftStatus>,
    /// `status.driftSummary`.
    pub summary: Option<String>,
    /// Condition DriftDetected: status, reason, message.
    pub condition: (bool, &'static str, String),
    /// When the filling window may be full.
    pub check_at: Option<Timestamp>,
    /// What later predictions are compared with: to be kept.
    pub reference: Option<Reference>,
}

/// Judges the filling window if it is full; else says what is known.
pub fn judge(input: &Input<'_>, before: &Output, now: Timestamp) -> Output {
    let Input {
        monitoring,
        revision,
        since,
        profile,
        no_profile,
        measurements,
        recorded,
        reference,
    } = *input;
    let length = length(Some(monitoring));
    let needed = monitoring
        .min_samples
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(live::DEFAULT_MIN_SAMPLES);
    // Another revision is stable: its inputs are compared with its own profile, from its own start.
    let mut window = before
        .window
        .clone()
        .filter(|w| w.revision == revision)
        .unwrap_or_else(|| DriftWindow {
            revision: revision.to_owned(),
            next: Time(minute_time(minute(since.unwrap_or(now)) + 1)),
            start: None,
            end: None,
            rows: 0,
            share: None,
        });
    let mut output = Output {
        columns: if window.end.is_some() {
            before.columns.clone()
        } else {
            Vec::new()
        },
        summary: before.summary.clone().filter(|_| window.end.is_some()),
        condition: before.condition.clone(),
        ..Output::default()
    };
    // What is neither recorded nor remembered isn't part of the window.
    let recorded = recorded.filter(|r| r.is_of(&window));
    let since = measurements.since.unwrap_or(i64::MIN);
    let remembered = recorded.map_or(minute(window.next.0), |r| r.to).max(since);
    let start = recorded.map_or(remembered, |r| r.from);
    let end = measurements.final_before.unwrap_or(i64::MIN);
    let minutes = recorded.map_or(0, |r| r.measured) + end.saturating_sub(remembered).max(0);
    let lasted = jiff::SignedDuration::from_mins(minutes);
    let (mut features, mut predicted) = if end > remembered {
        (
            measurements.features(revision, remembered, end),
            measurements.predictions(revision, remembered, end),
        )
    } else {
        Default::default()
    };
    if let Some(recorded) = recorded {
        features.unknown += recorded.unknown;
        features.add_all(&recorded.hours, &recorded.rows);
        predicted.merge(&recorded.predictions);
    }
    let inputs = features.rows.as_ref().map_or(0, |r| r.rows);
    // Where inputs can't be compared, predictions alone fill a window.
    let by_inputs = profile.is_some() && inputs > 0;
    let rows = if by_inputs { inputs } else { predicted.rows() };
    let full = rows >= needed && lasted >= length;
    let rule = Rule {
        seconds: u64::try_from(lasted.as_secs()).ok(),
        hours: features.hours.clone(),
        ..rule(monitoring, needed)
    };
    // Known before a window is full.
    let no_season = || like_hours::unknown(profile?, rule.season?);
    match profile {
        None => {
            output.summary = Some("no profile".to_owned());
            output.condition = (false, reason::NO_PROFILE, no_profile.to_owned());
        }
        Some(profile) if full && by_inputs => {
            let drift = compare(profile, &features, &rule);
            output.columns = columns(&drift);
            output.summary = Some(summary(&drift));
            output.condition = condition(&drift, rows, &beside(monitoring, length));
            window.share = drift.share.map(round);
        }
        Some(profile) if full || window.end.is_none() => {
            let filling = filling(monitoring, (inputs, needed), features.unknown);
            let (why, summary, text) = match no_season() {
                Some(text) => (reason::SEASON_UNKNOWN, "season unknown", text),
                None => filling,
            };
            output.summary = Some(summary.to_owned());
            output.columns = unknown(monitoring, profile, &rule, why);
            output.condition = (false, why, text);
            window.share = None;
        }
        Some(_) => {}
    }
    if full {
        window.start = Some(Time(minute_time(start)));
        window.end = Some(Time(minute_time(end)));
        window.next = Time(minute_time(end));
        window.rows = i64::try_from(rows).unwrap_or(i64::MAX);
        output.columns.retain(|c| !c.prediction);
        let of = (start, end, length);
        if let Some((row, new)) = predictions::judge(&predicted, of, reference, &rule) {
            if let Some(sentence) = predictions::sentence(&row) {
                let (detected, why, text) = &mut output.condition;
                *text = format!("{text}; {sentence}");
                if !std::mem::replace(detected, true) {
                    *why = reason::PREDICTIONS_DRIFTED;
                }
            }
            output.columns.push(row);
            output.reference = new;
        }
    } else if window.end.is_none() {
        // By none, so that status keeps quiet.
        let row = predictions::waiting(&predicted, reference, &rule);
        output
            .columns
            .extend(row.map(|row| DriftStatus { samples: 0, ..row }));
    } else if profile.is_none() && before.condition.1 == reason::PREDICTIONS_DRIFTED {
        // That stands until the next window says something else.
        output.condition = before.condition.clone();
    }
    let over = window.next.0 + length;
    output.check_at = Some(over.max(now + jiff::SignedDuration::from_secs(15)));
    output.window = Some(window);
    output
}

/// What is said of inputs while there are too few to compare: reason, summary, sentence.
fn filling(
    monitoring: &DriftMonitoring,
    (rows, needed): (u64, u64),
    not_understood: u64,
) -> (&'static str, &'static str, String) {
    if rows == 0 && not_understood > 0 {
        let text = "the inputs of requests are not understood: send named inputs of the Open Inference Protocol, or one 2-D tensor in the order of the signature";
        return (
            reason::FEATURES_UNKNOWN,
            "features unknown",
            text.to_owned(),
        );
    }
    let share = (10 * rows / needed).min(9) * 10; // By tenths, so that status keeps quiet.
    let window = monitoring.window.as_ref();
    let window = window.map_or("7d".to_owned(), ToString::to_string);
    let text = if rows >= needed {
        format!("there are {needed} rows; the first window of {window} is not over yet")
    } else {
        format!("{share} % of the {needed} rows that a window of {window} needs have been seen")
    };
    (reason::NOT_ENOUGH_SAMPLES, "not enough samples", text)
}

/// Columns of which nothing is known, and why.
fn unknown(
    monitoring: &DriftMonitoring,
    profile: &Profile,
    rule: &Rule,
    why: &str,
) -> Vec<DriftStatus> {
    let only = monitoring.columns.as_ref();
    let watched = |name: &String| only.is_none_or(|only| only.contains(name));
    let columns = profile.columns.iter().filter(|c| watched(&c.name));
    columns
        .take(MOST_COLUMNS)
        .map(|c| DriftStatus {
            column: c.name.clone(),
            threshold: rule.threshold(&c.name),
            reason: why.to_owned(),
            ..DriftStatus::default()
        })
        .collect()
}

/// How long a window is.
pub fn length(monitoring: Option<&DriftMonitoring>) -> jiff::SignedDuration {
    let window = monitoring.and_then(|m| m.window.as_ref());
    window.map_or(DEFAULT_WINDOW, Duration::to_signed)
}

/// Like hours of what are compared.
pub fn season(monitoring: &DriftMonitoring) -> Option<profile::Season> {
    Some(match monitoring.season? {
        Season::Day => profile::Season::Day,
        Season::Week => profile::Season::Week,
    })
}

fn rule(monitoring: &DriftMonitoring, min_samples: u64) -> Rule {
    Rule {
        columns: monitoring.columns.clone().unwrap_or_default(),
        thresholds: monitoring.thresholds.clone(),
        min_samples,
        season: season(monitoring),
        ..Rule::default()
    }
}

/// What a window was compared with, where a person should know.
fn beside(monitoring: &DriftMonitoring, length: jiff::SignedDuration) -> String {
    if let Some(season) = season(monitoring) {
        return format!("; compared with like hours of the {}", season.name());
    }
    let short = monitoring
        .window
        .as_ref()
        .filter(|_| length < DEFAULT_WINDOW);
    short.map_or(String::new(), |window| {
        format!("; compared with all hours and days of the training data, which a window of {window} resembles less than a week: season compares like hours")
    })
}

fn compare(profile: &Profile, features: &WindowFeatures, rule: &Rule) -> Drift {
    let rows = features.rows.clone().unwrap_or_default();
    live::compare(profile, &rows, rule)
}

fn columns(drift: &Drift) -> Vec<DriftStatus> {
    let columns = drift.columns.iter().take(MOST_COLUMNS);
    columns.map(column).collect()
}

fn column(c: &ColumnDrift) -> DriftStatus {
    DriftStatus {
        column: c.column.clone(),
        prediction: false,
        method: match c.method {
            Some(Method::Wasserstein) => "Wasserstein".to_owned(),
            Some(Method::JensenShannon) => "JensenShannon".to_owned(),
            Some(other) => format!("{other:?}"),
            None => String::new(),
        },
        score: c.score.map(round),
        threshold: c.threshold,
        noise: c.noise.map(round),
        samples: i64::try_from(c.samples).unwrap_or(i64::MAX),
        drifted: c.drifted,
        reason: match c.reason {
            Reason::NotObserved => "NotObserved",
            Reason::SchemaMismatch => "SchemaMismatch",
            Reason::NotEnoughSamples => "NotEnoughSamples",
            Reason::SeasonUnknown => reason::SEASON_UNKNOWN,
            Reason::Calendar => "Calendar",
            Reason::Drifted | Reason::WithinThreshold | Reason::WithinNoise => OBSERVED,
        }
        .to_owned(),
        message: c.message.clone(),
    }
}

fn summary(drift: &Drift) -> String {
    if no_season(drift).is_some() {
        return "season unknown".to_owned();
    }
    if drift.compared == 0 {
        return "nothing comparable".to_owned();
    }
    format!("{}/{}", drift.drifted, drift.compared)
}

/// Why like hours are unknown.
fn no_season(drift: &Drift) -> Option<&str> {
    let mut columns = drift.columns.iter();
    let column = columns.find(|c| c.reason == Reason::SeasonUnknown)?;
    Some(&column.message)
}

fn condition(drift: &Drift, rows: u64, beside: &str) -> (bool, &'static str, String) {
    if let Some(why) = no_season(drift) {
        return (false, reason::SEASON_UNKNOWN, why.to_owned());
    }
    let odd: Vec<&str> = drift
        .columns
        .iter()
        .filter(|c| matches!(c.reason, Reason::NotObserved | Reason::SchemaMismatch))
        .map(|c| c.message.as_str())
        .collect();
    let also = if odd.is_empty() {
        String::new()
    } else {
        format!("; {}", odd.join("; "))
    };
    if drift.drifted > 0 {
        let named: Vec<String> = drift
            .columns
            .iter()
            .filter(|c| c.drifted)
            .map(|c| {
                format!(
                    "{} {:.3} (threshold {}, noise {:.3})",
                    c.column,
                    c.score.unwrap_or_default(),
                    c.threshold,
                    c.noise.unwrap_or_default()
                )
            })
            .collect();
        let text = format!(
            "{} of {} columns drifted in {rows} rows: {}{beside}{also}",
            drift.drifted,
            drift.compared,
            named.join(", ")
        );
        (true, reason::COLUMNS_DRIFTED, text)
    } else if drift.compared == 0 {
        (
            false,
            reason::NOTHING_COMPARABLE,
            format!("no column could be compared in {rows} rows{also}"),
        )
    } else {
        (
            false,
            reason::WITHIN_THRESHOLDS,
            format!(
                "0 of {} columns drifted in {rows} rows{beside}{also}",
                drift.compared
            ),
        )
    }
}

/// Four significant digits: status doesn't show noise.
pub fn round(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
}

fn minute(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

fn minute_time(minute: i64) -> Timestamp {
    Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
