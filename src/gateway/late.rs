//! Late labels: which answers are in the sample, what they predicted, and the labels that came for them, in bounded memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::record::{Slot, first};
use crate::stats::labels::{Label, Prediction, Samples};

/// Rows of predictions and labels that are kept at most, over all releases: the oldest minutes go first. Some 100 bytes each.
const MAX_KEPT: usize = 200_000;
/// Requests of one revision that are sampled at most over the time that they are kept for …
const OF_REVISION: i64 = 50_000;
/// … in each of its minutes at least, and at most.
const LEAST: i64 = 5;
const MOST: i64 = 1000;

/// Predictions and labels by the minute in which they came.
#[derive(Default)]
pub struct Lates {
    minute: i64,
    /// Since which minute nothing is missing.
    since: i64,
    all: BTreeMap<(i64, Slot), Samples>,
    rows: usize,
    /// Answers whose label is there.
    labelled: HashSet<u64>,
    /// How long each release's are kept, in minutes.
    kept: HashMap<Arc<str>, i64>,
    /// How many requests of a revision this minute has seen and taken, and of how many it takes one.
    rates: HashMap<(Arc<str>, Arc<str>), Rate>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    minute: i64,
    seen: i64,
    taken: i64,
    of: u64,
}

impl Lates {
    /// Starts with nothing in this minute.
    pub fn new(minute: i64) -> Self {
        Self {
            minute,
            since: minute,
            ..Self::default()
        }
    }

    /// Whether an answer of this revision is taken into the sample, of a release whose samples are kept for so many seconds.
    ///
    /// One of so many is, evenly by the hash of its id, as many as let each minute have its share of the memory by what the minute before had; in a burst
    /// those after twice the share are left out. So memory is bounded, and no answer waits.
    pub fn wants(&mut self, release: &Arc<str>, revision: &Arc<str>, id: u64, kept: i64) -> bool {
        let kept = kept / 60 + 2;
        let share = (OF_REVISION / kept).clamp(LEAST, MOST);
        if self.kept.get(release) != Some(&kept) {
            self.kept.insert(release.clone(), kept);
        }
        let minute = self.minute;
        let rate = self
            .rates
            .entry((release.clone(), revision.clone()))
            .or_insert(Rate {
                minute,
                seen: 0,
                taken: 0,
                of: 1,
            });
        if rate.minute != minute {
            let of = u64::try_from((rate.seen + share - 1) / share)
                .unwrap_or(1)
                .max(1);
            // After a pause nothing is known of the rate.
            let of = if rate.minute + 1 == minute { of } else { 1 };
            *rate = Rate {
                minute,
                seen: 0,
                taken: 0,
                of,
            };
        }
        rate.seen += 1;
        let wanted = mixed(id).is_multiple_of(rate.of) && rate.taken < 2 * share;
        rate.taken += i64::from(wanted);
        wanted
    }

    /// Keeps what an answer predicted.
    pub fn predicted(&mut self, slot: &Slot, prediction: Prediction) {
        self.rows += prediction.rows.len();
        self.samples(slot).predictions.push(prediction);
        self.trim();
    }

    /// Counts an answer of the sample that couldn't be read.
    pub fn unread(&mut self, slot: &Slot) {
        self.samples(slot).unread += 1;
    }

    /// Keeps a label; false: there is one already.
    pub fn label(&mut self, slot: &Slot, label: Label) -> bool {
        if !self.labelled.insert(label.id) {
            return false;
        }
        self.rows += label.rows.len();
        self.samples(slot).labels.push(label);
        self.trim();
        true
    }

