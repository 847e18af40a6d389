//! Logs, metrics, and the little HTTP server that shows them.

pub mod log;
pub mod metrics;
pub mod server;
