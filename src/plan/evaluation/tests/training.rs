//! What a TrainingJob said of its version, judged when it has ended.

use super::*;

fn of_training() -> Observed {
    let mut world = observed();
    world.evaluation.spec = serde_json::from_value(json!({
        "target": {"trainingJob": {"name": "churn-a"}},
        "gates": [{"metric": "rocAuc", "min": 0.6, "minSamples": 100}],
    }))
    .unwrap();
    world
}

fn says(world: &mut Observed, status: Value) {
    let job = json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "churn-a", "namespace": "team-a", "uid": "tj"},
        "spec": {"model": {"name": "churn", "output": "s3://b/m"}, "template": {"spec": {"containers": []}}}, "status": status,
    });
    world.training_job = Some(serde_json::from_value(job).unwrap());
}

fn ended(how: &str, metrics: Value) -> Value {
    json!({"message": "words", "metrics": metrics, "model": {"version": "20260102-030405-abcdef", "uri": "s3://b/m/v"},
           "conditions": [{"type": how, "status": "True", "reason": "X", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}]})
}

#[test]
fn a_version_is_judged_once_by_what_its_trainer_said_without_a_pod() {
    let mut world = of_training();
    step(&mut world, start());
    assert!(
        status(&world)
            .message
            .contains("TrainingJob churn-a doesn't exist")
    );
    says(&mut world, json!({"message": "it runs"}));
    step(&mut world, start());
    assert!(status(&world).message.contains("churn-a has not ended yet"));
    let auc =
        |value: f64, samples: i64| json!([{"name": "rocAuc", "value": value, "samples": samples}]);
    says(&mut world, ended("Complete", auc(0.7, 500)));
    step(&mut world, start());
    let run = status(&world).last_run.clone().unwrap();
    assert_eq!(run.verdict, Verdict::Passed);
    assert_eq!(run.target, "TrainingJob churn-a 20260102-030405-abcdef");
    assert_eq!(
        (run.release.as_deref(), run.revision.as_deref()),
        (Some("tj"), Some("20260102-030405-abcdef"))
    );
    assert!(world.jobs.is_empty());
    step(&mut world, start() + SignedDuration::from_hours(1));
    assert_eq!(status(&world).count, 1, "once");
    world.evaluation.metadata.generation = Some(2);
    says(&mut world, ended("Complete", auc(0.5, 500)));
    step(&mut world, start() + SignedDuration::from_hours(1));
    assert_eq!(
        (status(&world).verdict, status(&world).count),
        (Verdict::Failed, 2)
    );
    world.evaluation.metadata.generation = Some(3);
    says(&mut world, ended("Complete", auc(0.9, 5)));
    step(&mut world, start() + SignedDuration::from_hours(2));
    assert_eq!(status(&world).verdict, Verdict::Inconclusive, "minSamples");
}

#[test]
fn a_run_that_failed_or_said_nothing_never_passes_and_is_not_tried_again() {
    for (how, metrics, words) in [
        (
            "Failed",
            json!([{"name": "rocAuc", "value": 0.9, "samples": 500}]),
            "has failed: words",
        ),
        ("Complete", json!([]), "rocAuc isn't among the results"),
    ] {
        let mut world = of_training();
        says(&mut world, ended(how, metrics));
        let mut now = start();
        for _ in 0..5 {
            step(&mut world, now);
            now += SignedDuration::from_hours(1);
        }
        assert_eq!(
            (status(&world).verdict, status(&world).count),
            (Verdict::Error, 1)
        );
        assert!(
            status(&world).message.contains(words),
            "{}",
            status(&world).message
        );
        assert!(condition::is_true(&status(&world).conditions, "Stalled"));
    }
}
