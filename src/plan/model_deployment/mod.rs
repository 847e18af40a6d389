//! ModelDeployment: every decision.

pub mod children;
mod concept;
mod decide;
mod demand;
pub mod drift;
pub mod frozen;
pub mod health;
mod labelled;
mod log;
pub mod look;
mod lost;
pub mod model;
mod monitor;
mod new_data;
mod observed;
mod past;
pub mod reason;
pub mod recipe;
pub mod resolve;
pub mod retraining;
mod route;
mod scale;
mod signature;
pub mod trigger;
mod triggers;
mod warm_up;

#[cfg(test)]
mod tests;

pub use decide::{plan, refused};
pub use observed::{Observed, Refused};

/// What the planner writes.
pub type Status = crate::api::model_deployment::ModelDeploymentStatus;
