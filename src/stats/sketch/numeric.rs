//! Numbers: log-linear buckets whose width follows the data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A sketch keeps at most this many buckets.
pub const MAX_BUCKETS: usize = 2048;

/// What is read may count so many values of a kind at most (2^53): so many more can be added that no sum overflows.
pub(super) const MOST: u64 = 1 << 53;
/// Mantissa bits of the finest bucket: integers below 2^33 have one each.
const FINEST_BITS: u32 = 32;
/// Low bits of an f64 that no bucket looks at.
const DROPPED_BITS: u32 = 52 - FINEST_BITS;
/// Levels above this would put everything into one bucket per sign.
const MAX_LEVEL: u8 = (11 + FINEST_BITS) as u8;

/// A mergeable summary of numbers: counts, exact minimum and maximum, and a histogram.
///
/// A value's bucket is the top bits of its f64: sign, exponent and `32 - level` bits of mantissa.
/// `level` starts at 0, where up to [`MAX_BUCKETS`] distinct values are kept apart exactly, and is the
/// smallest for which no more than [`MAX_BUCKETS`] buckets are occupied (each step merges neighbours in
/// pairs, as UDDSketch does: Epicoco et al., 2020). That makes it a function of the set of values alone.
/// Relative error of a quantile: at most `2^(level - 33)`: under 0.8 % as long as the values span fewer than
/// 32 powers of two, and much less for a column with an offset (pressures, years, times).
/// Moments come from bucket representatives, so they too don't depend on the order of additions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct NumericSketch {
    level: u8,
    buckets: BTreeMap<i64, u64>,
    finite: u64,
    nan: u64,
    positive_infinite: u64,
    negative_infinite: u64,
    range: Option<(f64, f64)>,
}

impl NumericSketch {
    /// Adds one value; NaN and infinities are counted apart and enter no statistic.
    pub fn add(&mut self, value: f64) {
        self.add_many(value, 1);
    }

    /// Adds a value that was seen `count` times.
    pub fn add_many(&mut self, value: f64, count: u64) {
        if count == 0 {
            return;
        }
        if value.is_nan() {
            self.nan += count;
        } else if value == f64::INFINITY {
            self.positive_infinite += count;
        } else if value == f64::NEG_INFINITY {
            self.negative_infinite += count;
        } else {
            let value = value + 0.0; // -0.0 is 0.0
            self.finite += count;
            self.range = Some(match self.range {
                None => (value, value),
                Some((low, high)) => (low.min(value), high.max(value)),
            });
            *self.buckets.entry(key(value, self.level)).or_default() += count;
            self.shrink();
        }
    }

    /// Adds finite values in ascending order, at a fraction of the cost of one after another.
    pub(crate) fn add_sorted(&mut self, values: &[f64]) {
        let (Some(&first), Some(&last)) = (values.first(), values.last()) else {
            return;
        };
        self.finite += values.len() as u64;
        self.range = Some(match self.range {
            None => (first + 0.0, last + 0.0),
            Some((low, high)) => (low.min(first + 0.0), high.max(last + 0.0)),
        });
        for run in values.chunk_by(|a, b| key(*a, self.level) == key(*b, self.level)) {
            *self.buckets.entry(key(run[0], self.level)).or_default() += run.len() as u64;
        }
        self.shrink();
    }

