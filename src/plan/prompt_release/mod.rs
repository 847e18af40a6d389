//! PromptRelease: every decision.

mod decide;
mod observed;
pub mod reason;
pub mod template;
#[cfg(test)]
mod tests;

pub use decide::{plan, refused, wanted};
pub use observed::Observed;

/// What the planner writes.
pub type Status = crate::api::prompt_release::PromptReleaseStatus;
