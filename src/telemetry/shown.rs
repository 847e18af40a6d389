//! Gauges that are read from the objects that there are, when somebody asks: no series outlives its object, and none is counted twice.

use std::{
    collections::HashSet,
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    sync::OnceLock,
};

/// A gauge with a series for each object, by labels of the object's own: names and closed sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Whether a release is Ready.
    ReleaseReady,
    /// Since when stable is stable.
    ReleaseStable,
    /// A metric of stable.
    ReleaseMetric,
    /// Where a rollout is.
    RolloutState,
    /// When a rollout began.
    RolloutStarted,
    /// The candidate's share of callers.
    RolloutWeight,
    /// The step that is going on.
    RolloutStep,
    /// What a gate of a rollout looks at.
    GateValue,
    /// Its bound.
    GateBound,
    /// Samples behind it.
    GateSamples,
    /// What it says.
    GateVerdict,
    /// Drifted columns by compared ones.
    DriftShare,
    /// Drifted columns.
    DriftColumns,
    /// End of the last full window.
    DriftWindowEnd,
    /// Whether a retraining is going on.
    RetrainingRunning,
    /// Firings so far.
    RetrainingFirings,
    /// State of a trigger.
    RetrainingTrigger,
    /// Verdict of an Evaluation's last run.
    EvaluationVerdict,
    /// When that ended.
    EvaluationCompleted,
    /// What a gate of an Evaluation looks at.
    EvaluationGateValue,
    /// Its bound.
    EvaluationGateBound,
    /// Samples behind it.
    EvaluationGateSamples,
    /// What it says.
    EvaluationGateVerdict,
}

/// A gauge, its name, its help, its labels.
type Family = (Gauge, &'static str, &'static str, &'static [&'static str]);

const RELEASE: &[&str] = &["kind", "namespace", "release"];
const MODEL: &[&str] = &["namespace", "release"];
const EVALUATION: &[&str] = &["namespace", "evaluation"];
const GATE: &[&str] = &["kind", "namespace", "release", "metric", "bound"];
const EVALUATION_GATE: &[&str] = &["namespace", "evaluation", "metric", "bound"];

impl Gauge {
    /// All of them, in the order of the enum.
    pub const ALL: [Family; 23] = [
        (
            Gauge::ReleaseReady,
            "perennial_release_ready",
            "1 if the release's condition Ready is True, else 0.",
            RELEASE,
        ),
        (
            Gauge::ReleaseStable,
            "perennial_release_stable_timestamp_seconds",
            "Since when the stable revision is stable (Unix time).",
            RELEASE,
        ),
        (
            Gauge::ReleaseMetric,
            "perennial_release_metric",
            "Metrics of stable, as in status.metrics, by their names there.",
            &["kind", "namespace", "release", "metric"],
        ),
        (
            Gauge::RolloutState,
            "perennial_rollout_state",
            "1 for the state that the rollout is in: Idle, Preparing, Stepping, Paused, Promoting, Baking, RollingBack.",
            &["kind", "namespace", "release", "state"],
        ),
        (
            Gauge::RolloutStarted,
            "perennial_rollout_start_timestamp_seconds",
            "When the running rollout began (Unix time); absent while none is going on.",
            RELEASE,
        ),
        (
            Gauge::RolloutWeight,
            "perennial_rollout_weight_percent",
            "Percentage of callers that the candidate serves; absent while no rollout is going on.",
            RELEASE,
        ),
        (
            Gauge::RolloutStep,
            "perennial_rollout_step",
            "Number of the step that is going on, from 1; absent outside of steps.",
            RELEASE,
        ),
        (
            Gauge::GateValue,
            "perennial_gate_value",
            "What a gate of the running or the last rollout looks at.",
            GATE,
        ),
        (
            Gauge::GateBound,
            "perennial_gate_bound",
            "The gate's bound; the label says which: min, max, minDifference, maxDifference, minRatio, maxRatio.",
            GATE,
        ),
        (
            Gauge::GateSamples,
            "perennial_gate_samples",
            "Samples behind the value, in the metric's own unit.",
            GATE,
        ),
        (
            Gauge::GateVerdict,
            "perennial_gate_verdict",
            "1 for the gate's verdict: Pending, Running, Passed, Failed, Inconclusive, Error.",
            &["kind", "namespace", "release", "metric", "bound", "verdict"],
        ),
        (
            Gauge::DriftShare,
            "perennial_drift_share",
            "Drifted columns by compared ones in the last full window; absent until there is one.",
            MODEL,
        ),
        (
            Gauge::DriftColumns,
            "perennial_drift_columns",
            "Drifted columns in the last full window.",
            MODEL,
        ),
        (
            Gauge::DriftWindowEnd,
            "perennial_drift_window_end_timestamp_seconds",
            "When the last full window ended (Unix time).",
            MODEL,
        ),
        (
            Gauge::RetrainingRunning,
            "perennial_retraining_running",
            "1 while a retraining is going on, else 0.",
            MODEL,
        ),
        (
            Gauge::RetrainingFirings,
            "perennial_retraining_firings",
            "Retrainings that were started so far.",
            MODEL,
        ),
        (
            Gauge::RetrainingTrigger,
            "perennial_retraining_trigger",
            "1 for the state that the trigger is in: Armed, Pending, Fired, Disarmed.",
            &["namespace", "release", "trigger", "state"],
        ),
        (
            Gauge::EvaluationVerdict,
            "perennial_evaluation_verdict",
            "1 for the verdict of the Evaluation's last run.",
            &["namespace", "evaluation", "verdict"],
        ),
        (
            Gauge::EvaluationCompleted,
            "perennial_evaluation_completion_timestamp_seconds",
            "When the Evaluation's last run ended (Unix time).",
            EVALUATION,
        ),
        (
            Gauge::EvaluationGateValue,
            "perennial_evaluation_gate_value",
            "What a gate of the Evaluation's last run looks at.",
            EVALUATION_GATE,
        ),
        (
            Gauge::EvaluationGateBound,
            "perennial_evaluation_gate_bound",
            "The gate's bound.",
            EVALUATION_GATE,
        ),
        (
            Gauge::EvaluationGateSamples,
            "perennial_evaluation_gate_samples",
            "Samples behind the value.",
            EVALUATION_GATE,
        ),
        (
            Gauge::EvaluationGateVerdict,
            "perennial_evaluation_gate_verdict",
            "1 for the gate's verdict.",
            &["namespace", "evaluation", "metric", "bound", "verdict"],
        ),
    ];
}

