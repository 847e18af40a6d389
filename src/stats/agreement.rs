//! How far two raters agree.

/// Cohen's kappa with quadratic weights (Cohen 1968), of ratings on a scale of numbers; of two values it is Cohen's kappa (1960) itself.
///
/// κ = 1 − Σ (aᵢ − bᵢ)² / n over its expectation were the ratings paired at random, which is 2 cov(a, b) / (var a + var b + (mean a − mean b)²)
/// with population variances: scikit-learn's `cohen_kappa_score(weights="quadratic")`. NaN where both raters say one and the same throughout, or
/// nothing. `weights` says how often each pair counts.
#[must_use]
pub fn kappa(a: &[f64], b: &[f64], weights: Option<&[f64]>) -> f64 {
    let pairs = || a.iter().zip(b).enumerate();
    let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
    let n: f64 = pairs().map(|(i, _)| weight(i)).sum();
    let mean = |of: &dyn Fn(f64, f64) -> f64| {
        let sum: f64 = pairs().map(|(i, (a, b))| weight(i) * of(*a, *b)).sum();
        sum / n
    };
    let (mean_a, mean_b) = (mean(&|a, _| a), mean(&|_, b| b));
    let covariance = mean(&|a, b| (a - mean_a) * (b - mean_b));
    let spread = mean(&|a, b| (a - mean_a).powi(2) + (b - mean_b).powi(2));
    let expected = spread + (mean_a - mean_b).powi(2);
    match expected > 0.0 {
        true => 2.0 * covariance / expected,
        false => f64::NAN,
    }
}

/// The share of positives that a rater with this sensitivity and specificity would have to see to call this share positive (Rogan, Gladen 1978):
/// (p + specificity − 1) / (sensitivity + specificity − 1), within 0 and 1. NaN for a rater that is no better than chance.
#[must_use]
pub fn corrected(share: f64, sensitivity: f64, specificity: f64) -> f64 {
    let better = sensitivity + specificity - 1.0;
    match better > 0.0 {
        true => ((share + specificity - 1.0) / better).clamp(0.0, 1.0),
        false => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_is_that_of_scikit_learn() {
        // Two by two: 20 both yes, 5 and 10 only one, 15 both no: (0.7 − 0.5) / (1 − 0.5).
        let mut pairs = Vec::new();
        for (a, b, times) in [
            (1.0, 1.0, 20),
            (1.0, 0.0, 5),
            (0.0, 1.0, 10),
            (0.0, 0.0, 15),
        ] {
            pairs.extend(std::iter::repeat_n((a, b), times));
        }
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        assert!((kappa(&a, &b, None) - 0.4).abs() < 1e-12);
        // cohen_kappa_score([1, 2, 3, 4, 5, 3], [1, 2, 4, 4, 3, 3], weights="quadratic")
        let (a, b) = (
            [1.0, 2.0, 3.0, 4.0, 5.0, 3.0],
            [1.0, 2.0, 4.0, 4.0, 3.0, 3.0],
        );
        let (observed, mut expected) = (5.0, 0.0);
        for a in a {
            for b in b {
                let d: f64 = a - b;
                expected += d * d / 6.0;
            }
        }
        assert!((kappa(&a, &b, None) - (1.0 - observed / expected)).abs() < 1e-12);
        assert!(kappa(&[1.0, 1.0], &[1.0, 1.0], None).is_nan());
        assert!(kappa(&[], &[], None).is_nan());
        assert_eq!(kappa(&[0.0, 1.0], &[0.0, 1.0], None), 1.0);
        assert_eq!(kappa(&[0.0, 1.0], &[1.0, 0.0], None), -1.0);
    }

    #[test]
    fn weights_are_repetitions() {
        let (a, b) = ([0.0, 1.0, 1.0], [0.0, 1.0, 0.0]);
        let repeated = kappa(&[0.0, 0.0, 1.0, 1.0], &[0.0, 0.0, 1.0, 0.0], None);
        assert!((kappa(&a, &b, Some(&[2.0, 1.0, 1.0])) - repeated).abs() < 1e-12);
    }

    #[test]
    fn a_rate_is_corrected_for_the_rater() {
        assert_eq!(corrected(0.7, 1.0, 1.0), 0.7);
        assert!((corrected(0.62, 0.9, 0.8) - 0.6).abs() < 1e-12);
        assert_eq!(corrected(0.05, 0.9, 0.8), 0.0);
        assert!(corrected(0.5, 0.5, 0.5).is_nan());
    }
}
