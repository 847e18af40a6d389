//! The conditions that both kinds of release share.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::decision::{Saying, Summary};
use crate::api::condition::{self, kind};

/// Sets the shared conditions from a decision's summary.
pub fn conditions(
    summary: &Summary,
    conditions: &mut Vec<Condition>,
    generation: i64,
    now: Timestamp,
) {
    let Summary {
        ready,
        reconciling,
        stalled,
        available,
        progressing,
        paused,
        promoted,
        candidate_rejected,
    } = summary;
    let all: [(&str, Option<&Saying>); 8] = [
        (kind::READY, Some(ready)),
        (kind::RECONCILING, Some(reconciling)),
        (kind::STALLED, Some(stalled)),
        (kind::AVAILABLE, Some(available)),
        (kind::PROGRESSING, Some(progressing)),
        (kind::PAUSED, Some(paused)),
        (kind::PROMOTED, promoted.as_ref()),
        (kind::CANDIDATE_REJECTED, candidate_rejected.as_ref()),
    ];
    for (kind, saying) in all {
        if let Some(saying) = saying {
            condition::set(
                conditions,
                kind,
                saying.status,
                &saying.reason,
                saying.message.clone(),
                Some(generation),
                now,
            );
        }
    }
}
