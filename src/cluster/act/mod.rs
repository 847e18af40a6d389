//! Carries a plan out, in order: each write once, none when there is nothing to write, none over what isn't ours.

mod memory;
mod write;

use serde::Serialize;
use tokio::time::Instant;

pub use memory::Memory;
use memory::Refused;
use write::Writer;

use super::{
    compare::digest,
    error::{Error, Refusal, RefusalReason},
    shell::Shell,
    subject::Subject,
};
use crate::plan::Action;

/// Annotation of a child: digest of what was applied last, so that a field that we no longer say is noticed.
pub const APPLIED: &str = "perennial.dev/applied";

/// What came of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acted {
    /// Writes that were sent.
    pub writes: usize,
    /// A write that is refused; it ended the plan.
    pub refused: Option<Refusal>,
    /// Whether that is news.
    pub newly_refused: bool,
    /// Objects of ours that somebody keeps changing, and that were left as they are: news.
    pub contested: Vec<Refusal>,
}

/// Carries actions out for `object`, in order, up to the first failure. `enter` enters a refusal into a planned status, or with `None`
/// into the one that was observed. `recorded` becomes true once a planned status that differs from the stored one is written: what it tells of
/// has happened then, whatever becomes of the rest.
///
/// # Errors
/// The first write that failed for another reason than being refused.
pub async fn carry_out<O: Subject, S: Serialize + Clone>(
    shell: &Shell,
    object: &O,
    actions: Vec<Action<S>>,
    enter: impl Fn(Option<S>, &Refusal) -> Option<S>,
    recorded: &mut bool,
) -> Result<Acted, Error> {
    let uid = object.uid();
    let digests: Vec<Option<String>> = actions.iter().map(child_digest).collect();
    let children: Vec<String> = digests.iter().flatten().cloned().collect();
    // A refusal that stands is entered into every status from the start, so that status doesn't say one thing and then another.
    let standing = shell.memory.standing(&uid, object.generation(), &children);
    let held = shell.memory.contested(&uid, &children);
    let enter_all = |status: Option<S>| {
        let refusals = standing.iter().chain(&held).map(|(refusal, _)| refusal);
        refusals.fold(status, &enter)
    };
    let mut writer = Writer::new(shell, object);
    let mut written: Option<S> = None;
    for (action, child) in actions.into_iter().zip(digests) {
        if let Some((refusal, refused)) = &standing
            && child.as_ref() == Some(refused)
        {
            return Ok(writer.acted(Some(refusal.clone()), false));
        }
        if held
            .iter()
            .any(|(_, digest)| child.as_ref() == Some(digest))
        {
            continue;
        }
        let done = match action {
            Action::Status(status) => {
                let Some(status) = enter_all(Some(*status)) else {
                    continue;
                };
                let before = writer.writes();
                let done = writer.status(&status).await;
                *recorded |= done.is_ok() && writer.writes() > before;
                written = Some(status);
                done
            }
            Action::Apply(value) => {
                let digest = child.clone().unwrap_or_default();
                writer.apply(&value, digest).await
            }
            Action::Create(value) => writer.create(&value).await,
            Action::Delete(reference) => writer.delete(&reference).await,
            Action::DeleteSelf => writer.delete_self().await,
        };
        match (done, child) {
            (Ok(()), _) => {}
            (Err(Error::Refused(refusal)), Some(desired))
                if refusal.reason == RefusalReason::Contested =>
            {
                let (kind, key) = (refusal.kind, refusal.key.clone());
                let until = Instant::now() + refusal.reason.retry_after();
                shell.memory.hold(
                    &uid,
                    kind,
                    &key,
                    Refused {
                        refusal: (*refusal).clone(),
                        desired,
                        generation: object.generation(),
                        until,
                    },
                );
                if let Some(status) = enter(written.clone(), &refusal) {
                    writer.status(&status).await?;
                    written = Some(status);
                }
                writer.contested.push(*refusal);
            }
            (Err(Error::Refused(refusal)), Some(desired)) => {
                shell.memory.refuse(
                    &uid,
                    Refused {
                        refusal: (*refusal).clone(),
                        desired,
                        generation: object.generation(),
                        until: Instant::now() + refusal.reason.retry_after(),
                    },
                );
                if let Some(status) = enter(written, &refusal) {
                    writer.status(&status).await?;
                }
                return Ok(writer.acted(Some(*refusal), true));
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(writer.acted(None, false))
}

fn child_digest<S>(action: &Action<S>) -> Option<String> {
    match action {
        Action::Apply(value) | Action::Create(value) => Some(digest(value)),
        Action::Delete(_) | Action::Status(_) | Action::DeleteSelf => None,
    }
}
