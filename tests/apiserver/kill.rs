//! The operator is killed at each of its writes, three ways, and ends where it would have ended.

use std::sync::Arc;

use perennial::{
    api::{
        gate::MetricValue,
        revision::ModelReference,
        run::{Report, Summary},
    },
    controller::training_job::TrainingJobs,
    plan::{Action, Plan},
};
use serde_json::{Value, json};

use crate::{
    harness::{
        Place, crash, eventually,
        nodes::{Nodes, Reports},
        on_cluster,
        operator::Operator,
    },
    scripted::{Scripted, config_map, deployment, well},
};

#[test]
fn a_plan_of_several_writes_ends_the_same_wherever_it_is_killed() {
    on_cluster(|place| async move {
        let start = |home: Place, faults| async move {
            let controller = Scripted::new(|release, _| {
                let mut decided = release.status.clone().unwrap_or_default();
                decided.attempts = decided.attempts.max(1);
                Plan {
                    actions: vec![
                        Action::Status(Box::new(decided)),
                        Action::Apply(deployment(release, "d", "registry.example/x:1")),
                        Action::Create(config_map(release, "c", json!({"k": "v"}))),
                        Action::Status(Box::new(
                            perennial::api::prompt_release::PromptReleaseStatus {
                                attempts: 1,
                                ..well(release)
                            },
                        )),
                    ],
                    ..Plan::default()
                }
            });
            Operator::new(&home, faults)
                .await
                .with(controller)
                .start()
                .await
        };
        crash::at_each_write(&place, start, |home: Place| async move {
            home.create(&home.prompt_release("r")).await.unwrap();
            let release = eventually("the release is Ready", || async {
                let release = home
                    .get("perennial.dev/v1alpha1", "PromptRelease", "r")
                    .await?;
                (release.pointer("/status/conditions/0/status")? == "True").then_some(release)
            })
            .await;
            let children = children(&home).await;
            (release["status"]["attempts"].clone(), children)
        })
        .await;
    });
}

/// The first attempt fails, the second one publishes a version.
fn second_time_lucky() -> Reports {
    Arc::new(|job, _| {
        if job.ends_with("-1") {
            let summary = Summary {
                reason: Some("TrainerFailed".into()),
                message: "the trainer ended with exit code 3".into(),
                exit_code: Some(3),
                ..Summary::default()
            };
            return Report {
                summary,
                ..Report::default()
            };
        }
        let digest = Some(format!("sha256:{}", "2".repeat(64)));
        Report {
            summary: Summary {
                succeeded: true,
                message: "published".into(),
                digest: digest.clone(),
                ..Summary::default()
            },
            model: Some(ModelReference {
                digest,
                ..ModelReference::default()
            }),
            metrics: vec![MetricValue {
                name: "rocAuc".into(),
                value: Some(0.7),
                ..MetricValue::default()
            }],
            profile: Some(json!({"rows": 1})),
            ..Report::default()
        }
    })
}

#[test]
fn a_training_job_fails_once_and_publishes_once_wherever_the_operator_is_killed() {
    on_cluster(|place| async move {
        let start = |home: Place, faults| async move {
            Operator::new(&home, faults)
                .await
                .with(TrainingJobs::default())
                .start()
                .await
        };
        let prepare = |home: Place| async move { Nodes::with_runs(&home, second_time_lucky()) };
        crash::at_each_write_after(&place, prepare, start, |home: Place| async move {
            let mut job = home.training_job("j");
            job["spec"]["failurePolicy"] = json!({"backoff": {"initial": "1s"}});
            home.create(&job).await.unwrap();
            let job = eventually("its second attempt has published a version", || async {
                let job = home
                    .get("perennial.dev/v1alpha1", "TrainingJob", "j")
                    .await?;
                (job["status"]["phase"] == "Succeeded").then_some(job)
            })
            .await;
            let status = &job["status"];
            let version = status["model"]["version"].as_str().unwrap();
            let children = children(&home).await;
            let children: Vec<String> = children
                .iter()
                .map(|c| c.replace(version, "VERSION"))
                .collect();
            assert!(
                children.contains(&"ConfigMap/m-VERSION".to_owned()),
                "{children:?}"
            );
            let ended = status["attemptHistory"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ended: Vec<Value> = ended
                .iter()
                .map(|a| json!([a["number"], a["reason"], a["exitCode"], a["counted"]]))
                .collect();
            (
                ended,
                json!([
                    status["attempts"],
                    status["failures"],
                    status["metrics"],
                    status["model"]["digest"]
                ]),
                children,
            )
        })
        .await;
    });
}

#[test]
fn a_first_revision_is_made_once_wherever_the_operator_is_killed() {
    on_cluster(|place| async move {
        let start = |home: Place, faults| async move {
            Operator::new(&home, faults).await.with_all().start().await
        };
        crash::at_each_write(&place, start, |home: Place| async move {
            let server = json!({"template": {"spec": {"containers": [{"name": "server", "image": "registry.example/server:1"}]}}});
            let model = json!({"uri": "s3://models/m", "digest": format!("sha256:{}", "0".repeat(64))});
            home.create(&json!({
                "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment",
                "metadata": {"name": "m", "namespace": home.namespace},
                "spec": {"model": model, "server": server},
            }))
            .await
            .unwrap();
            home.create(&home.prompt_release("p")).await.unwrap();
            // Without pods nothing gets ready: this is as far as it goes.
            eventually("everything is made and both statuses say what is awaited", || async {
                let model = home.get("perennial.dev/v1alpha1", "ModelDeployment", "m").await?;
                let prompt = home.get("perennial.dev/v1alpha1", "PromptRelease", "p").await?;
                let end = (
                    [decided(&model), decided(&prompt)],
                    children(&home).await,
                );
                let made = ["Deployment/m-", "Deployment/perennial-gateway", "Service/m", "Service/p", "ControllerRevision/m-", "ControllerRevision/p-"];
                let all = made.iter().all(|m| end.1.iter().any(|c| c.starts_with(m)));
                (all && said(&model) && said(&prompt)).then_some(end)
            })
            .await
        })
        .await;
    });
}

/// Whether a status says what serves, or what is to, and where.
fn said(release: &Value) -> bool {
    release.pointer("/status/url").is_some()
        && (release.pointer("/status/candidate").is_some()
            || release.pointer("/status/stable").is_some())
}

/// What a release has decided, without times.
fn decided(release: &Value) -> [Value; 4] {
    [
        "/status/attempts",
        "/status/candidate/revision",
        "/status/stable/revision",
        "/status/rollout/state",
    ]
    .map(|pointer| release.pointer(pointer).cloned().unwrap_or_default())
}

/// Kind and name of everything that an operator may have made.
pub async fn children(home: &Place) -> Vec<String> {
    let mut found = Vec::new();
    for (api_version, kind) in [
        ("batch/v1", "Job"),
        ("apps/v1", "Deployment"),
        ("v1", "ConfigMap"),
        ("apps/v1", "ControllerRevision"),
        ("v1", "Service"),
    ] {
        for object in home
            .api(api_version, kind)
            .list(&Default::default())
            .await
            .unwrap()
        {
            let name = object.metadata.name.unwrap_or_default();
            if name != "kube-root-ca.crt" {
                found.push(format!("{kind}/{name}"));
            }
        }
    }
    found
}
