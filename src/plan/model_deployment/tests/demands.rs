//! What triggers watch beside drift, and what a run must keep to.

use serde_json::{Value, json};

use super::{
    loops::{V1, V2, trigger, world},
    world::{UID, World},
};

/// A release whose trigger watches what a scheduled Evaluation measures of stable.
fn watched(trigger: Value, evaluation: Value) -> World {
    let mut world = world(json!({"cooldown": "1m", "triggers": [trigger]}));
    let mut spec = json!({"target": {"modelDeployment": {"name": "churn"}}, "dataset": {"uri": "pvc://flights/h.parquet", "label": "late"}});
    for (key, value) in evaluation.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let object = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation",
        "metadata": {"name": "live", "namespace": "ml", "generation": 1}, "spec": spec,
    });
    world.evaluations.insert(
        "live".to_owned(),
        std::sync::Arc::new(serde_json::from_value(object).unwrap()),
    );
    world.edit(|release| {
        let metrics =
            json!([{"name": "liveAuc", "evaluation": {"name": "live", "metric": "rocAuc"}}]);
        release.spec.metrics = serde_json::from_value(metrics).unwrap();
    });
    world
}

/// The Evaluation has measured stable.
fn measure(world: &mut World, value: f64, samples: i64) {
    let stable = world.status().stable.as_ref().unwrap().revision.clone();
    let run = json!({
        "number": 1, "target": "t", "release": UID, "revision": stable, "verdict": "Passed",
        "completionTime": world.now, "metrics": [{"name": "rocAuc", "value": value, "samples": samples}],
    });
    let evaluation = std::sync::Arc::make_mut(world.evaluations.get_mut("live").unwrap());
    evaluation.status = Some(serde_json::from_value(json!({"runs": [run]})).unwrap());
    world.pass(1);
}

