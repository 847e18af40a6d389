//! Copied requests are measured while there are any, and for nobody whom the release doesn't name.

use super::*;

/// An Evaluation of copies, and a rollout of this ladder at this step, with so many copies.
fn world(steps: Value, step: i64, mirror: i64) -> Observed {
    let mut world = observed();
    world.evaluation.spec = serde_json::from_value(json!({
        "target": {"modelDeployment": {"name": "churn"}}, "mirrored": {"requests": 40},
        "gates": [{"metric": "agreement", "min": 0.9}],
    }))
    .unwrap();
    let mut status = trying(1);
    status["rollout"] =
        json!({"state": "Stepping", "step": step, "steps": steps, "mirror": mirror, "weight": 0});
    release(&mut world, status);
    world
}

fn ladder() -> Value {
    json!([{"setMirror": {"percent": 30}}, {"evaluate": {"names": ["quality"]}}, {"setWeight": 10}])
}

/// The run as its pod is told, if one began.
fn begun(world: &mut Observed) -> Option<Value> {
    let plan = step(world, start());
    let job = plan.actions.iter().find_map(|action| match action {
        Action::Create(job) => Some(job.clone()),
        _ => None,
    })?;
    let env = &job["spec"]["template"]["spec"]["containers"][0]["env"][0];
    assert_eq!(env["name"], "PERENNIAL_RUN");
    Some(serde_json::from_str(env["value"].as_str().unwrap()).unwrap())
}

#[test]
fn a_run_begins_at_its_step_and_listens_to_every_gateway_pod() {
    let run = begun(&mut world(ladder(), 1, 30)).unwrap();
    assert_eq!(
        run["mirrored"],
        json!({"address": "perennial-gateway-mirrored.team-a.svc:9469", "path": "/mirrored/models/churn/bbbb", "requests": 40})
    );
    assert_eq!(run["dataset"], Value::Null);
}

#[test]
fn what_is_waited_for_is_said() {
    let elsewhere = json!([{"setMirror": {"percent": 30}}, {"evaluate": {"names": ["other"]}}]);
    let first = json!([{"evaluate": {"names": ["quality"]}}, {"setMirror": {"percent": 30}}]);
    for (steps, step, mirror, said) in [
        (ladder(), 0, 30, "when its rollout comes to step 2"),
        (elsewhere, 1, 30, "doesn't name this Evaluation"),
        (first, 0, 0, "belongs behind a step setMirror"),
    ] {
        let mut world = world(steps, step, mirror);
        assert_eq!(begun(&mut world), None);
        let ready = condition::get(&status(&world).conditions, "Ready").unwrap();
        assert!(ready.message.contains(said), "{}", ready.message);
        assert_eq!(ready.status, "True", "nothing to measure is no illness");
    }
    // Stable gets no copies.
    let mut world = world(ladder(), 1, 30);
    release(&mut world, serving());
    assert_eq!(begun(&mut world), None);
    let said = &status(&world).message;
    assert!(said.contains("churn has no candidate yet"), "{said}");
}

#[test]
fn what_was_measured_stays_when_the_copies_end() {
    let mut world = world(ladder(), 1, 30);
    begun(&mut world).unwrap();
    world.answers.report = Some(Report {
        summary: Summary {
            succeeded: true,
            rows: Some(40),
            ..Summary::default()
        },
        metrics: vec![MetricValue {
            name: "agreement".to_owned(),
            value: Some(0.99),
            samples: Some(40),
            ..MetricValue::default()
        }],
        ..Report::default()
    });
    step(&mut world, start());
    let passed = status(&world).clone();
    assert_eq!(passed.verdict, Verdict::Passed);
    let mut tried = trying(1);
    tried["rollout"] =
        json!({"state": "Stepping", "step": 2, "steps": ladder(), "mirror": 0, "weight": 10});
    release(&mut world, tried);
    step(&mut world, start());
    assert_eq!(status(&world), &passed);
}

#[test]
fn too_few_copies_are_inconclusive_at_once_as_the_same_wait_again_would_bring_no_more() {
    let mut world = world(ladder(), 1, 30);
    begun(&mut world).unwrap();
    world.answers.report = Some(Report {
        summary: Summary {
            reason: Some("NotEnoughData".to_owned()),
            message: "7 of 40 requests were copied in 3570 s".to_owned(),
            inconclusive: true,
            permanent: true,
            ..Summary::default()
        },
        ..Report::default()
    });
    step(&mut world, start());
    let status = status(&world);
    assert_eq!(status.verdict, Verdict::Inconclusive);
    assert!(status.message.contains("7 of 40"), "{}", status.message);
}
