//! Callers: how each of them fared, for tests whose unit is the sticky caller and not the request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CategorySketch, LatencyHistogram};
use crate::stats::sequential::Units;

/// A sketch follows at most this many callers.
pub const MAX_CALLERS: usize = 2048;

/// A score is kept in thousandths: so many requests, of which so many failures.
const SCORE: u64 = 1000;

/// Bits of a caller's hash that are kept: two of 2,048 followed callers share one with a probability of 2 in a million.
const HASH_BITS: u32 = 40;

/// A mergeable table of requests and failures by caller.
///
/// A fair sample of at most [`MAX_CALLERS`] is followed exactly (those with the smallest hashes, as in [`CategorySketch`]);
/// the others only count in the totals. Keep one for each side and each time during which the weight stood still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct CallerSketch {
    callers: BTreeMap<u64, Caller>,
    limit: Option<u64>,
    other_requests: u64,
    other_failures: u64,
}

/// What is known of a followed caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Caller {
    requests: u64,
    failures: u64,
    /// How many of the sketches that were merged into this one it was in; not written, as what is written is one.
    sketches: u64,
    /// In each of those it has one latency, as [`LatencyHistogram::place`]: how many, their sum, and that of their squares.
    placed: u64,
    places: u64,
    squares: u64,
}

impl Caller {
    /// Its one latency in a sketch.
    fn place(&mut self, place: u64) {
        (self.placed, self.places, self.squares) = (1, place, place * place);
    }
}

impl CallerSketch {
    /// Adds one request of the caller with this key.
    pub fn add(&mut self, caller: &str, failed: bool) {
        self.add_placed(caller, failed, None);
    }

    /// Adds one request that took so long; true if it is the first of a caller that is followed: its latency is the caller's one here.
    pub fn add_timed(&mut self, caller: &str, failed: bool, microseconds: u64) -> bool {
        self.add_placed(caller, failed, Some(LatencyHistogram::place(microseconds)))
    }

    /// Adds a score from 0 to 1 by the caller whose key has this hash ([`CategorySketch::hash_of`]). A sketch holds scores or requests, never both.
    pub fn add_score(&mut self, caller: u64, score: f64) {
        let given = Caller {
            requests: SCORE,
            failures: (score.clamp(0.0, 1.0) * SCORE as f64).round() as u64,
            sketches: 1,
            ..Caller::default()
        };
        self.insert(caller >> (64 - HASH_BITS), given);
    }

    /// The followed callers of scores as units of a sequential test: each contributes the mean of its own.
    #[must_use]
    pub fn score_units(&self) -> Units {
        let mut units = self.units();
        units.requests /= SCORE;
        units
    }

    fn add_placed(&mut self, caller: &str, failed: bool, place: Option<u16>) -> bool {
        let hash = CategorySketch::hash_of(caller) >> (64 - HASH_BITS);
        let new = !self.callers.contains_key(&hash);
        let mut seen = Caller {
            requests: 1,
            failures: u64::from(failed),
            sketches: u64::from(new),
            ..Caller::default()
        };
        if let Some(place) = place.filter(|_| new) {
            seen.place(u64::from(place));
        }
        self.insert(hash, seen);
        new && self.callers.contains_key(&hash)
    }

    /// In how many of the sketches that were merged into this one the callers were: the sum over them, and the sum of the squares.
    #[must_use]
    pub fn presence(&self) -> (f64, f64) {
        let times = || self.callers.values().map(|c| c.sketches as f64);
        (times().sum(), times().map(|n| n * n).sum())
    }

