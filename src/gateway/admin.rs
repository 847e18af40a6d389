//! The admin port: epochs and buckets for the operator, probes, metrics.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::Shared;
use crate::stats::bucket::{BACKEND_UNREACHABLE, CREDENTIALS_MISSING, Epochs, LogReport};

/// What is served on the admin port.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/epochs", get(epochs))
        .route("/buckets", get(buckets))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(shared)
}

async fn epochs(State(shared): State<Arc<Shared>>) -> Json<Epochs> {
    let table = shared.table();
    let mut epochs = table.epochs(shared.recorder.process());
    for release in table.releases() {
        let problem = release
            .prompts()
            .filter_map(|prompt| prompt.credentials.as_ref())
            .find_map(|key| shared.credentials.bearer(key).err())
            .or_else(|| {
                shared
                    .certificates
                    .server(release.policy.tls.as_ref()?)
                    .err()
            })
            .or_else(|| {
                let mut needed = release.authorities();
                needed.find_map(|secret| shared.certificates.client(secret, false).err())
            });
        let (mut unreachable, mut looking) = (None, false);
        for prompt in release.prompts() {
            let (sentence, open) = shared.reach.problem(prompt);
            unreachable = unreachable.or(sentence);
            looking |= open;
        }
        let missing = problem.map(|sentence| format!("{CREDENTIALS_MISSING}: {sentence}"));
        let unreachable = unreachable.map(|sentence| format!("{BACKEND_UNREACHABLE}: {sentence}"));
        if let Some(served) = epochs.releases.get_mut(&*release.uid) {
            served.problem = missing.or(unreachable);
            served.looking = looking;
            served.log = release.log.as_ref().map(|log| LogReport {
                problem: shared.log.problem(&release.uid, log),
            });
        }
    }
    Json(epochs)
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: i64,
}

async fn buckets(State(shared): State<Arc<Shared>>, Query(since): Query<Since>) -> Response {
    // Sketches can be long; writing them out is no work for the threads that serve callers.
    let reader = shared.clone();
    let text =
        tokio::task::spawn_blocking(move || serde_json::to_vec(&reader.recorder.read(since.since)))
            .await;
    shared.handed_over.notify_waiters();
    shared
        .was_read
        .store(true, std::sync::atomic::Ordering::Relaxed);
    match text {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.telemetry.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_leaving() {
        return (StatusCode::SERVICE_UNAVAILABLE, "leaving\n").into_response();
    }
    if !shared.is_ready() {
        let why = "no table yet: neither on disk nor from the API server\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    "ok\n".into_response()
}