    /// The occupied buckets of either, at the width of the coarser: a representative, and both counts.
    pub(crate) fn beside(&self, other: &Self) -> impl Iterator<Item = (f64, u64, u64)> {
        let mut both = self.clone();
        both.merge(other);
        let mut counts: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        for (&key, &count) in &self.buckets {
            let key = coarser(key, both.level - self.level);
            counts.entry(key).or_default().0 += count;
        }
        for (&key, &count) in &other.buckets {
            let key = coarser(key, both.level - other.level);
            counts.entry(key).or_default().1 += count;
        }
        counts
            .into_iter()
            .map(move |(key, (a, b))| (both.representative(key), a, b))
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.nan += other.nan;
        self.positive_infinite += other.positive_infinite;
        self.negative_infinite += other.negative_infinite;
        self.finite += other.finite;
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        };
        while self.level < other.level {
            self.coarsen();
        }
        let step = self.level - other.level;
        for (&key, &count) in &other.buckets {
            *self.buckets.entry(coarser(key, step)).or_default() += count;
        }
        self.shrink();
    }

    /// Finite values seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.finite
    }

    /// NaNs seen.
    #[must_use]
    pub fn nan(&self) -> u64 {
        self.nan
    }

    /// Positive and negative infinities seen.
    #[must_use]
    pub fn infinite(&self) -> u64 {
        self.positive_infinite + self.negative_infinite
    }

    /// The smallest finite value, exactly.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        self.range.map(|r| r.0)
    }

    /// The largest finite value, exactly.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        self.range.map(|r| r.1)
    }

    /// How many distinct values there were, where that is known: until they outgrow the buckets.
    #[must_use]
    pub fn distinct(&self) -> Option<u64> {
        (self.level == 0).then_some(self.buckets.len() as u64)
    }

    /// The largest relative error of a quantile.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        2f64.powi(i32::from(self.level) - FINEST_BITS as i32 - 1)
            .min(1.0)
    }

    /// The mean of the finite values (from bucket representatives).
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        if self.finite == 0 {
            return None;
        }
        let n = self.finite as f64;
        // Weights before the sum: values near f64::MAX don't overflow.
        Some(self.points().map(|(x, c)| x * (c as f64 / n)).sum())
    }

    /// The population standard deviation of the finite values (from bucket representatives).
    #[must_use]
    pub fn std(&self) -> Option<f64> {
        let mean = self.mean()?;
        let n = self.finite as f64;
        // Scaled, as squares of large values overflow.
        let scale = self
            .points()
            .map(|(x, _)| (x - mean).abs())
            .fold(0.0, f64::max);
        if scale == 0.0 || !scale.is_finite() {
            return Some(scale);
        }
        let variance: f64 = self
            .points()
            .map(|(x, c)| ((x - mean) / scale).powi(2) * (c as f64 / n))
            .sum();
        Some(variance.sqrt() * scale)
    }

    /// The `q` quantile, `q` in 0..=1 (nearest rank; exact at 0 and 1).
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (low, high) = self.range?;
        if q <= 0.0 {
            return Some(low);
        }
        if q >= 1.0 {
            return Some(high);
        }
        let rank = (q * self.finite as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (x, count) in self.points() {
            seen += count;
            if seen >= rank {
                return Some(x);
            }
        }
        Some(high)
    }

    /// The occupied buckets in order, each as one representative value and its count.
    pub fn points(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets
            .iter()
            .map(|(&key, &count)| (self.representative(key), count))
    }

    /// How many values lie below each of the ascending `cuts` (a bucket that a cut goes through is
    /// split in proportion).
    #[must_use]
    pub fn below(&self, cuts: &[f64]) -> Vec<f64> {
        let spans: Vec<(f64, f64, f64)> = self
            .buckets
            .iter()
            .map(|(&key, &count)| {
                let (low, high) = self.span(key);
                (low, high, count as f64)
            })
            .collect();
        let mut result = Vec::with_capacity(cuts.len());
        let (mut done, mut i) = (0.0, 0);
        for &cut in cuts {
            // Cuts may have lost a last bit on their way through JSON.
            let cut = cut - cut.abs() * 2f64.powi(-(FINEST_BITS as i32) - 1);
            while i < spans.len() && spans[i].1 <= cut {
                done += spans[i].2;
                i += 1;
            }
            let partial = match spans.get(i) {
                Some(&(low, high, count)) if low < cut && high > low => {
                    count * ((cut - low) / (high - low))
                }
                _ => 0.0,
            };
            result.push(done + partial);
        }
        result
    }

    /// Lower bounds of the buckets with their counts, in order: where a histogram can be cut without splitting one.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets
            .iter()
            .map(|(&key, &count)| (self.span(key).0, count))
    }

    /// The values a bucket can hold; a single point where it is known to hold one value.
    fn span(&self, key: i64) -> (f64, f64) {
        if self.level == 0 {
            let x = self.representative(key);
            return (x, x);
        }
        let (low, high) = bounds(key, self.level);
        match self.range {
            Some((min, max)) => (low.max(min), high.min(max).max(low.max(min))),
            None => (low, high),
        }
    }

    fn representative(&self, key: i64) -> f64 {
        let (low, high) = bounds(key, self.level);
        let x = if key == 0 {
            0.0
        } else if self.level > 0 {
            low + (high - low) / 2.0
        } else {
            // The bucket holds the values that agree in 33 bits: most likely a short decimal number.
            let short: f64 = format!("{:.8e}", low + (high - low) / 2.0)
                .parse()
                .unwrap_or(low);
            // By magnitude, the bucket is closed at the end nearer to zero.
            let inside = if key > 0 {
                low <= short && short < high
            } else {
                low < short && short <= high
            };
            if inside {
                short
            } else if key > 0 {
                low
            } else {
                high
            }
        };
        match self.range {
            Some((min, max)) => x.clamp(min, max),
            None => x,
        }
    }

    /// Keeps at most so many buckets; a later merge may have more again.
    pub(crate) fn coarsen_to(&mut self, most: usize) {
        while self.buckets.len() > most && self.level < MAX_LEVEL {
            self.coarsen();
        }
    }

    fn shrink(&mut self) {
        self.coarsen_to(MAX_BUCKETS);
    }

    fn coarsen(&mut self) {
        self.level += 1;
        let mut buckets = BTreeMap::new();
        for (key, count) in std::mem::take(&mut self.buckets) {
            *buckets.entry(coarser(key, 1)).or_default() += count;
        }
        self.buckets = buckets;
    }
}

