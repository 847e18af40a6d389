//! How good predictions are, equal to scikit-learn's numbers, with the constant predictor beside them.
//!
//! ```
//! use perennial::stats::performance::{Binary, bootstrap};
//!
//! let truth = [true, false, true, false, false, true];
//! let score = [0.9, 0.2, 0.6, 0.7, 0.1, 0.8];
//! let data = Binary::from_scores(&truth, &score, 0.5);
//! let metrics = data.metrics();                       // "rocAuc", "logLoss", …, "baseline.logLoss", …
//! assert!(metrics["logLoss"] < metrics["baseline.logLoss"]);
//!
//! // Intervals: rows of one day stand or fall together.
//! let day = [0, 0, 1, 1, 2, 2];
//! let ends = bootstrap(6, Some(&day), 200, 0.95, 7, |weights| vec![data.measure(Some(weights)).log_loss]);
//! assert!(ends[0].unwrap().0 <= metrics["logLoss"] && metrics["logLoss"] <= ends[0].unwrap().1);
//! ```
//!
//! A metric that isn't defined (AUC of a single class, R² of one row) is NaN in the reports and absent from the maps.

mod binary;
mod bootstrap;
mod calibration;
mod multiclass;
mod regression;

pub use binary::{Binary, BinaryReport, Confusion};
pub use bootstrap::bootstrap;
pub use calibration::{
    Calibration, CalibrationBin, EstimatedPerformance, calibration, calibration_curve,
    estimate_performance, share_interval,
};
pub use multiclass::{ClassReport, Multiclass, MulticlassReport, Scores, top_k_accuracy};
pub use regression::{Regression, RegressionReport, quantile_loss};

use std::collections::BTreeMap;

/// Metrics by name, in camelCase; those of the constant predictor begin with `baseline.`.
pub type Metrics = BTreeMap<String, f64>;

/// The defined ones of `model`, and of `baseline` under its prefix.
fn collect<const N: usize>(model: [(&str, f64); N], baseline: [(&str, f64); N]) -> Metrics {
    let own = model
        .into_iter()
        .map(|(name, value)| (name.to_string(), value));
    let constant = baseline
        .into_iter()
        .map(|(name, value)| (format!("baseline.{name}"), value));
    own.chain(constant)
        .filter(|(_, value)| value.is_finite())
        .collect()
}

/// Whether more of a metric is better: `false`, less is; `None`, neither (an error with a sign), or a metric that isn't known here.
///
/// ```
/// use perennial::stats::performance::more_is_better;
///
/// assert_eq!(more_is_better("f1Macro"), Some(true));
/// assert_eq!(more_is_better("logLoss"), Some(false));
/// assert_eq!(more_is_better("meanError"), None);
/// ```
#[must_use]
pub fn more_is_better(metric: &str) -> Option<bool> {
    let averaged = ["Macro", "Micro", "Weighted"];
    let name = averaged
        .iter()
        .find_map(|suffix| metric.strip_suffix(suffix))
        .unwrap_or(metric);
    match name {
        "accuracy" | "balancedAccuracy" | "precision" | "recall" | "f1" | "mcc" | "kappa"
        | "rocAuc" | "prAuc" | "explainedVariance" | "r2" => Some(true),
        "logLoss" | "brier" | "mae" | "mse" | "rmse" | "medianAe" | "maxError" | "mape" | "ece"
        | "mce" => Some(false),
        _ => None,
    }
}

/// `a / b`, and 0 where b is 0 (scikit-learn's `zero_division=0`).
fn divide(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// −ln p, with p clipped at the float64 epsilon as scikit-learn does.
pub(super) fn surprise(p: f64) -> f64 {
    -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

/// The weight of row `i`.
fn weight(weights: Option<&[f64]>, i: usize) -> f64 {
    weights.map_or(1.0, |w| w[i])
}

#[cfg(test)]
mod tests;
