//! The part of the filling window that is recorded: what gateways and operator remember is gone with them, and a window of days must not be.
//!
//! Once an hour the rows of the hours that are over are merged into one sketch, kept in a ConfigMap of the release. What came since then is in
//! memory: gateways keep three hours.

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::minute;
use crate::{
    api::model_deployment::DriftWindow,
    plan::model_deployment::{Observed, children},
    stats::{
        bucket::{MAX_MINUTES, ReleaseMeasurements},
        predictions::Stretches,
        profile::Hours,
        sketch::RowSketch,
    },
};

/// Value of [`crate::api::label::ROLE`] on the ConfigMap.
pub const ROLE: &str = "window";
/// Its key.
const KEY: &str = "window.json.gz";
/// Most bytes that are recorded: a ConfigMap holds 1 MiB, of which base64 takes a quarter.
const MOST_BYTES: usize = 512 << 10;
/// Most bytes that are read: such a sketch packs at least as well as one in ten.
const MOST_READ: u64 = 16 << 20;
/// Minutes from one record to the next.
const EVERY: i64 = 60;

/// The first part of a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The revision whose inputs these are.
    pub revision: String,
    /// Unix minute at which the window begins.
    pub from: i64,
    /// Unix minute before which its rows are in here; a whole hour.
    pub to: i64,
    /// Minutes in between that somebody measured: a gap makes the window last longer.
    pub measured: i64,
    /// The rows.
    pub rows: RowSketch,
    /// When they came; of fewer rows than those in a record of an older version.
    #[serde(default, skip_serializing_if = "Hours::is_empty")]
    pub hours: Hours,
    /// Requests whose inputs were not understood.
    #[serde(default)]
    pub unknown: u64,
    /// What was predicted.
    #[serde(default)]
    pub predictions: Stretches,
}

impl Recorded {
    /// Whether it is the beginning of this window.
    pub fn is_of(&self, window: &DriftWindow) -> bool {
        self.revision == window.revision && self.from == minute(window.next.0)
    }
}

/// Name of a release's record.
pub fn name(release: &str) -> String {
    format!("{release}-drift-window")
}

/// What is recorded in a ConfigMap.
///
/// # Errors
/// A sentence, if it can't be read.
pub fn read(object: &ConfigMap) -> Result<Recorded, String> {
    let data = object.binary_data.as_ref().and_then(|data| data.get(KEY));
    let packed = data.ok_or_else(|| format!("it has no {KEY}"))?;
    let mut text = Vec::new();
    GzDecoder::new(packed.0.as_slice())
        .take(MOST_READ)
        .read_to_end(&mut text)
        .map_err(|error| format!("its {KEY} can't be unpacked: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("its {KEY} makes no sense: {error}"))
}

/// The record brought up to date, where an hour is over since the last, rows have come in it, and the window is longer than memory lasts.
pub fn update(
    before: Option<&Recorded>,
    window: &DriftWindow,
    length: jiff::SignedDuration,
    measurements: &ReleaseMeasurements,
) -> Option<Recorded> {
    if length.as_mins() <= MAX_MINUTES {
        return None;
    }
    let to = measurements.final_before?.div_euclid(EVERY) * EVERY;
    let begin = minute(window.next.0);
    let mut record = match before.filter(|b| b.is_of(window)) {
        Some(before) if to < before.to + EVERY => return None,
        Some(before) => before.clone(),
        None => Recorded {
            revision: window.revision.clone(),
            from: begin,
            to: begin,
            ..Recorded::default()
        },
    };
    let from = record.to.max(measurements.since.unwrap_or(i64::MAX));
    if from >= to {
        return None;
    }
    let new = measurements.features(&window.revision, from, to);
    let predictions = measurements.predictions(&window.revision, from, to);
    if new.rows.is_none() && predictions.rows() == 0 {
        return None;
    }
    record.unknown += new.unknown;
    record.predictions.merge(&predictions);
    // A column that changed its kind in between: as in memory, the later rows are left out.
    if let Some(rows) = new.rows {
        match record.rows.merge(&rows) {
            Ok(()) => record.hours.merge(&new.hours),
            Err(_) => record.unknown += rows.rows,
        }
    }
    record.measured += to - from;
    record.to = to;
    Some(record)
}

/// The ConfigMap that keeps a record. Columns that don't go in, the longest first, are left out: they are seen from the next restart on only.
pub fn config_map(observed: &Observed, record: &Recorded) -> Option<Value> {
    use kube::ResourceExt;

    let release = observed.deployment.name_any();
    let packed = pack(record.clone(), MOST_BYTES)?;
    Some(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": children::metadata(observed, &name(&release), &children::labels(&release, ROLE)),
        "binaryData": {KEY: ByteString(packed)},
    }))
}

