//! What the metrics show of each object: what its status says, which is what was decided and written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use crate::{
    api::{
        Evaluation, ModelDeployment, PromptRelease,
        condition::{self, kind},
        gate::{GateStatus, MetricValue, Verdict},
        rollout::{RevisionStatus, RolloutState, RolloutStatus},
    },
    cluster::Caches,
    plan::{ended::verdict, model_deployment::retraining::result},
    telemetry::shown::{Gauge, Page},
};

/// Shows every object in the caches.
pub fn show(page: &mut Page, caches: &Caches) {
    for release in caches.model_deployments.all() {
        model(page, &release);
    }
    for release in caches.prompt_releases.all() {
        prompt(page, &release);
    }
    for evaluation in caches.evaluations.all() {
        self::evaluation(page, &evaluation);
    }
}

/// What both kinds of releases have.
struct Release<'a> {
    labels: [&'a str; 3],
    conditions: &'a [Condition],
    stable: Option<&'a RevisionStatus>,
    rollout: Option<&'a RolloutStatus>,
    metrics: &'a [MetricValue],
}

fn model(page: &mut Page, object: &ModelDeployment) {
    let Some(status) = &object.status else {
        return;
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    release(
        page,
        &Release {
            labels: ["modeldeployments", &namespace, &name],
            conditions: &status.conditions,
            stable: status.stable.as_ref(),
            rollout: status.rollout.as_ref(),
            metrics: &status.metrics,
        },
    );
    let labels = [namespace.as_str(), &name];
    if let Some(window) = &status.drift_window
        && let Some(end) = &window.end
    {
        page.set(Gauge::DriftWindowEnd, &labels, seconds(end));
        if let Some(share) = window.share {
            page.set(Gauge::DriftShare, &labels, share);
            let drifted = status
                .drift
                .iter()
                .filter(|d| d.drifted && !d.prediction)
                .count();
            page.set(Gauge::DriftColumns, &labels, drifted as f64);
        }
    }
    if let Some(retraining) = &status.retraining {
        let is_running = retraining.runs.iter().any(|r| r.result == result::RUNNING);
        page.set(
            Gauge::RetrainingRunning,
            &labels,
            f64::from(u8::from(is_running)),
        );
        page.set(Gauge::RetrainingFirings, &labels, retraining.firing as f64);
        for trigger in &retraining.triggers {
            let labels = [namespace.as_str(), &name, &trigger.name, &trigger.state];
            page.set(Gauge::RetrainingTrigger, &labels, 1.0);
        }
    }
}

fn prompt(page: &mut Page, object: &PromptRelease) {
    let Some(status) = &object.status else {
        return;
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    release(
        page,
        &Release {
            labels: ["promptreleases", &namespace, &name],
            conditions: &status.conditions,
            stable: status.stable.as_ref(),
            rollout: status.rollout.as_ref(),
            metrics: &status.metrics,
        },
    );
}

fn release(page: &mut Page, release: &Release<'_>) {
    let labels = release.labels;
    let with = |more: &[&'static str]| -> Vec<&str> {
        labels.into_iter().chain(more.iter().copied()).collect()
    };
    let is_ready = condition::is_true(release.conditions, kind::READY);
    page.set(Gauge::ReleaseReady, &labels, f64::from(u8::from(is_ready)));
    if let Some(since) = release.stable.and_then(|s| s.since.as_ref()) {
        page.set(Gauge::ReleaseStable, &labels, seconds(since));
    }
    for metric in release.metrics {
        if let Some(value) = metric.value {
            let labels = [labels[0], labels[1], labels[2], &metric.name];
            page.set(Gauge::ReleaseMetric, &labels, value);
        }
    }
    let Some(rollout) = release.rollout else {
        return;
    };
    page.set(Gauge::RolloutState, &with(&[state(rollout.state)]), 1.0);
    if rollout.state != RolloutState::Idle {
        if let Some(start) = &rollout.start_time {
            page.set(Gauge::RolloutStarted, &labels, seconds(start));
        }
        page.set(Gauge::RolloutWeight, &labels, f64::from(rollout.weight));
    }
    if matches!(rollout.state, RolloutState::Stepping | RolloutState::Paused) {
        page.set(Gauge::RolloutStep, &labels, f64::from(rollout.step) + 1.0);
    }
    let gauges = Gates {
        value: Gauge::GateValue,
        bound: Gauge::GateBound,
        samples: Gauge::GateSamples,
        verdict: Gauge::GateVerdict,
    };
    gates(page, &gauges, &labels, &rollout.gates);
}

fn evaluation(page: &mut Page, object: &Evaluation) {
    let Some(run) = object.status.as_ref().and_then(|s| s.last_run.as_ref()) else {
        return;
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let labels = [namespace.as_str(), &name];
    page.set(
        Gauge::EvaluationVerdict,
        &[labels[0], labels[1], verdict(run.verdict)],
        1.0,
    );
    if let Some(end) = &run.completion_time {
        page.set(Gauge::EvaluationCompleted, &labels, seconds(end));
    }
    let gauges = Gates {
        value: Gauge::EvaluationGateValue,
        bound: Gauge::EvaluationGateBound,
        samples: Gauge::EvaluationGateSamples,
        verdict: Gauge::EvaluationGateVerdict,
    };
    gates(page, &gauges, &labels, &run.gates);
}

/// Where the gates of a kind are shown.
struct Gates {
    value: Gauge,
    bound: Gauge,
    samples: Gauge,
    verdict: Gauge,
}

fn gates(page: &mut Page, gauges: &Gates, labels: &[&str], gates: &[GateStatus]) {
    for gate in gates {
        // As `plan::rollout` writes it: `maxRatio 1.25`.
        let bound = gate.bound.split(' ').next().unwrap_or_default();
        let limit = gate.bound.rsplit(' ').next().unwrap_or_default();
        let mut labels = labels.to_vec();
        labels.extend([gate.metric.as_str(), bound]);
        if let Some(value) = gate.value {
            page.set(gauges.value, &labels, value);
        }
        if let Ok(limit) = limit.parse() {
            page.set(gauges.bound, &labels, limit);
        }
        // Without a look there are no samples, which isn't the same as none.
        if gate.verdict != Verdict::Pending {
            page.set(gauges.samples, &labels, gate.samples as f64);
        }
        labels.push(verdict(gate.verdict));
        page.set(gauges.verdict, &labels, 1.0);
    }
}

fn state(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Idle => "Idle",
        RolloutState::Preparing => "Preparing",
        RolloutState::Stepping => "Stepping",
        RolloutState::Paused => "Paused",
        RolloutState::Promoting => "Promoting",
        RolloutState::Baking => "Baking",
        RolloutState::RollingBack => "RollingBack",
    }
}

fn seconds(time: &Time) -> f64 {
    time.0.as_second() as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page_of(status: serde_json::Value) -> String {
        let object: ModelDeployment = serde_json::from_value(json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "churn", "namespace": "ml"},
            "spec": {"server": {"template": {"spec": {"containers": [{"name": "server", "image": "s:1"}]}}}},
            "status": status,
        }))
        .unwrap();
        let mut page = Page::default();
        model(&mut page, &object);
        page.text()
    }

    fn lines(page: &str) -> Vec<&str> {
        page.lines().filter(|l| !l.starts_with('#')).collect()
    }

    #[test]
    fn a_rollout_shows_each_gate_with_value_bound_samples_and_verdict() {
        let page = page_of(json!({
            "conditions": [{"type": "Ready", "status": "True", "reason": "Healthy", "message": "", "lastTransitionTime": "2013-07-01T00:00:00Z"}],
            "stable": {"revision": "a", "since": "1970-01-01T00:01:00Z"},
            "rollout": {
                "state": "Stepping", "weight": 10, "step": 1, "epoch": 3, "startTime": "1970-01-01T00:02:00Z",
                "gates": [
                    {"metric": "errorRate", "bound": "max 0.02", "value": 0.01, "samples": 200, "verdict": "Passed"},
                    {"metric": "errorRate", "bound": "max 0.03", "value": 0.01, "samples": 200, "verdict": "Passed"},
                    {"metric": "latencyP95", "bound": "maxRatio 1.25", "verdict": "Pending"},
                ],
            },
            "metrics": [{"name": "rocAuc", "value": 0.7}, {"name": "broken"}],
        }));
        let release = r#"kind="modeldeployments",namespace="ml",release="churn""#;
        let expected = [
            format!("perennial_release_ready{{{release}}} 1"),
            format!("perennial_release_stable_timestamp_seconds{{{release}}} 60"),
            format!(r#"perennial_release_metric{{{release},metric="rocAuc"}} 0.7"#),
            format!(r#"perennial_rollout_state{{{release},state="Stepping"}} 1"#),
            format!("perennial_rollout_start_timestamp_seconds{{{release}}} 120"),
            format!("perennial_rollout_weight_percent{{{release}}} 10"),
            format!("perennial_rollout_step{{{release}}} 2"),
            format!(r#"perennial_gate_value{{{release},metric="errorRate",bound="max"}} 0.01"#),
            format!(r#"perennial_gate_bound{{{release},metric="errorRate",bound="max"}} 0.02"#),
            format!(
                r#"perennial_gate_bound{{{release},metric="latencyP95",bound="maxRatio"}} 1.25"#
            ),
            format!(r#"perennial_gate_samples{{{release},metric="errorRate",bound="max"}} 200"#),
            format!(
                r#"perennial_gate_verdict{{{release},metric="errorRate",bound="max",verdict="Passed"}} 1"#
            ),
            format!(
                r#"perennial_gate_verdict{{{release},metric="latencyP95",bound="maxRatio",verdict="Pending"}} 1"#
            ),
        ];
        assert_eq!(lines(&page), expected);
    }

    #[test]
    fn a_rollout_that_is_over_leaves_no_weight_and_its_last_gates() {
        let page = page_of(json!({
            "rollout": {"state": "Idle", "epoch": 4, "gates": [{"metric": "errorRate", "bound": "max 0.02", "verdict": "Failed"}]},
        }));
        assert!(!page.contains("perennial_rollout_weight_percent"), "{page}");
        assert!(page.contains(r#"verdict="Failed"} 1"#), "{page}");
        assert!(page.contains(r#"state="Idle"} 1"#), "{page}");
    }

    #[test]
    fn drift_that_was_not_measured_is_not_shown_as_none() {
        let filling = json!({"driftWindow": {"revision": "a", "next": "2013-07-01T00:00:00Z"}});
        assert!(!page_of(filling).contains("perennial_drift"));
        let full = page_of(json!({
            "driftWindow": {"revision": "a", "next": "2013-07-01T00:00:00Z", "end": "1970-01-01T00:10:00Z", "rows": 10, "share": 0.5},
            "drift": [{"column": "temp", "drifted": true}, {"column": "dewp"}],
            "retraining": {"firing": 4, "triggers": [{"name": "stale", "state": "Disarmed"}]},
        }));
        for line in [
            r#"perennial_drift_share{namespace="ml",release="churn"} 0.5"#,
            r#"perennial_drift_columns{namespace="ml",release="churn"} 1"#,
            r#"perennial_drift_window_end_timestamp_seconds{namespace="ml",release="churn"} 600"#,
            r#"perennial_retraining_running{namespace="ml",release="churn"} 0"#,
            r#"perennial_retraining_firings{namespace="ml",release="churn"} 4"#,
            r#"perennial_retraining_trigger{namespace="ml",release="churn",trigger="stale",state="Disarmed"} 1"#,
        ] {
            assert!(full.lines().any(|l| l == line), "{line}\n{full}");
        }
    }
}
