//! Connections to endpoints, and sending over them: kept alive for HTTP/1.1, shared for HTTP/2. What was surely not sent comes
//! back to be sent elsewhere.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{body::Body, certificates::Trust};

/// Shorter than the five seconds after which Python's servers close an idle connection, as a request that meets the close is lost.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections to one endpoint.
const MAX_IDLE: usize = 256;
/// A connection whose last answer was read is ready again at once, or is broken.
const READY: Duration = Duration::from_millis(20);
/// A shared connection is asked so often whether the other end is there, and so long is waited for its word.
const PING: Duration = Duration::from_secs(10);

/// An endpoint, and whose certificate it showed.
type Place = (SocketAddr, Option<ServerName<'static>>);
/// Connections and since when they are idle, by endpoint.
type Idle = HashMap<Place, Vec<(http1::SendRequest<Body>, Instant)>>;
/// The HTTP/2 connection of each endpoint, and when it was used last.
type Multiplexed = HashMap<Place, (http2::SendRequest<Body>, Instant)>;

/// Where a request goes.
pub struct Target {
    /// The endpoint.
    pub address: SocketAddr,
    /// Whether it is spoken to in HTTP/2, without asking first.
    pub http2: bool,
    /// TLS to it.
    pub trust: Option<Trust>,
    /// Wait for a connection.
    pub connect: Duration,
}

impl Target {
    fn place(&self) -> Place {
        let name = self.trust.as_ref().map(|trust| trust.name.clone());
        (self.address, name)
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connections by endpoint.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Idle>,
    multiplexed: Mutex<Multiplexed>,
}

/// A connection in use; give it back when the answer was read to its end.
pub struct Lease(Option<(Arc<Pool>, Place, http1::SendRequest<Body>)>);

/// Why there is no answer.
pub enum Failure {
    /// Nothing was sent: the request, and why.
    Unsent(Box<Request<Body>>, String),
    /// It was sent, perhaps in part: why.
    Sent(String),
}

type Sent = Result<(Response<Incoming>, Lease), Failure>;

impl Pool {
    /// An empty pool, and the task that closes what was idle for too long.
    pub fn start() -> Arc<Self> {
        let pool = Arc::new(Self::default());
        let weak = Arc::downgrade(&pool);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE / 2).await;
                let Some(pool) = weak.upgrade() else { return };
                pool.sweep();
            }
        });
        pool
    }

    /// Sends a request to an endpoint, over a connection that is there where there is one.
    ///
    /// # Errors
    /// Whether anything was sent, and why it failed.
    pub async fn send(self: &Arc<Self>, target: &Target, request: Request<Body>) -> Sent {
        match target.http2 {
            true => self.send_http2(target, request).await,
            false => self.send_http1(target, request).await,
        }
    }

    async fn send_http1(self: &Arc<Self>, target: &Target, mut request: Request<Body>) -> Sent {
        let (address, place) = (target.address, target.place());
        while let Some(mut sender) = self.take(&place).await {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, self.lease(place, sender))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent, // It was closed meanwhile.
                    None => return Err(Failure::Sent(describe(address, error.error()))),
                },
            }
        }
        let connection = async {
            let stream = connect(target).await?;
            let handshake = http1::handshake(TokioIo::new(stream)).await;
            handshake.map_err(|e| describe(address, &e))
        };
        let (mut sender, connection) = match within(target, connection).await {
            Ok(pair) => pair,
            Err(why) => return Err(Failure::Unsent(Box::new(request), why)),
        };
        tokio::spawn(connection); // Its errors reach the request that is on it.
        match sender.try_send_request(request).await {
            Ok(answer) => Ok((answer, self.lease(place, sender))),
            Err(error) => Err(failure(address, error)),
        }
    }

    async fn send_http2(&self, target: &Target, mut request: Request<Body>) -> Sent {
        let (address, place) = (target.address, target.place());
        if let Some(mut sender) = self.shared(&place) {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, Lease(None))),
                // It went away meanwhile.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Sent(describe(address, error.error()))),
                },
            }
        }
        let connection = async {
            let stream = connect(target).await?;
            let handshake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .handshake(TokioIo::new(stream));
            handshake.await.map_err(|e| describe(address, &e))
        };
        let (mut sender, connection) = match within(target, connection).await {
            Ok(pair) => pair,
            Err(why) => return Err(Failure::Unsent(Box::new(request), why)),
        };
        tokio::spawn(connection);
        self.multiplexed()
            .insert(place, (sender.clone(), Instant::now()));
        match sender.try_send_request(request).await {
            Ok(answer) => Ok((answer, Lease(None))),
            Err(error) => Err(failure(address, error)),
        }
    }

    fn lease(self: &Arc<Self>, place: Place, sender: http1::SendRequest<Body>) -> Lease {
        Lease(Some((self.clone(), place, sender)))
    }

    async fn take(&self, place: &Place) -> Option<http1::SendRequest<Body>> {
        loop {
            let (mut sender, since) = self.idle().get_mut(place)?.pop()?;
            if since.elapsed() > IDLE || sender.is_closed() {
                continue;
            }
            if sender.is_ready()
                || matches!(
                    tokio::time::timeout(READY, sender.ready()).await,
                    Ok(Ok(()))
                )
            {
                return Some(sender);
            }
        }
    }

    fn shared(&self, place: &Place) -> Option<http2::SendRequest<Body>> {
        let mut all = self.multiplexed();
        let (sender, used) = all.get_mut(place)?;
        *used = Instant::now();
        (!sender.is_closed()).then(|| sender.clone())
    }

    fn sweep(&self) {
        self.idle().retain(|_, senders| {
            senders.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
            !senders.is_empty()
        });
        // What is on them still ends: a connection goes when the last that uses it does.
        self.multiplexed()
            .retain(|_, (sender, used)| !sender.is_closed() && used.elapsed() < 8 * IDLE);
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn multiplexed(&self) -> MutexGuard<'_, Multiplexed> {
        self.multiplexed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(target: &Target) -> Result<Box<dyn Stream>, String> {
    let address = target.address;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| describe(address, &e))?;
    // Nagle's algorithm against delayed ACK costs 40 ms on short streams.
    stream
        .set_nodelay(true)
        .map_err(|e| describe(address, &e))?;
    let Some(trust) = &target.trust else {
        return Ok(Box::new(stream));
    };
    let connector = TlsConnector::from(trust.config.clone());
    let stream = connector.connect(trust.name.clone(), stream).await;
    Ok(Box::new(stream.map_err(|e| describe(address, &e))?))
}

async fn within<T>(
    target: &Target,
    connection: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match tokio::time::timeout(target.connect, connection).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "{}: no connection in {:?}",
            target.address, target.connect
        )),
    }
}

fn failure(address: SocketAddr, mut error: TrySendError<Request<Body>>) -> Failure {
    match error.take_message() {
        Some(unsent) => Failure::Unsent(Box::new(unsent), describe(address, error.error())),
        None => Failure::Sent(describe(address, error.error())),
    }
}

/// With the cause: `connection closed before message completed` rather than `client error`.
fn describe(address: SocketAddr, error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{address}: {error}: {cause}"),
        None => format!("{address}: {error}"),
    }
}

impl Lease {
    /// Gives the connection back.
    pub fn give_back(self) {
        let Some((pool, place, sender)) = self.0 else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        let mut idle = pool.idle();
        let senders = idle.entry(place).or_default();
        if senders.len() < MAX_IDLE {
            senders.push((sender, Instant::now()));
        }
    }
}
