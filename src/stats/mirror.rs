//! Copies of stable's requests: how the candidate fared with each beside stable, and how much their answers agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    bucket::Traffic,
    sequential::{self, LatencySide, LatencyStratum, Units},
    sketch::{CallerSketch, CategorySketch, LatencyHistogram},
};

/// Outputs that are told apart in one bucket; of more only the whole answers count.
pub const MAX_OUTPUTS: usize = 16;
/// Differences are kept in millionths: what is below counts as none, and the largest is 68,719.
pub const DIFFERENCE: f64 = 1e-6;

/// What one side made of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Whether it failed.
    pub failed: bool,
    /// Microseconds to the last byte.
    pub latency: u64,
}

/// How two answers to one request compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// How much of them agrees, from 0 to 1: the mean over outputs of the share of their values.
    pub agreement: f64,
    /// The mean absolute difference of their numbers, if they have any in the same places.
    pub difference: Option<f64>,
    /// By output, in the order of stable's.
    pub outputs: Vec<(String, Output)>,
}

/// How one output of both sides compares; mergeable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Values that stable gave.
    pub values: u64,
    /// Of those, equal ones of the candidate.
    pub agreeing: u64,
    /// Numbers in the same place on both sides.
    pub numbers: u64,
    /// The sum of their absolute differences.
    pub difference: f64,
    /// The largest of them.
    pub largest: f64,
}

impl Output {
    /// The share of values that agree; an output without values agrees.
    #[must_use]
    pub fn agreement(&self) -> f64 {
        match self.values {
            0 => 1.0,
            values => self.agreeing as f64 / values as f64,
        }
    }

    /// The mean absolute difference.
    #[must_use]
    pub fn mean_difference(&self) -> Option<f64> {
        (self.numbers > 0).then(|| self.difference / self.numbers as f64)
    }

    /// Adds what `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.values += other.values;
        self.agreeing += other.agreeing;
        self.numbers += other.numbers;
        self.difference += other.difference;
        self.largest = self.largest.max(other.largest);
    }
}

/// Copies, counted under the candidate's revision; mergeable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mirrored {
    /// What the candidate made of them.
    pub candidate: Traffic,
    /// What stable had made of the same requests.
    pub stable: Traffic,
    /// How much answers of both agree, by caller; who has no key is a caller of its own.
    pub agreement: CallerSketch,
    /// Copies whose answers were compared.
    pub compared: u64,
    /// Copies that both sides answered, and whose answers couldn't be compared: too long, compressed, a stream.
    pub incomparable: u64,
    /// Mean absolute differences in millionths, one of each caller in each bucket.
    pub differences: LatencyHistogram,
    /// By output.
    pub outputs: BTreeMap<String, Output>,
}

impl Mirrored {
    /// Counts a copy: its caller, whom `anonymous` tells apart if there is no key; both sides; and how their answers compare, if they could be.
    pub fn record(
        &mut self,
        caller: Option<&str>,
        anonymous: u64,
        stable: Answered,
        candidate: Answered,
        compared: Option<&Compared>,
    ) {
        self.stable
            .record(caller, stable.failed, stable.latency, None);
        let new = self
            .candidate
            .record(caller, candidate.failed, candidate.latency, None);
        if stable.failed || candidate.failed {
            return;
        }
        let Some(compared) = compared else {
            self.incomparable += 1;
            return;
        };
        self.compared += 1;
        let caller = caller.map_or(anonymous, CategorySketch::hash_of);
        self.agreement.add_score(caller, compared.agreement);
        if let Some(difference) = compared.difference.filter(|_| new) {
            // A float saturates.
            self.differences.add((difference / DIFFERENCE) as u64);
        }
        for (name, output) in &compared.outputs {
            if let Some(known) = self.outputs.get_mut(name) {
                known.merge(output);
            } else if self.outputs.len() < MAX_OUTPUTS {
                self.outputs.insert(name.clone(), *output);
            }
        }
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        self.candidate.merge(&other.candidate);
        self.stable.merge(&other.stable);
        self.agreement.merge(&other.agreement);
        self.compared += other.compared;
        self.incomparable += other.incomparable;
        self.differences.merge(&other.differences);
        for (name, output) in &other.outputs {
            if let Some(known) = self.outputs.get_mut(name) {
                known.merge(output);
            } else if self.outputs.len() < MAX_OUTPUTS {
                self.outputs.insert(name.clone(), *output);
            }
        }
    }

