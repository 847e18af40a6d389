//! Tests of whether two samples come from one distribution; equal to SciPy.
//!
//! Tests find any difference, however small, once there are rows enough: for more than a thousand rows prefer a distance. With many
//! columns some p-values are small by chance; [`compare_columns`](super::compare_columns) reports a share, not a single column.

use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::function::gamma::{gamma_ur, ln_gamma};

use super::Pair;
use super::kolmogorov;
use super::pair::Storage;

/// A statistic and its p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TestResult {
    /// The test's statistic.
    pub statistic: f64,
    /// The probability of one at least as extreme, were there no drift.
    pub p_value: f64,
}

/// Φ(−x).
pub(super) fn normal_tail(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    // Unit parameters are always valid; the tail of |x| is precise.
    0.5 * statrs::function::erf::erfc(x / std::f64::consts::SQRT_2)
}

fn chi_square_tail(statistic: f64, degrees: f64) -> f64 {
    if statistic.is_nan() || degrees <= 0.0 {
        f64::NAN
    } else if statistic.is_infinite() {
        0.0
    } else if statistic <= 0.0 {
        1.0
    } else {
        gamma_ur(degrees / 2.0, statistic / 2.0)
    }
}

/// D = sup |F_r − F_c|; the p-value is exact up to 10,000 values a side, beyond that of one sample of n m / (n + m) values (SciPy's `ks_2samp`).
#[must_use]
pub fn kolmogorov_smirnov(pair: &Pair) -> TestResult {
    let (mut r, mut c, mut most) = (0.0, 0.0, 0.0f64);
    for (a, b) in pair.reference.iter().zip(&pair.current) {
        r += a;
        c += b;
        most = most.max((r / pair.n - c / pair.m).abs());
    }
    let (n, m) = (pair.n as u64, pair.m as u64);
    let p_value = if n.max(m) <= 10_000 {
        kolmogorov::two_sample(n, m, most)
    } else {
        kolmogorov::one_sample((pair.n * pair.m / (pair.n + pair.m)).round() as u64, most)
    };
    TestResult {
        statistic: most,
        p_value,
    }
}

/// Pearson's Σ (obs − exp)² / exp with exp = count_r · m / n (Evidently: the reference is the law). A category that the reference
/// lacks gives ∞ and p = 0, a single one NaN.
#[must_use]
pub fn chi_square(pair: &Pair) -> TestResult {
    let statistic: f64 = pair
        .reference
        .iter()
        .zip(&pair.current)
        .map(|(r, c)| {
            let expected = r * pair.m / pair.n;
            (c - expected).powi(2) / expected
        })
        .sum();
    TestResult {
        statistic,
        p_value: chi_square_tail(statistic, pair.distinct() as f64 - 1.0),
    }
}

/// Independence of sample and category on the 2 × k table, with Yates' correction for k = 2 (SciPy's `chi2_contingency`).
#[must_use]
pub fn contingency(pair: &Pair) -> (TestResult, usize) {
    let total = pair.n + pair.m;
    let degrees = pair.distinct().saturating_sub(1);
    let sides = [(&pair.reference, pair.n), (&pair.current, pair.m)];
    let statistic = sides
        .iter()
        .flat_map(|(counts, size)| {
            counts
                .iter()
                .zip(pair.reference.iter().zip(&pair.current))
                .map(move |(observed, (r, c))| {
                    let expected = (r + c) * size / total;
                    let difference = (observed - expected).abs();
                    let corrected = if degrees == 1 {
                        difference - difference.min(0.5)
                    } else {
                        difference
                    };
                    corrected.powi(2) / expected
                })
        })
        .sum();
    (
        TestResult {
            statistic,
            p_value: chi_square_tail(statistic, degrees as f64),
        },
        degrees,
    )
}

/// 2 Σ obs ln(obs / exp), exp = count_r · m / n; `None` if a category isn't in the reference.
#[must_use]
pub fn g(pair: &Pair) -> Option<TestResult> {
    let mut statistic = 0.0;
    for (&r, &c) in pair.reference.iter().zip(&pair.current) {
        if r == 0.0 {
            return None;
        }
        if c > 0.0 {
            statistic += 2.0 * c * (c / (r * pair.m / pair.n)).ln();
        }
    }
    Some(TestResult {
        statistic,
        p_value: chi_square_tail(statistic, pair.distinct() as f64 - 1.0),
    })
}

