//! Live traffic against a profile.
//!
//! - Numeric columns: the Wasserstein distance ∫|F_r − F_c| divided by the reference's standard deviation (at least 0.001),
//!   as Evidently's `Wasserstein distance (normed)`; on the profile's 32 bins within its range, and on the live sketch's
//!   own buckets outside.
//! - Categorical columns: the Jensen–Shannon distance √((KL(P‖M)+KL(Q‖M))/2), natural logarithm, at most 0.8326; rare and
//!   new categories are pooled.
//!
//! A column has drifted when its score is beyond its threshold *and* beyond what samples of that size from the
//! reference itself give 99 times in 100 ([`ColumnProfile::noise_at`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Method;
use crate::stats::profile::{ColumnProfile, Histogram, Profile};
use crate::stats::sketch::{CategorySketch, ColumnKind, ColumnSketch, NumericSketch, RowSketch};

/// The threshold of a column that has none, and for which there is no `"*"` either.
pub const DEFAULT_THRESHOLD: f64 = 0.1;
/// `minSamples` where it isn't given.
pub const DEFAULT_MIN_SAMPLES: u64 = 5_000;
/// A smaller standard deviation counts as this, as in Evidently.
const SMALLEST_STD: f64 = 0.001;
/// A numeric column of which more than this share is no number isn't that column.
const TYPE_CHANGE_SHARE: f64 = 0.5;

/// What to compare and when a column has drifted: `spec.monitoring.drift` of a ModelDeployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Columns to compare; empty: all that the profile has.
    pub columns: Vec<String>,
    /// Threshold by column; `"*"` is for those not named.
    pub thresholds: BTreeMap<String, f64>,
    /// A column that was seen less often isn't judged (nulls count as seen, up to half).
    pub min_samples: u64,
    /// Columns that follow the calendar: shown, not counted.
    pub calendar: BTreeSet<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            columns: Vec::new(),
            thresholds: BTreeMap::new(),
            min_samples: DEFAULT_MIN_SAMPLES,
            calendar: BTreeSet::new(),
        }
    }
}

impl Rule {
    /// The threshold of a column.
    #[must_use]
    pub fn threshold(&self, column: &str) -> f64 {
        let found = self
            .thresholds
            .get(column)
            .or_else(|| self.thresholds.get("*"));
        found.copied().unwrap_or(DEFAULT_THRESHOLD)
    }
}

/// Why a column's verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Beyond the threshold and beyond the reference's own noise.
    Drifted,
    /// Not beyond the threshold.
    WithinThreshold,
    /// Beyond the threshold, but samples of the reference itself are too.
    WithinNoise,
    /// Beyond the threshold, but the column follows the calendar: shown, not counted.
    Calendar,
    /// Seen less often than `minSamples`, or mostly null: nothing is known.
    NotEnoughSamples,
    /// No request had this column: nothing is known.
    NotObserved,
    /// The column is unknown to the reference, or its values are of another type.
    SchemaMismatch,
}

impl Reason {
    /// Whether the column was compared and counts in the drifted share.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(
            self,
            Self::Drifted | Self::WithinThreshold | Self::WithinNoise
        )
    }
}

/// The verdict on one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnDrift {
    /// The column.
    pub column: String,
    /// How it was compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<Method>,
    /// The distance; absent where nothing could be compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// The column's threshold.
    pub threshold: f64,
    /// What samples of this size from the reference itself score at most, 99 times in 100.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub noise: Option<f64>,
    /// Whether it has drifted. `false` alone doesn't mean that it hasn't: see `reason`.
    pub drifted: bool,
    /// Values that were compared.
    pub samples: u64,
    /// Nulls among the column's values.
    pub nulls: u64,
    /// Why.
    pub reason: Reason,
    /// The same in a sentence.
    pub message: String,
}

/// The verdict on all columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Rows of live traffic.
    pub rows: u64,
    /// Columns that were compared and count.
    pub compared: usize,
    /// Those of them that have drifted.
    pub drifted: usize,
    /// `drifted / compared`; absent if nothing could be compared, which isn't "no drift".
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share: Option<f64>,
    /// Every column: drifted ones first, then by score over threshold.
    pub columns: Vec<ColumnDrift>,
}

