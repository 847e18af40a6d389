//! Whole columns, cleaned: exactly, or as sketches of a bounded size.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use super::sort;
use crate::stats::sketch::{CategorySketch, ColumnKind, MAX_CATEGORIES, NumericSketch};

/// One column of one data set. Missing and infinite values are counted and left out.
#[derive(Clone, Debug)]
pub struct Sample {
    rows: usize,
    missing: usize,
    infinite: usize,
    /// Of the values in their order; 0 for categories.
    pub(super) mean: f64,
    pub(super) values: Values,
}

/// The values that count; numbers are sorted.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Float { values: Vec<f64>, single: bool },
    Integer(Vec<i64>),
    Category(BTreeMap<Box<str>, u64>),
    Sketch(NumericSketch),
    Pooled(CategorySketch),
}

/// What the values of a column are, which decides how they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whole numbers, compared exactly; with missing values they are floats, as in pandas.
    Integer,
    /// Floats.
    Double,
    /// Single-precision floats: bins have their edges in that precision.
    Single,
    /// Categories: two are the same if their code points are.
    Category,
}

/// Numbers that wait to be put into a sketch together.
const WAITING: usize = 8192;

/// A [`Sample`] that is being filled: a plain list of the values that count, and counts of the others.
#[derive(Debug)]
pub struct SampleBuilder {
    rows: usize,
    missing: usize,
    infinite: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Float(Vec<f64>, bool),
    Integer(Vec<i64>),
    Category(HashMap<Box<str>, u64>),
    Sketch(NumericSketch, Vec<f64>),
    Pooled(CategorySketch, HashMap<Box<str>, u64>),
}

impl SampleBuilder {
    /// A column that keeps all of its values; `rows` is how many are expected.
    #[must_use]
    pub fn exact(form: Form, rows: usize) -> Self {
        Self::of(match form {
            Form::Integer => Store::Integer(Vec::with_capacity(rows)),
            Form::Double => Store::Float(Vec::with_capacity(rows), false),
            Form::Single => Store::Float(Vec::with_capacity(rows), true),
            Form::Category => Store::Category(HashMap::new()),
        })
    }

    /// A column of whatever length in bounded memory: [`NumericSketch`] for numbers, [`CategorySketch`] for categories.
    #[must_use]
    pub fn bounded(form: Form) -> Self {
        Self::of(match form {
            Form::Category => Store::Pooled(CategorySketch::default(), HashMap::new()),
            _ => Store::Sketch(NumericSketch::default(), Vec::with_capacity(WAITING)),
        })
    }

    fn of(store: Store) -> Self {
        Self {
            rows: 0,
            missing: 0,
            infinite: 0,
            store,
        }
    }

    /// Adds a number; `None` and NaN are missing, and so is any number in a column of categories.
    pub fn number(&mut self, value: Option<f64>) {
        self.rows += 1;
        let Some(x) = value.filter(|x| !x.is_nan()) else {
            self.missing += 1;
            return;
        };
        if x.is_infinite() {
            self.infinite += 1;
            return;
        }
        let x = x + 0.0; // -0.0 is 0.0
        match &mut self.store {
            Store::Float(values, _) => values.push(x),
            Store::Integer(values) => values.push(x as i64),
            Store::Sketch(sketch, waiting) => {
                waiting.push(x);
                if waiting.len() == WAITING {
                    pour(sketch, waiting);
                }
            }
            Store::Category(_) | Store::Pooled(..) => self.missing += 1,
        }
    }

    /// Adds a whole number; `None` is missing.
    pub fn integer(&mut self, value: Option<i64>) {
        match (&mut self.store, value) {
            (Store::Integer(values), Some(x)) => {
                self.rows += 1;
                values.push(x);
            }
            _ => self.number(value.map(|x| x as f64)),
        }
    }

    /// Adds a category; `None` is missing, and so is any category in a column of numbers.
    pub fn category(&mut self, value: Option<&str>) {
        self.rows += 1;
        let counts = match &mut self.store {
            Store::Category(counts) | Store::Pooled(_, counts) => counts,
            _ => {
                self.missing += 1;
                return;
            }
        };
        let Some(name) = value else {
            self.missing += 1;
            return;
        };
        match counts.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                counts.insert(name.into(), 1);
            }
        }
        if let Store::Pooled(sketch, waiting) = &mut self.store
            && waiting.len() > 4 * MAX_CATEGORIES
        {
            gather(sketch, waiting);
        }
    }

    /// The column.
    #[must_use]
    pub fn finish(self) -> Sample {
        let Self {
            rows,
            missing,
            infinite,
            store,
        } = self;
        let mut sample = Sample {
            rows,
            missing,
            infinite,
            mean: 0.0,
            values: Values::Integer(Vec::new()),
        };
        let floats = |mut values: Vec<f64>, single| {
            let mean = pairwise_sum(&values) / values.len() as f64;
            sort::floats(&mut values);
            (mean, Values::Float { values, single })
        };
        (sample.mean, sample.values) = match store {
            Store::Float(values, single) => floats(values, single),
            Store::Integer(values) if missing > 0 => {
                floats(values.into_iter().map(|v| v as f64).collect(), false)
            }
            Store::Integer(mut values) => {
                let exact: Vec<f64> = values.iter().map(|&v| v as f64).collect();
                let mean = pairwise_sum(&exact) / exact.len() as f64;
                values.sort_unstable();
                (mean, Values::Integer(values))
            }
            Store::Category(counts) => (0.0, Values::Category(counts.into_iter().collect())),
            Store::Sketch(mut sketch, mut waiting) => {
                pour(&mut sketch, &mut waiting);
                (sketch.mean().unwrap_or(f64::NAN), Values::Sketch(sketch))
            }
            Store::Pooled(mut sketch, mut waiting) => {
                gather(&mut sketch, &mut waiting);
                (0.0, Values::Pooled(sketch))
            }
        };
        sample
    }
}

