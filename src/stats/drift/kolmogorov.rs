//! The laws of Kolmogorov–Smirnov's statistic.

use statrs::function::gamma::ln_gamma;

/// P(D ≥ d) for two samples without ties, exactly: the share of lattice paths that leave the band |i/n − j/m| < d. Probability that leaves
/// the band is added up as it does, so small results keep their relative precision.
pub(super) fn two_sample(n: u64, m: u64, statistic: f64) -> f64 {
    let common = gcd(n, m);
    let (step_n, step_m) = ((m / common) as i64, (n / common) as i64);
    let lcm = n as f64 / common as f64 * m as f64;
    let reach = (statistic * lcm).round() as i64;
    if reach == 0 {
        return 1.0;
    }
    // Beyond the Dvoretzky–Kiefer–Wolfowitz–Massart bound there is nothing a float could say.
    let (nf, mf) = (n as f64, m as f64);
    if statistic * statistic * nf * mf / (nf + mf) > 800.0 {
        return 0.0;
    }
    // alive[j]: probability to be at (i, j) and never to have left; rows i, only the band's j.
    let (n, m) = (n as i64, m as i64);
    let mut alive = vec![0.0f64; m as usize + 1];
    let mut left = 0.0;
    let inside = |i: i64, j: i64| (i * step_n - j * step_m).abs() < reach;
    alive[0] = 1.0;
    let (mut low, mut high) = (0i64, 0i64);
    for i in 0..=n {
        // Within row i: steps in j.
        let mut j = low;
        while j <= high.max(low) && j <= m {
            let here = alive[j as usize];
            let rest = (n - i) + (m - j);
            if here > 0.0 && j < m {
                let up = here * (m - j) as f64 / rest as f64;
                if inside(i, j + 1) {
                    alive[(j + 1) as usize] += up;
                    high = high.max(j + 1);
                } else {
                    left += up;
                }
            }
            j += 1;
        }
        if i == n {
            break;
        }
        // To row i + 1.
        let (mut new_low, mut new_high) = (i64::MAX, i64::MIN);
        for j in low..=high {
            let here = alive[j as usize];
            alive[j as usize] = 0.0;
            let rest = (n - i) + (m - j);
            if here <= 0.0 || rest == 0 {
                continue;
            }
            let across = here * (n - i) as f64 / rest as f64;
            if inside(i + 1, j) {
                alive[j as usize] = across;
                new_low = new_low.min(j);
                new_high = new_high.max(j);
            } else {
                left += across;
            }
        }
        if new_low == i64::MAX {
            break; // All paths have left.
        }
        (low, high) = (new_low, new_high);
    }
    left.clamp(0.0, 1.0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// P(D_n ≥ d) of one sample of `n` against a continuous law, two-sided.
///
/// Far in the tail twice the one-sided probability (Birnbaum, Tingey 1951; relative error below 1e-7 there); else the matrix formula of
/// Durbin (Marsaglia, Tsang, Wang 2003) or, for large n, the expansion of Pelz and Good (1976), as Simard and L'Ecuyer (2011) advise.
pub(super) fn one_sample(n: u64, d: f64) -> f64 {
    if d <= 0.0 {
        return 1.0;
    }
    if d >= 1.0 {
        return 0.0;
    }
    let nf = n as f64;
    if nf * d * d > 3.0 {
        (2.0 * one_sided(nf, d)).min(1.0)
    } else if n <= 5_000 {
        (1.0 - durbin(n, d)).clamp(0.0, 1.0)
    } else {
        (1.0 - pelz_good(nf, d)).clamp(0.0, 1.0)
    }
}

/// P(D⁺ ≥ d).
fn one_sided(n: f64, d: f64) -> f64 {
    let last = (n * (1.0 - d)).floor();
    let mut sum = 0.0;
    let mut j = 0.0;
    while j <= last {
        let rest = 1.0 - d - j / n;
        if rest > 0.0 || j == n {
            let choose = ln_gamma(n + 1.0) - ln_gamma(j + 1.0) - ln_gamma(n - j + 1.0);
            let power = if rest > 0.0 { (n - j) * rest.ln() } else { 0.0 };
            sum += (choose + (j - 1.0) * (d + j / n).ln() + power).exp();
        }
        j += 1.0;
    }
    d * sum
}

/// P(D_n < d).
fn durbin(n: u64, d: f64) -> f64 {
    let nd = n as f64 * d;
    let k = nd.ceil() as usize;
    let h = k as f64 - nd;
    let size = 2 * k - 1;
    let mut matrix = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..size {
            matrix[i * size + j] = if i + 1 >= j { 1.0 } else { 0.0 };
        }
    }
    for i in 0..size {
        matrix[i * size] -= h.powi(i as i32 + 1);
        matrix[(size - 1) * size + i] -= h.powi((size - i) as i32);
    }
    matrix[(size - 1) * size] += if 2.0 * h - 1.0 > 0.0 {
        (2.0 * h - 1.0).powi(size as i32)
    } else {
        0.0
    };
    for i in 0..size {
        for j in 0..size {
            if i + 1 > j {
                for g in 1..=(i + 1 - j) {
                    matrix[i * size + j] /= g as f64;
                }
            }
        }
    }
    let (power, mut exponent) = matrix_power(&matrix, size, n);
    let mut s = power[(k - 1) * size + k - 1];
    for i in 1..=n {
        s *= i as f64 / n as f64;
        if s < 1e-140 {
            s *= 1e140;
            exponent -= 140;
        }
    }
    s * 10f64.powi(exponent)
}

/// `matrix^n` and the power of ten that was taken out of it.
fn matrix_power(matrix: &[f64], size: usize, mut n: u64) -> (Vec<f64>, i32) {
    let mut result: Vec<f64> = (0..size * size)
        .map(|i| f64::from(u8::from(i % (size + 1) == 0)))
        .collect();
    let (mut base, mut result_exponent, mut base_exponent) = (matrix.to_vec(), 0, 0);
    let scale = |m: &mut Vec<f64>, exponent: &mut i32| {
        if m[(size / 2) * size + size / 2] > 1e140 {
            m.iter_mut().for_each(|x| *x *= 1e-140);
            *exponent += 140;
        }
    };
    while n > 0 {
        if n % 2 == 1 {
            result = multiply(&result, &base, size);
            result_exponent += base_exponent;
            scale(&mut result, &mut result_exponent);
        }
        n /= 2;
        if n > 0 {
            base = multiply(&base, &base, size);
            base_exponent *= 2;
            scale(&mut base, &mut base_exponent);
        }
    }
    (result, result_exponent)
}

fn multiply(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let mut product = vec![0.0; size * size];
    for (row, out) in a.chunks_exact(size).zip(product.chunks_exact_mut(size)) {
        for (x, line) in row.iter().zip(b.chunks_exact(size)) {
            if *x != 0.0 {
                out.iter_mut().zip(line).for_each(|(o, y)| *o += x * y);
            }
        }
    }
    product
}

/// P(D_n < d) to order n^(-3/2).
fn pelz_good(n: f64, d: f64) -> f64 {
    use std::f64::consts::PI;
    let z = n.sqrt() * d;
    let (z2, pi2) = (z * z, PI * PI);
    let (z4, z6) = (z2 * z2, z2 * z2 * z2);
    let (mut k0, mut k1, mut k2, mut k2b, mut k3, mut k3b) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for k in 0..40 {
        let half = (f64::from(k) + 0.5).powi(2); // twice, for k and −k − 1
        let e = 2.0 * (-pi2 * half / (2.0 * z2)).exp();
        k0 += e;
        k1 += (pi2 * half - z2) * e;
        k2 += (6.0 * z6
            + 2.0 * z4
            + pi2 * (2.0 * z4 - 5.0 * z2) * half
            + pi2 * pi2 * (1.0 - 2.0 * z2) * half * half)
            * e;
        k3 += (-30.0 * z6 - 90.0 * z6 * z2
            + pi2 * (135.0 * z4 - 96.0 * z6) * half
            + pi2 * pi2 * (212.0 * z4 - 60.0 * z2) * half * half
            + pi2 * pi2 * pi2 * (5.0 - 30.0 * z2) * half * half * half)
            * e;
        let whole = f64::from(k).powi(2);
        let w = 2.0 * (-pi2 * whole / (2.0 * z2)).exp();
        k2b += pi2 * whole * w;
        k3b += (3.0 * pi2 * z2 * whole - pi2 * pi2 * whole * whole) * w;
    }
    let root = (PI / 2.0).sqrt();
    let first = root / z * k0;
    let second = root / (6.0 * z4) * k1;
    let third = root / (72.0 * z6 * z) * k2 - root / (36.0 * z2 * z) * k2b;
    let fourth = root / (6480.0 * z6 * z4) * k3 + root / (108.0 * z6) * k3b;
    first + second / n.sqrt() + third / n + fourth / (n * n.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_one_sample_laws_agree_where_they_meet() {
        for z in [0.6, 0.9, 1.2, 1.7] {
            let (n, d) = (900u64, z / 30.0);
            let (exact, expanded) = (durbin(n, d), pelz_good(900.0, d));
            assert!((exact - expanded).abs() < 3e-7, "{z}: {exact} {expanded}");
        }
        let (n, d) = (400u64, 1.8 / 20.0);
        let (exact, doubled) = (1.0 - durbin(n, d), 2.0 * one_sided(400.0, d));
        assert!((exact / doubled - 1.0).abs() < 1e-7, "{exact} {doubled}");
    }

    #[test]
    fn known_values_of_the_exact_laws() {
        // Marsaglia, Tsang, Wang (2003): K(10, 0.274) = 0.6284796154565…
        assert!((durbin(10, 0.274) - 0.628_479_615_456_504_2).abs() < 1e-12);
        // Two samples of three, D = 1: 2 of 20 paths.
        assert!((two_sample(3, 3, 1.0) - 0.1).abs() < 1e-15);
        assert!((two_sample(3, 3, 1.0 / 3.0) - 1.0).abs() < 1e-15);
        assert_eq!(two_sample(4, 7, 0.0), 1.0);
    }
}
