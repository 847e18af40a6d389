//! Classification, regression, calibration.

use crate::stats::fairness::fairness;
use crate::stats::performance::{
    Binary, Confusion, Multiclass, Regression, Scores, calibration, estimate_performance,
};
use serde_json::{Map, Value, json};

use super::compare::number;
use super::table::Tables;

pub(super) fn compute(tables: &mut Tables, case: &Value) -> Option<Value> {
    let input = &case["input"];
    let file = input["file"].as_str()?;
    let mut column = |key: &str| tables.column(file, input[key].as_str().unwrap_or_default());
    Some(match case["metric"].as_str()? {
        "binary_classification" => {
            let (truth, predicted) = (column("y_true").booleans(), column("y_pred").booleans());
            let scores = column("y_score").numbers();
            let report = Binary::new(&truth, &predicted, Some(&scores)).measure(None);
            let mut value = confusion(&report.confusion);
            for (name, x) in report.named() {
                let name = match name {
                    "balancedAccuracy" => "balanced_accuracy",
                    "rocAuc" => "roc_auc",
                    "prAuc" => "average_precision",
                    "logLoss" => "log_loss",
                    other => other,
                };
                value.insert(name.into(), number(x));
            }
            value.into()
        }
        "ece" => {
            let bins = case["params"]["bins"].as_u64()? as usize;
            let c = calibration(
                &column("y_true").booleans(),
                &column("y_score").numbers(),
                bins,
            );
            json!({"ece": number(c.ece), "mce": number(c.mce)})
        }
        "cbpe_from_calibrated" => {
            let e =
                estimate_performance(&column("y_score").numbers(), &column("y_pred").booleans());
            let mut value = confusion(&e.confusion);
            for (name, x) in [
                ("accuracy", e.accuracy),
                ("precision", e.precision),
                ("recall", e.recall),
                ("f1", e.f1),
            ] {
                value.insert(name.into(), number(x));
            }
            value.into()
        }
        "regression" => {
            let (truth, predicted) = (column("y_true").numbers(), column("y_pred").numbers());
            let r = Regression::new(&truth, &predicted).measure(None);
            json!({
                "mae": number(r.mae), "mse": number(r.mse), "rmse": number(r.rmse), "median_ae": number(r.median_ae),
                "max_error": number(r.max_error), "mape": number(r.mape), "mean_error": number(r.mean_error),
                "explained_variance": number(r.explained_variance), "r2": number(r.r2),
            })
        }
        "multiclass_classification" => multiclass(tables, case),
        _ => return None,
    })
}

fn confusion(c: &Confusion) -> Map<String, Value> {
    [
        ("tp", c.true_positives),
        ("fp", c.false_positives),
        ("fn", c.false_negatives),
        ("tn", c.true_negatives),
    ]
    .into_iter()
    .map(|(name, count)| (name.to_string(), number(count)))
    .collect()
}

fn multiclass(tables: &mut Tables, case: &Value) -> Value {
    let input = &case["input"];
    let file = input["file"].as_str().unwrap_or_default();
    let probabilities: Vec<(String, Vec<f64>)> = {
        let columns = input["proba"].as_object().into_iter().flatten();
        let mut all: Vec<_> = columns
            .map(|(label, column)| {
                (
                    label.clone(),
                    tables
                        .column(file, column.as_str().unwrap_or_default())
                        .numbers(),
                )
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let labels: Vec<String> = probabilities.iter().map(|p| p.0.clone()).collect();
    let mut classes = |key: &str| -> Vec<usize> {
        let texts = tables
            .column(file, input[key].as_str().unwrap_or_default())
            .texts();
        let index = |text: &Option<String>| labels.iter().position(|l| Some(l) == text.as_ref());
        texts
            .iter()
            // A label without probabilities is no class of this case: the numbers will differ.
            .map(|text| index(text).unwrap_or_default())
            .collect()
    };
    let (truth, predicted) = (classes("y_true"), classes("y_pred"));
    let rows: Vec<Vec<f64>> = (0..truth.len())
        .map(|i| probabilities.iter().map(|p| p.1[i]).collect())
        .collect();
    let report = Multiclass::new(&labels, &truth, &predicted, Some(&rows)).measure(None);
    let scores = |s: &Scores| json!({"precision": s.precision, "recall": s.recall, "f1": s.f1});
    let by_label: Map<String, Value> = report
        .classes
        .iter()
        .map(|class| {
            let mut value = scores(&class.scores);
            value["support"] = class.support.into();
            (class.label.clone(), value)
        })
        .collect();
    json!({
        "accuracy": report.accuracy,
        "balanced_accuracy": report.balanced_accuracy,
        "mcc": report.mcc,
        "kappa": report.kappa,
        "confusion": {"labels": labels, "matrix": report.confusion},
        "macro": scores(&report.macro_average),
        "micro": scores(&report.micro_average),
        "weighted": scores(&report.weighted_average),
        "by_label": by_label,
        "log_loss": number(report.log_loss),
        "roc_auc_ovr_macro": number(report.roc_auc),
        "roc_auc_ovr_weighted": number(report.roc_auc_weighted),
        "roc_auc_ovo_macro": number(report.roc_auc_pairs),
    })
}

/// Groups of one column.
pub(super) fn fairness_of(tables: &mut Tables, case: &Value) -> Option<Value> {
    let input = &case["input"];
    let file = input["file"].as_str()?;
    let mut column = |key: &str| tables.column(file, input[key].as_str().unwrap_or_default());
    let groups: Vec<String> = column("sensitive").texts().into_iter().flatten().collect();
    let report = fairness(
        &column("y_true").booleans(),
        &column("y_pred").booleans(),
        &groups,
    );
    let (parity, opportunity) = (report.demographic_parity(), report.equal_opportunity());
    let (odds, overall) = (
        report.equalized_odds(),
        report.demographic_parity_to_overall(),
    );
    let by_group: Map<String, Value> = report
        .groups
        .iter()
        .map(|(name, g)| {
            let rates = json!({
                "selection_rate": g.selection_rate, "tpr": g.true_positive_rate, "fpr": g.false_positive_rate,
                "count": g.count, "accuracy": g.accuracy,
            });
            (name.clone(), rates)
        })
        .collect();
    Some(json!({
        "demographic_parity_difference": number(parity.difference),
        "demographic_parity_ratio": number(parity.ratio),
        "equalized_odds_difference": number(odds.difference),
        "equalized_odds_ratio": number(odds.ratio),
        "equal_opportunity_difference": number(opportunity.difference),
        "equal_opportunity_ratio": number(opportunity.ratio),
        "demographic_parity_difference_to_overall": number(overall.difference),
        "demographic_parity_ratio_to_overall": number(overall.ratio),
        "equalized_odds_difference_mean": number(report.mean_odds_difference()),
        "by_group": by_group,
    }))
}
