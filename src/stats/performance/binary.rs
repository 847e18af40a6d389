//! Two classes.

use serde::Serialize;

use super::{Metrics, collect, divide, surprise, weight};

/// True and predicted classes, and the scores behind the predictions where there are any.
#[derive(Clone, Debug)]
pub struct Binary<'a> {
    truth: &'a [bool],
    predicted: Vec<bool>,
    scores: Option<&'a [f64]>,
    /// Rows by falling score.
    order: Vec<u32>,
}

/// Counts by true and predicted class (weighted counts in a bootstrap).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Confusion {
    /// Positives predicted positive.
    pub true_positives: f64,
    /// Negatives predicted positive.
    pub false_positives: f64,
    /// Positives predicted negative.
    pub false_negatives: f64,
    /// Negatives predicted negative.
    pub true_negatives: f64,
}

/// The metrics of a binary classifier; NaN where one isn't defined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BinaryReport {
    /// The confusion matrix.
    pub confusion: Confusion,
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean of the recalls of both classes (of the only one, if there is one).
    pub balanced_accuracy: f64,
    /// TP / (TP + FP).
    pub precision: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// 2 TP / (2 TP + FP + FN).
    pub f1: f64,
    /// Matthews' correlation coefficient.
    pub mcc: f64,
    /// Cohen's kappa.
    pub kappa: f64,
    /// Area under the ROC curve, ties by midranks.
    pub roc_auc: f64,
    /// Average precision: Σ (R_k − R_(k−1)) P_k over the thresholds.
    pub pr_auc: f64,
    /// Mean of −ln of the probability given to the true class, clipped at the float64 epsilon.
    pub log_loss: f64,
    /// Mean of (score − truth)².
    pub brier: f64,
}

impl Confusion {
    /// All rows.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.true_positives + self.false_positives + self.false_negatives + self.true_negatives
    }
}

impl<'a> Binary<'a> {
    /// From probabilities of the positive class; predicted positive from `threshold` on. Rows beyond the shorter slice are ignored.
    #[must_use]
    pub fn from_scores(truth: &'a [bool], scores: &'a [f64], threshold: f64) -> Self {
        let predicted: Vec<bool> = scores.iter().map(|&s| s >= threshold).collect();
        Self::new(truth, &predicted, Some(scores))
    }

    /// From predicted classes, with scores if there are any.
    #[must_use]
    pub fn new(truth: &'a [bool], predicted: &[bool], scores: Option<&'a [f64]>) -> Self {
        let n = truth
            .len()
            .min(predicted.len())
            .min(scores.map_or(usize::MAX, <[f64]>::len));
        let scores = scores.map(|s| &s[..n]);
        let mut order: Vec<u32> = (0..if scores.is_some() { n as u32 } else { 0 }).collect();
        if let Some(scores) = scores {
            order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        }
        Self {
            truth: &truth[..n],
            predicted: predicted[..n].to_vec(),
            scores,
            order,
        }
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.truth.len()
    }

    /// All metrics, each row counted `weights[i]` times (once, if there are none).
    #[must_use]
    pub fn measure(&self, weights: Option<&[f64]>) -> BinaryReport {
        let mut c = Confusion::default();
        let (mut loss, mut squares) = (0.0, 0.0);
        for (i, (&truth, &predicted)) in self.truth.iter().zip(&self.predicted).enumerate() {
            let w = weight(weights, i);
            *match (truth, predicted) {
                (true, true) => &mut c.true_positives,
                (false, true) => &mut c.false_positives,
                (true, false) => &mut c.false_negatives,
                (false, false) => &mut c.true_negatives,
            } += w;
            if let Some(scores) = self.scores {
                let p = scores[i];
                loss += w * surprise(if truth { p } else { 1.0 - p });
                squares += w * (p - f64::from(u8::from(truth))).powi(2);
            }
        }
        let (auc, precision_area) = self.areas(weights, &c);
        let n = c.total();
        let scored = |sum: f64| {
            if self.scores.is_some() {
                sum / n
            } else {
                f64::NAN
            }
        };
        BinaryReport {
            roc_auc: auc,
            pr_auc: precision_area,
            log_loss: scored(loss),
            brier: scored(squares),
            ..c.report()
        }
    }