/// The series of all gauges, as text: written straight from the objects, as there may be ten thousand of them.
#[derive(Debug, Default)]
pub struct Page {
    families: [String; Gauge::ALL.len()],
    /// What was written already: a series that comes twice would make the whole page unreadable.
    seen: HashSet<u64>,
}

impl Page {
    /// Writes a series. What is no finite number, or was written already, is left out.
    pub fn set(&mut self, gauge: Gauge, values: &[&str], value: f64) {
        let place = gauge as usize;
        let (_, name, _, labels) = Gauge::ALL[place];
        debug_assert_eq!(labels.len(), values.len(), "{name}");
        let mut hasher = DefaultHasher::new();
        (place, values).hash(&mut hasher);
        if !value.is_finite() || !self.seen.insert(hasher.finish()) {
            return;
        }
        let out = &mut self.families[place];
        out.push_str(name);
        for (index, (label, value)) in labels.iter().zip(values).enumerate() {
            out.push(if index == 0 { '{' } else { ',' });
            out.push_str(label);
            out.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    other => out.push(other),
                }
            }
            out.push('"');
        }
        // Writing to a String can't fail.
        let _ = writeln!(out, "}} {value}");
    }

    /// All of it in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        let size = self.families.iter().map(|f| f.len() + 256).sum();
        let mut all = String::with_capacity(size);
        for ((_, name, help, _), series) in Gauge::ALL.iter().zip(&self.families) {
            if !series.is_empty() {
                let _ = write!(all, "# HELP {name} {help}\n# TYPE {name} gauge\n{series}");
            }
        }
        all
    }
}

type Show = Box<dyn Fn(&mut Page) + Send + Sync>;

/// What shows the objects of this process: set once, where there are some.
static SHOW: OnceLock<Show> = OnceLock::new();

/// Says what is to be shown whenever somebody reads the metrics of this process; the first one stays.
pub fn show(with: impl Fn(&mut Page) + Send + Sync + 'static) {
    let _ = SHOW.set(Box::new(with));
}

/// The gauges of this process's objects.
pub(super) fn text() -> String {
    let mut page = Page::default();
    if let Some(show) = SHOW.get() {
        show(&mut page);
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_gauge_in_its_place_and_each_name_once() {
        let mut names = HashSet::new();
        for (place, (gauge, name, help, labels)) in Gauge::ALL.iter().enumerate() {
            assert_eq!(*gauge as usize, place, "{name}");
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("perennial_") && help.ends_with('.'));
            assert!(!labels.is_empty());
        }
    }

    #[test]
    fn a_series_comes_once_and_labels_are_escaped() {
        let mut page = Page::default();
        let labels = ["models", "ns", "a\"b\\c\nd"];
        page.set(Gauge::ReleaseReady, &labels, 1.0);
        page.set(Gauge::ReleaseReady, &labels, 0.0);
        page.set(Gauge::RolloutWeight, &labels, f64::NAN);
        assert_eq!(
            page.text(),
            "# HELP perennial_release_ready 1 if the release's condition Ready is True, else 0.\n\
             # TYPE perennial_release_ready gauge\n\
             perennial_release_ready{kind=\"models\",namespace=\"ns\",release=\"a\\\"b\\\\c\\nd\"} 1\n"
        );
    }
}
