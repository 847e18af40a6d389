//! The operator is killed at each write of a second rollout and of a retraining, and ends where it would have ended.

use std::sync::{Arc, Mutex};

use perennial::api::{
    gate::MetricValue,
    run::{Report, Summary},
};
use serde_json::{Value, json};

use crate::{
    harness::{
        Place, crash, eventually,
        faults::Faults,
        nodes::{Nodes, Reports},
        on_cluster,
        operator::Operator,
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

/// The ModelDeployment, once so many rollouts have ended, and everything that isn't used any more is gone.
async fn ended(home: &Place, rollouts: usize) -> Value {
    ended_of(home, "ModelDeployment", rollouts).await
}

async fn ended_of(home: &Place, kind: &str, rollouts: usize) -> Value {
    eventually(&format!("{rollouts} rollouts have ended"), || async {
        let release = home.get(API, kind, "m").await?;
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

/// What evaluators report: whatever is measured first is good, and any other revision is not.
fn first_is_better() -> Reports {
    let first = Arc::new(Mutex::new(None::<Value>));
    Arc::new(move |_, run| {
        let url = run["target"]["model"]["url"].clone();
        let good = *first.lock().unwrap().get_or_insert(url.clone()) == url;
        Report {
            summary: Summary {
                succeeded: true,
                message: "measured".into(),
                rows: Some(1000),
                ..Summary::default()
            },
            metrics: vec![MetricValue {
                name: "accuracy".into(),
                value: Some(if good { 0.9 } else { 0.4 }),
                samples: Some(1000),
                ..MetricValue::default()
            }],
            ..Report::default()
        }
    })
}

#[test]
fn an_evaluation_refuses_a_revision_once_wherever_the_operator_is_killed() {
    on_cluster(|place| async move {
        let prepare = |home: Place| async move {
            let nodes = Nodes::with_runs(&home, first_is_better());
            let operator = start(home.clone(), Faults::none()).await;
            home.create(&json!({
                "apiVersion": API, "kind": "Evaluation", "metadata": {"name": "q", "namespace": home.namespace},
                "spec": {"target": {"modelDeployment": {"name": "m"}}, "dataset": {"uri": "s3://data/d.csv", "label": "y"},
                         "gates": [{"metric": "accuracy", "min": 0.6}]},
            }))
            .await
            .unwrap();
            let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": home.namespace}, "data": {"level": "1"}});
            home.create(&settings).await.unwrap();
            let mut release = release(&home, by_uri(), json!([{"setWeight": 50}]));
            release["spec"]["rollout"]["evaluations"] = json!(["q"]);
            home.create(&release).await.unwrap();
            ended(&home, 1).await;
            operator.kill().await;
            nodes
        };
        crash::at_each_write_after(&place, prepare, start, |home: Place| async move {
            let edit = json!({"data": {"level": "2"}});
            home.patch("v1", "ConfigMap", "settings", edit)
                .await
                .unwrap();
            let release = ended(&home, 2).await;
            assert_eq!(
                release["status"]["history"][1]["reason"],
                "EvaluationFailed"
            );
            let evaluation = home.get(API, "Evaluation", "q").await.unwrap();
            let runs = evaluation["status"]["runs"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let runs: Vec<Value> = runs
                .iter()
                .map(|r| json!([r["revision"], r["verdict"], r["attempt"]]))
                .collect();
            (decided(&release), runs, children(&home).await)
        })
        .await;
    });
}

#[test]
fn a_prompt_goes_forward_and_back_once_wherever_the_operator_is_killed() {
    on_cluster(|place| async move {
        let prompt = |system: &str| json!({"messages": [{"role": "system", "content": system}, {"role": "user", "content": "{{ question }}"}]});
        let first = prompt("Be kind.");
        let prepare = move |home: Place| {
            let first = first.clone();
            async move {
                let nodes = Nodes::start(&home);
                let operator = start(home.clone(), Faults::none()).await;
                home.create(&json!({
                    "apiVersion": API, "kind": "PromptRelease", "metadata": {"name": "m", "namespace": home.namespace},
                    "spec": {"prompt": first, "backend": {"url": "http://127.0.0.1:9/v1", "model": "small"},
                             "rollout": {"steps": [{"setWeight": 50}], "bake": "1s", "analysis": {"interval": "1s", "gates": []}}},
                }))
                .await
                .unwrap();
                ended_of(&home, "PromptRelease", 1).await;
                operator.kill().await;
                nodes
            }
        };
        crash::at_each_write_after(&place, prepare, start, move |home: Place| async move {
            let before = ended_of(&home, "PromptRelease", 1).await["status"]["stable"]["revision"].as_str().unwrap().to_owned();
            let edit = json!({"spec": {"prompt": prompt("Be kind and brief.")}});
            home.patch(API, "PromptRelease", "m", edit).await.unwrap();
            ended_of(&home, "PromptRelease", 2).await;
            let back = json!({"metadata": {"annotations": {"perennial.dev/rollback-to": format!("{before}/1")}}});
            home.patch(API, "PromptRelease", "m", back).await.unwrap();
            let release = ended_of(&home, "PromptRelease", 3).await;
            assert_eq!(release["status"]["stable"]["revision"], before.as_str());
            (decided(&release), children(&home).await)
        })
        .await;
    });
}
