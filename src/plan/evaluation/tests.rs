//! Lives of an Evaluation, decision by decision.

mod container;
mod holdout;
mod mirrored;
mod schedule;
mod training;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        Evaluation, condition,
        evaluation::EvaluationStatus,
        gate::{MetricValue, Verdict},
        run::{Report, Summary},
    },
    plan::{Action, Plan, claim::Claim, training_job::Answers},
};

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn observed() -> Observed {
    let evaluation: Evaluation = serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation",
        "metadata": {"name": "quality", "namespace": "team-a", "uid": "e", "generation": 1},
        "spec": {"target": {"modelDeployment": {"name": "churn"}}, "dataset": {"uri": "pvc://data/holdout.parquet", "label": "churned"},
                 "gates": [{"metric": "rocAuc", "min": 0.6}],
                 "template": {"spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "evaluator", "image": "evil", "resources": {"limits": {"cpu": "1"}}}]}}},
    }))
    .unwrap();
    Observed {
        evaluation,
        training_job: None,
        release: None,
        revisions: ["aaaa", "bbbb"]
            .into_iter()
            .map(|r| (r.to_owned(), Content::Model(Box::default())))
            .collect(),
        jobs: BTreeMap::new(),
        reports: Vec::new(),
        pods: Vec::new(),
        claims: BTreeMap::from([("data".to_owned(), Claim::Found)]),
        answers: Answers::default(),
        image: "perennial:test".to_owned(),
    }
}

fn release(observed: &mut Observed, status: Value) {
    let release = serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "churn", "namespace": "team-a", "uid": "md"},
        "spec": {"server": {"template": {"spec": {"containers": [{"name": "server"}]}}}}, "status": status,
    }));
    observed.release = Some(Release::Model(release.unwrap()));
}

fn serving() -> Value {
    json!({"stable": {"revision": "aaaa", "version": "v1", "availableReplicas": 1}, "gateway": {"port": 20000, "total": 1}})
}

fn trying(attempt: i64) -> Value {
    let mut status = serving();
    status["candidate"] =
        json!({"revision": "bbbb", "version": "v2", "availableReplicas": 1, "attempt": attempt});
    status
}

fn step(observed: &mut Observed, now: Timestamp) -> Plan<EvaluationStatus> {
    let plan = plan(observed, now);
    for action in &plan.actions {
        match action {
            Action::Status(status) => observed.evaluation.status = Some((**status).clone()),
            Action::Create(job) => {
                let job: Job = serde_json::from_value(job.clone()).unwrap();
                observed
                    .jobs
                    .insert(job.metadata.name.clone().unwrap(), job);
            }
            Action::Delete(reference) => {
                observed.jobs.remove(&reference.name);
            }
            Action::Apply(_) | Action::DeleteSelf => {}
        }
    }
    observed.answers = Answers::default();
    plan
}

fn status(observed: &Observed) -> &EvaluationStatus {
    observed.evaluation.status.as_ref().unwrap()
}

fn answer(observed: &mut Observed, auc: f64) {
    let metric = |name: &str, value| MetricValue {
        name: name.to_owned(),
        value: Some(value),
        samples: Some(10),
        ..MetricValue::default()
    };
    observed.answers.report = Some(Report {
        summary: Summary {
            succeeded: true,
            rows: Some(10),
            ..Summary::default()
        },
        metrics: vec![metric("rocAuc", auc)],
        ..Report::default()
    });
}

#[test]
fn nothing_to_measure_is_ready_and_idle() {
    let mut world = observed();
    step(&mut world, start());
    let ready = condition::get(&status(&world).conditions, "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", reason::IDLE)
    );
    assert!(
        ready.message.contains("churn doesn't exist"),
        "{}",
        ready.message
    );
}

#[test]
fn the_number_is_written_before_the_job_and_a_crash_in_between_makes_the_same() {
    let mut world = observed();
    release(&mut world, serving());
    let first = plan(&world, start());
    let [Action::Status(written), Action::Create(job)] = first.actions.as_slice() else {
        panic!("{first:?}")
    };
    world.evaluation.status = Some((**written).clone());
    let again = plan(&world, start());
    assert!(again.actions.contains(&Action::Create(job.clone())));
    assert_eq!(job["metadata"]["name"], "quality-1");
}

