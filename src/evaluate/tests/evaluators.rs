//! Evaluators beyond performance and drift, on real files and a real server.

use std::io::Read;

use super::*;

fn metric<'a>(report: &'a Report, name: &str) -> &'a MetricValue {
    let found = report.metrics.iter().find(|m| m.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", report.metrics))
}

fn with(evaluators: Value, mut spec: Value) -> Value {
    spec["evaluators"] = evaluators;
    spec
}

fn file(name: &str) -> Value {
    json!({"target": {"predictions": {"uri": format!("pvc://f/{name}"), "label": "late"}}, "label": "late"})
}

#[tokio::test]
async fn calibration_fairness_and_importance_stand_beside_stable_and_the_constant_predictor() {
    let pod = pod(&[("dataset/holdout.csv", &rows())]);
    let url = Server::default().start().await;
    let evaluators = json!([
        {"classification": {}},
        {"calibration": {"bins": 5}},
        {"fairness": {"sensitive": ["carrier"], "minGroupSize": 50}},
        {"featureImportance": {"repeats": 3}},
    ]);
    let report = pod
        .run(with(evaluators, model(&url, Some(&url))))
        .await
        .unwrap();
    // The server's probability is the true one.
    assert!(value(&report, "ece") < 0.08, "{}", value(&report, "ece"));
    assert_eq!(value(&report, "ece"), value(&report, "stable.ece"));
    assert_eq!(value(&report, "baseline.ece"), 0.0);
    let odds = metric(&report, "equalizedOddsDifference.carrier");
    assert_eq!((odds.samples, odds.value.unwrap() < 0.2), (Some(600), true));
    assert_eq!(
        value(&report, "baseline.equalizedOddsDifference.carrier"),
        0.0
    );
    assert_eq!(value(&report, "insufficientGroups.carrier"), 0.0);
    assert_eq!(
        value(&report, "stable.demographicParityRatio.carrier"),
        value(&report, "demographicParityRatio.carrier")
    );
    // All that it knows comes from x; carrier tells it nothing.
    assert!(value(&report, "featureImportance.x") > 0.2);
    assert_eq!(value(&report, "featureImportance.carrier"), 0.0);
    assert!(report.metrics.len() <= 100);
}

#[tokio::test]
async fn groups_that_are_too_small_are_not_compared_but_counted() {
    let mut text = "late,prediction,carrier\n".to_owned();
    for row in 0..100 {
        text += &format!("{},{},UA\n", row % 2, row % 2);
        text += &format!("{},{},AA\n", row % 2, u8::from(row % 4 == 0));
        // Many rows, but none of them late: there is no true positive rate.
        text += &format!("0,{},DL\n", u8::from(row % 10 == 0));
    }
    text += "1,0,OO\n0,1,OO\n";
    let pod = pod(&[("predictions/p.csv", &text)]);
    let fairness = json!([{"fairness": {"sensitive": ["carrier"], "minGroupSize": 100}}]);
    let report = pod.run(with(fairness, file("p.csv"))).await.unwrap();
    // UA: 1 and 0; AA: 0 and 0.5.
    assert_eq!(value(&report, "equalOpportunityDifference.carrier"), 1.0);
    assert_eq!(value(&report, "equalizedOddsDifference.carrier"), 1.0);
    assert_eq!(
        metric(&report, "equalizedOddsDifference.carrier").samples,
        Some(200)
    );
    // UA 0.5, AA 0.25, DL 0.1.
    assert_eq!(value(&report, "demographicParityDifference.carrier"), 0.4);
    assert_eq!(
        metric(&report, "demographicParityDifference.carrier").samples,
        Some(300)
    );
    assert_eq!(value(&report, "insufficientGroups.carrier"), 2.0);
    let all = json!([{"fairness": {"sensitive": ["carrier"], "minGroupSize": 1000}}]);
    let report = pod.run(with(all, file("p.csv"))).await.unwrap();
    let none = metric(&report, "equalizedOddsDifference.carrier");
    assert_eq!(none.value, None);
    assert!(
        none.message.as_ref().unwrap().contains("0 of 4 groups"),
        "{none:?}"
    );
}

