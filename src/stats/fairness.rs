//! Whether a classifier treats groups alike; equal to fairlearn.

use std::collections::BTreeMap;

use serde::Serialize;

/// One group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// Its rows.
    pub count: u64,
    /// Its positive rows: without any, `true_positive_rate` is a convention.
    pub positives: u64,
    /// Share predicted positive.
    pub selection_rate: f64,
    /// Share of positives predicted positive; 0 without positives, as in fairlearn.
    pub true_positive_rate: f64,
    /// Share of negatives predicted positive; 0 without negatives.
    pub false_positive_rate: f64,
    /// Share of right predictions.
    pub accuracy: f64,
}

/// Groups compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FairnessReport {
    /// All rows.
    pub overall: GroupReport,
    /// By group.
    pub groups: BTreeMap<String, GroupReport>,
}

/// The largest difference and the smallest ratio between groups of one rate; NaN for 0/0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Disparity {
    /// Largest − smallest.
    pub difference: f64,
    /// Smallest / largest.
    pub ratio: f64,
}

/// Measures the groups. Rows beyond the shortest slice are ignored.
#[must_use]
pub fn fairness<S: AsRef<str>>(truth: &[bool], predicted: &[bool], groups: &[S]) -> FairnessReport {
    let mut counts: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
    let mut all = [0; 4];
    for ((&truth, &predicted), group) in truth.iter().zip(predicted).zip(groups) {
        let cell = 2 * usize::from(truth) + usize::from(predicted);
        counts.entry(group.as_ref()).or_default()[cell] += 1;
        all[cell] += 1;
    }
    FairnessReport {
        overall: GroupReport::of(all),
        groups: counts
            .into_iter()
            .map(|(name, c)| (name.to_string(), GroupReport::of(c)))
            .collect(),
    }
}

impl GroupReport {
    /// From counts of (truth, prediction) = 00, 01, 10, 11.
    fn of([tn, fp, fne, tp]: [u64; 4]) -> Self {
        let share = |part: u64, whole: u64| {
            if whole == 0 {
                0.0
            } else {
                part as f64 / whole as f64
            }
        };
        let count = tn + fp + fne + tp;
        Self {
            count,
            positives: fne + tp,
            selection_rate: share(fp + tp, count),
            true_positive_rate: share(tp, tp + fne),
            false_positive_rate: share(fp, fp + tn),
            accuracy: share(tn + tp, count),
        }
    }
}

impl FairnessReport {
    /// The same without groups of fewer rows than `least`, and their names: too little is known of them.
    #[must_use]
    pub fn with_groups_of(&self, least: u64) -> (Self, Vec<String>) {
        let (kept, small): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .groups
            .clone()
            .into_iter()
            .partition(|(_, group)| group.count >= least);
        (
            Self {
                groups: kept,
                ..self.clone()
            },
            small.into_keys().collect(),
        )
    }

    /// The same without groups that have no positive or no negative row: they have no true or false positive rate, and the convention of 0
    /// would pass for a difference.
    #[must_use]
    pub fn with_both_classes(&self) -> (Self, Vec<String>) {
        let (kept, without): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .groups
            .clone()
            .into_iter()
            .partition(|(_, group)| group.positives > 0 && group.positives < group.count);
        (
            Self {
                groups: kept,
                ..self.clone()
            },
            without.into_keys().collect(),
        )
    }

    fn between(&self, rate: impl Fn(&GroupReport) -> f64) -> Disparity {
        let rates = || self.groups.values().map(&rate);
        let (low, high) = (
            rates().fold(f64::INFINITY, f64::min),
            rates().fold(f64::NEG_INFINITY, f64::max),
        );
        Disparity {
            difference: high - low,
            ratio: low / high,
        }
    }

    /// Of the shares predicted positive.
    #[must_use]
    pub fn demographic_parity(&self) -> Disparity {
        self.between(|g| g.selection_rate)
    }

    /// Of the true positive rates.
    #[must_use]
    pub fn equal_opportunity(&self) -> Disparity {
        self.between(|g| g.true_positive_rate)
    }

    /// Of true and false positive rates, whichever is worse.
    #[must_use]
    pub fn equalized_odds(&self) -> Disparity {
        let (t, f) = (
            self.equal_opportunity(),
            self.between(|g| g.false_positive_rate),
        );
        // An undefined one is left out, as in fairlearn.
        let ratio = t.ratio.min(f.ratio);
        Disparity {
            difference: t.difference.max(f.difference),
            ratio,
        }
    }

    /// The mean of the differences of true and false positive rates.
    #[must_use]
    pub fn mean_odds_difference(&self) -> f64 {
        f64::midpoint(
            self.equal_opportunity().difference,
            self.between(|g| g.false_positive_rate).difference,
        )
    }

    /// Of the shares predicted positive against that of all rows.
    #[must_use]
    pub fn demographic_parity_to_overall(&self) -> Disparity {
        let overall = self.overall.selection_rate;
        let rates = || self.groups.values().map(|g| g.selection_rate);
        let smaller = |ratio: f64| if ratio > 1.0 { 1.0 / ratio } else { ratio };
        Disparity {
            difference: rates().map(|r| (r - overall).abs()).fold(0.0, f64::max),
            ratio: rates()
                .map(|r| smaller(r / overall))
                .fold(f64::INFINITY, f64::min),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_groups_are_named_not_judged() {
        let truth = [true, true, false, false, true];
        let predicted = [true, true, false, true, false];
        let report = fairness(&truth, &predicted, &["a", "a", "a", "a", "b"]);
        assert_eq!(report.demographic_parity().difference, 0.75);
        let (kept, small) = report.with_groups_of(2);
        assert_eq!(
            (small, kept.demographic_parity().difference),
            (vec!["b".to_string()], 0.0)
        );
    }
}
