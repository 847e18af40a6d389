//! Perennial keeps machine-learning models and LLM prompts healthy in production.
//!
//! One crate, one binary, several roles. Layers, from the inside out: [`api`] and [`stats`] are pure
//! types and arithmetic, [`plan`] holds every decision and does no IO, everything else observes and
//! acts. `tests/layering.rs` checks who may use whom.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod data;
pub mod evaluate;
pub mod gateway;
pub mod plan;
pub mod role;
pub mod stats;
pub mod supervise;
pub mod telemetry;
pub mod yaml;
