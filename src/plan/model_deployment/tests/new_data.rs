use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    loops::{V2, trigger, world},
    world::{World, quick, server},
};

const FIRST: &str = "churn-abcdef-1";
const SECOND: &str = "churn-abcdef-2";

fn fresh(more: Value) -> World {
    let mut retraining = json!({"triggers": [{"name": "fresh", "newData": {"every": "30m"}}]});
    for (key, value) in more.as_object().unwrap() {
        retraining[key] = value.clone();
    }
    world(retraining)
}

/// Lets the looks that are there end: with this listing, or with what went wrong.
fn looked(world: &mut World, seen: Result<&str, &str>) {
    let summary = match seen {
        Ok(listing) => {
            json!({"succeeded": true, "message": "", "listings": {"train": listing}})
        }
        Err(why) => json!({"succeeded": false, "message": why}),
    };
    for job in looks(world) {
        let pod = json!({
            "metadata": {"name": format!("{job}-x"), "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "u"}]},
            "status": {"containerStatuses": [{"name": "look", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "message": summary.to_string()}}}]},
        });
        world.pods = vec![serde_json::from_value(pod).unwrap()];
        world.settle();
    }
}

fn looks(world: &World) -> Vec<String> {
    let jobs = world.names("Job").into_iter();
    jobs.filter(|name| name.starts_with("churn-look-"))
        .map(str::to_owned)
        .collect()
}

/// Lets so many minutes pass, in which the data is so.
fn minutes(world: &mut World, minutes: i64, seen: Result<&str, &str>) {
    for _ in 0..minutes {
        world.now += SignedDuration::from_mins(1);
        world.settle();
        assert!(looks(world).len() <= 1);
        looked(world, seen);
    }
}

fn state(world: &World) -> String {
    trigger(world).state
}

#[test]
fn each_change_of_the_data_starts_one_training_job_and_nothing_else_does() {
    let mut world = fresh(json!({}));
    assert_eq!(looks(&world).len(), 1, "it looks at once");
    minutes(&mut world, 120, Ok("a"));
    assert!(world.created.is_empty(), "what is there at first is known");
    assert_eq!(state(&world), "Armed");
    assert!(
        trigger(&world).message.starts_with("nothing new at"),
        "{:?}",
        trigger(&world)
    );
    let before = world.deleted.len();
    minutes(&mut world, 120, Ok("a"));
    let looked = world.deleted.len() - before;
    assert!((4..=5).contains(&looked), "{looked} looks in two hours");

    minutes(&mut world, 60, Ok("b"));
    assert_eq!(world.created, [FIRST]);
    let run = world.status().retraining.as_ref().unwrap().runs[0].clone();
    assert_eq!(
        (run.trigger.as_str(), run.message.as_str()),
        ("fresh", "there is new data: train")
    );
    world.finish(FIRST, V2, "sha256:d2");
    minutes(&mut world, 24 * 60, Ok("b"));
    assert_eq!(world.created, [FIRST]);
    assert_eq!(state(&world), "Armed");

    // Its version waits for a person; once that has decided, another change is another run.
    let candidate = world.status().candidate.clone().unwrap().revision;
    world.annotate("perennial.dev/promote", format!("{candidate}/1"));
    minutes(&mut world, 60, Ok("b"));
    assert_eq!(
        world.status().stable.as_ref().unwrap().version.as_deref(),
        Some(V2)
    );
    assert_eq!(world.created, [FIRST], "another stable makes no data new");
    minutes(&mut world, 60, Ok("c"));
    assert_eq!(world.created, [FIRST, SECOND]);
    minutes(&mut world, 24 * 60, Ok("c"));
    assert_eq!(world.created, [FIRST, SECOND]);
}

