//! The server, and the gateway in front of it. Both print their address and serve until their standard input ends.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use perennial::gateway::{
    Gateway, Limits, Settings,
    objects::{Change, Source},
};
use serde_json::{Value, json};

const ANSWER: &[u8] =
    br#"{"outputs":[{"name":"late","shape":[1],"datatype":"FP64","data":[0.25]}]}"#;

/// A model server that answers at once.
pub async fn server() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let answer = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                request.into_body().collect().await?;
                let answer = http::Response::builder().header("content-type", "application/json");
                let answer = answer.body(Full::new(Bytes::from_static(ANSWER)));
                Ok::<_, hyper::Error>(answer.expect("an answer"))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(connection);
        }
    });
    until_told().await;
}

/// The gateway with one release: a candidate with 10 % of callers, whose both sides are that server.
pub async fn gateway(server: SocketAddr) {
    let port = free_port().await;
    let gateway = Gateway::start(Settings {
        address: Some(Ipv4Addr::LOCALHOST.into()),
        shared_port: 0,
        internal_port: 0,
        admin_port: 0,
        leave: Duration::ZERO,
        limits: Limits::default(),
        ..Settings::default()
    })
    .await
    .expect("the gateway starts");
    tell(&gateway, server, port).await;
    println!("127.0.0.1:{port}");
    until_told().await;
    gateway.stop().await;
}

async fn until_told() {
    let read = || std::io::stdin().read(&mut [0]);
    let _ = tokio::task::spawn_blocking(read).await;
}

async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn tell(gateway: &Gateway, server: SocketAddr, port: u16) {
    let owner = json!([{"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "name": "m", "uid": "u", "controller": true}]);
    let revision = |hash: &str| {
        json!({"metadata": {"name": format!("m-{hash}"), "ownerReferences": owner}, "data": {
            "model": {"uri": "x", "signature": {"features": [{"name": "temp", "type": "Number"}, {"name": "carrier", "type": "String"}]}},
            "server": {"template": {"spec": {"containers": [{"name": "server"}]}}}, "helperImage": "h"}})
    };
    let slice = |hash: &str| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("m-{hash}-1"), "labels": {"kubernetes.io/service-name": format!("m-{hash}")}},
            "ports": [{"port": server.port()}], "endpoints": [{"addresses": [server.ip()]}]})
    };
    let release = json!({"metadata": {"name": "m", "uid": "u"}, "status": {
        "stable": {"revision": "aaaaaaaaaa"}, "candidate": {"revision": "bbbbbbbbbb"},
        "rollout": {"weight": 10, "epoch": 1}, "gateway": {"port": port}}});
    let mut all = vec![(Source::Models, release)];
    for hash in ["aaaaaaaaaa", "bbbbbbbbbb"] {
        all.push((Source::Revisions, revision(hash)));
        all.push((Source::Endpoints, slice(hash)));
    }
    for (source, object) in all {
        put(gateway, source, object).await;
    }
}

async fn put(gateway: &Gateway, source: Source, object: Value) {
    let object = Box::new(serde_json::from_value(object).expect("an object"));
    gateway
        .changes()
        .send(Change::Put(source, object))
        .await
        .expect("the gateway runs");
}
