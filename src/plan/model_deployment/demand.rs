//! What a retraining must keep to beside its recipe: maintenance windows, and what its version must be better in.

use jiff::Timestamp;
use kube::ResourceExt;

use super::reason::retraining as reason;
use crate::{
    api::{
        ModelDeployment,
        model_deployment::{MaintenanceWindow, Retraining},
    },
    plan::schedule,
    stats::performance::more_is_better,
};

type Refused = (&'static str, String);

/// Whether the windows can be read.
pub(super) fn windows(retraining: &Retraining) -> Result<(), Refused> {
    for window in &retraining.maintenance_windows {
        next(window, Timestamp::UNIX_EPOCH).map_err(|message| {
            (
                reason::MAINTENANCE_WINDOW_UNREADABLE,
                format!("retraining.maintenanceWindows: {message}"),
            )
        })?;
    }
    Ok(())
}

fn next(window: &MaintenanceWindow, after: Timestamp) -> Result<Timestamp, String> {
    schedule::next(&window.schedule, window.time_zone.as_deref(), after)
}

/// When the next maintenance window opens; `None` while one is open, or there are none.
pub(super) fn opens(retraining: &Retraining, now: Timestamp) -> Option<Timestamp> {
    let opening = |window: &MaintenanceWindow| {
        // The first opening whose window isn't over.
        let since = now
            .checked_sub(window.duration.to_signed())
            .unwrap_or(Timestamp::MIN);
        next(window, since).ok()
    };
    let windows = retraining.maintenance_windows.iter();
    windows
        .filter_map(opening)
        .min()
        .filter(|opening| *opening > now)
}

/// Whether somebody measures what a new version must be better in.
pub(super) fn improvement(
    deployment: &ModelDeployment,
    retraining: &Retraining,
) -> Result<(), Refused> {
    let Some(wanted) = &retraining.require_improvement else {
        return Ok(());
    };
    let spec = &deployment.spec;
    let refuse = |message: String| {
        let message = format!("retraining.requireImprovement: {message}");
        Err((reason::IMPROVEMENT_UNMEASURABLE, message))
    };
    let source = spec.metrics.iter().find(|m| m.name == wanted.metric);
    let metric = match source {
        Some(source) => match &source.evaluation {
            Some(asked) => &asked.metric,
            None => {
                return refuse(format!(
                    "{} doesn't come from an Evaluation, so there are no rows to compare on: name a metric of one",
                    wanted.metric
                ));
            }
        },
        None => &wanted.metric,
    };
    let evaluations = spec.rollout.as_ref().map_or(0, |r| r.evaluations.len());
    if source.is_none() && evaluations == 0 {
        return refuse(format!(
            "{metric} is none of spec.metrics, and rollout.evaluations of {} names no Evaluation that could measure it: name one",
            deployment.name_any()
        ));
    }
    match more_is_better(metric) {
        Some(_) => Ok(()),
        None => refuse(format!(
            "it isn't known whether more or less of {metric} is better: name one like rocAuc, logLoss, f1, brier, mae or rmse"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn retraining(windows: serde_json::Value) -> Retraining {
        serde_json::from_value(json!({"from": "q1", "maintenanceWindows": windows})).unwrap()
    }

    #[test]
    fn runs_start_only_while_a_window_is_open() {
        let night = json!({"schedule": "0 22 * * *", "duration": "4h"});
        let berlin =
            json!({"schedule": "0 22 * * *", "timeZone": "Europe/Berlin", "duration": "1h"});
        let sunday = json!({"schedule": "0 3 * * 0", "duration": "90m"});
        for (windows, now, opens_at) in [
            (json!([]), "2013-07-01T12:00:00Z", None),
            (
                json!([night]),
                "2013-07-01T12:00:00Z",
                Some("2013-07-01T22:00:00Z"),
            ),
            (json!([night]), "2013-07-01T22:00:00Z", None),
            (json!([night]), "2013-07-02T01:59:59Z", None),
            (
                json!([night]),
                "2013-07-02T02:00:00Z",
                Some("2013-07-02T22:00:00Z"),
            ),
            (json!([berlin]), "2013-07-01T20:30:00Z", None),
            (
                json!([berlin]),
                "2013-07-01T21:00:00Z",
                Some("2013-07-02T20:00:00Z"),
            ),
            (json!([sunday, night]), "2013-07-07T03:30:00Z", None),
            (
                json!([sunday, night]),
                "2013-07-07T02:30:00Z",
                Some("2013-07-07T03:00:00Z"),
            ),
        ] {
            let opens_at: Option<Timestamp> = opens_at.map(|t: &str| t.parse().unwrap());
            let at = opens(&retraining(windows.clone()), now.parse().unwrap());
            assert_eq!(at, opens_at, "{windows} at {now}");
        }
    }

    #[test]
    fn a_window_that_can_not_be_read_is_said() {
        let odd = retraining(json!([{"schedule": "in the night", "duration": "4h"}]));
        let (why, message) = windows(&odd).unwrap_err();
        assert_eq!(why, "MaintenanceWindowUnreadable");
        assert!(message.contains("can't be read"), "{message}");
    }

    #[test]
    fn an_improvement_that_nobody_can_measure_is_refused_beforehand() {
        for (metric, evaluations, refused) in [
            ("rocAuc", json!(["quality"]), None),
            ("quality", json!([]), None),
            ("rocAuc", json!([]), Some("names no Evaluation")),
            (
                "complaints",
                json!(["quality"]),
                Some("doesn't come from an Evaluation"),
            ),
            ("meanError", json!(["quality"]), Some("more or less")),
        ] {
            let deployment: ModelDeployment = serde_json::from_value(json!({
                "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "churn"},
                "spec": {
                    "server": {"template": {"spec": {"containers": [{"name": "server"}]}}},
                    "metrics": [
                        {"name": "quality", "evaluation": {"name": "quality", "metric": "logLoss"}},
                        {"name": "complaints", "prometheus": {"source": "default", "query": "x"}},
                    ],
                    "rollout": {"evaluations": evaluations},
                    "retraining": {"from": "q1", "requireImprovement": {"metric": metric}},
                },
            }))
            .unwrap();
            let asked = deployment.spec.retraining.clone().unwrap();
            let found = improvement(&deployment, &asked);
            match refused {
                None => assert_eq!(found, Ok(()), "{metric}"),
                Some(words) => {
                    let (_, message) = found.unwrap_err();
                    assert!(message.contains(words), "{metric}: {message}");
                }
            }
        }
    }
}
