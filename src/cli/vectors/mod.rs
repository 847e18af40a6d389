//! `perennial stats vectors FILE`: our statistics against values that reference libraries gave. The format of FILE is described in
//! `tests/vectors/README.md`; what its cases read lies beside it.

mod compare;
mod drift;
mod online;
mod performance;
mod table;
mod text;

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use serde_json::Value;

/// What came of a file.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Cases that were computed.
    pub checked: usize,
    /// Cases that nothing here computes, by family and metric.
    pub left: BTreeMap<String, usize>,
    /// A line for each value that differs, and each case that can't be read.
    pub mismatches: Vec<String>,
}

/// The values of a case, in the shape of its `expect`; `None` if nothing computes it.
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

/// Computes every case of a file and compares.
///
/// # Errors
/// If the file can't be read or isn't of this format.
pub fn check(file: &Path) -> Result<Outcome, String> {
    let said = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| said(&e))?;
    let expected: Value = serde_json::from_str(&text).map_err(|e| said(&e))?;
    let cases = expected["cases"]
        .as_array()
        .ok_or_else(|| said(&"it has no list `cases`"))?;
    let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
    let mut tables = table::Tables::new(folder);
    let mut outcome = Outcome::default();
    for case in cases {
        let name = |key: &str| case[key].as_str().unwrap_or_default();
        let got = compute(&mut tables, case);
        if let Some(problem) = tables.problem() {
            outcome
                .mismatches
                .push(format!("{}: {problem}", name("id")));
            continue;
        }
        match got {
            None => {
                let what = format!("{}/{}", name("family"), name("metric"));
                *outcome.left.entry(what).or_default() += 1;
            }
            Some(got) => {
                outcome.checked += 1;
                let differences =
                    compare::differences(&case["expect"], &got, &case["tol"], name("id"));
                outcome.mismatches.extend(differences);
            }
        }
    }
    Ok(outcome)
}

/// Prints each mismatch, and the sum; fails if there are any.
pub(super) fn run(file: &Path) -> Result<ExitCode, String> {
    let outcome = check(file)?;
    for line in &outcome.mismatches {
        println!("{line}");
    }
    let left: usize = outcome.left.values().sum();
    let names: Vec<String> = outcome
        .left
        .iter()
        .map(|(what, count)| format!("{what} ({count})"))
        .collect();
    println!(
        "{} cases checked, {} mismatches, {left} not computed here{}{}",
        outcome.checked,
        outcome.mismatches.len(),
        if left > 0 { ": " } else { "" },
        names.join(", ")
    );
    Ok(if outcome.mismatches.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
