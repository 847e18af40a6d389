//! A file of predictions in stable's place.

use super::*;

/// What a file says of rows `0..n`, in falling order; `miss` is left out.
fn said(n: usize, miss: usize, score: impl Fn(usize) -> f64) -> String {
    let mut text = "id,score\n".to_owned();
    for id in (0..n).rev().filter(|id| *id != miss) {
        text += &format!("{id},{}\n", score(id));
    }
    text
}

/// The scores that the test's model gives, by id.
fn scores() -> Vec<f64> {
    let all = rows();
    let x = |line: &str| line.split(',').nth(2).unwrap().parse().unwrap();
    all.lines().skip(1).map(x).collect()
}

fn compared(mut spec: Value) -> Value {
    spec["baseline"] = json!({"uri": "pvc://before/predictions.csv"});
    spec
}

#[tokio::test]
async fn a_model_is_compared_with_a_file_on_the_same_rows_and_stable_is_not_asked() {
    let known = scores();
    let file = said(600, 17, |id| known[id]);
    let pod = pod(&[
        ("dataset/holdout.csv", &rows()),
        ("baseline/predictions.csv", &file),
    ]);
    let url = Server::default().start().await;
    let report = pod.run(compared(model(&url, None))).await.unwrap();
    assert_eq!(report.summary.rows, Some(599), "the row that both have");
    // The file says what the model says.
    for name in ["rocAuc", "logLoss", "accuracy"] {
        assert_eq!(
            value(&report, name),
            value(&report, &format!("stable.{name}")),
            "{name}"
        );
        assert_eq!(value(&report, &format!("difference.{name}")), 0.0, "{name}");
    }
    assert_eq!(value(&report, "stable.unansweredRows"), 1.0);
    let gate = serde_json::from_value(json!({"metric": "logLoss", "maxDifference": 0.0}));
    let judged = crate::api::verdict::judge(&gate.unwrap(), &report.metrics);
    assert_eq!(judged.verdict, crate::api::gate::Verdict::Passed);
    assert!(judged.stable.is_some(), "{judged:?}");
}

#[tokio::test]
async fn two_files_are_compared_by_key_with_labels_in_either() {
    let known = scores();
    let labels: Vec<String> = rows()
        .lines()
        .skip(1)
        .map(|l| l.rsplit(',').next().unwrap().to_owned())
        .collect();
    let mut own = "id,score,late\n".to_owned();
    for (id, score) in known.iter().enumerate() {
        own += &format!("{id},{score},{}\n", labels[id]);
    }
    let file = said(600, usize::MAX, |id| 1.0 - known[id]);
    let pod = pod(&[
        ("predictions/now.csv", &own),
        ("dataset/holdout.csv", &rows()),
        ("baseline/predictions.csv", &file),
    ]);
    let mut spec = compared(
        json!({"target": {"predictions": {"uri": "pvc://now/now.csv"}}, "label": "late", "key": ["id"]}),
    );
    for dataset in [Value::Null, json!({"uri": "pvc://flights/holdout.csv"})] {
        spec["dataset"] = dataset;
        let report = pod.run(spec.clone()).await.unwrap();
        let (own, before) = (value(&report, "rocAuc"), value(&report, "stable.rocAuc"));
        assert!(
            (own + before - 1.0).abs() < 1e-12 && own > 0.7,
            "{own} {before}"
        );
    }
}

#[tokio::test]
async fn texts_are_compared_with_those_of_a_file() {
    let mut before = String::new();
    for id in 0..40 {
        before += &json!({"id": id, "prediction": if id < 10 { format!("the answer to q{id}") } else { "no".to_owned() }}).to_string();
        before.push('\n');
    }
    let pod = pod(&[
        ("dataset/questions.jsonl", &prompts::questions(40)),
        ("baseline/before.jsonl", &before),
    ]);
    let (base, rule) = prompts::serve(prompts::Rule::default()).await;
    let mut spec = prompts::spec(
        prompts::target(&base, false),
        json!([{"text": {"metrics": ["contains"]}}]),
    );
    spec["baseline"] = json!({"uri": "pvc://before/before.jsonl"});
    let without = pod.run(spec.clone()).await.unwrap_err();
    assert!(
        without.message.contains("dataset.key"),
        "{}",
        without.message
    );
    spec["key"] = json!(["id"]);
    let report = pod.run(spec).await.unwrap();
    assert_eq!(
        (
            value(&report, "contains"),
            value(&report, "stable.contains")
        ),
        (1.0, 0.25)
    );
    assert!(rule.asked_only("new"));
}

