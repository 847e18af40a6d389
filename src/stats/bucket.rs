//! Live measurements: one-minute buckets that gateways fill, and what planners read of them.
//!
//! A gateway pod counts each answered request into the bucket of (release, revision, epoch, minute of the answer's end); the
//! operator keeps the buckets of every gateway process by that key, so reading twice counts once, and hands planners a
//! [`ReleaseMeasurements`]. A bucket of a minute that is over changes no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    asked::Asked,
    labels::{Late, Samples},
    mirror::Mirrored,
    predictions::Stretches,
    profile::Hours,
    sequential::{self, LatencySide, LatencyStratum, Units},
    sketch::{CallerSketch, LatencyHistogram, RowSketch},
};

/// A gateway keeps buckets of at most so many minutes.
pub const MAX_MINUTES: i64 = 180;

/// What a gateway reports, and answers callers, when a credential isn't there.
pub const CREDENTIALS_MISSING: &str = "CredentialsMissing";
/// What a gateway reports when the backend of a prompt that serves can't be reached.
pub const BACKEND_UNREACHABLE: &str = "BackendUnreachable";

/// Answer of a gateway to `GET /buckets?since=MINUTE`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Buckets {
    /// The process that counted: another one starts from nothing.
    pub process: String,
    /// Unix minute in which the process started: before it, it has measured nothing.
    pub started: i64,
    /// The gateway's present minute: buckets before it are final, this one still grows. Ask next with `since` = this.
    pub minute: i64,
    /// The gateway's present second.
    #[serde(default)]
    pub second: i64,
    /// The unix minute since which no sampled prediction or label is missing.
    #[serde(default)]
    pub late_since: i64,
    /// Buckets of the minutes from `since`, in no particular order.
    pub buckets: Vec<Bucket>,
}

/// Answer of a gateway to `GET /epochs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Epochs {
    /// The process that answers.
    pub process: String,
    /// By release uid.
    pub releases: BTreeMap<String, ServedEpoch>,
}

/// The routing of one release that a gateway serves now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedEpoch {
    /// `status.rollout.epoch` of what is served.
    pub epoch: i64,
    /// A newer epoch was read but can't be served yet: why, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// What keeps this release's callers from being answered, as a CamelCase reason and a sentence (`CredentialsMissing: …`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether that may be another in a moment, as the gateway is looking into it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looking: bool,
    /// How the payload log is doing, where there is to be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReport>,
}

/// How the payload log of one release is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogReport {
    /// What keeps files from the store, as a CamelCase reason and a sentence (`CredentialsMissing: …`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What one revision of a release answered in one minute under one epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// UID of the release.
    pub release: String,
    /// Hash of the revision.
    pub revision: String,
    /// Epoch under which the requests were routed.
    pub epoch: i64,
    /// The candidate's weight under that epoch, 0 to 100.
    pub weight: i32,
    /// Unix minute in which the answers ended.
    pub minute: i64,
    /// Counts.
    pub traffic: Traffic,
    /// Rows of inputs seen, for models whose signature is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<RowSketch>,
    /// What answers predicted, for models whose answers can be read (see [`super::predictions`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<RowSketch>,
    /// Copies of stable's requests that this revision, then the candidate, got; in no other count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<Box<Mirrored>>,
    /// Sampled predictions and labels that came in this minute, for releases whose metrics take late labels. Of them gateways remember older minutes, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Box<Samples>>,
}

impl Bucket {
    /// Adds the requests and copies of another bucket of the same revision and epoch, not its rows.
    pub fn merge_counts(&mut self, other: &Self) {
        self.traffic.merge(&other.traffic);
        if let Some(more) = &other.mirrored {
            self.mirrored.get_or_insert_default().merge(more);
        }
    }
}

