//! The plugin's commands, typed as users type them: `kubectl perennial …`, with what they print and what the cluster does.

use serde_json::{Value, json};

use crate::{
    installation,
    space::{Space, claim_of, is},
    words::{self, history, revision, training, version},
};

/// A ladder that waits for a person at 20 %, and judges nothing: no traffic is needed to climb it.
fn ladder() -> Value {
    json!({"steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {"duration": "1s"}}],
        "analysis": {"interval": "1s", "minRequests": 0, "gates": []}, "bake": "1s"})
}

async fn until(space: &Space, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    space
        .until("ModelDeployment", "words", 90, what, wanted)
        .await
}

/// Waits until a rollout waits for a person, with this version.
async fn paused(space: &Space, version: &str) -> Value {
    until(space, "it waits for a person", |d| {
        d["status"]["phase"] == "Paused" && d["status"]["candidate"]["version"] == version
    })
    .await
}

/// Waits until nothing goes on and this version is stable.
async fn settled(space: &Space, version: &str) -> Value {
    until(
        space,
        &format!("{version} is stable and all is quiet"),
        |d| {
            d["status"]["rollout"]["state"] == "Idle"
                && d["status"]["stable"]["version"] == version
                && d["status"]["candidate"].is_null()
        },
    )
    .await
}

/// What the plugin prints; it must succeed.
async fn done(space: &Space, arguments: &[&str]) -> String {
    match space.perennial(arguments).await {
        Ok(text) => text,
        Err(error) => panic!("kubectl perennial {arguments:?} failed: {error}"),
    }
}

