//! Listeners: the shared and the internal port, and one for each release, opened and closed as the table says.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Shared,
    heads::Listened,
    proxy::{self, Entry, Peer},
};

/// Longest wait for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest head of a request.
const MAX_HEAD: usize = 64 << 10;
/// Headers in a request at most.
const MAX_HEADERS: usize = 128;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// The open listeners.
pub struct Listeners {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
    /// Set when connections are asked to end; each holds a receiver while it is open.
    draining: watch::Sender<bool>,
    releases: HashMap<u16, JoinHandle<()>>,
    fixed: Vec<JoinHandle<()>>,
}

/// Opens a listener on all addresses, of both families where the system has them, or on the one given.
///
/// # Errors
/// If the port is taken, or may not be opened.
pub async fn bind(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match address {
        Some(ip) => TcpListener::bind(SocketAddr::new(ip, port)).await,
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
            listener => listener,
        },
    }
}

impl Listeners {
    /// No listener yet.
    pub fn new(shared: Arc<Shared>, address: Option<IpAddr>) -> Self {
        Self {
            shared,
            address,
            draining: watch::Sender::new(false),
            releases: HashMap::new(),
            fixed: Vec::new(),
        }
    }

    /// Serves a listener until the end.
    pub fn serve(&mut self, listener: TcpListener, entry: Entry) {
        let task = self.accept(listener, entry);
        self.fixed.push(task);
    }

    /// Opens the ports that are not open, and closes those that are not wanted any more; their connections go on. A port that
    /// can't be opened is tried again at the next call, and named in the answer.
    pub async fn set_ports(&mut self, ports: impl Iterator<Item = u16>) -> Vec<(u16, io::Error)> {
        let wanted: std::collections::BTreeSet<u16> = ports.collect();
        self.releases.retain(|port, task| {
            let keep = wanted.contains(port);
            if !keep {
                task.abort();
            }
            keep
        });
        let mut failed = Vec::new();
        for port in wanted {
            if self.releases.contains_key(&port) {
                continue;
            }
            match bind(self.address, port).await {
                Ok(listener) => {
                    let task = self.accept(listener, Entry::Release(port));
                    self.releases.insert(port, task);
                }
                Err(error) => failed.push((port, error)),
            }
        }
        failed
    }

    fn accept(&self, listener: TcpListener, entry: Entry) -> JoinHandle<()> {
        let shared = self.shared.clone();
        let draining = self.draining.subscribe();
        tokio::spawn(accept(listener, entry, shared, draining))
    }

    /// Takes no more connections, asks the open ones to end after the requests that are on them, and waits for that at most so
    /// long.
    pub async fn drain(self, longest: Duration) {
        for task in self.releases.into_values().chain(self.fixed) {
            task.abort();
        }
        self.draining.send_replace(true);
        // What is still open after that is cut when the process ends.
        let _ = tokio::time::timeout(longest, self.draining.closed()).await;
    }
}

async fn accept(
    listener: TcpListener,
    entry: Entry,
    shared: Arc<Shared>,
    draining: watch::Receiver<bool>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(_) => {
                // Out of file descriptors, or the caller was gone already.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            continue; // It was closed already.
        }
        let shared = shared.clone();
        let draining = draining.clone();
        let secret = match entry {
            Entry::Release(port) => shared
                .table()
                .by_port(port)
                .and_then(|r| r.policy.tls.clone()),
            Entry::Shared | Entry::Internal => None,
        };
        let address = peer.ip();
        tokio::spawn(async move {
            shared.telemetry.connections.inc();
            match secret {
                None => {
                    let peer = Peer {
                        address,
                        secure: false,
                    };
                    serve(&shared, entry, peer, stream, draining).await;
                }
                Some(secret) => {
                    let peer = Peer {
                        address,
                        secure: true,
                    };
                    // Without a certificate nothing can be said; the operator hears of it by the admin port.
                    if let Some(stream) = secured(&shared, &secret, stream).await {
                        serve(&shared, entry, peer, stream, draining).await;
                    }
                }
            }
            shared.telemetry.connections.dec();
        });
    }
}

/// The handshake; an error is the caller's.
async fn secured(shared: &Shared, secret: &str, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let config = shared.certificates.server(secret).ok()?;
    let handshake = TlsAcceptor::from(config).accept(stream);
    let done = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    done.ok()?.ok()
}

/// Serves a connection to its end.
async fn serve<S>(
    shared: &Arc<Shared>,
    entry: Entry,
    peer: Peer,
    stream: S,
    mut draining: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut leaving = shared.leaving.subscribe();
    let http2 = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: http::Request<Incoming>| {
        let (shared, http2) = (shared.clone(), http2.clone());
        async move {
            let is_http2 = request.version() == http::Version::HTTP_2;
            if is_http2 {
                http2.store(true, Ordering::Relaxed);
            }
            let mut answer = proxy::answer(&shared, entry, peer, request).await;
            if !is_http2 && shared.is_leaving() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let (stream, timer) = Listened::new(stream, &shared.limits);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(timer)
        .header_read_timeout(shared.limits.idle)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(Duration::from_secs(20));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let told = async {
        let _ = leaving.wait_for(|on| *on).await;
        // HTTP/2 tells the caller which requests were taken, and the others are sent elsewhere. An idle HTTP/1.1 connection that is
        // closed loses the request that is on its way: until the end, those are closed after an answer only.
        if !http2.load(Ordering::Relaxed) {
            let _ = draining.wait_for(|on| *on).await;
        }
    };
    // An error is the caller's: it went away, or what it sent was no HTTP.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = told => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
