//! Holdouts: what a run's pod is given of the training, and how often one was used.

use super::*;
use crate::api::run::{EvaluationRunSpec, RUN_ENV};

fn held_out(spec: Value) -> Observed {
    let mut world = observed();
    world.evaluation.spec.dataset = Some(serde_json::from_value(spec).unwrap());
    let model = json!({"model": {"version": "v1", "uri": "pvc://models/churn/v1", "digest": "sha256:a", "credentials": {"secretName": "models"}},
                       "server": {"template": {"spec": {"containers": []}}}, "helperImage": "h"});
    let revision = serde_json::from_value(model).unwrap();
    world
        .revisions
        .insert("aaaa".to_owned(), Content::Model(Box::new(revision)));
    release(&mut world, serving());
    world
}

/// What the pod is told, its mounts by path, and the Secrets that it has.
fn pod(world: &mut Observed) -> (EvaluationRunSpec, BTreeMap<String, Value>, Vec<String>) {
    step(world, start());
    let job = serde_json::to_value(&world.jobs["quality-1"]).unwrap();
    let pod = &job["spec"]["template"]["spec"]["containers"][0];
    let env = pod["env"].as_array().unwrap();
    let run = env.iter().find(|e| e["name"] == RUN_ENV).unwrap();
    let text = run["value"].as_str().unwrap().replace("$$", "$");
    let mounts = pod["volumeMounts"].as_array().unwrap();
    let mounts = mounts
        .iter()
        .map(|m| (m["mountPath"].as_str().unwrap().to_owned(), m.clone()));
    let from = pod["envFrom"].as_array().cloned().unwrap_or_default();
    let secrets = from
        .iter()
        .map(|f| f["secretRef"]["name"].as_str().unwrap().to_owned());
    (
        serde_json::from_str(&text).unwrap(),
        mounts.collect(),
        secrets.collect(),
    )
}

#[test]
fn the_pod_reads_what_the_training_wrote_and_only_with_secrets_that_the_evaluation_names() {
    let dataset = json!({"uri": "pvc://data/holdout.parquet", "label": "churned", "key": ["id"], "disjointFrom": "Training"});
    let (run, mounts, secrets) = pod(&mut held_out(dataset.clone()));
    let training = run.training.unwrap();
    assert_eq!(
        (training.version.as_str(), training.uri.as_str()),
        ("v1", "pvc://models/churn/v1")
    );
    assert_eq!(training.digest.as_deref(), Some("sha256:a"));
    let mount = &mounts["/perennial/volumes/training"];
    assert_eq!(
        (&mount["subPath"], &mount["readOnly"]),
        (&json!("churn/v1"), &json!(true))
    );
    // Who wrote the Evaluation may not be allowed to read it.
    assert_eq!(training.unnamed_secret.as_deref(), Some("models"));
    assert!(secrets.is_empty(), "{secrets:?}");

    let mut named = dataset.clone();
    named["credentials"] = json!({"secretName": "models"});
    let (run, _, secrets) = pod(&mut held_out(named));
    assert_eq!(run.training.unwrap().unnamed_secret, None);
    assert_eq!(secrets, ["models", "models"]);

    let mut plain = dataset;
    plain.as_object_mut().unwrap().shift_remove("disjointFrom");
    let (run, mounts, _) = pod(&mut held_out(plain));
    assert!(run.training.is_none() && !mounts.contains_key("/perennial/volumes/training"));
}

