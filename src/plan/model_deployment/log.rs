//! How the payload log is doing, as gateways say it.

use jiff::Timestamp;

use super::{Observed, Status, reason::log as reason};
use crate::api::condition::{self, kind};

/// Says whether what is logged reaches the store. Nothing else depends on it.
pub(super) fn condition(observed: &Observed, status: &mut Status, now: Timestamp) {
    let monitoring = observed.deployment.spec.monitoring.as_ref();
    let wanted = monitoring.and_then(|m| m.payload_log.as_ref());
    if wanted.is_none() && condition::get(&status.conditions, kind::PAYLOAD_LOGGED).is_none() {
        return;
    }
    let ready = observed.live.gateways.iter().filter(|g| g.ready);
    let reports: Vec<_> = ready.filter_map(|g| g.log.as_ref()).collect();
    let problem = reports.iter().find_map(|report| report.problem.as_deref());
    let (is, why, message) = match (wanted, problem) {
        (None, _) => (
            false,
            reason::NOT_LOGGED,
            "spec.monitoring.payloadLog is not set".to_owned(),
        ),
        (Some(_), Some(problem)) => {
            let known = [reason::CREDENTIALS_MISSING, reason::UNWRITABLE];
            let (name, sentence) = problem.split_once(": ").unwrap_or(("", problem));
            let why = known.into_iter().find(|r| *r == name);
            (
                false,
                why.unwrap_or(reason::UNWRITABLE),
                sentence.to_owned(),
            )
        }
        (Some(_), None) if reports.is_empty() => (
            false,
            reason::STARTING,
            "no ready gateway has said how its log is doing".to_owned(),
        ),
        (Some(log), None) => {
            let share = super::drift::round(100.0 * log.sampling());
            let message = format!("{share} % of the requests are logged to {}", log.uri);
            (true, reason::LOGGING, message)
        }
    };
    condition::set(
        &mut status.conditions,
        kind::PAYLOAD_LOGGED,
        is,
        why,
        message,
        observed.deployment.metadata.generation,
        now,
    );
}
