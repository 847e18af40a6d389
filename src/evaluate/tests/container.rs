//! A command and the file that it leaves, as they are; and what becomes of what was put down.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::pod;
use crate::{
    api::{
        container::{ContainerResults, ResultsFormat},
        gate::MetricValue,
        run::{ContainerRun, EvaluationRunSpec, GATHERED_FILE},
    },
    evaluate::{
        container::{Places, add, bring, collect, evaluate, matches, put},
        measure,
        results::Results,
    },
    supervise::failure::{Failure, Stop},
};

struct Room {
    root: tempfile::TempDir,
    places: Places,
}

fn room() -> Room {
    let root = tempfile::tempdir().unwrap();
    let places = Places {
        inputs: root.path().join("inputs"),
        outputs: root.path().join("outputs"),
        results: root.path().join("results"),
    };
    Room { root, places }
}

fn leaves(path: &str, format: ResultsFormat) -> ContainerRun {
    ContainerRun {
        place: 1,
        name: None,
        results: ContainerResults {
            path: path.to_owned(),
            format,
        },
        max_item_errors: 0.01,
        seed: 1,
        deadline: None,
    }
}

async fn run(room: &Room, run: &ContainerRun, script: &str) -> Result<Results, Failure> {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let (_keep, asked) = watch::channel(false);
    evaluate(run, command, &room.places, asked).await
}

const GOOD: &str =
    r#"echo '{"metrics": {"accuracy": 0.9}, "samples": 40}' > $PERENNIAL_OUTPUT_DIR/results.json"#;

#[tokio::test]
async fn what_a_command_leaves_is_read_and_put_down_for_another_user() {
    let room = room();
    let wanted = leaves("results.json", ResultsFormat::Json);
    let script = format!("umask 077; {GOOD}");
    // Left by a start before this one, for nobody else to read.
    fs::create_dir_all(&room.places.results).unwrap();
    let partial = room.places.results.join(".1.partial");
    fs::write(&partial, "").unwrap();
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o600)).unwrap();
    let found = run(&room, &wanted, &script).await.unwrap();
    assert_eq!(found.metrics[0].value, Some(0.9));
    assert_eq!(found.metrics[0].samples, Some(40));
    let put = room.places.results.join("1.json");
    let mode = fs::metadata(&put).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let spec = with_containers(json!([{"pii": {}}, container(None)]));
    assert_eq!(collect(&spec, &room.places.results).unwrap(), [found]);
}

