//! Commands: each value is done or refused once, and echoed.

use super::{
    Command, Target,
    end::ending,
    engine::{Engine, last, words},
    reason,
};
use crate::api::{
    command::HandledCommand,
    condition::bounded,
    rollout::{CandidateSource, Outcome, RolloutState},
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
            let handled = engine.s.handled.iter();
            let mut handled = handled.filter(|h| h.name == command.name() && &h.value == value);
            if handled.next().is_some() {
                continue;
            }
            let result = match revision_of(value) {
                None => Result::Refused(format!(
                    "write <revision>/<nonce>, for example {}/1: `{value}` is not that",
                    engine
                        .s
                        .candidate_revision()
                        .or(engine.s.stable_revision())
                        .unwrap_or("0123456789")
                )),
                Some(revision) => match command {
                    Command::Abort => abort(engine, revision),
                    Command::RollbackTo => rollback_to(engine, revision),
                    Command::Retry => retry(engine, revision),
                    Command::Promote => promote(engine, revision),
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
            engine.s.handled.retain(|h| h.name != command.name());
            engine.s.handled.push(HandledCommand {
                name: command.name().to_owned(),
                value: value.clone(),
                result: bounded(result),
            });
        }
    }
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
        RolloutState::Paused if pause.is_some_and(|p| p.duration.is_none()) => engine.advance(),
        RolloutState::Paused => engine.go_to(RolloutState::Stepping, step),
        RolloutState::Stepping => {
            let end = last(&engine.s.rollout.steps);
            engine.go_to(RolloutState::Stepping, end);
        }
        RolloutState::Preparing if engine.s.stable.is_none() => {
            return Result::Refused(format!(
                "{revision} is the first revision: it serves when it is ready and its evaluations passed"
            ));
        }
        RolloutState::Preparing => engine.s.rollout.step = last(&engine.s.rollout.steps),
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
