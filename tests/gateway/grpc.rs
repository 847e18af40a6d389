//! gRPC, as the Open Inference Protocol has it: HTTP/2 on both sides, messages both ways, and how a call ended in its trailers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use perennial::gateway::open_inference;
use serde_json::json;
use tokio::sync::mpsc;

use crate::harness::*;

type Body = BoxBody<Bytes, Infallible>;
type Grpc = Client<HttpConnector, Body>;

/// A ModelInferRequest of the model `m`: `temp`, an FP64, and `carrier`, BYTES or what it is told.
fn infer(carrier: &[u8; 5]) -> Vec<u8> {
    let carrier = [
        b"\x2a\x14\x0a\x07carrier\x12\x05",
        &carrier[..],
        b"\x1a\x02\x01\x01",
    ]
    .concat();
    let temp = b"\x2a\x10\x0a\x04temp\x12\x04FP64\x1a\x02\x01\x01";
    open_inference::framed(&[b"\x0a\x01m", &temp[..], &carrier].concat())
}

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

fn grpc() -> Grpc {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed()
}

fn trailers(status: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    Frame::trailers(trailers)
}

/// A server that speaks HTTP/2 only: it sends each message back, then the status that the metadata `x-status` asks for.
async fn echo(seen: Arc<Mutex<Vec<http::request::Parts>>>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = seen.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let status = match parts.headers.get("x-status").map(HeaderValue::as_bytes) {
                        Some(b"14") => "14",
                        Some(b"3") => "3",
                        _ => "0",
                    };
                    seen.lock().unwrap().push(parts);
                    let echoed = stream::unfold(Some(body), move |body| async move {
                        let mut body = body?;
                        match body.frame().await {
                            Some(Ok(frame)) => Some((Ok::<_, Infallible>(frame), Some(body))),
                            _ => Some((Ok(trailers(status)), None)),
                        }
                    });
                    let answer = Response::builder()
                        .header("content-type", "application/grpc")
                        .body(BodyExt::boxed_unsync(StreamBody::new(echoed)));
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

fn message(gateway: &Harness, status: &str, body: Body) -> Request<Body> {
    Request::post(gateway.url(INFER))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-perennial-key", "k")
        .header("x-status", status)
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn messages_and_trailers_go_both_ways_as_they_come() {
    let gateway = Harness::start(settings(None)).await;
    let seen = Arc::default();
    gateway.model(&[echo(Arc::clone(&seen)).await], &[]).await;
    gateway.weight(0, 1).await;
    let (pieces, receiver) = mpsc::channel::<Bytes>(1);
    let body = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), receiver))
    });
    pieces.send(Bytes::from_static(b"first")).await.unwrap();
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = message(&gateway, "0", frames(vec![])).map(|_| StreamBody::new(Box::pin(body)));
    let mut answer = client.request(request).await.unwrap();
    assert_eq!(answer.headers()["x-perennial-revision"], STABLE);
    let mut next = async || {
        let frame = tokio::time::timeout(Duration::from_secs(10), answer.body_mut().frame());
        frame.await.unwrap().unwrap().unwrap()
    };
    assert_eq!(next().await.into_data().unwrap(), "first");
    // The second is sent when the first has come back: a stream in both directions at the same time.
    pieces.send(Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(next().await.into_data().unwrap(), "second");
    drop(pieces);
    let last = next().await.into_trailers().unwrap();
    assert_eq!(last["grpc-status"], "0");
    let parts = seen.lock().unwrap().pop().unwrap();
    assert_eq!(
        (parts.version, parts.uri.path(), &parts.headers["te"]),
        (
            http::Version::HTTP_2,
            INFER,
            &HeaderValue::from_static("trailers")
        )
    );
    assert_eq!(parts.headers["x-forwarded-for"], "127.0.0.1");
}

#[tokio::test]
async fn a_status_that_is_the_servers_fault_counts_like_5xx_and_the_callers_fault_does_not() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[echo(Arc::default()).await], &[]).await;
    gateway.weight(0, 1).await;
    let client = grpc();
    for status in ["0", "3", "14", "14"] {
        let body = frames(vec![Frame::data(Bytes::from_static(b"m"))]);
        let answer = client
            .request(message(&gateway, status, body))
            .await
            .unwrap();
        let collected = answer.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], status);
    }
    let traffic = until("all have been counted", || async {
        let traffic = gateway.traffic(STABLE).await;
        (traffic.requests == 4).then_some(traffic)
    })
    .await;
    assert_eq!(traffic.errors, 2);
}