#[tokio::test]
async fn what_is_not_there_not_whole_or_not_believable_is_an_error_and_never_a_metric() {
    let json = ResultsFormat::Json;
    let (xml, pf) = (ResultsFormat::JUnit, ResultsFormat::Promptfoo);
    let out = "cd $PERENNIAL_OUTPUT_DIR;";
    let cases = [
        (
            leaves("results.json", json),
            format!("{GOOD}; echo no model >&2; exit 3"),
            ("EvaluatorFailed", false),
            "evaluators[1].container ended with exit code 3: no model",
        ),
        (
            leaves("results.json", json),
            format!("{GOOD}; kill -9 $$"),
            ("EvaluatorFailed", false),
            "was killed (signal 9), as when memory runs out",
        ),
        (
            leaves("results.json", json),
            "true".to_owned(),
            ("ResultsMissing", true),
            "left no file results.json",
        ),
        (
            leaves("results.json", json),
            format!("{out} mkdir results.json"),
            ("ResultsMissing", true),
            "left no file results.json",
        ),
        (
            leaves("*/r_*.json", json),
            format!("{out} mkdir a b; touch a/r_1.json b/r_2.json b/x.json"),
            ("ResultsMissing", true),
            "means 2 files (a/r_1.json, b/r_2.json, …)",
        ),
        (
            leaves("results.json", json),
            format!("{out} echo '{{\"metrics\": {{\"a\": true}}}}' > results.json"),
            ("ResultsUnreadable", true),
            "evaluators[1].container: results.json: the field `metrics.a` is true or false",
        ),
        (
            leaves("results.json", json),
            format!("{out} truncate -s 40M results.json"),
            ("ResultsUnreadable", true),
            "results.json: it has more than 32 MiB",
        ),
        (
            leaves("j.xml", xml),
            format!("{out} echo '<testsuite><testcase/></testsuite>' > j.xml; exit 1"),
            ("EvaluatorFailed", false),
            "exit code 1, which says that tests failed, and j.xml has none that did",
        ),
        (
            leaves("j.xml", xml),
            format!(
                "{out} echo '<testsuite><testcase><failure/></testcase></testsuite>' > j.xml; exit 2"
            ),
            ("EvaluatorFailed", false),
            "ended with exit code 2",
        ),
        (
            leaves("r.json", pf),
            "exit 100".to_owned(),
            ("ResultsMissing", true),
            "left no file r.json",
        ),
    ];
    for (wanted, script, (reason, permanent), message) in cases {
        let room = room();
        let failure = run(&room, &wanted, &script).await.expect_err(&script);
        assert_eq!(
            (failure.reason, failure.permanent),
            (reason, permanent),
            "{script}"
        );
        assert!(
            failure.message.contains(message),
            "{script}: {}",
            failure.message
        );
        assert_ne!(failure.code, 0);
        assert!(!room.places.results.join("1.json").exists(), "{script}");
    }
}

#[tokio::test]
async fn tests_that_failed_are_results_and_those_of_an_earlier_start_are_not() {
    let room = room();
    fs::create_dir_all(&room.places.outputs).unwrap();
    fs::write(
        room.places.outputs.join("old.xml"),
        "<testsuite><testcase/></testsuite>",
    )
    .unwrap();
    let old = run(&room, &leaves("old.xml", ResultsFormat::JUnit), "true").await;
    assert_eq!(old.unwrap_err().reason, "ResultsMissing");
    let script = "echo '<testsuite><testcase/><testcase><failure/></testcase></testsuite>' > $PERENNIAL_OUTPUT_DIR/j.xml; exit 1";
    let mut wanted = leaves("j.xml", ResultsFormat::JUnit);
    wanted.name = Some("unit".to_owned());
    let found = run(&room, &wanted, script).await.unwrap();
    assert_eq!(found.metrics[0].name, "unit.passRate");
    assert_eq!(found.metrics[0].value, Some(0.5));
}

#[tokio::test]
async fn a_command_is_told_where_its_inputs_are() {
    let room = room();
    let data = room.root.path().join("holdout.csv");
    fs::write(&data, "a\n1\n2\n").unwrap();
    let inputs = json!({"dataset": {"path": data, "digest": "sha256:0"}});
    fs::create_dir_all(&room.places.inputs).unwrap();
    fs::write(room.places.inputs.join(GATHERED_FILE), inputs.to_string()).unwrap();
    let script = r#"[ "$PERENNIAL_DATASET" = "$(PERENNIAL_DATASET)" ] && [ -z "$PERENNIAL_RUN" ] &&
        printf '{"metrics": {"lines": %d}}' $(grep -c . $PERENNIAL_DATASET) > $PERENNIAL_OUTPUT_DIR/r.json"#;
    let found = run(&room, &leaves("r.json", ResultsFormat::Json), script).await;
    assert_eq!(found.unwrap().metrics[0].value, Some(3.0));
}

#[tokio::test]
async fn a_command_that_goes_on_is_ended_by_the_deadline() {
    let room = room();
    let mut wanted = leaves("r.json", ResultsFormat::Json);
    wanted.deadline = Some(jiff::Timestamp::now() + Duration::from_millis(300));
    let failure = run(&room, &wanted, "sleep 60").await.unwrap_err();
    assert_eq!(failure, Stop::Deadline.failure());
}

