//! A trigger on new data with real pods: what lies in a volume is looked at now and then, and each change is trained on once.

use serde_json::{Value, json};

use crate::{
    installation,
    space::{Space, claim_of, condition, fill_job},
    words::{self, BUSYBOX},
};

/// A model that is what the data says.
fn recipe() -> Value {
    let mut recipe = words::recipe("", 0);
    recipe["datasets"] = json!([{"name": "words", "uri": "pvc://data/words.txt"}]);
    let container = &mut recipe["template"]["spec"]["containers"][0];
    container["command"] = json!([
        "sh",
        "-c",
        "cat $(find -L /perennial/inputs/words -type f) > $PERENNIAL_OUTPUT_DIR/words"
    ]);
    recipe
}

/// Does something to the data at `/to`.
async fn change(space: &Space, name: &str, command: &str) {
    let mut job = fill_job("data", BUSYBOX, &["sh", "-c", command]);
    job["metadata"]["name"] = json!(name);
    space.apply(&job.to_string()).await;
    space.until_complete(name, 60).await;
}

fn trigger(release: &Value) -> &Value {
    &release["status"]["retraining"]["triggers"][0]
}

/// Waits until it was looked at once more.
async fn looked(space: &Space, since: &Value) -> Value {
    let last = trigger(since)["countedUntil"].clone();
    let release = space
        .until("ModelDeployment", "words", 90, "it was looked at", |d| {
            !trigger(d)["countedUntil"].is_null() && trigger(d)["countedUntil"] != last
        })
        .await;
    let jobs = space.list("Job", "perennial.dev/role=look").await;
    assert!(jobs.len() <= 1, "one look at a time: {jobs:?}");
    release
}

#[tokio::test]
async fn each_change_of_a_volume_is_trained_on_once_and_one_that_is_away_is_said() {
    let _peace = installation::in_peace().await;
    let space = Space::new("fresh").await;
    space.apply(&claim_of("data").to_string()).await;
    change(&space, "first", "echo first > /to/words.txt").await;

    let job = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "words-a"}, "spec": recipe()});
    let mut deployment = words::deployment(json!({
        "steps": [{"setWeight": 100}], "analysis": {"minRequests": 0, "gates": []}, "bake": "1s",
    }));
    deployment["spec"]["retraining"] = json!({
        "template": {"spec": recipe()}, "promotion": "Manual", "cooldown": "1s",
        "triggers": [{"name": "fresh", "newData": {"datasets": ["words"], "every": "10s"}}],
    });
    for object in [&claim_of("models"), &job, &deployment] {
        space.apply(&object.to_string()).await;
    }
    space
        .until_condition("ModelDeployment", "words", 240, "Ready", "True")
        .await;

    // What is there at first is known, also where it was written again.
    let first = looked(&space, &Value::Null).await;
    change(&space, "again", "echo first > /to/words.txt").await;
    let second = looked(&space, &first).await;
    let third = looked(&space, &second).await;
    assert_eq!(third["status"]["retraining"]["firing"], 0);
    assert_eq!(trigger(&third)["state"], "Armed");

    // Away, it is neither new nor old.
    change(&space, "away", "mv /to/words.txt /to/elsewhere").await;
    let away = space
        .until("ModelDeployment", "words", 90, "the data is missed", |d| {
            condition(d, "Retraining").1 == "DataUnreadable"
        })
        .await;
    let (_, _, message) = condition(&away, "Retraining");
    assert!(
        message.starts_with(
            "trigger fresh can't look at the data: dataset words: pvc://data/words.txt isn't there"
        ),
        "{message}"
    );
    change(&space, "back", "mv /to/elsewhere /to/words.txt").await;
    let back = looked(&space, &away).await;
    assert_eq!(back["status"]["retraining"]["firing"], 0);
    assert_eq!(condition(&back, "Retraining").1, "Armed");

    change(&space, "second", "echo second > /to/words.txt").await;
    let waits = space
        .until(
            "ModelDeployment",
            "words",
            240,
            "its version waits for a person",
            |d| d["status"]["rollout"]["state"] == "Paused",
        )
        .await;
    let run = &waits["status"]["retraining"]["runs"][0];
    assert_eq!(run["trigger"], "fresh");
    assert_eq!(run["message"], "there is new data: words");
    assert_eq!(waits["status"]["candidate"]["version"], run["version"]);

    // Another template meanwhile is stable's version's, and takes the waiting one along to nobody.
    let stable = waits["status"]["stable"]["version"].clone();
    deployment["spec"]["server"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "EDITED", "value": "yes"}]);
    space.apply(&deployment.to_string()).await;
    let candidate = waits["status"]["candidate"]["revision"].clone();
    let again = space
        .until(
            "ModelDeployment",
            "words",
            240,
            "the version waits in the new template",
            |d| {
                d["status"]["rollout"]["state"] == "Paused"
                    && d["status"]["candidate"]["revision"] != candidate
            },
        )
        .await;
    assert_eq!(again["status"]["stable"]["version"], stable);
    assert_ne!(
        again["status"]["stable"]["revision"], waits["status"]["stable"]["revision"],
        "the new template serves"
    );
    assert_eq!(again["status"]["candidate"]["version"], run["version"]);
    assert_eq!(again["status"]["rollout"]["weight"], 0);

    let last = looked(&space, &again).await;
    let last = looked(&space, &last).await;
    assert_eq!(last["status"]["retraining"]["firing"], 1);
    let jobs = space.list("TrainingJob", "").await;
    assert_eq!(jobs.len(), 2, "the first run and one retraining");
}
