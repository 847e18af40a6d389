use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;

use super::{
    loops::{trigger, world},
    world::World,
};
use crate::{
    api::rollout::MetricSource,
    stats::labels::{Guess, Label, LatePart, Prediction, Samples},
};

/// Labels are waited for two minutes; windows are five.
fn watched() -> World {
    let mut world = world(json!({"triggers": [
        {"name": "worse", "metric": "live", "min": 0.7, "windows": 2, "minSamples": 50},
    ]}));
    let labels = json!({"metric": "accuracy", "horizon": "2m", "minCoverage": 0.8, "window": "5m"});
    world.edit(|release| {
        release.spec.metrics = vec![MetricSource {
            name: "live".into(),
            labels: Some(serde_json::from_value(labels).unwrap()),
            ..MetricSource::default()
        }];
    });
    world.late.since = Some(0);
    world
}

/// So many minutes of twenty requests each, of which so many of ten are predicted rightly and so many labelled, a minute later.
fn minutes(world: &mut World, minutes: i64, right: u64, labelled: u64) {
    let revision = world.status().stable.as_ref().unwrap().revision.clone();
    for _ in 0..minutes {
        let second = world.now.as_second();
        let mut samples = [Samples::default(), Samples::default()];
        for i in 0..20u64 {
            let id = second as u64 * 100 + i;
            samples[0].predictions.push(Prediction {
                id,
                caller: id,
                at: second,
                rows: vec![Guess {
                    said: Some(u8::from(i % 10 < right).to_string()),
                    ..Guess::default()
                }],
            });
            if (i * 7) % 10 < labelled {
                samples[1].labels.push(Label {
                    id,
                    at: second + 60,
                    rows: vec!["1".to_owned()],
                });
            }
        }
        for (after, samples) in samples.into_iter().enumerate() {
            world.late.parts.push(LatePart {
                minute: second / 60 + after as i64,
                epoch: 1,
                revision: revision.clone(),
                samples: Arc::new(samples),
            });
        }
        world.now += SignedDuration::from_mins(1);
        world.late.read = Some(world.now.as_second());
        world.settle();
    }
}

