//! Intervals for any metric, by resampling rows or whole groups of them.

use std::collections::BTreeMap;

use crate::stats::random::Generator;

/// Percentile intervals (Efron 1979) of everything that `measure` returns, at the given `level` (0.95).
///
/// `measure` gets, for each row, how often it was drawn. With `groups` (one id per row: the day, the caller) whole groups are drawn
/// (cluster bootstrap: Davison, Hinkley 1997, section 3.8), as rows of one group resemble each other and intervals from single rows would
/// be too narrow. Two models are compared by measuring both in one call: the same draw is used for both. Draws in
/// which a value isn't defined are left out; `None` if fewer than half of them define it. The same seed gives the same intervals.
pub fn bootstrap(
    rows: usize,
    groups: Option<&[usize]>,
    draws: usize,
    level: f64,
    seed: u64,
    mut measure: impl FnMut(&[f64]) -> Vec<f64>,
) -> Vec<Option<(f64, f64)>> {
    let clusters: Vec<Vec<usize>> = match groups {
        None => Vec::new(),
        Some(groups) => {
            let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            groups
                .iter()
                .take(rows)
                .enumerate()
                .for_each(|(row, &g)| members.entry(g).or_default().push(row));
            members.into_values().collect()
        }
    };
    let mut generator = Generator::new(seed);
    let mut weights = vec![0.0; rows];
    let mut values: Vec<Vec<f64>> = Vec::new();
    for _ in 0..draws {
        weights.fill(0.0);
        if groups.is_some() {
            for _ in 0..clusters.len() {
                for &row in &clusters[generator.below(clusters.len())] {
                    weights[row] += 1.0;
                }
            }
        } else {
            (0..rows).for_each(|_| weights[generator.below(rows)] += 1.0);
        }
        let measured = measure(&weights);
        values.resize_with(values.len().max(measured.len()), Vec::new);
        values
            .iter_mut()
            .zip(measured)
            .filter(|(_, x)| x.is_finite())
            .for_each(|(all, x)| all.push(x));
    }
    let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
    values
        .into_iter()
        .map(|mut all| {
            if all.is_empty() || 2 * all.len() < draws {
                return None;
            }
            all.sort_by(f64::total_cmp);
            let last = (all.len() - 1) as f64;
            let at = |q: f64| all[(q * last).round() as usize];
            Some((at(tail), at(1.0 - tail)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64], weights: &[f64]) -> f64 {
        values.iter().zip(weights).map(|(v, w)| v * w).sum::<f64>() / weights.iter().sum::<f64>()
    }

    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_theory_says() {
        let mut generator = Generator::new(1);
        let values: Vec<f64> = (0..1_000).map(|_| generator.unit()).collect();
        let ends = bootstrap(1_000, None, 1_000, 0.95, 7, |w| vec![mean(&values, w)]);
        let (low, high) = ends[0].unwrap();
        let theory = 2.0 * 1.96 / (12.0f64 * 1_000.0).sqrt();
        assert!(
            ((high - low) / theory - 1.0).abs() < 0.12,
            "{low} {high} {theory}"
        );
        assert_eq!(
            ends,
            bootstrap(1_000, None, 1_000, 0.95, 7, |w| vec![mean(&values, w)])
        );
    }

    #[test]
    fn rows_that_stand_or_fall_together_widen_the_interval() {
        // Twenty days of fifty equal rows: no more than twenty observations.
        let days: Vec<usize> = (0..1_000).map(|i| i / 50).collect();
        let values: Vec<f64> = days.iter().map(|d| (d * 7 % 20) as f64).collect();
        let width = |groups| {
            let (low, high) =
                bootstrap(1_000, groups, 400, 0.95, 7, |w| vec![mean(&values, w)])[0].unwrap();
            high - low
        };
        let ratio = width(Some(&days[..])) / width(None);
        assert!((5.5..9.0).contains(&ratio), "{ratio}"); // √50 = 7.07
    }

    #[test]
    fn values_that_are_mostly_undefined_have_no_interval() {
        let mut draw = 0;
        let ends = bootstrap(3, None, 100, 0.95, 1, |_| {
            draw += 1;
            vec![if draw % 3 == 0 { 1.0 } else { f64::NAN }, 2.0]
        });
        assert_eq!(ends, [None, Some((2.0, 2.0))]);
    }
}
