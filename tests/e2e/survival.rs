//! The operator killed at any moment, also twice, ends where it would have ended; callers don't notice.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers, exposed},
    installation,
    space::{Space, claim_of, is},
    words::{self, history, revision},
};

/// A ladder that is climbed in twenty seconds.
fn ladder() -> Value {
    json!({
        "steps": [{"setWeight": 25}, {"pause": {"duration": "6s"}}, {"setWeight": 60}, {"pause": {"duration": "6s"}}],
        "analysis": {"interval": "2s", "minRequests": 20, "gates": [{"metric": "errorRate", "max": 0.05}]},
        "bake": "5s",
    })
}

/// Kills the operator without warning after a random time of up to so long, and waits until another pod of it is ready.
async fn kill_within(space: &Space, seconds: f64) {
    // A hasher is seeded at random: as good a die as any.
    let share = RandomState::new().hash_one(seconds.to_bits()) as f64 / u64::MAX as f64;
    let delay = Duration::from_secs_f64(share * seconds);
    tokio::time::sleep(delay).await; // the moment is what is tried here
    let system = Space::at(&space.client, installation::NAMESPACE);
    let mut killed = Vec::new();
    for pod in system
        .list("Pod", "app.kubernetes.io/component=operator")
        .await
    {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        system.kill(&name).await;
        killed.push(name);
    }
    eprintln!("killed {killed:?} after {delay:?}");
    assert!(!killed.is_empty(), "the operator runs");
}

/// Sends SIGKILL to the operator's processes, whose containers are then started again: by a pod that sees all processes of the node.
async fn shoot(space: &Space, name: &str) {
    // Somebody else may have just killed them: then the next ones are waited for.
    let script = "shot=; until [ $shot ]; do for p in /proc/[0-9]*; do case $(tr '\\0' ' ' 2>/dev/null <$p/cmdline) in \
        '/bin/perennial operator '*--lease-name=perennial' '*) kill -9 ${p#/proc/} && shot=1;; esac; done 2>/dev/null; sleep 0.2; done";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "hostPID": true, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "shoot", "image": words::BUSYBOX, "command": ["sh", "-c", script]}],
    }});
    space.apply(&pod.to_string()).await;
    space
        .until("Pod", name, 60, "it has done it", |p| {
            p["status"]["phase"] == "Succeeded"
        })
        .await;
}

