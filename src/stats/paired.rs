//! Tests of two models on the same rows.

/// Rows from which Wilcoxon's statistic is taken for normal; below, all signs are counted.
const EXACT: usize = 50;

/// McNemar's exact test (McNemar 1947): two-sided p-value that of the rows on which the two differ half favour each. `wins` and `losses` are
/// rows that only the one, or only the other, got right; scipy's `binomtest(wins, wins + losses).pvalue`.
#[must_use]
pub fn mcnemar(wins: u64, losses: u64) -> f64 {
    let n = wins + losses;
    if n == 0 {
        return 1.0;
    }
    // Sum of binomial(n, ½) up to the smaller, by logarithms.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = term.exp();
    for k in 1..=wins.min(losses) {
        term += ((n - k + 1) as f64 / k as f64).ln();
        tail += term.exp();
    }
    (2.0 * tail).min(1.0)
}

/// Wilcoxon's signed-rank test (Wilcoxon 1945) of differences, two-sided; zeros are left out. Up to 50 differences without ties or zeros by counting, else by
/// the normal approximation with correction for ties (no continuity correction): scipy's `wilcoxon(d)` (which counts permutations where there are ties among 13 or fewer).
#[must_use]
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let n = sorted.len();
    if n == 0 {
        return 1.0;
    }
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let (mut positive, mut ties, mut at) = (0.0, 0.0, 0);
    while at < n {
        let size = sorted[at].abs();
        let end = at + sorted[at..].iter().take_while(|d| d.abs() == size).count();
        let rank = (at + 1 + end) as f64 / 2.0;
        positive += sorted[at..end].iter().filter(|d| **d > 0.0).count() as f64 * rank;
        let t = (end - at) as f64;
        ties += t * t * t - t;
        at = end;
    }
    let count = n as f64;
    let zeros = differences.contains(&0.0);
    if n <= EXACT && ties == 0.0 && !zeros {
        return counted(n, positive);
    }
    let mean = count * (count + 1.0) / 4.0;
    let variance = count * (count + 1.0) * (2.0 * count + 1.0) / 24.0 - ties / 48.0;
    let z = (positive - mean).abs() / variance.sqrt();
    statrs::function::erf::erfc(z / std::f64::consts::SQRT_2).min(1.0)
}

/// Of all 2ⁿ ways to give signs to the ranks 1 to n, twice the share that is as far out.
fn counted(n: usize, positive: f64) -> f64 {
    let most = n * (n + 1) / 2;
    let mut ways = vec![0.0; most + 1];
    ways[0] = 1.0;
    for rank in 1..=n {
        for sum in (rank..=most).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let smaller = positive.min(most as f64 - positive).round() as usize;
    let tail: f64 = ways[..=smaller].iter().sum();
    (2.0 * tail / 2f64.powi(i32::try_from(n).unwrap_or(i32::MAX))).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn p_values_are_those_of_scipy() {
        close(mcnemar(3, 10), 0.092_285_156_25);
        close(mcnemar(40, 20), 0.013_489_293_731_191_86);
        close(mcnemar(0, 1), 1.0);
        close(mcnemar(0, 0), 1.0);
        assert!(mcnemar(0, 5_000) < 1e-300 && mcnemar(5_000, 5_000) == 1.0);
        let small = [1.2, -0.5, 2.3, 0.7, -3.1, 4.0, 0.9, -0.1, 5.5, 2.2];
        close(wilcoxon(&small), 0.105_468_75);
        let tied = [1, 1, -1, 2, 2, -2, 3, 0, 0, 1, -1, 1, 2, 3, -3, 1, 1, 1].map(f64::from);
        assert!((wilcoxon(&tied) - 0.095_599_270_005_662_64).abs() < 1e-9);
        let many: Vec<f64> = (0..60)
            .map(|i| f64::from(i * 37 % 101) / 50.0 - 0.7)
            .collect();
        assert!((wilcoxon(&many) - 0.000_948_469_856_393_1).abs() < 1e-9);
        close(wilcoxon(&[0.0, 0.0]), 1.0);
    }

    #[test]
    fn who_is_first_does_not_matter() {
        for (a, b) in [(0, 7), (3, 10), (12, 11)] {
            close(mcnemar(a, b), mcnemar(b, a));
        }
        let d = [0.3, -1.0, 2.0, 5.0, -0.2];
        close(wilcoxon(&d), wilcoxon(&d.map(|x| -x)));
    }
}
