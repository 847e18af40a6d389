//! A TrainingJob's plan: one Job per attempt, until a version exists or the run has failed for good.
//!
//! ```text
//! Pending ─► Starting ─► Running ─► Publishing ─► Succeeded
//!    ▲           │          │           │
//!    │           ▼          ▼           ▼
//!    └───── Restarting ◄── failed attempt ──► Failed (restarts used up, permanent, or past the deadline)
//! ```
//! The version's name and each attempt's number are written to status before the Job that bears them is made, so a crash in
//! between makes the same Job again. Terminal is terminal: nothing is made afterwards but what the TTL takes away.

mod children;
mod decide;
mod failure;
mod observed;
pub mod reason;
mod success;
#[cfg(test)]
mod tests;

pub use children::{job_name, profile_name, report_job_name};
pub use decide::{plan, refused};
pub use observed::{Answers, Observed};
