//! What a pod of ours says of itself: `GET /progress`, `/report` and `/done`, and the termination message.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::api::{
    run::{ProgressAnswer, Report, Summary},
    training_job::Progress,
};

/// The kubelet keeps this many bytes of a termination message.
const SUMMARY_LIMIT: usize = 4096;
/// Time for the last answer to leave.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// When the pod is being taken away, its grace is short.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Where the run stands, for all to read.
#[derive(Debug, Default)]
pub struct Board {
    progress: watch::Sender<ProgressAnswer>,
    report: watch::Sender<Option<Arc<Report>>>,
    read: watch::Sender<bool>,
}

impl Board {
    /// Notes the stage: `Inputs`, `Running`, `Publishing`.
    pub fn stage(&self, stage: &str) {
        tracing::info!("stage {stage}");
        self.progress
            .send_modify(|p| stage.clone_into(&mut p.stage));
    }

    /// Notes the last progress line.
    pub fn progress(&self, progress: Progress) {
        self.progress.send_modify(|p| p.progress = Some(progress));
    }

    /// Puts the report up: stage `Done`.
    pub fn finish(&self, report: Report) {
        self.stage("Done");
        self.report.send_replace(Some(Arc::new(report)));
    }

    /// Waits until the report was read with `?acknowledge=true`, or for so long; shortly once the pod is asked to end.
    pub async fn acknowledged(&self, timeout: Duration, mut asked: watch::Receiver<bool>) {
        let mut read = self.read.subscribe();
        let hurry = async {
            if asked.wait_for(|asked| *asked).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LAST_WAIT).await;
        };
        tokio::select! {
            _ = read.wait_for(|read| *read) => {}
            () = tokio::time::sleep(timeout) => {
                tracing::warn!("nobody has read the report in time; the summary is the termination message");
            }
            () = hurry => {}
        }
    }
}

#[derive(Deserialize)]
struct Acknowledge {
    #[serde(default)]
    acknowledge: bool,
}

async fn report(State(board): State<Arc<Board>>, Query(query): Query<Acknowledge>) -> Response {
    let report = board.report.borrow().clone();
    match report {
        Some(report) => {
            if query.acknowledge {
                board.read.send_replace(true);
            }
            Json(report.as_ref()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "the run has not ended yet\n").into_response(),
    }
}

/// The routes.
pub fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route(
            "/progress",
            get(|State(board): State<Arc<Board>>| async move {
                let answer = board.progress.borrow().clone();
                Json(answer)
            }),
        )
        .route("/report", get(report))
        .route(
            "/done",
            get(|State(board): State<Arc<Board>>| async move {
                if board.report.borrow().is_some() {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            }),
        )
        .with_state(board)
}

/// A server that is up.
pub struct Server {
    /// Where.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Ends it, after the answers under way.
    pub async fn end(self) {
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(LAST_ANSWER, self.task).await;
    }
}

/// Serves the board; without IPv6, on IPv4. `None` (and a warning) if the port can't be had: the run goes on, its summary is in the
/// termination message.
pub async fn serve(board: Arc<Board>, address: SocketAddr) -> Option<Server> {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(_) if address.ip().is_unspecified() => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        Err(e) => Err(e),
    };
    let bound = listener.and_then(|l| l.local_addr().map(|a| (l, a)));
    let (listener, address) = match bound {
        Ok(bound) => bound,
        Err(e) => {
            tracing::warn!(
                "port {} can't be listened on, so progress can't be read: {e}",
                address.port()
            );
            return None;
        }
    };
    let (stop, mut stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, router(board)).with_graceful_shutdown(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        if let Err(e) = served.await {
            tracing::warn!("serving progress failed: {e}");
        }
    });
    Some(Server {
        address,
        stop,
        task,
    })
}

/// The termination message: at most 4 KiB of JSON. Long texts are cut, never the JSON.
#[must_use]
pub fn summary_text(summary: &Summary) -> String {
    let mut summary = summary.clone();
    let mut limit = 3000;
    loop {
        let text = serde_json::to_string(&summary).unwrap_or_default();
        if text.len() <= SUMMARY_LIMIT || limit == 0 {
            return text;
        }
        // A character may take six bytes in JSON, so cut until it fits.
        summary.message = shorten(&summary.message, limit);
        summary.last_line = summary.last_line.map(|line| shorten(&line, limit / 4));
        limit /= 2;
    }
}

/// At most so many bytes, at a character's boundary, with `…` where something is gone.
#[must_use]
pub fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Leaves the termination message; where there is no such file (outside of a pod), nothing is lost but it.
pub fn write_summary(path: &Path, summary: &Summary) {
    if let Err(e) = std::fs::write(path, summary_text(summary)) {
        tracing::info!("{} can't be written: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_fits_whatever_is_in_it() {
        for text in [
            "x".repeat(100_000),
            "ß\u{1}\"".repeat(9_000),
            "🦀".repeat(5_000),
        ] {
            let summary = Summary {
                message: text.clone(),
                last_line: Some(text),
                digest: Some("sha256:x".to_owned()),
                ..Summary::default()
            };
            let written = summary_text(&summary);
            assert!(written.len() <= SUMMARY_LIMIT, "{}", written.len());
            let read: Summary = serde_json::from_str(&written).unwrap();
            assert_eq!(read.digest.as_deref(), Some("sha256:x"));
            assert!(read.message.ends_with('…'));
        }
    }

    #[tokio::test]
    async fn a_report_is_there_only_at_the_end_and_reading_it_ends_the_wait() {
        let board = Arc::new(Board::default());
        let server = serve(board.clone(), ([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let client = crate::data::store::http_client().unwrap();
        let url = |path: &str| format!("http://{}{path}", server.address);
        let status = |path: &str| client.get(url(path)).send();
        assert_eq!(status("/report").await.unwrap().status(), 404);
        assert_eq!(status("/done").await.unwrap().status(), 503);
        board.stage("Running");
        let answer: ProgressAnswer = status("/progress").await.unwrap().json().await.unwrap();
        assert_eq!(answer.stage, "Running");
        board.finish(Report::default());
        assert_eq!(status("/done").await.unwrap().status(), 200);
        let (_keep, asked) = watch::channel(false);
        let waiter = {
            let board = board.clone();
            tokio::spawn(async move { board.acknowledged(Duration::from_secs(60), asked).await })
        };
        let report: Report = status("/report?acknowledge=true")
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(report, Report::default());
        tokio::time::timeout(Duration::from_secs(10), waiter)
            .await
            .unwrap()
            .unwrap();
        server.end().await;
    }
}