fn pack(mut record: Recorded, most: usize) -> Option<Vec<u8>> {
    loop {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let text = serde_json::to_vec(&record).ok()?;
        encoder.write_all(&text).ok()?;
        let packed = encoder.finish().ok()?;
        let columns = record.rows.columns.len();
        if packed.len() <= most || columns == 0 {
            return Some(packed);
        }
        let mut sizes: Vec<(usize, String)> = record
            .rows
            .columns
            .iter()
            .map(|(name, sketch)| {
                let text = serde_json::to_vec(sketch).map_or(0, |text| text.len());
                (text, name.clone())
            })
            .collect();
        sizes.sort_unstable();
        for (_, name) in sizes.iter().rev().take(columns.div_ceil(4)) {
            record.rows.columns.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        plan::model_deployment::drift::minute_time,
        stats::{
            bucket::Bucket,
            sketch::{Cell, ColumnKind},
        },
    };

    const WEEK: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

    fn window(next: i64) -> DriftWindow {
        DriftWindow {
            revision: "a".to_owned(),
            next: Time(minute_time(next)),
            start: None,
            end: None,
            rows: 0,
            share: None,
        }
    }

    /// A row in each of these minutes, and what was before `since` forgotten.
    fn memory(minutes: std::ops::Range<i64>, since: i64, now: i64) -> ReleaseMeasurements {
        let bucket = |minute: i64| {
            let mut rows = RowSketch::new([("temp", ColumnKind::Numeric)]);
            rows.add([("temp", Cell::Number(minute as f64))]);
            Arc::new(Bucket {
                revision: "a".to_owned(),
                minute,
                features: Some(rows),
                ..Bucket::default()
            })
        };
        ReleaseMeasurements {
            buckets: minutes.filter(|m| *m >= since).map(bucket).collect(),
            final_before: Some(now),
            since: Some(since),
            ..ReleaseMeasurements::default()
        }
    }

    #[test]
    fn an_hour_that_is_over_is_recorded_once_and_each_minute_once() {
        let first = update(None, &window(610), WEEK, &memory(0..700, 0, 700)).unwrap();
        assert_eq!(
            (first.from, first.to, first.measured, first.rows.rows),
            (610, 660, 50, 50)
        );
        let again = update(Some(&first), &window(610), WEEK, &memory(0..719, 0, 719));
        assert_eq!(again, None);
        let second = update(Some(&first), &window(610), WEEK, &memory(0..725, 0, 725)).unwrap();
        assert_eq!(
            (second.to, second.measured, second.rows.rows),
            (720, 110, 110)
        );
        let mut hours = Hours::default();
        hours.add(610 * 60, 50);
        hours.add(660 * 60, 60);
        assert_eq!(second.hours, hours);
        // As if it had been sketched at once.
        let whole = update(None, &window(610), WEEK, &memory(0..725, 0, 725)).unwrap();
        assert_eq!(second, whole);
    }

    #[test]
    fn what_nobody_measured_is_missing_from_the_measured_minutes() {
        let first = update(None, &window(600), WEEK, &memory(0..660, 0, 660)).unwrap();
        // Everybody was away from 660 to 900.
        let second = update(Some(&first), &window(600), WEEK, &memory(0..960, 900, 960)).unwrap();
        assert_eq!(
            (second.to, second.measured, second.rows.rows),
            (960, 120, 120)
        );
    }

    #[test]
    fn nothing_is_recorded_in_vain() {
        for (what, window, length, memory) in [
            (
                "a window that memory outlasts",
                window(600),
                jiff::SignedDuration::from_mins(180),
                memory(0..700, 0, 700),
            ),
            (
                "an hour that isn't over",
                window(600),
                WEEK,
                memory(0..659, 0, 659),
            ),
            (
                "an hour without rows",
                window(600),
                WEEK,
                memory(0..600, 0, 700),
            ),
            (
                "nothing was read yet",
                window(600),
                WEEK,
                ReleaseMeasurements::default(),
            ),
        ] {
            assert_eq!(update(None, &window, length, &memory), None, "{what}");
        }
    }

    #[test]
    fn the_record_of_another_window_or_revision_does_not_count() {
        let first = update(None, &window(600), WEEK, &memory(0..660, 0, 660)).unwrap();
        assert!(first.is_of(&window(600)) && !first.is_of(&window(660)));
        let next = update(Some(&first), &window(670), WEEK, &memory(0..730, 0, 730)).unwrap();
        assert_eq!((next.from, next.to, next.rows.rows), (670, 720, 50));
        let mut other = window(600);
        other.revision = "b".to_owned();
        assert!(!first.is_of(&other));
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_the_widest_columns_go_first() {
        let mut record = update(None, &window(600), WEEK, &memory(0..660, 0, 660)).unwrap();
        let back = |packed: Vec<u8>| {
            let data = [(KEY.to_owned(), ByteString(packed))].into();
            read(&ConfigMap {
                binary_data: Some(data),
                ..ConfigMap::default()
            })
        };
        assert_eq!(
            back(pack(record.clone(), MOST_BYTES).unwrap()).as_ref(),
            Ok(&record)
        );
        for column in 0..20 {
            let mut rows = RowSketch::new([]);
            let name = format!("wide{column}");
            rows.merge(&RowSketch::new([(name.as_str(), ColumnKind::Numeric)]))
                .unwrap();
            for i in 0..1500 {
                rows.add([(
                    name.as_str(),
                    Cell::Number(f64::from(1500 * column + i).sin()),
                )]);
            }
            record.rows.merge(&rows).unwrap();
        }
        let packed = pack(record, 32 << 10).unwrap();
        assert!(packed.len() <= 32 << 10);
        let left = back(packed).unwrap().rows.columns;
        assert!(
            left.contains_key("temp") && left.len() < 21,
            "{:?}",
            left.keys()
        );
    }

    #[test]
    fn what_can_not_be_read_is_said() {
        let of = |bytes: &[u8]| {
            let data = [(KEY.to_owned(), ByteString(bytes.to_vec()))].into();
            read(&ConfigMap {
                binary_data: Some(data),
                ..ConfigMap::default()
            })
        };
        assert!(of(b"nonsense").unwrap_err().contains("unpacked"));
        assert!(read(&ConfigMap::default()).unwrap_err().contains("has no"));
    }
}
