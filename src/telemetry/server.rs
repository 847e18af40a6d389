//! `/metrics`, `/healthz` and `/readyz`.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};

/// Says whether the process is ready: `Err` with one sentence for each thing that is missing.
pub type Ready = Arc<dyn Fn() -> Result<(), Vec<String>> + Send + Sync>;

/// Serves until `stop` resolves.
///
/// # Errors
/// The address can't be listened on.
pub async fn serve(
    address: SocketAddr,
    ready: Ready,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router(ready))
        .with_graceful_shutdown(stop)
        .await
}

/// The routes, for roles that serve more on the same port.
pub fn router(ready: Ready) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|| async {
                // Ten thousand objects take a while, in which others are served.
                let text = tokio::task::spawn_blocking(super::metrics::text).await;
                (
                    [("content-type", "text/plain; version=0.0.4")],
                    text.unwrap_or_default(),
                )
            }),
        )
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let ready = ready.clone();
                async move {
                    match ready() {
                        Ok(()) => "ok\n".into_response(),
                        Err(missing) => (
                            StatusCode::SERVICE_UNAVAILABLE,
                            format!("{}\n", missing.join("\n")),
                        )
                            .into_response(),
                    }
                }
            }),
        )
}
