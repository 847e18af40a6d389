//! Predictions and late labels of one release, as its gateways had them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::stats::{
    bucket::Bucket,
    labels::{Late, LatePart, Samples},
};

/// Rows of predictions and labels that are kept at most for a release: the oldest minutes go first. Some 100 bytes each.
const MAX_KEPT: usize = 400_000;

/// Minute, epoch, revision, process.
type Key = (i64, i64, String, String);

/// What is kept.
#[derive(Default)]
pub struct Kept {
    parts: BTreeMap<Key, Arc<Samples>>,
    rows: usize,
    /// The unix minute since which nothing is missing.
    since: Option<i64>,
    /// Minutes before this one were let go of.
    gone_before: i64,
}

impl Kept {
    /// A gateway was read that lacks nothing since this minute. Requests of one that is gone lack in both counts, so what one knows will do.
    pub fn began(&mut self, since: i64) {
        let since = since.max(self.gone_before);
        self.since = Some(self.since.map_or(since, |known| known.min(since)));
    }

    /// Puts what a process had of a minute in the place of what was known of it; false if that was the same.
    pub fn put(&mut self, process: &str, bucket: &Bucket, samples: Samples) -> bool {
        if bucket.minute < self.gone_before {
            return false;
        }
        let (revision, process) = (bucket.revision.clone(), process.to_owned());
        let key = (bucket.minute, bucket.epoch, revision, process);
        if self.parts.get(&key).is_some_and(|known| **known == samples) {
            return false;
        }
        self.rows += samples.rows();
        if let Some(before) = self.parts.insert(key, Arc::new(samples)) {
            self.rows -= before.rows();
        }
        true
    }

    /// Lets go of what nobody needs any more in this minute. A rollout forgets nothing that it has counted, as far as there is room.
    pub fn expire(&mut self, minute: i64, keep: Option<Duration>, active: bool) {
        let keep = keep.map_or(0, |keep| i64::try_from(keep.as_secs()).unwrap_or(i64::MAX));
        let oldest = minute.saturating_sub(keep / 60 + 2);
        while let Some(entry) = self.parts.first_entry() {
            let too_old = entry.key().0 < oldest && !(active && keep > 0);
            if !too_old && self.rows <= MAX_KEPT {
                break;
            }
            self.gone_before = entry.key().0 + 1;
            self.rows -= entry.remove().rows();
        }
        self.since = self.since.map(|since| since.max(self.gone_before));
    }

    /// What is known, where gateways were read up to this second.
    pub fn read(&self, second: Option<i64>) -> Late {
        let parts = self.parts.iter().map(|(key, samples)| LatePart {
            minute: key.0,
            epoch: key.1,
            revision: key.2.clone(),
            samples: samples.clone(),
        });
        Late {
            parts: parts.collect(),
            read: second,
            since: self.since.map(|minute| minute * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::labels::{Guess, Prediction};

    fn bucket(minute: i64) -> Bucket {
        Bucket {
            release: "u".into(),
            revision: "r".into(),
            epoch: 1,
            minute,
            ..Bucket::default()
        }
    }

    fn samples(rows: usize) -> Samples {
        let prediction = |_| Prediction {
            rows: vec![Guess::default(); 50],
            ..Prediction::default()
        };
        Samples {
            predictions: (0..rows / 50).map(prediction).collect(),
            ..Samples::default()
        }
    }

    #[test]
    fn each_process_counts_once_and_what_is_old_goes_unless_a_rollout_needs_it() {
        let mut kept = Kept::default();
        kept.began(100);
        assert!(
            kept.put("a", &bucket(100), samples(50)) && kept.put("b", &bucket(100), samples(100))
        );
        assert!(!kept.put("a", &bucket(100), samples(50)), "the same again");
        assert!(kept.put("a", &bucket(100), samples(150)), "it has grown");
        assert_eq!((kept.rows, kept.read(None).parts.len()), (250, 2));
        let hour = Some(Duration::from_secs(3600));
        kept.expire(200, hour, true);
        assert_eq!(kept.read(Some(7)).since, Some(6000));
        kept.expire(162, hour, false);
        assert_eq!(kept.read(Some(7)).parts.len(), 2);
        kept.expire(163, hour, false);
        assert_eq!((kept.rows, kept.read(Some(7)).since), (0, Some(6060)));
        assert!(!kept.put("a", &bucket(100), samples(50)), "it is gone");
    }

    #[test]
    fn what_is_too_much_goes_and_is_known_to_be_missing() {
        let mut kept = Kept::default();
        kept.began(0);
        for minute in 0..100 {
            kept.put("a", &bucket(minute), samples(5000));
            kept.expire(minute, Some(Duration::from_secs(86_400)), true);
        }
        assert!(kept.rows <= MAX_KEPT, "{}", kept.rows);
        assert_eq!(kept.read(None).since, Some(20 * 60));
        kept.began(0);
        assert_eq!(kept.read(None).since, Some(20 * 60));
    }
}