/// Compares live traffic with the profile of the reference.
#[must_use]
pub fn compare(reference: &Profile, live: &RowSketch, rule: &Rule) -> Drift {
    let wanted = |name: &str| rule.columns.is_empty() || rule.columns.iter().any(|c| c == name);
    let mut columns: Vec<ColumnDrift> = reference
        .columns
        .iter()
        .filter(|c| wanted(&c.name))
        .map(|column| compare_column(column, live.columns.get(&column.name), rule))
        .collect();
    let unknown = |name: &str, samples: u64, message: String| ColumnDrift {
        column: name.to_string(),
        method: None,
        score: None,
        threshold: rule.threshold(name),
        noise: None,
        drifted: false,
        samples,
        nulls: 0,
        reason: Reason::SchemaMismatch,
        message,
    };
    for (name, &count) in &live.unknown {
        if reference.column(name).is_none() {
            let message =
                format!("{count} requests had the column {name}, which the reference doesn't know");
            columns.push(unknown(name, count, message));
        }
    }
    for name in &rule.columns {
        if reference.column(name).is_none() && !live.unknown.contains_key(name) {
            let message = format!(
                "the reference has no column {name}: correct spec.monitoring.drift.columns"
            );
            columns.push(unknown(name, 0, message));
        }
    }
    let compared = columns.iter().filter(|c| c.reason.counts()).count();
    let drifted = columns.iter().filter(|c| c.drifted).count();
    let excess = |c: &ColumnDrift| {
        c.score
            .map_or(-1.0, |s| s / c.threshold.max(f64::MIN_POSITIVE))
    };
    columns.sort_by(|a, b| {
        b.drifted
            .cmp(&a.drifted)
            .then(excess(b).total_cmp(&excess(a)))
            .then(a.column.cmp(&b.column))
    });
    let share = (compared > 0).then(|| drifted as f64 / compared as f64);
    Drift {
        rows: live.rows,
        compared,
        drifted,
        share,
        columns,
    }
}

/// Compares one column; `live` is absent if no sketch of it was kept.
#[must_use]
pub fn compare_column(
    reference: &ColumnProfile,
    live: Option<&ColumnSketch>,
    rule: &Rule,
) -> ColumnDrift {
    let name = &reference.name;
    let threshold = rule.threshold(name);
    let mut result = ColumnDrift {
        column: name.clone(),
        method: Some(match reference.kind {
            ColumnKind::Numeric => Method::Wasserstein,
            ColumnKind::Categorical => Method::JensenShannon,
        }),
        score: None,
        threshold,
        noise: None,
        drifted: false,
        samples: live.map_or(0, ColumnSketch::samples),
        nulls: live.map_or(0, ColumnSketch::nulls),
        reason: Reason::NotObserved,
        message: format!("no request had the column {name}"),
    };
    let Some(live) = live else { return result };
    let seen = result.samples + result.nulls + live.type_changes();
    if seen == 0 {
        return result;
    }
    if live.kind() != reference.kind || live.type_changes() as f64 > TYPE_CHANGE_SHARE * seen as f64
    {
        result.reason = Reason::SchemaMismatch;
        result.message = if live.kind() == reference.kind {
            format!(
                "{name} is numeric in the reference; {} of {seen} live values were not",
                live.type_changes()
            )
        } else {
            format!(
                "{name} is {:?} in the reference and {:?} in live traffic",
                reference.kind,
                live.kind()
            )
        };
        return result;
    }
    // A few nulls don't make a window too small, but mostly nulls do.
    let needed = rule.min_samples.max(1);
    let enough = result.samples + result.nulls >= needed && 2 * result.samples >= needed;
    if !enough {
        result.reason = Reason::NotEnoughSamples;
        result.message = format!(
            "{} of {needed} values seen, and {} nulls",
            result.samples, result.nulls
        );
    }
    let Some(grid) = Grid::of(reference) else {
        result.reason = Reason::NotEnoughSamples;
        result.message = format!("the reference has no values in {name}");
        return result;
    };
    let score = match live {
        ColumnSketch::Numeric { values, .. } if values.count() > 0 => grid.score_sketch(values),
        ColumnSketch::Categorical { values, .. } if values.count() > 0 => {
            grid.score_categories(reference, values)
        }
        _ => return result,
    };
    result.score = Some(score);
    result.noise = reference.noise_at(result.samples);
    if !enough {
        return result;
    }
    let noise = result.noise.unwrap_or(0.0);
    (result.reason, result.message) = if score <= threshold {
        (
            Reason::WithinThreshold,
            format!("{score:.3} is not beyond {threshold}"),
        )
    } else if score <= noise {
        let text = format!(
            "{score:.3} is beyond {threshold}, but samples of the reference reach {noise:.3}"
        );
        (Reason::WithinNoise, text)
    } else if rule.calendar.contains(name) {
        (
            Reason::Calendar,
            format!("{score:.3} is beyond {threshold}; it follows the calendar and isn't counted"),
        )
    } else {
        (
            Reason::Drifted,
            format!("{score:.3} is beyond {threshold} and beyond the noise of {noise:.3}"),
        )
    };
    result.drifted = result.reason == Reason::Drifted;
    result
}

