//! Whole evaluations, with real files and a real HTTP server that speaks the Open Inference Protocol.

mod baseline;
mod classes;
mod container;
mod early;
mod evaluators;
mod holdout;
mod judges;
mod prompts;
mod rankings;
mod texts;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

use super::*;
use crate::api::{
    gate::MetricValue,
    run::{Report, Summary},
};

/// A model with known answers: the probability is `x`, of classes false and true.
#[derive(Clone, Default)]
struct Server {
    /// The first requests for answers fail with 503.
    failures: usize,
    /// Requests with `predict_proba` are refused, as by a model that has none.
    only_classes: bool,
    /// Answers are 1 − x: the classes are the other way round.
    swapped: bool,
    /// Requests with this value are answered with 500.
    poison: Option<f64>,
    asked: Arc<AtomicUsize>,
    /// Written to while the first request is answered: a dataset that changes under the run.
    meddles: Option<(PathBuf, String)>,
}

impl Server {
    async fn start(self) -> String {
        let server = self;
        let infer = move |Json(body): Json<Value>| {
            let server = server.clone();
            async move { server.answer(&body) }
        };
        let app = Router::new()
            .route("/m/v2/repository/index", post(|| async { Json(json!([{"name": "churn", "state": "READY"}, {"name": "old", "state": "UNAVAILABLE"}])) }))
            .route("/m/v2/models/churn/infer", post(infer));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/m")
    }

