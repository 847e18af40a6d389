//! What holds for any predictions.

use proptest::prelude::*;

use super::*;
use crate::stats::fairness::fairness;

type Rows = Vec<(bool, u8, u8)>;

/// Truth, a score of a few levels (so that there are ties), and a group.
fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec((any::<bool>(), 0u8..12, 0u8..3), 1..60)
}

fn truth(rows: &Rows) -> Vec<bool> {
    rows.iter().map(|r| r.0).collect()
}

fn scores(rows: &Rows, of: impl Fn(f64) -> f64) -> Vec<f64> {
    rows.iter().map(|r| of(f64::from(r.1) / 12.0)).collect()
}

fn same(a: f64, b: f64) -> bool {
    a.is_nan() && b.is_nan() || (a - b).abs() < 1e-12
}

#[test]
fn quantile_loss_and_top_k_are_those_of_scikit_learn() {
    let (truth, predicted) = ([1.0, 2.0, 3.0, 4.0, 5.5], [1.5, 1.5, 3.0, 6.0, 5.0]);
    for (alpha, want) in [(0.1, 0.47), (0.5, 0.35), (0.9, 0.23)] {
        assert!((quantile_loss(&truth, &predicted, alpha) - want).abs() < 1e-12);
    }
    let rows = [
        vec![0.5, 0.2, 0.3],
        vec![0.3, 0.4, 0.3],
        vec![0.2, 0.4, 0.4],
        vec![0.7, 0.2, 0.1],
    ];
    for (k, want) in [(0, 0.0), (1, 0.5), (2, 0.75), (3, 1.0)] {
        assert_eq!(top_k_accuracy(&[0, 1, 1, 2], &rows, k), want);
    }
    assert!(top_k_accuracy(&[], &[], 1).is_nan() && quantile_loss(&[], &[], 0.5).is_nan());
}