#[tokio::test]
async fn the_quality_of_data_is_counted_and_compared_with_the_reference() {
    let current = "a,b,c,d,e\n1,x,2.5,,k\n1,x,2.5,,k\n1,z,inf,,k\n1,,9.5,,k\n";
    let reference = "a,b,c,f\nq,x,2.5,1\nq,y,3.5,2\n";
    let pod = pod(&[
        ("predictions/now.csv", current),
        ("reference/then.csv", reference),
    ]);
    let spec = json!({"target": {"predictions": {"uri": "pvc://f/now.csv"}}, "reference": {"uri": "pvc://f/then.csv"}});
    let report = pod
        .run(with(json!([{"dataQuality": {}}]), spec))
        .await
        .unwrap();
    for (name, expected) in [
        ("rowCount", 4.0),
        ("missingShare", 5.0 / 20.0),
        ("missingShare.d", 1.0),
        ("missingShare.b", 0.25),
        ("duplicateShare", 0.25),
        ("infiniteValues", 1.0),
        ("emptyColumns", 1.0),
        ("constantColumns", 2.0),
        ("unreadableLines", 0.0),
        ("missingColumns", 1.0),
        ("unknownColumns", 2.0),
        ("retypedColumns", 1.0),
        ("unseenShare.b", 1.0 / 3.0),
        ("unseenShare.c", 1.0 / 3.0),
    ] {
        assert_eq!(value(&report, name), expected, "{name}");
    }
    // A column of another type is said to be that, and not compared.
    assert!(!report.metrics.iter().any(|m| m.name == "unseenShare.a"));
    assert_eq!(report.summary.rows, Some(4));
}

#[tokio::test]
async fn a_sample_is_the_same_for_the_same_seed_and_says_how_many() {
    let pod = pod(&[("dataset/holdout.csv", &rows())]);
    let url = Server::default().start().await;
    let sampled = |sampling: Value, seed: u64| {
        let mut spec = model(&url, None);
        spec["sampling"] = sampling;
        spec["seed"] = json!(seed);
        pod.run(spec)
    };
    let a = sampled(json!({"rows": 200}), 7).await.unwrap();
    let b = sampled(json!({"rows": 200}), 7).await.unwrap();
    let c = sampled(json!({"rows": 200}), 8).await.unwrap();
    assert_eq!(a.summary.rows, Some(200));
    assert_eq!(value(&a, "logLoss"), value(&b, "logLoss"));
    assert_ne!(value(&a, "logLoss"), value(&c, "logLoss"));
    let all = sampled(json!({"rows": 10_000}), 7).await.unwrap();
    assert_eq!(all.summary.rows, Some(600));
    let half = sampled(json!({"rate": 0.5}), 7)
        .await
        .unwrap()
        .summary
        .rows
        .unwrap();
    assert!((240..360).contains(&half), "{half}");
    let none = sampled(json!({"rate": 0.000_001}), 7).await.unwrap_err();
    assert!(
        none.message.contains("leaves none of 600 rows"),
        "{}",
        none.message
    );
}

