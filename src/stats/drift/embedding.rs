//! Drift of embeddings: rows of equally many numbers; equal to Evidently.

use super::{Pair, Sample, distance};

/// How two mean vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// √Σ (a − b)².
    Euclidean,
    /// 1 − a·b / (|a| |b|).
    Cosine,
    /// Σ |a − b|.
    Cityblock,
    /// Largest |a − b|.
    Chebyshev,
}

/// Distance of the mean vectors (Evidently: drift above 0.2). NaN without rows.
#[must_use]
pub fn mean_distance(reference: &[Vec<f64>], current: &[Vec<f64>], metric: Metric) -> f64 {
    let (a, b) = (mean(reference), mean(current));
    let differences = || a.iter().zip(&b).map(|(a, b)| a - b);
    match metric {
        Metric::Euclidean => differences().map(|d| d * d).sum::<f64>().sqrt(),
        Metric::Cityblock => differences().map(f64::abs).sum(),
        Metric::Chebyshev => differences().map(f64::abs).fold(0.0, f64::max),
        Metric::Cosine => {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            1.0 - dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
        }
    }
}

/// Unbiased squared maximum mean discrepancy (Gretton et al. 2012), kernel exp(−γ d²), γ = 1 / median²(distances between the
/// samples). Quadratic in the rows: give it at most a thousand of each. May be below 0 (Evidently floors what it shows; drift above 0.015).
#[must_use]
pub fn mmd(reference: &[Vec<f64>], current: &[Vec<f64>]) -> f64 {
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let mut between: Vec<f64> = reference
        .iter()
        .flat_map(|r| current.iter().map(move |c| square(r, c).sqrt()))
        .collect();
    between.sort_unstable_by(f64::total_cmp);
    let gamma = super::sample::quantile(&between, 0.5).powi(2).recip();
    let kernel = |distance: f64| (-gamma * distance).exp();
    let within = |rows: &[Vec<f64>]| {
        let n = rows.len() as f64;
        let pairs = (0..rows.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        2.0 * pairs
            .map(|(i, j)| kernel(square(&rows[i], &rows[j])))
            .sum::<f64>()
            / (n * (n - 1.0))
    };
    let across = between.iter().map(|d| kernel(d * d)).sum::<f64>() / between.len() as f64;
    within(reference) + within(current) - 2.0 * across
}

/// The share of components whose normed Wasserstein distance reaches `threshold` (Evidently: 0.1; drift above a share of 0.2).
#[must_use]
pub fn drifted_components(reference: &[Vec<f64>], current: &[Vec<f64>], threshold: f64) -> f64 {
    let size = reference.first().map_or(0, Vec::len);
    let component =
        |rows: &[Vec<f64>], i: usize| Sample::numbers(rows.iter().map(|row| row.get(i).copied()));
    let drifted = (0..size)
        .filter(|&i| {
            let pair = Pair::new(&component(reference, i), &component(current, i));
            pair.is_some_and(|pair| distance::wasserstein(&pair) >= threshold)
        })
        .count();
    drifted as f64 / size as f64
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let size = rows.first().map_or(0, Vec::len);
    (0..size)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).sum::<f64>() / rows.len() as f64)
        .collect()
}
