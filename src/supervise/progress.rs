//! Progress lines: `{"step": 3, "total": 10, "loss": 0.4}`, appended to a file by the trainer.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::api::training_job::Progress;

/// Other numbers of a line that are kept.
const MAX_VALUES: usize = 16;
/// Bytes read of the file at a time.
const CHUNK: u64 = 1024 * 1024;

/// Follows a progress file.
#[derive(Debug, Default)]
pub struct Follower {
    offset: u64,
    partial: Vec<u8>,
}

impl Follower {
    /// The last whole line that came since the last look and makes sense, and whether anything came at all.
    pub fn look(&mut self, path: &Path, now: jiff::Timestamp) -> (Option<Progress>, bool) {
        let Ok(mut file) = std::fs::File::open(path) else {
            return (None, false);
        };
        // Written anew, shorter: read from the start.
        if file.metadata().is_ok_and(|m| m.len() < self.offset) {
            *self = Self::default();
        }
        let mut new = Vec::new();
        let read = file
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.take(CHUNK).read_to_end(&mut new));
        let Ok(n) = read else {
            return (None, false);
        };
        self.offset += n as u64;
        self.partial.extend_from_slice(&new);
        let Some(end) = self.partial.iter().rposition(|&b| b == b'\n') else {
            return (None, n > 0);
        };
        let lines: Vec<u8> = self.partial.drain(..=end).collect();
        let last = lines
            .split(|&b| b == b'\n')
            .rev()
            .find_map(|line| parse(line, now));
        (last, n > 0)
    }
}

/// One line; `None` if it is no JSON object.
fn parse(line: &[u8], now: jiff::Timestamp) -> Option<Progress> {
    let Ok(Value::Object(object)) = serde_json::from_slice(line) else {
        return None;
    };
    let whole = |key: &str| {
        let value = object.get(key)?;
        value.as_i64().or(value.as_f64().map(|x| x as i64))
    };
    let (step, total) = (whole("step"), whole("total"));
    let values: BTreeMap<String, f64> = object
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "step" | "total" | "time"))
        .filter_map(|(key, value)| Some((super::board::shorten(key, 64), value.as_f64()?)))
        .take(MAX_VALUES)
        .collect();
    let summary = match (step, total) {
        (Some(step), Some(total)) if total > 0 => {
            format!("{step}/{total} ({} %)", step.saturating_mul(100) / total)
        }
        (Some(step), _) => format!("step {step}"),
        _ => values
            .first_key_value()
            .map(|(key, value)| format!("{key} {value}"))
            .unwrap_or_default(),
    };
    Some(Progress {
        step,
        total,
        summary,
        values,
        time: Some(Time(now)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_are_followed_as_they_are_written() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("p.jsonl");
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut follower = Follower::default();
        assert_eq!(follower.look(&path, now), (None, false));
        let mut file = std::fs::File::create(&path).unwrap();
        writeln!(file, "{{\"step\": 1, \"total\": 10}}").unwrap();
        write!(file, "{{\"step\": 3, \"total\": 10, \"loss\": 0.4").unwrap();
        let (progress, moved) = follower.look(&path, now);
        assert_eq!(
            (progress.unwrap().summary.as_str(), moved),
            ("1/10 (10 %)", true)
        );
        writeln!(file, ", \"note\": \"x\"}}\nnot json").unwrap();
        let progress = follower.look(&path, now).0.unwrap();
        assert_eq!(
            (progress.step, progress.summary.as_str()),
            (Some(3), "3/10 (30 %)")
        );
        assert_eq!(progress.values, BTreeMap::from([("loss".to_owned(), 0.4)]));
        assert_eq!(follower.look(&path, now), (None, false));
        std::fs::write(&path, "{\"loss\": 2}\n").unwrap();
        assert_eq!(follower.look(&path, now).0.unwrap().summary, "loss 2");
    }
}
