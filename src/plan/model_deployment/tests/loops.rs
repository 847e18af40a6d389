use jiff::SignedDuration;
use serde_json::{Value, json};

use super::world::{World, profile, quick, server};
use crate::{
    api::rollout::{MetricSource, PrometheusMetric},
    stats::asked::{Answer, Answered},
};

pub const V1: &str = "20130401-000000-aaaaaa";
pub const V2: &str = "20130701-000000-bbbbbb";

pub fn world(retraining: Value) -> World {
    let mut spec = json!({
        "from": "q1",
        "datasets": [{"name": "train", "uri": "pvc://flights/h1.parquet"}],
        "cooldown": "6h",
        "promotion": "Manual",
    });
    for (key, value) in retraining.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let mut world = World::new(quick(json!({
        "monitoring": {"drift": {"window": "1m", "minSamples": 300, "thresholds": {"*": 0.2}}},
        "retraining": spec,
    })));
    world.profile = Some(std::sync::Arc::new(profile()));
    world.train("q1", V1, "sha256:d1");
    world.pass(3);
    assert_eq!(
        world.status().stable.as_ref().unwrap().version.as_deref(),
        Some(V1)
    );
    world
}

pub(super) fn drifting() -> World {
    world(
        json!({"triggers": [{"name": "drifted", "drift": {"share": {"max": 0.25}}, "windows": 2}]}),
    )
}

pub fn trigger(world: &World) -> crate::api::model_deployment::TriggerStatus {
    world.status().retraining.as_ref().unwrap().triggers[0].clone()
}

fn promote(world: &mut World) {
    world.pass(1);
    let candidate = world
        .status()
        .candidate
        .clone()
        .expect("a candidate")
        .revision;
    world.annotate("perennial.dev/promote", format!("{candidate}/1"));
    world.pass(5);
}

#[test]
fn traffic_like_the_training_data_starts_nothing() {
    let mut world = drifting();
    world.traffic(12, 0.0);
    assert_eq!(world.status().drift_summary.as_deref(), Some("0/1"));
    assert_eq!(world.condition("DriftDetected").1, "WithinThresholds");
    assert!(world.created.is_empty());
    assert_eq!(trigger(&world).state, "Armed");
}

#[test]
fn an_answer_of_prometheus_that_stays_beyond_its_bound_starts_a_training_job() {
    let mut world = world(
        json!({"triggers": [{"name": "angry", "metric": "complaints", "max": 0.5, "windows": 2}]}),
    );
    world.edit(|release| {
        release.spec.metrics = vec![MetricSource {
            name: "complaints".into(),
            prometheus: Some(PrometheusMetric {
                source: "default".into(),
                query: "sum(complaints{revision=\"{{ revision }}\"})".into(),
            }),
            ..MetricSource::default()
        }];
    });
    let stable = world.status().stable.as_ref().unwrap().revision.clone();
    let say = |world: &mut World, answer: Answer| {
        let key = ("complaints".to_owned(), stable.clone());
        let time = world.now;
        world.asked.answers.insert(key, Answered { time, answer });
        world.pass(1);
    };
    say(&mut world, Answer::Value(0.2));
    let shown = &world.status().metrics[0];
    assert_eq!(
        (shown.name.as_str(), shown.value),
        ("complaints", Some(0.2))
    );
    assert_eq!(trigger(&world).state, "Armed");
    // What nobody could ask says neither one thing nor the other.
    say(&mut world, Answer::Failed("it is down".into()));
    say(&mut world, Answer::Nothing("no series".into()));
    assert_eq!(world.status().metrics[0].value, Some(0.2));
    say(&mut world, Answer::Value(0.9));
    assert_eq!(trigger(&world).failing, 1, "{:?}", trigger(&world));
    assert!(world.created.is_empty());
    say(&mut world, Answer::Value(0.8));
    assert_eq!(world.created, ["churn-abcdef-1"]);
}

