//! What targets speak.

pub mod open_inference;
pub mod openai;

use super::input_failure;
use crate::supervise::failure::Failure;

/// A target that doesn't answer at all.
pub(super) fn unreachable(who: &str, url: &str, text: &str) -> Failure {
    Failure::new(
        "TargetUnreachable",
        format!("{who} at {url} can't be asked: {text}"),
        1,
    )
}

/// A target that says no to what it is asked.
pub(super) fn refused(who: &str, text: &str, hint: &str) -> Failure {
    input_failure(
        "TargetRefused",
        format!("{who} refuses the rows: {text}; {hint}"),
    )
}