/// Counts of answered requests; mergeable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Of those, failed by the revision or its backend: 5xx, time-outs, broken connections. A 4xx is the caller's.
    pub errors: u64,
    /// Microseconds from the request's head to the answer's last byte.
    pub latency: LatencyHistogram,
    /// Microseconds to the answer's first byte of body, for prompts.
    pub first_byte: LatencyHistogram,
    /// Likewise, but one request of each caller in each bucket (every request of those without a key): a caller who makes a third of
    /// the traffic isn't a third of the evidence.
    pub caller_latency: LatencyHistogram,
    /// Likewise, to the first byte.
    pub caller_first_byte: LatencyHistogram,
    /// Requests and errors of callers with a key: the units of [`sequential`].
    pub callers: CallerSketch,
    /// Scores that callers gave to answers; who has no key is a caller of its own.
    pub feedback: CallerSketch,
    /// Requests without a caller's key, placed at random: each is a unit of its own.
    pub unkeyed: u64,
    /// Of those, errors.
    pub unkeyed_errors: u64,
    /// Tokens of prompt and answer, likewise one request of each caller in each bucket, of those that said how many they took.
    pub caller_tokens: LatencyHistogram,
    /// What they cost by the backend's prices, in billionths of its currency.
    pub caller_costs: LatencyHistogram,
    /// Requests that said how many tokens they took.
    pub with_usage: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens of their answers.
    pub completion_tokens: u64,
    /// Requests whose inputs were not understood (`FeaturesUnknown`).
    pub features_unknown: u64,
    /// Requests whose inputs were not looked at because there was too much to do, or the body was too long.
    pub features_dropped: u64,
    /// Answers whose predictions weren't read: there was too much to do, the answer was too long, or it says none that we know.
    pub predictions_unread: u64,
}

/// What a request used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens of its prompt.
    pub prompt: u64,
    /// Tokens of its answer.
    pub completion: u64,
    /// What they cost, in billionths of the backend's currency; `None` without prices.
    pub cost: Option<u64>,
}

impl Traffic {
    /// Counts an answered request: its caller's key, whether the revision failed, microseconds to the last and to the first byte. True:
    /// it is the first of its caller here, or of one without a key.
    pub fn record(
        &mut self,
        caller: Option<&str>,
        failed: bool,
        latency: u64,
        first_byte: Option<u64>,
    ) -> bool {
        self.record_used(caller, failed, latency, first_byte, None)
    }

    /// As [`Traffic::record`], with what the request used.
    pub fn record_used(
        &mut self,
        caller: Option<&str>,
        failed: bool,
        latency: u64,
        first_byte: Option<u64>,
        used: Option<Used>,
    ) -> bool {
        self.requests += 1;
        self.errors += u64::from(failed);
        let new = match caller {
            Some(key) => self.callers.add_timed(key, failed, latency),
            None => {
                self.unkeyed += 1;
                self.unkeyed_errors += u64::from(failed);
                true
            }
        };
        self.latency.add(latency);
        if new {
            self.caller_latency.add(latency);
        }
        if let Some(first) = first_byte {
            self.first_byte.add(first);
            if new {
                self.caller_first_byte.add(first);
            }
        }
        if let Some(Used {
            prompt,
            completion,
            cost,
        }) = used
        {
            self.with_usage += 1;
            self.prompt_tokens += prompt;
            self.completion_tokens += completion;
            if new {
                self.caller_tokens.add(prompt.saturating_add(completion));
                if let Some(cost) = cost {
                    self.caller_costs.add(cost);
                }
            }
        }
        new
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.latency.merge(&other.latency);
        self.first_byte.merge(&other.first_byte);
        self.caller_latency.merge(&other.caller_latency);
        self.caller_first_byte.merge(&other.caller_first_byte);
        self.callers.merge(&other.callers);
        self.feedback.merge(&other.feedback);
        self.unkeyed += other.unkeyed;
        self.unkeyed_errors += other.unkeyed_errors;
        self.caller_tokens.merge(&other.caller_tokens);
        self.caller_costs.merge(&other.caller_costs);
        self.with_usage += other.with_usage;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.features_unknown += other.features_unknown;
        self.features_dropped += other.features_dropped;
        self.predictions_unread += other.predictions_unread;
    }

    /// Error rates of callers, and of requests without one, as units of a sequential test.
    pub fn units(&self) -> Units {
        let mut units = self.callers.units();
        units.merge(&Units::of_requests(self.unkeyed, self.unkeyed_errors));
        units
    }

    /// How many independent requests [`Traffic::caller_latency`] is worth: those of one caller count the less, the more they resemble
    /// each other (the design effect of clusters of different sizes: Kish 1965), and at least as one.
    pub fn latency_units(&self) -> f64 {
        let (sum, squares) = self.callers.presence();
        let unkeyed = self.unkeyed as f64;
        let likeness = self.callers.likeness();
        match sum + likeness * (squares - sum) + unkeyed {
            0.0 => 0.0,
            weight => (sum + unkeyed) * (sum + unkeyed) / weight,
        }
    }

    /// How many callers' worth of independent requests [`Traffic::caller_tokens`] has, if all of one caller's are alike.
    pub fn caller_units(&self) -> f64 {
        let (sum, squares) = self.callers.presence();
        let unkeyed = self.unkeyed as f64;
        match squares + unkeyed {
            0.0 => 0.0,
            weight => (sum + unkeyed) * (sum + unkeyed) / weight,
        }
    }

