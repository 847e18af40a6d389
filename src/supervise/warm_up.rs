//! `perennial warm-up`: beside a model server, in its pod. Asks it what `server.warmUp` says, and is ready once all was answered; when the
//! server is gone (it restarts), it is not ready any more and asks anew when the server is back.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{board, failure::Failure};
use crate::{
    api::run::{EXIT_SPEC, EXIT_WARM_UP, WARM_UP_PORT, WarmUpRun},
    data::Error,
};

/// How often a server that doesn't listen yet, or can't answer yet, is tried.
const AGAIN: Duration = Duration::from_millis(250);
/// How often it is looked whether the server is still there.
const LOOK: Duration = Duration::from_secs(1);
/// The first answers of a model may take long: it is what the warm-up is for.
const ANSWER: Duration = Duration::from_secs(300);
/// How much of a refusal is told.
const TOLD: usize = 300;

/// Runs the role until it is asked to end: the spec is [`crate::api::run::RUN_ENV`].
///
/// # Errors
/// Never; what goes wrong is a termination message and an exit code.
pub async fn run() -> Result<ExitCode, Error> {
    let asked = super::signals();
    let address = (Ipv6Addr::UNSPECIFIED, WARM_UP_PORT).into();
    let ended = async {
        let spec = super::spec::<WarmUpRun>()?;
        beside(&spec, address, asked).await
    };
    match ended.await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            tracing::error!(reason = failure.reason, "{}", failure.message);
            let log = Path::new("/dev/termination-log");
            board::write_summary(log, &failure.report().summary);
            Ok(super::exit(failure.code))
        }
    }
}

/// Keeps the server of this pod warm until asked to end; `GET /readyz` at `address` is 200 while it is.
///
/// # Errors
/// `WarmUpRefused` with the server's words: an answer other than 2xx or 503 (which says that it isn't ready yet).
pub async fn beside(
    spec: &WarmUpRun,
    address: SocketAddr,
    mut asked: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let (warm, seen) = watch::channel(false);
    let listener = TcpListener::bind(address).await.map_err(|e| {
        let message = format!("port {} can't be listened on: {e}; the template's containers must leave it to the warm-up", address.port());
        Failure::new("WarmUpPort", message, EXIT_SPEC)
    })?;
    let router = Router::new().route("/readyz", get(readyz)).with_state(seen);
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("whether the server is warm can't be told any more: {error}");
        }
    });
    let ended = tokio::select! {
        failure = keep_warm(spec, &warm) => Err(failure),
        _ = asked.wait_for(|asked| *asked) => Ok(()),
    };
    server.abort();
    ended
}

async fn readyz(State(warm): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    match *warm.borrow() {
        true => (StatusCode::OK, "warm"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the server has not answered its warm-up yet",
        ),
    }
}

/// Ends only when the server refuses a request.
async fn keep_warm(spec: &WarmUpRun, warm: &watch::Sender<bool>) -> Failure {
    // Without certificates, as the image has none and the server in this pod is asked in plain HTTP.
    let client = reqwest::Client::builder().tls_certs_only([]).no_proxy();
    let client = match client.timeout(ANSWER).build() {
        Ok(client) => client,
        Err(e) => {
            let message = format!("requests can't be sent: {e}");
            return Failure::new("WarmUpRefused", message, EXIT_SPEC);
        }
    };
    loop {
        if let Err(failure) = warm_up(spec, &client).await {
            return failure;
        }
        tracing::info!("the server is warm");
        warm.send_replace(true);
        while listens(spec.port).await {
            tokio::time::sleep(LOOK).await;
        }
        warm.send_replace(false);
        tracing::info!("the server is gone");
    }
}

async fn listens(port: u16) -> bool {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    matches!(tokio::time::timeout(LOOK, server).await, Ok(Ok(_)))
}

/// Sends every request, each until it is answered.
async fn warm_up(spec: &WarmUpRun, client: &reqwest::Client) -> Result<(), Failure> {
    for _ in 0..spec.rounds.max(1) {
        for (number, wanted) in spec.requests.iter().enumerate() {
            let url = format!("http://127.0.0.1:{}{}", spec.port, wanted.path);
            let answer = loop {
                let request = match &wanted.body {
                    Some(body) => client.post(&url).json(body),
                    None => client.get(&url),
                };
                match request.send().await {
                    Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                        break answer;
                    }
                    // It isn't there yet, or says that it isn't ready.
                    Ok(_) | Err(_) => tokio::time::sleep(AGAIN).await,
                }
            };
            let status = answer.status();
            let body = answer.text().await.unwrap_or_default();
            if !status.is_success() {
                let told: String = body.chars().take(TOLD).collect();
                let message = format!(
                    "server.warmUp: request {} ({}) was answered with {status}: {told}",
                    number + 1,
                    wanted.path
                );
                return Err(Failure::new("WarmUpRefused", message, EXIT_WARM_UP));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::routing::post;

    use super::*;
    use crate::api::serving::WarmUpRequest;

    async fn free_port() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    }

    /// A server that isn't ready for its first three requests, then takes `/infer` and refuses `/wrong`.
    async fn server(port: u16, asked: Arc<AtomicUsize>) -> tokio::task::JoinHandle<()> {
        let infer = move || {
            let before = asked.fetch_add(1, Ordering::SeqCst);
            async move {
                if before < 3 {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::OK
                }
            }
        };
        let router = Router::new().route("/infer", post(infer)).route(
            "/wrong",
            get(|| async { (StatusCode::BAD_REQUEST, "no such model") }),
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }

    fn spec(port: u16, path: &str, body: bool) -> WarmUpRun {
        let body = body.then(Default::default);
        let path = path.to_owned();
        WarmUpRun {
            port,
            requests: vec![WarmUpRequest { path, body }],
            rounds: 2,
        }
    }

    async fn until_ready(address: SocketAddr, wanted: u16) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{address}/readyz");
        let look = async {
            loop {
                if let Ok(answer) = client.get(&url).send().await
                    && answer.status() == wanted
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), look)
            .await
            .unwrap_or_else(|_| panic!("/readyz is never {wanted}"));
    }

    #[tokio::test]
    async fn a_pod_is_ready_once_its_server_has_answered_and_again_after_the_server_restarted() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (port, asked) = (free_port().await, Arc::new(AtomicUsize::new(0)));
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, free_port().await).into();
        let (stop, stopped) = watch::channel(false);
        let spec = spec(port, "/infer", true);
        let beside = tokio::spawn(async move { beside(&spec, address, stopped).await });
        until_ready(address, 503).await;
        let first = server(port, asked.clone()).await;
        until_ready(address, 200).await;
        assert_eq!(
            asked.load(Ordering::SeqCst),
            5,
            "three refusals, two rounds"
        );
        first.abort();
        let _ = first.await;
        until_ready(address, 503).await;
        let _second = server(port, asked.clone()).await;
        until_ready(address, 200).await;
        assert_eq!(asked.load(Ordering::SeqCst), 7);
        stop.send_replace(true);
        assert_eq!(beside.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_request_that_is_refused_is_told_in_the_servers_words() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = free_port().await;
        let _server = server(port, Arc::new(AtomicUsize::new(0))).await;
        let (_stop, stopped) = watch::channel(false);
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, free_port().await).into();
        let failure = beside(&spec(port, "/wrong", false), address, stopped)
            .await
            .unwrap_err();
        assert_eq!(failure.code, EXIT_WARM_UP);
        assert_eq!(
            failure.message,
            "server.warmUp: request 1 (/wrong) was answered with 400 Bad Request: no such model"
        );
    }
}
