//! Latencies: log-linear buckets of microseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Buckets per power of two; below this many microseconds each has its own.
const PER_OCTAVE: u64 = 64;
const PER_OCTAVE_BITS: u32 = 6;
/// Longer latencies count as this: 19 hours.
const LONGEST: u64 = (1 << 36) - 1;

/// A mergeable histogram of latencies in microseconds: at most about 2,000 buckets, each at most 1.6 % wide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct LatencyHistogram {
    buckets: BTreeMap<u16, u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl LatencyHistogram {
    /// Adds one latency.
    pub fn add(&mut self, microseconds: u64) {
        self.add_many(microseconds, 1);
    }

    /// Adds `count` equal latencies.
    pub fn add_many(&mut self, microseconds: u64, count: u64) {
        if count == 0 {
            return;
        }
        let value = microseconds.min(LONGEST);
        *self.buckets.entry(index(value)).or_default() += count;
        self.count += count;
        self.sum = self.sum.saturating_add(value.saturating_mul(count));
        self.max = self.max.max(value);
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        for (&bucket, &count) in &other.buckets {
            *self.buckets.entry(bucket).or_default() += count;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Where a latency lies on the histogram's scale, which is about logarithmic: 64 to an octave.
    #[must_use]
    pub fn place(microseconds: u64) -> u16 {
        index(microseconds.min(LONGEST))
    }

    /// Latencies seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all latencies in microseconds, exactly.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The longest latency in microseconds, exactly.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// The mean in microseconds.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The `q` quantile in microseconds (nearest rank, middle of the bucket: within 0.8 %).
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        self.at_rank(rank)
    }

    /// The `rank`-th smallest latency (from 1), as the middle of its bucket; `None` if there are fewer.
    #[must_use]
    pub fn at_rank(&self, rank: u64) -> Option<f64> {
        let mut seen = 0;
        for (&bucket, &count) in &self.buckets {
            seen += count;
            if seen >= rank {
                let (low, high) = bounds(bucket);
                return Some(((low + high - 1) as f64 / 2.0).min(self.max as f64));
            }
        }
        None
    }

    /// How many latencies are at most `microseconds` (whole buckets: a bucket counts if its middle does).
    #[must_use]
    pub fn at_most(&self, microseconds: u64) -> u64 {
        let last = index(microseconds.min(LONGEST));
        self.buckets.range(..=last).map(|(_, count)| count).sum()
    }

    /// The occupied buckets: the first and last microsecond of each, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.buckets.iter().map(|(&bucket, &count)| {
            let (low, high) = bounds(bucket);
            (low, high - 1, count)
        })
    }
}

fn index(value: u64) -> u16 {
    if value < PER_OCTAVE {
        return value as u16;
    }
    let octave = value.ilog2() - PER_OCTAVE_BITS; // 0 for 64..128
    let within = (value >> octave) - PER_OCTAVE;
    (PER_OCTAVE + u64::from(octave) * PER_OCTAVE + within) as u16
}

/// The first microsecond of a bucket, and of the next.
fn bounds(bucket: u16) -> (u64, u64) {
    let bucket = u64::from(bucket);
    if bucket < PER_OCTAVE {
        return (bucket, bucket + 1);
    }
    let octave = (bucket - PER_OCTAVE) / PER_OCTAVE;
    let within = (bucket - PER_OCTAVE) % PER_OCTAVE;
    (
        (PER_OCTAVE + within) << octave,
        (PER_OCTAVE + within + 1) << octave,
    )
}

/// As it is written: buckets as a flat list of index (the first absolute, then the distance) and count.
#[derive(Serialize, Deserialize)]
struct Form {
    sum: u64,
    max: u64,
    buckets: Vec<u64>,
}

impl From<LatencyHistogram> for Form {
    fn from(histogram: LatencyHistogram) -> Self {
        let mut last = 0;
        let mut buckets = Vec::with_capacity(2 * histogram.buckets.len());
        for (bucket, count) in histogram.buckets {
            buckets.push(u64::from(bucket - last));
            buckets.push(count);
            last = bucket;
        }
        Self {
            sum: histogram.sum,
            max: histogram.max,
            buckets,
        }
    }
}

impl TryFrom<Form> for LatencyHistogram {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        let mut histogram = Self {
            sum: form.sum,
            max: form.max.min(LONGEST),
            ..Self::default()
        };
        let mut bucket = 0u64;
        for pair in form.buckets.chunks(2) {
            let &[step, count] = pair else {
                return Err("the latency histogram has an index without a count".into());
            };
            bucket = bucket.saturating_add(step);
            if bucket > u64::from(index(LONGEST)) || count == 0 {
                return Err(
                    "the latency histogram has a bucket that is out of range or empty".into(),
                );
            }
            *histogram.buckets.entry(bucket as u16).or_default() += count;
            histogram.count = histogram.count.saturating_add(count);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::Generator;

    #[test]
    fn buckets_tile_the_microseconds_without_gap_or_overlap() {
        let mut next = 0;
        for bucket in 0..=index(LONGEST) {
            let (low, high) = bounds(bucket);
            assert_eq!(low, next);
            assert_eq!((index(low), index(high - 1)), (bucket, bucket));
            next = high;
        }
        assert_eq!(next, LONGEST + 1);
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut generator = Generator::new(5);
        let mut values: Vec<u64> = (0..20_000)
            .map(|_| (1_000.0 * (-4.0 * generator.unit().ln())) as u64)
            .collect();
        let mut histogram = LatencyHistogram::default();
        for &value in &values {
            histogram.add(value);
        }
        values.sort_unstable();
        for q in [0.5, 0.95, 0.99] {
            let exact = values[(q * 20_000.0) as usize - 1] as f64;
            let got = histogram.quantile(q).unwrap();
            assert!(
                (got - exact).abs() <= 0.01 * exact,
                "{q}: {got} against {exact}"
            );
        }
        assert_eq!(histogram.max(), values.last().copied());
        assert_eq!(histogram.sum(), values.iter().sum::<u64>());
    }

    #[test]
    fn merging_is_the_same_as_adding_and_survives_being_written() {
        let (mut a, mut b, mut whole) = (
            LatencyHistogram::default(),
            LatencyHistogram::default(),
            LatencyHistogram::default(),
        );
        for i in 0..5_000u64 {
            let value = i * i * 37 % 1_000_003;
            if i % 2 == 0 {
                a.add(value)
            } else {
                b.add(value)
            }
            whole.add(value);
        }
        b.merge(&a);
        assert_eq!(b, whole);
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(
            serde_json::from_str::<LatencyHistogram>(&text).unwrap(),
            whole
        );
    }

    #[test]
    fn an_endless_latency_is_clamped_and_an_empty_histogram_has_no_quantile() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.add(u64::MAX);
        assert_eq!(histogram.max(), Some(LONGEST));
    }
}