#[test]
fn between_bound_and_clear_a_value_neither_counts_nor_clears() {
    let mut world = watched(
        json!({"name": "worse", "metric": "liveAuc", "min": 0.7, "clear": 0.75, "windows": 2}),
        json!({"schedule": "* * * * *"}),
    );
    for (value, failing, state) in [
        (0.72, 0, "Armed"),
        (0.69, 1, "Pending"),
        (0.72, 1, "Pending"),
        (0.75, 0, "Armed"),
        (0.69, 1, "Pending"),
        (0.74, 1, "Pending"),
    ] {
        measure(&mut world, value, 1000);
        let now = trigger(&world);
        assert_eq!(
            (now.failing, now.state.as_str()),
            (failing, state),
            "{value}: {now:?}"
        );
    }
    assert!(world.created.is_empty());
    measure(&mut world, 0.6, 1000);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn too_few_samples_neither_fire_nor_clear() {
    let mut world = watched(
        json!({"name": "worse", "metric": "liveAuc", "min": 0.7, "minSamples": 500, "windows": 2}),
        json!({"schedule": "* * * * *"}),
    );
    measure(&mut world, 0.6, 499);
    assert_eq!(trigger(&world).failing, 0);
    assert!(
        trigger(&world).message.contains("499 of 500 samples"),
        "{:?}",
        trigger(&world)
    );
    measure(&mut world, 0.6, 500);
    measure(&mut world, 0.9, 10);
    assert_eq!(trigger(&world).failing, 1, "too few to clear");
    measure(&mut world, 0.6, 500);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn what_is_due_waits_for_a_maintenance_window() {
    let mut world = world(json!({
        "cooldown": "1m", "maintenanceWindows": [{"schedule": "0 2 * * *", "duration": "1h"}],
        "triggers": [{"name": "hourly", "schedule": "30 * * * *"}],
    }));
    world.pass(100);
    assert!(world.created.is_empty());
    assert!(
        trigger(&world)
            .message
            .contains("no maintenance window is open until 2013-07-01T02:00:00Z"),
        "{}",
        trigger(&world).message
    );
    assert_eq!(world.condition("Retraining").1, "Waiting");
    world.pass(20);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn one_column_of_many_can_be_watched() {
    let mut world = world(json!({"triggers": [{"name": "heat", "drift": {"column": "temp"}}]}));
    world.traffic(8, 0.0);
    assert_eq!(trigger(&world).state, "Armed");
    assert!(
        trigger(&world).message.contains("drift of temp"),
        "{:?}",
        trigger(&world)
    );
    world.traffic(8, 9.0);
    assert_eq!(world.created.len(), 1);
    let run = world.status().retraining.clone().unwrap().runs[0].clone();
    assert!(
        run.message.contains("threshold 0.2, noise"),
        "{}",
        run.message
    );
}

#[test]
fn predictions_can_be_watched_and_their_reference_outlasts_everything_but_the_revision() {
    let mut world = world(json!({"triggers": [{"name": "says", "drift": {"prediction": true}}]}));
    world.answers(8, 0.0, Some("no"));
    let kept = world.object("ConfigMap", "churn-predictions").cloned();
    assert!(kept.is_some());
    assert_eq!(trigger(&world).state, "Armed", "{:?}", trigger(&world));
    world.forget_all_but(0);
    world.answers(4, 0.0, Some("no"));
    assert!(
        trigger(&world)
            .message
            .contains("drift of the predictions 0"),
        "{:?}",
        trigger(&world)
    );
    world.answers(4, 0.0, Some("yes"));
    assert_eq!(world.condition("DriftDetected").1, "PredictionsDrifted");
    assert!(world.created.is_empty(), "in two windows, as of columns");
    world.answers(4, 0.0, Some("yes"));
    assert_eq!(world.created.len(), 1);
    let run = world.status().retraining.clone().unwrap().runs[0].clone();
    assert!(run.message.contains("threshold 0.2"), "{}", run.message);
    assert_eq!(
        world.object("ConfigMap", "churn-predictions").cloned(),
        kept
    );
}

#[test]
fn a_trigger_that_can_not_do_what_it_says_is_a_condition() {
    let trigger = json!({"name": "worse", "metric": "liveAuc", "min": 0.7});
    let mut world = watched(trigger.clone(), json!({}));
    world.pass(1);
    let (status, reason, message) = world.condition("Retraining");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "MetricNeverChanges")
    );
    assert!(
        message.contains("give the Evaluation a schedule"),
        "{message}"
    );

    let gates = json!({"schedule": "0 * * * *", "gates": [{"metric": "rocAuc", "min": 0.65}]});
    let mut world = watched(trigger.clone(), gates);
    world.edit(|release| {
        release.spec.rollout.as_mut().unwrap().evaluations = vec!["live".to_owned()];
    });
    world.pass(1);
    let (_, reason, message) = world.condition("Retraining");
    assert_eq!(reason, "StricterThanGate");
    assert!(message.contains("min 0.7, the gate's 0.65"), "{message}");

    let unknown = json!({"name": "worse", "metric": "auc", "min": 0.7});
    let mut world = watched(unknown, json!({"schedule": "0 * * * *"}));
    world.pass(1);
    assert_eq!(world.condition("Retraining").1, "MetricUnknown");

    let mut world = watched(trigger, json!({"schedule": "0 * * * *"}));
    world.pass(1);
    assert_eq!(world.condition("Retraining").1, "Armed");
}

#[test]
fn predictions_of_windows_without_like_hours_can_not_be_watched() {
    let mut world = world(json!({"triggers": [{"name": "says", "drift": {"prediction": true}}]}));
    let mut with = |drift: serde_json::Value| {
        world.edit(|release| {
            let monitoring = json!({"drift": drift});
            release.spec.monitoring = Some(serde_json::from_value(monitoring).unwrap());
        });
        world.pass(1);
        world.condition("Retraining")
    };
    let (_, reason, message) = with(json!({"window": "5m", "season": "Day"}));
    assert_eq!(reason, "MetricUnknown");
    assert!(message.contains("a window of a day or longer"), "{message}");
    for drift in [
        json!({"window": "1d", "season": "Day"}),
        json!({"season": "Week"}),
        json!({"window": "5m"}),
    ] {
        assert_ne!(with(drift).1, "MetricUnknown");
    }
}

#[test]
fn a_retrained_version_that_is_no_better_is_refused() {
    let mut world = world(json!({
        "cooldown": "1m", "promotion": "Automatic", "requireImprovement": {"metric": "rocAuc"},
        "triggers": [{"name": "hourly", "schedule": "0 * * * *"}],
    }));
    let object = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation",
        "metadata": {"name": "live", "namespace": "ml", "generation": 1},
        "spec": {"target": {"modelDeployment": {"name": "churn"}}, "dataset": {"uri": "pvc://flights/h.parquet", "label": "late"}},
    });
    world.evaluations.insert(
        "live".to_owned(),
        std::sync::Arc::new(serde_json::from_value(object).unwrap()),
    );
    world.edit(|release| {
        release.spec.rollout.as_mut().unwrap().evaluations = vec!["live".to_owned()];
    });
    let judged = |world: &mut World, lower: f64| {
        let stable = world.status().stable.as_ref().unwrap().revision.clone();
        let candidate = world.status().candidate.clone().expect("a candidate");
        let run = json!({
            "number": 1, "target": "t", "release": UID, "verdict": "Passed", "generation": 1,
            "revision": candidate.revision, "attempt": candidate.attempt, "baseline": stable, "completionTime": world.now,
            "metrics": [
                {"name": "rocAuc", "value": 0.71, "samples": 2000}, {"name": "stable.rocAuc", "value": 0.7},
                {"name": "difference.rocAuc", "value": 0.01, "lower": lower, "upper": 0.02},
            ],
        });
        let evaluation = std::sync::Arc::make_mut(world.evaluations.get_mut("live").unwrap());
        evaluation.status = Some(serde_json::from_value(json!({"runs": [run]})).unwrap());
        world.pass(5);
    };
    world.pass(60);
    world.finish("churn-abcdef-1", V2, "sha256:d2");
    world.pass(1);
    judged(&mut world, -0.001);
    let status = world.status().clone();
    assert_eq!(status.stable.as_ref().unwrap().version.as_deref(), Some(V1));
    assert_eq!(status.history.last().unwrap().reason, "NotImproved");
    let run = status.retraining.as_ref().unwrap().runs[0].clone();
    assert_eq!(run.result, "Rejected");
    assert!(
        run.message.contains("not shown to be better"),
        "{}",
        run.message
    );
    assert!(world.events.contains(&"RetrainingRejected".to_owned()));

    world.pass(60);
    let v3 = "20130701-120000-cccccc";
    world.finish("churn-abcdef-2", v3, "sha256:d3");
    world.pass(1);
    judged(&mut world, 0.001);
    assert_eq!(
        world.status().stable.as_ref().unwrap().version.as_deref(),
        Some(v3)
    );
}
