//! Two columns side by side.

use std::collections::BTreeMap;

use super::sample::{Sample, Values};
use crate::stats::sketch::{CategorySketch, NumericSketch};

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
    /// `None` if either side has no values, or one is numeric and the other not. Of an exact sample and a sketch, too: both sides are made in one
    /// way.
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
                (
                    Storage::Category,
                    Counts::of_categories(table.into_values()),
                    0.0,
                )
            }
            (Values::Pooled(r), Values::Pooled(c)) => {
                (Storage::Category, Counts::of_categories(pooled(r, c)), 0.0)
            }
            (Values::Sketch(r), Values::Sketch(c)) => {
                let table = sketched(r, c);
                let range = table.range();
                (Storage::Double, table, range)
            }
            (Values::Sketch(_) | Values::Pooled(_), _)
            | (_, Values::Sketch(_) | Values::Pooled(_)) => {
                return None;
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
                let range = table.range();
                (storage, table, range)
            }
        };
        Some(Self {
            storage,
            values: table.values,
            reference: table.reference,
            current: table.current,
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

/// Distinct values in order, with their counts on both sides.
#[derive(Default)]
struct Counts {
    values: Vec<f64>,
    reference: Vec<f64>,
    current: Vec<f64>,
}

impl Counts {
    fn with_capacity(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            reference: Vec::with_capacity(rows),
            current: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, value: f64, reference: f64, current: f64) {
        self.values.push(value);
        self.reference.push(reference);
        self.current.push(current);
    }

    /// Categories by their rank.
    fn of_categories(counts: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut table = Self::default();
        counts
            .enumerate()
            .for_each(|(i, (r, c))| table.push(i as f64, r, c));
        table
    }

    /// Largest value − smallest.
    fn range(&self) -> f64 {
        let ends = self.values.first().zip(self.values.last());
        ends.map_or(0.0, |(a, b)| b - a)
    }
}

/// The categories that both sides kept, and the others as one.
fn pooled(r: &CategorySketch, c: &CategorySketch) -> impl Iterator<Item = (f64, f64)> {
    let limit = [r.limit(), c.limit()].into_iter().flatten().min();
    let mut table: BTreeMap<Option<String>, (f64, f64)> = BTreeMap::new();
    let mut add = |sketch: &CategorySketch, count: fn(&mut (f64, f64)) -> &mut f64| {
        for (name, rows) in sketch.categories() {
            let kept = limit.is_none_or(|limit| CategorySketch::hash_of(name) < limit);
            let name = kept.then(|| name.to_owned());
            *count(table.entry(name).or_default()) += rows as f64;
        }
        if sketch.pooled() > 0 {
            *count(table.entry(None).or_default()) += sketch.pooled() as f64;
        }
    };
    add(r, |counts| &mut counts.0);
    add(c, |counts| &mut counts.1);
    table.into_values()
}

/// Both sketches at the width of the coarser one.
fn sketched(r: &NumericSketch, c: &NumericSketch) -> Counts {
    let mut table = Counts::default();
    r.beside(c)
        .for_each(|(value, r, c)| table.push(value, r as f64, c as f64));
    table
}

/// Two sorted lists as distinct values with counts.
fn merge<T: Copy>(
    a: &[T],
    b: &[T],
    order: impl Fn(T, T) -> std::cmp::Ordering,
    number: impl Fn(T) -> f64,
) -> Counts {
    let mut table = Counts::with_capacity(a.len() + b.len());
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
        table.push(number(value), (i - from_i) as f64, (j - from_j) as f64);
    }
    table
}
