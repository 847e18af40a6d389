//! Drift of two columns, of data sets, and of counts.

use crate::stats::drift::{Method, Pair, Sample, bins, compare_columns, distance, embedding, test};
use serde_json::{Value, json};

use super::compare::number;
use super::table::Tables;

pub(super) fn compute(tables: &mut Tables, case: &Value) -> Option<Value> {
    let input = &case["input"];
    let text = |key: &str| input[key].as_str().unwrap_or_default();
    match case["metric"].as_str()? {
        "histogram_distances" => return Some(histograms(input)),
        "drifted_columns" => return Some(dataset(tables, case)),
        _ => {}
    }
    if case["family"] == "embedding" {
        return embedded(tables, case);
    }
    let reference = tables.sample(text("ref"), text("column"), text("type"));
    let current = tables.sample(text("cur"), text("column"), text("type"));
    let metric = case["metric"].as_str()?;
    if metric == "counts" {
        return Some(counts(&reference, &current));
    }
    let Some(pair) = Pair::new(&reference, &current) else {
        return Some(json!({"status": "insufficient_data"}));
    };
    univariate(metric, &reference, &current, &pair)
}

fn univariate(metric: &str, reference: &Sample, current: &Sample, pair: &Pair) -> Option<Value> {
    let scored = |method: Method| {
        let outcome = method.compare(pair, None).map_err(|e| e.to_string());
        outcome.map_or_else(
            |error| json!({"error": error}),
            |o| json!({"score": number(o.score), "threshold": o.threshold, "drift": o.drifted}),
        )
    };
    let tested = |result: test::TestResult| json!({"statistic": number(result.statistic), "p_value": number(result.p_value), "drift": result.p_value <= 0.05});
    Some(match metric {
        "auto" => {
            let method = Method::choose(pair);
            let mut value = scored(method);
            value["method"] = method.display_name().into();
            value
        }
        "describe" => json!({"ref": describe(reference), "cur": describe(current)}),
        "ks" => tested(test::kolmogorov_smirnov(pair)),
        "wasserstein_raw" => json!({"score": number(distance::wasserstein_raw(pair))}),
        "wasserstein" => scored(Method::Wasserstein),
        "psi" => scored(Method::Psi),
        "kl_div" => scored(Method::KullbackLeibler),
        "jensenshannon" => scored(Method::JensenShannon),
        "hellinger" => scored(Method::Hellinger),
        "ed" => scored(Method::Energy),
        "chisquare" => scored(Method::ChiSquare),
        "z" => scored(Method::Z),
        "psi_quantile10" => json!({"score": number(distance::psi_quantile(pair, 10, 1e-4))}),
        "js2_doane" => {
            let (js, hellinger) = distance::over_doane(pair)?;
            json!({"js": number(js), "hellinger": number(hellinger)})
        }
        "t_test" => tested(test::t(pair)),
        "mannw" => tested(test::mann_whitney(pair)),
        "cramer_von_mises" => tested(test::cramer_von_mises(pair)?),
        "anderson" => tested(test::anderson_darling(pair)?),
        "sturges_bins" => {
            let binned = bins::sturges(pair);
            json!({"edges": binned.edges, "ref": binned.reference, "cur": binned.current})
        }
        "tvd" => {
            let (r, c) = pair.counts();
            json!({"score": number(distance::total_variation(pair)), "linf": number(distance::l_infinity_of(r, c))})
        }
        "chi2_contingency" => {
            let (result, degrees) = test::contingency(pair);
            json!({"statistic": number(result.statistic), "p_value": number(result.p_value), "dof": degrees})
        }
        "g_test" => tested(test::g(pair)?),
        "fisher_exact" => json!({"p_value": number(test::fisher_exact(pair)?)}),
        _ => return None,
    })
}

fn counts(reference: &Sample, current: &Sample) -> Value {
    // Distinct values of one sample: those of the sample beside itself.
    let distinct = |a: &Sample, b: &Sample| match (a.used(), b.used()) {
        (0, 0) => 0,
        (0, _) => Pair::new(b, b).map_or(0, |p| p.distinct()),
        (_, 0) => Pair::new(a, a).map_or(0, |p| p.distinct()),
        _ => Pair::new(a, b).map_or(0, |p| p.distinct()),
    };
    json!({
        "n_ref": reference.rows(), "n_cur": current.rows(),
        "missing_ref": reference.missing(), "missing_cur": current.missing(),
        "inf_ref": reference.infinite(), "inf_cur": current.infinite(),
        "used_ref": reference.used(), "used_cur": current.used(),
        "unique_ref": distinct(reference, reference), "unique_both": distinct(reference, current),
    })
}

fn describe(sample: &Sample) -> Value {
    sample.describe().map_or(Value::Null, |d| {
        json!({
            "mean": number(d.mean), "std0": number(d.std), "min": number(d.min), "max": number(d.max),
            "q": d.quantiles.iter().map(|&q| number(q)).collect::<Vec<_>>(),
        })
    })
}

fn dataset(tables: &mut Tables, case: &Value) -> Value {
    let input = &case["input"];
    let file = |key: &str| input[key].as_str().unwrap_or_default().to_string();
    let names: Vec<&str> = input["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let samples: Vec<(Sample, Sample)> = names
        .iter()
        .map(|name| {
            let kind = input["types"][*name].as_str().unwrap_or_default();
            let mut side = |key| tables.sample(&file(key), name, kind);
            (side("ref"), side("cur"))
        })
        .collect();
    let columns = names
        .iter()
        .zip(&samples)
        .map(|(name, (r, c))| (*name, r, c));
    let share = case["params"]["drift_share"].as_f64().unwrap_or(0.5);
    let report = compare_columns(columns, None, &Default::default(), share);
    json!({
        "columns": report.compared(),
        "drifted": report.drifted_columns(),
        "share": report.drift_share,
        "dataset_drift": report.drifted,
    })
}

fn histograms(input: &Value) -> Value {
    let counts = |key: &str| -> Vec<f64> {
        input[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect()
    };
    let (r, c) = (counts("ref_counts"), counts("cur_counts"));
    json!({
        "psi": number(distance::psi_of(&r, &c)),
        "kl_div": number(distance::kullback_leibler_of(&r, &c)),
        "jensenshannon": number(distance::jensen_shannon_of(&r, &c)),
        "hellinger": number(distance::hellinger_of(&r, &c)),
        "tvd": number(distance::total_variation_of(&r, &c)),
    })
}

fn embedded(tables: &mut Tables, case: &Value) -> Option<Value> {
    let text = |key: &str| case["input"][key].as_str().unwrap_or_default();
    let reference = tables.lists(text("ref"), text("column"));
    let current = tables.lists(text("cur"), text("column"));
    let threshold = case["params"]["threshold"].as_f64()?;
    let (score, raw) = match case["metric"].as_str()? {
        "distance" => {
            let metric = match case["params"]["dist"].as_str()? {
                "euclidean" => embedding::Metric::Euclidean,
                "cosine" => embedding::Metric::Cosine,
                "cityblock" => embedding::Metric::Cityblock,
                _ => embedding::Metric::Chebyshev,
            };
            let distance = embedding::mean_distance(&reference, &current, metric);
            (distance, distance)
        }
        "mmd" => {
            let value = embedding::mmd(&reference, &current);
            (value.max(0.0), value)
        }
        "ratio" => {
            let least = case["params"]["component_threshold"].as_f64()?;
            let share = embedding::drifted_components(&reference, &current, least);
            (share, share)
        }
        _ => return None,
    };
    Some(json!({"score": number(score), "drift": raw > threshold}))
}
