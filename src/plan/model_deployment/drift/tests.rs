use std::sync::Arc;

use super::*;
use crate::stats::{
    bucket::{Bucket, Traffic},
    profile::ProfileBuilder,
    sketch::{Cell, ColumnKind},
};

fn profile() -> Profile {
    static PROFILE: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(make_profile);
    PROFILE.clone()
}

fn make_profile() -> Profile {
    let mut builder = ProfileBuilder::new([("temp", ColumnKind::Numeric)]);
    for i in 0..2000 {
        builder.add(&[Cell::Number(f64::from(i % 20))]);
    }
    builder.finish()
}

/// Each minute from `from` has 100 rows of inputs, shifted by `shift`.
fn traffic(from: i64, minutes: i64, shift: f64) -> ReleaseMeasurements {
    let bucket = |minute: i64| {
        let mut rows = profile().sketch();
        for i in 0..100 {
            rows.add([("temp", Cell::Number(f64::from(i % 20) + shift))]);
        }
        Arc::new(Bucket {
            revision: "a".to_owned(),
            minute,
            traffic: Traffic::default(),
            features: Some(rows),
            ..Bucket::default()
        })
    };
    ReleaseMeasurements {
        buckets: (from..from + minutes).map(bucket).collect(),
        final_before: Some(from + minutes),
        since: Some(0),
        ..ReleaseMeasurements::default()
    }
}

fn monitoring(window: &str, min_samples: i64) -> DriftMonitoring {
    DriftMonitoring {
        window: Some(window.parse().unwrap()),
        min_samples: Some(min_samples),
        thresholds: [("*".to_owned(), 0.2)].into(),
        ..DriftMonitoring::default()
    }
}

fn run(
    monitoring: &DriftMonitoring,
    measurements: &ReleaseMeasurements,
    before: &Output,
) -> Output {
    let profile = profile();
    let input = Input {
        monitoring,
        revision: "a",
        since: Some(minute_time(9)),
        profile: Some(&profile),
        no_profile: "",
        measurements,
        recorded: None,
        reference: None,
    };
    judge(
        &input,
        before,
        minute_time(measurements.final_before.unwrap()),
    )
}

#[test]
fn a_window_is_full_when_it_has_lasted_and_has_the_rows() {
    let rule = monitoring("2m", 500);
    for (minutes, full) in [(2, false), (4, false), (5, true), (6, true)] {
        let output = run(&rule, &traffic(10, minutes, 9.0), &Output::default());
        assert_eq!(output.window.unwrap().end.is_some(), full, "{minutes}");
        assert_eq!(output.condition.0, full, "{minutes}");
        assert_eq!(
            output.condition.1,
            if full {
                "ColumnsDrifted"
            } else {
                "NotEnoughSamples"
            }
        );
    }
    let long = run(
        &monitoring("10m", 500),
        &traffic(10, 9, 9.0),
        &Output::default(),
    );
    assert_eq!(long.condition.1, "NotEnoughSamples");
}

#[test]
fn windows_do_not_overlap_and_keep_quiet_while_they_fill() {
    let rule = monitoring("1m", 500);
    let first = run(&rule, &traffic(10, 5, 0.0), &Output::default());
    assert_eq!(first.summary.as_deref(), Some("0/1"));
    let mut again = traffic(10, 9, 0.0);
    assert_eq!(run(&rule, &again, &first).window, first.window);
    again.buckets.extend(traffic(19, 1, 0.0).buckets);
    again.final_before = Some(20);
    let second = run(&rule, &again, &first).window.unwrap();
    assert_eq!(
        (second.start, second.rows),
        (first.window.unwrap().end, 500)
    );
}

