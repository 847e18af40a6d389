//! A decision in words: phase, message, conditions.
//!
//! These sentences stand in status, so they hold nothing that changes with every look: live numbers are in the gates.

use std::collections::BTreeSet;

use super::{
    Decision, Desired, Saying, Summary,
    engine::{Engine, words},
    marks, reason, size,
};
use crate::api::{
    condition::bounded,
    gate::Verdict,
    model_deployment::ReleasePhase,
    rollout::{
        CandidateSource, HistoryEntry, Outcome, RevisionStatus, RolloutState, RolloutStatus,
    },
};

/// How the spec's revision stands.
enum Spec {
    /// Stable is it.
    InEffect,
    /// A rollout towards it is going on, or begins as soon as another ends.
    OnItsWay,
    /// It was tried and refused: reason and message.
    Refused(String, String),
    /// There is nothing to try: reason, message, whether it takes help.
    Nothing(String, String, bool),
}

/// Turns the engine's end state into a decision.
pub(super) fn finish(engine: Engine) -> Decision {
    let input = engine.input;
    let summary = summary(&engine);
    let phase = phase(&engine, &summary);
    let mut state = engine.s;
    state.phase = phase;
    state.message = bounded(match phase {
        ReleasePhase::Healthy | ReleasePhase::Initializing | ReleasePhase::RolledBack => {
            summary.ready.message.clone()
        }
        ReleasePhase::Progressing | ReleasePhase::Paused | ReleasePhase::RollingBack => {
            summary.progressing.message.clone()
        }
        ReleasePhase::Degraded => match summary.available.status {
            true => summary.ready.message.clone(),
            false => summary.available.message.clone(),
        },
    });
    let mut keep: BTreeSet<String> = BTreeSet::new();
    keep.extend(state.stable_revision().map(str::to_owned));
    keep.extend(state.candidate_revision().map(str::to_owned));
    keep.extend(state.rollout.previous.clone());
    keep.extend(input.desired.target().map(|t| t.revision.clone()));
    // Their marks are what the ledger is rebuilt from.
    keep.extend(state.rejected.iter().map(|r| r.revision.clone()));
    let mut notes: Vec<String> = Vec::new();
    for note in engine.notes {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Decision {
        pods: size::pods(&state, input.replicas),
        keep,
        marks: marks::marks(input, &state),
        events: engine.events,
        notes,
        check_at: engine.check_at,
        summary,
        state,
    }
}

fn saying(status: bool, reason: &str, message: impl Into<String>) -> Saying {
    Saying {
        status,
        reason: reason.to_owned(),
        message: message.into(),
    }
}

fn paused_for(engine: &Engine) -> &'static str {
    match engine.is_at_approval() {
        true => reason::WAITING_FOR_APPROVAL,
        false => reason::PAUSED,
    }
}

fn of(revision: &RevisionStatus) -> String {
    words(&revision.revision, revision.version.as_deref())
}

fn summary(engine: &Engine) -> Summary {
    let spec = spec(engine);
    let s = &engine.s;
    let state = s.rollout.state;
    let going_on = state != RolloutState::Idle;
    let progress = progress(engine);
    let available = available(engine);
    let paused = state == RolloutState::Paused;
    let (ready, reconciling, stalled) = kstatus(engine, &spec, &available, &progress);
    let last = s.history.last();
    Summary {
        ready,
        reconciling,
        stalled,
        available,
        progressing: match going_on {
            true => saying(true, reason::ROLLOUT_IN_PROGRESS, progress.clone()),
            false => saying(false, reason::IDLE, "no rollout is going on"),
        },
        paused: match paused {
            true => saying(true, paused_for(engine), progress),
            false => saying(false, reason::IDLE, "the rollout waits for nobody"),
        },
        promoted: match (going_on, last) {
            (true, _) => Some(saying(
                false,
                reason::ROLLOUT_IN_PROGRESS,
                "a rollout is going on",
            )),
            (false, Some(last)) => Some(saying(
                last.outcome == Outcome::Promoted,
                &last.reason,
                last.message.clone(),
            )),
            (false, None) => None,
        },
        candidate_rejected: candidate_rejected(engine, &spec),
    }
}