#[tokio::test]
async fn a_file_that_lacks_too_many_rows_or_any_prediction_is_no_baseline() {
    let url = Server::default().start().await;
    for (file, reason, word) in [
        (
            said(500, usize::MAX, |_| 0.5),
            "TooManyUnanswered",
            "100 of 600 rows are without an answer of the baseline",
        ),
        (
            "id,p\n1,0.5\n".to_owned(),
            "InputUnreadable",
            "baseline.predictions",
        ),
        (
            "id,score\n1,0.5\n1,0.6\n".to_owned(),
            "InputUnreadable",
            "baseline: row 2 has the same id as row 1",
        ),
        (
            said(600, usize::MAX, |_| 1.5),
            "InputUnreadable",
            "baseline: `score` in row 1 is 1.5",
        ),
    ] {
        let pod = pod(&[
            ("dataset/holdout.csv", &rows()),
            ("baseline/predictions.csv", &file),
        ]);
        let failure = pod.run(compared(model(&url, None))).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{}", failure.message);
        assert!(failure.message.contains(word), "{}", failure.message);
    }
}

/// A run whose predictions are written, and another one that names it.
async fn named_run(mut first: Value, files: &[(&str, &str)], second: Value) -> (String, Report) {
    first["outputPredictions"] = json!(true);
    first["output"] = json!("pvc://reports/quality");
    let before = pod(files);
    let spec = before.spec(&first);
    let measured = measure(spec.clone(), &before.places).await.unwrap();
    let told = publish::publish(&spec, &measured, &before.places).await;
    assert_eq!(told.message, None);
    let written = before.places.output.join("quality-1.predictions.jsonl.gz");
    let mut text = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(std::fs::File::open(&written).unwrap()),
        &mut text,
    )
    .unwrap();
    let after = pod(files);
    let place = after.places.volumes.join("baseline");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(&written, place.join("quality-1.predictions.jsonl.gz")).unwrap();
    let mut second = second;
    second["baseline"] = json!({"uri": "pvc://reports/quality/quality-1.predictions.jsonl.gz"});
    (text, after.run(second).await.unwrap())
}

#[tokio::test]
async fn a_model_is_compared_with_what_a_run_wrote_as_if_that_had_been_asked_again() {
    let (good, bad) = (
        Server::default(),
        Server {
            swapped: true,
            ..Server::default()
        },
    );
    let only_classes = Server {
        only_classes: true,
        ..Server::default()
    };
    let (good, bad, only_classes) = (
        good.start().await,
        bad.start().await,
        only_classes.start().await,
    );
    let files = [("dataset/holdout.csv", rows())];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    for (stable, field) in [(&bad, "score"), (&only_classes, "prediction")] {
        let (text, named) = named_run(model(stable, None), &files, model(&good, None)).await;
        assert_eq!(text.lines().count(), 600);
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["id"], json!(0));
        assert!(
            line.get(field).is_some_and(|said| !said.is_null()),
            "{line}"
        );
        let beside = pod(&files).run(model(&good, Some(stable))).await.unwrap();
        for name in ["accuracy", "logLoss", "rocAuc"] {
            for side in ["", "stable.", "difference."] {
                let name = format!("{side}{name}");
                let of = |report: &Report| {
                    let found = report.metrics.iter().find(|m| m.name == name);
                    found.map(|m| (m.value, m.lower, m.upper, m.p_value))
                };
                assert_eq!(of(&named), of(&beside), "{name} of {field}");
            }
        }
        assert_eq!(named.summary.rows, Some(600));
    }
}

#[tokio::test]
async fn a_prompt_is_compared_with_what_a_run_wrote() {
    let questions = prompts::questions(40);
    let files = [("dataset/questions.jsonl", questions.as_str())];
    let (base, _) = prompts::serve(prompts::Rule::default()).await;
    let mut spec = prompts::spec(
        prompts::target(&base, false),
        json!([{"text": {"metrics": ["contains"]}}]),
    );
    spec["key"] = json!(["id"]);
    let (text, report) = named_run(spec.clone(), &files, spec).await;
    assert!(
        text.lines().next().unwrap().contains("\"prediction\":\""),
        "{text}"
    );
    assert_eq!(
        (
            value(&report, "contains"),
            value(&report, "stable.contains")
        ),
        (1.0, 1.0)
    );
    assert_eq!(value(&report, "difference.contains"), 0.0);
}

#[tokio::test]
async fn predictions_that_can_not_be_told_from_the_key_are_said_and_take_nothing_from_the_verdict()
{
    let url = Server::default().start().await;
    let text = rows().replacen("id,", "score,", 1);
    let pod = pod(&[("dataset/holdout.csv", &text)]);
    let mut spec = model(&url, None);
    spec["key"] = json!(["score"]);
    spec["outputPredictions"] = json!(true);
    spec["output"] = json!("pvc://reports/quality");
    let spec = pod.spec(&spec);
    let measured = measure(spec.clone(), &pod.places).await.unwrap();
    let told = publish::publish(&spec, &measured, &pod.places).await;
    assert!(told.message.unwrap().contains("give it another name"));
    assert!(pod.places.output.join("quality-1.html").exists());
    assert!(
        !pod.places
            .output
            .join("quality-1.predictions.jsonl.gz")
            .exists()
    );
}