#[test]
fn a_metric_that_can_not_be_asked_for_is_said_at_once() {
    let mut world = world(json!({"triggers": [{"name": "old", "maxAge": "30d"}]}));
    world.asked.refused = Some("metric complaints: there is no Prometheus source `x`".into());
    world.pass(1);
    let (status, reason, message) = world.condition("Ready");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "MetricRefused")
    );
    assert!(message.contains("source `x`"), "{message}");
}

#[test]
fn drift_in_two_windows_starts_one_training_job() {
    let mut world = drifting();
    world.traffic(4, 9.0);
    assert_eq!(trigger(&world).failing, 1, "{:?}", trigger(&world));
    assert!(world.created.is_empty());
    world.traffic(12, 9.0);
    assert_eq!(world.created, ["churn-abcdef-1"]);
    let job = &world.jobs["churn-abcdef-1"];
    assert_eq!(job.spec.datasets[0].uri, "pvc://flights/h1.parquet");
    assert!(job.metadata.owner_references.is_none());
    let retraining = world.status().retraining.clone().unwrap();
    assert!(retraining.runs[0].created);
    assert!(
        retraining.runs[0].message.contains("temp"),
        "{}",
        retraining.runs[0].message
    );
    assert_eq!(world.condition("Retraining").1, "Running");
    assert_eq!(world.condition("DriftDetected").0, "True");
}

#[test]
fn one_firing_makes_one_job_whatever_crashes() {
    for most in 0..7 {
        // The second window of drift ends in one of these rounds.
        for round in 9..14 {
            let mut world = drifting();
            let mut count = 0;
            for _ in 0..12 {
                let revision = world.status().stable.as_ref().unwrap().revision.clone();
                world.now += SignedDuration::from_mins(1);
                let mut rows = profile().sketch();
                for i in 0..100 {
                    rows.add([(
                        "temp",
                        crate::stats::sketch::Cell::Number(f64::from(i % 20) + 9.0),
                    )]);
                }
                world
                    .buckets
                    .push(std::sync::Arc::new(crate::stats::bucket::Bucket {
                        revision,
                        minute: world.now.as_second() / 60 - 1,
                        features: Some(rows),
                        ..Default::default()
                    }));
                for _ in 0..2 {
                    world.step(if count == round { most } else { usize::MAX });
                    count += 1;
                }
            }
            world.settle();
            assert_eq!(
                world.created,
                ["churn-abcdef-1"],
                "crash in round {round} after {most} actions"
            );
            assert_eq!(world.status().retraining.as_ref().unwrap().firing, 1);
        }
    }
}

#[test]
fn a_job_that_was_created_is_never_made_again() {
    let mut world = drifting();
    world.traffic(12, 9.0);
    world.jobs.remove("churn-abcdef-1");
    world.pass(10);
    assert_eq!(world.created.len(), 1);
    let run = world.status().retraining.clone().unwrap().runs[0].clone();
    assert_eq!(run.result, "Failed");
    assert!(run.message.contains("deleted"), "{}", run.message);
}

#[test]
fn a_foreign_job_of_that_name_does_not_count() {
    let mut world = drifting();
    world.train("churn-abcdef-1", "20120101-000000-dddddd", "sha256:x");
    world.traffic(12, 9.0);
    let run = world.status().retraining.clone().unwrap().runs[0].clone();
    assert_eq!((run.result.as_str(), run.created), ("Failed", false));
    assert!(world.created.is_empty());
}

#[test]
fn the_cooldown_holds_and_a_failure_doubles_it() {
    let mut world = drifting();
    world.traffic(8, 9.0);
    assert_eq!(world.created.len(), 1);
    let job = world.jobs.get_mut("churn-abcdef-1").unwrap();
    job.status = Some(
        serde_json::from_value(json!({"phase": "Failed", "message": "out of memory"})).unwrap(),
    );
    world.traffic(12, 9.0);
    assert_eq!(world.created.len(), 1);
    assert_eq!(trigger(&world).state, "Pending");
    assert!(
        trigger(&world).message.contains("cooldown after 1 failed"),
        "{}",
        trigger(&world).message
    );
    world.pass(7 * 60);
    assert_eq!(world.created.len(), 1);
    // Without callers the last window says nothing of now.
    world.pass(6 * 60);
    assert_eq!(world.created.len(), 1);
    assert!(
        trigger(&world).message.contains("stale since"),
        "{}",
        trigger(&world).message
    );
    world.traffic(4, 9.0);
    assert_eq!(world.created.len(), 2);
}

