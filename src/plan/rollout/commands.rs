//! Commands: each value is done or refused once, and echoed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Command, Commands, State, Target,
    end::ending,
    engine::{Engine, last, words},
    marks, reason,
};
use crate::api::{
    command::{HandledCommand, shortened},
    rollout::{ApprovalStatus, CandidateSource, Outcome, RolloutState},
};

/// What became of a command.
enum Result {
    Done,
    Refused(String),
    /// Something has to end first; it is looked at again then.
    Later,
}

/// Handles the commands that were not handled yet, in order: abort beats promote.
pub(super) fn handle(engine: &mut Engine) {
    let commands = &engine.input.commands.0;
    for command in Command::ALL {
        for (_, value) in commands.iter().filter(|(c, _)| *c == command) {
            let value = &shortened(value);
            let mut handled = engine.s.handled.iter();
            if handled.any(|h| h.is_of(command.name(), value)) {
                continue;
            }
            let result = match revision_of(value) {
                None => {
                    let candidate = engine.s.candidate_revision();
                    let example = candidate.or(engine.s.stable_revision());
                    let example = example.unwrap_or("0123456789");
                    Result::Refused(match command {
                        Command::Approve => format!(
                            "write <revision>/<your user name>, for example {example}/jane: `{value}` is not that"
                        ),
                        _ => format!(
                            "write <revision>/<nonce>, for example {example}/1: `{value}` is not that"
                        ),
                    })
                }
                Some(revision) => match command {
                    Command::Abort => abort(engine, revision),
                    Command::RollbackTo => rollback_to(engine, revision),
                    Command::Retry => retry(engine, revision),
                    Command::Promote => promote(engine, revision),
                    Command::Approve => approve(engine, value),
                    Command::Retrain => continue,
                },
            };
            let result = match result {
                Result::Later => continue,
                Result::Done => "Done".to_owned(),
                Result::Refused(why) => {
                    let note = format!("{} {value} is refused: {why}", command.name());
                    engine.event(true, reason::COMMAND_REFUSED, note);
                    why
                }
            };
            echo(&mut engine.s, command, value, result);
        }
    }
}

/// What was done before the status was lost is not known: done again, an old `rollback-to` would take back what has come since.
pub(super) fn do_not_repeat(s: &mut State, commands: &Commands) {
    for (command, value) in &commands.0 {
        let result = "not done again: the status was lost, and this may be of before";
        echo(s, *command, value, result.to_owned());
    }
}

fn echo(s: &mut State, command: Command, value: &str, result: String) {
    let handled = HandledCommand::new(command.name(), value, result);
    s.handled.retain(|h| h.name != command.name());
    s.handled.push(handled);
}

/// The revision of `<revision>/<nonce>`.
fn revision_of(value: &str) -> Option<&str> {
    let (revision, nonce) = value.split_once('/')?;
    (!revision.is_empty() && !nonce.is_empty()).then_some(revision)
}

/// Why a command that names `revision` doesn't apply, when the rollout is about another revision or none.
fn not_current(engine: &Engine, revision: &str) -> Result {
    Result::Refused(match &engine.s.candidate {
        Some(candidate) => format!(
            "{revision} is not the candidate; that is {}",
            words(&candidate.revision, candidate.version.as_deref())
        ),
        None => format!("{revision} is not being tried: no rollout is going on"),
    })
}

fn abort(engine: &mut Engine, revision: &str) -> Result {
    let state = engine.s.rollout.state;
    let current = match state {
        RolloutState::Baking => engine.s.stable_revision(),
        _ => engine.s.candidate_revision(),
    };
    if current != Some(revision) {
        return not_current(engine, revision);
    }
    if state == RolloutState::RollingBack {
        return Result::Refused(format!("{revision} is being taken back already"));
    }
    let message = format!("someone aborted the rollout of {revision}");
    engine.roll_back(ending(Outcome::Aborted, reason::ABORTED, message));
    Result::Done
}

fn promote(engine: &mut Engine, revision: &str) -> Result {
    if engine.s.candidate_revision() != Some(revision) {
        return match engine.s.stable_revision() == Some(revision) {
            true => Result::Refused(format!("{revision} is stable already")),
            false => not_current(engine, revision),
        };
    }
    let step = engine.s.rollout.step;
    let at = usize::try_from(step).unwrap_or(usize::MAX);
    let pause = engine
        .s
        .rollout
        .steps
        .get(at)
        .and_then(|s| s.pause.as_ref());
    match engine.s.rollout.state {
        RolloutState::Paused if engine.is_at_approval() => {
            return Result::Refused(format!("the rollout {}", engine.awaited()));
        }
        RolloutState::Paused if pause.is_some_and(|p| p.duration.is_none()) => engine.advance(),
        RolloutState::Paused => engine.go_to(RolloutState::Stepping, step),
        RolloutState::Stepping => {
            let end = end_of_promotion(engine, at);
            engine.go_to(RolloutState::Stepping, end);
        }
        RolloutState::Preparing if engine.s.stable.is_none() => {
            return Result::Refused(format!(
                "{revision} is the first revision: it serves when it is ready and its evaluations passed"
            ));
        }
        RolloutState::Preparing => engine.s.rollout.step = end_of_promotion(engine, at),
        RolloutState::RollingBack => {
            return Result::Refused(format!("{revision} is being taken back"));
        }
        RolloutState::Promoting | RolloutState::Baking | RolloutState::Idle => {
            return Result::Refused(format!("{revision} is promoted already"));
        }
    }
    let note = format!("Someone promoted {revision}");
    engine.event(false, reason::PROMOTED_BY_COMMAND, note);
    Result::Done
}

