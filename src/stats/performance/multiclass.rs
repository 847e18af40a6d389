//! Several classes.

use serde::Serialize;

use super::{Binary, Metrics, collect, divide, surprise, weight};

/// True and predicted classes as indices into `labels`, and the probability of each class where there is one.
#[derive(Clone, Debug)]
pub struct Multiclass<'a> {
    labels: &'a [String],
    truth: &'a [usize],
    predicted: &'a [usize],
    /// Row by row, one probability for each label.
    probabilities: Option<&'a [Vec<f64>]>,
}

/// Precision, recall and F1, of one class or averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// TP / (TP + FP).
    pub precision: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassReport {
    /// The class.
    pub label: String,
    /// Its scores.
    pub scores: Scores,
    /// Rows of this class.
    pub support: f64,
}

/// The metrics of a classifier; NaN where one isn't defined.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MulticlassReport {
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean recall of the classes that occur.
    pub balanced_accuracy: f64,
    /// Matthews' correlation coefficient for several classes (Gorodkin 2004).
    pub mcc: f64,
    /// Cohen's kappa.
    pub kappa: f64,
    /// Rows by true (outer) and predicted (inner) class.
    pub confusion: Vec<Vec<f64>>,
    /// By class, for those that occur as truth or prediction.
    pub classes: Vec<ClassReport>,
    /// Mean over classes.
    pub macro_average: Scores,
    /// From the sums over classes: all three are the accuracy.
    pub micro_average: Scores,
    /// Mean over classes, weighted by support.
    pub weighted_average: Scores,
    /// Mean of −ln of the probability given to the true class.
    pub log_loss: f64,
    /// Mean area under the ROC curve, one class against the rest.
    pub roc_auc: f64,
    /// The same, weighted by support.
    pub roc_auc_weighted: f64,
    /// Mean area under the ROC curve over pairs of classes (Hand, Till 2001).
    pub roc_auc_pairs: f64,
}

/// Share of rows whose true class is among the `k` most probable; of equal probabilities the later class counts as the more probable, as in
/// scikit-learn's `top_k_accuracy_score`. NaN without rows.
#[must_use]
pub fn top_k_accuracy(truth: &[usize], probabilities: &[Vec<f64>], k: usize) -> f64 {
    let rows = truth.iter().zip(probabilities);
    let hit = |&(&truth, row): &(&usize, &Vec<f64>)| {
        let Some(own) = row.get(truth) else {
            return false;
        };
        let before = |(i, p): (usize, &f64)| p > own || p == own && i > truth;
        row.iter().enumerate().filter(|x| before(*x)).count() < k
    };
    rows.filter(hit).count() as f64 / truth.len().min(probabilities.len()) as f64
}

impl<'a> Multiclass<'a> {
    /// `truth` and `predicted` are indices into `labels`; rows beyond the shorter slice are ignored.
    #[must_use]
    pub fn new(
        labels: &'a [String],
        truth: &'a [usize],
        predicted: &'a [usize],
        probabilities: Option<&'a [Vec<f64>]>,
    ) -> Self {
        let n = truth
            .len()
            .min(predicted.len())
            .min(probabilities.map_or(usize::MAX, <[_]>::len));
        Self {
            labels,
            truth: &truth[..n],
            predicted: &predicted[..n],
            probabilities: probabilities.map(|p| &p[..n]),
        }
    }