fn pour(sketch: &mut NumericSketch, waiting: &mut Vec<f64>) {
    waiting.sort_unstable_by(f64::total_cmp);
    sketch.add_sorted(waiting);
    waiting.clear();
}

fn gather(sketch: &mut CategorySketch, waiting: &mut HashMap<Box<str>, u64>) {
    for (name, count) in waiting.drain() {
        sketch.add_many(&name, count);
    }
}

impl Sample {
    /// A column of floats: `None` and NaN are missing.
    pub fn numbers(values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let mut builder = SampleBuilder::exact(Form::Double, 0);
        values.into_iter().for_each(|v| builder.number(v));
        builder.finish()
    }

    /// A column of single-precision floats.
    pub fn single_precision(values: impl IntoIterator<Item = Option<f32>>) -> Self {
        let mut builder = SampleBuilder::exact(Form::Single, 0);
        values
            .into_iter()
            .for_each(|v| builder.number(v.map(f64::from)));
        builder.finish()
    }

    /// A column of integers.
    pub fn integers(values: impl IntoIterator<Item = Option<i64>>) -> Self {
        let mut builder = SampleBuilder::exact(Form::Integer, 0);
        values.into_iter().for_each(|v| builder.integer(v));
        builder.finish()
    }

    /// A column of categories: `None` is missing.
    pub fn categories<S: AsRef<str>>(values: impl IntoIterator<Item = Option<S>>) -> Self {
        let mut builder = SampleBuilder::exact(Form::Category, 0);
        values
            .into_iter()
            .for_each(|v| builder.category(v.as_ref().map(AsRef::as_ref)));
        builder.finish()
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
            Values::Category(_) | Values::Pooled(_) => ColumnKind::Categorical,
            _ => ColumnKind::Numeric,
        }
    }

    /// Whether values were merged with their neighbours, or categories pooled, to stay within bounds.
    #[must_use]
    pub fn is_rounded(&self) -> bool {
        match &self.values {
            Values::Sketch(sketch) => sketch.distinct().is_none(),
            Values::Pooled(sketch) => sketch.limit().is_some(),
            _ => false,
        }
    }

    /// Share of the values whose categories aren't told apart any more.
    #[must_use]
    pub fn pooled_share(&self) -> f64 {
        match &self.values {
            Values::Pooled(sketch) => sketch.pooled() as f64 / self.used().max(1) as f64,
            _ => 0.0,
        }
    }

    /// Mean, standard deviation, range and quantiles; `None` for categories and without values.
    #[must_use]
    pub fn describe(&self) -> Option<Description> {
        if let Values::Sketch(sketch) = &self.values {
            return Some(Description {
                mean: self.mean,
                std: sketch.std()?,
                min: sketch.min()?,
                max: sketch.max()?,
                quantiles: crate::stats::profile::QUANTILES
                    .map(|q| sketch.quantile(q).unwrap_or(f64::NAN)),
            });
        }
        let values = self.sorted();
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

    /// Rows by category; `None` for numbers. Of a column with bounded memory those that were kept.
    #[must_use]
    pub fn categories_counted(&self) -> Option<Cow<'_, BTreeMap<Box<str>, u64>>> {
        match &self.values {
            Values::Category(counts) => Some(Cow::Borrowed(counts)),
            Values::Pooled(sketch) => Some(Cow::Owned(
                sketch
                    .categories()
                    .map(|(name, count)| (name.into(), count))
                    .collect(),
            )),
            _ => None,
        }
    }

    /// The value at this share of the sorted numbers (nearest rank); `None` for categories and without values.
    #[must_use]
    pub fn at(&self, share: f64) -> Option<f64> {
        let place = |length: usize| (share * length.saturating_sub(1) as f64).round() as usize;
        match &self.values {
            Values::Float { values, .. } => values.get(place(values.len())).copied(),
            Values::Integer(values) => values.get(place(values.len())).map(|&v| v as f64),
            Values::Sketch(sketch) => sketch.quantile(share),
            Values::Category(_) | Values::Pooled(_) => None,
        }
    }

    /// How many numbers lie below each of the ascending `cuts`.
    #[must_use]
    pub fn below(&self, cuts: &[f64]) -> Vec<f64> {
        let count = |below: &dyn Fn(f64) -> usize| cuts.iter().map(|&c| below(c) as f64).collect();
        match &self.values {
            Values::Float { values, .. } => count(&|cut| values.partition_point(|&v| v < cut)),
            Values::Integer(values) => count(&|cut| values.partition_point(|&v| (v as f64) < cut)),
            Values::Sketch(sketch) => sketch.below(cuts),
            Values::Category(_) | Values::Pooled(_) => vec![0.0; cuts.len()],
        }
    }

    /// The numbers in ascending order; empty for categories and sketches.
    pub(super) fn sorted(&self) -> Cow<'_, [f64]> {
        match &self.values {
            Values::Float { values, .. } => Cow::Borrowed(values),
            Values::Integer(values) => Cow::Owned(values.iter().map(|&v| v as f64).collect()),
            _ => Cow::Borrowed(&[]),
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