/// What the plugin says to something that it, or the operator, refuses.
async fn refused(space: &Space, arguments: &[&str]) -> String {
    match space.perennial(arguments).await {
        Ok(text) => panic!("kubectl perennial {arguments:?} should have been refused: {text}"),
        Err(error) => error,
    }
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` isn't in:\n{text}");
    }
}

/// Sets a command's annotation by hand, as GitOps or another tool would: the operator's answer.
async fn by_hand(space: &Space, command: &str, value: &str) -> String {
    let annotation = format!("perennial.dev/{command}={value}");
    space
        .kubectl(
            &[
                "annotate",
                "--overwrite",
                "modeldeployment",
                "words",
                &annotation,
            ],
            "",
        )
        .await
        .unwrap();
    let handled = |d: &Value| -> Option<String> {
        let all = d["status"]["lastHandledCommands"].as_array()?;
        let one = all
            .iter()
            .find(|c| c["value"] == value && c["name"] == command)?;
        Some(one["result"].as_str()?.to_owned())
    };
    let object = until(space, &format!("{command} {value} is answered"), |d| {
        handled(d).is_some()
    })
    .await;
    handled(&object).unwrap()
}

#[tokio::test]
async fn commands_do_what_they_say_and_say_why_when_they_do_not() {
    let _peace = installation::in_peace().await;
    let space = Space::new("commands").await;
    let healthy = words::served(&space, &words::deployment(ladder())).await;
    let (first, first_revision) = (
        version(&space, "words-a").await,
        revision(&healthy, "stable"),
    );
    says(
        &done(&space, &["status"]).await,
        &[
            "ModelDeployment words  Healthy",
            &first,
            &first_revision,
            "weight 100",
        ],
    );
    // Nothing goes on: there is nothing to promote, to abort, to retry or to go back to.
    says(
        &refused(&space, &["promote", "words"]).await,
        &["no candidate"],
    );
    says(
        &refused(&space, &["abort", "words"]).await,
        &["no candidate"],
    );
    says(
        &refused(&space, &["retry", "words"]).await,
        &["no rejected revision"],
    );
    says(
        &refused(&space, &["rollback", "words"]).await,
        &["no earlier stable revision"],
    );
    says(
        &refused(&space, &["promote", "other"]).await,
        &["there is no ModelDeployment or PromptRelease other"],
    );
    says(
        &refused(&space, &["retrain", "ppr/words"]).await,
        &["there is no", "words"],
    );

    // promote, out of a pause; not by somebody who means another revision.
    space.apply(&training("words-b", "second", 0)).await;
    let second = version(&space, "words-b").await;
    let object = paused(&space, &second).await;
    let second_revision = revision(&object, "candidate");
    assert_eq!(object["status"]["rollout"]["weight"], 20);
    says(
        &done(&space, &["status", "words"]).await,
        &[
            "Paused",
            "weight 80",
            "weight 20",
            "step 2 of 4: pause until promoted",
            "kubectl perennial promote",
        ],
    );
    says(
        &done(&space, &["diff", "words"]).await,
        &[
            &format!("{first_revision} → {second_revision}"),
            &format!("~ model.version: {first} → {second}"),
            "~ model.digest: ",
        ],
    );
    says(
        &by_hand(&space, "promote", &format!("{first_revision}/1")).await,
        &["is stable already"],
    );
    says(
        &by_hand(&space, "promote", "0123456789/1").await,
        &["0123456789 is not the candidate", &second_revision],
    );
    says(
        &by_hand(&space, "abort", &second_revision).await,
        &["write <revision>/<nonce>"],
    );
    let object = space.read("ModelDeployment", "words").await.unwrap();
    assert_eq!(
        object["status"]["phase"], "Paused",
        "a refused command does nothing: {}",
        object["status"]
    );
    says(
        &done(&space, &["promote", "pmd/words"]).await,
        &["promote", &second_revision, "Done"],
    );
    let object = settled(&space, &second).await;
    assert_eq!(
        history(&object).last(),
        Some(&(second.clone(), "Promoted".to_owned()))
    );

    // abort: back to stable, and the revision is remembered.
    space.apply(&training("words-c", "third", 0)).await;
    let third = version(&space, "words-c").await;
    let third_revision = revision(&paused(&space, &third).await, "candidate");
    says(
        &done(&space, &["abort", "words"]).await,
        &["abort", &third_revision, "Done"],
    );
    let object = settled(&space, &second).await;
    assert_eq!(
        history(&object).last(),
        Some(&(third.clone(), "Aborted".to_owned()))
    );
    assert_eq!(
        object["status"]["rejectedRevisions"][0]["revision"],
        third_revision.as_str()
    );
    says(
        &done(&space, &["status", "words"]).await,
        &[&format!("rejected {third_revision}"), "someone aborted"],
    );
    says(
        &refused(&space, &["rollback", "words", &third_revision]).await,
        &["is rejected", "retry it first"],
    );

    // retry: it may be tried again, and is.
    says(
        &done(&space, &["retry", "words"]).await,
        &["retry", &third_revision, "Done"],
    );
    let object = paused(&space, &third).await;
    assert_eq!(object["status"]["rejectedRevisions"], Value::Null);
    says(
        &refused(&space, &["retry", "words", &second_revision]).await,
        &["is not rejected"],
    );
    done(&space, &["promote", "words"]).await;
    settled(&space, &third).await;

    // rollback: to the one before, then to the oldest by name; without steps, and what is left is rejected.
    says(
        &done(&space, &["rollback", "words"]).await,
        &["rollback-to", &second_revision, "Done"],
    );
    settled(&space, &second).await;
    says(
        &done(&space, &["rollback", "words", &first_revision]).await,
        &["Done"],
    );
    let object = settled(&space, &first).await;
    let rejected: Vec<&Value> = object["status"]["rejectedRevisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["revision"])
        .collect();
    assert_eq!(
        rejected,
        [third_revision.as_str(), second_revision.as_str()]
    );
    says(
        &refused(&space, &["rollback", "words", "0123456789"]).await,
        &["is not kept any more"],
    );
    says(
        &refused(&space, &["rollback", "words", &first_revision]).await,
        &["is stable already"],
    );

    // retrain: one run, and not two at once; a person promotes what it made.
    says(
        &refused(&space, &["retrain", "words"]).await,
        &["spec.retraining is not set"],
    );
    let mut object = words::deployment(ladder());
    object["spec"]["retraining"] =
        json!({"template": {"spec": words::recipe("retrained", 5)}, "promotion": "Manual"});
    space.apply(&object.to_string()).await;
    says(
        &done(&space, &["retrain", "words"]).await,
        &["retrain", &first_revision, "Done"],
    );
    says(
        &refused(&space, &["retrain", "words"]).await,
        &["is still running"],
    );
    let object = until(&space, "the run is known", |d| {
        d["status"]["retraining"]["runs"][0]["created"] == true
    })
    .await;
    let run = object["status"]["retraining"]["runs"][0]["job"]
        .as_str()
        .unwrap()
        .to_owned();
    let retrained = version(&space, &run).await;
    let object = until(&space, "the retrained version waits for a person", |d| {
        d["status"]["phase"] == "Paused"
            && d["status"]["candidate"]["version"] == retrained.as_str()
    })
    .await;
    assert_eq!(
        object["status"]["rollout"]["weight"], 0,
        "promotion is Manual: {}",
        object["status"]["rollout"]
    );
    done(&space, &["promote", "words"]).await;
    // The ladder has a pause of its own.
    until(&space, "it waits at 20 %", |d| {
        d["status"]["phase"] == "Paused" && d["status"]["rollout"]["weight"] == 20
    })
    .await;
    done(&space, &["promote", "words"]).await;
    let object = settled(&space, &retrained).await;
    assert!(is(&object, "Ready", "True"), "{}", object["status"]);
    assert_eq!(
        object["status"]["retraining"]["runs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    says(
        &done(&space, &["lineage", "words"]).await,
        &[
            &format!("stable  {retrained}"),
            &format!("TrainingJob {run}"),
            "retraining: someone said `retrain`",
            &format!("rejected  {third}"),
            "TrainingJob words-a",
        ],
    );
    says(
        &done(&space, &["history", "words"]).await,
        &[
            "rollouts, newest first",
            &format!("Promoted {retrained}"),
            &format!("Aborted {third}"),
            &format!("Promoted {first}"),
            &format!("#1 Promoted {run} (retrain) → {retrained}"),
            &format!("rejected {third_revision}"),
            "someone went back from it to",
            "commands",
            "promote ",
            "retrain ",
        ],
    );
}

#[tokio::test]
async fn a_file_is_validated_by_the_cluster_itself_and_nothing_is_written() {
    let _peace = installation::in_peace().await;
    let space = Space::new("validate").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, object: &Value| -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, object.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good.json", &words::deployment(ladder()));
    says(
        &done(&space, &["validate", &good]).await,
        &["ModelDeployment/words: valid"],
    );
    assert_eq!(
        space.read("ModelDeployment", "words").await,
        None,
        "nothing is written"
    );
    let falls = json!({"steps": [{"setWeight": 50}, {"setWeight": 20}]});
    let falls = file("falls.json", &words::deployment(falls));
    let mut unknown = words::deployment(ladder());
    unknown["spec"]["rollout"]["setMirror"] = json!(1);
    let unknown = file("unknown.json", &unknown);
    says(
        &refused(&space, &["validate", &good, &falls, &unknown]).await,
        &[
            "weights must not fall",
            "unknown field \"spec.rollout.setMirror\"",
            "2 of 3 would be refused",
        ],
    );
    // Of an object that is there, what may not change is told too.
    let mut run: Value = serde_json::from_str(&words::training("run", "x", 0)).unwrap();
    space.apply(&claim_of("models").to_string()).await;
    space.apply(&run.to_string()).await;
    version(&space, "run").await;
    run["spec"]["parameters"] = json!({"lr": "1"});
    says(
        &refused(&space, &["validate", &file("run.json", &run)]).await,
        &["a TrainingJob is one run and can't be changed"],
    );
}
