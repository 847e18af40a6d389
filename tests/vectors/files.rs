//! `perennial drift`, `eval` and `stats vectors` on files: the program itself, its output beside files in `golden/`, its exit code.
//!
//! `UPDATE_GOLDEN=1 cargo test --test vectors` writes the files anew.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::folder;

fn perennial(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perennial"))
        .args(arguments)
        .current_dir(folder())
        .env_remove("KUBECONFIG")
        .output()
        .expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn golden(name: &str, got: &str) {
    let path = folder().join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).expect("it can be written");
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == got, "{name} differs:\n{got}");
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
}

#[test]
fn two_files_are_compared_and_the_exit_code_says_whether_there_is_drift() {
    let columns = "--columns=norm,same,const_moved,cat3,unseen,zipf,flag,nullcur";
    let sides = [
        "drift",
        "--reference",
        "data/small_ref.csv",
        "--current",
        "data/small_cur.csv",
        columns,
    ];
    let with = |more: &[&str]| perennial(&[&sides[..], more].concat());
    let table = with(&[]);
    golden("drift-small.txt", &text(&table.stdout));
    let found = with(&["-o", "json"]);
    golden("drift-small.json", &text(&found.stdout));
    let value = json(&found);
    assert_eq!(code(&found), i32::from(value["drifted"] == true));
    assert_eq!(code(&found), code(&table));
    let column = &value["columns"][0];
    for key in [
        "column",
        "kind",
        "method",
        "score",
        "pValue",
        "threshold",
        "drifted",
    ] {
        assert!(!column[key].is_null(), "{key} in {column}");
    }
    for side in ["reference", "current"] {
        assert!(
            column[side]["count"].is_u64() && column[side]["nulls"].is_u64(),
            "{column}"
        );
    }
    // The same numbers as the reference libraries gave.
    let expected: Value = serde_json::from_str(
        &std::fs::read_to_string(folder().join("expected.json")).expect("it is there"),
    )
    .expect("it is JSON");
    let mut compared = 0;
    for column in value["columns"].as_array().expect("columns") {
        let id = format!(
            "small/{}/auto",
            column["column"].as_str().unwrap_or_default()
        );
        let case = expected["cases"]
            .as_array()
            .expect("cases")
            .iter()
            .find(|c| c["id"] == id.as_str());
        let Some(want) = case.and_then(|c| c["expect"]["score"].as_f64()) else {
            continue;
        };
        let got = column["score"].as_f64().expect("a score");
        assert!(
            (got - want).abs() <= 1e-9 * want.abs().max(1e-3),
            "{id}: {got}, not {want}"
        );
        compared += 1;
    }
    assert!(compared >= 6, "only {compared} columns were compared");
    let page = with(&["-o", "html"]);
    let html = text(&page.stdout);
    assert!(
        html.starts_with("<!doctype html>") && html.matches("<svg class=\"bars\"").count() >= 6
    );
    assert!(
        !html.contains("<script") && !html.contains("http://") && !html.contains("https://"),
        "nothing from elsewhere"
    );
}