    /// All metrics, each row counted `weights[i]` times (once, if there are none).
    #[must_use]
    pub fn measure(&self, weights: Option<&[f64]>) -> MulticlassReport {
        let k = self.labels.len();
        let mut confusion = vec![vec![0.0; k]; k];
        let mut loss = 0.0;
        for (i, (&truth, &predicted)) in self.truth.iter().zip(self.predicted).enumerate() {
            confusion[truth][predicted] += weight(weights, i);
            if let Some(probabilities) = self.probabilities {
                loss += weight(weights, i) * surprise(probabilities[i][truth]);
            }
        }
        let support: Vec<f64> = confusion.iter().map(|row| row.iter().sum()).collect();
        let chosen: Vec<f64> = (0..k)
            .map(|j| confusion.iter().map(|row| row[j]).sum())
            .collect();
        let n: f64 = support.iter().sum();
        let right: f64 = (0..k).map(|j| confusion[j][j]).sum();
        let products: f64 = support.iter().zip(&chosen).map(|(t, p)| t * p).sum();
        let squares = |counts: &[f64]| counts.iter().map(|c| c * c).sum::<f64>();
        let accuracy = right / n;
        let classes: Vec<ClassReport> = (0..k)
            .filter(|&j| support[j] + chosen[j] > 0.0)
            .map(|j| ClassReport {
                label: self.labels[j].clone(),
                scores: Scores {
                    precision: divide(confusion[j][j], chosen[j]),
                    recall: divide(confusion[j][j], support[j]),
                    f1: divide(2.0 * confusion[j][j], support[j] + chosen[j]),
                },
                support: support[j],
            })
            .collect();
        let average = |weight: &dyn Fn(&ClassReport) -> f64| {
            let total: f64 = classes.iter().map(weight).sum();
            let mean = |value: &dyn Fn(&Scores) -> f64| {
                classes
                    .iter()
                    .map(|c| weight(c) * value(&c.scores))
                    .sum::<f64>()
                    / total
            };
            Scores {
                precision: mean(&|s| s.precision),
                recall: mean(&|s| s.recall),
                f1: mean(&|s| s.f1),
            }
        };
        let present = support.iter().filter(|&&s| s > 0.0).count() as f64;
        let recalls: f64 = (0..k).map(|j| divide(confusion[j][j], support[j])).sum();
        let areas: Vec<f64> = (0..k).map(|j| self.area(j, None, weights)).collect();
        MulticlassReport {
            accuracy,
            balanced_accuracy: recalls / present,
            mcc: divide(
                right * n - products,
                ((n * n - squares(&chosen)) * (n * n - squares(&support))).sqrt(),
            ),
            kappa: (accuracy - products / (n * n)) / (1.0 - products / (n * n)),
            macro_average: average(&|_| 1.0),
            micro_average: Scores {
                precision: accuracy,
                recall: accuracy,
                f1: accuracy,
            },
            weighted_average: average(&|c| c.support),
            log_loss: if self.probabilities.is_some() {
                loss / n
            } else {
                f64::NAN
            },
            roc_auc: areas.iter().sum::<f64>() / k as f64,
            roc_auc_weighted: areas.iter().zip(&support).map(|(a, s)| a * s).sum::<f64>() / n,
            roc_auc_pairs: self.area_by_pairs(weights),
            confusion,
            classes,
        }
    }

    /// The metrics by name, and those of the predictor that always gives the shares of the classes.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let k = self.labels.len();
        let mut shares = vec![0.0; k];
        self.truth
            .iter()
            .for_each(|&t| shares[t] += 1.0 / self.truth.len() as f64);
        let most = (0..k)
            .max_by(|&a, &b| shares[a].total_cmp(&shares[b]).then(b.cmp(&a)))
            .unwrap_or(0);
        let predicted = vec![most; self.truth.len()];
        let probabilities = self.probabilities.map(|_| vec![shares; self.truth.len()]);
        let baseline = Multiclass {
            predicted: &predicted,
            probabilities: probabilities.as_deref(),
            ..self.clone()
        };
        collect(self.measure(None).named(), baseline.measure(None).named())
    }

    /// AUC of one class against another, or against the rest.
    fn area(&self, class: usize, other: Option<usize>, weights: Option<&[f64]>) -> f64 {
        let Some(probabilities) = self.probabilities else {
            return f64::NAN;
        };
        let rows: Vec<usize> = (0..self.truth.len())
            .filter(|&i| other.is_none_or(|other| self.truth[i] == class || self.truth[i] == other))
            .collect();
        let truth: Vec<bool> = rows.iter().map(|&i| self.truth[i] == class).collect();
        let scores: Vec<f64> = rows.iter().map(|&i| probabilities[i][class]).collect();
        let chosen: Option<Vec<f64>> = weights.map(|w| rows.iter().map(|&i| w[i]).collect());
        Binary::from_scores(&truth, &scores, 0.5)
            .measure(chosen.as_deref())
            .roc_auc
    }

    fn area_by_pairs(&self, weights: Option<&[f64]>) -> f64 {
        let k = self.labels.len();
        if weights.is_some() || self.probabilities.is_none() || k < 2 {
            return f64::NAN; // Not worth k² sorts in each draw of a bootstrap.
        }
        let pairs = (0..k).flat_map(|a| (0..k).filter(move |&b| b != a).map(move |b| (a, b)));
        pairs.map(|(a, b)| self.area(a, Some(b), None)).sum::<f64>() / (k * (k - 1)) as f64
    }
}

impl MulticlassReport {
    /// The metrics with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 12] {
        [
            ("accuracy", self.accuracy),
            ("balancedAccuracy", self.balanced_accuracy),
            ("precision", self.macro_average.precision),
            ("recall", self.macro_average.recall),
            ("f1", self.macro_average.f1),
            ("f1Micro", self.micro_average.f1),
            ("f1Weighted", self.weighted_average.f1),
            ("mcc", self.mcc),
            ("kappa", self.kappa),
            ("logLoss", self.log_loss),
            ("rocAuc", self.roc_auc),
            ("rocAucPairs", self.roc_auc_pairs),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_always_says_the_most_frequent_class() {
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let metrics = Multiclass::new(&labels, &[0, 0, 1, 2], &[0, 0, 1, 1], None).metrics();
        assert_eq!(
            (metrics["accuracy"], metrics["baseline.accuracy"]),
            (0.75, 0.5)
        );
        assert!((metrics["f1"] - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert!(!metrics.contains_key("logLoss"));
    }
}
