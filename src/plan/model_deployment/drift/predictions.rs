//! Drift of what stable predicts: its first full window is what its later ones are compared with.
//!
//! That reference is kept in a ConfigMap of the release, an entry for each revision, and isn't made anew: so a revision that comes back after a
//! rollback is compared with what it predicted at first.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{OBSERVED, column, minute_time};
use crate::{
    api::model_deployment::DriftStatus,
    plan::model_deployment::{Observed, children},
    stats::{
        drift::live::{self, Reason, Rule},
        predictions::Stretches,
        profile::{Profile, Season},
    },
};

/// Value of [`crate::api::label::ROLE`] on the ConfigMap.
pub const ROLE: &str = "predictions";
/// Name of the row in `status.drift`, and of its threshold in `monitoring.drift.thresholds`.
pub const COLUMN: &str = "prediction";
/// Reason of the window that later ones are compared with.
pub const REFERENCE: &str = "Reference";
/// Revisions whose references are kept at most: more than revisions themselves.
const MOST: usize = 20;

/// The first full window of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// Unix minute at which it began.
    pub from: i64,
    /// Unix minute at which it ended.
    pub to: i64,
    /// What was predicted: one column.
    pub profile: Profile,
}

/// References by the hash of their revision.
pub type References = BTreeMap<String, Reference>;

/// Name of a release's references.
pub fn name(release: &str) -> String {
    format!("{release}-predictions")
}

/// What is kept in a ConfigMap; one that can't be read is made anew.
pub fn read(object: &ConfigMap) -> References {
    let all = object.data.iter().flatten();
    all.filter_map(|(key, text)| {
        let hash = key.strip_suffix(".json")?;
        Some((hash.to_owned(), serde_json::from_str(text).ok()?))
    })
    .collect()
}

/// The ConfigMap with one more; those of revisions that are gone go.
pub fn config_map(observed: &Observed, revision: &str, reference: &Reference) -> Option<Value> {
    let release = observed.deployment.name_any();
    let kept = |hash: &str| {
        let name = children::name(&release, hash);
        observed.revisions.iter().any(|r| r.name_any() == name)
    };
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (hash, reference) in observed.references.iter().filter(|(hash, _)| kept(hash)) {
        if all.len() < MOST - 1 {
            all.insert(
                format!("{hash}.json"),
                serde_json::to_string(reference).ok()?,
            );
        }
    }
    all.insert(
        format!("{revision}.json"),
        serde_json::to_string(reference).ok()?,
    );
    Some(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": children::metadata(observed, &name(&release), &children::labels(&release, ROLE)),
        "data": all,
    }))
}

/// What is said of the predictions of a full window that began at `from`, ended at `to` and should be `length` long, by the rule of the columns; and the reference, if this window is it.
pub(super) fn judge(
    predictions: &Stretches,
    (from, to, length): (i64, i64, jiff::SignedDuration),
    known: Option<&Reference>,
    rule: &Rule,
) -> Option<(DriftStatus, Option<Reference>)> {
    let rows = predictions.rows();
    // The one of this very window: it was kept, and that the window is full wasn't.
    let known = known.filter(|known| known.from != from);
    let mut row = waiting(predictions, known, rule)?;
    if let Some(season) = rule.season.filter(|s| is_shorter(length, *s)) {
        row.reason = super::reason::SEASON_UNKNOWN.to_owned();
        row.message = format!(
            "predictions are compared with one earlier window, which has no like hours: write a window of a {} or longer",
            season.name()
        );
        return Some((row, None));
    }
    let Some(known) = known else {
        if rows < rule.min_samples {
            return Some((row, None));
        }
        let Some(profile) = predictions.profile() else {
            return Some((row, None));
        };
        let what = profile.columns.first().map_or("", |c| c.name.as_str());
        row.reason = REFERENCE.to_owned();
        row.message = format!(
            "the first full window of this revision, of {rows} predictions ({what}): later ones are compared with it"
        );
        let reference = Reference { from, to, profile };
        return Some((row, Some(reference)));
    };
    // Judged alone: it is in no share, and the columns' share of false alarms stays theirs.
    let rule = Rule {
        columns: Vec::new(),
        thresholds: [("*".to_owned(), rule.threshold(COLUMN))].into(),
        season: None,
        ..rule.clone()
    };
    let drift = live::compare(&known.profile, &predictions.whole(), &rule);
    let mut found = drift.columns.into_iter().next()?;
    if found.reason == Reason::NotObserved {
        let what = &found.column;
        found.message =
            format!("no answer of the window said a {what}, which the reference is made of");
    } else if found.reason != Reason::NotEnoughSamples {
        let (from, to) = (minute_time(known.from), minute_time(known.to));
        found.message.push_str(&format!(
            "; compared with the first window of this revision, {from} to {to}"
        ));
    }
    let row = DriftStatus {
        column: COLUMN.to_owned(),
        prediction: true,
        ..column(&found)
    };
    Some((row, None))
}

/// Whether a window has fewer hours than a season.
pub fn is_shorter(length: jiff::SignedDuration, season: Season) -> bool {
    u64::try_from(length.as_secs()).unwrap_or(0) < season.seconds()
}

