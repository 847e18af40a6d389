//! The methods by name, with their thresholds.

use serde::{Deserialize, Serialize};

use super::{Pair, distance, test};

/// A way to compare two columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// Kolmogorov–Smirnov test: numbers.
    #[serde(rename = "KS")]
    KolmogorovSmirnov,
    /// Pearson's chi-square test against the reference's shares.
    ChiSquare,
    /// Z test of a share: at most two values.
    Z,
    /// Wasserstein distance in standard deviations of the reference: numbers.
    Wasserstein,
    /// Jensen–Shannon distance.
    JensenShannon,
    /// Population stability index.
    #[serde(rename = "PSI")]
    Psi,
    /// Kullback–Leibler divergence.
    KullbackLeibler,
    /// Hellinger distance.
    Hellinger,
    /// Total variation distance.
    TotalVariation,
    /// Energy distance: numbers.
    Energy,
    /// Anderson–Darling test for two samples: numbers.
    AndersonDarling,
    /// Cramér–von Mises test: numbers.
    CramerVonMises,
    /// Mann–Whitney U test, one-sided ("less") as in Evidently: numbers.
    MannWhitney,
    /// Student's t test, equal variances: numbers.
    T,
    /// G test (likelihood ratio) against the reference's shares: categories.
    G,
    /// Fisher's exact test: two categories.
    FisherExact,
    /// Area under the curve of a classifier that tells the sides apart ([`domain_classifier`](super::domain_classifier)): embeddings and texts.
    DomainClassifier,
}

/// What a method says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The distance, or the p-value of a test.
    pub score: f64,
    /// The p-value, of a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// What the score was compared with.
    pub threshold: f64,
    /// Whether the score is beyond it.
    pub drifted: bool,
}

/// A method that can't compare a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{method:?} can't compare this column: {why}")]
pub struct Unsuited {
    /// The method.
    pub method: Method,
    /// What it needs.
    pub why: &'static str,
}

impl Method {
    /// Evidently's choice by type, size of the reference and distinct values: up to 1,000 rows a test, beyond a distance.
    #[must_use]
    pub fn choose(pair: &Pair) -> Self {
        let distinct = pair.distinct();
        match (pair.n <= 1000.0, pair.is_numeric()) {
            (true, true) if distinct > 5 => Self::KolmogorovSmirnov,
            (true, _) if distinct > 2 => Self::ChiSquare,
            (true, _) => Self::Z,
            (false, true) if distinct > 5 => Self::Wasserstein,
            (false, _) => Self::JensenShannon,
        }
    }

    /// Whether the score is a p-value: drift when it is small.
    #[must_use]
    pub fn is_test(self) -> bool {
        match self {
            Self::KolmogorovSmirnov
            | Self::ChiSquare
            | Self::Z
            | Self::AndersonDarling
            | Self::CramerVonMises
            | Self::MannWhitney
            | Self::T
            | Self::G
            | Self::FisherExact => true,
            Self::Wasserstein
            | Self::JensenShannon
            | Self::Psi
            | Self::KullbackLeibler
            | Self::Hellinger
            | Self::TotalVariation
            | Self::Energy
            | Self::DomainClassifier => false,
        }
    }

    /// 0.05 for tests, 0.1 for distances, 0.55 for the area under a curve.
    #[must_use]
    pub fn default_threshold(self) -> f64 {
        match self {
            Self::DomainClassifier => 0.55,
            _ if self.is_test() => 0.05,
            _ => 0.1,
        }
    }

    /// Evidently's name for it.
    #[must_use]
    pub fn display_name(self) -> &'static str {
        match self {
            Self::KolmogorovSmirnov => "K-S p_value",
            Self::ChiSquare => "chi-square p_value",
            Self::Z => "Z-test p_value",
            Self::Wasserstein => "Wasserstein distance (normed)",
            Self::JensenShannon => "Jensen-Shannon distance",
            Self::Psi => "PSI",
            Self::KullbackLeibler => "Kullback-Leibler divergence",
            Self::Hellinger => "Hellinger distance",
            Self::TotalVariation => "Total-Variation-Distance",
            Self::Energy => "Energy-distance",
            Self::AndersonDarling => "Anderson-Darling p_value",
            Self::CramerVonMises => "Cramer-von Mises p_value",
            Self::MannWhitney => "Mann-Whitney U-test p_value",
            Self::T => "t-test p_value",
            Self::G => "G-test p_value",
            Self::FisherExact => "Fisher's Exact test p_value",
            Self::DomainClassifier => "Domain classifier ROC AUC",
        }
    }

    /// Compares; `threshold` in place of the default. A score of NaN is no drift.
    ///
    /// # Errors
    /// If the method can't be used on such a column.
    pub fn compare(self, pair: &Pair, threshold: Option<f64>) -> Result<Outcome, Unsuited> {
        let unsuited = |why| Unsuited { method: self, why };
        let numbers = || {
            pair.is_numeric()
                .then_some(())
                .ok_or(unsuited("it needs numbers"))
        };
        let few = unsuited("it needs more values, or values that differ");
        let (score, p_value) = match self {
            Self::KolmogorovSmirnov => {
                numbers().map(|()| test::kolmogorov_smirnov(pair).p_value)?
            }
            Self::AndersonDarling => {
                numbers()?;
                test::anderson_darling(pair).ok_or(few)?.p_value
            }
            Self::CramerVonMises => {
                numbers()?;
                test::cramer_von_mises(pair).ok_or(few)?.p_value
            }
            Self::MannWhitney => numbers().map(|()| test::mann_whitney(pair).p_value)?,
            Self::T => numbers().map(|()| test::t(pair).p_value)?,
            Self::Wasserstein => numbers().map(|()| distance::wasserstein(pair))?,
            Self::Energy => numbers().map(|()| distance::energy(pair))?,
            Self::ChiSquare => test::chi_square(pair).p_value,
            Self::G => {
                test::g(pair)
                    .ok_or(unsuited("each category must be in the reference"))?
                    .p_value
            }
            Self::Z => {
                test::z(pair)
                    .ok_or(unsuited("it needs at most two values"))?
                    .p_value
            }
            Self::FisherExact => test::fisher_exact(pair).ok_or(unsuited("it needs two values"))?,
            Self::JensenShannon => distance::jensen_shannon(pair),
            Self::Psi => distance::psi(pair),
            Self::KullbackLeibler => distance::kullback_leibler(pair),
            Self::Hellinger => distance::hellinger(pair),
            Self::TotalVariation => distance::total_variation(pair),
            Self::DomainClassifier => return Err(unsuited("it needs embeddings or texts")),
        }
        .into_outcome(self.is_test());
        let threshold = threshold.unwrap_or(self.default_threshold());
        let drifted = match self {
            Self::KolmogorovSmirnov => score <= threshold, // as in Evidently
            Self::Energy => score > threshold,
            _ if self.is_test() => score < threshold,
            _ => score >= threshold,
        };
        Ok(Outcome {
            score,
            p_value,
            threshold,
            drifted,
        })
    }
}

trait IntoOutcome {
    /// The score, and the same as p-value if it is one.
    fn into_outcome(self, is_test: bool) -> (f64, Option<f64>);
}

impl IntoOutcome for f64 {
    fn into_outcome(self, is_test: bool) -> (f64, Option<f64>) {
        (self, is_test.then_some(self))
    }
}