#[test]
fn a_source_that_is_down_neither_fires_nor_clears_and_is_said() {
    let mut world = fresh(json!({}));
    minutes(&mut world, 40, Ok("a"));
    minutes(&mut world, 40, Err("dataset train: the server answers 503"));
    assert!(world.created.is_empty());
    let (_, reason, message) = world.condition("Retraining");
    assert_eq!(reason, "DataUnreadable");
    assert!(
        message.starts_with("trigger fresh can't look at the data: dataset train: the server answers 503: it neither fires nor clears"),
        "{message}"
    );
    minutes(&mut world, 40, Ok("a"));
    assert_eq!(world.condition("Retraining").1, "Armed");
    assert!(world.created.is_empty());

    // A change that was seen stays due while something stands against a run, whatever comes then.
    world.edit(|release| {
        let never = json!([{"schedule": "0 3 1 1 *", "duration": "1m"}]);
        release
            .spec
            .retraining
            .as_mut()
            .unwrap()
            .maintenance_windows = serde_json::from_value(never).unwrap();
    });
    minutes(&mut world, 40, Ok("b"));
    let (_, reason, message) = world.condition("Retraining");
    assert_eq!(reason, "Waiting", "{message}");
    assert!(
        message.starts_with("trigger fresh is due (there is new data: train), but waits: no maintenance window is open"),
        "{message}"
    );
    minutes(&mut world, 40, Err("down"));
    assert_eq!(world.condition("Retraining").1, "Waiting");
    world.edit(|release| {
        let retraining = release.spec.retraining.as_mut().unwrap();
        retraining.maintenance_windows.clear();
    });
    world.settle();
    assert_eq!(world.created, [FIRST]);
}

#[test]
fn data_that_is_as_before_again_is_none_that_is_new() {
    let mut world =
        fresh(json!({"maintenanceWindows": [{"schedule": "0 3 1 1 *", "duration": "1m"}]}));
    minutes(&mut world, 40, Ok("a"));
    minutes(&mut world, 40, Ok("b"));
    assert_eq!(state(&world), "Pending");
    minutes(&mut world, 40, Ok("a"));
    assert_eq!(state(&world), "Armed");
}

#[test]
fn one_change_makes_one_job_whatever_crashes() {
    for crash in 0..14 {
        let mut world = fresh(json!({}));
        minutes(&mut world, 40, Ok("a"));
        world.now += SignedDuration::from_mins(31);
        // The operator dies after each write, and its pods may be gone when it is back.
        for _ in 0..3 {
            world.step(crash);
        }
        world.settle();
        let known = trigger(&world).datasets;
        assert_eq!((known.len(), &known[0].changed), (1, &None));
        for _ in 0..40 {
            world.now += SignedDuration::from_mins(1);
            world.step(crash);
            looked(&mut world, Ok("b"));
            world.step(crash);
        }
        minutes(&mut world, 600, Ok("b"));
        assert_eq!(world.created, [FIRST], "after {crash} writes");
    }
}

#[test]
fn a_run_that_failed_has_trained_on_nothing_and_is_tried_again_later() {
    let mut world = fresh(json!({"cooldown": "2h"}));
    minutes(&mut world, 40, Ok("a"));
    minutes(&mut world, 40, Ok("b"));
    assert_eq!((world.created.len(), state(&world).as_str()), (1, "Fired"));
    let job = world.jobs.get_mut(FIRST).unwrap();
    job.status =
        Some(serde_json::from_value(json!({"phase": "Failed", "message": "no memory"})).unwrap());
    minutes(&mut world, 180, Ok("b"));
    assert_eq!(world.created.len(), 1, "{:?}", trigger(&world));
    assert_eq!(state(&world), "Pending");
    assert!(
        trigger(&world)
            .message
            .contains("retraining 1 on new data failed"),
        "{:?}",
        trigger(&world)
    );
    minutes(&mut world, 60, Ok("b"));
    assert_eq!(world.created, [FIRST, SECOND]);
}

#[test]
fn whoever_starts_a_run_it_reads_what_is_new() {
    let mut world =
        fresh(json!({"maintenanceWindows": [{"schedule": "0 3 1 1 *", "duration": "1m"}]}));
    minutes(&mut world, 40, Ok("a"));
    minutes(&mut world, 40, Ok("b"));
    assert_eq!(
        (world.created.len(), state(&world).as_str()),
        (0, "Pending")
    );
    let stable = world.status().stable.clone().unwrap().revision;
    world.annotate("perennial.dev/retrain", format!("{stable}/1"));
    minutes(&mut world, 40, Ok("b"));
    assert_eq!(world.created, [FIRST]);
    assert_eq!(state(&world), "Armed", "{:?}", trigger(&world));
}

#[test]
fn the_same_data_under_another_name_disarms_until_there_is_other_data() {
    let mut world = fresh(json!({"cooldown": "1h"}));
    minutes(&mut world, 40, Ok("a"));
    minutes(&mut world, 40, Ok("touched"));
    assert_eq!(world.created, [FIRST]);
    // What it read is what stable was trained on.
    let spec = world.jobs[FIRST].spec.clone();
    world.jobs.get_mut("q1").unwrap().spec = spec;
    world.finish(FIRST, V2, "sha256:d1");
    minutes(&mut world, 300, Ok("touched"));
    assert_eq!(state(&world), "Disarmed", "{:?}", trigger(&world));
    assert_eq!(world.created, [FIRST]);
    minutes(&mut world, 60, Ok("new"));
    assert_eq!(world.created, [FIRST, SECOND], "{:?}", trigger(&world));
}