#[test]
fn another_stable_starts_its_own_window() {
    let rule = monitoring("1m", 500);
    let first = run(&rule, &traffic(10, 5, 9.0), &Output::default());
    let profile = profile();
    let measurements = traffic(10, 5, 9.0);
    let input = Input {
        monitoring: &rule,
        revision: "b",
        since: Some(minute_time(14)),
        profile: Some(&profile),
        no_profile: "",
        measurements: &measurements,
        recorded: None,
        reference: None,
    };
    let output = judge(&input, &first, minute_time(15));
    assert_eq!(
        (output.condition.0, output.condition.1),
        (false, "NotEnoughSamples")
    );
    assert_eq!(output.window.unwrap().next, Time(minute_time(15)));
}

#[test]
fn inputs_that_are_not_understood_are_not_called_no_drift() {
    let mut measurements = traffic(10, 1, 0.0);
    let bucket = Bucket {
        revision: "a".to_owned(),
        minute: 10,
        traffic: Traffic {
            features_unknown: 70,
            ..Traffic::default()
        },
        ..Bucket::default()
    };
    measurements.buckets = vec![Arc::new(bucket)];
    let output = run(&monitoring("1m", 500), &measurements, &Output::default());
    assert_eq!(output.condition.1, "FeaturesUnknown");
    assert_eq!(output.columns[0].reason, "FeaturesUnknown");
}

/// As [`traffic`], with a hundred answers in each minute, of which so many are `yes`.
fn answers(from: i64, minutes: i64, yes: usize, inputs: bool) -> ReleaseMeasurements {
    let mut measurements = traffic(from, minutes, 0.0);
    for bucket in &mut measurements.buckets {
        let bucket = Arc::make_mut(bucket);
        let mut rows = crate::stats::predictions::empty();
        for i in 0..100 {
            let said = if i < yes { "yes" } else { "no" };
            let guess = crate::stats::labels::Guess {
                said: Some(said.to_owned()),
                ..Default::default()
            };
            crate::stats::predictions::add(&mut rows, &guess, false);
        }
        bucket.predictions = Some(rows);
        if !inputs {
            bucket.features = None;
            bucket.traffic.features_unknown = 100;
        }
    }
    measurements
}

fn judged(
    profile: Option<&Profile>,
    measurements: &ReleaseMeasurements,
    reference: Option<&Reference>,
    before: &Output,
) -> Output {
    let input = Input {
        monitoring: &monitoring("5m", 500),
        revision: "a",
        since: Some(minute_time(9)),
        profile,
        no_profile: "there is none",
        measurements,
        recorded: None,
        reference,
    };
    let now = minute_time(measurements.final_before.unwrap());
    judge(&input, before, now)
}

#[test]
fn predictions_drift_beside_the_columns_and_count_in_no_share() {
    let profile = profile();
    let filling = judged(
        Some(&profile),
        &answers(10, 2, 20, true),
        None,
        &Output::default(),
    );
    let row = filling.columns.last().unwrap();
    assert_eq!(
        (row.column.as_str(), row.reason.as_str(), row.samples),
        ("prediction", "NotEnoughSamples", 0)
    );
    let first = judged(Some(&profile), &answers(10, 5, 20, true), None, &filling);
    let reference = first.reference.clone().unwrap();
    assert_eq!((reference.from, reference.to), (10, 15));
    assert_eq!(first.columns.last().unwrap().reason, "Reference");
    assert_eq!(first.summary.as_deref(), Some("0/1"));
    assert_eq!(first.condition.1, "WithinThresholds");

    let kept = Some(&reference);
    let same = judged(Some(&profile), &answers(15, 5, 21, true), kept, &first);
    assert_eq!((same.condition.0, &same.reference), (false, &None));
    let other = judged(Some(&profile), &answers(15, 5, 90, true), kept, &first);
    assert_eq!(
        (other.condition.0, other.condition.1),
        (true, "PredictionsDrifted")
    );
    assert!(other.condition.2.contains("what is predicted drifted"));
    assert_eq!(other.summary.as_deref(), Some("0/1"));
    assert_eq!(other.window.as_ref().unwrap().share, Some(0.0));
    let rows: Vec<_> = other
        .columns
        .iter()
        .map(|c| (c.drifted, c.prediction))
        .collect();
    assert_eq!(rows, [(false, false), (true, true)]);
    // Until the next window says something else.
    let quiet = judged(Some(&profile), &answers(15, 5, 90, true), kept, &other);
    assert_eq!(quiet.condition, other.condition);
}

