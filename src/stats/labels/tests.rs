use std::sync::Arc;

use super::*;
use crate::stats::{
    performance::{Binary, Regression},
    random::Generator,
    sequential::{Bound, Verdict},
};

/// A request of one row, labelled so many seconds later.
struct Row {
    id: u64,
    at: i64,
    said: Option<f64>,
    probabilities: Vec<f32>,
    label: Option<(&'static str, i64)>,
}

fn row(id: u64, at: i64, p: f32, label: Option<(&'static str, i64)>) -> Row {
    Row {
        id,
        at,
        said: None,
        probabilities: vec![1.0 - p, p],
        label,
    }
}

/// What gateways have of these requests: who answers isn't always who is told.
fn late(rows: &[Row], read: i64) -> Late {
    let mut parts = Vec::new();
    let mut put = |minute: i64, samples: Samples| {
        parts.push(LatePart {
            minute,
            epoch: 1,
            revision: "r".into(),
            samples: Arc::new(samples),
        });
    };
    for row in rows {
        let guess = Guess {
            said: row.said.and_then(word_of),
            probabilities: row.probabilities.clone(),
        };
        put(
            row.at.div_euclid(60),
            Samples {
                predictions: vec![Prediction {
                    id: row.id,
                    caller: row.id % 50,
                    at: row.at,
                    rows: vec![guess],
                }],
                ..Samples::default()
            },
        );
        if let Some((label, after)) = row.label {
            put(
                (row.at + after).div_euclid(60),
                Samples {
                    labels: vec![Label {
                        id: row.id,
                        at: row.at + after,
                        rows: vec![label.to_owned()],
                    }],
                    ..Samples::default()
                },
            );
        }
    }
    parts.sort_by_key(|part| part.minute);
    Late {
        parts,
        read: Some(read),
        since: Some(0),
    }
}

fn outcomes(late: &Late, horizon: i64, metric: Metric) -> Result<Outcomes, String> {
    let cohort = late.cohort("r", (i64::MIN, i64::MAX), horizon);
    let [mut all] = Outcomes::of([&[cohort]], metric, None)?;
    Ok(all.pop().unwrap())
}

#[test]
fn only_requests_as_old_as_the_horizon_count_with_the_labels_that_came_in_it() {
    let rows = [
        row(1, 1000, 0.9, Some(("1", 100))),
        row(2, 1010, 0.9, Some(("1", 101))), // too late
        row(3, 1020, 0.9, None),
        row(4, 1101, 0.9, Some(("1", 1))), // too young
    ];
    let mut late = late(&rows, 1200);
    let counts = |late: &Late| {
        let found = outcomes(late, 100, Metric::Accuracy).unwrap();
        (found.requests, found.labelled)
    };
    assert_eq!(counts(&late), (3, 1));
    // Whoever looks later sees no other label of theirs.
    late.read = Some(5000);
    assert_eq!(counts(&late), (4, 2));
    late.read = None;
    assert_eq!(counts(&late), (0, 0));
    assert_eq!(late.first("r", 100, |_| true), Some(1100));
}

#[test]
fn a_label_counts_once_whichever_gateway_it_came_to_and_only_with_as_many_rows() {
    let mut late = late(&[row(1, 1000, 0.9, Some(("1", 10)))], 2000);
    let label = |at, rows: &[&str]| LatePart {
        minute: at / 60,
        epoch: 1,
        revision: "r".into(),
        samples: Arc::new(Samples {
            labels: vec![Label {
                id: 1,
                at,
                rows: rows.iter().map(|&r| r.to_owned()).collect(),
            }],
            ..Samples::default()
        }),
    };
    late.parts.push(label(1020, &["0"]));
    assert_eq!(
        outcomes(&late, 100, Metric::Accuracy)
            .unwrap()
            .value(Metric::Accuracy),
        Some(1.0),
        "the first one"
    );
    late.parts.insert(0, label(1005, &["0", "1"]));
    let cohort = late.cohort("r", (0, 2000), 100);
    assert_eq!((cohort.labelled(), cohort.misfits), (0, 1));
    assert_eq!(cohort.coverage(), Some(0.0));
    assert!(late.cohort("other", (0, 2000), 100).requests.is_empty());
    assert!(
        late.cohorts("r", 100, |epoch| epoch != 1).is_empty()
            && late.cohorts("r", 100, |epoch| epoch == 1)[&1].misfits == 1
    );
}

#[test]
fn values_are_those_of_evaluations() {
    let mut generator = Generator::new(7);
    let mut rows = Vec::new();
    let (mut truth, mut scores, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for id in 0..500 {
        let p = generator.unit() as f32;
        let positive = generator.unit() < f64::from(p) * 0.8;
        let number = (generator.unit() * 100.0).round() / 8.0;
        truth.push(positive);
        scores.push(f64::from(p));
        numbers.push(number);
        let mut row = row(id, 1000, p, Some((if positive { "1" } else { "0" }, 5)));
        row.said = None;
        rows.push(row);
    }
    let classes = late(&rows, 2000);
    let value = |late: &Late, metric| outcomes(late, 100, metric).unwrap().value(metric).unwrap();
    let report = Binary::from_scores(&truth, &scores, 0.5).metrics();
    for (metric, name) in [
        (Metric::Accuracy, "accuracy"),
        (Metric::LogLoss, "logLoss"),
        (Metric::Brier, "brier"),
        (Metric::Ece, "ece"),
        (Metric::RocAuc, "rocAuc"),
    ] {
        let expected = match name {
            "ece" => crate::stats::performance::calibration(&truth, &scores, 10).ece,
            name => report[name],
        };
        let found = value(&classes, metric);
        assert!(
            (found - expected).abs() < 1e-6,
            "{name}: {found} {expected}"
        );
    }
    // Numbers, against labels 0 and 1.
    for (row, number) in rows.iter_mut().zip(&numbers) {
        row.probabilities.clear();
        row.said = Some(*number);
    }
    let labels: Vec<f64> = truth.iter().map(|t| f64::from(u8::from(*t))).collect();
    let report = Regression::new(&labels, &numbers).metrics();
    let regression = late(&rows, 2000);
    for (metric, name) in [(Metric::Mae, "mae"), (Metric::Rmse, "rmse")] {
        let found = value(&regression, metric);
        assert!((found - report[name]).abs() < 1e-9, "{name}: {found}");
    }
}

#[test]
fn single_numbers_are_probabilities_once_one_is_a_fraction_and_classes_before() {
    let said = |numbers: &[f64]| {
        let rows: Vec<Row> = numbers
            .iter()
            .enumerate()
            .map(|(i, number)| Row {
                said: Some(*number),
                probabilities: vec![],
                ..row(i as u64, 1000, 0.0, Some((["0", "1"][i % 2], 5)))
            })
            .collect();
        late(&rows, 2000)
    };
    let loss = |numbers: &[f64], metric| {
        Ok::<_, String>(outcomes(&said(numbers), 100, metric)?.value(metric))
    };
    assert_eq!(loss(&[0.25, 0.75], Metric::Brier), Ok(Some(0.0625)));
    assert_eq!(loss(&[0.25, 0.75], Metric::Accuracy), Ok(Some(1.0)));
    assert_eq!(
        loss(&[0.0, 1.0, 1.0], Metric::Accuracy),
        Ok(Some(2.0 / 3.0))
    );
    let none = loss(&[0.0, 1.0], Metric::LogLoss).unwrap_err();
    assert!(none.contains("no probabilities"), "{none}");
    assert!(loss(&[0.25, 3.0], Metric::Brier).is_err());
}

#[test]
fn classes_have_their_probabilities_in_sorted_order_and_somebody_says_which_is_positive() {
    let rows = |p: &'static [f32]| {
        ["no", "yes", "yes"]
            .iter()
            .enumerate()
            .map(move |(i, label)| Row {
                probabilities: p.to_vec(),
                ..row(i as u64, 1000, 0.0, Some((label, 5)))
            })
    };
    let two = late(&rows(&[0.25, 0.75]).collect::<Vec<_>>(), 2000);
    let value = |late: &Late, metric, positive| {
        let cohort = late.cohort("r", (0, 2000), 100);
        let [all] = Outcomes::of([&[cohort]], metric, positive)?;
        Ok::<_, String>(all[0].value(metric).unwrap())
    };
    let brier = (0.75f64 * 0.75 + 2.0 * 0.0625) / 3.0;
    assert!((value(&two, Metric::Brier, Some("yes")).unwrap() - brier).abs() < 1e-12);
    assert!((value(&two, Metric::Brier, Some("no")).unwrap() - brier).abs() < 1e-12);
    let which = value(&two, Metric::Brier, None).unwrap_err();
    assert!(which.contains("labels.positive"), "{which}");
    let three: Vec<Row> = ["0", "1", "2"]
        .iter()
        .enumerate()
        .map(|(i, label)| Row {
            probabilities: vec![0.5, 0.25, 0.25],
            ..row(i as u64, 1000, 0.0, Some((label, 5)))
        })
        .collect();
    let three = late(&three, 2000);
    let loss = (2f64.ln() + 2.0 * 4f64.ln()) / 3.0;
    assert!((value(&three, Metric::LogLoss, None).unwrap() - loss).abs() < 1e-6);
    assert_eq!(value(&three, Metric::Accuracy, None), Ok(1.0 / 3.0));
    assert!(
        value(&three, Metric::Brier, None)
            .unwrap_err()
            .contains("two classes")
    );
}

#[test]
fn labels_of_another_kind_are_no_labels() {
    let rows: Vec<Row> = ["3.5", "many", "4"]
        .iter()
        .enumerate()
        .map(|(i, label)| Row {
            said: Some(3.0),
            probabilities: vec![],
            ..row(i as u64, 1000, 0.0, Some((label, 5)))
        })
        .collect();
    let found = outcomes(&late(&rows, 2000), 100, Metric::Mae).unwrap();
    assert_eq!((found.requests, found.labelled), (3, 2));
    assert_eq!(found.value(Metric::Mae), Some(0.75));
}

/// A side whose model is right with this probability, and says so.
fn side(metric: Metric, seed: u64, requests: u64, right: f64) -> Vec<Outcomes> {
    let mut generator = Generator::new(seed);
    let rows: Vec<Row> = (0..requests)
        .map(|id| {
            let positive = generator.unit() < 0.5;
            let hit = generator.unit() < right;
            let mut row = row(
                id,
                1000,
                if positive == hit { 0.8 } else { 0.2 },
                Some((if positive { "1" } else { "0" }, 5)),
            );
            row.said = Some(f64::from(u8::from(positive == hit)));
            row
        })
        .collect();
    let mut late = late(&rows, 2000);
    // Each a caller of its own.
    for part in &mut late.parts {
        for prediction in &mut Arc::make_mut(&mut part.samples).predictions {
            prediction.caller = mixed(prediction.id ^ (seed << 32));
        }
    }
    let cohort = late.cohort("r", (0, 2000), 100);
    let [all] = Outcomes::of([&[cohort]], metric, None).unwrap();
    all
}

fn mixed(x: u64) -> u64 {
    x.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn a_worse_side_is_told_by_every_metric_and_one_that_is_alike_is_not() {
    for (metric, absolute, difference) in [
        (
            Metric::Accuracy,
            Bound::Min(0.75),
            Some(Bound::MinDifference(-0.02)),
        ),
        (
            Metric::LogLoss,
            Bound::Max(0.6),
            Some(Bound::MaxDifference(0.05)),
        ),
        (Metric::Brier, Bound::Max(0.2), Some(Bound::MaxRatio(1.1))),
        (Metric::Mae, Bound::Max(0.3), Some(Bound::MaxRatio(1.2))),
        (Metric::Rmse, Bound::Max(0.5), Some(Bound::MaxRatio(1.1))),
        (Metric::Ece, Bound::Max(0.1), None),
        (
            Metric::RocAuc,
            Bound::Min(0.7),
            Some(Bound::MinDifference(-0.05)),
        ),
    ] {
        let (good, also_good) = (side(metric, 1, 3000, 0.8), side(metric, 2, 3000, 0.8));
        let bad = side(metric, 3, 3000, 0.6);
        for bound in [Some(absolute), difference].into_iter().flatten() {
            let found = judge(metric, &bad, &good, bound, 0.0025).unwrap();
            assert_eq!(
                found.verdict,
                Verdict::Failed,
                "{metric:?} {bound:?} {found:?}"
            );
            let found = judge(metric, &also_good, &good, bound, 0.0025).unwrap();
            assert_ne!(
                found.verdict,
                Verdict::Failed,
                "{metric:?} {bound:?} {found:?}"
            );
            let value = also_good[0].value(metric).unwrap();
            let shown = found.estimate_candidate.unwrap();
            assert!(
                (shown - value).abs() < 0.02 * value.max(0.5),
                "{metric:?} {shown} {value}"
            );
        }
    }
    assert!(judge(Metric::Rmse, &[], &[], Bound::MaxDifference(1.0), 0.01).is_err());
    assert!(judge(Metric::Ece, &[], &[], Bound::MaxRatio(1.0), 0.01).is_err());
}
