//! Whether probabilities mean what they say: `ece` and `mce`, and stable's beside them.

use super::{details::Details, input_failure, measure::Compared, truth::Truth};
use crate::{
    api::{evaluation::CalibrationEvaluator, gate::MetricValue},
    stats::performance::{calibration, calibration_curve},
    supervise::failure::Failure,
};

/// Bins where the spec doesn't say.
const BINS: i32 = 10;

/// Measures the calibration of both sides. The constant predictor's is 0 by definition: it says the share of positives.
///
/// # Errors
/// `UnknownLabel` for labels that are numbers.
pub fn run(
    evaluator: &CalibrationEvaluator,
    truth: &Truth,
    compared: &Compared,
    details: &mut Details,
) -> Result<Vec<MetricValue>, Failure> {
    if matches!(truth, Truth::Multi { .. }) {
        return Err(input_failure(
            "UnknownLabel",
            "the calibration evaluator is about one class, and the label has several: write which is positive, evaluators: [{classification: {positive: …}}]".to_owned(),
        ));
    }
    if matches!(truth, Truth::Number(_)) {
        return Err(input_failure(
            "UnknownLabel",
            "the calibration evaluator is about probabilities of classes, and the label is a number: take it out of evaluators".to_owned(),
        ));
    }
    let bins = usize::try_from(evaluator.bins.unwrap_or(BINS)).unwrap_or_default();
    let samples = i64::try_from(compared.kept.len()).ok();
    let mut metrics = Vec::new();
    let sides = [
        ("", Some(&compared.own)),
        ("stable.", compared.stable.as_ref()),
    ];
    for (prefix, columns) in sides {
        let Some(columns) = columns else { continue };
        let found = columns
            .scores
            .as_ref()
            .map(|scores| calibration(&compared.classes, scores, bins));
        for (name, value) in [("ece", found.map(|f| f.ece)), ("mce", found.map(|f| f.mce))] {
            metrics.push(MetricValue {
                name: format!("{prefix}{name}"),
                value,
                samples,
                message: value.is_none().then(|| {
                    "the model gives no probabilities (output `predict_proba`, or a column `score`)"
                        .to_owned()
                }),
                ..MetricValue::default()
            });
        }
    }
    if let Some(scores) = &compared.own.scores {
        details.calibration = calibration_curve(&compared.classes, scores, bins);
        metrics.extend(["baseline.ece", "baseline.mce"].map(|name| MetricValue {
            name: name.to_owned(),
            value: Some(0.0),
            samples,
            ..MetricValue::default()
        }));
    }
    Ok(metrics)
}