#[test]
fn what_can_not_change_or_is_not_read_is_said_and_nobody_looks() {
    let pinned = |digest: Option<String>| {
        json!({"spec": {
            "model": {"name": "churn", "output": "pvc://models/churn"},
            "datasets": [{"name": "train", "uri": "s3://b/k", "digest": digest}],
            "template": {"spec": {"containers": [{"name": "trainer", "image": "t:1", "command": ["train"]}]}},
        }})
    };
    let digest = Some(format!("sha256:{}", "0".repeat(64)));
    for (template, datasets, reason) in [
        (pinned(digest.clone()), json!(null), "DataNeverChanges"),
        (pinned(digest), json!(["train"]), "DataNeverChanges"),
        (pinned(None), json!(["test"]), "DatasetUnknown"),
    ] {
        let mut world = World::new(quick(json!({"retraining": {
            "template": template, "promotion": "Manual",
            "triggers": [{"name": "fresh", "newData": {"datasets": datasets}}],
        }})));
        world.train("q1", super::loops::V1, "sha256:d1");
        world.pass(5);
        let (_, said, message) = world.condition("Retraining");
        assert_eq!(said, reason, "{message}");
        assert!(
            message.starts_with("trigger fresh: newData watches"),
            "{message}"
        );
        assert_eq!(
            trigger(&world).message,
            message.replace("trigger fresh: ", "")
        );
        assert!(looks(&world).is_empty());
    }
}

#[test]
fn a_look_reads_as_the_trainer_does_and_without_secrets_of_the_operators() {
    let mut world = fresh(json!({}));
    world.edit(|release| {
        let spec = json!({"spec": {
            "model": {"name": "churn", "output": "pvc://models/churn"},
            "datasets": [
                {"name": "train", "uri": "s3://b/k", "credentials": {"secretName": "keys"}},
                {"name": "more", "uri": "pvc://flights/a/b.csv"},
            ],
            "template": {"spec": {
                "serviceAccountName": "trainer", "nodeSelector": {"disk": "ssd"},
                "containers": [{"name": "trainer", "image": "t:1", "command": ["train"]}],
            }},
        }});
        let retraining = release.spec.retraining.as_mut().unwrap();
        retraining.from = None;
        retraining.datasets.clear();
        retraining.template = serde_json::from_value(spec).unwrap();
        release.spec.server = serde_json::from_value(server("s:1")).unwrap();
    });
    world.settle();
    let [name] = looks(&world).try_into().unwrap();
    let job = world.object("Job", &name).unwrap().clone();
    assert_eq!(job["metadata"]["ownerReferences"][0]["name"], "churn");
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "trainer");
    assert_eq!(pod["nodeSelector"]["disk"], "ssd");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let container = &pod["containers"][0];
    assert_eq!(
        container["envFrom"],
        json!([{"prefix": "PERENNIAL_CRED_0_", "secretRef": {"name": "keys"}}])
    );
    assert_eq!(
        container["volumeMounts"],
        json!([{"name": "perennial-in-more", "mountPath": "/perennial/volumes/more", "readOnly": true, "subPath": "a"}])
    );
    let run: Value = serde_json::from_str(container["env"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(run["datasets"][1]["uri"], "pvc://flights/a/b.csv");
}

#[test]
fn new_data_is_a_new_chance_for_a_trigger_that_was_disarmed() {
    let mut world = fresh(json!({"triggers": [
        {"name": "fresh", "newData": {"every": "30m"}}, {"name": "worse", "metric": "driftShare", "max": 0.9},
    ]}));
    minutes(&mut world, 40, Ok("a"));
    let status = world.release.status.as_mut().unwrap();
    status.retraining.as_mut().unwrap().triggers[1].state = "Disarmed".to_owned();
    let other = |world: &World| world.status().retraining.as_ref().unwrap().triggers[1].clone();
    minutes(&mut world, 40, Ok("a"));
    assert_eq!(other(&world).state, "Disarmed");
    minutes(&mut world, 40, Ok("b"));
    assert_eq!(world.created, [FIRST]);
    assert_eq!(other(&world).state, "Armed");
}
