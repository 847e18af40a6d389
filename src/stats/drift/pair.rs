//! Whole columns, cleaned, and two of them side by side.

use std::collections::BTreeMap;

use crate::stats::sketch::ColumnKind;

/// One column of one data set. Missing and infinite values are counted and left out.
#[derive(Clone, Debug)]
pub struct Sample {
    rows: usize,
    missing: usize,
    infinite: usize,
    /// Of the values in their order; 0 for categories.
    mean: f64,
    values: Values,
}

/// The values that count, sorted.
#[derive(Clone, Debug)]
enum Values {
    Float { values: Vec<f64>, single: bool },
    Integer(Vec<i64>),
    Category(BTreeMap<String, u64>),
}

impl Sample {
    /// A column of floats: `None` and NaN are missing.
    pub fn numbers(values: impl IntoIterator<Item = Option<f64>>) -> Self {
        Self::floats(values, false)
    }

    /// A column of single-precision floats: bins have their edges in that precision.
    pub fn single_precision(values: impl IntoIterator<Item = Option<f32>>) -> Self {
        Self::floats(values.into_iter().map(|v| v.map(f64::from)), true)
    }

    /// A column of integers, compared exactly; with missing values it is one of floats, as in pandas.
    pub fn integers(values: impl IntoIterator<Item = Option<i64>>) -> Self {
        let all: Vec<Option<i64>> = values.into_iter().collect();
        if all.iter().any(Option::is_none) {
            return Self::numbers(all.into_iter().map(|v| v.map(|v| v as f64)));
        }
        let mut values: Vec<i64> = all.into_iter().flatten().collect();
        let floats: Vec<f64> = values.iter().map(|&v| v as f64).collect();
        let mean = pairwise_sum(&floats) / floats.len() as f64;
        values.sort_unstable();
        Self {
            rows: values.len(),
            missing: 0,
            infinite: 0,
            mean,
            values: Values::Integer(values),
        }
    }

    /// A column of categories: `None` is missing; two are the same if their code points are.
    pub fn categories<S: AsRef<str>>(values: impl IntoIterator<Item = Option<S>>) -> Self {
        let (mut rows, mut missing) = (0, 0);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for value in values {
            rows += 1;
            match value {
                None => missing += 1,
                Some(name) => match counts.get_mut(name.as_ref()) {
                    Some(count) => *count += 1,
                    None => {
                        counts.insert(name.as_ref().to_string(), 1);
                    }
                },
            }
        }
        Self {
            rows,
            missing,
            infinite: 0,
            mean: 0.0,
            values: Values::Category(counts),
        }
    }

    fn floats(values: impl IntoIterator<Item = Option<f64>>, single: bool) -> Self {
        let (mut rows, mut missing, mut infinite) = (0, 0, 0);
        let mut kept = Vec::new();
        for value in values {
            rows += 1;
            match value {
                None => missing += 1,
                Some(x) if x.is_nan() => missing += 1,
                Some(x) if x.is_infinite() => infinite += 1,
                Some(x) => kept.push(x + 0.0), // -0.0 is 0.0
            }
        }
        let mean = pairwise_sum(&kept) / kept.len() as f64;
        kept.sort_unstable_by(f64::total_cmp);
        Self {
            rows,
            missing,
            infinite,
            mean,
            values: Values::Float {
                values: kept,
                single,
            },
        }
    }

    /// Rows, with missing and infinite ones.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Missing values.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Infinite values.
    #[must_use]
    pub fn infinite(&self) -> usize {
        self.infinite
    }

    /// Values that count.
    #[must_use]
    pub fn used(&self) -> usize {
        self.rows - self.missing - self.infinite
    }

    /// Numeric or categorical.
    #[must_use]
    pub fn kind(&self) -> ColumnKind {
        match self.values {
            Values::Category(_) => ColumnKind::Categorical,
            _ => ColumnKind::Numeric,
        }
    }