/// Z test of the share of the larger value, pooled; `None` for more than two values.
#[must_use]
pub fn z(pair: &Pair) -> Option<TestResult> {
    match pair.distinct() {
        1 => Some(TestResult {
            statistic: 0.0,
            p_value: 1.0,
        }),
        2 => {
            let (p1, p2) = (pair.reference[1] / pair.n, pair.current[1] / pair.m);
            let pooled = (pair.reference[1] + pair.current[1]) / (pair.n + pair.m);
            let statistic =
                (p1 - p2) / (pooled * (1.0 - pooled) * (1.0 / pair.n + 1.0 / pair.m)).sqrt();
            Some(TestResult {
                statistic,
                p_value: 2.0 * normal_tail(statistic.abs()),
            })
        }
        _ => None,
    }
}

/// Fisher's exact test, two-sided: the probability of all tables no likelier than this one. `None` unless there are two values.
#[must_use]
pub fn fisher_exact(pair: &Pair) -> Option<f64> {
    if pair.distinct() != 2 {
        return None;
    }
    let (ones, n, m) = (pair.reference[1] + pair.current[1], pair.n, pair.m);
    let choose = |n: f64, k: f64| ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    let ln_probability = |x: f64| choose(m, x) + choose(n, ones - x) - choose(n + m, ones);
    let observed = ln_probability(pair.current[1]);
    let (mut x, last) = ((ones - n).max(0.0), ones.min(m));
    let mut sum = 0.0;
    while x <= last {
        let here = ln_probability(x);
        if here <= observed + 1e-9 {
            sum += here.exp();
        }
        x += 1.0;
    }
    Some(sum.min(1.0))
}

/// Student's t test with equal variances, two-sided.
#[must_use]
pub fn t(pair: &Pair) -> TestResult {
    let (mean_r, variance_r) = pair.moments_reference();
    let (mean_c, variance_c) = pair.moments_current();
    let degrees = pair.n + pair.m - 2.0;
    let pooled = (variance_r * pair.n + variance_c * pair.m) / degrees;
    let statistic = (mean_r - mean_c) / (pooled * (1.0 / pair.n + 1.0 / pair.m)).sqrt();
    let p_value = if statistic.is_nan() {
        f64::NAN
    } else if statistic.is_infinite() {
        0.0
    } else {
        StudentsT::new(0.0, 1.0, degrees).map_or(f64::NAN, |law| 2.0 * law.sf(statistic.abs()))
    };
    TestResult { statistic, p_value }
}

/// U of the reference, alternative "less" as in Evidently: exact for at most 8 values on a side without ties, else the normal law with corrections
/// for ties and continuity.
#[must_use]
pub fn mann_whitney(pair: &Pair) -> TestResult {
    let total = pair.n + pair.m;
    let (mut before, mut ranks, mut ties, mut tied) = (0.0, 0.0, 0.0, false);
    let mut start = 0;
    while start < pair.values.len() {
        // As floats: SciPy converts integers, so that large ones may tie.
        let end = start + pair.values[start..].partition_point(|&v| v <= pair.values[start]);
        let r: f64 = pair.reference[start..end].iter().sum();
        let here = r + pair.current[start..end].iter().sum::<f64>();
        ranks += r * (before + (here + 1.0) / 2.0);
        ties += here.powi(3) - here;
        tied |= here > 1.0;
        before += here;
        start = end;
    }
    let statistic = ranks - pair.n * (pair.n + 1.0) / 2.0;
    let p_value = if pair.n.min(pair.m) <= 8.0 && !tied {
        exact_u(pair.n as usize, pair.m as usize, statistic as usize)
    } else {
        let mean = pair.n * pair.m / 2.0;
        let variance = pair.n * pair.m / 12.0 * ((total + 1.0) - ties / (total * (total - 1.0)));
        normal_tail((pair.n * pair.m - statistic - mean - 0.5) / variance.sqrt())
    };
    TestResult { statistic, p_value }
}