#[test]
fn the_same_data_again_is_no_new_version() {
    let mut world = drifting();
    world.traffic(8, 9.0);
    world.finish("churn-abcdef-1", V2, "sha256:d1");
    world.traffic(12, 9.0);
    let retraining = world.status().retraining.clone().unwrap();
    assert_eq!(retraining.runs[0].result, "NoNewData");
    assert!(
        world.status().candidate.is_none(),
        "{:?}",
        world.status().candidate
    );
    assert_eq!(trigger(&world).state, "Disarmed");
    assert_eq!(world.condition("Retraining").1, "NoNewData");
    world.pass(13 * 60);
    world.traffic(12, 9.0);
    assert_eq!(world.created.len(), 1);
    // Back within the bound: what comes next is new.
    world.traffic(8, 0.0);
    assert_eq!(trigger(&world).state, "Armed");
    world.traffic(12, 9.0);
    assert_eq!(world.created.len(), 2);
}

#[test]
fn data_that_is_pinned_makes_no_job_at_all() {
    let mut world = world(json!({
        "datasets": [],
        "triggers": [{"name": "old", "maxAge": "1h"}],
    }));
    // The recipe pins what stable was trained on.
    let mut job = world.jobs["q1"].clone();
    job.spec.datasets[0].digest = Some("sha256:d1".to_owned());
    job.metadata.uid = Some("another".to_owned());
    world.jobs.insert("q1".to_owned(), job);
    world.pass(120);
    assert!(world.created.is_empty());
    assert_eq!(trigger(&world).state, "Disarmed");
    assert_eq!(world.condition("Retraining").1, "NoNewData");
    let revision = world.status().stable.as_ref().unwrap().revision.clone();
    world.annotate("perennial.dev/retrain", format!("{revision}/1"));
    world.pass(5);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn a_retrained_version_waits_for_promote_and_brings_its_own_profile() {
    let mut world = drifting();
    world.traffic(8, 9.0);
    world.finish("churn-abcdef-1", V2, "sha256:d2");
    world.pass(3);
    assert_eq!(world.status().rollout.as_ref().unwrap().weight, 0);
    promote(&mut world);
    assert_eq!(
        world.status().stable.as_ref().unwrap().version.as_deref(),
        Some(V2)
    );
    assert_eq!(
        world.status().retraining.as_ref().unwrap().runs[0].result,
        "Promoted"
    );
    assert_eq!(trigger(&world).state, "Armed");
    assert_eq!(world.created.len(), 1);
}

#[test]
fn a_retraining_that_did_not_help_disarms_its_trigger() {
    let mut world = drifting();
    world.traffic(8, 9.0);
    world.finish("churn-abcdef-1", V2, "sha256:d2");
    promote(&mut world);
    world.traffic(12, 9.0);
    assert_eq!(
        world.status().retraining.as_ref().unwrap().runs[0].result,
        "DidNotHelp"
    );
    assert_eq!(trigger(&world).state, "Disarmed");
    assert_eq!(world.condition("Retraining").1, "RetrainingDidNotHelp");
    let told = |reason: &str| world.events.iter().filter(|e| *e == reason).count();
    assert_eq!(told("RetrainingDidNotHelp"), 1, "{:?}", world.events);
    assert_eq!(told("RetrainingSucceeded"), 1, "{:?}", world.events);
    world.pass(13 * 60);
    world.traffic(12, 9.0);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn a_recipe_that_can_not_be_resolved_for_a_while_arms_nothing() {
    let disarmed = || {
        let mut world = drifting();
        world.traffic(8, 9.0);
        world.finish("churn-abcdef-1", V2, "sha256:d1");
        world.traffic(2, 9.0);
        assert_eq!(trigger(&world).state, "Disarmed");
        world
    };
    let from = |world: &mut World, name: &str| {
        world.edit(|release| {
            release.spec.retraining.as_mut().unwrap().from = Some(name.to_owned());
        });
    };
    let mut world = disarmed();
    from(&mut world, "mistyped");
    world.traffic(12, 9.0);
    assert_eq!(world.condition("Retraining").1, "RecipeUnknown");
    assert_eq!(trigger(&world).state, "Disarmed");
    from(&mut world, "q1");
    world.pass(13 * 60);
    world.traffic(12, 9.0);
    assert_eq!(trigger(&world).state, "Disarmed");
    assert_eq!(world.created.len(), 1);
    // Another recipe arms it, also after one that isn't there.
    from(&mut world, "mistyped");
    world.pass(5);
    world.train("q2", "20120101-000000-cccccc", "sha256:d0");
    let job = world.jobs.get_mut("q2").unwrap();
    job.spec
        .parameters
        .insert("trees".to_owned(), "9".to_owned());
    from(&mut world, "q2");
    world.traffic(12, 9.0);
    assert_eq!(world.created.len(), 2);
}

#[test]
fn what_a_run_tried_is_what_its_job_says_whatever_the_recipe_is_when_it_ends() {
    let mut world = drifting();
    world.traffic(8, 9.0);
    world.edit(|release| {
        release.spec.retraining.as_mut().unwrap().from = Some("mistyped".to_owned());
    });
    world.pass(1);
    world.finish("churn-abcdef-1", V2, "sha256:d1");
    world.traffic(2, 9.0);
    assert_eq!(trigger(&world).state, "Disarmed");
    world.edit(|release| release.spec.retraining.as_mut().unwrap().from = Some("q1".to_owned()));
    world.pass(13 * 60);
    world.traffic(12, 9.0);
    assert_eq!(trigger(&world).state, "Disarmed", "{:?}", trigger(&world));
    assert_eq!(world.created.len(), 1);
}

/// A run has made a version that is tried and waits for `promote`.
fn tried() -> World {
    let mut world = drifting();
    world.traffic(8, 9.0);
    world.finish("churn-abcdef-1", V2, "sha256:d2");
    world.pass(2);
    assert_eq!(
        world
            .status()
            .candidate
            .as_ref()
            .unwrap()
            .version
            .as_deref(),
        Some(V2)
    );
    assert_eq!(result(&world), "Succeeded");
    world
}

fn result(world: &World) -> String {
    world.status().retraining.as_ref().unwrap().runs[0]
        .result
        .clone()
}

#[test]
fn a_version_that_nobody_decided_about_is_said_so() {
    let told = |world: &World| {
        let undecided = world.events.iter().filter(|e| *e == "RetrainingUndecided");
        undecided.count()
    };
    // Another template comes: that is stable's version's first, and then it is tried in that one.
    let mut world = tried();
    world.edit(|release| release.spec.server = serde_json::from_value(server("s:2")).unwrap());
    world.pass(1);
    assert_eq!(world.status().history.last().unwrap().reason, "Superseded");
    assert_eq!((result(&world).as_str(), told(&world)), ("Succeeded", 0));
    world.pass(4);
    assert_eq!((result(&world).as_str(), told(&world)), ("Succeeded", 0));
    promote(&mut world);
    assert_eq!((result(&world).as_str(), told(&world)), ("Promoted", 0));

    // Another version is asked for.
    let mut world = tried();
    world.train("by-hand", "20130702-000000-cccccc", "sha256:d3");
    let pin = |version: Option<&str>| json!({"name": "churn", "version": version});
    let pinned = serde_json::from_value(pin(Some("20130702-000000-cccccc"))).unwrap();
    world.edit(|release| release.spec.model = Some(pinned));
    world.pass(5);
    assert_eq!((result(&world).as_str(), told(&world)), ("Superseded", 1));
    let message = world.condition("Retraining").2;
    assert!(message.ends_with("Superseded"), "{message}");
    let run = world.status().retraining.as_ref().unwrap().runs[0].clone();
    assert!(run.message.contains("is superseded"), "{}", run.message);
    world.pass(60);
    assert_eq!(told(&world), 1);

    // The spec goes back to stable's version, and later lets it be tried again.
    let mut world = tried();
    world.edit(|release| release.spec.model = Some(serde_json::from_value(pin(Some(V1))).unwrap()));
    world.pass(5);
    assert_eq!((result(&world).as_str(), told(&world)), ("Withdrawn", 1));
    world.edit(|release| release.spec.model = Some(serde_json::from_value(pin(None)).unwrap()));
    promote(&mut world);
    assert_eq!(result(&world), "Promoted");

    // It is too old to be tried when it is there.
    let mut world = drifting();
    world.traffic(8, 9.0);
    world.finish("churn-abcdef-1", "20130301-000000-eeeeee", "sha256:d2");
    world.pass(2);
    assert_eq!((result(&world).as_str(), told(&world)), ("Superseded", 1));
}

/// Version and image of stable.
fn stable(world: &World) -> (String, String) {
    let stable = world.status().stable.clone().unwrap();
    let server = world.object("Deployment", &format!("churn-{}", stable.revision));
    let image = &server.unwrap()["spec"]["template"]["spec"]["containers"][0]["image"];
    let image = image.as_str().unwrap().to_owned();
    (stable.version.unwrap(), image)
}

#[test]
fn a_retrained_version_waits_for_a_person_whatever_is_edited_meanwhile() {
    type Edit = fn(&mut crate::api::model_deployment::ModelDeploymentSpec);
    let image: Edit = |spec| spec.server = serde_json::from_value(server("s:2")).unwrap();
    let automatic: Edit = |spec| {
        spec.retraining.as_mut().unwrap().promotion =
            Some(crate::api::model_deployment::Promotion::Automatic);
    };
    let no_retraining: Edit = |spec| spec.retraining = None;
    let edits: [(&str, &[Edit], &str); 7] = [
        ("template", &[image], "s:2"),
        ("promotion", &[automatic], "s:1"),
        ("template and promotion", &[image, automatic], "s:2"),
        ("promotion, then template", &[automatic, image], "s:2"),
        ("retraining", &[no_retraining], "s:1"),
        ("template and retraining", &[image, no_retraining], "s:2"),
        (
            "rollout",
            &[|spec| {
                let steps = json!([{"setWeight": 100}]);
                let rollout = spec.rollout.as_mut().unwrap();
                rollout.steps = serde_json::from_value(steps).unwrap();
            }],
            "s:1",
        ),
    ];
    for (what, edits, served) in edits {
        for waits in [true, false] {
            let name = format!(
                "{what}, while it {}",
                if waits { "waits" } else { "is trained" }
            );
            let mut world = if waits { tried() } else { drifting() };
            if !waits {
                world.traffic(8, 9.0);
            }
            for edit in edits {
                world.edit(|release| edit(&mut release.spec));
                world.pass(1);
            }
            if !waits {
                world.finish("churn-abcdef-1", V2, "sha256:d2");
            }
            world.pass(30);
            assert_eq!(stable(&world), (V1.into(), served.into()), "{name}");
            let candidate = world.status().candidate.clone();
            let candidate = candidate.unwrap_or_else(|| panic!("{name}: no candidate"));
            assert_eq!(candidate.version.as_deref(), Some(V2), "{name}");
            assert_eq!(world.status().rollout.as_ref().unwrap().weight, 0, "{name}");
            promote(&mut world);
            world.pass(10);
            assert_eq!(stable(&world), (V2.into(), served.into()), "{name}");
        }
    }
}

#[test]
fn a_template_that_is_edited_as_a_retrained_version_comes_does_not_take_it_along() {
    let mut world = drifting();
    world.traffic(8, 9.0);
    world.finish("churn-abcdef-1", V2, "sha256:d2");
    world.edit(|release| release.spec.server = serde_json::from_value(server("s:2")).unwrap());
    world.pass(30);
    assert_eq!(stable(&world), (V1.into(), "s:2".into()));
    // Back again, while the version waits in the new one.
    world.edit(|release| release.spec.server = serde_json::from_value(server("s:1")).unwrap());
    world.pass(30);
    assert_eq!(stable(&world), (V1.into(), "s:1".into()));
    assert_eq!(result(&world), "Succeeded");
    promote(&mut world);
    assert_eq!(stable(&world), (V2.into(), "s:1".into()));
}

#[test]
fn a_template_that_was_refused_gives_nobody_a_version_that_waits_for_a_person() {
    let mut world = tried();
    world.edit(|release| release.spec.server = serde_json::from_value(server("s:2")).unwrap());
    world.settle();
    let candidate = world.status().candidate.clone().unwrap();
    assert_eq!(candidate.version.as_deref(), Some(V1));
    world.annotate("perennial.dev/abort", format!("{}/1", candidate.revision));
    world.pass(30);
    assert_eq!(stable(&world), (V1.into(), "s:1".into()));
    assert_eq!(world.status().rollout.as_ref().unwrap().weight, 0);
}

#[test]
fn a_version_whose_rollout_had_too_little_data_is_said_so_until_it_is_tried_again() {
    let mut world = world(json!({
        "triggers": [{"name": "drifted", "drift": {"share": {"max": 0.25}}, "windows": 2}],
        "promotion": "Automatic",
    }));
    world.edit(|release| {
        let rollout = json!({
            "steps": [{"setWeight": 50}, {"pause": {"duration": "30s"}}], "bake": "1m", "progressDeadline": "5m",
            "analysis": {"minRequests": 100, "gates": [{"metric": "errorRate", "max": 0.5}]},
        });
        release.spec.rollout = Some(serde_json::from_value(rollout).unwrap());
    });
    world.traffic(8, 9.0);
    world.finish("churn-abcdef-1", V2, "sha256:d2");
    world.pass(30);
    assert_eq!(
        world.status().history.last().unwrap().reason,
        "NotEnoughData"
    );
    assert_eq!(result(&world), "NotEnoughData");
    world.edit(|release| {
        let rollout = release.spec.rollout.as_mut().unwrap();
        rollout.analysis =
            Some(serde_json::from_value(json!({"gates": [], "minRequests": 0})).unwrap());
    });
    world.pass(30);
    assert_eq!(result(&world), "Promoted");
}

#[test]
fn an_unknown_recipe_is_named_and_nothing_fires() {
    let mut world = world(
        json!({"from": "nothing-of-that-name", "triggers": [{"name": "old", "maxAge": "1h"}]}),
    );
    world.pass(120);
    let (_, reason, message) = world.condition("Retraining");
    assert_eq!(reason, "RecipeUnknown");
    assert!(
        message.contains("nothing-of-that-name") && message.contains("create it"),
        "{message}"
    );
    assert!(world.created.is_empty());
}

#[test]
fn a_recipe_is_kept_when_its_training_job_goes() {
    let mut world = drifting();
    world.jobs.remove("q1");
    world.traffic(8, 9.0);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn a_schedule_fires_once_for_each_time() {
    let mut world =
        world(json!({"cooldown": "1m", "triggers": [{"name": "hourly", "schedule": "0 * * * *"}]}));
    world.pass(50);
    assert!(world.created.is_empty(), "{:?}", trigger(&world));
    world.pass(12);
    assert_eq!(world.created.len(), 1);
    world.finish("churn-abcdef-1", "20130301-000000-eeeeee", "sha256:d2");
    world.pass(50);
    assert_eq!(world.created.len(), 1);
    world.pass(10);
    assert_eq!(world.created.len(), 2);
}

#[test]
fn an_unreadable_schedule_is_said() {
    let mut world = world(json!({"triggers": [{"name": "odd", "schedule": "whenever it suits"}]}));
    world.pass(5);
    assert!(
        trigger(&world).message.contains("can't be read"),
        "{}",
        trigger(&world).message
    );
}

#[test]
fn retrain_is_done_once_and_refused_for_another_revision() {
    let mut world = drifting();
    world.annotate("perennial.dev/retrain", "0000000000/1".to_owned());
    world.pass(2);
    let handled = world.status().last_handled_commands.clone();
    assert!(
        handled[0]
            .result
            .starts_with("refused: the stable revision is"),
        "{handled:?}"
    );
    let revision = world.status().stable.as_ref().unwrap().revision.clone();
    world.annotate("perennial.dev/retrain", format!("{revision}/1"));
    world.pass(10);
    assert_eq!(world.created.len(), 1);
}

#[test]
fn runs_are_limited() {
    let mut world = world(
        json!({"cooldown": "1m", "limit": {"runs": 1, "per": "1d"}, "triggers": [{"name": "hourly", "schedule": "0 * * * *"}]}),
    );
    world.pass(62);
    world.finish("churn-abcdef-1", "20130301-000000-eeeeee", "sha256:d2");
    world.pass(180);
    assert_eq!(world.created.len(), 1);
    assert!(
        trigger(&world).message.contains("limit of 1"),
        "{}",
        trigger(&world).message
    );
    world.pass(24 * 60);
    assert_eq!(world.created.len(), 2);
}

#[test]
fn a_limit_of_more_runs_than_status_keeps_holds_too() {
    let mut world = world(
        json!({"cooldown": "1m", "limit": {"runs": 25, "per": "7d"}, "triggers": [{"name": "often", "schedule": "0 */2 * * *"}]}),
    );
    for run in 1..=30 {
        world.pass(120);
        let name = format!("churn-abcdef-{run}");
        if world.jobs.contains_key(&name) {
            let version = format!("20130301-0000{run:02}-eeeeee");
            world.finish(&name, &version, &format!("sha256:new{run}"));
        }
        world.settle();
    }
    assert_eq!(world.created.len(), 25);
    let status = world.status().retraining.clone().unwrap();
    assert_eq!((status.runs.len(), status.earlier_runs.len()), (20, 5));
    assert!(
        trigger(&world).message.contains("limit of 25"),
        "{}",
        trigger(&world).message
    );
    // The first of them began a week ago: one more, and not two.
    world.pass((7 * 24 - 58) * 60);
    assert_eq!(world.created.len(), 26);
}

#[test]
fn a_disarmed_schedule_stays_so_when_its_time_comes() {
    let mut world =
        world(json!({"cooldown": "1m", "triggers": [{"name": "hourly", "schedule": "0 * * * *"}]}));
    world.pass(62);
    world.finish("churn-abcdef-1", V2, "sha256:d1");
    world.pass(200);
    assert_eq!(world.created.len(), 1);
    assert_eq!(trigger(&world).state, "Disarmed");
    assert_eq!(world.condition("Retraining").1, "NoNewData");
    // What is read now may be new: that is another recipe.
    world.edit(|release| {
        let retraining = release.spec.retraining.as_mut().unwrap();
        retraining.datasets[0].uri = "pvc://flights/h2.parquet".to_owned();
    });
    world.pass(10);
    assert_eq!(world.created.len(), 1, "it waits for its next time");
    world.pass(60);
    assert_eq!(world.created.len(), 2);
}

#[test]
fn a_window_goes_on_when_operator_and_gateways_begin_anew() {
    let mut world = drifting();
    world.edit(|release| {
        let drift = release.spec.monitoring.as_mut().unwrap().drift.as_mut();
        drift.unwrap().window = Some("8h".parse().unwrap());
    });
    world.traffic(300, 9.0);
    let begun = world.status().drift_window.clone().unwrap().next;
    world.forget_all_but(70);
    world.traffic(120, 9.0);
    world.forget_all_but(70);
    assert_eq!(world.condition("DriftDetected").1, "NotEnoughSamples");
    world.traffic(70, 9.0);
    let window = world.status().drift_window.clone().unwrap();
    assert_eq!(window.start, Some(begun));
    assert!((47_000..49_000).contains(&window.rows), "{}", window.rows);
    assert_eq!(world.condition("DriftDetected").0, "True");
    assert!(world.object("ConfigMap", "churn-drift-window").is_some());
}
