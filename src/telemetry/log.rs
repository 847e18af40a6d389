//! Structured logs on standard error: JSON in pods, text for people.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Starts logging. `format`: text on a terminal and JSON elsewhere when absent; `filter` as in `RUST_LOG`. A second call does nothing.
pub fn start(format: Option<Format>, filter: &str) {
    let format = format.unwrap_or(if std::io::stderr().is_terminal() {
        Format::Text
    } else {
        Format::Json
    });
    // kube logs each 409 and 404 as an error of its own; we say what they mean.
    let filter = EnvFilter::try_new(format!("{filter},kube_client=off,kube_runtime=error"))
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off,kube_runtime=error"));
    let registry = tracing_subscriber::registry().with(filter);
    // An error means that a subscriber is there already: fine.
    let _ = match format {
        Format::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
        Format::Text => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false),
            )
            .try_init(),
    };
}
