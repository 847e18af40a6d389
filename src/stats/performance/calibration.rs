//! Whether probabilities mean what they say, and what they say about performance without labels.

use serde::Serialize;

use super::{Confusion, divide};

/// How far probabilities are from frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: Σ (n_b / n) |mean truth − mean score| over bins of equal width.
    pub ece: f64,
    /// The largest of them.
    pub mce: f64,
}

/// Calibration over `bins` bins; a score on an inner edge belongs to the lower bin. NaN without rows.
#[must_use]
pub fn calibration(truth: &[bool], scores: &[f64], bins: usize) -> Calibration {
    let bins = bins.max(1);
    let mut sums = vec![(0.0, 0.0, 0.0); bins];
    // i · (1/bins), as numpy's linspace has it.
    let edges: Vec<f64> = (1..bins).map(|i| i as f64 * (1.0 / bins as f64)).collect();
    for (&truth, &score) in truth.iter().zip(scores) {
        let bin = &mut sums[edges.partition_point(|&e| e < score)];
        *bin = (
            bin.0 + 1.0,
            bin.1 + f64::from(u8::from(truth)),
            bin.2 + score,
        );
    }
    let n: f64 = sums.iter().map(|s| s.0).sum();
    if n == 0.0 {
        return Calibration {
            ece: f64::NAN,
            mce: f64::NAN,
        };
    }
    let gaps = sums
        .iter()
        .filter(|s| s.0 > 0.0)
        .map(|s| (s.0 / n, (s.1 / s.0 - s.2 / s.0).abs()));
    let (ece, mce) = gaps.fold((0.0, 0.0f64), |(sum, most), (share, gap)| {
        (sum + share * gap, most.max(gap))
    });
    Calibration { ece, mce }
}

/// What calibrated scores promise (CBPE: confidence-based performance estimation, as in NannyML).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EstimatedPerformance {
    /// The expected confusion matrix: TP = Σ pŷ, FP = Σ (1−p)ŷ, FN = Σ p(1−ŷ).
    pub confusion: Confusion,
    /// Expected accuracy.
    pub accuracy: f64,
    /// Expected precision.
    pub precision: f64,
    /// Expected recall.
    pub recall: f64,
    /// Expected F1.
    pub f1: f64,
}

/// Estimates performance from calibrated scores and predictions alone.
#[must_use]
pub fn estimate_performance(scores: &[f64], predicted: &[bool]) -> EstimatedPerformance {
    let mut c = Confusion::default();
    for (&p, &positive) in scores.iter().zip(predicted) {
        if positive {
            c.true_positives += p;
            c.false_positives += 1.0 - p;
        } else {
            c.false_negatives += p;
            c.true_negatives += 1.0 - p;
        }
    }
    let tp = c.true_positives;
    EstimatedPerformance {
        confusion: c,
        accuracy: (tp + c.true_negatives) / c.total(),
        precision: divide(tp, tp + c.false_positives),
        recall: divide(tp, tp + c.false_negatives),
        f1: divide(2.0 * tp, 2.0 * tp + c.false_positives + c.false_negatives),
    }
}
