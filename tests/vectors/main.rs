//! Every statistic against the values that the reference libraries give: `README.md` here has the definitions.

mod compare;
mod drift;
mod flights;
mod online;
mod performance;
mod table;
mod text;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// Metrics that the crate doesn't have yet, by family. A covered one must not stand here.
const NOT_COVERED: &[(&str, &[&str])] = &[
    // A classifier trained with a library's random numbers: only roughly comparable.
    ("embedding", &["model"]),
    // Of pandas' data types, and informative only.
    ("schema", &["infer_types"]),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The values of a case, in the shape of its `expect`; `None` if the metric isn't covered.
fn compute(tables: &mut table::Tables, case: &Value) -> Option<Value> {
    match case["family"].as_str()? {
        "data_drift" | "dataset" | "binned" | "embedding" => drift::compute(tables, case),
        "performance" => performance::compute(tables, case),
        "fairness" => performance::fairness_of(tables, case),
        "online" => online::compute(tables, case),
        "text" => text::compute(tables, case),
        _ => None,
    }
}

#[test]
fn statistics_equal_those_of_the_reference_libraries() {
    let text = std::fs::read_to_string(folder().join("expected.json"))
        .expect("the vectors are in the repository");
    let expected: Value = serde_json::from_str(&text).expect("expected.json is JSON");
    let mut tables = table::Tables::new(folder());
    let (mut checked, mut missing) = (0, BTreeMap::<String, usize>::new());
    let mut mismatches = Vec::new();
    for case in expected["cases"].as_array().expect("cases") {
        let name = |key: &str| case[key].as_str().unwrap_or_default();
        let declared = NOT_COVERED
            .iter()
            .any(|(f, metrics)| *f == name("family") && metrics.contains(&name("metric")));
        match compute(&mut tables, case) {
            None if declared => {
                *missing
                    .entry(format!("{}/{}", name("family"), name("metric")))
                    .or_default() += 1
            }
            None => mismatches.push(format!(
                "{}: nothing computes {}/{}",
                name("id"),
                name("family"),
                name("metric")
            )),
            Some(_) if declared => mismatches.push(format!(
                "{} is covered: take it off the list",
                name("metric")
            )),
            Some(got) => {
                checked += 1;
                mismatches.extend(compare::differences(
                    &case["expect"],
                    &got,
                    &case["tol"],
                    name("id"),
                ));
            }
        }
    }
    let families: Vec<String> = missing
        .iter()
        .map(|(family, count)| format!("{family} ({count})"))
        .collect();
    let left: usize = missing.values().sum();
    println!(
        "{checked} cases checked, {left} not yet covered: {}",
        families.join(", ")
    );
    assert!(checked > 1_000, "only {checked} cases were checked");
    assert!(
        mismatches.is_empty(),
        "{} mismatches:\n{}",
        mismatches.len(),
        mismatches.join("\n")
    );
}
