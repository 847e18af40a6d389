//! Histograms with the edges that numpy, Evidently and NannyML choose.

use super::Pair;
use super::pair::Storage;
use super::sample::quantile;

/// Numeric columns with more distinct values in the reference than this are binned; others have one bucket for each.
pub const MOST_BUCKETS: usize = 20;

/// A histogram of both samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Binned {
    /// One more than there are bins; bins include their lower end, the last one both.
    pub edges: Vec<f64>,
    /// The reference's counts.
    pub reference: Vec<f64>,
    /// The current sample's counts.
    pub current: Vec<f64>,
}

/// Bins by Sturges' rule over both samples: width (max − min) / (log₂(n + m) + 1), at least 1 for integers.
#[must_use]
pub fn sturges(pair: &Pair) -> Binned {
    fill(
        pair,
        edges(pair, pair.range, width(pair.range, pair.n + pair.m)),
    )
}

/// The same, with the number of *distinct* values in place of n + m.
#[must_use]
pub fn sturges_distinct(pair: &Pair) -> Binned {
    fill(
        pair,
        edges(pair, pair.range, width(pair.range, pair.distinct() as f64)),
    )
}

/// Bins of the reference by Doane's rule, for the reference as float64; `None` for fewer than three values or a constant.
#[must_use]
pub fn doane(pair: &Pair) -> Option<Binned> {
    let n = pair.n;
    let (mean, variance) = pair.moments_reference();
    let sigma = variance.sqrt();
    if n < 3.0 || sigma.is_nan() || sigma <= 0.0 {
        return None;
    }
    let skewness: f64 = pair
        .values
        .iter()
        .zip(&pair.reference)
        .map(|(v, c)| ((v - mean) / sigma).powi(3) * (c / n))
        .sum();
    let spread = (6.0 * (n - 2.0) / ((n + 1.0) * (n + 3.0))).sqrt();
    let present: Vec<f64> = pair
        .values
        .iter()
        .zip(&pair.reference)
        .filter(|p| *p.1 > 0.0)
        .map(|p| *p.0)
        .collect();
    let (first, last) = (*present.first()?, *present.last()?);
    let width = (last - first) / (1.0 + n.log2() + (1.0 + skewness.abs() / spread).log2());
    Some(fill(
        pair,
        spaced(first, last, count(last - first, width), false),
    ))
}

/// The reference's deciles (or other equal shares), and how many of each sample lie between them; outer buckets are open.
#[must_use]
pub fn quantiles(pair: &Pair, buckets: usize) -> (Vec<f64>, Vec<f64>) {
    let sorted = pair.expand_reference();
    let mut edges: Vec<f64> = (0..=buckets)
        .map(|i| quantile(&sorted, i as f64 * (1.0 / buckets as f64)))
        .collect();
    edges.dedup();
    let inner = if edges.len() > 2 {
        &edges[1..edges.len() - 1]
    } else {
        &[]
    };
    let (mut r, mut c) = (vec![0.0; inner.len() + 1], vec![0.0; inner.len() + 1]);
    for (i, &value) in pair.values.iter().enumerate() {
        let bucket = inner.partition_point(|&e| e <= value);
        r[bucket] += pair.reference[i];
        c[bucket] += pair.current[i];
    }
    (r, c)
}

/// Counts by bucket for the distances that need buckets: Sturges' bins, or one for each value.
#[must_use]
pub fn buckets(pair: &Pair) -> (Vec<f64>, Vec<f64>) {
    if pair.is_numeric() && pair.distinct_reference() > MOST_BUCKETS {
        let binned = sturges(pair);
        (binned.reference, binned.current)
    } else {
        (pair.reference.clone(), pair.current.clone())
    }
}

fn width(range: f64, size: f64) -> f64 {
    range / (size.log2() + 1.0)
}

fn count(range: f64, width: f64) -> usize {
    if width > 0.0 {
        ((range / width).ceil() as usize).max(1)
    } else {
        1
    }
}

fn edges(pair: &Pair, range: f64, width: f64) -> Vec<f64> {
    let (first, last) = (pair.values[0], pair.values[pair.values.len() - 1]);
    if range == 0.0 {
        return vec![first - 0.5, last + 0.5];
    }
    let width = if pair.storage == Storage::Integer {
        width.max(1.0)
    } else {
        width
    };
    spaced(
        first,
        last,
        count(range, width),
        pair.storage == Storage::Single,
    )
}

/// `first + i · ((last − first) / bins)`: a product and a sum, in single precision if the column is.
fn spaced(first: f64, last: f64, bins: usize, single: bool) -> Vec<f64> {
    let mut edges: Vec<f64> = if single {
        let (low, high) = (first as f32, last as f32);
        let step = (high - low) / bins as f32;
        (0..=bins)
            .map(|i| f64::from(i as f32 * step + low))
            .collect()
    } else {
        let step = (last - first) / bins as f64;
        (0..=bins).map(|i| i as f64 * step + first).collect()
    };
    edges[bins] = last;
    edges
}

fn fill(pair: &Pair, edges: Vec<f64>) -> Binned {
    let bins = edges.len() - 1;
    let (mut reference, mut current) = (vec![0.0; bins], vec![0.0; bins]);
    // Both are in ascending order. Edges of single precision needn't be strictly so: the last bin whose lower end isn't above the value.
    let mut bin = 0;
    for (i, &value) in pair.values.iter().enumerate() {
        if value < edges[0] || value > edges[bins] {
            continue;
        }
        while bin + 1 < bins && edges[bin + 1] <= value {
            bin += 1;
        }
        reference[bin] += pair.reference[i];
        current[bin] += pair.current[i];
    }
    Binned {
        edges,
        reference,
        current,
    }
}
