//! What users get wrong, and what they are told: a condition with a sentence within seconds, nothing that hot-loops, and going on once
//! it is put right.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

use crate::{
    caller, installation,
    space::{Space, claim_of, condition},
};

const BUSYBOX: &str = "docker.io/perennial/busybox:1";
/// Writes of a status in ten seconds that aren't a hot loop yet: the kubelet itself says two or three things of a bad image.
const FEW_WRITES: usize = 4;

/// A TrainingJob whose trainer is a line of shell; `more` goes into the spec.
fn training(name: &str, script: &str, more: Value) -> Value {
    let mut job = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": {
        "model": {"name": "thing", "output": "pvc://models/thing"},
        "template": {"spec": {"containers": [{"name": "trainer", "image": BUSYBOX, "command": ["sh", "-c", script]}]}},
    }});
    merge(&mut job["spec"], more);
    job
}

/// A ModelDeployment of the model `thing` that busybox serves; `more` goes into the spec.
fn deployment(name: &str, more: Value) -> Value {
    let mut deployment = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name}, "spec": {
        "model": {"name": "thing"},
        "server": {"protocol": "HTTP", "template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "server", "image": BUSYBOX, "command": ["httpd", "-f", "-p", "8080", "-h", "/mnt/model"],
            "readinessProbe": {"httpGet": {"path": "/thing", "port": 8080}, "periodSeconds": 1},
        }]}}},
    }});
    merge(&mut deployment["spec"], more);
    deployment
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

const MAKE: &str = "echo thing > $PERENNIAL_OUTPUT_DIR/thing";

/// A namespace with a claim for models.
async fn space(prefix: &str) -> Space {
    let space = Space::new(prefix).await;
    space.apply(&claim_of("models").to_string()).await;
    space
}

/// A namespace where the model `thing` has a version.
async fn space_with_version(prefix: &str) -> Space {
    let space = space(prefix).await;
    space
        .apply(&training("thing-1", MAKE, json!({})).to_string())
        .await;
    space
        .until_condition("TrainingJob", "thing-1", 90, "Complete", "True")
        .await;
    space
}

/// Waits until the condition has this status and its message all of these words; gives the object.
async fn told(
    space: &Space,
    kind: &str,
    name: &str,
    seconds: u64,
    wanted: (&str, &str, &str),
    words: &[&str],
) -> Value {
    let (of, status, reason) = wanted;
    let what = format!("{of} is {status} ({reason}) and its message says {words:?}");
    space
        .until(kind, name, seconds, &what, |object| {
            let (is, because, message) = condition(object, of);
            is == status
                && (reason.is_empty() || because == reason)
                && words.iter().all(|word| message.contains(word))
        })
        .await
}

/// Watches the object for ten seconds and counts how often it is written.
async fn quiet(space: &Space, kind: &str, name: &str) {
    let api = space.api(kind);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = watcher(api, config).touched_objects().boxed();
    let mut versions = Vec::new();
    let watching = async {
        while let Some(object) = changes.try_next().await.expect("the watch goes on") {
            versions.push((
                object.metadata.resource_version,
                object.data["status"]["message"].to_string(),
            ));
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), watching).await; // what is tried here is the time without a write
    // The first is the object as it is.
    let writes = versions.len().saturating_sub(1);
    assert!(
        writes <= FEW_WRITES,
        "{kind} {name} was written {writes} times in 10 s: {versions:#?}"
    );
    let jobs = space
        .list("Job", "app.kubernetes.io/managed-by=perennial")
        .await
        .len();
    assert!(jobs <= 4, "{jobs} Jobs were made");
}

#[tokio::test]
async fn a_digest_that_does_not_match_fails_the_run_before_training() {
    let _peace = installation::in_peace().await;
    let space = space("digest").await;
    space
        .volume("data", &[("rows.csv", "a,b\n1,2\n3,4\n")])
        .await;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let more =
        json!({"datasets": [{"name": "train", "uri": "pvc://data/rows.csv", "digest": wrong}]});
    space
        .apply(
            &training(
                "digest",
                "echo trained; echo x > $PERENNIAL_OUTPUT_DIR/thing",
                more,
            )
            .to_string(),
        )
        .await;
    let job = told(
        &space,
        "TrainingJob",
        "digest",
        40,
        ("Failed", "True", ""),
        &["DigestMismatch", "train", "sha256:0000"],
    )
    .await;
    assert_eq!(job["status"]["attempts"], 1, "trying again can't help");
    assert_eq!(job["status"]["phase"], "Failed");
    assert_eq!(condition(&job, "Stalled").0, "True");
    let last_line = &job["status"]["attemptHistory"][0]["message"];
    assert!(
        !last_line.as_str().unwrap().contains("last line: trained"),
        "it trained: {last_line}"
    );
    quiet(&space, "TrainingJob", "digest").await;
}

