//! Pods that fail, hang, or have enough to do.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use crate::harness::*;

fn with_key(gateway: &Harness, path: &str) -> http::Request<Full<Bytes>> {
    http::Request::post(gateway.url(path))
        .header("x-perennial-key", "k")
        .body(Full::from("{}"))
        .unwrap()
}

/// A pod that says its name while it is well, and 500 while it isn't, and counts what it is asked.
async fn moody(well: Arc<AtomicBool>, asked: Arc<AtomicUsize>) -> SocketAddr {
    server(move |_| {
        let (well, asked) = (well.clone(), asked.clone());
        async move {
            asked.fetch_add(1, Ordering::SeqCst);
            let status = if well.load(Ordering::SeqCst) {
                200
            } else {
                500
            };
            Response::builder()
                .status(status)
                .body(Body::empty())
                .unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn as_long_as_one_of_many_pods_takes_connections_no_request_is_lost() {
    let gateway = Harness::start(settings(None)).await;
    let mut pods = vec![named("stable").await];
    for _ in 0..2 {
        pods.push(SocketAddr::from(([127, 0, 0, 1], free_port().await)));
    }
    gateway.model(&pods, &[]).await;
    gateway.weight(0, 1).await;
    for _ in 0..30 {
        let answer = call(&gateway.http, with_key(&gateway, "/")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(gateway.traffic(STABLE).await.errors, 0);
    assert!(gateway.count("perennial_gateway_retries_total").await > 0);
}

#[tokio::test]
async fn a_pod_that_keeps_failing_is_left_out_and_comes_back() {
    let gateway = Harness::start(settings(None)).await;
    let (well, asked) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let sick = moody(well.clone(), Arc::clone(&asked)).await;
    gateway.model(&[named("stable").await, sick], &[]).await;
    let rule = json!({"ejection": {"consecutiveFailures": 3, "time": "300ms"}});
    gateway.traffic_policy(0, 1, rule).await;
    let mut failed = 0;
    for _ in 0..40 {
        let answer = call(&gateway.http, with_key(&gateway, "/")).await;
        failed += usize::from(answer.status == 500);
    }
    let out = gateway.count("perennial_gateway_ejections_total").await;
    assert!(out >= 1, "it is out");
    // Three for the first time; one for each time that it was tried again.
    assert!(
        failed <= 2 + usize::try_from(out).unwrap(),
        "{failed} failed, {out} times out"
    );
    well.store(true, Ordering::SeqCst);
    let before = asked.load(Ordering::SeqCst);
    until("the pod is asked again", || async {
        let answer = call(&gateway.http, with_key(&gateway, "/")).await;
        assert_eq!(answer.status, 200);
        (asked.load(Ordering::SeqCst) > before + 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_last_pod_is_asked_however_often_it_fails() {
    let gateway = Harness::start(settings(None)).await;
    let asked: Arc<AtomicUsize> = Arc::default();
    let sick = moody(Arc::new(AtomicBool::new(false)), asked.clone()).await;
    gateway.model(&[sick], &[]).await;
    gateway.weight(0, 1).await;
    for _ in 0..20 {
        assert_eq!(
            call(&gateway.http, with_key(&gateway, "/")).await.status,
            500
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn more_requests_than_a_revision_is_given_wait_and_more_than_those_are_refused_at_once() {
    let gateway = Arc::new(Harness::start(settings(None)).await);
    let (gate, at_once) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let slow = {
        let (gate, at_once) = (gate.clone(), at_once.clone());
        server(move |_| {
            let (gate, at_once) = (gate.clone(), at_once.clone());
            async move {
                at_once.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                Response::new("done".into())
            }
        })
        .await
    };
    gateway.model(&[slow], &[named("candidate").await]).await;
    let limits =
        json!({"limits": {"concurrent": 2, "pending": 1}, "override": {"header": "x-side"}});
    gateway.traffic_policy(1, 1, limits).await;
    let side = |side: &'static str| {
        let mut request = with_key(&gateway, "/");
        let headers = request.headers_mut();
        headers.insert("x-side", http::HeaderValue::from_static(side));
        request
    };
    let mut open = Vec::new();
    for i in 0..3 {
        let (http, request) = (gateway.http.clone(), side("stable"));
        open.push(tokio::spawn(async move { call(&http, request).await }));
        until("it is open, or waits", || async {
            let metrics = gateway.admin("/metrics").await;
            let wanted = format!("perennial_gateway_open_requests {}", i + 1);
            metrics.text().contains(&wanted).then_some(())
        })
        .await;
    }
    let began = Instant::now();
    let refused = until("it is full", || async {
        let (http, request) = (gateway.http.clone(), side("stable"));
        let answer = call(&http, request).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    assert_eq!(refused.header("retry-after"), "1");
    let sentence = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        sentence.contains(STABLE) && sentence.contains(" of m "),
        "{sentence}"
    );
    // The other side has a limit of its own.
    assert_eq!(
        call(&gateway.http, side("candidate")).await.text(),
        "candidate"
    );
    assert_eq!(at_once.load(Ordering::SeqCst), 2);
    gate.add_permits(3);
    for answer in open {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_its_caller_gives_it_is_ended() {
    let gateway = Harness::start(settings(None)).await;
    let (_go, told) = watch::channel(());
    let endless = server(move |request| {
        let told = told.clone();
        async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            let pieces = stream::unfold((0, told), |(i, mut told)| async move {
                if i > 0 {
                    told.changed().await.ok()?;
                }
                Some((Ok::<_, std::convert::Infallible>("piece"), (i + 1, told)))
            });
            Response::new(Body::from_stream(pieces))
        }
    })
    .await;
    gateway.model(&[endless], &[]).await;
    let limits = json!({"timeouts": {"connect": "1s", "firstByte": "10s", "request": "400ms"}});
    gateway.traffic_policy(0, 1, limits).await;
    let began = Instant::now();
    let late = call(&gateway.http, with_key(&gateway, "/never")).await;
    assert_eq!(late.status, 504);
    let sentence = late.json()["error"].as_str().unwrap().to_owned();
    assert!(
        sentence.contains(STABLE)
            && sentence.contains(" of m ")
            && sentence.contains("timeouts.request"),
        "{sentence}"
    );
    let begun = gateway.http.request(with_key(&gateway, "/")).await.unwrap();
    assert_eq!(begun.status(), 200);
    assert!(begun.into_body().collect().await.is_err(), "it is cut");
    assert!(began.elapsed() < Duration::from_secs(8));
    let traffic = gateway.traffic(STABLE).await;
    assert_eq!((traffic.requests, traffic.errors), (2, 2));
}

#[tokio::test]
async fn a_caller_that_stops_sending_is_not_the_pods_fault() {
    let gateway = Harness::start(settings(None)).await;
    let reads = server(|request| async move {
        let body = request.into_body().collect().await;
        Response::new(body.map_or(0, |b| b.to_bytes().len()).to_string().into())
    })
    .await;
    gateway.model(&[reads], &[]).await;
    let limits = json!({"timeouts": {"firstByte": "300ms"}, "limits": {"bodyBytes": 100}});
    gateway.traffic_policy(0, 1, limits).await;
    let address = ("127.0.0.1", gateway.port);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 10\r\n\r\n12345";
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    let mut text = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut text);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    // One that sends slowly has all the time it needs.
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    for piece in ["6", "7", "8", "9", "0"] {
        // Time itself is what is tested here: pieces that are apart, in all longer than the limit.
        tokio::time::sleep(Duration::from_millis(120)).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, piece.as_bytes())
            .await
            .unwrap();
    }
    let mut text = vec![0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut text)
        .await
        .unwrap();
    assert_eq!(text, b"HTTP/1.1 200");
    let long = http::Request::post(gateway.url("/"))
        .body(Full::from(vec![b'x'; 101]))
        .unwrap();
    assert_eq!(call(&gateway.http, long).await.status, 413);
    assert_eq!(gateway.traffic(STABLE).await.errors, 0);
}

#[tokio::test]
async fn a_gateway_that_leaves_asks_for_its_connections_to_be_closed_and_loses_no_request() {
    let mut leaving = settings(None);
    leaving.leave = Duration::from_secs(1);
    let gateway = Harness::start(leaving).await;
    gateway.model(&[named("stable").await], &[]).await;
    gateway.weight(0, 1).await;
    let url = gateway.url("/");
    let idle = client();
    for _ in 0..3 {
        assert_eq!(call(&idle, get(url.clone())).await.header("connection"), "");
    }
    let http = gateway.http.clone();
    let admin = gateway.gateway.admin_address;
    let stopped = tokio::spawn(gateway.gateway.stop());
    until("it is not ready any more", || async {
        let ready = call(&http, get(format!("http://{admin}/readyz"))).await;
        (ready.status == 503).then_some(())
    })
    .await;
    // Connections that were kept, and new ones: all are answered, and asked to be closed.
    for http in [idle, client()] {
        let answer = call(&http, get(url.clone())).await;
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    }
    tokio::time::timeout(Duration::from_secs(15), stopped)
        .await
        .unwrap()
        .unwrap();
}
