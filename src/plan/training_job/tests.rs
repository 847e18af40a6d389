//! Lives of a TrainingJob, decision by decision.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use serde_json::{Value, json};

use super::*;
use crate::plan::claim::Claim;
use crate::{
    api::{
        TrainingJob, condition,
        run::{Report, Summary},
        training_job::{TrainingJobStatus, TrainingPhase},
    },
    plan::{Action, Plan},
};

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn observed(spec: Value) -> Observed {
    let mut base = json!({
        "model": {"name": "churn", "output": "pvc://models/churn"},
        "datasets": [{"name": "train", "uri": "pvc://data/churn.parquet"}],
        "template": {"spec": {"containers": [{"name": "trainer", "image": "x:1", "command": ["python3", "train.py"], "args": ["--lr", "$(PERENNIAL_PARAM_LR)"]}]}},
        "parameters": {"lr": "0.1"},
    });
    base.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let job: TrainingJob = serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "churn-1", "namespace": "team-a", "uid": "0a1b2c3d-0000-4000-8000-000000000000", "generation": 1},
        "spec": base,
    }))
    .unwrap();
    Observed {
        job,
        jobs: BTreeMap::new(),
        pods: Vec::new(),
        claims: BTreeMap::from([
            ("data".to_owned(), Claim::Found),
            ("models".to_owned(), Claim::Found),
        ]),
        answers: Answers::default(),
        image: "perennial:test".to_owned(),
    }
}

/// Takes the plan's writes over into what is observed next, as the API server would.
fn apply(observed: &mut Observed, plan: &Plan<TrainingJobStatus>, actions: usize) {
    for action in plan.actions.iter().take(actions) {
        match action {
            Action::Status(status) => observed.job.status = Some((**status).clone()),
            Action::Create(object) if object["kind"] == "Job" => {
                let job: Job = serde_json::from_value(object.clone()).unwrap();
                observed
                    .jobs
                    .insert(job.metadata.name.clone().unwrap(), job);
            }
            Action::Create(_) => {}
            Action::Delete(reference) => {
                observed.jobs.remove(&reference.name);
            }
            Action::Apply(_) | Action::DeleteSelf => {}
        }
    }
}

fn step(observed: &mut Observed, now: Timestamp) -> Plan<TrainingJobStatus> {
    let plan = plan(observed, now);
    apply(observed, &plan, usize::MAX);
    plan
}

fn status(observed: &Observed) -> &TrainingJobStatus {
    observed.job.status.as_ref().unwrap()
}

/// The attempt's pod ended with this summary, and its Job with it.
fn end(observed: &mut Observed, job: &str, summary: &Summary, disrupted: bool) {
    observed.jobs.get_mut(job).unwrap().status =
        serde_json::from_value(json!({"conditions": [{"type": if summary.succeeded {"Complete"} else {"Failed"}, "status": "True"}]})).unwrap();
    let conditions = if disrupted {
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}])
    } else {
        json!([])
    };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("{job}-0-x"), "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "u"}]},
        "spec": {"containers": [], "nodeName": "node1"},
        "status": {"phase": "Failed", "conditions": conditions, "containerStatuses": [{"name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": serde_json::to_string(summary).unwrap()}}}]},
    }))
    .unwrap();
    observed.pods = vec![pod];
}

fn failed(reason: &str, permanent: bool) -> Summary {
    Summary {
        reason: Some(reason.to_owned()),
        message: "it broke".to_owned(),
        permanent,
        exit_code: Some(1),
        ..Summary::default()
    }
}

fn report() -> Report {
    Report {
        summary: Summary {
            succeeded: true,
            message: "done".to_owned(),
            digest: Some("sha256:ab".to_owned()),
            ..Summary::default()
        },
        profile: Some(json!({"columns": []})),
        ..Report::default()
    }
}

#[test]
fn the_version_is_written_before_the_job_that_bears_it() {
    let mut world = observed(json!({}));
    let first = plan(&world, start());
    assert!(
        matches!(
            first.actions.as_slice(),
            [Action::Status(_), Action::Create(_)]
        ),
        "{:?}",
        first.actions
    );
    apply(&mut world, &first, 1);
    assert_eq!(
        status(&world).model.as_ref().unwrap().version.as_deref(),
        Some("20260102-030405-0a1b2c")
    );
    // The operator died here: whenever it comes back, it makes the same Job.
    let again = plan(&world, start() + SignedDuration::from_hours(1));
    assert_eq!(again.actions.last(), first.actions.last());
}

#[test]
fn the_trainer_is_wrapped_and_its_parameters_are_environment() {
    let plan = plan(&observed(json!({})), start());
    let Some(Action::Create(job)) = plan.actions.last() else {
        panic!("{plan:?}")
    };
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        container["command"],
        json!([
            "/perennial/bin/perennial",
            "supervise",
            "--",
            "python3",
            "train.py"
        ])
    );
    assert!(
        container["env"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "PERENNIAL_PARAM_LR", "value": "0.1"}))
    );
    assert_eq!(
        job["spec"]["template"]["spec"]["initContainers"][0]["image"],
        "perennial:test"
    );
    assert_eq!(
        job["spec"]["template"]["spec"]["automountServiceAccountToken"],
        false
    );
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(&json!({"name": "perennial-output", "mountPath": "/perennial/output", "subPath": "churn/20260102-030405-0a1b2c"})));
    assert!(mounts.contains(&json!({"name": "perennial-in-train", "mountPath": "/perennial/volumes/train", "readOnly": true})));
}