#[test]
fn a_window_counts_once_it_has_its_labels_and_two_bad_ones_start_one_training_job() {
    let mut world = watched();
    minutes(&mut world, 14, 9, 10);
    let shown = world.status().metrics[0].clone();
    assert_eq!(
        (
            shown.value,
            shown.samples,
            shown.coverage,
            shown.inconclusive
        ),
        (Some(0.9), Some(100), Some(1.0), false),
        "{shown:?}"
    );
    let end = shown.time.unwrap().0.as_second();
    assert_eq!(end % 300, 0);
    assert!((120..420).contains(&(world.now.as_second() - end)));
    assert_eq!(trigger(&world).state, "Armed");
    assert_eq!(trigger(&world).counted_until.unwrap().0.as_second(), end);

    // Until a bad window has its labels, nothing is known of it.
    let beginning = world.now.as_second();
    minutes(&mut world, 22, 5, 10);
    assert_eq!(world.created, ["churn-abcdef-1"], "{:?}", trigger(&world));
    let run = world.status().retraining.as_ref().unwrap().runs[0].clone();
    assert!(
        run.message.contains("live 0.5 (min 0.7)"),
        "{}",
        run.message
    );
    assert!(
        run.message.contains("labels of 100 % of the requests"),
        "{}",
        run.message
    );
    assert!(beginning < world.now.as_second());
    minutes(&mut world, 20, 5, 10);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn whatever_is_forgotten_no_window_is_counted_twice_and_none_that_lacks_requests() {
    let mut world = watched();
    minutes(&mut world, 14, 9, 10);
    while trigger(&world).failing == 0 {
        minutes(&mut world, 1, 5, 10);
    }
    let before = trigger(&world);
    // The operator begins anew: gateways remember all, or only the last minutes.
    let all = std::mem::take(&mut world.late);
    world.settle();
    assert_eq!(trigger(&world), before);
    world.late = all;
    world.settle();
    assert_eq!(trigger(&world), before);
    let now = world.now.as_second();
    world.late.since = Some(now - 60);
    world.late.parts.retain(|part| part.minute >= now / 60 - 1);
    minutes(&mut world, 6, 5, 10);
    assert!(world.created.is_empty(), "{:?}", trigger(&world));
    minutes(&mut world, 10, 5, 10);
    assert_eq!(world.created.len(), 1, "{:?}", trigger(&world));
}

#[test]
fn a_window_with_too_few_labels_neither_fires_nor_clears_and_says_why() {
    let mut world = watched();
    minutes(&mut world, 24, 5, 7);
    let shown = world.status().metrics[0].clone();
    assert!(shown.inconclusive, "{shown:?}");
    assert_eq!(shown.coverage, Some(0.7));
    assert!(shown.message.unwrap().contains("minCoverage is 0.8"));
    assert_eq!(
        (trigger(&world).state.as_str(), trigger(&world).failing),
        ("Armed", 0)
    );
    assert!(world.created.is_empty());
}

/// Errors in the stream of labelled rows.
fn detected(detector: &str) -> World {
    let mut world = watched();
    world.edit(|release| {
        let retraining = release.spec.retraining.as_mut().unwrap();
        let triggers =
            json!([{"name": "concept", "concept": {"metric": "live", "detector": detector}}]);
        retraining.triggers = serde_json::from_value(triggers).unwrap();
    });
    world
}

#[test]
fn a_window_with_too_few_labels_is_none_to_a_detector() {
    let mut world = detected("ADWIN");
    minutes(&mut world, 24, 7, 10);
    // From here on all of what is labelled is wrong, and too little to believe. The first such windows still have some of before.
    minutes(&mut world, 15, 0, 7);
    let (before, runs) = (trigger(&world), world.created.len());
    assert!(before.value.unwrap() > 0.2, "{before:?}");
    minutes(&mut world, 15, 0, 7);
    let after = trigger(&world);
    assert_eq!((&after.state, after.value), (&before.state, before.value));
    assert_eq!(after.detector, before.detector);
    assert!(after.counted_until > before.counted_until);
    let end = after.counted_until.unwrap().0;
    assert_eq!(
        after.message,
        format!(
            "mean loss of live: of the window until {end}, 70 of 100 requests are labelled, and minCoverage is 0.8: those that come first may not be like the rest: it neither fires nor clears"
        )
    );
    assert_eq!(world.created.len(), runs);
}

#[test]
fn a_window_whose_labels_can_not_be_read_holds_no_detector_and_says_why() {
    let mut world = detected("ADWIN");
    world.edit(|release| {
        let labels = json!({"metric": "mae", "horizon": "2m", "minCoverage": 0.8, "window": "5m"});
        release.spec.metrics[0].labels = Some(serde_json::from_value(labels).unwrap());
    });
    minutes(&mut world, 24, 7, 10);
    let before = trigger(&world);
    assert!(before.message.contains("sees no change"), "{before:?}");
    // Somebody sends words where numbers are due.
    for _ in 0..15 {
        minutes(&mut world, 1, 7, 10);
        let part = world.late.parts.last_mut().unwrap();
        for label in &mut Arc::make_mut(&mut part.samples).labels {
            label.rows = vec!["late".to_owned()];
        }
    }
    let after = trigger(&world);
    assert_eq!(after.state, "Armed");
    assert!(
        after
            .message
            .contains("0 of 100 requests are labelled (the labels of 100 more can't be used)")
            && after.message.ends_with("it neither fires nor clears"),
        "{after:?}"
    );
    // What comes after it counts.
    minutes(&mut world, 20, 7, 10);
    let later = trigger(&world);
    assert!(later.message.contains("sees no change"), "{later:?}");
    assert!(later.counted_until > after.counted_until);
}

#[test]
fn predictions_that_become_worse_than_they_were_start_one_training_job_by_every_detector() {
    for detector in ["ADWIN", "PageHinkley"] {
        let mut world = detected(detector);
        minutes(&mut world, 32, 9, 10);
        let before = trigger(&world);
        assert_eq!(before.state, "Armed", "{detector} {before:?}");
        assert!(before.message.contains("sees no change"), "{before:?}");
        assert!(before.detector.as_ref().unwrap().starts_with("live "));
        minutes(&mut world, 22, 3, 10);
        assert_eq!(
            world.created,
            ["churn-abcdef-1"],
            "{detector} {:?}",
            trigger(&world)
        );
        let run = world.status().retraining.as_ref().unwrap().runs[0].clone();
        assert!(
            run.message.contains("says that it has become worse"),
            "{}",
            run.message
        );
        minutes(&mut world, 25, 3, 10);
        assert_eq!(
            world.created.len(),
            1,
            "{detector}: what stays bad is no change"
        );
    }
}

#[test]
fn a_detector_sees_each_row_once_whatever_restarts_and_waits_with_what_it_has_found() {
    let mut world = detected("ADWIN");
    let mut other = detected("ADWIN");
    for world in [&mut world, &mut other] {
        minutes(world, 31, 9, 10);
    }
    // One of them is looked at again and again by operators that know nothing, or all.
    let all = std::mem::take(&mut world.late);
    world.settle();
    world.late = all;
    world.settle();
    world.settle();
    assert_eq!(trigger(&world), trigger(&other));
    // Another run isn't allowed yet; the finding stays until it is.
    world.edit(|release| {
        let retraining = release.spec.retraining.as_mut().unwrap();
        let never = json!([{"schedule": "0 3 1 1 *", "duration": "1m"}]);
        retraining.maintenance_windows = serde_json::from_value(never).unwrap();
    });
    minutes(&mut world, 40, 3, 10);
    assert!(world.created.is_empty());
    assert_eq!(trigger(&world).state, "Pending", "{:?}", trigger(&world));
    minutes(&mut world, 20, 9, 10);
    world.edit(|release| {
        let retraining = release.spec.retraining.as_mut().unwrap();
        retraining.maintenance_windows.clear();
    });
    world.settle();
    assert_eq!(world.created, ["churn-abcdef-1"], "{:?}", trigger(&world));
    assert_eq!(trigger(&world).state, "Fired");
}

#[test]
fn a_detector_on_what_it_can_not_look_at_is_said() {
    for (metric, concept, words) in [
        (
            "accuracy",
            json!({"metric": "other"}),
            "no metric by labels",
        ),
        ("ece", json!({"metric": "live"}), "calibration error"),
        ("rocAuc", json!({"metric": "live"}), "area under a curve"),
    ] {
        let mut world = watched();
        world.edit(|release| {
            let labels = json!({"metric": metric, "horizon": "2m"});
            release.spec.metrics[0].labels = Some(serde_json::from_value(labels).unwrap());
            let retraining = release.spec.retraining.as_mut().unwrap();
            let triggers = json!([{"name": "t", "concept": concept}]);
            retraining.triggers = serde_json::from_value(triggers).unwrap();
        });
        world.settle();
        let (_, reason, message) = world.condition("Retraining");
        assert_eq!(reason, "MetricUnknown", "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn what_labels_can_never_say_is_said_at_once() {
    for (labels, gates, words) in [
        (
            json!({"metric": "mae", "horizon": "8d"}),
            json!([]),
            "1s to 7d",
        ),
        (
            json!({"metric": "mae", "horizon": "1h", "window": "5s"}),
            json!([]),
            "1m to 7d",
        ),
        (
            json!({"metric": "mae", "horizon": "6h"}),
            json!([{"metric": "live", "max": 3}]),
            "waits 6h for labels",
        ),
        (
            json!({"metric": "ece", "horizon": "1m"}),
            json!([{"metric": "live", "maxDifference": 0.1}]),
            "no test against stable",
        ),
    ] {
        let mut world = watched();
        world.edit(|release| {
            release.spec.metrics[0].labels = Some(serde_json::from_value(labels.clone()).unwrap());
            let analysis = json!({"gates": gates});
            let rollout = release.spec.rollout.get_or_insert_default();
            rollout.analysis = Some(serde_json::from_value(analysis).unwrap());
        });
        world.pass(1);
        let (status, reason, message) = world.condition("Ready");
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "MetricRefused"),
            "{labels}"
        );
        assert!(message.contains(words), "{message}");
    }
}