#[tokio::test]
async fn what_the_gateway_itself_refuses_is_said_in_grpcs_words() {
    let gateway = Harness::start(settings(None)).await;
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    gateway.model(&[dead], &[]).await;
    gateway.weight(0, 1).await;
    let answer = grpc()
        .request(message(&gateway, "0", frames(vec![])))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    let sentence = answer.headers()["grpc-message"].to_str().unwrap();
    assert!(
        sentence.contains(STABLE) && sentence.contains(" of m "),
        "{sentence}"
    );
    assert_eq!(gateway.traffic(STABLE).await.errors, 1);
}

#[tokio::test]
async fn one_port_speaks_http1_http2_and_grpc_and_a_server_may_have_another_port_for_grpc() {
    let gateway = Harness::start(settings(None)).await;
    let rpc = echo(Arc::default()).await;
    let mut revision = model_revision(STABLE, "OpenInference");
    revision["data"]["server"]["grpcPort"] = json!(rpc.port());
    gateway
        .put(perennial::gateway::objects::Source::Revisions, revision)
        .await;
    gateway.endpoints(STABLE, &[named("http").await]).await;
    gateway
        .put(
            perennial::gateway::objects::Source::Revisions,
            model_revision(CANDIDATE, "OpenInference"),
        )
        .await;
    gateway.weight(0, 1).await;
    assert_eq!(gateway.get("/", None).await.text(), "http");
    let body = frames(vec![Frame::data(Bytes::from_static(b"m"))]);
    let answer = grpc().request(message(&gateway, "0", body)).await.unwrap();
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "m");
    // A plain call over HTTP/2 reaches a server that only speaks HTTP/1.1.
    let plain: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    assert_eq!(call(&plain, get(gateway.url("/"))).await.text(), "http");
}

/// How a call ended, and what it answered.
async fn ended(request: Request<Body>) -> (String, http::response::Parts, Bytes) {
    let (parts, body) = grpc().request(request).await.unwrap().into_parts();
    let collected = body.collect().await.unwrap();
    let said = collected.trailers().unwrap_or(&parts.headers);
    let status = said["grpc-status"].to_str().unwrap().to_owned();
    (status, parts, collected.to_bytes())
}

fn common(gateway: &Harness, path: &str, body: &[u8]) -> Request<Body> {
    let url = format!("http://{}{path}", gateway.gateway.shared_address);
    // In pieces of two bytes, so that the name comes in the middle of one.
    let pieces = body.chunks(2).map(Bytes::copy_from_slice);
    Request::post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(frames(pieces.map(Frame::data).collect()))
        .unwrap()
}

#[tokio::test]
async fn the_shared_port_finds_the_release_of_a_grpc_call_by_the_model_that_it_names() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[echo(Arc::default()).await], &[]).await;
    gateway.weight(0, 1).await;
    // By the release's name, and by the model's: `arrival`.
    let whole = infer(b"BYTES");
    let by_model = open_inference::framed(b"\x0a\x07arrival");
    for (path, body) in [
        (INFER, &whole),
        ("/inference.GRPCInferenceService/ModelReady", &by_model),
    ] {
        let (status, parts, came) = ended(common(&gateway, path, body)).await;
        assert_eq!((status.as_str(), &came[..]), ("0", &body[..]), "{path}");
        assert_eq!(parts.headers["x-perennial-revision"], STABLE);
    }
    // Of another service, by metadata.
    let mut request = common(
        &gateway,
        "/tensorflow.serving.PredictionService/Predict",
        b"any",
    );
    let (status, parts, _) = ended(request).await;
    assert_eq!(status, "5");
    let sentence = parts.headers["grpc-message"].to_str().unwrap();
    assert!(sentence.contains("x-perennial-release"), "{sentence}");
    request = common(
        &gateway,
        "/tensorflow.serving.PredictionService/Predict",
        b"any",
    );
    let name = HeaderValue::from_static("m");
    request.headers_mut().insert("x-perennial-release", name);
    let (status, _, came) = ended(request).await;
    assert_eq!((status.as_str(), &came[..]), ("0", &b"any"[..]));
    // Nobody's, nobody at all, and cut off.
    for (message, wanted) in [(&b"\x0a\x06nobody"[..], "5"), (b"", "3")] {
        let body = open_inference::framed(message);
        assert_eq!(ended(common(&gateway, INFER, &body)).await.0, wanted);
    }
    assert_eq!(ended(common(&gateway, INFER, &whole[..7])).await.0, "3");
    // What is asked of the server itself, the gateway is.
    // This one wasn't told yet that it knows all there is.
    for (method, says) in [("ServerLive", 1), ("ServerReady", 0)] {
        let path = format!("/inference.GRPCInferenceService/{method}");
        let (status, _, came) = ended(common(&gateway, &path, &open_inference::framed(b""))).await;
        assert_eq!(
            (status.as_str(), &came[..]),
            ("0", &[0, 0, 0, 0, 2, 8, says][..])
        );
    }
}

