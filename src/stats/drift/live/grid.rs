//! A column of the reference as cells, and how far a sample's shares of them are from its own.

use crate::stats::profile::{Category, ColumnProfile, Histogram};
use crate::stats::sketch::{CategorySketch, ColumnKind, NumericSketch};

/// A smaller standard deviation counts as this, as in Evidently.
const SMALLEST_STD: f64 = 0.001;
/// A category of less than one value in so many is rare: it is pooled with the others.
const RARE: u64 = 200;

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
    /// The frequent categories, and all others as the last cell.
    Categories { shares: Vec<f64> },
}

impl Grid {
    /// `None` if the column has no values.
    pub(crate) fn of(column: &ColumnProfile) -> Option<Self> {
        if column.kind == ColumnKind::Categorical {
            let counts: Vec<f64> = frequent(column)
                .iter()
                .map(|c| c.count)
                .chain([rare(column)])
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

    /// The share of each cell in the reference.
    pub(crate) fn shares(&self) -> Vec<f64> {
        match self {
            Self::Bins { below, .. } => below.windows(2).map(|b| b[1] - b[0]).collect(),
            Self::Atoms { shares, .. } | Self::Categories { shares } => shares.clone(),
        }
    }

    /// The same cells with other shares: what a part of the reference is.
    pub(crate) fn with(&self, other: &[f64]) -> Self {
        let mut grid = self.clone();
        match &mut grid {
            Self::Bins { below, .. } => *below = cumulative(other),
            Self::Atoms { shares, .. } | Self::Categories { shares } => *shares = other.to_vec(),
        }
        grid
    }

    /// What the score of numbers drawn at random is in proportion to: ∫√(F(1 − F)). That of categories depends on how many there are.
    pub(crate) fn spread(&self) -> f64 {
        let root = |below: f64| (below * (1.0 - below)).max(0.0).sqrt();
        match self {
            Self::Bins { edges, below, .. } => edges
                .windows(2)
                .zip(below.windows(2))
                .map(|(x, f)| (x[1] - x[0]) * f64::midpoint(root(f[0]), root(f[1])))
                .sum(),
            Self::Atoms { values, shares, .. } => values
                .windows(2)
                .zip(&cumulative(shares)[1..])
                .map(|(x, below)| (x[1] - x[0]) * root(*below))
                .sum(),
            Self::Categories { .. } => 1.0,
        }
    }

    /// Which of so many groups a cell is in: neighbouring numbers, or the rarest categories, are in one.
    pub(crate) fn group(&self, cell: usize, groups: usize) -> usize {
        match self {
            Self::Categories { .. } => cell.min(groups - 1),
            Self::Bins { .. } | Self::Atoms { .. } => cell * groups / self.cells(),
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

    pub(super) fn score_sketch(&self, live: &NumericSketch) -> f64 {
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

    pub(super) fn score_categories(&self, reference: &ColumnProfile, live: &CategorySketch) -> f64 {
        let Self::Categories { shares } = self else {
            return f64::NAN; // Kinds were compared before.
        };
        let (mut p, mut q) = (vec![], vec![]);
        let (mut p_other, mut named) = (shares.last().copied().unwrap_or(0.0), 0);
        for (category, share) in frequent(reference).iter().zip(shares) {
            match live.get(&category.name) {
                Some(count) => {
                    p.push(*share);
                    q.push(count as f64);
                    named += count;
                }
                // Pooled on the live side, so pooled on both.
                None => p_other += share,
            }
        }
        p.push(p_other);
        q.push((live.count() - named) as f64);
        match (normalized(&p), normalized(&q)) {
            (Some(p), Some(q)) => jensen_shannon(&p, &q),
            _ => 0.0,
        }
    }
}

/// Categories that are compared by name: at least one in [`RARE`] values is one.
pub(super) fn frequent(column: &ColumnProfile) -> &[Category] {
    let enough = |c: &Category| c.count.saturating_mul(RARE) >= column.count;
    &column.categories[..column.categories.partition_point(enough)]
}

/// Occurrences of all others.
fn rare(column: &ColumnProfile) -> u64 {
    let named: u64 = frequent(column).iter().map(|c| c.count).sum();
    column.count.saturating_sub(named)
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
pub(super) fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
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