#[test]
fn the_overlay_adds_resources_but_not_what_runs() {
    let mut world = observed();
    release(&mut world, serving());
    let plan = plan(&world, start());
    let Some(Action::Create(job)) = plan.actions.last() else {
        panic!()
    };
    let spec = &job["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["image"], "perennial:test");
    assert_eq!(spec["containers"][0]["resources"]["limits"]["cpu"], "1");
    assert_eq!(spec["nodeSelector"]["a"], "b");
}

#[test]
fn a_candidate_is_measured_against_stable_and_kept_under_its_key() {
    let mut world = observed();
    release(&mut world, trying(4));
    step(&mut world, start());
    let run = status(&world).last_run.clone().unwrap();
    assert_eq!(
        (
            run.revision.as_deref(),
            run.attempt,
            run.baseline.as_deref()
        ),
        (Some("bbbb"), 4, Some("aaaa"))
    );
    answer(&mut world, 0.7);
    step(&mut world, start());
    assert_eq!(status(&world).runs[0].verdict, Verdict::Passed);
    assert!(condition::is_true(&status(&world).conditions, "Ready"));
    // Promoted: what was measured as a candidate isn't measured again.
    release(
        &mut world,
        json!({"stable": {"revision": "bbbb", "version": "v2", "availableReplicas": 1}, "gateway": {"port": 20000, "total": 1}}),
    );
    step(&mut world, start());
    assert_eq!(status(&world).count, 1);
    let before = status(&world).clone();
    assert_eq!(
        plan(&world, start() + SignedDuration::from_hours(1)).actions,
        vec![Action::Status(Box::new(before))],
        "quiet"
    );
}

#[test]
fn a_candidate_that_fails_is_not_the_evaluations_ill_health() {
    let mut world = observed();
    release(&mut world, trying(1));
    step(&mut world, start());
    answer(&mut world, 0.5);
    step(&mut world, start());
    assert_eq!(status(&world).verdict, Verdict::Failed);
    assert!(condition::is_true(&status(&world).conditions, "Ready"));
}

#[test]
fn another_attempt_is_another_run_and_the_old_one_is_dropped() {
    let mut world = observed();
    release(&mut world, trying(1));
    step(&mut world, start());
    release(&mut world, trying(2));
    step(&mut world, start());
    assert_eq!(world.jobs.keys().collect::<Vec<_>>(), ["quality-2"]);
    assert_eq!(status(&world).last_run.as_ref().unwrap().attempt, 2);
}

#[test]
fn an_error_is_tried_again_a_few_times_and_never_passes() {
    let mut world = observed();
    release(&mut world, trying(1));
    let mut now = start();
    for _ in 0..20 {
        step(&mut world, now);
        now += SignedDuration::from_secs(300);
        if status(&world).verdict == Verdict::Running {
            world.answers.report = Some(Report {
                summary: Summary {
                    reason: Some("TargetUnreachable".to_owned()),
                    message: "no route".to_owned(),
                    ..Summary::default()
                },
                ..Report::default()
            });
        }
    }
    assert_eq!(
        (status(&world).verdict, status(&world).count),
        (Verdict::Error, 3)
    );
    assert!(condition::is_true(&status(&world).conditions, "Stalled"));
    assert!(status(&world).message.contains("no route"));
}

#[test]
fn a_missing_claim_is_named() {
    let mut world = observed();
    release(&mut world, serving());
    world.claims.insert("data".to_owned(), Claim::Missing);
    step(&mut world, start());
    assert!(world.jobs.is_empty());
    assert!(
        status(&world)
            .message
            .contains("PersistentVolumeClaim data")
    );
}

#[test]
fn a_run_without_an_end_is_ended() {
    let mut world = observed();
    release(&mut world, serving());
    step(&mut world, start());
    step(&mut world, start() + SignedDuration::from_hours(2));
    assert_eq!(status(&world).verdict, Verdict::Error);
    assert!(world.jobs.is_empty());
}

#[test]
fn a_report_is_kept_in_a_config_map_before_status_names_it_and_the_last_two_stay() {
    let mut world = observed();
    release(&mut world, serving());
    step(&mut world, start());
    answer(&mut world, 0.7);
    let report = world.answers.report.as_mut().unwrap();
    report.page = Some(crate::api::run::Page {
        html: Some(k8s_openapi::ByteString(vec![1, 2, 3])),
        uri: Some("s3://reports/quality-1.html".to_owned()),
        message: None,
    });
    let plan = plan(&world, start());
    let [Action::Create(map), Action::Status(status)] = plan.actions.as_slice() else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!(map["kind"], "ConfigMap");
    assert_eq!(map["binaryData"]["report.html.gz"], "AQID");
    assert_eq!(map["metadata"]["ownerReferences"][0]["uid"], "e");
    let kept = status.last_run.as_ref().unwrap().report.clone().unwrap();
    assert_eq!(kept.config_map.as_deref(), map["metadata"]["name"].as_str());
    assert_eq!(kept.uri.as_deref(), Some("s3://reports/quality-1.html"));
    world.evaluation.status = Some((**status).clone());
    world.answers = Answers::default();
    world.reports = [10, 1, 9]
        .map(|number| crate::plan::Reference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: "team-a".to_owned(),
            name: format!("quality-{number}-report"),
            uid: number.to_string(),
        })
        .to_vec();
    let plan = super::plan(&world, start());
    let Action::Delete(gone) = &plan.actions[0] else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!(gone.name, "quality-1-report");
    let Some(Action::Status(status)) = plan.actions.last() else {
        panic!("{:?}", plan.actions)
    };
    let report = status.last_run.as_ref().unwrap().report.clone().unwrap();
    assert_eq!((report.config_map, report.uri.is_some()), (None, true));
}