#[tokio::test]
async fn the_inputs_of_grpc_calls_are_compared_with_the_signature_too() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[echo(Arc::default()).await], &[]).await;
    let send = |body: Vec<u8>| message(&gateway, "0", frames(vec![Frame::data(body.into())]));
    for (epoch, check) in [(1, "Warn"), (2, "Enforce")] {
        let policy = json!({"signature": check});
        gateway.traffic_policy(0, epoch, policy).await;
        let (status, parts, came) = ended(send(infer(b"BYTES"))).await;
        assert_eq!((status.as_str(), &came[..]), ("0", &infer(b"BYTES")[..]));
        assert!(!parts.headers.contains_key("x-perennial-signature"));
        let (status, parts, _) = ended(send(infer(b"INT32"))).await;
        let (wanted, place) = match check {
            "Warn" => ("0", "x-perennial-signature"),
            _ => ("3", "grpc-message"),
        };
        assert_eq!(status, wanted);
        let sentence = parts.headers[place].to_str().unwrap();
        assert!(sentence.contains("`carrier` is INT32"), "{sentence}");
    }
    assert_eq!(gateway.traffic(STABLE).await.errors, 0);
}

#[tokio::test]
async fn inputs_and_predictions_of_calls_are_sketched_like_those_of_json() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[echo(Arc::default()).await], &[]).await;
    gateway.weight(0, 1).await;
    // `temp` 1.0 and `carrier` "UA": inputs of a request, and, sent back, outputs of an answer.
    let temp =
        b"\x2a\x1c\x0a\x04temp\x12\x04FP64\x1a\x02\x01\x01\x2a\x0a\x3a\x08\0\0\0\0\0\0\xf0\x3f";
    let carrier = b"\x2a\x1a\x0a\x07carrier\x12\x05BYTES\x1a\x02\x01\x01\x2a\x04\x42\x02UA";
    let call = open_inference::framed(&[&b"\x0a\x01m"[..], &temp[..], &carrier[..]].concat());
    for status in ["0", "0", "3"] {
        // What the server refuses is no sample of inputs: it sends nothing back.
        let body = match status {
            "0" => vec![Frame::data(Bytes::from(call.clone()))],
            _ => Vec::new(),
        };
        let answer = grpc()
            .request(message(&gateway, status, frames(body)))
            .await
            .unwrap();
        assert!(answer.headers().contains_key("x-perennial-request-id"));
        answer.into_body().collect().await.unwrap();
    }
    let bucket = until("both are read", || async {
        let buckets = gateway.buckets().await.buckets;
        buckets.into_iter().find(|b| {
            let rows = |rows: &Option<perennial::stats::sketch::RowSketch>| {
                rows.as_ref().map_or(0, |r| r.rows)
            };
            (b.traffic.requests, rows(&b.features), rows(&b.predictions)) == (3, 2, 2)
        })
    })
    .await;
    let (inputs, said) = (bucket.features.unwrap(), bucket.predictions.unwrap());
    assert_eq!(inputs.columns["temp"].numeric().unwrap().max(), Some(1.0));
    let carriers = inputs.columns["carrier"].categorical().unwrap();
    assert_eq!(carriers.get("UA"), Some(2));
    assert_eq!(said.columns["number"].numeric().unwrap().max(), Some(1.0));
    let traffic = bucket.traffic;
    assert_eq!(
        (traffic.features_unknown, traffic.predictions_unread),
        (0, 0)
    );
}
