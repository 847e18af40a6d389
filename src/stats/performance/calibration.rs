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

/// One bin of scores, with what came true of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CalibrationBin {
    /// Where it begins.
    pub from: f64,
    /// Where it ends: a score there still belongs to it.
    pub to: f64,
    /// Rows.
    pub count: u64,
    /// Mean score of them.
    pub score: f64,
    /// Share of them that is positive.
    pub positive: f64,
}

/// The bins of a calibration curve that have rows, `bins` of equal width over 0 to 1; a score on an inner edge belongs to the lower bin.
#[must_use]
pub fn calibration_curve(truth: &[bool], scores: &[f64], bins: usize) -> Vec<CalibrationBin> {
    let bins = bins.max(1);
    let mut sums = vec![(0u64, 0.0, 0.0); bins];
    // i · (1/bins), as numpy's linspace has it.
    let edges: Vec<f64> = (1..bins).map(|i| i as f64 * (1.0 / bins as f64)).collect();
    for (&truth, &score) in truth.iter().zip(scores) {
        let bin = &mut sums[edges.partition_point(|&e| e < score)];
        *bin = (bin.0 + 1, bin.1 + f64::from(u8::from(truth)), bin.2 + score);
    }
    sums.iter()
        .enumerate()
        .filter(|(_, (count, _, _))| *count > 0)
        .map(|(i, &(count, positives, scores))| CalibrationBin {
            from: i.checked_sub(1).map_or(0.0, |i| edges[i]),
            to: edges.get(i).copied().unwrap_or(1.0),
            count,
            score: scores / count as f64,
            positive: positives / count as f64,
        })
        .collect()
}

/// Calibration over the bins of [`calibration_curve`]. NaN without rows.
#[must_use]
pub fn calibration(truth: &[bool], scores: &[f64], bins: usize) -> Calibration {
    let curve = calibration_curve(truth, scores, bins);
    let n = curve.iter().map(|bin| bin.count).sum::<u64>() as f64;
    if n == 0.0 {
        return Calibration {
            ece: f64::NAN,
            mce: f64::NAN,
        };
    }
    let (ece, mce) = curve.iter().fold((0.0, 0.0f64), |(sum, most), bin| {
        let gap = (bin.positive - bin.score).abs();
        (sum + bin.count as f64 / n * gap, most.max(gap))
    });
    Calibration { ece, mce }
}

/// The 95 % interval of a share (Wilson 1927): sound for few rows, and for shares near 0 and 1. `None` without rows.
#[must_use]
pub fn share_interval(hits: u64, rows: u64) -> Option<(f64, f64)> {
    const Z: f64 = 1.959_963_984_540_054;
    if rows == 0 {
        return None;
    }
    let (n, p) = (rows as f64, hits as f64 / rows as f64);
    let scale = 1.0 + Z * Z / n;
    let center = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(((center - half).max(0.0), (center + half).min(1.0)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_has_the_bins_with_rows_and_an_edge_belongs_to_the_lower_one() {
        let curve = calibration_curve(&[true, false, true], &[0.5, 0.1, 1.0], 2);
        assert_eq!((curve.len(), curve[0].count, curve[0].to), (2, 2, 0.5));
        assert_eq!((curve[0].positive, curve[1].score), (0.5, 1.0));
        assert!(calibration(&[], &[], 10).ece.is_nan());
    }

    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        // Values of R's prop.test without correction.
        let (low, high) = share_interval(8, 10).unwrap();
        assert!((low - 0.490_162_5).abs() < 1e-6 && (high - 0.943_317_8).abs() < 1e-6);
        assert_eq!(share_interval(0, 10).unwrap().0, 0.0);
        assert_eq!(share_interval(0, 0), None);
    }
}