    /// The metrics by name, and those of the predictor that always says the share of positives.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let n = self.rows() as f64;
        let rate = self.truth.iter().filter(|&&t| t).count() as f64 / n;
        let constant = vec![rate; self.rows()];
        let baseline = Binary::from_scores(self.truth, &constant, 0.5).measure(None);
        let own = self.measure(None);
        let baseline = if self.scores.is_some() {
            baseline
        } else {
            let none = f64::NAN;
            BinaryReport {
                roc_auc: none,
                pr_auc: none,
                log_loss: none,
                brier: none,
                ..baseline
            }
        };
        collect(own.named(), baseline.named())
    }

    /// Areas under the ROC and precision-recall curves.
    fn areas(&self, weights: Option<&[f64]>, c: &Confusion) -> (f64, f64) {
        let positives = c.true_positives + c.false_negatives;
        let negatives = c.false_positives + c.true_negatives;
        let Some(scores) = self.scores else {
            return (f64::NAN, f64::NAN);
        };
        let (mut tp, mut fp, mut area, mut precision_area) = (0.0, 0.0, 0.0, 0.0);
        let mut i = 0;
        while i < self.order.len() {
            let score = scores[self.order[i] as usize];
            let (mut more_tp, mut more_fp) = (0.0, 0.0);
            while i < self.order.len() && scores[self.order[i] as usize] == score {
                let row = self.order[i] as usize;
                *if self.truth[row] {
                    &mut more_tp
                } else {
                    &mut more_fp
                } += weight(weights, row);
                i += 1;
            }
            if score.is_nan() {
                return (f64::NAN, f64::NAN);
            }
            area += more_fp * (tp + more_tp / 2.0);
            tp += more_tp;
            fp += more_fp;
            precision_area += more_tp * divide(tp, tp + fp);
        }
        let both = positives > 0.0 && negatives > 0.0;
        (
            if both {
                area / (positives * negatives)
            } else {
                f64::NAN
            },
            if positives > 0.0 {
                precision_area / positives
            } else {
                f64::NAN
            },
        )
    }
}

impl Confusion {
    /// The metrics that follow from the counts; the others are NaN.
    #[must_use]
    pub fn report(&self) -> BinaryReport {
        let (tp, fp) = (self.true_positives, self.false_positives);
        let (fne, tn) = (self.false_negatives, self.true_negatives);
        let n = self.total();
        let recalls: Vec<f64> = [(tp, tp + fne), (tn, tn + fp)]
            .iter()
            .filter(|r| r.1 > 0.0)
            .map(|r| r.0 / r.1)
            .collect();
        let expected = ((tp + fp) * (tp + fne) + (tn + fne) * (tn + fp)) / (n * n);
        let accuracy = (tp + tn) / n;
        let spread = ((tp + fp) * (tp + fne) * (tn + fp) * (tn + fne)).sqrt();
        BinaryReport {
            confusion: *self,
            accuracy,
            balanced_accuracy: recalls.iter().sum::<f64>() / recalls.len() as f64,
            precision: divide(tp, tp + fp),
            recall: divide(tp, tp + fne),
            f1: divide(2.0 * tp, 2.0 * tp + fp + fne),
            mcc: divide(tp * tn - fp * fne, spread),
            kappa: (accuracy - expected) / (1.0 - expected),
            roc_auc: f64::NAN,
            pr_auc: f64::NAN,
            log_loss: f64::NAN,
            brier: f64::NAN,
        }
    }
}

impl BinaryReport {
    /// The metrics with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 11] {
        [
            ("accuracy", self.accuracy),
            ("balancedAccuracy", self.balanced_accuracy),
            ("precision", self.precision),
            ("recall", self.recall),
            ("f1", self.f1),
            ("mcc", self.mcc),
            ("kappa", self.kappa),
            ("rocAuc", self.roc_auc),
            ("prAuc", self.pr_auc),
            ("logLoss", self.log_loss),
            ("brier", self.brier),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_the_predictor_that_always_says_the_share_of_positives() {
        let truth = [true, false, false, false];
        let metrics = Binary::from_scores(&truth, &[0.9, 0.1, 0.2, 0.3], 0.5).metrics();
        assert_eq!(
            (metrics["accuracy"], metrics["baseline.accuracy"]),
            (1.0, 0.75)
        );
        assert_eq!((metrics["rocAuc"], metrics["baseline.rocAuc"]), (1.0, 0.5));
        let entropy = -(0.25 * 0.25f64.ln() + 0.75 * 0.75f64.ln());
        assert!((metrics["baseline.logLoss"] - entropy).abs() < 1e-12);
        assert_eq!(
            (metrics["baseline.f1"], metrics["baseline.prAuc"]),
            (0.0, 0.25)
        );
    }

    #[test]
    fn metrics_that_are_not_defined_are_absent() {
        let one_class = Binary::from_scores(&[true, true], &[0.4, 0.6], 0.5).metrics();
        assert!(!one_class.contains_key("rocAuc") && one_class.contains_key("logLoss"));
        let no_scores = Binary::new(&[true, false], &[true, true], None).metrics();
        assert!(!no_scores.contains_key("logLoss") && !no_scores.contains_key("baseline.logLoss"));
        assert_eq!(no_scores["accuracy"], 0.5);
        let empty = Binary::from_scores(&[], &[], 0.5).metrics();
        assert!(!empty.contains_key("accuracy"), "{empty:?}");
    }

    #[test]
    fn a_row_that_counts_twice_is_a_row_that_is_there_twice() {
        let (truth, scores) = ([true, false, true], [0.7, 0.7, 0.2]);
        let weighted = Binary::from_scores(&truth, &scores, 0.5).measure(Some(&[2.0, 1.0, 0.0]));
        let repeated =
            Binary::from_scores(&[true, true, false], &[0.7, 0.7, 0.7], 0.5).measure(None);
        assert_eq!(weighted, repeated);
    }
}