#[tokio::test]
async fn data_that_fails_its_checks_is_told_with_counts() {
    let _peace = installation::in_peace().await;
    let space = space("checks").await;
    space
        .volume(
            "data",
            &[("rows.csv", "temp,origin\n20,EWR\n500,JFK\n,XXX\n-90,LGA\n")],
        )
        .await;
    let more = json!({"datasets": [{"name": "train", "uri": "pvc://data/rows.csv", "checks": [
        {"rows": {"min": 100}},
        {"column": "temp", "maxNullFraction": 0.05, "range": {"min": -20, "max": 120}},
        {"column": "origin", "oneOf": ["EWR", "JFK", "LGA"]},
    ]}]});
    space
        .apply(&training("checks", MAKE, more).to_string())
        .await;
    let words = [
        "CheckFailed",
        "4 rows",
        "1 of 4 values",
        "temp",
        "origin",
        "XXX",
    ];
    let job = told(
        &space,
        "TrainingJob",
        "checks",
        40,
        ("Failed", "True", ""),
        &words,
    )
    .await;
    assert_eq!(job["status"]["attempts"], 1);
    quiet(&space, "TrainingJob", "checks").await;
}

#[tokio::test]
async fn a_missing_claim_is_named_and_the_run_begins_once_it_is_there() {
    let _peace = installation::in_peace().await;
    let space = Space::new("claim").await;
    space
        .apply(&training("claim", MAKE, json!({})).to_string())
        .await;
    told(
        &space,
        "TrainingJob",
        "claim",
        20,
        ("Ready", "False", "ClaimNotFound"),
        &["PersistentVolumeClaim models", "create it"],
    )
    .await;
    quiet(&space, "TrainingJob", "claim").await;
    space.apply(&claim_of("models").to_string()).await;
    space
        .until_condition("TrainingJob", "claim", 60, "Complete", "True")
        .await;
}

#[tokio::test]
async fn a_trainer_image_that_does_not_exist_is_told_in_the_kubelets_words() {
    let _peace = installation::in_peace().await;
    let space = space("image").await;
    let containers = json!({"template": {"spec": {"containers": [{"name": "trainer", "image": "registry.example/missing:9", "command": ["train"]}]}}});
    space
        .apply(&training("image", MAKE, containers).to_string())
        .await;
    told(
        &space,
        "TrainingJob",
        "image",
        40,
        ("Ready", "False", "PodNotStarting"),
        &["registry.example/missing:9"],
    )
    .await;
    quiet(&space, "TrainingJob", "image").await;
}

#[tokio::test]
async fn a_trainer_that_crashes_uses_up_its_restarts_and_says_its_last_line() {
    let _peace = installation::in_peace().await;
    let space = space("crashes").await;
    let more = json!({"failurePolicy": {"maxRestarts": 1, "backoff": {"initial": "1s"}}});
    space
        .apply(
            &training(
                "crashes",
                "echo loading; echo 'no GPU here' >&2; exit 3",
                more,
            )
            .to_string(),
        )
        .await;
    let words = ["no GPU here", "maxRestarts: 1"];
    let job = told(
        &space,
        "TrainingJob",
        "crashes",
        60,
        ("Failed", "True", "RestartsExhausted"),
        &words,
    )
    .await;
    assert_eq!(
        (&job["status"]["attempts"], &job["status"]["failures"]),
        (&json!(2), &json!(2))
    );
    let history = job["status"]["attemptHistory"].as_array().unwrap();
    assert!(
        history.iter().all(|attempt| attempt["exitCode"] == 3),
        "{history:?}"
    );
    quiet(&space, "TrainingJob", "crashes").await;
}

#[tokio::test]
async fn a_server_image_that_does_not_exist_is_told_in_the_kubelets_words() {
    let _peace = installation::in_peace().await;
    let space = space_with_version("server-image").await;
    let more = json!({"server": {"template": {"spec": {"containers": [{"name": "server", "image": "registry.example/missing:9"}]}}}});
    space.apply(&deployment("thing", more).to_string()).await;
    told(
        &space,
        "ModelDeployment",
        "thing",
        40,
        ("Ready", "False", ""),
        &["registry.example/missing:9"],
    )
    .await;
    quiet(&space, "ModelDeployment", "thing").await;
}