    /// Mean, standard deviation, range and quantiles; `None` for categories and without values.
    #[must_use]
    pub fn describe(&self) -> Option<Description> {
        let values: Vec<f64> = match &self.values {
            Values::Float { values, .. } => values.clone(),
            Values::Integer(values) => values.iter().map(|&v| v as f64).collect(),
            Values::Category(_) => return None,
        };
        let (min, max) = (*values.first()?, *values.last()?);
        let n = values.len() as f64;
        let mean = self.mean;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let quantiles = crate::stats::profile::QUANTILES.map(|q| quantile(&values, q));
        Some(Description {
            mean,
            std: variance.sqrt(),
            min,
            max,
            quantiles,
        })
    }

    /// Rows by category; none for numbers.
    #[must_use]
    pub fn categories_counted(&self) -> Option<&BTreeMap<String, u64>> {
        match &self.values {
            Values::Category(counts) => Some(counts),
            _ => None,
        }
    }

    /// The numbers in ascending order; empty for categories.
    #[must_use]
    pub fn sorted(&self) -> Vec<f64> {
        match &self.values {
            Values::Float { values, .. } => values.clone(),
            Values::Integer(values) => values.iter().map(|&v| v as f64).collect(),
            Values::Category(_) => Vec::new(),
        }
    }
}

/// A numeric column in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Description {
    /// The mean.
    pub mean: f64,
    /// The population standard deviation.
    pub std: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The quantiles 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, by linear interpolation.
    pub quantiles: [f64; 7],
}

/// The `q` quantile of sorted values by linear interpolation; NaN without values.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let at = q * (sorted.len() - 1) as f64;
    let low = (at.floor() as usize).min(sorted.len() - 1);
    let high = (low + 1).min(sorted.len() - 1);
    let (a, b, t) = (sorted[low], sorted[high], at - low as f64);
    // From the nearer end, as numpy does.
    if t < 0.5 {
        a + (b - a) * t
    } else {
        b - (b - a) * (1.0 - t)
    }
}

/// How numbers were stored, which decides how they are binned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    Double,
    Single,
    Integer,
    Category,
}

/// Two samples as one table: each distinct value or category of either, in order, with its count in both.
#[derive(Clone, Debug)]
pub struct Pair {
    pub(super) storage: Storage,
    /// The values as floats (neighbouring integers beyond 2^53 may be equal); for categories their ranks.
    pub(super) values: Vec<f64>,
    pub(super) reference: Vec<f64>,
    pub(super) current: Vec<f64>,
    /// Values of the reference.
    pub(super) n: f64,
    /// Values of the current sample.
    pub(super) m: f64,
    /// Means of the reference and the current sample.
    pub(super) means: (f64, f64),
    /// Largest − smallest, exactly rounded.
    pub(super) range: f64,
}

impl Pair {
    /// `None` if either side has no values, or one is numeric and the other not.
    #[must_use]
    pub fn new(reference: &Sample, current: &Sample) -> Option<Self> {
        if reference.used() == 0 || current.used() == 0 || reference.kind() != current.kind() {
            return None;
        }
        let (storage, table, range) = match (&reference.values, &current.values) {
            (Values::Category(r), Values::Category(c)) => {
                let mut table: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
                r.iter()
                    .for_each(|(k, &count)| table.entry(k).or_default().0 += count as f64);
                c.iter()
                    .for_each(|(k, &count)| table.entry(k).or_default().1 += count as f64);
                let rows = table
                    .into_values()
                    .enumerate()
                    .map(|(i, (a, b))| (i as f64, a, b))
                    .collect();
                (Storage::Category, rows, 0.0)
            }
            (Values::Integer(r), Values::Integer(c)) => {
                let low = r[0].min(c[0]);
                let high = r[r.len() - 1].max(c[c.len() - 1]);
                let table = merge(r, c, |a, b| a.cmp(&b), |v| v as f64);
                (
                    Storage::Integer,
                    table,
                    (i128::from(high) - i128::from(low)) as f64,
                )
            }
            (r, c) => {
                let single = |v: &Values| matches!(v, Values::Float { single: true, .. });
                let storage = if single(r) && single(c) {
                    Storage::Single
                } else {
                    Storage::Double
                };
                let table = merge(
                    &reference.sorted(),
                    &current.sorted(),
                    |a, b| a.total_cmp(&b),
                    |v| v,
                );
                let ends = table
                    .first()
                    .zip(table.last())
                    .map_or(0.0, |(a, b)| b.0 - a.0);
                (storage, table, ends)
            }
        };
        Some(Self {
            storage,
            values: table.iter().map(|t| t.0).collect(),
            reference: table.iter().map(|t| t.1).collect(),
            current: table.iter().map(|t| t.2).collect(),
            n: reference.used() as f64,
            m: current.used() as f64,
            means: (reference.mean, current.mean),
            range,
        })
    }