    fn answer(&self, body: &Value) -> Response {
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some((path, text)) = self.meddles.as_ref().filter(|_| n == 0) {
            std::fs::write(path, text).unwrap();
        }
        if n < self.failures {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let Some(x) = body["inputs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|i| i["name"] == "x")
        else {
            return (
                StatusCode::BAD_REQUEST,
                Json(json!({"error": "columns are missing: {'x'}"})),
            )
                .into_response();
        };
        assert_eq!(body["parameters"]["content_type"], "pd");
        let x: Vec<f64> = x["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect();
        if self.poison.is_some_and(|p| x.contains(&p)) {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let asked: Vec<&str> = body["outputs"]
            .as_array()
            .map(|o| o.iter().map(|o| o["name"].as_str().unwrap()).collect())
            .unwrap_or_default();
        if self.only_classes && asked.contains(&"predict_proba") {
            return (
                StatusCode::BAD_REQUEST,
                Json(json!({"error": "no predict_proba"})),
            )
                .into_response();
        }
        let mut outputs = Vec::new();
        if asked.contains(&"predict_proba") {
            let p: Vec<f64> = x
                .iter()
                .flat_map(|x| {
                    if self.swapped {
                        [*x, 1.0 - x]
                    } else {
                        [1.0 - x, *x]
                    }
                })
                .collect();
            outputs.push(json!({"name": "predict_proba", "datatype": "FP64", "shape": [x.len(), 2], "data": p}));
        }
        if asked.is_empty() || asked.contains(&"predict") {
            let classes: Vec<bool> = x.iter().map(|x| *x > 0.5).collect();
            outputs.push(json!({"name": "predict", "datatype": "BOOL", "shape": [x.len(), 1], "data": classes}));
        }
        Json(json!({"model_name": "churn", "outputs": outputs})).into_response()
    }
}

struct Pod {
    _root: tempfile::TempDir,
    places: Places,
}

fn pod(files: &[(&str, &str)]) -> Pod {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join("volumes").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let places = Places {
        volumes: root.path().join("volumes"),
        downloads: root.path().join("downloads"),
        gathered: root.path().join("inputs"),
        results: root.path().join("results"),
        output: root.path().join("output"),
        local: BTreeMap::new(),
        termination_log: root.path().join("log"),
        address: (Ipv4Addr::LOCALHOST, 0).into(),
    };
    Pod {
        _root: root,
        places,
    }
}

impl Pod {
    fn spec(&self, spec: &Value) -> EvaluationRunSpec {
        let mut whole = json!({"namespace": "ml", "name": "quality", "number": 1, "evaluators": [], "seed": 7, "acknowledgeTimeout": "0s"});
        whole
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    async fn run(&self, spec: Value) -> Result<Report, Failure> {
        work(self.spec(&spec), &self.places, &Board::default())
            .await
            .map(|measured| measured.report)
    }
}

/// 600 rows over ten days: `late` is true for about the share `x` of them.
fn rows() -> String {
    let mut text = "id,when,x,carrier,late\n".to_owned();
    let mut generator = crate::stats::random::Generator::new(3);
    for id in 0..600 {
        let x = (generator.unit() * 1000.0).round() / 1000.0;
        text += &format!(
            "{id},2013-01-{:02}T10:00:00Z,{x},{},{}\n",
            id % 10 + 1,
            ["UA", "AA"][id % 2],
            generator.unit() < x
        );
    }
    text
}

fn model(url: &str, stable: Option<&str>) -> Value {
    json!({
        "target": {"model": {"url": url, "baselineUrl": stable, "protocol": "OpenInference", "signature": null}},
        "dataset": {"uri": "pvc://flights/holdout.csv"}, "label": "late", "key": ["id"], "time": "when",
    })
}

fn value(report: &Report, name: &str) -> f64 {
    let found = report.metrics.iter().find(|m| m.name == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {:?}", report.metrics))
        .value
        .unwrap_or(f64::NAN)
}

#[tokio::test]
async fn a_model_is_measured_beside_stable_and_the_constant_predictor() {
    let pod = pod(&[("dataset/holdout.csv", &rows())]);
    let server = Server {
        failures: 1,
        ..Server::default()
    };
    let url = server.start().await;
    let report = pod.run(model(&url, Some(&url))).await.unwrap();
    assert_eq!(report.summary.rows, Some(600));
    assert!(
        report
            .summary
            .dataset_digest
            .as_ref()
            .unwrap()
            .starts_with("sha256:")
    );
    let auc = report.metrics.iter().find(|m| m.name == "rocAuc").unwrap();
    let (low, high) = (auc.lower.unwrap(), auc.upper.unwrap());
    assert!(
        auc.value.unwrap() > 0.75
            && low < auc.value.unwrap()
            && auc.value.unwrap() < high
            && high - low < 0.2,
        "{auc:?}"
    );
    assert_eq!(auc.samples, Some(600));
    assert!(value(&report, "logLoss") < value(&report, "baseline.logLoss"));
    // The same model on the same rows.
    assert_eq!(value(&report, "stable.logLoss"), value(&report, "logLoss"));
    let difference = report
        .metrics
        .iter()
        .find(|m| m.name == "difference.logLoss")
        .unwrap();
    assert_eq!(
        (difference.value, difference.lower, difference.upper),
        (Some(0.0), Some(0.0), Some(0.0))
    );
    // The data has days: rows of one are no independent trials.
    let accuracy = |report: &Report| {
        let mut metrics = report.metrics.iter();
        let found = metrics.find(|m| m.name == "difference.accuracy");
        found.unwrap().p_value
    };
    assert_eq!(accuracy(&report), None);
    let mut alone = model(&url, Some(&url));
    alone["time"] = Value::Null;
    assert_eq!(accuracy(&pod.run(alone).await.unwrap()), Some(1.0), "alike");
    assert_eq!(value(&report, "unansweredRows"), 0.0);
    assert!(report.metrics.len() <= 100);
}

#[tokio::test]
async fn the_positive_class_is_found_by_what_is_predicted_not_by_its_place() {
    let pod = pod(&[("dataset/holdout.csv", &rows())]);
    let straight = Server::default().start().await;
    let swapped = Server {
        swapped: true,
        ..Server::default()
    }
    .start()
    .await;
    let a = pod.run(model(&straight, None)).await.unwrap();
    let b = pod.run(model(&swapped, None)).await.unwrap();
    assert_eq!(value(&a, "rocAuc"), value(&b, "rocAuc"));
    let mut other = model(&straight, None);
    other["evaluators"] = json!([{"classification": {"positive": "false"}}]);
    let c = pod.run(other).await.unwrap();
    assert!((value(&a, "rocAuc") - value(&c, "rocAuc")).abs() < 1e-9);
    assert!((value(&a, "recall") - value(&c, "recall")).abs() > 1e-3);
}

#[tokio::test]
async fn a_model_without_probabilities_has_the_metrics_that_need_none() {
    let pod = pod(&[("dataset/holdout.csv", &rows())]);
    let url = Server {
        only_classes: true,
        ..Server::default()
    }
    .start()
    .await;
    let report = pod.run(model(&url, None)).await.unwrap();
    assert!(value(&report, "accuracy") > 0.65);
    let auc = report.metrics.iter().find(|m| m.name == "rocAuc").unwrap();
    assert_eq!(auc.value, None);
    assert!(auc.message.as_ref().unwrap().contains("no probabilities"));
}

#[tokio::test]
async fn what_cannot_be_measured_is_an_error_and_never_a_number() {
    let url = Server::default().start().await;
    let two = "x,late\n0.1,no\n0.9,yes\n";
    let with = |mut spec: Value, key: &str, value: Value| {
        spec[key] = value;
        spec
    };
    let bare = |url: &str| {
        let mut spec = model(url, None);
        spec["key"] = Value::Null;
        spec["time"] = Value::Null;
        spec
    };
    for (data, spec, reason, word) in [
        ("x,late\n", bare(&url), "EmptyData", "no rows"),
        ("x,late\n1,\n2,\n", bare(&url), "EmptyData", "no label"),
        (
            "x,late\n1,true\n",
            with(bare(&url), "label", json!("lat")),
            "InputUnreadable",
            "no column `lat`",
        ),
        (
            "x,late\n1,true\n",
            with(bare(&url), "features", json!(["y"])),
            "InputUnreadable",
            "no column `y`",
        ),
        (
            two,
            bare(&url),
            "UnknownLabel",
            "`no`, `yes`; which of them is positive?",
        ),
        (
            two,
            with(
                bare(&url),
                "evaluators",
                json!([{"classification": {"positive": "Yes"}}]),
            ),
            "UnknownLabel",
            "`Yes` is none of them",
        ),
        (
            two,
            with(bare(&url), "evaluators", json!([{"regression": {}}])),
            "UnknownLabel",
            "regression needs numbers",
        ),
        (
            "z,late\n1,true\n",
            bare(&url),
            "TargetRefused",
            "columns are missing: {'x'}",
        ),
        (
            "x,late\n1,true\n",
            bare("http://127.0.0.1:1"),
            "TargetUnreachable",
            "127.0.0.1:1",
        ),
    ] {
        let pod = pod(&[("dataset/holdout.csv", data)]);
        let failure = pod.run(spec).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{}", failure.message);
        assert!(
            failure.message.contains(word),
            "{reason}: {}",
            failure.message
        );
        assert_eq!(failure.permanent, reason != "TargetUnreachable");
    }
}

#[tokio::test]
async fn a_file_of_predictions_is_measured_alone_or_joined_by_key() {
    let mut own = "id,late,prediction,score\n".to_owned();
    let (mut labels, mut predictions) =
        ("id,late\n".to_owned(), "id,prediction,score\n".to_owned());
    for (id, line) in rows().lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let (x, late) = (fields[2].parse::<f64>().unwrap(), fields[4]);
        own += &format!("{id},{late},{},{x}\n", x > 0.5);
        labels += &format!("{id},{late}\n");
        // In another order.
        predictions.insert_str(
            "id,prediction,score\n".len(),
            &format!("{id},{},{x}\n", x > 0.5),
        );
    }
    let pod = pod(&[
        ("predictions/own.csv", &own),
        ("dataset/labels.csv", &labels),
        ("predictions/p.csv", &predictions),
        ("predictions/less.csv", "id,score\n0,0.5\n"),
        ("predictions/odd.csv", "id,late,score\n0,true,7\n"),
    ]);
    let alone = json!({"target": {"predictions": {"uri": "pvc://f/own.csv", "label": "late"}}, "label": "late"});
    let joined = json!({"target": {"predictions": {"uri": "pvc://f/p.csv"}}, "dataset": {"uri": "pvc://f/labels.csv"}, "label": "late", "key": ["id"]});
    let a = pod.run(alone.clone()).await.unwrap();
    let b = pod.run(joined.clone()).await.unwrap();
    for name in ["rocAuc", "logLoss", "accuracy", "baseline.logLoss"] {
        assert_eq!(value(&a, name), value(&b, name), "{name}");
    }
    let mut less = joined.clone();
    less["target"]["predictions"]["uri"] = json!("pvc://f/less.csv");
    assert!(
        pod.run(less)
            .await
            .unwrap_err()
            .message
            .contains("599 of 600 rows of the dataset have no prediction")
    );
    let mut keyless = joined;
    keyless["key"] = Value::Null;
    assert!(
        pod.run(keyless)
            .await
            .unwrap_err()
            .message
            .contains("dataset.key")
    );
    let mut odd = alone;
    odd["target"]["predictions"]["uri"] = json!("pvc://f/odd.csv");
    assert!(
        pod.run(odd)
            .await
            .unwrap_err()
            .message
            .contains("not a probability")
    );
}

#[tokio::test]
async fn numbers_are_measured_as_numbers() {
    let file = "y,prediction\n1.5,1\n2.5,3\n3.5,3.5\n";
    let pod = pod(&[("predictions/p.csv", file)]);
    let report = pod.run(json!({"target": {"predictions": {"uri": "pvc://f/p.csv", "label": "y"}}, "label": "y"})).await.unwrap();
    assert!((value(&report, "mae") - 1.0 / 3.0).abs() < 1e-12);
    assert!(value(&report, "baseline.mae") > value(&report, "mae"));
}

#[tokio::test]
async fn drift_against_a_reference_names_the_columns() {
    let side = |shift: f64| {
        let mut text = "temp,origin,n\n".to_owned();
        let mut generator = crate::stats::random::Generator::new(shift.to_bits());
        for i in 0..400 {
            text += &format!(
                "{},{},{}\n",
                generator.unit() * 10.0 + shift,
                ["EWR", "JFK"][i % 2],
                i % 7
            );
        }
        text
    };
    let pod = pod(&[
        ("predictions/october.csv", &side(8.0)),
        ("reference/september.csv", &side(0.0)),
    ]);
    let spec = json!({"target": {"predictions": {"uri": "pvc://f/october.csv"}}, "reference": {"uri": "pvc://f/september.csv"}, "evaluators": [{"drift": {}}]});
    let report = pod.run(spec.clone()).await.unwrap();
    assert!((value(&report, "driftShare") - 1.0 / 3.0).abs() < 1e-12);
    assert!(value(&report, "drift.temp") < 0.01 && value(&report, "drift.origin") > 0.5);
    let mut columns = spec;
    columns["evaluators"] = json!([{"drift": {"columns": ["tmp"]}}]);
    assert!(
        pod.run(columns)
            .await
            .unwrap_err()
            .message
            .contains("no column `tmp`")
    );
}

#[tokio::test]
async fn a_deadline_ends_an_evaluation_with_a_report() {
    let pod = pod(&[("dataset/holdout.csv", &rows())]);
    let url = Server {
        failures: usize::MAX,
        ..Server::default()
    }
    .start()
    .await;
    let mut whole = model(&url, None);
    let rest = json!({"namespace": "ml", "name": "quality", "number": 1, "evaluators": [], "seed": 7, "acknowledgeTimeout": "0s", "deadline": (jiff::Timestamp::now() + jiff::SignedDuration::from_millis(500)).to_string()});
    whole
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    let (_keep, asked) = watch::channel(false);
    let code = evaluate(serde_json::from_value(whole).unwrap(), &pod.places, asked).await;
    assert_eq!(code, run::EXIT_DEADLINE);
    let summary: Summary =
        serde_json::from_slice(&std::fs::read(&pod.places.termination_log).unwrap()).unwrap();
    assert_eq!(summary.reason.as_deref(), Some("DeadlineExceeded"));
}

#[tokio::test]
async fn a_few_rows_without_an_answer_are_counted_and_many_are_no_measurement() {
    let url = Server {
        poison: Some(7.0),
        ..Server::default()
    }
    .start()
    .await;
    let spec = json!({
        "target": {"model": {"url": url, "baselineUrl": null, "protocol": "OpenInference", "signature": null}},
        "dataset": {"uri": "pvc://flights/holdout.csv"}, "label": "late",
    });
    let data = |rows: usize| {
        let mut text = "x,late\n".to_owned();
        for row in 0..rows {
            text += if row % 3 == 0 {
                "0.8,true\n"
            } else {
                "0.4,false\n"
            };
        }
        // In the last batch, which is a short one.
        text + "7,true\n"
    };
    let few = pod(&[("dataset/holdout.csv", &data(5_010))]);
    let many = pod(&[("dataset/holdout.csv", &data(600))]);
    let (few, many) = tokio::join!(few.run(spec.clone()), many.run(spec.clone()));
    let report = few.unwrap();
    assert_eq!(value(&report, "unansweredRows"), 11.0);
    assert_eq!(
        (value(&report, "accuracy"), report.summary.rows),
        (1.0, Some(5_000))
    );
    let failure = many.unwrap_err();
    assert_eq!(
        (failure.reason, failure.permanent, failure.inconclusive),
        ("TooManyUnanswered", false, true)
    );
    assert!(
        failure
            .message
            .contains("101 of 601 rows are without an answer"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_file_that_is_mostly_blank_is_no_measurement_however_good_the_rest_is() {
    let mut text = "late,prediction\n".to_owned();
    for row in 0..100 {
        text += if row < 10 { "true,true\n" } else { "false,\n" };
    }
    let pod = pod(&[("predictions/p.csv", &text)]);
    let mut spec = json!({"target": {"predictions": {"uri": "pvc://f/p.csv", "label": "late"}}, "label": "late"});
    let failure = pod.run(spec.clone()).await.unwrap_err();
    assert_eq!(
        (failure.reason, failure.permanent, failure.inconclusive),
        ("TooManyUnanswered", true, true)
    );
    assert!(
        failure.message.contains(
            "90 of 100 rows are without an answer of the file, and maxItemErrors allows 0.01"
        ),
        "{}",
        failure.message
    );
    spec["maxItemErrors"] = json!(0.9);
    let report = pod.run(spec).await.unwrap();
    assert_eq!(
        (value(&report, "unansweredRows"), value(&report, "accuracy")),
        (90.0, 1.0)
    );
}

#[tokio::test]
async fn a_label_row_that_is_there_twice_does_not_count_twice() {
    let pod = pod(&[
        ("dataset/labels.csv", "id,late\n1,true\n2,false\n1,true\n"),
        ("predictions/p.csv", "id,prediction\n1,true\n2,false\n"),
    ]);
    let spec = json!({"target": {"predictions": {"uri": "pvc://f/p.csv"}}, "dataset": {"uri": "pvc://f/labels.csv"}, "label": "late", "key": ["id"]});
    let failure = pod.run(spec).await.unwrap_err();
    assert_eq!(
        failure.message,
        "dataset: row 3 has the same id as row 1: a key must be unique"
    );
}

#[tokio::test]
async fn slices_are_of_every_column_but_those_that_name_a_row_or_an_answer() {
    let (mut own, mut labels, mut predictions) = (
        "id,late,prediction,origin,delay\n".to_owned(),
        "id,late,origin\n".to_owned(),
        "id,prediction,delay\n".to_owned(),
    );
    for id in 0..400 {
        // Wrong from one origin only.
        let (origin, late) = (["EWR", "JFK"][id % 2], id % 3 == 0);
        let said = late == (origin == "EWR");
        let delay = id % 7;
        own += &format!("{id},{late},{said},{origin},{delay}\n");
        labels += &format!("{id},{late},{origin}\n");
        predictions += &format!("{id},{said},{delay}\n");
    }
    let pod = pod(&[
        ("predictions/own.csv", &own),
        ("dataset/labels.csv", &labels),
        ("predictions/p.csv", &predictions),
    ]);
    let alone = json!({"target": {"predictions": {"uri": "pvc://f/own.csv", "label": "late"}}, "label": "late", "key": ["id"]});
    let joined = json!({"target": {"predictions": {"uri": "pvc://f/p.csv"}}, "dataset": {"uri": "pvc://f/labels.csv"}, "label": "late", "key": ["id"]});
    for spec in [alone, joined] {
        let measured = measure(pod.spec(&spec), &pod.places).await.unwrap();
        let slices = &measured.details.slices;
        let worst = &slices[0];
        assert_eq!(
            (worst.column.as_str(), worst.value.as_str(), worst.error),
            ("origin", "JFK", 1.0)
        );
        let columns: Vec<&str> = slices.iter().map(|s| s.column.as_str()).collect();
        assert!(
            columns.iter().all(|c| matches!(*c, "origin" | "delay")),
            "{columns:?}"
        );
    }
    // A model is given neither key nor label; its slices are of the rest.
    let models = self::pod(&[("dataset/holdout.csv", &rows())]);
    let url = Server::default().start().await;
    let spec = models.spec(&model(&url, None));
    let measured = measure(spec, &models.places).await.unwrap();
    let slices = &measured.details.slices;
    assert!(
        !slices.is_empty() && slices.iter().all(|s| s.column != "id"),
        "{slices:?}"
    );
}

#[tokio::test]
async fn a_dataset_that_changes_under_the_run_gives_no_number() {
    let pod = pod(&[("dataset/holdout.csv", &rows())]);
    let path = pod.places.volumes.join("dataset/holdout.csv");
    let changed = Server {
        meddles: Some((path.clone(), rows().replace("UA", "DL"))),
        ..Server::default()
    };
    let failure = pod
        .run(model(&changed.start().await, None))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason, failure.permanent),
        ("DatasetChanged", false)
    );
    assert!(
        failure
            .message
            .contains("dataset (pvc://flights/holdout.csv) changed while it was measured"),
        "{}",
        failure.message
    );
    // Written anew with the same content, it is the same.
    let same = std::fs::read_to_string(&path).unwrap();
    let touched = Server {
        meddles: Some((path, same)),
        ..Server::default()
    };
    pod.run(model(&touched.start().await, None)).await.unwrap();
}