#[tokio::test]
async fn a_server_that_crashes_is_told_with_its_restarts() {
    let _peace = installation::in_peace().await;
    let space = space_with_version("server-crash").await;
    let more = json!({"server": {"template": {"spec": {"containers": [{"name": "server", "image": BUSYBOX, "command": ["sh", "-c", "echo cannot load the model; exit 7"]}]}}}});
    space.apply(&deployment("thing", more).to_string()).await;
    told(
        &space,
        "ModelDeployment",
        "thing",
        60,
        ("Ready", "False", ""),
        &["server", "crash"],
    )
    .await;
    quiet(&space, "ModelDeployment", "thing").await;
}

#[tokio::test]
async fn a_server_that_never_gets_ready_ends_at_its_deadline_and_a_better_spec_serves() {
    let _peace = installation::in_peace().await;
    let space = space_with_version("never").await;
    let never = json!({"server": {"template": {"spec": {"containers": [{"name": "server", "image": BUSYBOX, "command": ["sleep", "3600"],
        "readinessProbe": {"httpGet": {"path": "/thing", "port": 8080}, "periodSeconds": 1}}]}}}, "rollout": {"progressDeadline": "15s"}});
    space.apply(&deployment("thing", never).to_string()).await;
    let stalled = told(
        &space,
        "ModelDeployment",
        "thing",
        60,
        ("Stalled", "True", ""),
        &["15 s"],
    )
    .await;
    assert_eq!(condition(&stalled, "Ready").0, "False");
    assert_eq!(condition(&stalled, "Available").0, "False");
    quiet(&space, "ModelDeployment", "thing").await;
    space
        .apply(&deployment("thing", json!({})).to_string())
        .await;
    space
        .until_condition("ModelDeployment", "thing", 60, "Ready", "True")
        .await;
}

#[tokio::test]
async fn an_evaluation_that_is_not_there_is_named_and_the_rollout_goes_on_once_it_is_gone() {
    let _peace = installation::in_peace().await;
    let space = space_with_version("evaluation").await;
    space
        .apply(&deployment("thing", json!({"rollout": {"evaluations": ["nowhere"]}})).to_string())
        .await;
    told(
        &space,
        "ModelDeployment",
        "thing",
        40,
        ("Ready", "False", ""),
        &["Evaluation nowhere"],
    )
    .await;
    quiet(&space, "ModelDeployment", "thing").await;
    space
        .apply(&deployment("thing", json!({"rollout": {"evaluations": []}})).to_string())
        .await;
    space
        .until_condition("ModelDeployment", "thing", 60, "Ready", "True")
        .await;
}

#[tokio::test]
async fn a_model_without_a_version_is_waited_for() {
    let _peace = installation::in_peace().await;
    let space = space("version").await;
    space
        .apply(&deployment("thing", json!({})).to_string())
        .await;
    told(
        &space,
        "ModelDeployment",
        "thing",
        20,
        ("Ready", "False", ""),
        &["thing", "version"],
    )
    .await;
    quiet(&space, "ModelDeployment", "thing").await;
    space
        .apply(&training("thing-1", MAKE, json!({})).to_string())
        .await;
    space
        .until_condition("ModelDeployment", "thing", 90, "Ready", "True")
        .await;
}

#[tokio::test]
async fn a_template_that_the_api_server_refuses_is_told_word_for_word() {
    let _peace = installation::in_peace().await;
    let space = space_with_version("template").await;
    let mount = json!([{"name": "nowhere", "mountPath": "/x"}]);
    let words = ["volumeMounts", "Not found: \"nowhere\""];
    let server = json!({"server": {"template": {"spec": {"containers": [{"name": "server", "image": BUSYBOX, "volumeMounts": mount}]}}}});
    space.apply(&deployment("thing", server).to_string()).await;
    let trainer = json!({"template": {"spec": {"containers": [{"name": "trainer", "image": BUSYBOX, "command": ["true"], "volumeMounts": mount}]}}});
    space
        .apply(&training("refused", MAKE, trainer).to_string())
        .await;
    tokio::join!(
        told(
            &space,
            "ModelDeployment",
            "thing",
            20,
            ("Stalled", "True", ""),
            &words
        ),
        told(
            &space,
            "TrainingJob",
            "refused",
            20,
            ("Stalled", "True", ""),
            &words
        ),
    );
    tokio::join!(
        quiet(&space, "ModelDeployment", "thing"),
        quiet(&space, "TrainingJob", "refused")
    );
    space
        .apply(&deployment("thing", json!({})).to_string())
        .await;
    space
        .until_condition("ModelDeployment", "thing", 60, "Ready", "True")
        .await;
}

