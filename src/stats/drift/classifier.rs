//! Drift of what has no order: can a classifier tell the sides apart?

use crate::stats::{
    performance::Binary,
    random::{Generator, mix},
};

/// Rows of a side that the classifier sees; more say little more.
pub const MOST_ROWS: usize = 1000;
/// Rows of a side below which it says nothing.
const LEAST_ROWS: usize = 20;
/// Passes over the rows, and the weight of the penalty on large coefficients.
const PASSES: usize = 20;
const PENALTY: f64 = 1e-3;
/// Numbers that a text becomes.
const HASHED: usize = 256;

/// How well the sides are told apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Domain {
    /// Area under the ROC curve on rows that the classifier hasn't seen: 0.5 for sides that are alike.
    pub area: f64,
    /// The chance of that area or more, were they.
    pub p_value: f64,
}

impl Domain {
    /// Drift: an area of at least `threshold` (Evidently: 0.55) that chance doesn't explain.
    #[must_use]
    pub fn has_drifted(&self, threshold: f64) -> bool {
        self.area >= threshold && self.p_value < 0.05
    }
}

/// Area under the curve of a logistic regression that learns on one half of the rows which side they are from and is asked about the other, both ways round
/// (a domain classifier, as in Evidently; Lopez-Paz, Oquab 2017). Rows are vectors of one length; at most [`MOST_ROWS`] of each side count. The p-value is that of
/// Mann–Whitney's test. `None` for fewer than 20 rows a side, or vectors of several lengths.
#[must_use]
pub fn domain_classifier(
    reference: &[Vec<f64>],
    current: &[Vec<f64>],
    seed: u64,
) -> Option<Domain> {
    let size = reference.first()?.len();
    let sides = [reference, current].map(|side| chosen(side.len(), seed));
    let fits = |rows: &[Vec<f64>], chosen: &[usize]| {
        chosen.len() >= LEAST_ROWS && chosen.iter().all(|&i| rows[i].len() == size)
    };
    if size == 0 || !fits(reference, &sides[0]) || !fits(current, &sides[1]) {
        return None;
    }
    // Every second row of a side is in the first half.
    let rows = |half: usize| -> Vec<(&[f64], bool)> {
        let every = |chosen: &[usize]| {
            chosen
                .iter()
                .skip(half)
                .step_by(2)
                .copied()
                .collect::<Vec<_>>()
        };
        let r = every(&sides[0])
            .into_iter()
            .map(|i| (reference[i].as_slice(), false));
        let c = every(&sides[1])
            .into_iter()
            .map(|i| (current[i].as_slice(), true));
        r.chain(c).collect()
    };
    let halves = [rows(0), rows(1)];
    let mut areas = 0.0;
    let mut variance = 0.0;
    for (learn, ask) in [(0, 1), (1, 0)] {
        let model = Logistic::learn(&halves[learn], size, seed);
        let truth: Vec<bool> = halves[ask].iter().map(|row| row.1).collect();
        let scores: Vec<f64> = halves[ask].iter().map(|row| model.score(row.0)).collect();
        areas += Binary::from_scores(&truth, &scores, 0.5)
            .measure(None)
            .roc_auc
            / 2.0;
        let (n, m) = (
            truth.iter().filter(|t| !**t).count() as f64,
            truth.iter().filter(|t| **t).count() as f64,
        );
        variance += (n + m + 1.0) / (12.0 * n * m) / 4.0;
    }
    let z = (areas - 0.5) / variance.sqrt();
    Some(Domain {
        area: areas,
        p_value: super::test::normal_tail(z),
    })
}

/// At most [`MOST_ROWS`] of `count` rows, the same for a seed.
fn chosen(count: usize, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    if count > MOST_ROWS {
        all.sort_by_cached_key(|&i| mix(seed ^ mix(i as u64)));
        all.truncate(MOST_ROWS);
    }
    all
}

/// Logistic regression on standardised columns, by stochastic gradients, averaged over the second half of the steps.
struct Logistic {
    mean: Vec<f64>,
    scale: Vec<f64>,
    weights: Vec<f64>,
    offset: f64,
}