/// Where `promote` goes: behind the last step, or to the next one that takes an approval. That can't be skipped.
fn end_of_promotion(engine: &Engine, from: usize) -> i32 {
    let steps = &engine.s.rollout.steps;
    let mut ahead = steps.iter().enumerate().skip(from);
    let approval = ahead.find(|(_, step)| step.approval.is_some());
    let approval = approval.and_then(|(at, _)| i32::try_from(at).ok());
    approval.unwrap_or_else(|| last(steps))
}

/// `<revision>/<user>`, or `<revision>.<nonce>/<user>` to say it again at a later step or attempt.
fn approve(engine: &mut Engine, value: &str) -> Result {
    let (what, user) = value.split_once('/').unwrap_or((value, ""));
    let revision = what.split_once('.').map_or(what, |(revision, _)| revision);
    if engine.s.candidate_revision() != Some(revision) {
        return not_current(engine, revision);
    }
    if engine.s.rollout.state != RolloutState::Paused || !engine.is_at_approval() {
        return Result::Refused(format!(
            "the rollout of {revision} is not at an approval step"
        ));
    }
    let step = engine.s.rollout.step;
    engine.s.rollout.approvals.push(ApprovalStatus {
        step,
        user: user.to_owned(),
        time: Time(engine.now),
    });
    let note = format!("{user} approved {revision} at step {}", step + 1);
    engine.event(false, reason::APPROVED, note);
    engine.advance();
    Result::Done
}

fn retry(engine: &mut Engine, revision: &str) -> Result {
    if engine.s.is_rejected(revision) {
        engine.s.rejected.retain(|r| r.revision != revision);
    } else if engine.gave_up(revision).is_some() {
        if engine.s.rollout.state != RolloutState::Idle {
            return Result::Later;
        }
        let target = engine.input.desired.target().cloned();
        match target.filter(|t| t.revision == revision) {
            Some(target) => engine.start(&target),
            None => {
                return Result::Refused(format!(
                    "{revision} is not what the spec asks for, so there is nothing to retry"
                ));
            }
        }
    } else {
        return Result::Refused(format!(
            "{revision} is not rejected, so there is nothing to retry"
        ));
    }
    let note = format!("{revision} may be tried again");
    engine.event(false, reason::RETRIED, note);
    Result::Done
}

fn rollback_to(engine: &mut Engine, revision: &str) -> Result {
    let refused = |why: String| Result::Refused(why);
    if engine.s.stable.is_none() {
        return refused("no revision is stable yet, so there is none to go back from".into());
    }
    if engine.s.stable_revision() == Some(revision) {
        return refused(match engine.s.candidate_revision() {
            Some(candidate) => {
                format!("{revision} is stable; to stop the rollout, abort {candidate}")
            }
            None => format!("{revision} is stable already"),
        });
    }
    let rejected = engine.s.rejected.iter().find(|r| r.revision == revision);
    if let Some(rejected) = rejected {
        let (reason, message) = (&rejected.reason, &rejected.message);
        return refused(format!(
            "{revision} is rejected ({reason}: {message}); retry it first"
        ));
    }
    let Some(known) = engine.input.revisions.get(revision) else {
        let kept: Vec<&str> = engine.input.revisions.keys().map(String::as_str).collect();
        let kept = kept.join(", ");
        return refused(format!("{revision} is not kept any more; there are {kept}"));
    };
    let baked = engine.s.rollout.previous.as_deref() == Some(revision);
    if !baked && !marks::was_stable(engine.input, &engine.s, revision) {
        return refused(format!(
            "{revision} was never stable, so it can't skip the steps: to try it step by step, let the spec ask for it"
        ));
    }
    let target = Target {
        revision: revision.to_owned(),
        version: known.version.clone(),
        digest: known.digest.clone(),
        uri: known.uri.clone(),
        source: CandidateSource::Rollback,
    };
    let back = || {
        let message = format!(
            "someone went back to {}",
            words(revision, known.version.as_deref())
        );
        ending(Outcome::Aborted, reason::ROLLED_BACK_TO, message)
    };
    match engine.s.rollout.state {
        RolloutState::Idle => {
            engine.start(&target);
            Result::Done
        }
        RolloutState::RollingBack => Result::Later,
        RolloutState::Baking if engine.s.rollout.previous.as_deref() == Some(revision) => {
            engine.roll_back(back());
            Result::Done
        }
        _ if engine.s.candidate_revision() == Some(revision) => {
            refused(format!("{revision} is being tried; promote it"))
        }
        // What is going on ends first; then this is looked at again.
        _ => {
            engine.roll_back(back());
            Result::Later
        }
    }
}
