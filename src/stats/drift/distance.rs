//! Distances between distributions.
//!
//! P and Q are the shares of the reference and the current sample in common buckets ([`bins::buckets`]), F_r and F_c their distribution
//! functions.

use super::{Pair, bins};

/// A distance on counts by bucket.
type OnCounts = fn(&[f64], &[f64]) -> f64;

fn shares(counts: &[f64]) -> Vec<f64> {
    let total: f64 = counts.iter().sum();
    counts.iter().map(|c| c / total).collect()
}

/// Empty buckets get a share of 0.0001, or a millionth of the smallest share if that is below 0.0001 (as Evidently does).
fn filled(counts: &[f64]) -> Vec<f64> {
    let p = shares(counts);
    let least = p
        .iter()
        .copied()
        .filter(|&x| x > 0.0)
        .fold(f64::INFINITY, f64::min);
    let fill = if least <= 1e-4 { least / 1e6 } else { 1e-4 };
    p.into_iter()
        .map(|x| if x == 0.0 { fill } else { x })
        .collect()
}

fn sum_over(p: &[f64], q: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    p.iter().zip(q).map(|(&p, &q)| term(p, q)).sum()
}

/// Population stability index Σ (P − Q) ln(P / Q) of counts, empty buckets filled (Siddiqi 2006).
#[must_use]
pub fn psi_of(reference: &[f64], current: &[f64]) -> f64 {
    sum_over(&filled(reference), &filled(current), |p, q| {
        (p - q) * (p / q).ln()
    })
}

/// Kullback–Leibler divergence Σ P ln(P / Q) of counts, empty buckets filled, then normalised.
#[must_use]
pub fn kullback_leibler_of(reference: &[f64], current: &[f64]) -> f64 {
    let (p, q) = (shares(&filled(reference)), shares(&filled(current)));
    sum_over(&p, &q, |p, q| p * (p / q).ln())
}

/// Jensen–Shannon distance √((KL(P‖M) + KL(Q‖M)) / 2), M = (P + Q) / 2, natural logarithm, of counts (Lin 1991).
#[must_use]
pub fn jensen_shannon_of(reference: &[f64], current: &[f64]) -> f64 {
    let part = |x: f64, m: f64| if x > 0.0 { x * (x / m).ln() } else { 0.0 };
    let divergence = sum_over(&shares(reference), &shares(current), |p, q| {
        let m = f64::midpoint(p, q);
        part(p, m) + part(q, m)
    });
    (divergence / 2.0).max(0.0).sqrt()
}

/// Hellinger distance √(1 − Σ √(P Q)) of counts.
#[must_use]
pub fn hellinger_of(reference: &[f64], current: &[f64]) -> f64 {
    let overlap = sum_over(&shares(reference), &shares(current), |p, q| (p * q).sqrt());
    (1.0 - overlap.min(1.0)).sqrt()
}

/// Total variation distance Σ |P − Q| / 2 of counts.
#[must_use]
pub fn total_variation_of(reference: &[f64], current: &[f64]) -> f64 {
    sum_over(&shares(reference), &shares(current), |p, q| (p - q).abs()) / 2.0
}

/// Largest |P − Q| of counts (NannyML's L-infinity).
#[must_use]
pub fn l_infinity_of(reference: &[f64], current: &[f64]) -> f64 {
    shares(reference)
        .iter()
        .zip(shares(current))
        .map(|(p, q)| (p - q).abs())
        .fold(0.0, f64::max)
}

fn bucketed(pair: &Pair, distance: OnCounts) -> f64 {
    let (reference, current) = bins::buckets(pair);
    distance(&reference, &current)
}

/// [`psi_of`] the buckets.
#[must_use]
pub fn psi(pair: &Pair) -> f64 {
    bucketed(pair, psi_of)
}

/// [`kullback_leibler_of`] the buckets.
#[must_use]
pub fn kullback_leibler(pair: &Pair) -> f64 {
    bucketed(pair, kullback_leibler_of)
}

/// [`jensen_shannon_of`] the buckets.
#[must_use]
pub fn jensen_shannon(pair: &Pair) -> f64 {
    bucketed(pair, jensen_shannon_of)
}

/// [`hellinger_of`] the categories, or bins by Sturges' rule over the distinct values.
#[must_use]
pub fn hellinger(pair: &Pair) -> f64 {
    if pair.is_numeric() {
        let binned = bins::sturges_distinct(pair);
        hellinger_of(&binned.reference, &binned.current)
    } else {
        hellinger_of(&pair.reference, &pair.current)
    }
}

/// [`total_variation_of`] the distinct values.
#[must_use]
pub fn total_variation(pair: &Pair) -> f64 {
    total_variation_of(&pair.reference, &pair.current)
}

/// PSI over ten buckets between the reference's deciles, shares floored at 0.0001.
#[must_use]
pub fn psi_quantile(pair: &Pair, buckets: usize, floor: f64) -> f64 {
    let (r, c) = bins::quantiles(pair, buckets);
    let floored = |counts: &[f64], total: f64| {
        counts
            .iter()
            .map(|x| (x / total).max(floor))
            .collect::<Vec<_>>()
    };
    sum_over(&floored(&r, pair.n), &floored(&c, pair.m), |p, q| {
        (p - q) * (p / q).ln()
    })
}

/// NannyML's Jensen–Shannon (base 2) and Hellinger distances over Doane's bins of the reference; what lies outside goes to one bucket
/// more. `None` if Doane's rule gives no bins.
#[must_use]
pub fn over_doane(pair: &Pair) -> Option<(f64, f64)> {
    let mut binned = bins::doane(pair)?;
    let outside = pair.m - binned.current.iter().sum::<f64>();
    if outside > 0.0 {
        binned.reference.push(0.0);
        binned.current.push(outside);
    }
    let js = jensen_shannon_of(&binned.reference, &binned.current) / std::f64::consts::LN_2.sqrt();
    let (p, q) = (shares(&binned.reference), shares(&binned.current));
    let squares = sum_over(&p, &q, |p, q| (p.sqrt() - q.sqrt()).powi(2));
    Some((js, (squares / 2.0).sqrt()))
}

/// ∫ of a function of F_r − F_c.
fn integral(pair: &Pair, of: impl Fn(f64) -> f64) -> f64 {
    let (mut r, mut c, mut sum) = (0.0, 0.0, 0.0);
    for i in 0..pair.values.len().saturating_sub(1) {
        r += pair.reference[i];
        c += pair.current[i];
        sum += of(r / pair.n - c / pair.m) * (pair.values[i + 1] - pair.values[i]);
    }
    sum
}

/// Wasserstein (earth mover's) distance ∫ |F_r − F_c| (Vallender 1974).
#[must_use]
pub fn wasserstein_raw(pair: &Pair) -> f64 {
    integral(pair, f64::abs)
}

/// The same in standard deviations of the reference (at least 0.001), as in Evidently.
#[must_use]
pub fn wasserstein(pair: &Pair) -> f64 {
    let (_, variance) = pair.moments_reference();
    wasserstein_raw(pair) / variance.sqrt().max(0.001)
}

/// Energy distance √(2 ∫ (F_r − F_c)²) (Székely, Rizzo 2013).
#[must_use]
pub fn energy(pair: &Pair) -> f64 {
    (2.0 * integral(pair, |d| d * d)).sqrt()
}
