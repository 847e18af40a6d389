//! TLS to callers and to servers. `certificates/`: an authority, and by it one for `m` and `localhost`, for a hundred years.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use perennial::gateway::{certificates::Certificates, objects::Source};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::harness::*;

/// Puts the Secrets where the cluster would mount them.
pub fn mount(credentials: &Path, secret: &str, keys: &[&str]) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/certificates");
    let to = credentials.join(secret);
    std::fs::create_dir_all(&to).unwrap();
    for key in keys {
        std::fs::copy(from.join(key), to.join(key)).unwrap();
    }
}

/// TLS on a connection, for either protocol.
pub async fn handshake(
    stream: TcpStream,
    trusted: &Certificates,
    http2: bool,
) -> TlsStream<TcpStream> {
    let config = trusted.client("ca", http2).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .unwrap()
}

/// One call over TLS: status, and the body.
async fn secure(port: u16, trusted: &Certificates, http2: bool) -> (u16, Bytes) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let stream = handshake(stream, trusted, http2).await;
    let agreed = stream.get_ref().1.alpn_protocol();
    let wanted: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    assert_eq!(agreed, Some(wanted), "the protocol is agreed on by ALPN");
    let request = http::Request::get("https://localhost/").header("host", "localhost");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let answer = if http2 {
        let io = TokioIo::new(stream);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let status = answer.status().as_u16();
    (
        status,
        answer.into_body().collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn callers_speak_tls_as_soon_as_the_certificate_is_mounted() {
    let state = tempfile::tempdir().unwrap();
    let credentials = state.path().join("credentials");
    let gateway = Harness::start(settings(Some(state.path()))).await;
    let seen = Seen::default();
    let noting = {
        let seen = seen.clone();
        server(move |request| {
            let seen = seen.clone();
            async move {
                seen.note(request).await;
                Response::new("stable".into())
            }
        })
        .await
    };
    gateway.model(&[noting], &[]).await;
    let tls = json!({"tls": {"secretName": "web"}});
    gateway.traffic_policy(0, 1, tls).await;
    let problem = gateway.epochs().await.releases[UID]
        .problem
        .clone()
        .unwrap();
    assert!(
        problem.starts_with("CredentialsMissing") && problem.contains("`tls.crt` of Secret web"),
        "{problem}"
    );
    mount(&credentials, "web", &["tls.crt", "tls.key"]);
    mount(&credentials, "ca", &["ca.crt"]);
    let trusted = Certificates::new(&credentials);
    for http2 in [false, true] {
        let (status, body) = secure(gateway.port, &trusted, http2).await;
        assert_eq!((status, &body[..]), (200, &b"stable"[..]));
        assert_eq!(seen.last().0.headers["x-forwarded-proto"], "https");
    }
    assert_eq!(gateway.epochs().await.releases[UID].problem, None);
    assert!(
        client().request(get(gateway.url("/"))).await.is_err(),
        "plain HTTP isn't answered"
    );
}

/// A server behind TLS that says its name.
async fn secure_server(certificates: &Certificates) -> SocketAddr {
    let acceptor = TlsAcceptor::from(certificates.server("server").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(async |_| {
                    let body = Full::new(Bytes::from_static(b"secure"));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_speaks_tls_is_believed_only_by_its_authority_and_name() {
    let state = tempfile::tempdir().unwrap();
    let credentials = state.path().join("credentials");
    mount(&credentials, "server", &["tls.crt", "tls.key"]);
    let certificates = Arc::new(Certificates::new(&credentials));
    let gateway = Harness::start(settings(Some(state.path()))).await;
    let address = secure_server(&certificates).await;
    gateway.model(&[address], &[address]).await;
    let mut revision = model_revision(STABLE, "HTTP");
    revision["data"]["server"]["tls"] = json!({"caSecretName": "ca"});
    gateway.put(Source::Revisions, revision.clone()).await;
    gateway.weight(0, 1).await;
    let answer = gateway.get("/", None).await;
    assert_eq!(answer.status, 503);
    let sentence = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(sentence.contains("`ca.crt` of Secret ca"), "{sentence}");
    let problem = gateway.epochs().await.releases[UID].problem.clone();
    assert!(problem.unwrap().contains("`ca.crt` of Secret ca"));
    mount(&credentials, "ca", &["ca.crt"]);
    // The release's own name, `m`, is in the certificate.
    let answer = gateway.get("/", None).await;
    assert_eq!((answer.status, answer.text()), (200, "secure"));
    revision["data"]["server"]["tls"]["serverName"] = json!("another");
    gateway.put(Source::Revisions, revision).await;
    gateway.weight(0, 2).await;
    let answer = gateway.get("/", None).await;
    // A connection that was made under the other name may still be idle: it is of another revision, so it is not used.
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.text().contains("certificate"), "{answer:?}");
}
