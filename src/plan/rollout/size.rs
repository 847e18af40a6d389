//! How many pods each revision needs.

use std::collections::BTreeMap;

use super::State;
use crate::api::rollout::{CandidateSource, RolloutState, RolloutStatus, Step};

/// Pods wanted by revision; empty for prompts.
///
/// Stable keeps all its pods as long as it may have to take everything back; the candidate gets what its next weight needs.
pub(super) fn pods(state: &State, replicas: Option<i32>) -> BTreeMap<String, i32> {
    let mut pods = BTreeMap::new();
    let Some(full) = replicas else {
        return pods;
    };
    let full = full.max(0);
    if let Some(candidate) = &state.candidate {
        let wanted = match state.rollout.state {
            // Until the gateways have let go of it, it stays as it is.
            RolloutState::RollingBack => candidate.replicas.min(full),
            RolloutState::Idle => 0,
            _ => needed(state, replicas),
        };
        pods.insert(candidate.revision.clone(), wanted);
    }
    let previous = state.rollout.previous.as_ref();
    let stable = state.stable.as_ref().map(|s| &s.revision);
    for revision in [previous, stable].into_iter().flatten() {
        pods.insert(revision.clone(), full);
    }
    pods
}

/// Pods that the candidate needs for the weight it has or gets next: at least one, and rounded up.
pub(super) fn needed(state: &State, replicas: Option<i32>) -> i32 {
    let Some(full) = replicas.filter(|full| *full > 0) else {
        return 0;
    };
    let weight = next_weight(state).max(state.rollout.weight).clamp(0, 100);
    let share = (i64::from(full) * i64::from(weight) + 99) / 100;
    i32::try_from(share).unwrap_or(full).clamp(1, full)
}

/// The weight that the present step gives, or that is next.
fn next_weight(state: &State) -> i32 {
    let RolloutStatus {
        state: now,
        step,
        steps,
        ..
    } = &state.rollout;
    let source = state.candidate.as_ref().and_then(|c| c.source);
    let at = usize::try_from(*step).unwrap_or(usize::MAX);
    if state.stable.is_none()
        || source == Some(CandidateSource::Rollback)
        || *now == RolloutState::Promoting
        || at >= steps.len()
    {
        return 100;
    }
    // Copies are work like any other.
    let share = |s: &Step| s.set_weight.or(s.set_mirror.as_ref().map(|m| m.percent));
    let here = steps.get(at).and_then(share);
    let before = steps.iter().take(at).rev().find_map(share);
    match now {
        RolloutState::Preparing => {
            let after = steps.iter().skip(at).find_map(share);
            here.or(before).or(after).unwrap_or(100)
        }
        _ => here.or(before).unwrap_or(0),
    }
}
