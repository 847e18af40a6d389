//! Logs, metrics, and the little HTTP server that shows them.

pub mod log;
pub mod metrics;
pub mod server;

/// The header by which the API server's audit log and metrics tell our roles apart.
#[must_use]
pub fn user_agent(role: &'static str) -> (http::HeaderName, http::HeaderValue) {
    let name = format!("perennial/{} ({role})", env!("CARGO_PKG_VERSION"));
    let value = http::HeaderValue::try_from(name);
    // A version and a word of ours are always valid.
    let value = value.unwrap_or_else(|_| http::HeaderValue::from_static("perennial"));
    (http::header::USER_AGENT, value)
}
