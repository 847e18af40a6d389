//! How long the head of a request may take, and how long a connection may wait for one.

use std::time::{Duration, Instant};

use axum::response::Response;
use futures::future::join_all;
use http_body_util::BodyExt;
use perennial::gateway::{Limits, Settings, certificates::Certificates};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::*,
    tls::{handshake, mount},
};

const HEAD: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(600);
const GET: &str = "GET /quick HTTP/1.1\r\nhost: m\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nhost: m\r\n\r\n";
const POST: &str = "POST /quick HTTP/1.1\r\nhost: m\r\ncontent-length: 4\r\n\r\n";
const BEGUN: &str = "GET /quick HTTP/1.1\r\nhost: m\r\nx-long: a";

fn limited(head: Duration, idle: Duration, settings: Settings) -> Settings {
    Settings {
        limits: Limits {
            head,
            idle,
            ..settings.limits
        },
        ..settings
    }
}

/// A gateway in front of a server that answers `[what it was sent]`, at `/slow` after three times as long as a head may take.
async fn gateway(settings: Settings) -> Harness {
    let gateway = Harness::start(settings).await;
    let server = server(|request| async move {
        let slow = request.uri().path() == "/slow";
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if slow {
            tokio::time::sleep(HEAD * 3).await;
        }
        let body = String::from_utf8(body.to_vec()).unwrap();
        Response::new(format!("[{body}]").into())
    })
    .await;
    gateway.model(&[server], &[]).await;
    gateway.weight(0, 1).await;
    gateway
}

