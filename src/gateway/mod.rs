//! gateway
pub mod features;
pub mod objects;
pub mod prompt;
pub mod record;
pub mod route;
pub mod table;
pub mod telemetry;