proptest! {
    #[test]
    fn metrics_of_classifiers_are_bounded(rows in rows()) {
        let (truth, scores) = (truth(&rows), scores(&rows, |x| x));
        let report = Binary::from_scores(&truth, &scores, 0.5).measure(None);
        for (name, x) in report.named() {
            let low = if matches!(name, "mcc" | "kappa") { -1.0 } else { 0.0 };
            let high = if name == "logLoss" { 40.0 } else { 1.0 };
            prop_assert!(x.is_nan() || (low - 1e-9..=high + 1e-9).contains(&x), "{name} {x}");
        }
        let c = calibration(&truth, &scores, 10);
        prop_assert!((0.0..=1.0).contains(&c.ece) && c.ece <= c.mce + 1e-12);
    }

    #[test]
    fn the_area_under_the_curve_sees_only_the_order_and_turns_with_it(rows in rows()) {
        let truth = truth(&rows);
        let area = |truth: &[bool], of: fn(f64) -> f64| Binary::from_scores(truth, &scores(&rows, of), 0.5).measure(None).roc_auc;
        let plain = area(&truth, |x| x);
        prop_assert!(same(plain, area(&truth, |x| x * x * x / 2.0)));
        prop_assert!(same(1.0 - plain, area(&truth, |x| 1.0 - x)));
        let turned: Vec<bool> = truth.iter().map(|t| !t).collect();
        prop_assert!(same(1.0 - plain, area(&turned, |x| x)));
    }

    #[test]
    fn weights_are_repetitions(rows in rows(), times in prop::collection::vec(0u8..3, 60)) {
        let (truth, scores) = (truth(&rows), scores(&rows, |x| x));
        let weights: Vec<f64> = times.iter().take(rows.len()).map(|t| f64::from(*t)).collect();
        prop_assume!(weights.iter().any(|w| *w > 0.0));
        let repeated: Rows = rows.iter().zip(&times).flat_map(|(r, t)| vec![*r; usize::from(*t)]).collect();
        let (t, s) = (super::tests::truth(&repeated), super::tests::scores(&repeated, |x| x));
        let weighted = Binary::from_scores(&truth, &scores, 0.5).measure(Some(&weights));
        let plain = Binary::from_scores(&t, &s, 0.5).measure(None);
        for ((name, a), (_, b)) in weighted.named().into_iter().zip(plain.named()) {
            prop_assert!(a.is_nan() && b.is_nan() || (a - b).abs() < 1e-9, "{name} {a} {b}");
        }
    }

    #[test]
    fn errors_of_numbers_keep_their_order_and_move_with_the_data(
        pairs in prop::collection::vec((-100i32..100, -100i32..100), 2..40), by in -50i32..50
    ) {
        let (y, p): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
        let r = Regression::new(&y, &p).measure(None);
        prop_assert!(r.mae <= r.rmse + 1e-9 && r.rmse <= r.max_error + 1e-9 && r.mean_error.abs() <= r.mae + 1e-9);
        prop_assert!(r.r2.is_nan() || r.r2 <= 1.0);
        let moved = |v: &[f64]| v.iter().map(|x| x + f64::from(by)).collect::<Vec<_>>();
        let m = Regression::new(&moved(&y), &moved(&p)).measure(None);
        prop_assert!((r.mae - m.mae).abs() < 1e-9 && (r.rmse - m.rmse).abs() < 1e-9);
        let exact = Regression::new(&y, &y).measure(None);
        prop_assert_eq!((exact.mae, exact.rmse), (0.0, 0.0));
        prop_assert!((quantile_loss(&y, &p, 0.5) - r.mae / 2.0).abs() < 1e-9);
        // The empirical quantile has the least loss among the values.
        prop_assert!(quantile_loss(&y, &p, 0.3) >= 0.0);
    }

    #[test]
    fn fairness_sees_groups_not_their_names_or_order(rows in rows()) {
        let (truth, predicted): (Vec<bool>, Vec<bool>) = rows.iter().map(|r| (r.0, r.1 > 6)).unzip();
        let names = |of: fn(u8) -> String| rows.iter().map(|r| of(r.2)).collect::<Vec<_>>();
        let a = fairness(&truth, &predicted, &names(|g| format!("g{g}")));
        let b = fairness(&truth, &predicted, &names(|g| format!("z{}", 9 - g)));
        for (x, y) in [
            (a.demographic_parity(), b.demographic_parity()),
            (a.equal_opportunity(), b.equal_opportunity()),
            (a.equalized_odds(), b.equalized_odds()),
        ] {
            prop_assert!(same(x.difference, y.difference) && same(x.ratio, y.ratio));
            prop_assert!((0.0..=1.0).contains(&x.difference) && (x.ratio.is_nan() || (0.0..=1.0).contains(&x.ratio)));
        }
        // One group, or one answer for all: no difference.
        let one = fairness(&truth, &predicted, &names(|_| "g".to_owned()));
        prop_assert_eq!((one.demographic_parity().difference, one.equalized_odds().difference), (0.0, 0.0));
        let never = vec![false; rows.len()];
        prop_assert_eq!(fairness(&truth, &never, &names(|g| g.to_string())).demographic_parity().difference, 0.0);
    }

    #[test]
    fn several_classes_agree_with_two(rows in rows()) {
        let labels = ["a".to_owned(), "b".to_owned()];
        let (truth, predicted): (Vec<bool>, Vec<bool>) = rows.iter().map(|r| (r.0, r.1 > 6)).unzip();
        let index = |v: &[bool]| v.iter().map(|b| usize::from(*b)).collect::<Vec<_>>();
        let (t, p) = (index(&truth), index(&predicted));
        let many = Multiclass::new(&labels, &t, &p, None).measure(None);
        let two = Binary::new(&truth, &predicted, None).measure(None);
        prop_assert!(same(many.accuracy, two.accuracy) && same(many.micro_average.f1, many.accuracy));
        prop_assert!((many.mcc - two.mcc).abs() < 1e-9, "{} {}", many.mcc, two.mcc);
        let probabilities: Vec<Vec<f64>> = rows.iter().map(|r| vec![1.0 - f64::from(r.1) / 12.0, f64::from(r.1) / 12.0]).collect();
        let (one, both) = (top_k_accuracy(&t, &probabilities, 1), top_k_accuracy(&t, &probabilities, 2));
        prop_assert!(one <= both && both == 1.0);
    }
}