async fn connect(gateway: &Harness) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", gateway.port))
        .await
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads answers until so many bodies have come, or the end; gives what came and how many they were.
async fn answers<S: AsyncRead + Unpin>(stream: &mut S, wanted: usize) -> (String, usize) {
    let mut came = Vec::new();
    let mut buffer = [0; 4096];
    let count = |came: &[u8]| came.iter().filter(|byte| **byte == b']').count();
    let reading = async {
        while count(&came) < wanted {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => came.extend_from_slice(&buffer[..n]),
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(15), reading).await;
    let count = count(&came);
    let came = String::from_utf8(came).unwrap();
    ended.unwrap_or_else(|_| panic!("neither {wanted} answers nor an end: {came}"));
    (came, count)
}

/// Sends the first text, waits for so many answers, sends the second, and then a byte at a time or nothing: how long it took until the gateway closed.
async fn until_closed<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    (first, answered, second, drips): (&str, usize, &str, bool),
) -> Duration {
    stream.write_all(first.as_bytes()).await.unwrap();
    let (came, count) = answers(&mut stream, answered).await;
    assert_eq!(count, answered, "{came}");
    stream.write_all(second.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let began = Instant::now();
    let (mut read, mut write) = tokio::io::split(stream);
    let dripping = async {
        let mut ticks = tokio::time::interval(HEAD / 10);
        while drips && write.write_all(b"a").await.is_ok() && write.flush().await.is_ok() {
            ticks.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let (came, count) = tokio::select! {
        answers = answers(&mut read, usize::MAX) => answers,
        () = dripping => unreachable!(),
    };
    assert_eq!(count, 0, "{came}");
    began.elapsed()
}

#[tokio::test]
async fn a_head_that_has_begun_is_whole_in_time_or_its_connection_is_closed() {
    let state = tempfile::tempdir().unwrap();
    let settings = limited(HEAD, LONG, settings(Some(state.path())));
    let gateway = gateway(settings).await;
    let both = format!("{GET}{BEGUN}");
    let posted = format!("{POST}body{BEGUN}");
    let slow = format!("{SLOW}{BEGUN}");
    let cases = [
        ("", 0, BEGUN, true),
        ("", 0, BEGUN, false),
        // As HTTP/2 begins, too.
        ("", 0, "P", false),
        (GET, 1, BEGUN, true),
        (GET, 1, "G", false),
        // What came along with the request before.
        (both.as_str(), 1, "", false),
        (both.as_str(), 1, "", true),
        (posted.as_str(), 1, "", false),
        (slow.as_str(), 1, "", false),
    ];
    let all = cases.map(|case| {
        let gateway = &gateway;
        async move { (case, until_closed(connect(gateway).await, case).await) }
    });
    for (case, took) in join_all(all).await {
        // What came along began a little before.
        assert!(took > HEAD / 2, "{case:?} was closed after {took:?}");
        assert!(took < HEAD * 20, "{case:?} was closed after {took:?}");
    }
    let credentials = state.path().join("credentials");
    mount(&credentials, "web", &["tls.crt", "tls.key"]);
    mount(&credentials, "ca", &["ca.crt"]);
    let tls = json!({"tls": {"secretName": "web"}});
    gateway.traffic_policy(0, 2, tls).await;
    let trusted = Certificates::new(&credentials);
    let stream = handshake(connect(&gateway).await, &trusted, false).await;
    let took = until_closed(stream, (GET, 1, BEGUN, true)).await;
    assert!(HEAD / 2 < took && took < HEAD * 20, "TLS: {took:?}");
}

#[tokio::test]
async fn a_connection_that_was_idle_for_longer_than_a_head_may_take_takes_the_next_request() {
    let gateway = gateway(limited(HEAD, LONG, settings(None))).await;
    let slow_post = POST.replace("quick", "slow");
    let cases: [(&[&str], usize); 6] = [
        (&[], 0),
        (&[GET], 1),
        (&[POST, "body"], 1),
        // Answered while nothing is read, and the body with its head.
        (&[&slow_post, "body"], 1),
        (&[&format!("{POST}body")], 1),
        // An empty line after a body, as some callers send, is no beginning.
        (&[POST, "body", "\r\n"], 1),
    ];
    join_all(cases.map(|(pieces, answered)| {
        let gateway = &gateway;
        async move {
            let mut stream = connect(gateway).await;
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                // Its own read at the other end.
                tokio::time::sleep(HEAD / 10).await;
            }
            let (came, count) = answers(&mut stream, answered).await;
            assert_eq!(count, answered, "{pieces:?}: {came}");
            for _ in 0..2 {
                tokio::time::sleep(HEAD * 3).await;
                stream.write_all(GET.as_bytes()).await.unwrap();
                let (came, _) = answers(&mut stream, 1).await;
                assert!(came.starts_with("HTTP/1.1 200"), "{pieces:?}: {came}");
            }
        }
    }))
    .await;
}

#[tokio::test]
async fn a_connection_is_idle_for_so_long_at_most() {
    let gateway = gateway(limited(LONG, HEAD, settings(None))).await;
    for case in [("", 0, "", false), (GET, 1, "", false)] {
        let took = until_closed(connect(&gateway).await, case).await;
        assert!(HEAD / 2 < took && took < HEAD * 20, "{case:?}: {took:?}");
    }
}

#[tokio::test]
async fn only_heads_have_to_be_quick() {
    let gateway = gateway(limited(HEAD, LONG, settings(None))).await;
    let slow_body = async {
        let mut stream = connect(&gateway).await;
        stream.write_all(POST.as_bytes()).await.unwrap();
        for byte in b"body" {
            tokio::time::sleep(HEAD).await;
            stream.write_all(&[*byte]).await.unwrap();
        }
        stream.write_all(GET.as_bytes()).await.unwrap();
        let (came, count) = answers(&mut stream, 2).await;
        assert!(count == 2 && came.contains("[body]"), "{came}");
    };
    // The next head came in the meantime, whole or its beginning: it hasn't been asked for yet.
    let slow_answers = async {
        let mut stream = connect(&gateway).await;
        let (beginning, rest) = GET.split_at(10);
        let pipelined = format!("{SLOW}{SLOW}{beginning}");
        stream.write_all(pipelined.as_bytes()).await.unwrap();
        let (came, count) = answers(&mut stream, 2).await;
        assert_eq!(count, 2, "{came}");
        stream.write_all(rest.as_bytes()).await.unwrap();
        let (came, count) = answers(&mut stream, 1).await;
        assert_eq!(count, 1, "{came}");
    };
    tokio::join!(slow_body, slow_answers);
}