/// A reference column as cells, each with its share: what a sample's shares are compared with.
#[derive(Clone, Debug)]
pub(crate) enum Grid {
    /// Bins: one more edge than cells.
    Bins {
        edges: Vec<f64>,
        /// Just below the edges: where values are told apart.
        cuts: Vec<f64>,
        below: Vec<f64>,
        std: f64,
    },
    /// The values themselves.
    Atoms {
        values: Vec<f64>,
        shares: Vec<f64>,
        std: f64,
    },
    /// Named categories, and all others as the last cell.
    Categories { shares: Vec<f64> },
}

impl Grid {
    /// `None` if the column has no values.
    pub(crate) fn of(column: &ColumnProfile) -> Option<Self> {
        if column.kind == ColumnKind::Categorical {
            let counts: Vec<f64> = column
                .categories
                .iter()
                .map(|c| c.count)
                .chain([column.other])
                .map(|c| c as f64)
                .collect();
            return normalized(&counts).map(|shares| Self::Categories { shares });
        }
        let Histogram {
            edges,
            counts,
            discrete,
        } = column.histogram.as_ref()?;
        let wanted = if *discrete {
            counts.len()
        } else {
            counts.len() + 1
        };
        if edges.len() != wanted {
            return None;
        }
        let std = column.std.unwrap_or(0.0).max(SMALLEST_STD);
        let shares = normalized(&counts.iter().map(|&c| c as f64).collect::<Vec<_>>())?;
        Some(if *discrete {
            Self::Atoms {
                values: edges.clone(),
                shares,
                std,
            }
        } else {
            Self::Bins {
                cuts: edges
                    .iter()
                    .zip(slack(edges))
                    .map(|(edge, slack)| edge - slack)
                    .collect(),
                edges: edges.clone(),
                below: cumulative(&shares),
                std,
            }
        })
    }

    /// How many cells there are.
    pub(crate) fn cells(&self) -> usize {
        match self {
            Self::Bins { edges, .. } => edges.len() - 1,
            Self::Atoms { values, .. } => values.len(),
            Self::Categories { shares } => shares.len(),
        }
    }

    /// The cell of one of the reference's own numbers.
    pub(crate) fn cell(&self, x: f64) -> usize {
        match self {
            Self::Bins { cuts, .. } => cuts
                .partition_point(|&c| c <= x)
                .saturating_sub(1)
                .min(cuts.len() - 2),
            Self::Atoms { values, .. } => {
                let nearest = values.partition_point(|&v| v < x).min(values.len() - 1);
                let below = nearest.saturating_sub(1);
                if (values[below] - x).abs() < (values[nearest] - x).abs() {
                    below
                } else {
                    nearest
                }
            }
            Self::Categories { shares } => shares.len() - 1,
        }
    }

    /// The score of a sample given as counts by cell.
    pub(crate) fn score(&self, counts: &[f64]) -> f64 {
        let Some(shares) = normalized(counts) else {
            return 0.0;
        };
        match self {
            Self::Bins {
                edges, below, std, ..
            } => binned(edges, below, &cumulative(&shares)) / std,
            Self::Atoms {
                values,
                shares: reference,
                std,
            } => {
                let pairs = |s: &[f64]| {
                    values
                        .iter()
                        .copied()
                        .zip(s.iter().copied())
                        .collect::<Vec<_>>()
                };
                stepped(&pairs(reference), &pairs(&shares)) / std
            }
            Self::Categories { shares: reference } => jensen_shannon(reference, &shares),
        }
    }