#[test]
fn a_star_stands_for_any_characters_of_a_name() {
    for (pattern, name, fits) in [
        ("r_*.json", "r_2026.json", true),
        ("r_*.json", "r_.json", true),
        ("r_*.json", "r_2026.jsonl", false),
        ("*", "a", true),
        ("a*b*c", "a-b-c", true),
        ("a*b*c", "acb", false),
        ("ab*ba", "aba", false),
        ("plain", "plain", true),
        ("plain", "plain2", false),
    ] {
        assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
    }
}

fn container(name: Option<&str>) -> Value {
    let mut container = json!({"template": {"spec": {"containers": []}}, "results": {"path": "r.json", "format": "Json"}});
    if let Some(name) = name {
        container["name"] = json!(name);
    }
    json!({"container": container})
}

fn with_containers(evaluators: Value) -> EvaluationRunSpec {
    serde_json::from_value(json!({
        "namespace": "n", "name": "e", "number": 1, "target": {"endpoint": {"url": "http://m", "protocol": "OpenInference"}},
        "dataset": {"uri": "pvc://data/holdout.csv"}, "evaluators": evaluators, "seed": 1, "acknowledgeTimeout": "1s",
    }))
    .unwrap()
}

#[test]
fn a_metric_is_one_evaluators_only() {
    let spec = with_containers(json!([container(None), {"pii": {}}, container(Some("b"))]));
    let found = |name: &str| Results {
        metrics: vec![MetricValue {
            name: name.to_owned(),
            ..MetricValue::default()
        }],
        ..Results::default()
    };
    let mut metrics = found("piiRate").metrics;
    add(&spec, vec![found("a"), found("b.a")], &mut metrics).unwrap();
    assert_eq!(metrics.len(), 3);
    for twice in ["piiRate", "a"] {
        let failure = add(&spec, vec![found("x"), found(twice)], &mut metrics.clone());
        let failure = failure.unwrap_err();
        assert!(
            failure.permanent
                && failure.message.contains(&format!(
                    "evaluators[2].container: another evaluator has the metric `{twice}` too"
                )),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn a_run_of_containers_alone_measures_what_they_found_on_what_was_gathered() {
    let pod = pod(&[("dataset/holdout.csv", "a\n1\n2\n")]);
    let spec = with_containers(json!([container(None)]));
    let inputs = bring(&spec, &pod.places).await.unwrap();
    assert!(
        inputs["dataset"]
            .path
            .ends_with("inputs/dataset/holdout.csv")
    );
    let nothing = measure(spec.clone(), &pod.places).await;
    assert_eq!(nothing.unwrap_err().reason, "ResultsMissing");
    let found = Results {
        metrics: vec![MetricValue {
            name: "accuracy".to_owned(),
            value: Some(0.9),
            ..MetricValue::default()
        }],
        tokens: Some(7),
        items: 3,
        errors: 1,
        ..Results::default()
    };
    put(&found, &pod.places.results, 0).unwrap();
    let measured = measure(spec.clone(), &pod.places).await.unwrap();
    assert_eq!(
        measured.details.notes,
        ["evaluators[0].container: of 3 items 0 failed and 1 ended in an error."]
    );
    let report = measured.report;
    assert_eq!(report.metrics[0].value, Some(0.9));
    assert_eq!(
        (report.summary.tokens, report.summary.rows),
        (Some(7), None)
    );
    assert_eq!(
        report.summary.dataset_digest.as_ref(),
        Some(&inputs["dataset"].digest)
    );
    // Written to after the evaluator has read it.
    let file = pod.places.volumes.join("dataset/holdout.csv");
    fs::write(&file, "a\n1\n3\n").unwrap();
    let changed = measure(spec, &pod.places).await.unwrap_err();
    assert_eq!(
        (changed.reason, changed.permanent),
        ("DatasetChanged", false)
    );
}
