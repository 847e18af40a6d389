//! Bodies, headers, time-outs, retries, leaving.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response, serve::ListenerExt};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::harness::*;

type Streaming = Client<HttpConnector, BoxBody<Bytes, Infallible>>;

fn streaming(http2: bool) -> Streaming {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(connector)
}

fn body_of(pieces: mpsc::Receiver<Bytes>) -> BoxBody<Bytes, Infallible> {
    let stream = stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((Ok(Frame::data(piece)), pieces))
    });
    BodyExt::boxed(StreamBody::new(stream))
}

/// A server that sends one piece, and the next only when it is told to.
async fn drip(go: watch::Receiver<usize>) -> SocketAddr {
    server(move |_| {
        let go = go.clone();
        async move {
            let pieces = stream::unfold((0, go), |(i, mut go)| async move {
                if i == 3 {
                    return None;
                }
                go.wait_for(|n| *n >= i).await.ok()?;
                Some((Ok::<_, Infallible>(format!("piece {i}\n")), (i + 1, go)))
            });
            Response::new(Body::from_stream(pieces))
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_is_passed_on_piece_by_piece_over_http1_and_http2() {
    for http2 in [false, true] {
        let gateway = Harness::start(settings(None)).await;
        let (go, told) = watch::channel(0);
        gateway.model(&[drip(told).await], &[]).await;
        gateway.weight(0, 1).await;
        let request = http::Request::get(gateway.url("/"))
            .body(BodyExt::boxed(Full::default()))
            .unwrap();
        let mut answer = streaming(http2).request(request).await.unwrap();
        for i in 0..3 {
            let frame = tokio::time::timeout(Duration::from_secs(10), answer.body_mut().frame())
                .await
                .unwrap();
            assert_eq!(
                frame.unwrap().unwrap().into_data().unwrap(),
                format!("piece {i}\n")
            );
            go.send(i + 1).unwrap();
        }
        let rest = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn a_body_is_passed_on_while_it_still_comes() {
    let gateway = Harness::start(settings(None)).await;
    let (arrived, mut seen) = mpsc::channel(8);
    let server = server(move |request| {
        let arrived = arrived.clone();
        async move {
            let mut pieces = request.into_body().into_data_stream();
            while let Some(Ok(piece)) = pieces.next().await {
                arrived.send(piece).await.unwrap();
            }
            Response::new("done".into())
        }
    })
    .await;
    gateway.model(&[server], &[]).await;
    gateway.weight(0, 1).await;
    let (pieces, body) = mpsc::channel(1);
    let request = http::Request::post(gateway.url("/"))
        .body(body_of(body))
        .unwrap();
    let answer = tokio::spawn(streaming(false).request(request));
    for i in 0..3 {
        let piece = Bytes::from(format!("piece {i}"));
        pieces.send(piece.clone()).await.unwrap();
        let got = tokio::time::timeout(Duration::from_secs(10), seen.recv())
            .await
            .unwrap();
        assert_eq!(got, Some(piece), "it arrives before the next one is sent");
    }
    drop(pieces);
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_whether_it_says_so_or_not() {
    let gateway = Harness::start(settings(None)).await;
    let reads = server(|request| async move {
        let n = request
            .into_body()
            .collect()
            .await
            .map_or(0, |b| b.to_bytes().len());
        Response::new(n.to_string().into())
    })
    .await;
    gateway.model(&[reads], &[]).await;
    gateway.weight(0, 1).await;
    let send = |size: usize| {
        let request = http::Request::post(gateway.url("/"))
            .body(Full::from(vec![b'x'; size]))
            .unwrap();
        call(&gateway.http, request)
    };
    assert_eq!(send(1 << 20).await.text(), "1048576");
    let refused = send((1 << 20) + 1).await;
    assert_eq!(refused.status, 413);
    assert!(
        refused.json()["error"]
            .as_str()
            .unwrap()
            .contains("longer than")
    );
    let (pieces, body) = mpsc::channel(1);
    let feeder = tokio::spawn(async move {
        for _ in 0..40 {
            if pieces
                .send(Bytes::from(vec![b'x'; 64 << 10]))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let request = http::Request::post(gateway.url("/"))
        .body(body_of(body))
        .unwrap();
    assert_eq!(
        streaming(false).request(request).await.unwrap().status(),
        413
    );
    feeder.await.unwrap();
    // None of that is the revision's fault.
    assert_eq!(gateway.traffic(STABLE).await.errors, 0);
}

#[tokio::test]
async fn headers_are_passed_on_but_for_those_of_one_connection() {
    let gateway = Harness::start(settings(None)).await;
    let seen = Seen::default();
    let server = {
        let seen = seen.clone();
        server(move |request| {
            let seen = seen.clone();
            async move {
                seen.note(request).await;
                Response::builder()
                    .status(418)
                    .header("x-of-server", "1")
                    .header("keep-alive", "timeout=5")
                    .body("tea".into())
                    .unwrap()
            }
        })
        .await
    };
    gateway.model(&[server], &[]).await;
    gateway.weight(0, 1).await;
    let request = http::Request::put(gateway.url("/a%20b?q=1&q=2"))
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("x-other", "2")
        .header("x-forwarded-for", "10.9.9.9")
        .body(Full::from("hello"))
        .unwrap();
    let answer = call(&gateway.http, request).await;
    assert_eq!(
        (answer.status, answer.text(), answer.header("x-of-server")),
        (418, "tea", "1")
    );
    assert!(!answer.headers.contains_key("keep-alive"));
    let (parts, body) = seen.last();
    assert_eq!(
        (
            parts.method.as_str(),
            parts.uri.to_string().as_str(),
            &body[..]
        ),
        ("PUT", "/a%20b?q=1&q=2", &b"hello"[..])
    );
    let header = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap());
    assert_eq!((header("x-private"), header("x-other")), (None, Some("2")));
    assert_eq!(header("x-forwarded-for"), Some("10.9.9.9, 127.0.0.1"));
    assert_eq!(header("x-forwarded-proto"), Some("http"));
    let host = format!("127.0.0.1:{}", gateway.port);
    for name in ["host", "x-forwarded-host"] {
        assert_eq!(header(name), Some(host.as_str()), "{name}");
    }
}

#[tokio::test]
async fn what_proxies_before_us_saw_is_believed_only_of_those_that_are_trusted() {
    let gateway = Harness::start(settings(None)).await;
    let seen = Seen::default();
    let server = {
        let seen = seen.clone();
        server(move |request| {
            let seen = seen.clone();
            async move {
                seen.note(request).await;
                Response::new("".into())
            }
        })
        .await
    };
    gateway.model(&[server], &[]).await;
    let host = format!("127.0.0.1:{}", gateway.port);
    for (epoch, trusted) in [(1, "10.0.0.0/8"), (2, "127.0.0.0/8")] {
        let policy = json!({"trustedProxies": ["fd00::/8", trusted]});
        gateway.traffic_policy(0, epoch, policy).await;
        let request = http::Request::get(gateway.url("/"))
            .header("x-forwarded-for", "10.9.9.9")
            .header("x-forwarded-host", "outside.example")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-port", "443")
            .header("forwarded", "for=10.9.9.9;proto=https")
            .body(Full::default())
            .unwrap();
        assert_eq!(call(&gateway.http, request).await.status, 200);
        let (parts, _) = seen.last();
        let header = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap());
        let told = [
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "forwarded",
        ];
        let expected = match epoch {
            1 => [Some(host.as_str()), Some("http"), None, None],
            _ => [
                Some("outside.example"),
                Some("https"),
                Some("443"),
                Some("for=10.9.9.9;proto=https"),
            ],
        };
        assert_eq!(told.map(header), expected, "{trusted}");
        assert_eq!(header("x-forwarded-for"), Some("10.9.9.9, 127.0.0.1"));
    }
}

#[tokio::test]
async fn a_pod_that_takes_no_connections_costs_no_request() {
    let gateway = Harness::start(settings(None)).await;
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    gateway.model(&[named("stable").await, dead], &[]).await;
    gateway.weight(0, 1).await;
    for i in 0..20 {
        let request = http::Request::post(gateway.url("/"))
            .header("x-perennial-key", "k")
            .body(Full::from(format!("{i}")))
            .unwrap();
        assert_eq!(call(&gateway.http, request).await.status, 200);
    }
    let traffic = gateway.traffic(STABLE).await;
    assert_eq!((traffic.requests, traffic.errors), (20, 0));
}

#[tokio::test]
async fn a_connection_to_a_pod_is_kept_and_used_again() {
    let gateway = Harness::start(settings(None)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let listener = listener.tap_io(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let router = axum::Router::new().fallback(async || "stable");
    tokio::spawn(async move { axum::serve(listener, router).await });
    gateway.model(&[address], &[]).await;
    gateway.weight(0, 1).await;
    // Each caller has a connection of its own to the gateway; to the pod there is one.
    for _ in 0..20 {
        let answer = call(&client(), get(gateway.url("/"))).await;
        assert_eq!(answer.text(), "stable");
    }
    let made = connections.load(Ordering::SeqCst);
    assert!(made <= 2, "{made} connections for 20 requests");
}

#[tokio::test]
async fn a_pod_that_lets_a_connection_wait_for_too_long_is_left_for_another() {
    let gateway = Harness::start(settings(None)).await;
    // Nobody takes connections here, and there is place for one or two that wait: the others aren't answered at all.
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    let connect = || {
        tokio::time::timeout(
            Duration::from_millis(300),
            tokio::net::TcpStream::connect(address),
        )
    };
    while let Ok(connected) = connect().await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 10, "the queue has no end");
    }
    gateway.model(&[address, named("stable").await], &[]).await;
    let rule = json!({"timeouts": {"connect": "200ms"}});
    gateway.traffic_policy(0, 1, rule).await;
    for _ in 0..4 {
        let answer = call(&gateway.http, post(gateway.url("/"), &json!({}))).await;
        assert_eq!((answer.status, answer.text()), (200, "stable"));
    }
    assert!(gateway.count("perennial_gateway_retries_total").await > 0);
    assert_eq!(gateway.traffic(STABLE).await.errors, 0);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let gateway = Harness::start(settings(None)).await;
    let calls = Arc::new(AtomicUsize::new(0));
    // Reads a request, then hangs up.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counted = calls.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if tokio::io::AsyncReadExt::read(&mut stream, &mut buffer)
                    .await
                    .unwrap_or(0)
                    > 0
                {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    gateway.model(&[address], &[]).await;
    gateway.weight(0, 1).await;
    let posted = call(&gateway.http, post(gateway.url("/"), &json!({}))).await;
    assert_eq!((posted.status, calls.load(Ordering::SeqCst)), (502, 1));
    assert!(
        posted.json()["error"]
            .as_str()
            .unwrap()
            .contains("did not answer"),
        "{posted:?}"
    );
    let got = gateway.get("/", None).await;
    assert_eq!(
        (got.status, calls.load(Ordering::SeqCst)),
        (502, 3),
        "a GET is tried twice"
    );
    assert_eq!(gateway.traffic(STABLE).await.errors, 2);
}

#[tokio::test]
async fn a_server_that_does_not_begin_to_answer_is_given_up_and_counted() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[server(|_| std::future::pending()).await], &[])
        .await;
    gateway.weight(0, 1).await;
    let began = Instant::now();
    let answer = gateway.get("/", Some("k")).await;
    assert_eq!(answer.status, 504);
    assert!(began.elapsed() < Duration::from_secs(10));
    let traffic = gateway.traffic(STABLE).await;
    assert_eq!(
        (traffic.requests, traffic.errors, traffic.callers.failures()),
        (1, 1, 1)
    );
    assert!(traffic.latency.max().unwrap() >= 1_900_000);
}

#[tokio::test]
async fn small_answers_over_kept_connections_are_not_held_back() {
    let gateway = Harness::start(settings(None)).await;
    // Two writes for each answer: with Nagle's algorithm the second waits 40 ms.
    let two = server(|_| async {
        let pieces = stream::iter(["a", "b"]).then(|p| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(p)
        });
        Response::new(Body::from_stream(pieces))
    })
    .await;
    gateway.model(&[two], &[]).await;
    gateway.weight(0, 1).await;
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        assert_eq!(gateway.get("/", Some("k")).await.text(), "ab");
        times.push(began.elapsed());
    }
    times.sort();
    assert!(
        times[25] < Duration::from_millis(20),
        "median {:?}",
        times[25]
    );
}

#[tokio::test]
async fn a_gateway_that_leaves_ends_its_streams_and_hands_over_its_last_measurements() {
    let gateway = Harness::start(settings(None)).await;
    let (go, told) = watch::channel(0);
    gateway.model(&[drip(told).await], &[]).await;
    gateway.weight(0, 1).await;
    gateway.buckets().await;
    let mut answer = gateway.http.request(get(gateway.url("/"))).await.unwrap();
    answer.body_mut().frame().await.unwrap().unwrap();
    let admin = gateway.gateway.admin_address;
    let (port, http) = (gateway.port, client());
    let leaving = tokio::spawn(gateway.gateway.stop());
    until("it is not ready any more", || async {
        let ready = call(&http, get(format!("http://{admin}/readyz"))).await;
        (ready.status == 503).then_some(())
    })
    .await;
    until("it takes no more connections", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
            .then_some(())
    })
    .await;
    go.send(3).unwrap();
    let rest = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, "piece 1\npiece 2\n");
    let last = until("the stream is in the last bucket", || async {
        let text = call(&http, get(format!("http://{admin}/buckets?since=0"))).await;
        let buckets: perennial::stats::bucket::Buckets =
            serde_json::from_slice(&text.body).unwrap();
        buckets.buckets.first().map(|b| b.traffic.requests)
    })
    .await;
    assert_eq!(last, 1);
    // A last look, if the first came before the end of the drain.
    let _ = http
        .request(get(format!("http://{admin}/buckets?since=0")))
        .await;
    tokio::time::timeout(Duration::from_secs(15), leaving)
        .await
        .unwrap()
        .unwrap();
}