fn spec(engine: &Engine) -> Spec {
    let s = &engine.s;
    let target = match &engine.input.desired {
        Desired::Revision(target) => target,
        Desired::Nothing {
            reason,
            message,
            stalled,
        } => return Spec::Nothing(reason.clone(), message.clone(), *stalled),
    };
    let baking = s.rollout.state == RolloutState::Baking;
    let rejected = s.rejected.iter().find(|r| r.revision == target.revision);
    if s.stable_revision() == Some(&target.revision) {
        return match baking {
            true => Spec::OnItsWay,
            false => Spec::InEffect,
        };
    }
    if s.candidate_revision() == Some(&target.revision) {
        return Spec::OnItsWay;
    }
    if let Some(rejected) = rejected {
        let what = words(&target.revision, target.version.as_deref());
        return Spec::Refused(
            reason::REVISION_REJECTED.into(),
            format!(
                "{what} was refused ({}): {}. Change the spec, or try it again: kubectl perennial retry {}",
                rejected.reason, rejected.message, engine.input.name
            ),
        );
    }
    if let Some(last) = engine.gave_up(&target.revision) {
        let what = words(&target.revision, target.version.as_deref());
        return Spec::Refused(
            reason::NOT_ENOUGH_DATA.into(),
            format!(
                "{what} was not promoted: {}. Try it again when there is traffic: kubectl perennial retry {}",
                last.message, engine.input.name
            ),
        );
    }
    Spec::OnItsWay
}

/// Whether what is going on, or what the spec asks for, is only a newer version: stable satisfies the spec meanwhile.
fn only_a_version(engine: &Engine) -> bool {
    let s = &engine.s;
    let trying = match s.rollout.state {
        RolloutState::Baking => s.stable.as_ref(),
        _ => s.candidate.as_ref(),
    };
    let source = trying.and_then(|r| r.source);
    let target = engine.input.desired.target().map(|t| t.source);
    let going = s.rollout.state != RolloutState::Idle;
    let served = s.stable.is_some();
    served
        && match going {
            true => source == Some(CandidateSource::Version),
            false => target == Some(CandidateSource::Version),
        }
}

fn kstatus(
    engine: &Engine,
    spec: &Spec,
    available: &Saying,
    progress: &str,
) -> (Saying, Saying, Saying) {
    let s = &engine.s;
    let calm = || saying(false, reason::IDLE, "nothing is being changed");
    let fine = || saying(false, reason::NOT_STALLED, "nothing needs help");
    let ready = |message: String| saying(true, reason::HEALTHY, message);
    let serves = || match &s.stable {
        Some(stable) => format!("{} serves", of(stable)),
        None => String::new(),
    };
    let state = s.rollout.state;
    if only_a_version(engine) && available.status {
        // A version that was refused, or is being tried, doesn't take the spec out of effect.
        return (ready(serves()), calm(), fine());
    }
    match spec {
        Spec::InEffect if state == RolloutState::Idle => match available.status {
            true => (ready(serves()), calm(), fine()),
            false => (
                saying(false, &available.reason, available.message.clone()),
                saying(true, &available.reason, available.message.clone()),
                fine(),
            ),
        },
        Spec::InEffect | Spec::OnItsWay => {
            let (reason, message) = match (state, &s.stable) {
                (RolloutState::Paused, _) => (paused_for(engine), progress.to_owned()),
                (RolloutState::Idle, None) => (reason::INITIALIZING, available.message.clone()),
                (RolloutState::Idle, Some(_)) => (
                    reason::ROLLOUT_IN_PROGRESS,
                    "the rollout is about to begin".into(),
                ),
                (_, None) => (reason::INITIALIZING, progress.to_owned()),
                _ => (reason::ROLLOUT_IN_PROGRESS, progress.to_owned()),
            };
            (
                saying(false, reason, message.clone()),
                saying(true, reason, message),
                fine(),
            )
        }
        Spec::Refused(reason, message) => {
            let ending = state != RolloutState::Idle;
            (
                saying(false, reason, message.clone()),
                match ending {
                    true => saying(true, reason::ROLLOUT_IN_PROGRESS, progress.to_owned()),
                    false => calm(),
                },
                match ending {
                    true => fine(),
                    false => saying(true, reason, message.clone()),
                },
            )
        }
        Spec::Nothing(reason, message, stalled) => (
            saying(false, reason, message.clone()),
            match stalled {
                true => calm(),
                false => saying(true, reason, message.clone()),
            },
            match stalled {
                true => saying(true, reason, message.clone()),
                false => fine(),
            },
        ),
    }
}

