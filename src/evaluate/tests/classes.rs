//! Labels of several classes.

use super::*;

fn spec(evaluators: Value) -> Value {
    json!({"target": {"predictions": {"uri": "pvc://f/p.csv", "label": "species"}}, "label": "species", "evaluators": evaluators})
}

/// Truth and prediction: nine in ten right but for some that are taken for kites, one in ten a crow, which no label is.
fn birds() -> (String, f64) {
    let mut text = "species,prediction\n".to_owned();
    let mut right = 0;
    for row in 0..300 {
        let truth = ["ibis", "kite", "rail"][row % 3];
        let said = match row {
            row if row % 10 == 0 => "crow",
            row if row % 7 == 0 => "kite",
            _ => truth,
        };
        right += i32::from(said == truth);
        text += &format!("{truth},{said}\n");
    }
    (text, f64::from(right) / 300.0)
}

#[tokio::test]
async fn of_several_classes_each_counts_by_itself() {
    let (text, right) = birds();
    let pod = pod(&[("predictions/p.csv", &text)]);
    for evaluators in [json!([]), json!([{"classification": {}}])] {
        let report = pod.run(spec(evaluators)).await.unwrap();
        for name in ["accuracy", "f1Micro"] {
            assert!((value(&report, name) - right).abs() < 1e-12, "{name}");
        }
        assert!((value(&report, "baseline.accuracy") - 1.0 / 3.0).abs() < 1e-12);
        // The crow is a class without a row: it lowers the mean of the classes.
        assert!(value(&report, "f1") < value(&report, "f1Weighted"));
        let area = report.metrics.iter().find(|m| m.name == "rocAuc").unwrap();
        assert!(
            area.value.is_none()
                && area
                    .message
                    .as_deref()
                    .unwrap()
                    .contains("probability of each class")
        );
    }
}

#[tokio::test]
async fn a_class_that_is_said_to_be_positive_stands_against_the_rest() {
    let pod = pod(&[("predictions/p.csv", &birds().0)]);
    let report = pod
        .run(spec(json!([{"classification": {"positive": "kite"}}])))
        .await
        .unwrap();
    assert!(value(&report, "recall") > 0.85 && value(&report, "precision") < 0.9);
    assert!(report.metrics.iter().all(|m| m.name != "f1Micro"));
}

#[tokio::test]
async fn what_is_about_one_class_asks_which() {
    let pod = pod(&[("predictions/p.csv", &birds().0)]);
    for evaluator in [
        json!({"calibration": {}}),
        json!({"fairness": {"sensitive": ["species"]}}),
    ] {
        let failure = pod.run(spec(json!([evaluator]))).await.unwrap_err();
        assert_eq!(failure.reason, "UnknownLabel");
        assert!(
            failure.message.contains("write which is positive"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn a_label_of_hundreds_of_classes_asks_which_is_meant() {
    let rows: Vec<String> = (0..300).map(|i| format!("s{},s{i}\n", i % 150)).collect();
    let pod = pod(&[(
        "predictions/p.csv",
        &format!("species,prediction\n{}", rows.concat()),
    )]);
    let failure = pod.run(spec(json!([]))).await.unwrap_err();
    assert!(
        failure.message.contains("150 classes, more than the 100"),
        "{}",
        failure.message
    );
}