    /// Goes on to this minute, never back: minutes before it are final.
    pub fn advance(&mut self, now: i64) {
        if now <= self.minute {
            return;
        }
        self.minute = now;
        let old = |minute: i64, slot: &Slot| {
            let kept = self.kept.get(&slot.release).copied().unwrap_or(0);
            minute < now - kept
        };
        let gone: Vec<_> = self
            .all
            .keys()
            .filter(|(m, s)| old(*m, s))
            .cloned()
            .collect();
        for key in gone {
            self.remove(&key);
        }
        self.rates.retain(|_, rate| rate.minute + 2 > now);
        let all = &self.all;
        self.kept
            .retain(|release, _| all.keys().any(|(_, slot)| slot.release == *release));
    }

    /// What came in the minutes from `since`, and since when nothing is missing.
    pub fn read(&self, since: i64) -> (impl Iterator<Item = (&(i64, Slot), &Samples)>, i64) {
        (self.all.range((since, first())..), self.since)
    }

    fn samples(&mut self, slot: &Slot) -> &mut Samples {
        self.all.entry((self.minute, slot.clone())).or_default()
    }

    fn trim(&mut self) {
        while self.rows > MAX_KEPT
            && let Some((oldest, _)) = self.all.first_key_value()
        {
            let oldest = oldest.clone();
            self.since = self.since.max(oldest.0 + 1);
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &(i64, Slot)) {
        if let Some(samples) = self.all.remove(key) {
            self.rows = self.rows.saturating_sub(samples.rows());
            for label in samples.labels {
                self.labelled.remove(&label.id);
            }
        }
    }
}

/// A hash of a number that only counts (splitmix64's finisher: Steele, Lea, Flood 2014).
pub(super) fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::labels::{Guess, MAX_ROWS};

    fn slot(release: &str) -> Slot {
        Slot {
            release: release.into(),
            revision: "r".into(),
            epoch: 1,
            weight: 10,
        }
    }

    #[test]
    fn a_sample_is_even_and_follows_the_rate_of_the_minute_before() {
        let mut lates = Lates::new(100);
        let (release, revision) = ("u".into(), "r".into());
        // Kept for six hours: 138 of each minute.
        let kept = 6 * 3600;
        let taken = |lates: &mut Lates, requests: u64| {
            let ids = 0..requests;
            ids.filter(|id| lates.wants(&release, &revision, *id, kept))
                .count()
        };
        assert_eq!(taken(&mut lates, 100), 100, "all of few");
        lates.advance(101);
        assert_eq!(taken(&mut lates, 10_000), 276, "a burst: twice the share");
        lates.advance(102);
        let steady = taken(&mut lates, 10_000);
        assert!((100..=180).contains(&steady), "{steady}");
        lates.advance(104);
        assert_eq!(taken(&mut lates, 100), 100, "after a pause");
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_a_label_is_taken_once() {
        let mut lates = Lates::new(100);
        let row = |id| Prediction {
            id,
            rows: vec![Guess::default(); MAX_ROWS],
            ..Prediction::default()
        };
        let label = |id| Label {
            id,
            at: 0,
            rows: vec!["1".to_owned()],
        };
        assert!(lates.wants(&"u".into(), &"r".into(), 1, 3600));
        lates.predicted(&slot("u"), row(1));
        assert!(lates.label(&slot("u"), label(1)) && !lates.label(&slot("u"), label(1)));
        assert_eq!((lates.rows, lates.labelled.len()), (65, 1));
        lates.advance(150);
        assert_eq!(lates.read(0).0.count(), 1);
        assert_eq!((lates.read(101).0.count(), lates.since), (0, 100));
        lates.advance(163);
        assert_eq!(lates.read(0).0.count(), 0, "older than an hour");
        assert_eq!(
            (lates.rows, lates.labelled.len(), lates.kept.len()),
            (0, 0, 0)
        );

        for minute in 0..100 {
            lates.advance(200 + minute);
            assert!(lates.wants(&"u".into(), &"r".into(), 1, 7 * 86_400));
            (0..40).for_each(|id| lates.predicted(&slot("u"), row(id)));
        }
        assert!(lates.rows <= MAX_KEPT && lates.rows > MAX_KEPT - 3000);
        assert!(lates.since > 200, "{}", lates.since);
    }
}