impl Logistic {
    fn learn(rows: &[(&[f64], bool)], size: usize, seed: u64) -> Self {
        let n = rows.len() as f64;
        let column = |of: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let mut sums = vec![0.0; size];
            for (row, _) in rows {
                sums.iter_mut()
                    .zip(*row)
                    .enumerate()
                    .for_each(|(i, (sum, x))| *sum += of(i, finite(*x)) / n);
            }
            sums
        };
        let mean = column(&|_, x| x);
        let variance = column(&|i, x| (x - mean[i]).powi(2));
        // A constant column says nothing.
        let scale: Vec<f64> = variance
            .iter()
            .map(|v| {
                if *v > 0.0 && v.is_finite() {
                    v.sqrt().recip()
                } else {
                    0.0
                }
            })
            .collect();
        let used = scale.iter().filter(|s| **s > 0.0).count();
        let mut model = Self {
            mean,
            scale,
            weights: vec![0.0; size],
            offset: 0.0,
        };
        // The curvature of a row's loss is a quarter of its squared length: as many as columns count, on average, and one for the offset.
        let first = 1.0 / (used + 1) as f64;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut generator = Generator::new(seed);
        let (mut average, mut average_offset, mut steps) = (vec![0.0; size], 0.0, 0.0f64);
        let mut standard = vec![0.0; size];
        for pass in 0..PASSES {
            for last in (1..order.len()).rev() {
                order.swap(last, generator.below(last + 1));
            }
            for (step, &i) in order.iter().enumerate() {
                let (row, positive) = rows[i];
                model.standardise(row, &mut standard);
                let rate = first / (1.0 + first * PENALTY * (pass * rows.len() + step) as f64);
                let logit = model.offset + dot(&model.weights, &standard);
                let error = f64::from(u8::from(positive)) - 1.0 / (1.0 + (-logit).exp());
                for (w, x) in model.weights.iter_mut().zip(&standard) {
                    *w += rate * (error * x - PENALTY * *w);
                }
                model.offset += rate * error;
                if pass >= PASSES / 2 {
                    steps += 1.0;
                    average
                        .iter_mut()
                        .zip(&model.weights)
                        .for_each(|(a, w)| *a += (w - *a) / steps);
                    average_offset += (model.offset - average_offset) / steps;
                }
            }
        }
        (model.weights, model.offset) = (average, average_offset);
        model
    }

    fn standardise(&self, row: &[f64], out: &mut [f64]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = (finite(row[i]) - self.mean[i]) * self.scale[i];
        }
    }

    fn score(&self, row: &[f64]) -> f64 {
        let mut standard = vec![0.0; self.weights.len()];
        self.standardise(row, &mut standard);
        self.offset + dot(&self.weights, &standard)
    }
}

/// What is missing in a vector counts as nothing.
fn finite(x: f64) -> f64 {
    if x.is_finite() { x } else { 0.0 }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A text as numbers for [`domain_classifier`]: shares of its words, lower case, in 256 places by hash (Weinberger et al. 2009), its length in words, and the mean
/// length of a word, both as logarithms.
#[must_use]
pub fn hashed_words(text: &str) -> Vec<f64> {
    let mut numbers = vec![0.0; HASHED + 2];
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .collect();
    let letters: usize = words.iter().map(|w| w.chars().count()).sum();
    for word in &words {
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        numbers[mix(hash) as usize % HASHED] += 1.0 / words.len() as f64;
    }
    numbers[HASHED] = (1.0 + words.len() as f64).ln();
    numbers[HASHED + 1] = (1.0 + letters as f64 / words.len().max(1) as f64).ln();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(rows: usize, size: usize, shift: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut generator = Generator::new(seed);
        let mut normal = move || {
            let (u, v) = (1.0 - generator.unit(), generator.unit());
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        let mut row = |_| {
            (0..size)
                .map(|i| normal() + if i == 0 { shift } else { 0.0 })
                .collect()
        };
        (0..rows).map(&mut row).collect()
    }

    #[test]
    fn sides_that_are_alike_can_not_be_told_apart_and_others_can() {
        let mut alarms = 0;
        for seed in 0..40 {
            let (a, b) = (cloud(300, 16, 0.0, seed), cloud(200, 16, 0.0, seed + 1000));
            let same = domain_classifier(&a, &b, 1).unwrap();
            alarms += u32::from(same.p_value < 0.05);
            assert!((same.area - 0.5).abs() < 0.15, "{same:?}");
        }
        assert!(alarms <= 7, "{alarms} of 40 at 5 %");
        let far = domain_classifier(&cloud(300, 16, 0.0, 1), &cloud(200, 16, 2.0, 2), 1).unwrap();
        // Two normal laws two standard deviations apart: Φ(√2) = 0.921.
        assert!(
            (far.area - 0.921).abs() < 0.04 && far.has_drifted(0.55),
            "{far:?}"
        );
    }

    #[test]
    fn what_can_not_be_compared_is_not() {
        let a = cloud(300, 4, 0.0, 1);
        assert_eq!(domain_classifier(&a, &a[..10], 1), None);
        assert_eq!(domain_classifier(&a, &cloud(300, 5, 0.0, 1), 1), None);
        assert_eq!(domain_classifier(&[], &a, 1), None);
        let constant = vec![vec![1.0, f64::NAN]; 50];
        let same = domain_classifier(&constant, &constant, 1).unwrap();
        assert_eq!((same.area, same.has_drifted(0.55)), (0.5, false));
    }

    #[test]
    fn texts_about_something_else_are_told_apart() {
        let text = |words: &[&str], i: usize| {
            let all: Vec<&str> = (0..12)
                .map(|k| words[(i * 7 + k * (i % 5 + 1)) % words.len()])
                .collect();
            hashed_words(&all.join(" "))
        };
        let flights = [
            "the", "flight", "was", "late", "gate", "crew", "and", "weather", "delay", "in",
            "boarding",
        ];
        let recipes = [
            "the", "butter", "and", "flour", "in", "oven", "bake", "sugar", "was", "sweet", "egg",
        ];
        let side = |words: &[&str], from: usize| {
            (from..from + 200)
                .map(|i| text(words, i))
                .collect::<Vec<_>>()
        };
        let apart = domain_classifier(&side(&flights, 0), &side(&recipes, 0), 3).unwrap();
        assert!(apart.area > 0.95, "{apart:?}");
        let alike = domain_classifier(&side(&flights, 0), &side(&flights, 200), 3).unwrap();
        assert!(!alike.has_drifted(0.55), "{alike:?}");
        assert_eq!(hashed_words("").len(), hashed_words("a b").len());
    }
}