    /// Error rates by caller, for [`sequential::rates`]. Both sides are of the same requests; the interval of their difference is that of
    /// independent ones, and so wider than it needs to be.
    #[must_use]
    pub fn rates(&self) -> sequential::Stratum {
        sequential::Stratum {
            candidate: self.candidate.units(),
            stable: self.stable.units(),
        }
    }

    /// Latencies, for [`sequential::latencies`].
    #[must_use]
    pub fn latencies(&self) -> LatencyStratum {
        let side = |traffic: &Traffic| LatencySide {
            histogram: traffic.caller_latency.clone(),
            units: traffic.latency_units(),
        };
        LatencyStratum {
            candidate: side(&self.candidate),
            stable: side(&self.stable),
        }
    }

    /// How much callers' answers agree, as the candidate's score, for [`sequential::scores`].
    #[must_use]
    pub fn agreements(&self) -> sequential::Stratum {
        sequential::Stratum {
            candidate: self.agreement.score_units(),
            stable: Units::default(),
        }
    }

    /// Differences in units of [`DIFFERENCE`], as the candidate's, for [`sequential::means`].
    #[must_use]
    pub fn differences(&self) -> LatencyStratum {
        LatencyStratum {
            candidate: LatencySide {
                histogram: self.differences.clone(),
                units: self.candidate.caller_units(),
            },
            stable: LatencySide::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(failed: bool, latency: u64) -> Answered {
        Answered { failed, latency }
    }

    fn output(values: u64, agreeing: u64, largest: f64) -> Output {
        Output {
            values,
            agreeing,
            numbers: values,
            difference: largest,
            largest,
        }
    }

    #[test]
    fn copies_are_counted_by_side_and_merging_parts_is_counting_the_whole() {
        let mut parts = [Mirrored::default(), Mirrored::default()];
        for request in 0..200u64 {
            let key = format!("caller-{}", request % 40);
            let compared = Compared {
                agreement: if request % 4 == 0 { 0.5 } else { 1.0 },
                difference: Some(0.25),
                outputs: vec![("y".into(), output(2, 2 - u64::from(request % 4 == 0), 0.25))],
            };
            parts[(request % 2) as usize].record(
                Some(&key),
                0,
                answered(false, 1000),
                answered(request % 10 == 0, 2000),
                Some(&compared),
            );
        }
        parts[0].record(None, 1, answered(true, 5), answered(false, 5), None);
        parts[0].record(None, 2, answered(false, 5), answered(false, 5), None);
        let [mut all, other] = parts;
        all.merge(&other);
        assert_eq!((all.candidate.requests, all.candidate.errors), (202, 20));
        assert_eq!((all.stable.requests, all.stable.errors), (202, 1));
        // What one side failed has nothing to compare.
        assert_eq!((all.compared, all.incomparable), (180, 1));
        let agreements = all.agreements().candidate;
        assert_eq!(agreements.callers, 36, "four callers failed each time");
        let y = all.outputs["y"];
        assert_eq!(
            (y.values, y.largest, y.mean_difference()),
            (360, 0.25, Some(0.125))
        );
        assert!((y.agreement() - agreements.mean().unwrap()).abs() < 0.01);
        let written = serde_json::to_string(&all).unwrap();
        let read: Mirrored = serde_json::from_str(&written).unwrap();
        assert_eq!(read.compared, all.compared);
        assert_eq!(read.agreements(), all.agreements());
    }

    #[test]
    fn outputs_are_bounded() {
        let mut all = Mirrored::default();
        let outputs = (0..100).map(|i| (format!("y{i}"), output(1, 1, 0.0)));
        let compared = Compared {
            agreement: 1.0,
            difference: None,
            outputs: outputs.collect(),
        };
        let fine = answered(false, 1);
        all.record(None, 1, fine, fine, Some(&compared));
        let other = all.clone();
        all.merge(&other);
        assert_eq!(all.outputs.len(), MAX_OUTPUTS);
    }
}
