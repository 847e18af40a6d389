//! The gateway's own metrics. Labels are names of releases that exist, and closed sets; a release that goes takes its series along.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::{
    objects::Kind,
    table::{Release, Table},
};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Refused for what the caller sent (4xx).
    CallerError,
    /// 5xx, a time-out or a broken connection.
    Error,
    /// The caller went away.
    Canceled,
}

impl Outcome {
    const ALL: [(Outcome, &'static str); 4] = [
        (Outcome::Ok, "ok"),
        (Outcome::CallerError, "caller_error"),
        (Outcome::Error, "error"),
        (Outcome::Canceled, "canceled"),
    ];
}

/// What is counted by release beside requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A request without a caller's key.
    Unkeyed,
    /// A request of the candidate that stable answers.
    FellBack,
    /// A request whose caller chose the side.
    Overridden,
    /// A request that was sent again, to another pod.
    Retried,
    /// A pod that is left out.
    Ejected,
    /// A request that was refused, as too many were open.
    Overflowed,
    /// A copy that was answered.
    Mirrored,
    /// A copy that failed.
    MirrorFailed,
    /// A copy that was not made.
    MirrorDropped,
    /// A request whose inputs are others than the model's.
    OtherSignature,
    /// A score that was given to an answer.
    Feedback,
    /// A label that came for an answer.
    Labelled,
    /// A request that is in the payload log.
    Logged,
    /// A request that should be, and isn't.
    LogDropped,
}

impl Count {
    const ALL: [(Count, &'static str, &'static str); 14] = [
        (
            Count::Unkeyed,
            "perennial_gateway_unkeyed_total",
            "Requests without a caller's key, placed at random",
        ),
        (
            Count::FellBack,
            "perennial_gateway_fell_back_total",
            "Requests of the candidate that stable answered, as the candidate has no ready endpoint",
        ),
        (
            Count::Overridden,
            "perennial_gateway_overridden_total",
            "Requests whose callers chose the side by the header of spec.traffic.override",
        ),
        (
            Count::Retried,
            "perennial_gateway_retries_total",
            "Requests that were sent again, to another pod",
        ),
        (
            Count::Ejected,
            "perennial_gateway_ejections_total",
            "Times that a pod was left out, as it kept failing",
        ),
        (
            Count::Overflowed,
            "perennial_gateway_overflows_total",
            "Requests that were refused, as too many were open (spec.traffic.limits)",
        ),
        (
            Count::Mirrored,
            "perennial_gateway_mirrored_total",
            "Copies of stable's requests that the candidate answered",
        ),
        (
            Count::MirrorFailed,
            "perennial_gateway_mirror_errors_total",
            "Copies of stable's requests that the candidate failed",
        ),
        (
            Count::MirrorDropped,
            "perennial_gateway_mirror_dropped_total",
            "Copies that were not made: too many were open, or the body was too long",
        ),
        (
            Count::OtherSignature,
            "perennial_gateway_signature_mismatches_total",
            "Requests whose inputs are others than the model was trained on (spec.traffic.signature)",
        ),
        (
            Count::Feedback,
            "perennial_gateway_feedback_total",
            "Scores that were given to answers (POST /v1/feedback)",
        ),
        (
            Count::Labelled,
            "perennial_gateway_labels_total",
            "Labels that came for answers (POST /v1/feedback), also of those outside the sample",
        ),
        (
            Count::Logged,
            "perennial_gateway_logged_total",
            "Requests that were written to the payload log (spec.monitoring.payloadLog)",
        ),
        (
            Count::LogDropped,
            "perennial_gateway_log_dropped_total",
            "Requests of the sample that are not in the payload log: there was too much to do, or the store took none for too long",
        ),
    ];
}

/// All metrics of a gateway process.
pub struct Telemetry {
    registry: Registry,
    requests: IntCounterVec,
    revisions: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    /// In the order of [`Count::ALL`].
    counts: Vec<IntCounterVec>,
    weight: IntGaugeVec,
    epoch: IntGaugeVec,
    /// Requests that belong to no release.
    pub unrouted: IntCounter,
    /// Requests whose inputs were not looked at.
    pub features_dropped: IntCounter,
    /// Objects that couldn't be understood.
    pub undecodable: IntCounter,
    /// Requests that are open.
    pub open: IntGauge,
    /// Connections that are open.
    pub connections: IntGauge,
}

/// One release's metrics, resolved once.
pub struct Meters {
    requests: [[IntCounter; 4]; 2],
    duration: [Histogram; 2],
    first_byte: [Histogram; 2],
    /// In the order of [`Count::ALL`].
    counts: Vec<IntCounter>,
}

/// One revision's counters, resolved once.
#[derive(Debug)]
pub struct RevisionMeters([IntCounter; 4]);

impl RevisionMeters {
    /// Counts a request that has ended.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }
}

const LATENCY: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];
const TRACKS: [&str; 2] = ["stable", "candidate"];