fn key(value: f64, level: u8) -> i64 {
    let magnitude = ((value.to_bits() & (u64::MAX >> 1)) >> DROPPED_BITS >> level) as i64;
    if value < 0.0 { -magnitude } else { magnitude }
}

fn coarser(key: i64, steps: u8) -> i64 {
    let magnitude = (key.unsigned_abs() >> steps) as i64;
    if key < 0 { -magnitude } else { magnitude }
}

/// The ends of a bucket in ascending order.
fn bounds(key: i64, level: u8) -> (f64, f64) {
    let edge = |magnitude: u64| {
        let bits = u128::from(magnitude) << (u32::from(level) + DROPPED_BITS);
        let largest = u128::from(f64::MAX.to_bits());
        f64::from_bits(bits.min(largest) as u64)
    };
    let magnitude = key.unsigned_abs();
    let (near, far) = (edge(magnitude), edge(magnitude + 1));
    match key {
        0 => (-far, far),
        1.. => (near, far),
        _ => (-far, -near),
    }
}

/// As it is written: buckets as a flat list of key (the first absolute, then the distance) and count.
/// Range ends are strings, because JSON readers may lose the last bit of a number.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    #[serde(default, skip_serializing_if = "is_zero")]
    nan: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    positive_infinite: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    negative_infinite: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<(String, String)>,
    level: u8,
    buckets: Vec<i64>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl From<NumericSketch> for Form {
    fn from(sketch: NumericSketch) -> Self {
        let mut buckets = Vec::with_capacity(sketch.buckets.len() * 2);
        let mut last = 0;
        for (key, count) in sketch.buckets {
            buckets.push(key - last);
            buckets.push(count as i64);
            last = key;
        }
        Self {
            nan: sketch.nan,
            positive_infinite: sketch.positive_infinite,
            negative_infinite: sketch.negative_infinite,
            range: sketch
                .range
                .map(|(a, b)| (format!("{a:?}"), format!("{b:?}"))),
            level: sketch.level,
            buckets,
        }
    }
}

