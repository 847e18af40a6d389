//! What the operator counts. Labels come from closed sets: kinds, controllers, outcomes, verbs. Gauges of objects are in [`super::shown`], the
//! gateway's metrics in its `telemetry`; docs/metrics.md has all of them.

use std::sync::LazyLock;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Where all metrics of the process are.
pub static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// Registers a counter with labels.
pub fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric =
        IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are constants");
    REGISTRY
        .register(Box::new(metric.clone()))
        .expect("each name is registered once");
    metric
}

/// Registers a gauge with labels.
pub fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric =
        IntGaugeVec::new(Opts::new(name, help), labels).expect("names and labels are constants");
    REGISTRY
        .register(Box::new(metric.clone()))
        .expect("each name is registered once");
    metric
}

/// Registers a histogram of seconds with labels.
pub fn seconds(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let buckets = vec![0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0];
    let options = HistogramOpts::new(name, help).buckets(buckets);
    let metric = HistogramVec::new(options, labels).expect("names and labels are constants");
    REGISTRY
        .register(Box::new(metric.clone()))
        .expect("each name is registered once");
    metric
}

/// Reconciles, by controller and outcome.
pub static RECONCILES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_controller_reconciles_total",
        "Reconciles by controller and outcome: done, waiting, unseen, transient, conflict, refused, bug, not_leader, timeout, panic.",
        &["controller", "outcome"],
    )
});

/// How long reconciles take.
pub static RECONCILE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds(
        "perennial_controller_reconcile_seconds",
        "Duration of reconciles.",
        &["controller"],
    )
});

/// Keys that wait for a reconcile.
pub static QUEUE_KEYS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "perennial_controller_queue_keys",
        "Objects that wait for their turn now (timers not counted).",
        &["controller"],
    )
});

/// Writes, by verb and kind.
pub static WRITES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_cluster_writes_total",
        "Writes to the API server by verb (apply, create, delete, status) and kind.",
        &["verb", "kind"],
    )
});

/// Watches that failed.
pub static WATCH_ERRORS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_cluster_watch_errors_total",
        "Watches that failed and were started again, by kind.",
        &["kind"],
    )
});

/// Objects that don't decode.
pub static INVALID_OBJECTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_cluster_invalid_objects_total",
        "Objects that this version of the operator can't read (InvalidObject), counted at each event.",
        &["kind"],
    )
});

/// Objects in the caches.
pub static CACHED_OBJECTS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "perennial_cluster_cached_objects",
        "Objects in the caches, by kind.",
        &["kind"],
    )
});

/// Whether this process leads.
pub static LEADING: LazyLock<IntGauge> = LazyLock::new(|| {
    let metric = IntGauge::new(
        "perennial_operator_leading",
        "1 while this process may write.",
    )
    .expect("the name is a constant");
    REGISTRY
        .register(Box::new(metric.clone()))
        .expect("each name is registered once");
    metric
});

/// Rollouts that ended.
pub static ROLLOUTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_rollout_outcomes_total",
        "Rollouts that ended, by kind, outcome (Promoted, RolledBack, Aborted, Superseded, Withdrawn) and reason.",
        &["kind", "outcome", "reason"],
    )
});

/// Retrainings by what came of them.
pub static RETRAININGS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_retraining_results_total",
        "Retrainings that came to this: Running (started), Succeeded (made a version), Failed, Promoted, Rejected, NoNewData, DidNotHelp, Superseded, Withdrawn, NotEnoughData.",
        &["result"],
    )
});

/// Runs of Evaluations that ended.
pub static EVALUATIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_evaluation_runs_total",
        "Runs of Evaluations that ended, by verdict: Passed, Failed, Inconclusive, Error.",
        &["verdict"],
    )
});

/// TrainingJobs that ended.
pub static TRAININGS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "perennial_training_outcomes_total",
        "TrainingJobs that ended, by phase: Succeeded, Failed.",
        &["phase"],
    )
});

/// All metrics in the text format of Prometheus.
pub fn text() -> Vec<u8> {
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&REGISTRY.gather(), &mut out) {
        tracing::error!("metrics can't be encoded: {error}");
    }
    out.extend(super::shown::text().into_bytes());
    out
}
