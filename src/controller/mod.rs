//! Wiring: observe → plan → act, one file per kind; [`driver`] is the loop they share.

pub mod backoff;
mod claim;
pub mod driver;
pub mod evaluation;
pub mod gateway;
pub mod model_deployment;
pub mod operator;
pub mod prompt_release;
pub mod queue;
pub mod round;
pub mod shown;
pub mod training_job;

pub use driver::{Controller, Outcome, Place, Subject};