    /// Errors by request; `None` without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.errors as f64 / self.requests as f64)
    }
}

/// What gateways say of one release, merged over them: the part of a planner's `Observed` that is live.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReleaseMeasurements {
    /// Gateway pods of the namespace that aren't terminating.
    pub gateways: Vec<Gateway>,
    /// Buckets of all gateway processes, also of pods that are gone, by (minute, epoch, revision). Minutes older than
    /// [`MAX_MINUTES`] are in `older`.
    pub buckets: Vec<Arc<Bucket>>,
    /// Input rows of older minutes by hour, where a drift window needs them.
    pub older: Vec<Arc<HourlyFeatures>>,
    /// Minutes before this one are final in every gateway that could be read. `None`: nothing was read yet.
    pub final_before: Option<i64>,
    /// Since when (unix minute) there are measurements in this operator's memory: windows that begin before lack data.
    pub since: Option<i64>,
    /// Why callers of the release's Service don't reach these gateways yet, as a sentence; `None`: nothing speaks against it.
    pub unreachable: Option<String>,
    /// What Prometheus says of `spec.metrics`.
    pub asked: Asked,
    /// Sampled predictions, and the labels that came for them.
    pub late: Late,
}

/// One gateway pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Name of the pod.
    pub pod: String,
    /// Whether the cluster calls it ready.
    pub ready: bool,
    /// The epoch of the release that it serves; `None`: it couldn't be asked, or doesn't know the release.
    pub epoch: Option<i64>,
    /// Why it doesn't serve the newest epoch it has read.
    pub waiting: Option<String>,
    /// What keeps callers from being answered (`CredentialsMissing: …`).
    pub problem: Option<String>,
    /// Why it can't be read, as a sentence that says what to do; `None`: it was read.
    pub unreachable: Option<String>,
    /// How the payload log is doing there.
    pub log: Option<LogReport>,
}

/// Input rows of one revision in one hour.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HourlyFeatures {
    /// Hash of the revision.
    pub revision: String,
    /// Unix hour.
    pub hour: i64,
    /// The rows.
    pub features: RowSketch,
    /// Requests whose inputs were not understood.
    pub features_unknown: u64,
    /// What answers predicted.
    pub predictions: RowSketch,
}

/// Traffic of both sides under one epoch: the time during which the weight stood still.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stratum {
    /// Epoch.
    pub epoch: i64,
    /// The candidate's weight.
    pub weight: i32,
    /// First unix minute with requests.
    pub from: i64,
    /// Last unix minute with requests.
    pub to: i64,
    /// What stable answered.
    pub stable: Traffic,
    /// What the candidate answered.
    pub candidate: Traffic,
    /// Copies of stable's requests that the candidate got.
    pub mirrored: Mirrored,
}

impl Stratum {
    /// Error rates by caller, for [`sequential::rates`].
    pub fn rates(&self) -> sequential::Stratum {
        sequential::Stratum {
            candidate: self.candidate.units(),
            stable: self.stable.units(),
        }
    }

    /// Latencies of callers, for [`sequential::latencies`].
    pub fn latencies(&self) -> LatencyStratum {
        self.histograms(|traffic| &traffic.caller_latency)
    }

    /// Times to callers' first byte, for [`sequential::latencies`].
    pub fn first_bytes(&self) -> LatencyStratum {
        self.histograms(|traffic| &traffic.caller_first_byte)
    }

    /// Tokens of callers' requests, for [`sequential::means`].
    pub fn tokens(&self) -> LatencyStratum {
        self.used(|traffic| &traffic.caller_tokens)
    }

    /// Cost of callers' requests, for [`sequential::means`].
    pub fn costs(&self) -> LatencyStratum {
        self.used(|traffic| &traffic.caller_costs)
    }

    /// Callers' mean scores, for [`sequential::scores`].
    pub fn scores(&self) -> sequential::Stratum {
        sequential::Stratum {
            candidate: self.candidate.feedback.score_units(),
            stable: self.stable.feedback.score_units(),
        }
    }

    /// Which callers gave a score at all, for [`sequential::rates`].
    pub fn responses(&self) -> sequential::Stratum {
        let side = |traffic: &Traffic| {
            Units::of_requests(
                traffic.callers.callers() + traffic.unkeyed,
                traffic.feedback.callers(),
            )
        };
        sequential::Stratum {
            candidate: side(&self.candidate),
            stable: side(&self.stable),
        }
    }