#[test]
fn a_target_that_leaves_rows_unanswered_is_asked_again_and_then_inconclusive_never_a_pass() {
    let mut world = observed();
    release(&mut world, trying(1));
    let mut now = start();
    let mut seen = Vec::new();
    for _ in 0..20 {
        step(&mut world, now);
        now += SignedDuration::from_secs(300);
        let verdict = status(&world).verdict;
        if seen.last() != Some(&verdict) {
            seen.push(verdict);
        }
        if verdict == Verdict::Running {
            world.answers.report = Some(Report {
                summary: Summary {
                    reason: Some("TooManyUnanswered".to_owned()),
                    message: "37 of 300 rows".to_owned(),
                    inconclusive: true,
                    ..Summary::default()
                },
                ..Report::default()
            });
        }
    }
    assert_eq!(
        (status(&world).verdict, status(&world).count),
        (Verdict::Inconclusive, 3)
    );
    assert!(!seen.contains(&Verdict::Passed), "{seen:?}");
    let ready = condition::get(&status(&world).conditions, "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", reason::MEASURED)
    );
    assert!(status(&world).message.contains("37 of 300 rows"));
}

/// The Evaluation of a prompt `reply`.
fn of_prompt() -> Observed {
    let mut world = observed();
    world.evaluation.spec = serde_json::from_value(json!({
        "target": {"promptRelease": {"name": "reply"}},
        "dataset": {"uri": "pvc://data/questions.jsonl", "reference": "reference"},
        "requests": {"concurrency": 8},
        "gates": [{"metric": "rocAuc", "min": 0.6}],
    }))
    .unwrap();
    let content = |question: &str, price: f64| {
        let content = json!({
            "version": "0".repeat(64),
            "prompt": {"messages": [{"role": "user", "content": format!("{{{{ {question} }}}} {{{{ input }}}}")}]},
            "backend": {"url": "http://llm/v1", "model": "m", "prices": {"inputPerMillion": price, "outputPerMillion": 1.0}},
        });
        Content::Prompt(serde_json::from_value(content).unwrap())
    };
    world.revisions = BTreeMap::from([
        ("aaaa".to_owned(), content("frage", 1.0)),
        ("bbbb".to_owned(), content("question", 2.0)),
    ]);
    let release = serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease", "metadata": {"name": "reply", "namespace": "team-a", "uid": "pr"},
        "spec": {"prompt": {"messages": [{"role": "user", "content": "x"}]}, "backend": {"url": "http://llm/v1", "model": "m"}, "rollout": {"evaluations": ["quality"]}},
        // Prompts have no pods.
        "status": {
            "stable": {"revision": "aaaa", "version": "a".repeat(64), "availableReplicas": 0},
            "candidate": {"revision": "bbbb", "version": "b".repeat(64), "availableReplicas": 0, "attempt": 2},
            "gateway": {"port": 20000, "total": 1},
        },
    }));
    world.release = Some(Release::Prompt(release.unwrap()));
    world
}

