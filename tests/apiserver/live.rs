//! How long a change of weight takes from the API server to every gateway, and that no stream breaks over it. The gateways are the program's
//! own, the API server is real; the servers behind them stand at the node's address.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::TokioIo;
use kube::api::{DynamicObject, PostParams};
use perennial::gateway::{Gateway, Settings, watch};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Place, eventually, on_cluster};

/// Gateways at once.
const GATEWAYS: usize = 3;
/// Changes of weight.
const CHANGES: usize = 200;
/// What each of them must be served within, 99 times in 100.
const LIMIT: Duration = Duration::from_millis(500);

/// A server that streams a piece every ten milliseconds, for ever.
async fn streaming(address: &str) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let own = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_| async {
                let pieces = futures::stream::unfold(0_u64, |n| async move {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let piece = Frame::data(Bytes::from(format!("{n}\n")));
                    Some((Ok::<_, std::convert::Infallible>(piece), n + 1))
                });
                Ok::<_, std::convert::Infallible>(http::Response::new(StreamBody::new(pieces)))
            });
            let serve = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serve);
        }
    });
    own
}

/// What a revision is for a gateway: its ControllerRevision and the address of its server.
async fn revision(place: &Place, uid: &str, hash: &str, server: SocketAddr) {
    let name = format!("m-{hash}");
    let owner = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "name": "m", "uid": uid, "controller": true});
    let server_spec =
        json!({"protocol": "HTTP", "template": {"spec": {"containers": [{"name": "server"}]}}});
    for object in [
        json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {"name": name, "namespace": place.namespace, "ownerReferences": [owner]},
            "revision": 1, "data": {"model": {"uri": "s3://x", "version": hash}, "server": server_spec, "helperImage": "h"},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": place.namespace, "labels": {"kubernetes.io/service-name": name}, "ownerReferences": [owner]},
            "ports": [{"name": "http", "port": server.port()}],
            "endpoints": [{"addresses": [server.ip()], "conditions": {"ready": true}}],
        }),
    ] {
        place.create(&object).await.unwrap();
    }
}

async fn get(address: SocketAddr, path: &str) -> http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "m")
        .body(http_body_util::Empty::<Bytes>::new())
        .unwrap();
    sender.send_request(request).await.unwrap()
}

/// The epoch of the only release that a gateway serves.
async fn epoch(admin: SocketAddr) -> i64 {
    let answer = get(admin, "/epochs").await.into_body().collect().await;
    let epochs: Value = serde_json::from_slice(&answer.unwrap().to_bytes()).unwrap();
    let releases = epochs["releases"].as_object().unwrap().values();
    releases
        .filter_map(|r| r["epoch"].as_i64())
        .max()
        .unwrap_or_default()
}

#[test]
fn every_gateway_serves_a_weight_within_half_a_second_and_no_stream_breaks() {
    on_cluster(|place| async move {
        let container = json!({"name": "server", "image": "registry.example/server:1"});
        let release = place
            .create(&json!({
                "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m", "namespace": place.namespace},
                "spec": {"server": {"template": {"spec": {"containers": [container]}}}},
            }))
            .await
            .unwrap();
        let uid = release["metadata"]["uid"].as_str().unwrap();
        let node = std::env::var("NODE_IP").unwrap_or_else(|_| "198.18.0.1".to_owned());
        for hash in ["aaaaaaaaaa", "bbbbbbbbbb"] {
            revision(&place, uid, hash, streaming(&node).await).await;
        }
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap().port()
        };
        let mut gateways = Vec::new();
        for number in 0..GATEWAYS {
            let gateway = Gateway::start(Settings {
                address: Some(format!("127.0.77.{}", number + 1).parse().unwrap()),
                shared_port: 0,
                internal_port: 0,
                admin_port: 0,
                leave: Duration::ZERO,
                drain: Duration::ZERO,
                hand_over: Duration::ZERO,
                ..Settings::default()
            })
            .await
            .unwrap();
            let (client, namespace, changes) = (
                place.client.clone(),
                place.namespace.clone(),
                gateway.changes(),
            );
            tokio::spawn(async move { watch::watch(client, &namespace, &changes).await });
            gateways.push(gateway);
        }
        let admins: Vec<SocketAddr> = gateways.iter().map(|g| g.admin_address).collect();
        let api = place.api("perennial.dev/v1alpha1", "ModelDeployment");
        let write = |weight: usize, epoch: usize| {
            let api = api.clone();
            async move {
                let mut object: DynamicObject = api.get("m").await.unwrap();
                object.data["status"] = json!({
                    "stable": {"revision": "aaaaaaaaaa", "version": "a"}, "candidate": {"revision": "bbbbbbbbbb", "version": "b"},
                    "rollout": {"weight": weight, "epoch": epoch}, "gateway": {"port": port},
                });
                let began = Instant::now();
                api.replace_status("m", &PostParams::default(), &object)
                    .await
                    .unwrap();
                began
            }
        };
        write(50, 1).await;
        for admin in &admins {
            eventually("the first routing is served", || async {
                (epoch(*admin).await >= 1).then_some(())
            })
            .await;
        }

        // Streams on both sides, open all the while.
        let pieces = Arc::new(AtomicU64::new(0));
        let mut streams = Vec::new();
        for gateway in 0..GATEWAYS {
            for _ in 0..8 {
                let answer = get(
                    format!("127.0.77.{}:{port}", gateway + 1).parse().unwrap(),
                    "/",
                )
                .await;
                assert_eq!(answer.status(), 200);
                let pieces = pieces.clone();
                streams.push(tokio::spawn(async move {
                    let mut body = answer.into_body().into_data_stream();
                    while let Some(piece) = body.next().await {
                        assert!(piece.is_ok(), "a stream broke: {piece:?}");
                        pieces.fetch_add(1, Ordering::Relaxed);
                    }
                }));
            }
        }

        let mut took = Vec::new();
        for change in 2..2 + CHANGES {
            let began = write(change * 37 % 101, change).await;
            let wanted = i64::try_from(change).unwrap();
            let each = admins.iter().map(|admin| async move {
                while epoch(*admin).await < wanted {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                began.elapsed()
            });
            took.extend(futures::future::join_all(each).await);
        }
        let open = streams.iter().filter(|s| !s.is_finished()).count();
        assert_eq!(open, streams.len(), "streams that broke");
        assert!(pieces.load(Ordering::Relaxed) > 100);
        took.sort();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        println!(
            "{} changes seen by {GATEWAYS} gateways, from the write to the routing: p50 {:?}, p90 {:?}, p99 {:?}, longest {:?}; {} streams stayed open",
            CHANGES,
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
            streams.len()
        );
        assert!(at(0.99) < LIMIT, "p99 is {:?}", at(0.99));
        for stream in streams {
            stream.abort();
        }
    });
}
