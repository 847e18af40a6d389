//! Kept-alive connections to endpoints, and sending over them. What was surely not sent comes back to be sent elsewhere.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::Body;

/// Shorter than the five seconds after which Python's servers close an idle connection, as a request that meets the close is lost.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections to one endpoint.
const MAX_IDLE: usize = 256;
/// A connection whose last answer was read is ready again at once, or is broken.
const READY: Duration = Duration::from_millis(20);

/// Connections and since when they are idle, by endpoint.
type Idle = HashMap<SocketAddr, Vec<(SendRequest<Body>, Instant)>>;

/// Idle connections by endpoint.
pub struct Pool {
    idle: Mutex<Idle>,
    connect_timeout: Duration,
}

/// A connection in use; give it back when the answer was read to its end.
pub struct Lease {
    pool: Arc<Pool>,
    address: SocketAddr,
    sender: SendRequest<Body>,
}

/// Why there is no answer.
pub enum Failure {
    /// Nothing was sent: the request, and why.
    Unsent(Box<Request<Body>>, String),
    /// It was sent, perhaps in part: why.
    Sent(String),
}

impl Pool {
    /// An empty pool, and the task that closes what was idle for too long.
    pub fn start(connect_timeout: Duration) -> Arc<Self> {
        let pool = Arc::new(Self {
            idle: Mutex::default(),
            connect_timeout,
        });
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

    /// Sends a request to an endpoint, over an idle connection where there is one.
    ///
    /// # Errors
    /// Whether anything was sent, and why it failed.
    pub async fn send(
        self: &Arc<Self>,
        address: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        while let Some(mut sender) = self.take(address).await {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, self.lease(address, sender))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent, // It was closed meanwhile.
                    None => return Err(Failure::Sent(error.error().to_string())),
                },
            }
        }
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            // Nagle's algorithm against delayed ACK costs 40 ms on short streams.
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = match tokio::time::timeout(self.connect_timeout, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(Failure::Unsent(
                    Box::new(request),
                    format!("{address}: {error}"),
                ));
            }
            Err(_) => {
                let why = format!("{address}: no connection in {:?}", self.connect_timeout);
                return Err(Failure::Unsent(Box::new(request), why));
            }
        };
        let (mut sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
            Ok(pair) => pair,
            Err(error) => {
                return Err(Failure::Unsent(
                    Box::new(request),
                    format!("{address}: {error}"),
                ));
            }
        };
        tokio::spawn(connection); // Its errors reach the request that is on it.
        match sender.try_send_request(request).await {
            Ok(answer) => Ok((answer, self.lease(address, sender))),
            Err(mut error) => Err(match error.take_message() {
                Some(unsent) => {
                    Failure::Unsent(Box::new(unsent), format!("{address}: {}", error.error()))
                }
                None => Failure::Sent(format!("{address}: {}", error.error())),
            }),
        }
    }

    fn lease(self: &Arc<Self>, address: SocketAddr, sender: SendRequest<Body>) -> Lease {
        Lease {
            pool: self.clone(),
            address,
            sender,
        }
    }

    async fn take(&self, address: SocketAddr) -> Option<SendRequest<Body>> {
        loop {
            let (mut sender, since) = self.idle().get_mut(&address)?.pop()?;
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

    fn sweep(&self) {
        self.idle().retain(|_, senders| {
            senders.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
            !senders.is_empty()
        });
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Gives the connection back.
    pub fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.idle();
        let senders = idle.entry(self.address).or_default();
        if senders.len() < MAX_IDLE {
            senders.push((self.sender, Instant::now()));
        }
    }
}