#[test]
fn a_missing_claim_is_named_and_waited_for() {
    let mut world = observed(json!({}));
    world.claims.insert("data".to_owned(), Claim::Missing);
    step(&mut world, start());
    let ready = condition::get(&status(&world).conditions, "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", reason::CLAIM_NOT_FOUND)
    );
    assert!(
        ready.message.contains("PersistentVolumeClaim data"),
        "{}",
        ready.message
    );
    assert!(world.jobs.is_empty());
    world.claims.insert("data".to_owned(), Claim::Found);
    step(&mut world, start());
    assert_eq!(world.jobs.len(), 1);
}

#[test]
fn a_failed_attempt_is_followed_by_another_until_restarts_are_used_up() {
    let mut world =
        observed(json!({"failurePolicy": {"maxRestarts": 1, "backoff": {"initial": "10s"}}}));
    let mut now = start();
    step(&mut world, now);
    end(
        &mut world,
        "churn-1-1",
        &failed("TrainerFailed", false),
        false,
    );
    step(&mut world, now);
    assert_eq!(
        (status(&world).phase, status(&world).attempts),
        (TrainingPhase::Restarting, 1)
    );
    assert_eq!(world.jobs.len(), 1, "not before the wait is over");
    now += SignedDuration::from_secs(10);
    step(&mut world, now);
    assert_eq!(status(&world).attempts, 2);
    end(
        &mut world,
        "churn-1-2",
        &failed("TrainerFailed", false),
        false,
    );
    step(&mut world, now);
    assert_eq!(status(&world).phase, TrainingPhase::Failed);
    assert!(
        status(&world).message.contains("maxRestarts: 1"),
        "{}",
        status(&world).message
    );
    assert_eq!(status(&world).attempt_history.len(), 2);
}

#[test]
fn a_preemption_is_no_failed_attempt() {
    let mut world = observed(json!({"failurePolicy": {"maxRestarts": 0}}));
    step(&mut world, start());
    end(
        &mut world,
        "churn-1-1",
        &failed("TrainerFailed", false),
        true,
    );
    step(&mut world, start());
    assert_eq!(
        (status(&world).phase, status(&world).failures),
        (TrainingPhase::Restarting, 0)
    );
    assert_eq!(
        status(&world).attempt_history[0].reason,
        "PreemptionByScheduler"
    );
}

#[test]
fn what_trying_again_cannot_mend_fails_at_once() {
    let mut world = observed(json!({}));
    step(&mut world, start());
    end(
        &mut world,
        "churn-1-1",
        &failed("DigestMismatch", true),
        false,
    );
    step(&mut world, start());
    assert_eq!(status(&world).phase, TrainingPhase::Failed);
    assert!(condition::is_true(&status(&world).conditions, "Stalled"));
    assert!(
        status(&world).message.starts_with("DigestMismatch"),
        "{}",
        status(&world).message
    );
}

#[test]
fn terminal_is_terminal_even_when_its_children_disappear() {
    let mut world = observed(json!({}));
    step(&mut world, start());
    world.answers.report = Some(report());
    let success = step(&mut world, start());
    assert!(
        matches!(
            success.actions.as_slice(),
            [Action::Create(_), Action::Status(_)]
        ),
        "the profile before the status that names it"
    );
    assert!(condition::is_true(&status(&world).conditions, "Complete"));
    let before = status(&world).clone();
    world.jobs.clear();
    world.answers = Answers::default();
    let quiet = plan(&world, start() + SignedDuration::from_hours(9));
    assert_eq!(quiet.actions, vec![Action::Status(Box::new(before))]);
    assert!(quiet.events.is_empty());
}

#[test]
fn a_report_that_was_missed_is_read_again_from_the_output() {
    let mut world = observed(json!({}));
    step(&mut world, start());
    end(&mut world, "churn-1-1", &report().summary, false);
    step(&mut world, start());
    assert!(world.jobs.contains_key("churn-1-report"));
    world.answers.report = Some(report());
    step(&mut world, start());
    assert_eq!(status(&world).phase, TrainingPhase::Succeeded);
    assert_eq!(
        status(&world).model.as_ref().unwrap().digest.as_deref(),
        Some("sha256:ab")
    );
}

#[test]
fn a_deadline_ends_the_run_and_its_pods() {
    let mut world = observed(json!({"activeDeadlineSeconds": 60}));
    step(&mut world, start());
    let plan = step(&mut world, start() + SignedDuration::from_secs(60));
    assert!(matches!(&plan.actions[0], Action::Delete(r) if r.name == "churn-1-1"));
    assert_eq!(status(&world).phase, TrainingPhase::Failed);
}

#[test]
fn the_ttl_deletes_the_object_and_nothing_else() {
    let mut world = observed(json!({"ttlSecondsAfterFinished": 60}));
    step(&mut world, start());
    world.answers.report = Some(report());
    step(&mut world, start());
    assert_eq!(
        plan(&world, start() + SignedDuration::from_secs(59)).check_at,
        Some(start() + SignedDuration::from_secs(60))
    );
    assert_eq!(
        plan(&world, start() + SignedDuration::from_secs(60)).actions,
        vec![Action::DeleteSelf]
    );
}

#[test]
fn a_mount_path_is_a_directory_that_any_user_may_write() {
    let observed = observed(
        json!({"datasets": [{"name": "train", "uri": "https://host/churn.csv", "mountPath": "/data"}]}),
    );
    let start = "2026-01-02T03:04:05Z".parse().unwrap();
    let job = children::attempt_job(&observed, "churn-1-1", 1, "v", start);
    let pod = &job["spec"]["template"]["spec"];
    let has = |list: &Value, item: Value| list.as_array().unwrap().contains(&item);
    assert!(has(
        &pod["volumes"],
        json!({"name": "perennial-at-train", "emptyDir": {}})
    ));
    assert!(has(
        &pod["containers"][0]["volumeMounts"],
        json!({"name": "perennial-at-train", "mountPath": "/data"})
    ));
}