/// P(U ≤ u), from the number of partitions of each u into at most n parts of at most m.
fn exact_u(n: usize, m: usize, u: usize) -> f64 {
    let (few, many) = (n.min(m), n.max(m));
    let mut ways = vec![0.0f64; n * m + 1];
    ways[0] = 1.0;
    // The Gaussian binomial Π (1 − x^(many + i)) / (1 − x^i).
    for i in 1..=few {
        for k in (many + i..ways.len()).rev() {
            ways[k] -= ways[k - many - i];
        }
        for k in i..ways.len() {
            ways[k] += ways[k - i];
        }
    }
    let total: f64 = ways.iter().sum();
    ways[..=u.min(n * m)].iter().sum::<f64>() / total
}

/// Cramér–von Mises for two samples (Anderson 1962), midranks, asymptotic p-value; `None` without values on a side.
#[must_use]
pub fn cramer_von_mises(pair: &Pair) -> Option<TestResult> {
    let (n, m) = (pair.n, pair.m);
    if n < 2.0 || m < 2.0 {
        return None;
    }
    let total = n + m;
    let (mut before, mut before_r, mut before_c) = (0.0, 0.0, 0.0);
    let (mut sum_r, mut sum_c) = (0.0, 0.0);
    for (&r, &c) in pair.reference.iter().zip(&pair.current) {
        let rank = before + (r + c + 1.0) / 2.0;
        let squares = |from: f64, count: f64| {
            (1..=count as u64)
                .map(|i| (rank - from - i as f64).powi(2))
                .sum::<f64>()
        };
        sum_r += squares(before_r, r);
        sum_c += squares(before_c, c);
        before += r + c;
        before_r += r;
        before_c += c;
    }
    let k = n * m;
    let statistic = if pair.storage == Storage::Single {
        // In the column's precision, as SciPy does.
        let u = n as f32 * sum_r as f32 + m as f32 * sum_c as f32;
        f64::from(u / (k * total) as f32 - ((4.0 * k - 1.0) / (6.0 * total)) as f32)
    } else {
        (n * sum_r + m * sum_c) / (k * total) - (4.0 * k - 1.0) / (6.0 * total)
    };
    let mean = (1.0 + 1.0 / total) / 6.0;
    let variance = (total + 1.0) * (4.0 * k * total - 3.0 * (n * n + m * m) - 2.0 * k)
        / (45.0 * total * total * 4.0 * k);
    let scaled = 1.0 / 6.0 + (statistic - mean) / (45.0 * variance).sqrt();
    let p_value = if scaled < 0.003 {
        1.0
    } else {
        (1.0 - cramer_von_mises_law(scaled)).max(0.0)
    };
    Some(TestResult { statistic, p_value })
}

/// The limiting law (Csörgő, Faraway 1996, equation 1.2).
fn cramer_von_mises_law(x: f64) -> f64 {
    let mut sum = 0.0;
    for k in 0..200 {
        let kf = f64::from(k);
        let y = 4.0 * kf + 1.0;
        let q = y * y / (16.0 * x);
        let u = (ln_gamma(kf + 0.5) - ln_gamma(kf + 1.0)).exp()
            / (std::f64::consts::PI.powf(1.5) * x.sqrt());
        let term = u * y.sqrt() * (-q).exp() * bessel_k_quarter(q);
        sum += term;
        if term.abs() < 1e-7 {
            break;
        }
    }
    sum
}

/// K_¼(x) = ∫₀^∞ exp(−x cosh t) cosh(t/4) dt, by the trapezoidal rule, which converges exponentially here.
fn bessel_k_quarter(x: f64) -> f64 {
    let step = 0.02;
    let mut sum = 0.5 * (-x).exp();
    let mut t: f64 = step;
    loop {
        let term = (-x * t.cosh()).exp() * (t / 4.0).cosh();
        sum += term;
        if t > 60.0 || term < 1e-18 * sum {
            return sum * step;
        }
        t += step;
    }
}