#[test]
fn a_candidate_of_a_prompt_is_asked_at_its_internal_address_with_the_variables_that_it_takes() {
    let mut world = of_prompt();
    let plan = step(&mut world, start());
    let Some(Action::Create(job)) = plan.actions.last() else {
        panic!("{plan:?}")
    };
    let environment = &job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"];
    let run: Value = serde_json::from_str(environment.as_str().unwrap()).unwrap();
    let side = |revision: &str, variable: &str, price: f64| {
        json!({
            "url": format!("http://perennial-gateway.team-a.svc:9467/revisions/prompts/reply/{revision}/v1"),
            "variables": {variable: {"required": true, "kind": "Text"}}, "message": true,
            "prices": {"inputPerMillion": price, "outputPerMillion": 1.0},
        })
    };
    assert_eq!(
        run["target"],
        json!({"prompt": {"release": "reply", "own": side("bbbb", "question", 2.0), "stable": side("aaaa", "frage", 1.0)}})
    );
    assert_eq!(
        (&run["requests"], &run["textReference"]),
        (&json!({"concurrency": 8}), &json!("reference"))
    );
    let begun = status(&world).last_run.clone().unwrap();
    assert_eq!(begun.target, format!("reply candidate {}", "b".repeat(12)));
    assert_eq!(
        (
            begun.release.as_deref(),
            begun.revision.as_deref(),
            begun.attempt
        ),
        (Some("pr"), Some("bbbb"), 2)
    );
    answer(&mut world, 0.7);
    let report = world.answers.report.as_mut().unwrap();
    (report.summary.tokens, report.summary.cost) = (Some(900), Some(0.5));
    step(&mut world, start());
    let run = &status(&world).runs[0];
    assert_eq!(
        (run.verdict, run.tokens, run.cost),
        (Verdict::Passed, Some(900), Some(0.5))
    );
}

#[test]
fn a_comparison_waits_until_both_revisions_are_known() {
    let mut world = of_prompt();
    world.revisions.remove("aaaa");
    step(&mut world, start());
    assert!(world.jobs.is_empty());
    assert!(
        status(&world)
            .message
            .contains("ControllerRevision reply-aaaa isn't there yet"),
        "{}",
        status(&world).message
    );
}

#[test]
fn an_endpoint_is_asked_with_its_key_once_for_each_generation() {
    let mut world = observed();
    world.evaluation.spec = serde_json::from_value(json!({
        "target": {"endpoint": {"url": "https://llm.example/v1", "protocol": "OpenAI", "model": "m", "credentials": {"secretName": "llm", "key": "token"}}},
        "dataset": {"uri": "pvc://data/questions.jsonl"},
    }))
    .unwrap();
    let plan = step(&mut world, start());
    let Some(Action::Create(job)) = plan.actions.last() else {
        panic!("{plan:?}")
    };
    let environment = &job["spec"]["template"]["spec"]["containers"][0]["env"];
    let run: Value = serde_json::from_str(environment[0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(
        run["target"],
        json!({"endpoint": {"url": "https://llm.example/v1", "protocol": "OpenAI", "model": "m"}})
    );
    assert_eq!(
        environment[1],
        json!({"name": "PERENNIAL_ENDPOINT_KEY", "valueFrom": {"secretKeyRef": {"name": "llm", "key": "token"}}})
    );
    assert_eq!(
        status(&world).last_run.as_ref().unwrap().target,
        "m https://llm.example/v1"
    );
    answer(&mut world, 0.7);
    step(&mut world, start());
    step(&mut world, start() + SignedDuration::from_hours(1));
    assert_eq!(status(&world).count, 1);
    world.evaluation.metadata.generation = Some(2);
    step(&mut world, start() + SignedDuration::from_hours(1));
    assert_eq!(status(&world).count, 2);
}
