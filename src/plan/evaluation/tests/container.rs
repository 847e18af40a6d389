//! Evaluators that are images, as init containers.

use super::*;

/// An Evaluation of the candidate with two containers, one of which says all that it can.
fn with_containers() -> Observed {
    let mut world = observed();
    let spec = json!({
        "target": {"modelDeployment": {"name": "churn"}},
        "dataset": {"uri": "pvc://data/a/holdout.parquet"},
        "evaluators": [
            {"container": {
                "template": {"spec": {
                    "containers": [{
                        "name": "evaluator", "image": "registry.example/evaluator:1", "command": ["python", "-m", "evaluator"], "args": ["$(PERENNIAL_TARGET_URL)"],
                        "env": [{"name": "PERENNIAL_SEED", "value": "3"}], "restartPolicy": "Always",
                        "volumeMounts": [{"name": "questions", "mountPath": "/questions"}], "resources": {"limits": {"memory": "1Gi"}},
                    }],
                    "volumes": [{"name": "questions", "configMap": {"name": "questions"}}],
                }},
                "results": {"path": "results.json", "format": "Json"},
            }},
            {"container": {
                "name": "second",
                "template": {"spec": {"containers": [{"name": "evaluator", "image": "registry.example/promptfoo:1", "command": ["promptfoo"]}],
                                      "volumes": [{"name": "questions", "configMap": {"name": "questions"}}]}},
                "results": {"path": "out/*.json", "format": "Promptfoo"},
            }},
        ],
        "gates": [{"metric": "rocAuc", "min": 0.6}],
        "maxItemErrors": 0.05,
        "seed": 9,
        "template": {"spec": {"initContainers": [{"name": "before", "image": "x"}], "containers": [{"name": "evaluator"}]}},
    });
    world.evaluation.spec = serde_json::from_value(spec).unwrap();
    release(&mut world, trying(1));
    world
}

fn pod_of(plan: &Plan<EvaluationStatus>) -> Value {
    let Some(Action::Create(job)) = plan.actions.last() else {
        panic!("{plan:?}")
    };
    job["spec"]["template"]["spec"].clone()
}

fn env<'a>(container: &'a Value, name: &str) -> &'a Value {
    let all = container["env"].as_array().unwrap();
    let found = all.iter().find(|e| e["name"] == name);
    found.map_or(&Value::Null, |e| &e["value"])
}

