//! An Evaluation's plan: one Job per run, for the release's candidate if there is one, else for stable, else for a file.
//!
//! A run is kept under its key {release UID, revision, attempt, generation}; that is where a rollout reads its verdict, and all
//! that the two kinds say to each other. The run's number is written to status before its Job is made.

mod children;
mod decide;
mod follow;
mod judge;
mod observed;
pub mod reason;
#[cfg(test)]
mod tests;

pub use children::job_name;
pub use decide::{plan, refused};
pub use judge::{judge, verdict};
pub use observed::Observed;
