//! An Evaluation's plan: one Job per run, for the release's candidate if there is one, else for stable, else for a file.
//!
//! A run is kept under its key {release UID, revision, attempt, generation}; that is where a rollout reads its verdict, and all
//! that the two kinds say to each other. The run's number is written to status before its Job is made.

mod children;
mod container;
mod decide;
mod follow;
mod observed;
pub mod reason;
mod record;
mod schedule;
mod target;
#[cfg(test)]
mod tests;
mod training;

pub use crate::api::verdict::{judge, verdict};
pub use children::{EVALUATOR, REPORT_ROLE, job_name, local_run, report_name, sources};
pub use decide::{plan, refused};
pub use observed::Observed;
pub use target::{Content, Release};