    fn used(&self, of: impl Fn(&Traffic) -> &LatencyHistogram) -> LatencyStratum {
        let side = |traffic: &Traffic| LatencySide {
            histogram: of(traffic).clone(),
            units: traffic.caller_units(),
        };
        LatencyStratum {
            candidate: side(&self.candidate),
            stable: side(&self.stable),
        }
    }

    fn histograms(&self, of: impl Fn(&Traffic) -> &LatencyHistogram) -> LatencyStratum {
        let side = |traffic: &Traffic| LatencySide {
            histogram: of(traffic).clone(),
            units: traffic.latency_units(),
        };
        LatencyStratum {
            candidate: side(&self.candidate),
            stable: side(&self.stable),
        }
    }
}

/// Input rows of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowFeatures {
    /// The rows; `None`: no row was seen.
    pub rows: Option<RowSketch>,
    /// Requests whose inputs were not understood.
    pub unknown: u64,
    /// Requests whose inputs were not looked at.
    pub dropped: u64,
    /// When the rows came.
    pub hours: Hours,
}

impl ReleaseMeasurements {
    /// Ready gateways.
    pub fn ready(&self) -> usize {
        self.gateways.iter().filter(|g| g.ready).count()
    }

    /// Ready gateways that serve this epoch or a later one.
    pub fn applied(&self, epoch: i64) -> usize {
        let serves = |g: &&Gateway| g.ready && g.epoch.is_some_and(|e| e >= epoch);
        self.gateways.iter().filter(serves).count()
    }

    /// Whether there is a ready gateway, and every ready one serves this epoch.
    pub fn is_applied(&self, epoch: i64) -> bool {
        self.ready() > 0 && self.applied(epoch) == self.ready()
    }

    /// Why measurements or epochs can't be read, if they can't: the first ready gateway's sentence.
    pub fn blocked(&self) -> Option<&str> {
        self.gateways
            .iter()
            .filter(|g| g.ready)
            .find_map(|g| g.unreachable.as_deref())
    }

    /// What keeps callers from being answered, as a ready gateway says it.
    pub fn problem(&self) -> Option<&str> {
        self.gateways
            .iter()
            .filter(|g| g.ready)
            .find_map(|g| g.problem.as_deref())
    }

    /// Both sides by epoch, in order, of the minutes from `from` on (the candidate's warm-up ends there).
    pub fn strata(&self, stable: &str, candidate: &str, from: i64) -> Vec<Stratum> {
        let mut strata: BTreeMap<i64, Stratum> = BTreeMap::new();
        for bucket in self.buckets.iter().filter(|b| b.minute >= from) {
            let is_stable = bucket.revision == stable;
            if !is_stable && bucket.revision != candidate {
                continue;
            }
            let stratum = strata.entry(bucket.epoch).or_insert_with(|| Stratum {
                epoch: bucket.epoch,
                weight: bucket.weight,
                from: bucket.minute,
                to: bucket.minute,
                ..Stratum::default()
            });
            stratum.from = stratum.from.min(bucket.minute);
            stratum.to = stratum.to.max(bucket.minute);
            let side = match is_stable {
                true => &mut stratum.stable,
                false => &mut stratum.candidate,
            };
            side.merge(&bucket.traffic);
            if let Some(copies) = bucket.mirrored.as_ref().filter(|_| !is_stable) {
                stratum.mirrored.merge(copies);
            }
        }
        strata.into_values().collect()
    }

    /// All that a revision answered in the minutes `from..to`.
    pub fn traffic(&self, revision: &str, from: i64, to: i64) -> Traffic {
        let mut total = Traffic::default();
        for bucket in self.of(revision, from, to) {
            total.merge(&bucket.traffic);
        }
        total
    }

    /// Input rows of a revision in the minutes `from..to`, of whole hours where the minutes are gone. Of sketches that
    /// don't go together (a column that changed its kind) the later one is left out and its rows count as unknown.
    pub fn features(&self, revision: &str, from: i64, to: i64) -> WindowFeatures {
        let mut window = WindowFeatures::default();
        for hour in &self.older {
            if hour.revision == revision && hour.hour * 60 >= from && hour.hour * 60 + 60 <= to {
                window.add(hour.hour * 3_600, &hour.features);
                window.unknown += hour.features_unknown;
            }
        }
        for bucket in self.of(revision, from, to) {
            window.unknown += bucket.traffic.features_unknown;
            window.dropped += bucket.traffic.features_dropped;
            if let Some(rows) = &bucket.features {
                window.add(bucket.minute * 60, rows);
            }
        }
        window
    }