fn available(engine: &Engine) -> Saying {
    let s = &engine.s;
    let Some(stable) = &s.stable else {
        return saying(false, reason::INITIALIZING, "no revision serves yet");
    };
    let what = of(stable);
    if engine.is_scaled_to_zero() {
        let message = format!("replicas is 0: no pod of {what} runs");
        return saying(false, reason::SCALED_TO_ZERO, message);
    }
    if engine.available(&stable.revision) < 1 {
        let why = stable.message.as_ref();
        let why = why.map_or(String::new(), |m| format!(": {m}"));
        let message = format!("no pod of {what} can answer{why}");
        return saying(false, reason::STABLE_UNAVAILABLE, message);
    }
    if s.gateway.total == 0 {
        let message = "no gateway pod is ready: see Deployment perennial-gateway";
        return saying(false, reason::NO_GATEWAY, message);
    }
    if let Some(why) = &engine.input.live.unreachable {
        return saying(false, reason::SERVICE_UNREACHABLE, why.clone());
    }
    if let Some(problem) = engine.input.live.problem() {
        let (reason, sentence) = reason::of_problem(problem);
        return saying(false, reason, sentence);
    }
    // A gateway that is behind serves what was stable before, unless there was nothing before.
    let nothing_before = s.history.len() <= 1 && s.rollout.state == RolloutState::Idle;
    if s.gateway.applied == 0 && nothing_before {
        let message = "the gateway has not taken up this release yet";
        return saying(false, reason::GATEWAYS_BEHIND, message);
    }
    saying(true, reason::HEALTHY, format!("{what} answers"))
}

fn candidate_rejected(engine: &Engine, spec: &Spec) -> Option<Saying> {
    let s = &engine.s;
    let last = s.history.last()?;
    let refused = matches!(last.outcome, Outcome::RolledBack | Outcome::Aborted);
    let by_version = matches!(spec, Spec::InEffect) || only_a_version(engine);
    let holds = refused && by_version && s.rollout.state == RolloutState::Idle;
    let HistoryEntry {
        revision,
        version,
        reason,
        message,
        ..
    } = last;
    Some(match holds {
        true => saying(
            true,
            reason,
            format!(
                "{} was refused: {message}",
                words(revision, version.as_deref())
            ),
        ),
        false => saying(false, reason::NOT_STALLED, "no newer version is refused"),
    })
}

/// Where the rollout is, without numbers that live.
/// Gates that are not passed, by name.
fn open(rollout: &RolloutStatus) -> String {
    let open = rollout.gates.iter();
    let open = open.filter(|g| g.verdict != Verdict::Passed);
    let open: BTreeSet<&str> = open.map(|g| g.metric.as_str()).collect();
    match open.is_empty() {
        true => "the warm-up".to_owned(),
        false => open.into_iter().collect::<Vec<_>>().join(", "),
    }
}