    fn score_sketch(&self, live: &NumericSketch) -> f64 {
        let total = live.count() as f64;
        match self {
            Self::Bins {
                edges,
                cuts,
                below,
                std,
            } => {
                let mut shares: Vec<f64> = live.below(cuts).iter().map(|c| c / total).collect();
                let last = edges.len() - 1;
                let (low, high) = (cuts[0], 2.0 * edges[last] - cuts[last]);
                // The last edge belongs to the last bin.
                let above: u64 = live.points().filter(|(x, _)| *x > high).map(|p| p.1).sum();
                shares[last] = 1.0 - above as f64 / total;
                let outside: f64 = live
                    .points()
                    .map(|(x, c)| ((low - x).max(x - high).max(0.0) / std) * (c as f64 / total))
                    .sum();
                binned(edges, below, &shares) / std + outside
            }
            Self::Atoms {
                values,
                shares,
                std,
            } => {
                let reference: Vec<_> =
                    values.iter().copied().zip(shares.iter().copied()).collect();
                let sample: Vec<_> = live.points().map(|(x, c)| (x, c as f64 / total)).collect();
                stepped(&reference, &sample) / std
            }
            Self::Categories { .. } => f64::NAN, // Kinds were compared before.
        }
    }

    fn score_categories(&self, reference: &ColumnProfile, live: &CategorySketch) -> f64 {
        let (mut p, mut q) = (vec![], vec![]);
        let (mut p_other, mut named) = (reference.other, 0);
        for category in &reference.categories {
            match live.get(&category.name) {
                Some(count) => {
                    p.push(category.count as f64);
                    q.push(count as f64);
                    named += count;
                }
                // Pooled on the live side, so pooled on both.
                None => p_other += category.count,
            }
        }
        p.push(p_other as f64);
        q.push((live.count() - named) as f64);
        match (normalized(&p), normalized(&q)) {
            (Some(p), Some(q)) => jensen_shannon(&p, &q),
            _ => 0.0,
        }
    }
}

/// How far below an edge a value may lie and still be meant by it: edges are rounded, and requests may lose digits that the training data
/// had (tensors of FP32); but no more than a thousandth of the bins beside it.
fn slack(edges: &[f64]) -> Vec<f64> {
    let gap = |i: usize| edges[i + 1] - edges[i];
    (0..edges.len())
        .map(|i| {
            let before = if i > 0 { gap(i - 1) } else { f64::INFINITY };
            let after = if i + 1 < edges.len() {
                gap(i)
            } else {
                f64::INFINITY
            };
            (edges[i].abs() * f64::from(f32::EPSILON)).min(before.min(after) / 1000.0)
        })
        .collect()
}

fn normalized(counts: &[f64]) -> Option<Vec<f64>> {
    let total: f64 = counts.iter().sum();
    (total > 0.0).then(|| counts.iter().map(|c| c / total).collect())
}

/// Shares below each edge, from shares by bin.
fn cumulative(shares: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    std::iter::once(0.0)
        .chain(shares.iter().map(|s| {
            sum += s;
            sum
        }))
        .collect()
}

/// ∫|F − G| over the edges, both straight between them.
fn binned(edges: &[f64], f: &[f64], g: &[f64]) -> f64 {
    let mut area = 0.0;
    for i in 1..edges.len() {
        let (a, b) = (f[i - 1] - g[i - 1], f[i] - g[i]);
        let mean = if a * b >= 0.0 {
            (a + b).abs() / 2.0
        } else {
            (a * a + b * b) / (2.0 * (a.abs() + b.abs()))
        };
        area += mean * (edges[i] - edges[i - 1]);
    }
    area
}

/// ∫|F − G| of two step functions, each given as ascending (value, share).
fn stepped(f: &[(f64, f64)], g: &[(f64, f64)]) -> f64 {
    let (mut i, mut j) = (0, 0);
    let (mut difference, mut area, mut last) = (0.0f64, 0.0, f64::NAN);
    while i < f.len() || j < g.len() {
        let x = match (f.get(i), g.get(j)) {
            (Some(a), Some(b)) => a.0.min(b.0),
            (Some(a), None) => a.0,
            (None, Some(b)) => b.0,
            (None, None) => break,
        };
        if !last.is_nan() {
            area += difference.abs() * (x - last);
        }
        while i < f.len() && f[i].0 <= x {
            difference += f[i].1;
            i += 1;
        }
        while j < g.len() && g[j].0 <= x {
            difference -= g[j].1;
            j += 1;
        }
        last = x;
    }
    area
}

/// The Jensen–Shannon distance of two lists of shares, natural logarithm.
fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let part = |a: f64, m: f64| if a > 0.0 { a * (a / m).ln() } else { 0.0 };
    let divergence: f64 = p
        .iter()
        .zip(q)
        .map(|(&p, &q)| {
            let m = f64::midpoint(p, q);
            part(p, m) + part(q, m)
        })
        .sum();
    (divergence / 2.0).max(0.0).sqrt()
}

#[cfg(test)]
mod tests;