/// What is said while the first window fills. `None`: nobody has seen a prediction of this revision.
pub(super) fn waiting(
    predictions: &Stretches,
    known: Option<&Reference>,
    rule: &Rule,
) -> Option<DriftStatus> {
    let seen = predictions.rows() > 0 || known.is_some();
    seen.then(|| DriftStatus {
        column: COLUMN.to_owned(),
        prediction: true,
        threshold: rule.threshold(COLUMN),
        samples: i64::try_from(predictions.rows()).unwrap_or(i64::MAX),
        reason: super::reason::NOT_ENOUGH_SAMPLES.to_owned(),
        ..DriftStatus::default()
    })
}

/// What a person is told of predictions that have drifted.
pub(super) fn sentence(row: &DriftStatus) -> Option<String> {
    (row.drifted && row.reason == OBSERVED).then(|| {
        format!(
            "what is predicted drifted: {:.3} (threshold {}, noise {:.3}) in {} predictions",
            row.score.unwrap_or_default(),
            row.threshold,
            row.noise.unwrap_or_default(),
            row.samples
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{labels::Guess, predictions};

    const MINUTES: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

    fn stretches(said: &str, rows: usize) -> Stretches {
        let mut stretches = Stretches::default();
        for minute in 0..10 {
            let mut sketch = predictions::empty();
            for _ in 0..rows {
                let guess = Guess {
                    said: Some(said.to_owned()),
                    ..Guess::default()
                };
                predictions::add(&mut sketch, &guess, false);
            }
            stretches.add(minute, 1, &sketch);
        }
        stretches
    }

    fn rule() -> Rule {
        Rule {
            min_samples: 500,
            thresholds: [(COLUMN.to_owned(), 0.3)].into(),
            seconds: Some(600),
            ..Rule::default()
        }
    }

    #[test]
    fn the_first_window_that_is_large_enough_is_the_reference() {
        assert_eq!(
            judge(&Stretches::default(), (0, 10, MINUTES), None, &rule()),
            None
        );
        let (few, none) = judge(&stretches("a", 49), (0, 10, MINUTES), None, &rule()).unwrap();
        assert_eq!((few.reason.as_str(), none), ("NotEnoughSamples", None));
        let (row, reference) = judge(&stretches("a", 50), (0, 10, MINUTES), None, &rule()).unwrap();
        assert_eq!(
            (row.reason.as_str(), row.drifted, row.score, row.prediction),
            (REFERENCE, false, None, true)
        );
        let reference = reference.unwrap();
        // The same again: its window wasn't recorded, and it isn't compared with itself.
        let (again, same) = judge(
            &stretches("a", 50),
            (0, 10, MINUTES),
            Some(&reference),
            &rule(),
        )
        .unwrap();
        assert_eq!(
            (again.reason.as_str(), same.as_ref()),
            (REFERENCE, Some(&reference))
        );

        let later = |said, rows| {
            judge(
                &stretches(said, rows),
                (10, 20, MINUTES),
                Some(&reference),
                &rule(),
            )
        };
        let (same, none) = later("a", 50).unwrap();
        assert_eq!((same.drifted, same.score, none), (false, Some(0.0), None));
        let (other, none) = later("b", 50).unwrap();
        assert!(
            other.drifted && other.prediction && none.is_none(),
            "{other:?}"
        );
        assert_eq!((other.column.as_str(), other.threshold), (COLUMN, 0.3));
        assert!(sentence(&other).unwrap().contains("threshold 0.3"));
        let (nobody, _) = judge(
            &Stretches::default(),
            (10, 20, MINUTES),
            Some(&reference),
            &rule(),
        )
        .unwrap();
        assert_eq!(nobody.reason, "NotObserved");
        assert_eq!(sentence(&nobody), None);
    }

    #[test]
    fn one_earlier_window_has_no_like_hours_unless_it_is_a_season() {
        let rule = Rule {
            season: Some(Season::Day),
            ..rule()
        };
        let day = jiff::SignedDuration::from_hours(24);
        for (length, reason, kept) in [(MINUTES, "SeasonUnknown", false), (day, REFERENCE, true)] {
            let all = stretches("a", 50);
            let (row, reference) = judge(&all, (0, 10, length), None, &rule).unwrap();
            assert_eq!((row.reason.as_str(), reference.is_some()), (reason, kept));
        }
        let (_, reference) = judge(&stretches("a", 50), (0, 10, day), None, &rule).unwrap();
        let other = stretches("b", 50);
        let (row, _) = judge(&other, (10, 20, day), reference.as_ref(), &rule).unwrap();
        assert!(row.drifted, "{row:?}");
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_makes_no_sense_is_left_out() {
        let (_, reference) = judge(&stretches("a", 50), (0, 10, MINUTES), None, &rule()).unwrap();
        let reference = reference.unwrap();
        let text = serde_json::to_string(&reference).unwrap();
        assert!(text.len() < 16 << 10, "{}", text.len());
        let data = [
            ("aaaaaaaaaa.json".to_owned(), text),
            ("bbbbbbbbbb.json".to_owned(), "{".to_owned()),
            ("other".to_owned(), "{}".to_owned()),
        ];
        let object = ConfigMap {
            data: Some(data.into()),
            ..ConfigMap::default()
        };
        let all = read(&object);
        assert_eq!(all, [("aaaaaaaaaa".to_owned(), reference)].into());
    }
}
