//! Callers: how each of them fared, for tests whose unit is the sticky caller and not the request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::CategorySketch;
use crate::stats::sequential::Units;

/// A sketch follows at most this many callers.
pub const MAX_CALLERS: usize = 2048;

/// Bits of a caller's hash that are kept: two of 2,048 followed callers share one with a probability of 2 in a million.
const HASH_BITS: u32 = 40;

/// A mergeable table of requests and failures by caller.
///
/// A fair sample of at most [`MAX_CALLERS`] is followed exactly (those with the smallest hashes, as in [`CategorySketch`]);
/// the others only count in the totals. Keep one for each side and each time during which the weight stood still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct CallerSketch {
    callers: BTreeMap<u64, (u64, u64)>,
    limit: Option<u64>,
    other_requests: u64,
    other_failures: u64,
}

impl CallerSketch {
    /// Adds one request of the caller with this key.
    pub fn add(&mut self, caller: &str, failed: bool) {
        let hash = CategorySketch::hash_of(caller) >> (64 - HASH_BITS);
        self.insert(hash, 1, u64::from(failed));
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.other_requests += other.other_requests;
        self.other_failures += other.other_failures;
        if let Some(limit) = other.limit {
            self.lower(limit);
        }
        for (&hash, &(requests, failures)) in &other.callers {
            self.insert(hash, requests, failures);
        }
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.other_requests + self.callers.values().map(|c| c.0).sum::<u64>()
    }

    /// All failures.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.other_failures + self.callers.values().map(|c| c.1).sum::<u64>()
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
        for &(requests, failures) in self.callers.values() {
            units.add(failures as f64 / requests as f64, requests);
        }
        units
    }

    fn insert(&mut self, hash: u64, requests: u64, failures: u64) {
        if self.limit.is_some_and(|limit| hash >= limit) {
            self.other_requests += requests;
            self.other_failures += failures;
            return;
        }
        let entry = self.callers.entry(hash).or_default();
        entry.0 += requests;
        entry.1 += failures;
        if self.callers.len() > MAX_CALLERS
            && let Some((&largest, _)) = self.callers.last_key_value()
        {
            self.lower(largest);
        }
    }

    fn lower(&mut self, limit: u64) {
        let limit = self.limit.map_or(limit, |old| old.min(limit));
        for (_, (requests, failures)) in self.callers.split_off(&limit) {
            self.other_requests += requests;
            self.other_failures += failures;
        }
        self.limit = Some(limit);
    }
}

/// As it is written: a flat list of hash (the first absolute, then the distance), requests and failures.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    callers: Vec<u64>,
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
        for (hash, (requests, failures)) in sketch.callers {
            callers.extend([hash - last, requests, failures]);
            last = hash;
        }
        Self {
            callers,
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
        let mut sketch = Self {
            callers: BTreeMap::new(),
            limit: form.limit,
            other_requests: form.other_requests,
            other_failures: form.other_failures,
        };
        let mut hash = 0u64;
        for triple in form.callers.chunks(3) {
            let &[step, requests, failures] = triple else {
                return Err("a caller of the sketch lacks its counts".into());
            };
            hash = hash.saturating_add(step);
            if requests == 0 || failures > requests || hash >> HASH_BITS != 0 {
                return Err("a caller of the sketch has impossible counts".into());
            }
            sketch.insert(hash, requests, failures);
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
        (0..1_000).for_each(|_| sketch.add("busy", true));
        (0..9).for_each(|i| sketch.add(&format!("quiet-{i}"), false));
        let units = sketch.units();
        assert_eq!((units.callers, units.requests), (10, 1_009));
        assert!((units.mean().unwrap() - 0.1).abs() < 1e-12);
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
            if i % 2 == 0 {
                a.add(&caller, failed)
            } else {
                b.add(&caller, failed)
            }
            whole.add(&caller, failed);
        }
        b.merge(&a);
        assert_eq!(b, whole);
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