    /// How much one caller's latencies resemble each other, from 0 (like anybody's) to 1 (all are the same): the intraclass correlation on
    /// the logarithmic scale, from the analysis of variance (Donner 1986). It is 1 until callers came back, and lower only as far as
    /// some callers speak for it.
    #[must_use]
    pub fn likeness(&self) -> f64 {
        const BELIEVED: f64 = 10.0;
        let (mut n, mut callers, mut squares) = (0.0, 0.0, 0.0);
        let (mut sum, mut between, mut all) = (0.0, 0.0, 0.0);
        for caller in self.callers.values().filter(|c| c.placed > 0) {
            let (times, places) = (caller.placed as f64, caller.places as f64);
            n += times;
            callers += 1.0;
            squares += times * times;
            sum += places;
            between += places * places / times;
            all += caller.squares as f64;
        }
        if callers < 2.0 || n - callers < 1.0 {
            return 1.0;
        }
        let within = (all - between).max(0.0) / (n - callers);
        let between = (between - sum * sum / n).max(0.0) / (callers - 1.0);
        let times = (n - squares / n) / (callers - 1.0);
        let own = ((between - within) / times).max(0.0);
        let likeness = match own + within {
            0.0 => 1.0,
            total => own / total,
        };
        (likeness * callers + BELIEVED) / (callers + BELIEVED)
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.other_requests += other.other_requests;
        self.other_failures += other.other_failures;
        if let Some(limit) = other.limit {
            self.lower(limit);
        }
        for (&hash, &caller) in &other.callers {
            self.insert(hash, caller);
        }
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.other_requests + self.callers.values().map(|c| c.requests).sum::<u64>()
    }

    /// All failures.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.other_failures + self.callers.values().map(|c| c.failures).sum::<u64>()
    }

    /// How many callers there were: exact up to [`MAX_CALLERS`], then an estimate.
    #[must_use]
    pub fn callers(&self) -> u64 {
        match self.limit {
            None => self.callers.len() as u64,
            Some(limit) => (self.callers.len() as f64
                / (limit as f64 / 2f64.powi(HASH_BITS as i32)))
            .round() as u64,
        }
    }

    /// The followed callers as units of a sequential test: each contributes its own failure rate.
    #[must_use]
    pub fn units(&self) -> Units {
        let mut units = Units::default();
        for caller in self.callers.values() {
            units.add(
                caller.failures as f64 / caller.requests as f64,
                caller.requests,
            );
        }
        units
    }

    fn insert(&mut self, hash: u64, more: Caller) {
        if self.limit.is_some_and(|limit| hash >= limit) {
            self.other_requests += more.requests;
            self.other_failures += more.failures;
            return;
        }
        let caller = self.callers.entry(hash).or_default();
        caller.requests += more.requests;
        caller.failures += more.failures;
        caller.sketches += more.sketches;
        caller.placed += more.placed;
        caller.places += more.places;
        caller.squares += more.squares;
        if self.callers.len() > MAX_CALLERS
            && let Some((&largest, _)) = self.callers.last_key_value()
        {
            self.lower(largest);
        }
    }

    fn lower(&mut self, limit: u64) {
        let limit = self.limit.map_or(limit, |old| old.min(limit));
        for caller in self.callers.split_off(&limit).into_values() {
            self.other_requests += caller.requests;
            self.other_failures += caller.failures;
        }
        self.limit = Some(limit);
    }
}

/// As it is written: a flat list of hash (the first absolute, then the distance), requests and failures.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    callers: Vec<u64>,
    /// The place of each caller's latency, plus one; 0: it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    places: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(default)]
    other_requests: u64,
    #[serde(default)]
    other_failures: u64,
}

impl From<CallerSketch> for Form {
    fn from(sketch: CallerSketch) -> Self {
        let mut last = 0;
        let mut callers = Vec::with_capacity(3 * sketch.callers.len());
        let placed = |caller: &Caller| caller.placed > 0;
        let places = match sketch.callers.values().any(placed) {
            true => {
                // Of a sketch that is written there is one.
                let place = |c: &Caller| c.places.checked_div(c.placed).map_or(0, |p| p + 1);
                sketch.callers.values().map(place).collect()
            }
            false => Vec::new(),
        };
        for (hash, caller) in sketch.callers {
            callers.extend([hash - last, caller.requests, caller.failures]);
            last = hash;
        }
        Self {
            callers,
            places,
            limit: sketch.limit,
            other_requests: sketch.other_requests,
            other_failures: sketch.other_failures,
        }
    }
}