#[test]
fn predictions_are_watched_where_inputs_can_not_be() {
    for profile in [None, Some(&profile())] {
        let first = judged(
            profile,
            &answers(10, 5, 20, false),
            None,
            &Output::default(),
        );
        let reference = first.reference.clone();
        assert!(reference.is_some(), "{first:?}");
        assert_eq!(first.window.as_ref().unwrap().share, None);
        let why = if profile.is_some() {
            "FeaturesUnknown"
        } else {
            "NoProfile"
        };
        assert_eq!(first.condition.1, why);
        let (kept, measured) = (reference.as_ref(), answers(15, 5, 90, false));
        let other = judged(profile, &measured, kept, &first);
        assert_eq!(other.condition.1, "PredictionsDrifted", "{why}");
        let quiet = judged(profile, &measured, kept, &other);
        assert_eq!(quiet.condition, other.condition, "{why}");
        let back = judged(profile, &answers(20, 5, 20, false), kept, &other);
        assert_eq!(back.condition.1, why);
    }
}

#[test]
fn without_times_in_the_training_data_a_season_is_no_verdict_from_the_start() {
    let rule = DriftMonitoring {
        season: Some(Season::Day),
        ..monitoring("2m", 500)
    };
    for minutes in [2, 5] {
        let output = run(&rule, &traffic(10, minutes, 9.0), &Output::default());
        let window = output.window.unwrap();
        assert_eq!((window.end.is_some(), window.share), (minutes == 5, None));
        assert_eq!(output.summary.as_deref(), Some("season unknown"));
        let (detected, why, text) = output.condition;
        assert_eq!((detected, why), (false, "SeasonUnknown"));
        assert!(text.contains("datasets[].time"), "{text}");
        assert_eq!(output.columns[0].reason, "SeasonUnknown");
    }
}

/// What comes at night isn't what comes at noon; a window of an hour of either has not drifted, and says what it was compared with.
#[test]
fn a_window_is_compared_with_like_hours() {
    let at = |minute: i64| {
        if minute.rem_euclid(1440) < 720 {
            0.0
        } else {
            30.0
        }
    };
    let mut builder = ProfileBuilder::new([("temp", ColumnKind::Numeric)]);
    for i in 0..20 * 1440_i64 {
        let value = at(i) + (i % 20) as f64;
        builder.add_at(Some(60 * i), &[Cell::Number(value)]);
    }
    let profile = builder.finish();
    let judged = |from: i64, shift: f64, season| {
        let measurements = traffic(from, 60, shift);
        let rule = DriftMonitoring {
            season,
            ..monitoring("1h", 500)
        };
        let input = Input {
            monitoring: &rule,
            revision: "a",
            since: Some(minute_time(from - 1)),
            profile: Some(&profile),
            no_profile: "",
            measurements: &measurements,
            recorded: None,
            reference: None,
        };
        judge(&input, &Output::default(), minute_time(from + 60)).condition
    };
    let day = Some(Season::Day);
    let (night, noon) = (30_000 * 1440 + 120, 30_000 * 1440 + 900);
    for (from, shift, season, detected, words) in [
        (
            night,
            0.0,
            day,
            false,
            "compared with like hours of the day",
        ),
        (
            noon,
            30.0,
            day,
            false,
            "compared with like hours of the day",
        ),
        (
            night,
            30.0,
            day,
            true,
            "compared with like hours of the day",
        ),
        (noon, 0.0, day, true, "compared with like hours of the day"),
        (noon, 0.0, None, false, "season compares like hours"),
    ] {
        let (found, _, text) = judged(from, shift, season);
        assert_eq!(found, detected, "{from} {shift} {season:?}: {text}");
        assert!(text.contains(words), "{text}");
    }
}