#[test]
fn revisions_on_one_holdout_are_counted_once_each_and_from_twenty_on_that_is_said() {
    let mut world = held_out(
        json!({"uri": "pvc://data/holdout.parquet", "label": "churned", "disjointFrom": "Training"}),
    );
    let mut now = start();
    let mut measure = |world: &mut Observed, revision: &str, attempt: i64, digest: &str| {
        let mut status = serving();
        status["candidate"] = json!({"revision": revision, "version": revision, "availableReplicas": 1, "attempt": attempt});
        release(world, status);
        world
            .revisions
            .insert(revision.to_owned(), Content::Model(Box::default()));
        now += SignedDuration::from_mins(1);
        step(world, now);
        answer(world, 0.7);
        let report = world.answers.report.as_mut().unwrap();
        report.summary.dataset_digest = Some(digest.to_owned());
        step(world, now);
        let status = super::status(world);
        assert_eq!(status.verdict, Verdict::Passed, "{}", status.message);
        (status.holdout.clone().unwrap(), status.message.clone())
    };
    for number in 1..=19 {
        let (holdout, message) = measure(&mut world, &format!("r{number}"), 1, "sha256:d");
        assert_eq!(
            (holdout.revisions, holdout.digest.as_str()),
            (number, "sha256:d")
        );
        assert!(!message.contains("holdout"), "{message}");
    }
    let (again, _) = measure(&mut world, "r19", 2, "sha256:d");
    assert_eq!(again.revisions, 19, "another attempt of the same revision");
    let (worn, message) = measure(&mut world, "r20", 1, "sha256:d");
    assert_eq!(worn.revisions, 20);
    assert!(
        message.contains("20 revisions have been measured on this holdout"),
        "{message}"
    );
    let (fresh, message) = measure(&mut world, "r21", 1, "sha256:e");
    assert_eq!((fresh.revisions, fresh.digest.as_str()), (1, "sha256:e"));
    assert!(!message.contains("holdout"), "{message}");
}

#[test]
fn beside_a_baseline_stable_is_not_asked() {
    let mut world =
        held_out(json!({"uri": "pvc://data/holdout.parquet", "label": "churned", "key": ["id"]}));
    let baseline = json!({"predictions": {"uri": "pvc://data/before.csv", "credentials": {"secretName": "s"}, "score": "p"}});
    world.evaluation.spec.baseline = Some(serde_json::from_value(baseline).unwrap());
    world
        .revisions
        .insert("bbbb".to_owned(), world.revisions["aaaa"].clone());
    release(&mut world, trying(1));
    let (run, mounts, secrets) = pod(&mut world);
    let target = serde_json::to_value(&run.target).unwrap();
    assert!(target["model"]["url"].as_str().unwrap().ends_with("/bbbb"));
    assert_eq!(target["model"]["baselineUrl"], Value::Null);
    assert_eq!(run.baseline.unwrap().score.as_deref(), Some("p"));
    assert!(mounts.contains_key("/perennial/volumes/baseline"));
    assert_eq!(secrets, ["s"]);
}

#[test]
fn a_named_run_is_the_file_that_it_wrote_at_the_output() {
    for (output, mounted) in [
        ("s3://reports/quality/", false),
        ("pvc://reports/quality", true),
    ] {
        let dataset =
            json!({"uri": "s3://data/holdout.parquet", "label": "churned", "key": ["id"]});
        let mut world = held_out(dataset);
        let spec = &mut world.evaluation.spec;
        spec.baseline = Some(serde_json::from_value(json!({"run": "quality-3"})).unwrap());
        spec.output_predictions = Some(true);
        spec.output = Some(output.to_owned());
        let secret = (!mounted).then(|| json!({"secretName": "writes"}));
        spec.output_credentials = secret.map(|s| serde_json::from_value(s).unwrap());
        let (run, mounts, secrets) = pod(&mut world);
        let file = run.baseline.unwrap().source.uri;
        let expected = format!(
            "{}/quality-3.predictions.jsonl.gz",
            output.trim_end_matches('/')
        );
        assert_eq!(file, expected);
        assert!(run.output_predictions);
        assert_eq!(mounts.contains_key("/perennial/volumes/baseline"), mounted);
        // Once for reading, once for writing.
        let expected: &[&str] = if mounted { &[] } else { &["writes", "writes"] };
        assert_eq!(secrets, expected);
    }
}