/// A table of what can be wrong with a file: reason, a word of the message, and the file.
#[tokio::test]
async fn bad_input_is_a_clear_error() {
    let calibration = json!([{"calibration": {}}]);
    let fairness = json!([{"fairness": {"sensitive": ["carrier"]}}]);
    let quality = json!([{"dataQuality": {}}]);
    let bad_lines: String = (0..10)
        .map(|i| {
            if i % 2 == 0 {
                "{\"late\": 1, \"score\": 0.5}\n"
            } else {
                "{\"late\": 1, \n"
            }
        })
        .collect();
    let mut wrong = Vec::new();
    for (evaluators, name, text, reason, word) in [
        (&calibration, "p.csv", "", "EmptyData", "no rows"),
        (
            &calibration,
            "p.csv",
            "late,score\n",
            "EmptyData",
            "no rows",
        ),
        (
            &calibration,
            "p.csv",
            "delay,score\n1,0.5\n",
            "InputUnreadable",
            "no column `late`",
        ),
        (
            &calibration,
            "p.csv",
            "late,p\n1,0.5\n",
            "InputUnreadable",
            "neither a column `prediction` nor `score`",
        ),
        (
            &calibration,
            "p.csv",
            "late,score\n1,high\n0,low\n",
            "InputUnreadable",
            "`score` holds text",
        ),
        (
            &calibration,
            "p.csv",
            "late,score\n1,1.5\n",
            "InputUnreadable",
            "not a probability",
        ),
        (
            &calibration,
            "p.csv",
            "late,score\n3.5,0.5\n2.5,0.5\n",
            "TargetRefused",
            "label is a number",
        ),
        (
            &calibration,
            "p.csv",
            "late,score\nyes,0.5\nno,0.5\n",
            "UnknownLabel",
            "which of them is positive?",
        ),
        (
            &fairness,
            "p.csv",
            "late,score\n1,0.5\n",
            "InputUnreadable",
            "no column `carrier`",
        ),
        (
            &fairness,
            "p.csv",
            "late,prediction,carrier\n1.5,1,UA\n",
            "UnknownLabel",
            "the label is a number",
        ),
        (
            &calibration,
            "p.jsonl",
            bad_lines.as_str(),
            "InputUnreadable",
            "5 of 10 lines",
        ),
        (
            &quality,
            "p.csv",
            "a,b\n\"1,2\n",
            "InputUnreadable",
            "1 of 1 lines",
        ),
        (
            &quality,
            "p.parquet",
            "PAR1 and nothing",
            "InputUnreadable",
            "p.parquet",
        ),
    ] {
        let pod = pod(&[(&format!("predictions/{name}"), text)]);
        match pod.run(with(evaluators.clone(), file(name))).await {
            Err(failure) if failure.reason == reason && failure.message.contains(word) => {}
            other => wrong.push(format!("{text:?}: {:?}", other.map(|r| r.metrics))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A label is needed and nobody names it.
    let pod = pod(&[("predictions/p.csv", "late,score\n1,0.5\n")]);
    let nameless = json!({"target": {"predictions": {"uri": "pvc://f/p.csv"}}});
    let failure = pod.run(with(calibration, nameless)).await.unwrap_err();
    assert!(
        failure.message.contains("target.predictions.label"),
        "{}",
        failure.message
    );
}

/// One row, one class, constant columns, a few bad lines: no number where there is none, and counts of what was left out.
#[tokio::test]
async fn thin_data_has_no_numbers_that_are_not_defined() {
    let all = json!([{"classification": {}}, {"calibration": {}}, {"fairness": {"sensitive": ["carrier"], "minGroupSize": 1}}]);
    let pod = pod(&[("predictions/p.csv", "late,score,carrier\n1,0.7,UA\n")]);
    let report = pod.run(with(all.clone(), file("p.csv"))).await.unwrap();
    for (name, word) in [
        ("rocAuc", "one class"),
        ("equalizedOddsDifference.carrier", "takes two to compare"),
        (
            "demographicParityDifference.carrier",
            "takes two to compare",
        ),
    ] {
        let found = metric(&report, name);
        assert_eq!(found.value, None, "{name}");
        assert!(found.message.as_ref().unwrap().contains(word), "{found:?}");
    }
    assert!((value(&report, "ece") - 0.3).abs() < 1e-12);
    let mut lines = "{\"late\": 1, \"score\": 0.5, \"carrier\": \"UA\"}\n".repeat(300);
    lines += "{\"late\": 1, \"score\": \n";
    let pod = super::pod(&[("predictions/p.jsonl", &lines)]);
    let quality = json!([{"dataQuality": {}}, {"classification": {}}]);
    let report = pod.run(with(quality, file("p.jsonl"))).await.unwrap();
    assert_eq!(value(&report, "unreadableLines"), 1.0);
    assert_eq!(
        (value(&report, "constantColumns"), report.summary.rows),
        (3.0, Some(300))
    );
}

#[tokio::test]
async fn a_report_is_one_file_that_loads_nothing_and_is_stored_where_the_spec_says() {
    let mut pod = pod(&[("dataset/holdout.csv", &rows())]);
    let url = Server::default().start().await;
    let evaluators = json!([
        {"classification": {}},
        {"calibration": {}},
        {"fairness": {"sensitive": ["carrier"], "minGroupSize": 50}},
        {"featureImportance": {"repeats": 1}},
        {"dataQuality": {}},
    ]);
    let mut spec = with(evaluators, model(&url, Some(&url)));
    spec["gates"] = json!([{"metric": "rocAuc", "min": 0.6}, {"metric": "ece", "max": 0.000_1}]);
    spec["output"] = json!("pvc://reports/quality");
    spec["subject"] = json!("churn <b>candidate</b> v2");
    let spec = pod.spec(&spec);
    let measured = measure(spec.clone(), &pod.places).await.unwrap();
    let page = publish::publish(&spec, &measured, &pod.places).await;
    assert_eq!(
        page.uri.as_deref(),
        Some("pvc://reports/quality/quality-1.html")
    );
    let stored = std::fs::read_to_string(pod.places.output.join("quality-1.html")).unwrap();
    let mut unzipped = String::new();
    flate2::read::GzDecoder::new(page.html.unwrap().0.as_slice())
        .read_to_string(&mut unzipped)
        .unwrap();
    assert_eq!(stored, unzipped);
    for part in [
        "class=\"badge Failed\"",
        "svg class=\"calibration\"",
        "Confusion matrix",
        "Groups of carrier",
        "Feature importance",
        "Data quality",
        "&lt;b&gt;candidate",
    ] {
        assert!(stored.contains(part), "{part} in {stored}");
    }
    for part in ["<script", "<b>candidate", "http://", "https://", "NaN"] {
        assert!(!stored.contains(part), "{part}");
    }
    let json: Value =
        serde_json::from_slice(&std::fs::read(pod.places.output.join("quality-1.json")).unwrap())
            .unwrap();
    assert_eq!(json["gates"][1]["verdict"], "Failed");
    // Where nothing can be written, that is said, and there is still a page.
    pod.places.output = pod.places.output.join("quality-1.html");
    let page = publish::publish(&spec, &measured, &pod.places).await;
    assert_eq!(page.uri, None);
    assert!(
        page.message
            .unwrap()
            .contains("can't be stored at pvc://reports/quality")
    );
    assert!(page.html.is_some());
}