#[tokio::test]
async fn an_operator_that_is_killed_at_any_moment_ends_where_it_would_have_ended() {
    let _group = installation::among_killers().await;
    let space = Space::enter("crash").await;
    space.apply(&claim_of("models").to_string()).await;

    // During a training, twice.
    space.apply(&words::training("words-a", "first", 5)).await;
    space.apply(&words::deployment(ladder()).to_string()).await;
    kill_within(&space, 3.0).await;
    kill_within(&space, 6.0).await;
    let first = space
        .until_condition("TrainingJob", "words-a", 120, "Complete", "True")
        .await;
    assert_eq!(
        (&first["status"]["attempts"], &first["status"]["failures"]),
        (&json!(1), &json!(0)),
        "{}",
        first["status"]
    );
    assert_eq!(
        space
            .list(
                "Job",
                "perennial.dev/training-job=words-a,perennial.dev/role=trainer"
            )
            .await
            .len(),
        1
    );
    let healthy = space
        .until_condition("ModelDeployment", "words", 120, "Ready", "True")
        .await;
    let version = |job: &Value| {
        job["status"]["model"]["version"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(healthy["status"]["stable"]["version"], version(&first));

    // During a rollout, twice, under the eyes of callers.
    let address = caller::address(&space, "words").await;
    let callers = Callers::start(&format!("{address}/words"), &Value::Null, 40);
    space.apply(&words::training("words-b", "second", 5)).await;
    space
        .until(
            "ModelDeployment",
            "words",
            120,
            "there is a candidate",
            |d| d["status"]["candidate"].is_object(),
        )
        .await;
    kill_within(&space, 6.0).await;
    space
        .until(
            "ModelDeployment",
            "words",
            120,
            "the candidate has callers",
            |d| d["status"]["rollout"]["weight"].as_i64() > Some(0),
        )
        .await;
    kill_within(&space, 6.0).await;
    let promoted = space
        .until(
            "ModelDeployment",
            "words",
            180,
            "the second version is stable and all is quiet",
            |d| {
                d["status"]["rollout"]["state"] == "Idle"
                    && is(d, "Ready", "True")
                    && d["status"]["candidate"].is_null()
                    && d["status"]["stable"]["version"] != version(&first)
            },
        )
        .await;
    let second = space.read("TrainingJob", "words-b").await.unwrap();
    let promotion = (version(&second), "Promoted".to_owned());
    assert_eq!(
        history(&promoted)
            .iter()
            .filter(|entry| **entry == promotion)
            .count(),
        1,
        "{:?}",
        history(&promoted)
    );
    assert_eq!(promoted["status"]["stable"]["version"], version(&second));
    assert_eq!(promoted["status"]["rejectedRevisions"], Value::Null);
    assert_eq!(second["status"]["attempts"], 1);
    assert_eq!(
        space
            .list("ControllerRevision", "perennial.dev/model-deployment=words")
            .await
            .len(),
        2
    );
    let seen = callers.stop().await;
    assert_eq!(seen.failed, 0, "callers don't notice: {seen:?}");
    assert_eq!(seen.by_revision.len(), 2, "{seen:?}");
}

#[tokio::test]
async fn an_operator_that_is_killed_during_a_rollback_ends_it() {
    let _group = installation::among_killers().await;
    let space = Space::enter("crash-back").await;
    let healthy = words::served(&space, &words::deployment(ladder())).await;
    let (uid, stable) = (
        healthy["metadata"]["uid"].as_str().unwrap().to_owned(),
        revision(&healthy, "stable"),
    );
    let address = caller::address(&space, "words").await;
    let callers = Callers::start(&format!("{address}/words"), &Value::Null, 40);
    space
        .apply(&words::broken_deployment(ladder()).to_string())
        .await;
    space
        .until(
            "ModelDeployment",
            "words",
            120,
            "the candidate has callers",
            |d| d["status"]["rollout"]["weight"] == 25,
        )
        .await;
    // The gate fails within seconds now: once somewhere around that, and once when it is known to be decided.
    kill_within(&space, 4.0).await;
    space
        .until(
            "ModelDeployment",
            "words",
            120,
            "the rollback is decided",
            |d| d["status"]["rollout"]["state"] == "RollingBack" || history(d).len() > 1,
        )
        .await;
    shoot(&space, "shoot").await;
    let back = space
        .until(
            "ModelDeployment",
            "words",
            120,
            "the rollout has ended",
            |d| d["status"]["rollout"]["state"] == "Idle" && is(d, "Stalled", "True"),
        )
        .await;
    let status = &back["status"];
    assert_eq!(
        history(&back)
            .iter()
            .map(|(_, outcome)| outcome.as_str())
            .collect::<Vec<_>>(),
        ["Promoted", "RolledBack"],
        "{status}"
    );
    let entry = &status["history"][1];
    assert_eq!(entry["reason"], "GateFailed", "{entry}");
    assert_eq!(
        (revision(&back, "stable"), &status["rollout"]["weight"]),
        (stable, &json!(0))
    );
    assert_eq!(status["rejectedRevisions"].as_array().unwrap().len(), 1);
    assert_eq!(
        status["rejectedRevisions"][0]["revision"],
        entry["revision"]
    );
    let after = callers.seen();
    let refused = entry["revision"].as_str().unwrap();
    let others: Vec<_> = after
        .failed_callers
        .iter()
        .filter(|key| !exposed(&uid, refused, key, 25.0))
        .collect();
    assert!(
        others.is_empty(),
        "callers outside of the canary saw failures: {others:?}"
    );
    // Its pods go, and it isn't tried again.
    space
        .until_gone("Deployment", &format!("words-{refused}"), 60)
        .await;
    let seen = callers.stop().await;
    assert_eq!(
        seen.failed, after.failed,
        "nobody fails once the rollout has ended: {seen:?}"
    );
}

#[tokio::test]
async fn an_operator_that_is_killed_during_a_retraining_makes_one_run_and_promotes_its_version() {
    let _group = installation::among_killers().await;
    let space = Space::enter("crash-again").await;
    let mut deployment =
        words::deployment(json!({"steps": [], "analysis": {"gates": []}, "bake": "1s"}));
    let healthy = words::served(&space, &deployment).await;
    let first = healthy["status"]["stable"]["version"]
        .as_str()
        .unwrap()
        .to_owned();
    // Whatever was trained a second ago is too old; once.
    deployment["spec"]["retraining"] = json!({
        "template": {"spec": words::recipe("again", 8)},
        "triggers": [{"name": "stale", "maxAge": "1s"}],
        "promotion": "Manual",
    });
    space.apply(&deployment.to_string()).await;
    space
        .until("ModelDeployment", "words", 120, "it has fired", |d| {
            d["status"]["retraining"]["firing"] == 1
        })
        .await;
    shoot(&space, "shoot").await;
    kill_within(&space, 6.0).await;
    let waiting = space
        .until(
            "ModelDeployment",
            "words",
            180,
            "the new version waits for a person",
            |d| d["status"]["phase"] == "Paused" && d["status"]["candidate"].is_object(),
        )
        .await;
    let run = &waiting["status"]["retraining"]["runs"][0];
    let job = words::version(&space, run["job"].as_str().unwrap()).await;
    assert_eq!(waiting["status"]["candidate"]["version"], job.as_str());
    kill_within(&space, 1.0).await;
    // Said while nobody listens, it is done once somebody does.
    let promote = format!(
        "perennial.dev/promote={}/1",
        revision(&waiting, "candidate")
    );
    space
        .kubectl(&["annotate", "modeldeployment", "words", &promote], "")
        .await
        .unwrap();
    let promoted = space
        .until(
            "ModelDeployment",
            "words",
            120,
            "its version is stable and all is quiet",
            |d| {
                d["status"]["rollout"]["state"] == "Idle"
                    && d["status"]["retraining"]["runs"][0]["result"] == "Promoted"
            },
        )
        .await;
    assert_eq!(promoted["status"]["stable"]["version"], job.as_str());
    assert_eq!(
        history(&promoted),
        [(first, "Promoted".to_owned()), (job, "Promoted".to_owned())]
    );
    assert_eq!(promoted["status"]["retraining"]["firing"], 1);
    assert_eq!(
        space.list("TrainingJob", "").await.len(),
        2,
        "one run for one firing"
    );
}