fn progress(engine: &Engine) -> String {
    let RolloutStatus {
        state,
        weight,
        mirror,
        step,
        steps,
        since,
        ending,
        ..
    } = &engine.s.rollout;
    let share = match mirror {
        0 => format!("{weight} %"),
        copies => format!("{weight} % and copies of {copies} %"),
    };
    let s = &engine.s;
    let what = match (state, &s.candidate, &s.stable) {
        (RolloutState::Baking, _, Some(revision)) | (_, Some(revision), _) => of(revision),
        _ => return String::new(),
    };
    let blocked = engine.input.live.blocked();
    let suffix = match blocked {
        Some(why) if *weight > 0 || *state == RolloutState::Baking => format!("; {why}"),
        _ => String::new(),
    };
    let applied = engine.is_applied() || s.rollout.epoch == 0;
    let gateways = format!(
        "{} of {} gateway pods serve the present routing",
        s.gateway.applied, s.gateway.total
    );
    let at = usize::try_from(*step).unwrap_or(usize::MAX);
    let text = match state {
        RolloutState::Idle => String::new(),
        RolloutState::Preparing => {
            let candidate = s.candidate.as_ref();
            let need = size::needed(s, engine.input.replicas);
            let mut waits: Vec<String> = Vec::new();
            if engine.is_scaled_to_zero() {
                waits.push("replicas is 0: raise it".into());
            } else if candidate.is_some_and(|c| engine.available(&c.revision) < need) {
                let seen = candidate.map_or(0, |c| c.available_replicas);
                let why = candidate.and_then(|c| c.message.as_ref());
                let why = why.map_or(String::new(), |m| format!(" ({m})"));
                waits.push(format!("{seen} of {need} pods are ready{why}"));
            }
            let evaluations = s.rollout.evaluations.iter();
            waits.extend(
                evaluations
                    .filter(|e| e.verdict != Verdict::Passed)
                    .map(|e| format!("Evaluation {} is {:?}: {}", e.name, e.verdict, e.message)),
            );
            match waits.is_empty() {
                true => format!("{what} is prepared"),
                false => format!("{what} is prepared: {}", waits.join("; ")),
            }
        }
        RolloutState::Stepping | RolloutState::Promoting if !applied => {
            format!("{what} gets {share}: {gateways}")
        }
        RolloutState::Stepping => {
            let step = steps.get(at);
            let pause = step.and_then(super::policy::timed_pause);
            let end = since.as_ref().zip(pause);
            let end = end.map(|(t, pause)| super::engine::plus(t.0, pause));
            let place = format!("{what} has {share} (step {} of {})", at + 1, steps.len());
            match (step, end) {
                (Some(_), Some(end)) if engine.now < end => format!("{place} until {end}"),
                (Some(_), Some(_)) => {
                    format!("{place} and waits for data: {}", open(&s.rollout))
                }
                (Some(step), None) => match &step.evaluate {
                    Some(evaluate) => {
                        let open = s.rollout.evaluations.iter();
                        let open = open.filter(|e| {
                            evaluate.names.contains(&e.name) && e.verdict != Verdict::Passed
                        });
                        let open: Vec<String> = open
                            .map(|e| {
                                format!("Evaluation {} is {:?}: {}", e.name, e.verdict, e.message)
                            })
                            .collect();
                        format!("{place} and is evaluated: {}", open.join("; "))
                    }
                    None => format!("{place} and gets more pods first"),
                },
                (None, _) => format!("{what} has {weight} % and gets all callers next"),
            }
        }
        RolloutState::Paused => {
            let why = engine.input.signature_change.as_ref();
            let why = why.filter(|_| *weight == 0);
            let why = why.map_or(String::new(), |why| format!(" ({why})"));
            format!("{what} has {share} and {}{why}", engine.awaited())
        }
        RolloutState::Promoting => format!("{what} has all callers: {gateways}"),
        RolloutState::Baking => {
            let end = since
                .as_ref()
                .map(|t| super::engine::plus(t.0, engine.policy.bake));
            match end {
                Some(end) if engine.now < end => format!("{what} is stable and bakes until {end}"),
                _ if !applied => format!("{what} is stable: {gateways}"),
                _ => format!(
                    "{what} is stable, and its bake waits for data: {}",
                    open(&s.rollout)
                ),
            }
        }
        RolloutState::RollingBack => {
            let why = ending.as_ref().map_or("", |e| e.message.as_str());
            format!("{what} goes back to 0 %: {why}")
        }
    };
    format!("{text}{suffix}")
}

fn phase(engine: &Engine, summary: &Summary) -> ReleasePhase {
    let s = &engine.s;
    let state = s.rollout.state;
    match state {
        RolloutState::RollingBack => ReleasePhase::RollingBack,
        RolloutState::Paused => ReleasePhase::Paused,
        _ if s.stable.is_none() && summary.stalled.status => ReleasePhase::Degraded,
        _ if s.stable.is_none() => ReleasePhase::Initializing,
        RolloutState::Idle if !summary.available.status => ReleasePhase::Degraded,
        RolloutState::Idle if summary.ready.status => ReleasePhase::Healthy,
        RolloutState::Idle if summary.stalled.status && engine.input.desired.target().is_some() => {
            ReleasePhase::RolledBack
        }
        RolloutState::Idle => ReleasePhase::Degraded,
        _ => ReleasePhase::Progressing,
    }
}
