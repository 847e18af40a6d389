//! Which hashes were seen: all of them up to a bound, beyond it those below a limit.

/// Different hashes: exact up to a bound, beyond it those that begin with so many zero bits that no more than the bound are kept (adaptive sampling:
/// Flajolet 1990). The standard error of [`Self::different`] is then below 1.2 / √bound.
///
/// ```
/// use perennial::stats::sketch::HashSketch;
///
/// let mut seen = HashSketch::new(4);
/// [7, 3, 7, u64::MAX].into_iter().for_each(|hash| seen.add(hash));
/// assert_eq!((seen.different(), seen.zeros()), (3.0, 0));
/// assert_eq!(seen.into_sorted(), [3, 7, u64::MAX]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashSketch {
    /// Up to twice the bound, with repetitions behind those that were sorted last.
    kept: Vec<u64>,
    most: usize,
    zeros: u32,
}

impl HashSketch {
    /// Keeps at most so many (for a while twice as many, of 8 bytes each).
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            kept: Vec::new(),
            most,
            zeros: 0,
        }
    }

    /// Adds a hash, whose bits must be as good as random.
    pub fn add(&mut self, hash: u64) {
        if hash.leading_zeros() < self.zeros {
            return;
        }
        self.kept.push(hash);
        if self.kept.len() >= 2 * self.most.max(1) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.kept.sort_unstable();
        self.kept.dedup();
        while self.kept.len() > self.most {
            self.zeros += 1;
            let zeros = self.zeros;
            self.kept.retain(|hash| hash.leading_zeros() >= zeros);
        }
    }

    /// How many different ones were added; an estimate where [`Self::zeros`] isn't 0.
    pub fn different(&mut self) -> f64 {
        self.settle();
        self.kept.len() as f64 * 2f64.powi(self.zeros as i32)
    }

    /// Leading zero bits of all that are kept: of 2^zeros hashes about one is.
    pub fn zeros(&mut self) -> u32 {
        self.settle();
        self.zeros
    }

    /// Those that are kept, in their order.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<u64> {
        self.settle();
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::Generator;

    #[test]
    fn beyond_the_bound_the_same_ones_are_kept_whatever_their_order() {
        let mut generator = Generator::new(1);
        let mut all: Vec<u64> = (0..5000).map(|_| generator.bits()).collect();
        let sketch = |hashes: &[u64]| {
            let mut sketch = HashSketch::new(1000);
            hashes.iter().for_each(|hash| sketch.add(*hash));
            (sketch.zeros(), sketch.different(), sketch.into_sorted())
        };
        let (zeros, different, kept) = sketch(&all);
        assert!(zeros >= 2 && kept.len() <= 1000, "{zeros} {}", kept.len());
        assert!((different / 5000.0 - 1.0).abs() < 0.15, "{different}");
        let limit: Vec<u64> = {
            let mut limit: Vec<u64> = all.clone();
            limit.retain(|hash| hash.leading_zeros() >= zeros);
            limit.sort_unstable();
            limit
        };
        assert_eq!(kept, limit, "every one below the limit, and no other");
        // And one row again and again changes nothing.
        all.reverse();
        all.extend_from_within(..2500);
        assert_eq!(sketch(&all), (zeros, different, kept));
    }
}
