//! Numbers.

use serde::Serialize;

use super::{Metrics, collect, weight};

/// True and predicted numbers.
#[derive(Clone, Copy, Debug)]
pub struct Regression<'a> {
    truth: &'a [f64],
    predicted: &'a [f64],
}

/// The metrics of a regression; NaN where one isn't defined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegressionReport {
    /// Mean of |error|.
    pub mae: f64,
    /// Mean of error².
    pub mse: f64,
    /// √mse.
    pub rmse: f64,
    /// Median of |error| (of the rows that count, unweighted).
    pub median_ae: f64,
    /// Largest |error|.
    pub max_error: f64,
    /// Mean of |error| / max(|truth|, 2⁻⁵²).
    pub mape: f64,
    /// Mean of prediction − truth.
    pub mean_error: f64,
    /// 1 − Var(error) / Var(truth).
    pub explained_variance: f64,
    /// 1 − Σ error² / Σ (truth − mean)²; 0 for a constant truth that wasn't met, NaN for one row.
    pub r2: f64,
}

/// Mean quantile (pinball) loss of predictions of the `alpha` quantile: α (y − p) where the truth is above, (1 − α) (p − y) where it is below
/// (Koenker, Bassett 1978; scikit-learn's `mean_pinball_loss`). NaN without rows.
#[must_use]
pub fn quantile_loss(truth: &[f64], predicted: &[f64], alpha: f64) -> f64 {
    let losses = truth.iter().zip(predicted).map(|(y, p)| {
        let above = y - p;
        (alpha * above).max((alpha - 1.0) * above)
    });
    losses.sum::<f64>() / truth.len().min(predicted.len()) as f64
}

impl<'a> Regression<'a> {
    /// Rows beyond the shorter slice are ignored.
    #[must_use]
    pub fn new(truth: &'a [f64], predicted: &'a [f64]) -> Self {
        let n = truth.len().min(predicted.len());
        Self {
            truth: &truth[..n],
            predicted: &predicted[..n],
        }
    }

    /// All metrics, each row counted `weights[i]` times (once, if there are none).
    #[must_use]
    pub fn measure(&self, weights: Option<&[f64]>) -> RegressionReport {
        let rows = || {
            let errors = self
                .truth
                .iter()
                .zip(self.predicted)
                .map(|(&y, &p)| (y, p - y));
            errors
                .enumerate()
                .map(|(i, (y, e))| (y, e, weight(weights, i)))
                .filter(|r| r.2 > 0.0)
        };
        let n: f64 = rows().map(|r| r.2).sum();
        let mean = |value: &dyn Fn(f64, f64) -> f64| {
            rows().map(|(y, e, w)| w * value(y, e)).sum::<f64>() / n
        };
        let mse = mean(&|_, e| e * e);
        let (center, bias) = (mean(&|y, _| y), mean(&|_, e| e));
        let variance = mean(&|y, _| (y - center).powi(2));
        let explained = |unexplained: f64| match (variance > 0.0, unexplained > 0.0) {
            (true, _) => 1.0 - unexplained / variance,
            (false, true) => 0.0,
            (false, false) if n > 0.0 => 1.0,
            (false, false) => f64::NAN,
        };
        let mut absolute: Vec<f64> = rows().map(|r| r.1.abs()).collect();
        absolute.sort_by(f64::total_cmp);
        let middle = absolute.len() / 2;
        let median = match absolute.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => absolute[middle],
            _ => f64::midpoint(absolute[middle - 1], absolute[middle]),
        };
        let several = n >= 2.0;
        RegressionReport {
            mae: mean(&|_, e| e.abs()),
            mse,
            rmse: mse.sqrt(),
            median_ae: median,
            max_error: absolute.last().copied().unwrap_or(f64::NAN),
            mape: mean(&|y, e| e.abs() / y.abs().max(f64::EPSILON)),
            mean_error: bias,
            explained_variance: explained(mean(&|_, e| (e - bias).powi(2))),
            r2: if several { explained(mse) } else { f64::NAN },
        }
    }

    /// The metrics by name, and those of the predictor that always says the mean.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let mean = self.truth.iter().sum::<f64>() / self.truth.len() as f64;
        let constant = vec![mean; self.truth.len()];
        collect(
            self.measure(None).named(),
            Regression::new(self.truth, &constant).measure(None).named(),
        )
    }
}

impl RegressionReport {
    /// The metrics with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 9] {
        [
            ("mae", self.mae),
            ("mse", self.mse),
            ("rmse", self.rmse),
            ("medianAe", self.median_ae),
            ("maxError", self.max_error),
            ("mape", self.mape),
            ("meanError", self.mean_error),
            ("explainedVariance", self.explained_variance),
            ("r2", self.r2),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_explains_nothing_and_one_row_defines_no_r2() {
        let metrics = Regression::new(&[1.0, 2.0, 3.0], &[1.0, 2.0, 4.0]).metrics();
        assert_eq!((metrics["r2"], metrics["baseline.r2"]), (0.5, 0.0));
        assert_eq!(metrics["maxError"], 1.0);
        assert!(Regression::new(&[1.0], &[2.0]).measure(None).r2.is_nan());
        assert!(Regression::new(&[], &[]).metrics().is_empty());
    }
}