impl TryFrom<Form> for NumericSketch {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        if form.level > MAX_LEVEL
            || form.buckets.len() > 2 * MAX_BUCKETS
            || form.buckets.len() % 2 == 1
        {
            return Err(
                "the numeric sketch has a level or a number of buckets that none can have".into(),
            );
        }
        let mut buckets = BTreeMap::new();
        let (mut last, mut finite) = (0i64, 0u64);
        for (i, pair) in form.buckets.chunks_exact(2).enumerate() {
            let count = u64::try_from(pair[1]).unwrap_or(0);
            let key = last.checked_add(pair[0]).unwrap_or(i64::MAX);
            if count == 0
                || (i > 0 && pair[0] <= 0)
                || key.unsigned_abs() >= 1 << (MAX_LEVEL - form.level)
            {
                return Err(format!(
                    "bucket {i} of the numeric sketch is out of order, out of range or empty"
                ));
            }
            finite = finite.saturating_add(count);
            buckets.insert(key, count);
            last = key;
        }
        let number = |text: &str| text.parse::<f64>().ok().filter(|x| x.is_finite());
        let range = match &form.range {
            None => None,
            Some((a, b)) => match (number(a), number(b)) {
                (Some(a), Some(b)) if a <= b => Some((a, b)),
                _ => return Err(format!("the numeric sketch has no valid range: {a} to {b}")),
            },
        };
        if range.is_some() != (finite > 0) {
            return Err(
                "the numeric sketch has values without a range, or a range without values".into(),
            );
        }
        let all = [
            finite,
            form.nan,
            form.positive_infinite,
            form.negative_infinite,
        ];
        if all.iter().any(|count| *count > MOST) {
            return Err("the numeric sketch counts more values than there can be".into());
        }
        Ok(Self {
            level: form.level,
            buckets,
            finite,
            nan: form.nan,
            positive_infinite: form.positive_infinite,
            negative_infinite: form.negative_infinite,
            range,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::Generator;
    use proptest::prelude::*;

    fn sketch(values: &[f64]) -> NumericSketch {
        let mut sketch = NumericSketch::default();
        for &value in values {
            sketch.add(value);
        }
        sketch
    }

    #[test]
    fn few_distinct_values_are_kept_exactly() {
        let s = sketch(&[0.1, 0.1, -2.5, 7.0, 1e9 + 1.0, 0.0, -0.0]);
        assert_eq!(
            s.points().collect::<Vec<_>>(),
            [(-2.5, 1), (0.0, 2), (0.1, 2), (7.0, 1), (1e9 + 1.0, 1)]
        );
        assert_eq!(
            (s.min(), s.max(), s.distinct()),
            (Some(-2.5), Some(1e9 + 1.0), Some(5))
        );
    }

    #[test]
    fn quantiles_and_moments_of_many_values_are_within_one_percent() {
        let mut generator = Generator::new(3);
        // Log-uniform over nine decades, both signs.
        let mut values: Vec<f64> = (0..50_000)
            .map(|i| {
                let x = 10f64.powf(generator.unit() * 9.0 - 4.0);
                if i % 3 == 0 { -x } else { x }
            })
            .collect();
        let s = sketch(&values);
        assert!(
            s.buckets.len() <= MAX_BUCKETS && s.relative_error() < 0.02,
            "{}",
            s.relative_error()
        );
        values.sort_by(f64::total_cmp);
        for q in [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99] {
            let exact = values[((q * values.len() as f64).ceil() as usize).max(1) - 1];
            let got = s.quantile(q).unwrap();
            assert!(
                (got - exact).abs() <= s.relative_error() * exact.abs(),
                "{q}: {got} against {exact}"
            );
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let std =
            (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!((s.mean().unwrap() - mean).abs() < 0.01 * mean.abs());
        assert!((s.std().unwrap() - std).abs() < 0.01 * std);
    }

    #[test]
    fn a_column_with_an_offset_keeps_its_shape() {
        let mut generator = Generator::new(4);
        let values: Vec<f64> = (0..20_000)
            .map(|_| 1013.0 + 14.0 * (generator.unit() - 0.5))
            .collect();
        let s = sketch(&values);
        assert!((s.std().unwrap() - 14.0 / 12f64.sqrt()).abs() < 0.05);
        assert!(s.relative_error() < 1e-4);
    }

    #[test]
    fn values_that_are_not_finite_are_counted_apart() {
        let s = sketch(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
        assert_eq!((s.count(), s.nan(), s.infinite()), (1, 1, 2));
        assert_eq!(NumericSketch::default().mean(), None);
    }

    #[test]
    fn the_widest_range_of_numbers_neither_overflows_nor_grows() {
        let mut s = NumericSketch::default();
        for exponent in -1074..1024 {
            s.add(2f64.powi(exponent));
            s.add(-2f64.powi(exponent) * 1.9);
        }
        s.add(f64::MAX);
        s.add(f64::MIN);
        assert!(s.buckets.len() <= MAX_BUCKETS);
        assert!(s.mean().unwrap().is_finite());
        assert_eq!(s.max(), Some(f64::MAX));
        let text = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<NumericSketch>(&text).unwrap(), s);
    }

    #[test]
    fn counts_below_cuts_split_buckets_in_proportion() {
        let s = sketch(
            &(0..10_000)
                .map(|i| f64::from(i) / 100.0 + 0.001)
                .collect::<Vec<_>>(),
        );
        let below = s.below(&[0.0, 25.0, 50.0, 99.0, 200.0]);
        for (got, want) in below.iter().zip([0.0, 2500.0, 5000.0, 9900.0, 10_000.0]) {
            assert!((got - want).abs() < 5.0, "{below:?}");
        }
        let atoms = sketch(&[1.0, 2.0, 2.0, 3.0]);
        assert_eq!(atoms.below(&[1.0, 2.0, 3.0, 3.5]), [0.0, 1.0, 3.0, 4.0]);
    }

    #[test]
    fn a_broken_sketch_is_refused_with_a_sentence() {
        for text in [
            r#"{"level":99,"buckets":[]}"#,
            r#"{"level":0,"buckets":[1,1]}"#,
            r#"{"level":0,"buckets":[1,-1],"range":["0.0","1.0"]}"#,
            r#"{"level":0,"buckets":[1,1,0,1],"range":["0.0","1.0"]}"#,
            r#"{"level":0,"buckets":[],"range":["2.0","1.0"]}"#,
            r#"{"level":0,"buckets":[1,9223372036854775807],"range":["0.0","1.0"]}"#,
        ] {
            assert!(
                serde_json::from_str::<NumericSketch>(text).is_err(),
                "{text}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_parts_merged_in_any_order_are_the_whole(
            values in prop::collection::vec(prop_oneof![any::<f64>(), -1000.0..1000.0f64, Just(0.0), Just(1.0)], 0..6000),
            cut in 0usize..6000,
        ) {
            let cut = cut.min(values.len());
            let (a, b) = (sketch(&values[..cut]), sketch(&values[cut..]));
            let mut ab = a.clone();
            ab.merge(&b);
            let mut ba = b;
            ba.merge(&a);
            let whole = serde_json::to_string(&sketch(&values)).unwrap();
            prop_assert_eq!(serde_json::to_string(&ab).unwrap(), &whole[..]);
            prop_assert_eq!(serde_json::to_string(&ba).unwrap(), &whole[..]);
            let read: NumericSketch = serde_json::from_str(&whole).unwrap();
            prop_assert_eq!(read, ab);
        }
    }
}
