//! Wiring: observe → plan → act, one file per kind; [`driver`] is the loop they share.

pub mod backoff;
pub mod driver;
pub mod queue;

pub use driver::{Controller, Outcome, Place, Subject};
