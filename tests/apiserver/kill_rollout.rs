//! The operator is killed at each write of a second rollout and of a retraining, and ends where it would have ended.

use serde_json::{Value, json};

use crate::{
    harness::{
        Place, crash, eventually, faults::Faults, nodes::Nodes, on_cluster, operator::Operator,
    },
    kill::children,
};

const API: &str = "perennial.dev/v1alpha1";
const VERSION: &str = "20130401-000000-abcdef";

async fn start(home: Place, faults: Faults) -> Operator {
    Operator::new(&home, faults).await.with_all().start().await
}

fn release(home: &Place, model: Value, steps: Value) -> Value {
    let container = json!({
        "name": "server", "image": "registry.example/server:1",
        "envFrom": [{"configMapRef": {"name": "settings"}}],
    });
    json!({
        "apiVersion": API, "kind": "ModelDeployment", "metadata": {"name": "m", "namespace": home.namespace},
        "spec": {
            "model": model,
            "server": {"template": {"spec": {"containers": [container]}}},
            "rollout": {"steps": steps, "bake": "1s", "analysis": {"interval": "1s", "gates": []}},
        },
    })
}

/// A release whose first revision serves, and the nodes that its pods run on.
async fn serving(home: Place, model: Value, steps: Value) -> Nodes {
    let nodes = Nodes::start(&home);
    let operator = start(home.clone(), Faults::none()).await;
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": home.namespace}, "data": {"level": "1"}});
    home.create(&settings).await.unwrap();
    home.create(&release(&home, model, steps)).await.unwrap();
    ended(&home, 1).await;
    operator.kill().await;
    nodes
}

fn by_uri() -> Value {
    json!({"uri": "s3://models/m", "digest": format!("sha256:{}", "0".repeat(64))})
}

async fn patch(home: &Place, patch: Value) {
    home.patch(API, "ModelDeployment", "m", patch)
        .await
        .unwrap();
}

/// The release, once so many rollouts have ended, and everything that isn't used any more is gone.
async fn ended(home: &Place, rollouts: usize) -> Value {
    eventually(&format!("{rollouts} rollouts have ended"), || async {
        let release = home.get(API, "ModelDeployment", "m").await?;
        let status = &release["status"];
        let ended = status["history"].as_array()?.len() == rollouts;
        let stable = status["stable"]["revision"].as_str()?.to_owned();
        let servers = home.list("apps/v1", "Deployment").await?;
        let one = |name: &str| name == "perennial-gateway" || name.ends_with(&stable);
        let names = servers.iter().filter_map(|s| s.metadata.name.as_ref());
        let clean = names.into_iter().all(|name| one(name));
        let gateways = status["gateway"]["applied"] == 1;
        (ended && clean && gateways && status["rollout"]["state"] == "Idle").then_some(release)
    })
    .await
}

/// What was decided, without times; the epoch depends on whether the warm-up ended before.
fn decided(release: &Value) -> Value {
    let status = &release["status"];
    let history = status["history"].as_array().cloned().unwrap_or_default();
    let history: Vec<Value> = history
        .iter()
        .map(|h| json!([h["revision"], h["outcome"], h["reason"], h["attempt"]]))
        .collect();
    let rejected = status["rejectedRevisions"].as_array().cloned();
    let rejected: Vec<Value> = rejected
        .iter()
        .flatten()
        .map(|r| json!([r["revision"], r["reason"]]))
        .collect();
    json!([
        history,
        rejected,
        status["attempts"],
        status["stable"]["revision"],
        status["rollout"]["weight"],
    ])
}

#[test]
fn a_second_rollout_is_promoted_once_wherever_the_operator_is_killed() {
    on_cluster(|place| async move {
        let prepare = |home: Place| serving(home, by_uri(), json!([{"setWeight": 50}]));
        crash::at_each_write_after(&place, prepare, start, |home: Place| async move {
            let edit = json!({"data": {"level": "2"}});
            home.patch("v1", "ConfigMap", "settings", edit)
                .await
                .unwrap();
            let release = ended(&home, 2).await;
            (decided(&release), children(&home).await)
        })
        .await;
    });
}

#[test]
fn a_rollout_that_is_aborted_goes_back_once_wherever_the_operator_is_killed() {
    on_cluster(|place| async move {
        let steps = json!([{"setWeight": 50}, {"pause": {}}]);
        let prepare = move |home: Place| serving(home, by_uri(), steps.clone());
        crash::at_each_write_after(&place, prepare, start, |home: Place| async move {
            let edit = json!({"data": {"level": "2"}});
            home.patch("v1", "ConfigMap", "settings", edit)
                .await
                .unwrap();
            let candidate = eventually("the rollout waits for a person", || async {
                let release = home.get(API, "ModelDeployment", "m").await?;
                let paused = release["status"]["rollout"]["state"] == "Paused";
                let candidate = release["status"]["candidate"]["revision"].as_str()?;
                paused.then(|| candidate.to_owned())
            })
            .await;
            let abort = json!({"metadata": {"annotations": {"perennial.dev/abort": format!("{candidate}/1")}}});
            patch(&home, abort).await;
            let release = ended(&home, 2).await;
            assert_eq!(release["status"]["rejectedRevisions"][0]["revision"], candidate);
            (decided(&release), children(&home).await)
        })
        .await;
    });
}

/// A TrainingJob that made a version long ago.
async fn trained(home: &Place) {
    let mut job = home.training_job("first");
    job["spec"]["datasets"] = json!([{"name": "train", "uri": "s3://data/q1.csv"}]);
    home.create(&job).await.unwrap();
    let model = json!({
        "name": "m", "version": VERSION, "uri": format!("s3://models/m/{VERSION}"),
        "digest": format!("sha256:{}", "0".repeat(64)), "trainedTime": "2013-04-01T00:00:00Z",
    });
    let datasets = json!([{"name": "train", "uri": "s3://data/q1.csv", "digest": format!("sha256:{}", "1".repeat(64))}]);
    let status = json!({"status": {"phase": "Succeeded", "message": "done", "attempts": 1, "model": model, "datasets": datasets, "conditions": []}});
    home.api(API, "TrainingJob")
        .patch_status(
            "first",
            &Default::default(),
            &kube::api::Patch::Merge(&status),
        )
        .await
        .unwrap();
}

#[test]
fn a_firing_makes_one_training_job_wherever_the_operator_is_killed() {
    on_cluster(|place| async move {
        let prepare = |home: Place| async move {
            trained(&home).await;
            serving(home, json!({"name": "m"}), json!([])).await
        };
        crash::at_each_write_after(&place, prepare, start, |home: Place| async move {
            let retraining = json!({
                "from": "first", "promotion": "Manual", "cooldown": "1h",
                "datasets": [{"name": "train", "uri": "s3://data/q2.csv"}],
                "triggers": [{"name": "age", "maxAge": "1h"}],
            });
            patch(&home, json!({"spec": {"retraining": retraining}})).await;
            let release = eventually("the retraining runs", || async {
                let release = home.get(API, "ModelDeployment", "m").await?;
                let run = &release["status"]["retraining"]["runs"][0];
                let job = run["job"].as_str()?;
                home.get("batch/v1", "Job", &format!("{job}-1")).await?;
                (run["created"] == true).then_some(release)
            })
            .await;
            let jobs = home.list(API, "TrainingJob").await.unwrap().len();
            let retraining = &release["status"]["retraining"];
            let runs = retraining["runs"].as_array().map(Vec::len);
            (decided(&release), retraining["firing"].clone(), runs, jobs)
        })
        .await;
    });
}
