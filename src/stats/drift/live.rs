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

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Method;
use crate::stats::profile::{ColumnProfile, Hours, Profile, Season, season};
use crate::stats::sketch::{ColumnKind, ColumnSketch, RowSketch};
use noise::{Like, Span};

mod grid;
mod noise;

pub(crate) use grid::Grid;
pub use noise::FALSE_ALARMS;

/// The threshold of a column that has none, and for which there is no `"*"` either.
pub const DEFAULT_THRESHOLD: f64 = 0.1;
/// `minSamples` where it isn't given.
pub const DEFAULT_MIN_SAMPLES: u64 = 5_000;
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
    /// How long the window lasted, in seconds; where absent, as long as the reference took for so many rows.
    pub seconds: Option<u64>,
    /// The window is held against like hours of this season.
    pub season: Option<Season>,
    /// When its rows came: needed for `season`.
    pub hours: Hours,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            columns: Vec::new(),
            thresholds: BTreeMap::new(),
            min_samples: DEFAULT_MIN_SAMPLES,
            seconds: None,
            season: None,
            hours: Hours::default(),
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
    /// The column follows the calendar: shown, not counted.
    Calendar,
    /// Seen less often than `minSamples`, or mostly null: nothing is known.
    NotEnoughSamples,
    /// No request had this column: nothing is known.
    NotObserved,
    /// The column is unknown to the reference, or its values are of another type.
    SchemaMismatch,
    /// The reference doesn't say what like hours are like: nothing is known.
    SeasonUnknown,
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
    let no_season = rule.season.and_then(|season| {
        season::unknown(reference, season)
            .or_else(|| season::unseen(reference, season, &rule.hours, live.rows))
    });
    let scored: Vec<(&ColumnProfile, Option<Like>, ColumnDrift)> = reference
        .columns
        .iter()
        .filter(|c| wanted(&c.name))
        .map(|column| {
            let like = rule.season.zip(reference.windows.as_ref());
            let like = like.and_then(|(season, windows)| {
                let found = season::like(column, windows, season, &rule.hours)?;
                let like = Like {
                    season,
                    values: found.values,
                    spread: found.spread,
                };
                Some((found.grid, like))
            });
            let (grid, like) = like.unzip();
            let mut result = score(column, grid, live.columns.get(&column.name), rule);
            if let Some(why) = no_season.as_ref().filter(|_| result.reason.counts()) {
                result.reason = Reason::SeasonUnknown;
                result.message.clone_from(why);
                result.score = None;
            }
            (column, like, result)
        })
        .collect();
    let span = Span {
        seconds: rule.seconds,
        columns: scored.iter().filter(|c| c.2.reason.counts()).count(),
        like: None,
    };
    let mut columns: Vec<ColumnDrift> = scored
        .into_iter()
        .map(|(column, like, mut result)| {
            let span = Span { like, ..span };
            result.noise = result.score.and_then(|_| {
                noise::bound(column, reference.windows.as_ref(), result.samples, span)
            });
            judge(result)
        })
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

/// Scores one column, held against `like` hours of it or all; `live` is absent if no sketch of it was kept. What can be judged is `WithinThreshold` for now.
fn score(
    reference: &ColumnProfile,
    like: Option<Grid>,
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
    let Some(grid) = like.or_else(|| Grid::of(reference)) else {
        result.reason = Reason::NotEnoughSamples;
        result.message = format!("the reference has no values in {name}");
        return result;
    };
    if grid.cells() < 2 && reference.kind == ColumnKind::Categorical {
        result.reason = Reason::NotEnoughSamples;
        result.message = format!(
            "no category of {name} is as frequent as one in 200: there is nothing to compare"
        );
        return result;
    }
    let score = match live {
        ColumnSketch::Numeric { values, .. } if values.count() > 0 => grid.score_sketch(values),
        ColumnSketch::Categorical { values, .. } if values.count() > 0 => {
            grid.score_categories(reference, values)
        }
        _ => return result,
    };
    result.score = Some(score);
    if enough {
        (result.reason, result.message) = match reference.calendar {
            Some(calendar) => (
                Reason::Calendar,
                format!(
                    "{score:.3}: it follows {} and isn't counted",
                    calendar.name()
                ),
            ),
            None => (Reason::WithinThreshold, String::new()),
        };
    }
    result
}

/// The verdict, once the noise is known.
fn judge(mut result: ColumnDrift) -> ColumnDrift {
    let Some(score) = result.score else {
        return result;
    };
    let (threshold, noise) = (result.threshold, result.noise.unwrap_or(0.0));
    result.message = match result.reason {
        Reason::WithinThreshold if score <= threshold => {
            format!("{score:.3} is not beyond {threshold}")
        }
        Reason::WithinThreshold if score <= noise => {
            result.reason = Reason::WithinNoise;
            format!(
                "{score:.3} is beyond {threshold}, but windows of the reference reach {noise:.3}"
            )
        }
        Reason::WithinThreshold => {
            result.reason = Reason::Drifted;
            format!("{score:.3} is beyond {threshold} and beyond the noise of {noise:.3}")
        }
        _ => result.message,
    };
    result.drifted = result.reason == Reason::Drifted;
    result
}

#[cfg(test)]
mod tests;