    /// What a revision predicted in the minutes `from..to`, of whole hours where the minutes are gone.
    pub fn predictions(&self, revision: &str, from: i64, to: i64) -> Stretches {
        let mut all = Stretches::default();
        for hour in &self.older {
            if hour.revision == revision && hour.hour * 60 >= from && hour.hour * 60 + 60 <= to {
                all.add(hour.hour * 60, 60, &hour.predictions);
            }
        }
        for bucket in self.of(revision, from, to) {
            if let Some(rows) = &bucket.predictions {
                all.add(bucket.minute, 1, rows);
            }
        }
        all
    }

    fn of(&self, revision: &str, from: i64, to: i64) -> impl Iterator<Item = &Arc<Bucket>> {
        self.buckets
            .iter()
            .filter(move |b| b.revision == revision && (from..to).contains(&b.minute))
    }
}

impl WindowFeatures {
    /// Adds rows of an hour, given by a Unix time in seconds; those of sketches that don't go together count as unknown.
    pub fn add(&mut self, second: i64, rows: &RowSketch) {
        let mut hours = Hours::default();
        hours.add(second, rows.rows);
        self.add_all(&hours, rows);
    }

    /// The same of rows of several hours.
    pub fn add_all(&mut self, hours: &Hours, rows: &RowSketch) {
        match &mut self.rows {
            None => self.rows = Some(rows.clone()),
            Some(all) => {
                if all.merge(rows).is_err() {
                    self.unknown += rows.rows;
                    return;
                }
            }
        }
        self.hours.merge(hours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::sketch::{Cell, ColumnKind};

    fn bucket(revision: &str, epoch: i64, minute: i64, requests: u64, errors: u64) -> Arc<Bucket> {
        let mut traffic = Traffic {
            requests,
            errors,
            ..Traffic::default()
        };
        for request in 0..requests {
            traffic
                .callers
                .add(&format!("{}", request % 5), request < errors);
        }
        let mut rows = RowSketch::new([("temp", ColumnKind::Numeric)]);
        rows.add([("temp", Cell::Number(minute as f64))]);
        Arc::new(Bucket {
            release: "u".into(),
            revision: revision.into(),
            epoch,
            weight: 10,
            minute,
            traffic,
            features: Some(rows),
            ..Bucket::default()
        })
    }

    #[test]
    fn strata_pair_what_both_sides_answered_under_the_same_epoch() {
        let live = ReleaseMeasurements {
            buckets: vec![
                bucket("s", 1, 10, 100, 1),
                bucket("c", 1, 10, 10, 2),
                bucket("s", 2, 10, 50, 0),
                bucket("x", 2, 10, 7, 7),
                bucket("s", 2, 11, 40, 0),
                bucket("s", 2, 11, 2, 1),
                bucket("c", 2, 9, 1, 1),
            ],
            ..ReleaseMeasurements::default()
        };
        let strata = live.strata("s", "c", 10);
        let seen: Vec<_> = strata
            .iter()
            .map(|s| {
                (
                    s.epoch,
                    s.from,
                    s.to,
                    s.stable.requests,
                    s.candidate.requests,
                )
            })
            .collect();
        assert_eq!(seen, [(1, 10, 10, 100, 10), (2, 10, 11, 92, 0)]);
        // A caller that comes back in the next minute is still one unit.
        assert_eq!(strata[1].rates().stable.callers, 5);
        let units = strata[1].stable.latency_units();
        assert!((units - 144.0 / 30.0).abs() < 1e-9, "{units}");
        assert_eq!(live.traffic("s", 10, 11).requests, 150);
        assert_eq!(live.features("s", 10, 12).rows.map(|r| r.rows), Some(4));
    }

    #[test]
    fn a_request_without_a_key_is_a_unit_of_its_own() {
        let traffic = Traffic {
            requests: 4,
            unkeyed: 4,
            unkeyed_errors: 1,
            ..Traffic::default()
        };
        assert_eq!(
            (traffic.units().callers, traffic.units().mean()),
            (4, Some(0.25))
        );
    }

    #[test]
    fn an_epoch_is_applied_only_when_every_ready_gateway_serves_it() {
        let gateway = |ready, epoch| Gateway {
            ready,
            epoch,
            ..Gateway::default()
        };
        let mut live = ReleaseMeasurements::default();
        assert!(
            !live.is_applied(0),
            "nobody serves when there is no gateway"
        );
        live.gateways = vec![gateway(true, Some(3)), gateway(false, Some(1))];
        assert!(live.is_applied(3) && !live.is_applied(4));
        live.gateways.push(gateway(true, None));
        assert!(!live.is_applied(3));
        assert_eq!((live.applied(3), live.ready()), (1, 2));
    }
}