    /// Whether it is of numbers.
    #[must_use]
    pub fn is_numeric(&self) -> bool {
        self.storage != Storage::Category
    }

    /// Distinct values of the reference.
    #[must_use]
    pub fn distinct_reference(&self) -> usize {
        self.reference.iter().filter(|&&c| c > 0.0).count()
    }

    /// Distinct values of both.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.values.len()
    }

    /// Counts by distinct value, reference and current.
    #[must_use]
    pub fn counts(&self) -> (&[f64], &[f64]) {
        (&self.reference, &self.current)
    }

    /// The reference's numbers again, sorted.
    pub(super) fn expand_reference(&self) -> Vec<f64> {
        let each = self.values.iter().zip(&self.reference);
        each.flat_map(|(&v, &count)| std::iter::repeat_n(v, count as usize))
            .collect()
    }

    /// Mean and population variance of the reference.
    pub(super) fn moments_reference(&self) -> (f64, f64) {
        self.moments(self.means.0, &self.reference, self.n)
    }

    /// Mean and population variance of the current sample.
    pub(super) fn moments_current(&self) -> (f64, f64) {
        self.moments(self.means.1, &self.current, self.m)
    }

    fn moments(&self, mean: f64, counts: &[f64], total: f64) -> (f64, f64) {
        let squares = self
            .values
            .iter()
            .zip(counts)
            .map(|(v, c)| (v - mean).powi(2) * (c / total));
        (mean, squares.sum())
    }
}

/// Sum in the order and with the rounding of numpy: eight accumulators in blocks of 128, blocks in pairs.
fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() > 128 {
        let half = values.len() / 2;
        let (a, b) = values.split_at(half - half % 8);
        return pairwise_sum(a) + pairwise_sum(b);
    }
    let eights = values.chunks_exact(8);
    let rest = eights.remainder();
    let mut sums = [0.0; 8];
    for (i, chunk) in eights.enumerate() {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = if i == 0 { *value } else { *sum + value };
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    rest.iter()
        .fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| {
            sum + value
        })
}

/// Two sorted lists as distinct values with counts.
fn merge<T: Copy>(
    a: &[T],
    b: &[T],
    order: impl Fn(T, T) -> std::cmp::Ordering,
    number: impl Fn(T) -> f64,
) -> Vec<(f64, f64, f64)> {
    let mut table = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let value = match (a.get(i), b.get(j)) {
            (Some(&x), Some(&y)) => {
                if order(x, y).is_le() {
                    x
                } else {
                    y
                }
            }
            (Some(&x), None) => x,
            (None, Some(&y)) => y,
            (None, None) => break,
        };
        let (from_i, from_j) = (i, j);
        while i < a.len() && order(a[i], value).is_eq() {
            i += 1;
        }
        while j < b.len() && order(b[j], value).is_eq() {
            j += 1;
        }
        table.push((number(value), (i - from_i) as f64, (j - from_j) as f64));
    }
    table
}