#[test]
fn containers_run_one_after_another_before_the_rest_with_the_dataset_read_only() {
    let mut world = with_containers();
    let pod = pod_of(&step(&mut world, start()));
    let all = pod["initContainers"].as_array().unwrap();
    let names: Vec<&str> = all.iter().map(|c| c["name"].as_str().unwrap()).collect();
    let expected = [
        "before",
        "perennial-install",
        "perennial-gather",
        "evaluator-0",
        "evaluator-1",
    ];
    assert_eq!(names, expected);
    let first = &all[3];
    assert_eq!(first["image"], "registry.example/evaluator:1");
    assert_eq!(
        first["command"],
        json!([
            "/perennial/bin/perennial",
            "evaluator",
            "--",
            "python",
            "-m",
            "evaluator"
        ])
    );
    assert_eq!(first["args"], json!(["$(PERENNIAL_TARGET_URL)"]));
    assert_eq!(first["resources"]["limits"]["memory"], "1Gi");
    assert_eq!(
        first.get("restartPolicy"),
        None,
        "it must end before the next begins"
    );
    let base = "http://perennial-gateway.team-a.svc:9467/revisions/models/churn";
    for (name, value) in [
        ("PERENNIAL_TARGET_URL", format!("{base}/bbbb")),
        ("PERENNIAL_STABLE_URL", format!("{base}/aaaa")),
        ("PERENNIAL_TARGET_PROTOCOL", "OpenInference".to_owned()),
        ("PERENNIAL_REVISION", "bbbb".to_owned()),
        ("PERENNIAL_STABLE_REVISION", "aaaa".to_owned()),
        ("PERENNIAL_OUTPUT_DIR", "/perennial/outputs".to_owned()),
        ("PERENNIAL_INPUT_DIR", "/perennial/inputs".to_owned()),
        ("PERENNIAL_EVALUATION", "quality".to_owned()),
        ("PERENNIAL_RUN_NUMBER", "1".to_owned()),
    ] {
        assert_eq!(env(first, name), &json!(value), "{name}");
    }
    assert_eq!(
        first["env"].as_array().unwrap().last().unwrap()["value"],
        "3",
        "its own comes last, and wins"
    );
    let run: Value = serde_json::from_str(env(&all[4], "PERENNIAL_RUN").as_str().unwrap()).unwrap();
    assert_eq!(
        run,
        json!({"place": 1, "name": "second", "results": {"path": "out/*.json", "format": "Promptfoo"}, "maxItemErrors": 0.05, "seed": 9,
               "deadline": "2026-01-02T04:04:05Z"})
    );
    let mounts = |container: &Value| container["volumeMounts"].as_array().unwrap().clone();
    for container in &all[3..] {
        for mount in mounts(container) {
            let path = mount["mountPath"].as_str().unwrap().to_owned();
            let writable = matches!(
                path.as_str(),
                "/perennial/results" | "/perennial/outputs" | "/questions"
            );
            assert_eq!(
                mount.get("readOnly") == Some(&json!(true)),
                !writable,
                "{path}"
            );
        }
    }
    let outputs = |container: &Value| {
        let all = mounts(container);
        let found = all.iter().find(|m| m["mountPath"] == "/perennial/outputs");
        found.unwrap()["name"].clone()
    };
    assert_ne!(
        outputs(&all[3]),
        outputs(&all[4]),
        "what one leaves isn't the other's"
    );
    let dataset = json!({"name": "perennial-in-dataset", "mountPath": "/perennial/volumes/dataset", "readOnly": true, "subPath": "a"});
    let main = &pod["containers"][0];
    for container in [&all[2], &all[3], main] {
        assert!(mounts(container).contains(&dataset), "{container}");
    }
    let volumes = pod["volumes"].as_array().unwrap();
    let mut names: Vec<&str> = volumes
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    let whole = names.len();
    names.dedup();
    assert_eq!(names.len(), whole, "each volume once: {names:?}");
    let told = env(main, "PERENNIAL_RUN").as_str().unwrap();
    assert!(
        !told.contains("registry.example"),
        "an environment has a bound: {told}"
    );
}

#[test]
fn what_a_container_says_is_the_runs_error_and_one_that_was_killed_is_named() {
    for (state, message, failures) in [
        (
            json!({"exitCode": 196, "reason": "Error", "message": json!({"succeeded": false, "reason": "ResultsUnreadable", "permanent": true,
                "message": "evaluators[0].container: results.json: it is empty"}).to_string()}),
            "ResultsUnreadable: evaluators[0].container: results.json: it is empty",
            4,
        ),
        (
            json!({"exitCode": 137, "reason": "OOMKilled"}),
            "the run's pod ended without a report: container evaluator-0: OOMKilled, exit code 137",
            1,
        ),
    ] {
        let mut world = with_containers();
        step(&mut world, start());
        let job = world.jobs.get_mut("quality-1").unwrap();
        job.status = serde_json::from_value(json!({"failed": 1, "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "it has failed"}]})).unwrap();
        world.pods = vec![serde_json::from_value(json!({
            "metadata": {"name": "quality-1-x", "creationTimestamp": "2026-01-02T03:04:06Z",
                         "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "quality-1", "uid": "j"}]},
            "status": {"phase": "Failed", "initContainerStatuses": [
                {"name": "perennial-gather", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
                 "state": {"terminated": {"exitCode": 0, "message": json!({"succeeded": true, "message": "1 inputs"}).to_string()}}},
                {"name": "evaluator-0", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": state}},
            ], "containerStatuses": [{"name": "evaluator", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"waiting": {"reason": "PodInitializing"}}}]},
        })).unwrap()];
        step(&mut world, start() + SignedDuration::from_secs(5));
        let run = status(&world).last_run.clone().unwrap();
        assert_eq!((run.verdict, run.failures), (Verdict::Error, failures));
        assert_eq!(run.message, message);
    }
}
