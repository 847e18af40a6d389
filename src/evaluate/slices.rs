//! Where the model does worst: rows that share a value of a column, or a quarter of its numbers.

use std::collections::BTreeMap;

use super::{details::Slice, measure::Compared, rows::Rows, truth::Truth};
use crate::data::table::{Cell, Values};

/// Rows below which a slice says too little.
const LEAST: usize = 30;
/// Different values that are slices; a column with more is none (an identifier), or is cut into quarters.
const MAX_VALUES: usize = 50;
/// Slices kept.
const KEPT: usize = 20;

/// The worst slices, of single columns, worst first: those whose error is beyond that of all rows by most standard errors. The columns `not` make none.
#[must_use]
pub fn worst(rows: &Rows, truth: &Truth, compared: &Compared, not: &[&str]) -> Vec<Slice> {
    let errors: Vec<f64> = match truth {
        Truth::Binary { .. } => compared
            .classes
            .iter()
            .zip(&compared.own.predicted)
            .map(|(truth, predicted)| f64::from(u8::from(truth != predicted)))
            .collect(),
        Truth::Multi { .. } => compared
            .kinds
            .iter()
            .zip(&compared.own.kinds)
            .map(|(truth, predicted)| f64::from(u8::from(truth != predicted)))
            .collect(),
        Truth::Number(_) => compared
            .numbers
            .iter()
            .zip(&compared.own.numbers)
            .map(|(truth, predicted)| (truth - predicted).abs())
            .collect(),
    };
    let n = errors.len() as f64;
    let overall = errors.iter().sum::<f64>() / n;
    let spread = (errors.iter().map(|e| (e - overall).powi(2)).sum::<f64>() / n).sqrt();
    let mut slices: Vec<(f64, Slice)> = Vec::new();
    for column in &rows.table.columns {
        let name = column.name.as_str();
        let excluded = not.contains(&name) || rows.label.as_deref() == Some(name);
        if excluded || matches!(column.values, Values::Time(_)) {
            continue;
        }
        let mut sums: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        for (value, error) in values(&column.values, &compared.kept).iter().zip(&errors) {
            let sum = sums.entry(value.clone()).or_default();
            *sum = (sum.0 + 1, sum.1 + error);
        }
        if sums.len() < 2 || sums.len() > MAX_VALUES {
            continue;
        }
        for (value, (count, sum)) in sums {
            let error = sum / count as f64;
            if count < LEAST || error <= overall {
                continue;
            }
            let beyond = (error - overall) * (count as f64).sqrt() / spread.max(f64::MIN_POSITIVE);
            let slice = Slice {
                column: name.to_owned(),
                value,
                count,
                error,
                overall,
            };
            slices.push((beyond, slice));
        }
    }
    slices.sort_by(|a, b| b.0.total_cmp(&a.0));
    slices.truncate(KEPT);
    slices.into_iter().map(|(_, slice)| slice).collect()
}

/// What each row's slice is called.
fn values(values: &Values, kept: &[usize]) -> Vec<String> {
    let cell = |row: &usize| values.cell(*row);
    if matches!(values, Values::Integer(_) | Values::Number(_)) {
        let mut numbers: Vec<f64> = kept.iter().filter_map(|row| cell(row).number()).collect();
        numbers.sort_by(f64::total_cmp);
        let mut distinct = numbers.clone();
        distinct.dedup();
        if distinct.len() > 10 {
            let at = |q: usize| numbers[q * (numbers.len() - 1) / 4];
            let edges: [f64; 5] = std::array::from_fn(at);
            return kept
                .iter()
                .map(|row| match cell(row).number() {
                    None => "(missing)".to_owned(),
                    Some(x) => {
                        let quarter = edges[1..4].partition_point(|edge| *edge < x);
                        format!("{} to {}", edges[quarter], edges[quarter + 1])
                    }
                })
                .collect();
        }
    }
    kept.iter()
        .map(|row| match cell(row) {
            Cell::Null => "(missing)".to_owned(),
            cell => cell.to_string(),
        })
        .collect()
}