#[tokio::test]
async fn a_service_of_somebody_else_is_never_applied_over() {
    let _peace = installation::in_peace().await;
    let space = space_with_version("taken").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "thing"}, "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]}});
    space.apply(&service.to_string()).await;
    space
        .apply(&deployment("thing", json!({})).to_string())
        .await;
    told(
        &space,
        "ModelDeployment",
        "thing",
        40,
        ("Ready", "False", "NameTaken"),
        &["Service thing"],
    )
    .await;
    quiet(&space, "ModelDeployment", "thing").await;
    let untouched = space.read("Service", "thing").await.unwrap();
    assert_eq!(untouched["spec"]["selector"], json!({"app": "mine"}));
    space.delete("Service", "thing").await;
    // Nothing tells the operator that a name is free again: it looks after a while.
    space
        .until_condition("ModelDeployment", "thing", 120, "Ready", "True")
        .await;
}

#[tokio::test]
async fn a_prompt_whose_backend_is_down_says_so_within_seconds_and_forgets_it_when_it_is_back() {
    let _peace = installation::in_peace().await;
    let space = Space::new("backend").await;
    // A Service without pods: the name exists, nobody answers.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llm"}, "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 8000}]}});
    space.apply(&service.to_string()).await;
    let release = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease", "metadata": {"name": "greet"}, "spec": {
        "prompt": {"messages": [{"role": "user", "content": "Greet {{ name }}."}]},
        "backend": {"url": "http://llm:8000/v1", "model": "small", "timeout": "2s"},
    }});
    space.apply(&release.to_string()).await;
    let words = ["http://llm:8000", "spec.backend.url", "NetworkPolicy"];
    let unreachable = ("Available", "False", "BackendUnreachable");
    // The namespace's first gateway has to start, too.
    told(&space, "PromptRelease", "greet", 60, unreachable, &words).await;
    let not_ready = ("Ready", "False", "BackendUnreachable");
    told(&space, "PromptRelease", "greet", 5, not_ready, &words).await;
    let address = caller::address(&space, "greet").await;
    let question = json!({"prompt": {"id": "greet", "variables": {"name": "Ada"}}});
    let answer = caller::ask(
        &caller::http(),
        &format!("{address}/v1/chat/completions"),
        None,
        &question,
    )
    .await;
    let (status, _, body) = answer.unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!((502..=504).contains(&status), "{status}: {body}");
    let error: Value = serde_json::from_str(&body).expect("an error as OpenAI's clients expect it");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("backend llm"),
        "{body}"
    );
    quiet(&space, "PromptRelease", "greet").await;
    // Without a word to the operator.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "llm", "labels": {"app": "nobody"}}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "llm", "image": BUSYBOX, "command": ["httpd", "-f", "-p", "8000"]}]}});
    space.apply(&pod.to_string()).await;
    space
        .until_condition("PromptRelease", "greet", 60, "Available", "True")
        .await;
    quiet(&space, "PromptRelease", "greet").await;
    // A credential that isn't there is told by its own name.
    let mut release = release;
    release["spec"]["backend"]["credentials"] = json!({"secretName": "llm-key", "key": "token"});
    release["spec"]["rollout"] = json!({"steps": [], "analysis": {"gates": []}, "bake": "0s"});
    space.apply(&release.to_string()).await;
    let missing = ("Available", "False", "CredentialsMissing");
    let words = ["`token`", "Secret llm-key"];
    told(&space, "PromptRelease", "greet", 60, missing, &words).await;
}

#[tokio::test]
async fn what_a_schema_can_tell_is_refused_at_apply_with_what_to_write_instead() {
    let _peace = installation::in_peace().await;
    let space = Space::new("refused").await;
    let nobody =
        json!({"template": {"spec": {"containers": [{"name": "trainer", "image": BUSYBOX}]}}});
    let mut no_command = training("no-command", MAKE, nobody);
    no_command["spec"]["template"]["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("command");
    let falling = json!({"rollout": {"steps": [{"setWeight": 50}, {"setWeight": 10}]}});
    let trigger = |max_age: &str| json!({"name": "old", "maxAge": max_age});
    let twice = json!({"retraining": {"from": "thing-1", "promotion": "Manual", "triggers": [trigger("7d"), trigger("9d")]}});
    let ahead = json!({"monitoring": {"fromTheFuture": true}});
    for (object, words) in [
        (no_command, "must say its command"),
        (
            training(&"a".repeat(53), MAKE, json!({})),
            "at most 52 characters",
        ),
        (
            deployment(&"a".repeat(41), json!({})),
            "at most 40 characters",
        ),
        (deployment("falling", falling), "weights must not fall"),
        (deployment("twice", twice), "Duplicate value"),
        (deployment("ahead", ahead), "unknown field"),
    ] {
        let refusal = space.refusal(&object.to_string()).await;
        assert!(refusal.contains(words), "`{words}` isn't said: {refusal}");
    }
}