/// Anderson–Darling for two samples, midranks (Scholz, Stephens 1987); the p-value is interpolated and lies in 0.001..=0.25. `None` for a constant
/// or fewer than four values.
#[must_use]
pub fn anderson_darling(pair: &Pair) -> Option<TestResult> {
    let (n, m) = (pair.n, pair.m);
    let total = n + m;
    if pair.distinct() < 2 || total < 4.0 {
        return None;
    }
    let (mut before, mut before_r, mut before_c) = (0.0, 0.0, 0.0);
    let mut sums = (0.0, 0.0);
    for (&r, &c) in pair.reference.iter().zip(&pair.current) {
        let here = r + c;
        let b = before + here / 2.0;
        let scale = b * (total - b) - total * here / 4.0;
        let part = |own_before: f64, own: f64, size: f64| {
            here / total * (total * (own_before + own / 2.0) - b * size).powi(2) / scale
        };
        sums.0 += part(before_r, r, n);
        sums.1 += part(before_c, c, m);
        before += here;
        before_r += r;
        before_c += c;
    }
    let a2 = (sums.0 / n + sums.1 / m) * (total - 1.0) / total;
    let size = total as usize;
    let big_h = 1.0 / n + 1.0 / m;
    let (mut h, mut g) = (0.0, 0.0);
    // h = Σ 1/i over 1..N; g = Σ_(i=1)^(N−2) Σ_(j=i+1)^(N−1) 1 / ((N − i) j).
    for i in 2..size {
        h += 1.0 / (size + 1 - i) as f64;
        g += h / i as f64;
    }
    h += 1.0;
    let k = 2.0;
    let a = (4.0 * g - 6.0) * (k - 1.0) + (10.0 - 6.0 * g) * big_h;
    let b = (2.0 * g - 4.0) * k * k + 8.0 * h * k + (2.0 * g - 14.0 * h - 4.0) * big_h - 8.0 * h
        + 4.0 * g
        - 6.0;
    let c = (6.0 * h + 2.0 * g - 2.0) * k * k
        + (4.0 * h - 4.0 * g + 6.0) * k
        + (2.0 * h - 6.0) * big_h
        + 4.0 * h;
    let d = (2.0 * h + 6.0) * k * k - 4.0 * h * k;
    let variance = (a * total.powi(3) + b * total * total + c * total + d)
        / ((total - 1.0) * (total - 2.0) * (total - 3.0));
    let statistic = (a2 - 1.0) / variance.sqrt();
    Some(TestResult {
        statistic,
        p_value: anderson_darling_p(statistic),
    })
}

/// By a parabola through the logarithms of the tabulated levels (Scholz, Stephens 1987, table 1, for k = 2).
fn anderson_darling_p(statistic: f64) -> f64 {
    const B0: [f64; 7] = [0.675, 1.281, 1.645, 1.96, 2.326, 2.573, 3.085];
    const B1: [f64; 7] = [-0.245, 0.25, 0.678, 1.149, 1.822, 2.364, 3.615];
    const B2: [f64; 7] = [-0.105, -0.305, -0.362, -0.391, -0.396, -0.345, -0.154];
    const LEVELS: [f64; 7] = [0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001];
    let critical: Vec<f64> = (0..7).map(|i| B0[i] + B1[i] + B2[i]).collect();
    if statistic < critical[0] {
        return LEVELS[0];
    }
    if statistic > critical[6] {
        return LEVELS[6];
    }
    let [c0, c1, c2] = parabola(&critical, &LEVELS.map(f64::ln));
    (c0 + c1 * statistic + c2 * statistic * statistic).exp()
}

/// Least squares of y = c0 + c1 x + c2 x².
fn parabola(x: &[f64], y: &[f64]) -> [f64; 3] {
    // Centred, so that the normal equations stay well conditioned.
    let n = x.len() as f64;
    let center = x.iter().sum::<f64>() / n;
    let u: Vec<f64> = x.iter().map(|x| x - center).collect();
    let moment = |p: i32| u.iter().map(|u| u.powi(p)).sum::<f64>();
    let right = |p: i32| u.iter().zip(y).map(|(u, y)| u.powi(p) * y).sum::<f64>();
    let mut rows = [
        [n, moment(1), moment(2), right(0)],
        [moment(1), moment(2), moment(3), right(1)],
        [moment(2), moment(3), moment(4), right(2)],
    ];
    for i in 0..3 {
        let pivot = rows[i];
        for (j, row) in rows.iter_mut().enumerate() {
            if j != i {
                let factor = row[i] / pivot[i];
                row.iter_mut()
                    .zip(pivot)
                    .for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    let [d0, d1, d2] = [0, 1, 2].map(|i| rows[i][3] / rows[i][i]);
    [
        d0 - d1 * center + d2 * center * center,
        d1 - 2.0 * d2 * center,
        d2,
    ]
}