#[test]
fn equal_files_have_no_drift_and_what_can_not_be_compared_is_no_verdict() {
    let same = [
        "drift",
        "--reference",
        "data/equal_ref.csv",
        "--current",
        "data/equal_ref.csv",
    ];
    assert_eq!(code(&perennial(&same)), 0);
    for (arguments, word) in [
        (
            vec![
                "drift",
                "--reference",
                "data/no.csv",
                "--current",
                "data/equal_ref.csv",
            ],
            "no.csv",
        ),
        (
            vec![
                "drift",
                "--reference",
                "data/emptycur_ref.csv",
                "--current",
                "data/emptycur_cur.csv",
            ],
            "no rows",
        ),
        (
            vec![
                "drift",
                "--reference",
                "data/equal_ref.csv",
                "--current",
                "data/equal_cur.csv",
                "--columns",
                "nrm",
            ],
            "no column `nrm`",
        ),
        (
            vec![
                "drift",
                "--reference",
                "data/equal_ref.csv",
                "--current",
                "data/equal_cur.csv",
                "--method",
                "KSS",
            ],
            "it is one of KS",
        ),
        (
            vec!["drift", "--reference", "data/equal_ref.csv"],
            "--current",
        ),
        (vec!["drift"], "<RELEASE>"),
        (
            vec!["eval", "-f", "golden/evaluation.yaml"],
            "write --predictions FILE",
        ),
        (vec!["eval", "-f", "README.md"], "README.md"),
    ] {
        let output = perennial(&arguments);
        let said = text(&output.stderr);
        assert_eq!(code(&output), 2, "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn methods_and_thresholds_can_be_given_by_column() {
    let sides = [
        "drift",
        "--reference",
        "data/equal_ref.csv",
        "--current",
        "data/equal_cur.csv",
        "--columns=norm,ties",
        "--method=psi",
        "-o",
        "json",
    ];
    let low = json(&perennial(
        &[
            &sides[..],
            &["--threshold=0.000001", "--threshold=ties=1000"],
        ]
        .concat(),
    ));
    assert_eq!(low["columns"][0]["method"], "PSI");
    assert_eq!(low["columns"][0]["drifted"], true);
    assert_eq!(
        (
            &low["columns"][1]["threshold"],
            &low["columns"][1]["drifted"]
        ),
        (&1000.0.into(), &false.into())
    );
}

/// The metrics of an evaluation, without the time of measuring.
fn measured(arguments: &[&str]) -> (i32, Value) {
    let output = perennial(arguments);
    let mut value = json(&output);
    for metric in value["metrics"].as_array_mut().expect("metrics") {
        metric.as_object_mut().expect("an object").remove("time");
    }
    (code(&output), value)
}

#[test]
fn an_evaluation_of_a_file_is_measured_without_a_cluster() {
    let arguments = [
        "eval",
        "-f",
        "golden/evaluation.yaml",
        "--predictions",
        "data/binary_0.csv",
    ];
    let (exit, value) = measured(&[&arguments[..], &["-o", "json"]].concat());
    assert_eq!((exit, &value["verdict"]), (0, &"Passed".into()));
    golden("evaluation.json", &format!("{value:#}\n"));
    let number = |name: &str| {
        let metrics = value["metrics"].as_array().expect("metrics");
        let found = metrics.iter().find(|m| m["name"] == name);
        found.and_then(|m| m["value"].as_f64()).unwrap_or(f64::NAN)
    };
    // What scikit-learn and fairlearn say of this file.
    for (name, want) in [
        ("accuracy", 0.775),
        ("logLoss", 0.499_383_107_017_583_04),
        ("ece", 0.072_185_505_544_030_16),
        (
            "demographicParityDifference.group",
            0.027_050_814_113_018_018,
        ),
        ("equalizedOddsDifference.group", 0.018_181_818_181_818_188),
        ("equalizedOddsRatio.age", 0.733_333_333_333_333_3),
    ] {
        assert!(
            (number(name) - want).abs() < 1e-9,
            "{name}: {}",
            number(name)
        );
    }
    let html = text(&perennial(&[&arguments[..], &["-o", "html"]].concat()).stdout);
    for part in [
        "svg class=\"calibration\"",
        "Confusion matrix",
        "Groups of age",
        "equalizedOddsDifference.group",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // Another bound, another verdict.
    let strict = std::fs::read_to_string(folder().join("golden/evaluation.yaml"))
        .expect("it is there")
        .replace("min: 0.7", "min: 0.9");
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("strict.yaml");
    std::fs::write(&path, strict).expect("it can be written");
    let path = path.to_str().expect("a name");
    let (exit, value) = measured(&[
        "eval",
        "-f",
        path,
        "--predictions",
        "data/binary_0.csv",
        "-o",
        "json",
    ]);
    assert_eq!((exit, &value["verdict"]), (1, &"Failed".into()));
}

/// An Evaluation of the golden file's data, with these evaluators and this beside `target`.
fn written(place: &Path, evaluators: &str, more: &str) -> String {
    let text = format!(
        "apiVersion: perennial.dev/v1alpha1\nkind: Evaluation\nmetadata: {{name: binary}}\nspec:\n  \
         target: {{predictions: {{uri: pvc://vectors/binary_0.csv, label: y_true, prediction: y_pred, score: y_score}}}}\n  \
         evaluators: {evaluators}\n{more}"
    );
    let path = place.join("e.yaml");
    std::fs::write(&path, text).expect("it can be written");
    path.to_str().expect("a name").to_owned()
}

#[test]
fn what_needs_a_model_or_a_cluster_is_an_error_and_left_out_only_when_that_is_asked_for() {
    let place = tempfile::tempdir().expect("a folder");
    let container = "{container: {template: {spec: {containers: [{name: e, image: x, command: [c]}]}}, results: {path: r.json, format: Json}}}";
    let holdout =
        "  dataset: {uri: pvc://a/b.csv, label: y_true, key: [id], disjointFrom: Training}\n";
    let both = format!("[{{featureImportance: {{}}}}, {container}, {{classification: {{}}}}]");
    for (evaluators, more, without, exit, words) in [
        (
            "[{featureImportance: {repeats: 2}}]",
            "",
            "",
            2,
            "needs a model to call",
        ),
        (
            "[{featureImportance: {}}]",
            "",
            "featureImportance",
            2,
            "no evaluator is left",
        ),
        (
            &format!("[{container}, {{classification: {{}}}}]"),
            "",
            "",
            2,
            "need a cluster to run in",
        ),
        (&both, "", "container", 2, "--without featureImportance"),
        (
            &both,
            "",
            "container,featureImportance",
            0,
            "container is left out",
        ),
        (
            "[{classification: {}}]",
            holdout,
            "",
            2,
            "dataset.disjointFrom looks into",
        ),
        (
            "[{classification: {}}]",
            holdout,
            "disjointFrom",
            0,
            "disjointFrom is left out",
        ),
        (
            "[{classification: {threshold: 0.5}}, {classification: {threshold: 0.9}}]",
            "",
            "",
            2,
            "two evaluators are classification",
        ),
        ("[{drift: {}}]", "", "", 2, "write reference.uri"),
        ("[{classification: {}}]", "", "drift", 2, "invalid value"),
    ] {
        let file = written(place.path(), evaluators, more);
        let mut arguments = vec!["eval", "-f", &file, "--predictions", "data/binary_0.csv"];
        if !without.is_empty() {
            arguments.extend(["--without", without]);
        }
        let output = perennial(&arguments);
        let said = text(&output.stderr);
        assert_eq!(code(&output), exit, "{evaluators}: {said}");
        assert!(said.contains(words), "{evaluators}: {said}");
        assert_eq!(output.stdout.is_empty(), exit != 0, "{evaluators}");
    }
}

#[test]
fn two_files_of_predictions_are_compared_on_the_same_rows() {
    let place = tempfile::tempdir().expect("a folder");
    let (mut now, mut before) = ("id,y_true,y_pred\n".to_owned(), "id,was\n".to_owned());
    for id in 0..200 {
        let truth = id % 2;
        now += &format!("{id},{truth},{}\n", if id < 20 { 1 - truth } else { truth });
        before += &format!("{},{}\n", 199 - id, (199 - id) % 2);
    }
    let put = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.to_str().expect("a name").to_owned()
    };
    let (now, before) = (put("now.csv", &now), put("before.csv", &before));
    let more = "  dataset: {uri: pvc://a/b.csv, key: [id]}\n  baseline: {predictions: {uri: pvc://a/before.csv, prediction: was}}\n  gates: [{metric: accuracy, minDifference: -0.05}]\n";
    let file = written(place.path(), "[{classification: {}}]", more);
    let file = std::fs::read_to_string(file).expect("it is there");
    let file = put("f.yaml", &file.replace(", score: y_score", ""));
    let arguments = ["eval", "-f", &file, "--predictions", &now];
    let without = perennial(&arguments);
    assert_eq!(code(&without), 2);
    let said = text(&without.stderr);
    assert!(said.contains("write --baseline FILE"), "{said}");
    let (exit, value) =
        measured(&[&arguments[..], &["--baseline", &before, "-o", "json"]].concat());
    assert_eq!(
        (exit, &value["verdict"]),
        (1, &"Failed".into()),
        "{value:#}"
    );
    let number = |name: &str| {
        let metrics = value["metrics"].as_array().expect("metrics");
        metrics
            .iter()
            .find(|m| m["name"] == name)
            .map(|m| m["value"].clone())
    };
    assert_eq!(number("accuracy"), Some(0.9.into()));
    assert_eq!(number("stable.accuracy"), Some(1.0.into()));
    assert_eq!(value["gates"][0]["stable"], 1.0);
}

#[test]
fn a_field_that_there_is_not_or_of_another_type_is_an_error_that_names_it() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("e.yaml");
    let text_of =
        std::fs::read_to_string(folder().join("golden/evaluation.yaml")).expect("it is there");
    for (wrong, field) in [
        ("{bin: 10}", "spec.evaluators[1].calibration.bin"),
        (
            "{bins: ten}",
            "spec.evaluators[1].calibration.bins: invalid type",
        ),
    ] {
        let changed = text_of.replace("calibration: {bins: 10}", &format!("calibration: {wrong}"));
        std::fs::write(&path, changed).expect("it can be written");
        let output = perennial(&[
            "eval",
            "-f",
            path.to_str().expect("a name"),
            "--predictions",
            "data/binary_0.csv",
        ]);
        assert_eq!(code(&output), 2);
        let said = text(&output.stderr);
        assert!(said.contains(field), "{said}");
    }
}

#[test]
fn a_file_of_vectors_is_run_and_each_mismatch_printed() {
    let whole = perennial(&["stats", "vectors", "expected.json"]);
    assert_eq!(code(&whole), 0, "{}", text(&whole.stdout));
    let wrong = serde_json::json!({"cases": [
        {"id": "a", "family": "performance", "metric": "ece", "input": {"file": "data/binary_0.csv", "y_true": "y_true", "y_score": "y_score"},
         "params": {"bins": 10}, "expect": {"ece": 0.5}, "tol": {"rel": 0.0, "abs": 1e-9}},
        {"id": "b", "family": "performance", "metric": "ece", "input": {"file": "data/none.csv", "y_true": "y_true", "y_score": "y_score"},
         "params": {"bins": 10}, "expect": {"ece": 0.5}, "tol": {"rel": 0.0, "abs": 1e-9}},
        {"id": "c", "family": "performance", "metric": "nobody", "input": {"file": "data/binary_0.csv"}, "expect": {}, "tol": {}},
    ]});
    let place = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(folder().join("data"), place.path().join("data")).expect("a link");
    let path = place.path().join("wrong.json");
    std::fs::write(&path, wrong.to_string()).expect("it can be written");
    let output = perennial(&["stats", "vectors", path.to_str().expect("a name")]);
    let said = text(&output.stdout);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("a.ece: expected 0.5, got 0.0721"), "{said}");
    assert!(said.contains("b: data/none.csv"), "{said}");
    assert!(
        said.contains("1 cases checked, 2 mismatches, 1 not computed here: performance/nobody (1)"),
        "{said}"
    );
    let none = perennial(&[
        "stats",
        "vectors",
        Path::new("data").to_str().expect("a name"),
    ]);
    assert_eq!(code(&none), 2);
}