impl Telemetry {
    /// Fresh metrics.
    ///
    /// # Errors
    /// Only if a name were used twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauges = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(Opts::new(name, help), &["kind", "release"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let histograms = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(LATENCY.to_vec());
            let vec = HistogramVec::new(options, &["kind", "release", "track"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let counter = |name: &str, help: &str| {
            let one = IntCounter::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok::<_, prometheus::Error>(one)
        };
        let gauge = |name: &str, help: &str| {
            let one = IntGauge::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok::<_, prometheus::Error>(one)
        };
        Ok(Self {
            requests: counters(
                "perennial_gateway_requests_total",
                "Requests by how they ended",
                &["kind", "release", "track", "outcome"],
            )?,
            revisions: counters(
                "perennial_gateway_revision_requests_total",
                "Requests by revision and how they ended",
                &["kind", "release", "revision", "outcome"],
            )?,
            duration: histograms(
                "perennial_gateway_request_duration_seconds",
                "From the request's head to the answer's last byte",
            )?,
            first_byte: histograms(
                "perennial_gateway_time_to_first_byte_seconds",
                "From the request's head to the answer's first byte",
            )?,
            counts: Count::ALL
                .iter()
                .map(|(_, name, help)| counters(name, help, &["kind", "release"]))
                .collect::<Result<_, _>>()?,
            weight: gauges(
                "perennial_gateway_candidate_weight_percent",
                "Callers that go to the candidate",
            )?,
            epoch: gauges(
                "perennial_gateway_epoch",
                "Epoch of the routing that is served",
            )?,
            unrouted: counter(
                "perennial_gateway_unrouted_total",
                "Requests that belong to no release",
            )?,
            features_dropped: counter(
                "perennial_gateway_features_dropped_total",
                "Requests whose inputs were not looked at, as there was too much to do or the body was too long",
            )?,
            undecodable: counter(
                "perennial_gateway_undecodable_objects_total",
                "Objects of the cluster that couldn't be understood; what was known of them stayed in effect",
            )?,
            open: gauge("perennial_gateway_open_requests", "Requests that are open")?,
            connections: gauge(
                "perennial_gateway_open_connections",
                "Connections of callers that are open",
            )?,
            registry,
        })
    }

    /// A release's handles.
    pub fn meters(&self, kind: Kind, release: &str) -> Meters {
        let kind = kind.plural();
        let track = |t: &str| {
            Outcome::ALL.map(|(_, outcome)| {
                self.requests
                    .with_label_values(&[kind, release, t, outcome])
            })
        };
        Meters {
            requests: TRACKS.map(track),
            duration: TRACKS.map(|t| self.duration.with_label_values(&[kind, release, t])),
            first_byte: TRACKS.map(|t| self.first_byte.with_label_values(&[kind, release, t])),
            counts: self
                .counts
                .iter()
                .map(|c| c.with_label_values(&[kind, release]))
                .collect(),
        }
    }

    /// A revision's handles, by how requests ended.
    pub fn revision_meters(&self, kind: Kind, release: &str, revision: &str) -> RevisionMeters {
        let labels = |outcome| [kind.plural(), release, revision, outcome];
        RevisionMeters(
            Outcome::ALL.map(|(_, outcome)| self.revisions.with_label_values(&labels(outcome))),
        )
    }

    /// Lets go of the series of revisions that serve no more. Who still holds a handle counts into the void.
    fn forget_revisions(&self, before: &Release, now: Option<&Release>) {
        let served = now.map(|now| [&now.stable, &now.candidate]);
        let served = |hash: &str| {
            let mut sides = served.into_iter().flatten().flatten();
            sides.any(|revision| *revision.hash == *hash)
        };
        for revision in [&before.stable, &before.candidate].into_iter().flatten() {
            if served(&revision.hash) {
                continue;
            }
            for (_, outcome) in Outcome::ALL {
                let kind = before.kind.plural();
                let labels = [kind, &before.name, &revision.hash, outcome];
                let _ = self.revisions.remove_label_values(&labels);
            }
        }
    }

    /// Shows a new table, and lets go of the series of releases that are gone.
    pub fn show(&self, table: &Table, before: &Table) {
        for release in before.releases() {
            let now = table.by_name(release.kind, &release.name);
            self.forget_revisions(release, now.map(AsRef::as_ref));
            if now.is_none() {
                let (kind, name) = (release.kind.plural(), release.name.as_str());
                // An error only says that there was no such series.
                for track in TRACKS {
                    for (_, outcome) in Outcome::ALL {
                        let _ = self
                            .requests
                            .remove_label_values(&[kind, name, track, outcome]);
                    }
                    let _ = self.duration.remove_label_values(&[kind, name, track]);
                    let _ = self.first_byte.remove_label_values(&[kind, name, track]);
                }
                for count in &self.counts {
                    let _ = count.remove_label_values(&[kind, name]);
                }
                let _ = self.weight.remove_label_values(&[kind, name]);
                let _ = self.epoch.remove_label_values(&[kind, name]);
            }
        }
        for release in table.releases() {
            let labels = [release.kind.plural(), release.name.as_str()];
            self.weight
                .with_label_values(&labels)
                .set(i64::from(release.weight));
            self.epoch
                .with_label_values(&labels)
                .set(release.served.epoch);
        }
    }

    /// Prometheus' text format.
    ///
    /// # Errors
    /// Only if a metric were inconsistent.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

impl Meters {
    /// Counts a request that has ended.
    pub fn count(
        &self,
        candidate: bool,
        outcome: Outcome,
        latency: Duration,
        first_byte: Option<Duration>,
    ) {
        let track = usize::from(candidate);
        self.requests[track][outcome as usize].inc();
        self.duration[track].observe(latency.as_secs_f64());
        if let Some(first) = first_byte {
            self.first_byte[track].observe(first.as_secs_f64());
        }
    }

    /// Counts one of these.
    pub fn note(&self, what: Count) {
        self.add(what, 1);
    }

    /// Counts several of these.
    pub fn add(&self, what: Count, several: u64) {
        if let Some(counter) = self.counts.get(what as usize) {
            counter.inc_by(several);
        }
    }
}