impl TryFrom<Form> for CallerSketch {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        if form.callers.len() > 3 * MAX_CALLERS || form.other_failures > form.other_requests {
            return Err(
                "the caller sketch has too many callers, or more failures than requests".into(),
            );
        }
        if !form.places.is_empty() && form.places.len() * 3 != form.callers.len()
            || form.places.iter().any(|&place| place > 1 << 16)
        {
            return Err("the caller sketch has impossible latencies".into());
        }
        let mut sketch = Self {
            callers: BTreeMap::new(),
            limit: form.limit,
            other_requests: form.other_requests,
            other_failures: form.other_failures,
        };
        let mut hash = 0u64;
        for (at, triple) in form.callers.chunks(3).enumerate() {
            let &[step, requests, failures] = triple else {
                return Err("a caller of the sketch lacks its counts".into());
            };
            hash = hash.saturating_add(step);
            if requests == 0 || failures > requests || hash >> HASH_BITS != 0 {
                return Err("a caller of the sketch has impossible counts".into());
            }
            let mut caller = Caller {
                requests,
                failures,
                sketches: 1,
                ..Caller::default()
            };
            let place = form.places.get(at).and_then(|place| place.checked_sub(1));
            if let Some(place) = place {
                caller.place(place);
            }
            sketch.insert(hash, caller);
        }
        Ok(sketch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_is_one_unit_however_much_it_calls() {
        let mut sketch = CallerSketch::default();
        let busy = (0..1_000).filter(|_| sketch.add_timed("busy", true, 5));
        assert_eq!(busy.count(), 1);
        assert!((0..9).all(|i| sketch.add_timed(&format!("quiet-{i}"), false, 5)));
        let units = sketch.units();
        assert_eq!((units.callers, units.requests), (10, 1_009));
        assert!((units.mean().unwrap() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn it_is_known_how_often_a_caller_came_back() {
        let mut all = CallerSketch::default();
        for minute in 0..3 {
            let mut sketch = CallerSketch::default();
            (0..7).for_each(|_| sketch.add("always", false));
            sketch.add(&format!("once-{minute}"), false);
            all.merge(&sketch);
        }
        assert_eq!(all.presence(), (6.0, 12.0));
    }

    #[test]
    fn callers_whose_latencies_are_their_own_are_told_from_those_who_are_like_anybody() {
        let sketch = |own: u64, minute: u64| {
            let mut sketch = CallerSketch::default();
            for i in 0..50u64 {
                let noise = (i * 7 + minute * 13) % 10;
                let micros = 10_000 + own * i * 2_000 + noise * 3_000;
                sketch.add_timed(&format!("caller-{i}"), false, micros);
            }
            let text = serde_json::to_string(&sketch).unwrap();
            assert_eq!(serde_json::from_str::<CallerSketch>(&text).unwrap(), sketch);
            sketch
        };
        let likeness = |own| {
            let mut all = sketch(own, 0);
            assert_eq!(all.likeness(), 1.0, "nobody came back yet");
            (1..10).for_each(|minute| all.merge(&sketch(own, minute)));
            all.likeness()
        };
        assert!(likeness(0) < 0.25, "{}", likeness(0));
        assert!(likeness(1) > 0.6, "{}", likeness(1));
        // A gateway of an earlier version says nothing of it.
        let old: CallerSketch = serde_json::from_str(r#"{"callers": [5, 1, 0, 9, 2, 1]}"#).unwrap();
        assert_eq!(old.likeness(), 1.0);
    }

    #[test]
    fn more_callers_than_fit_are_sampled_and_all_requests_counted() {
        let (mut a, mut b, mut whole) = (
            CallerSketch::default(),
            CallerSketch::default(),
            CallerSketch::default(),
        );
        for i in 0..30_000u32 {
            let caller = format!("caller-{}", i % 10_000);
            let failed = i % 10_000 < 1_000;
            let half = if i % 2 == 0 { &mut a } else { &mut b };
            half.add(&caller, failed);
            whole.add(&caller, failed);
        }
        b.merge(&a);
        assert_eq!(Form::from(b).callers, Form::from(whole.clone()).callers);
        assert_eq!((whole.requests(), whole.failures()), (30_000, 3_000));
        assert!(
            (9_000..11_000).contains(&whole.callers()),
            "{}",
            whole.callers()
        );
        assert_eq!(whole.units().callers, MAX_CALLERS as u64);
        assert!((whole.units().mean().unwrap() - 0.1).abs() < 0.03);
        let text = serde_json::to_string(&whole).unwrap();
        assert!(text.len() < 40_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<CallerSketch>(&text).unwrap(), whole);
    }
}
