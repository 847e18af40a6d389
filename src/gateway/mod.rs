//! The data plane: one small proxy for each namespace. It splits traffic exactly, renders prompts, and measures.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`objects`] | what is needed of the cluster's objects, and what is kept on disk |
//! | [`table`], [`route`] | routing, pure: objects → table → who is served by which revision |
//! | [`keeper`], [`watch`] | the task that takes changes in and swaps the table; the watches that feed it |
//! | [`listen`], [`heads`], [`proxy`], [`pool`], [`body`] | from a caller's connection to an endpoint's and back, nothing gathered on the way |
//! | [`policy`], [`breaker`], [`signature`], [`certificates`] | what a release's `spec.traffic` says of its callers and pods |
//! | [`open_inference`], [`protobuf`], [`tensors`] | what is read of gRPC calls, and of tensors in whatever form |
//! | [`prompt`] | PromptReleases: an OpenAI-compatible endpoint |
//! | [`tally`], [`record`], [`features`], [`inputs`], [`predictions`], [`compare`], [`late`] | measuring, never in the way of a request |
//! | [`log`] | requests and answers as files in an object store |
//! | [`pairs`] | copied requests with both answers, for Evaluations that listen |
//! | [`admin`], [`telemetry`] | what the operator and Prometheus read |
//!
//! It serves, and restarts, without the API server: the table is on disk. An epoch is reported as served only once callers are
//! routed by it.

pub mod admin;
pub mod answer;
pub mod body;
pub mod breaker;
pub mod certificates;
pub mod compare;
pub mod features;
pub mod feedback;
pub mod heads;
pub mod inputs;
pub mod keeper;
pub mod late;
pub mod listen;
pub mod log;
pub mod objects;
pub mod open_inference;
pub mod pairs;
pub mod policy;
pub mod pool;
pub mod predictions;
pub mod prompt;
pub mod protobuf;
pub mod proxy;
pub mod record;
pub mod route;
pub mod signature;
pub mod table;
pub mod tally;
pub mod telemetry;
pub mod tensors;
pub mod watch;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::serve::ListenerExt;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch as watch_channel},
    task::JoinHandle,
};
use tracing::info;

use self::{
    certificates::Certificates,
    features::Features,
    feedback::Feedback,
    keeper::Keeper,
    listen::Listeners,
    log::Log,
    objects::Change,
    pairs::Pairs,
    pool::Pool,
    prompt::{Backends, credentials::Credentials, reach::Reach},
    proxy::Entry,
    record::Recorder,
    table::{Release, Table},
    telemetry::{Meters, Telemetry},
};
use crate::api::{
    GATEWAY_ADMIN_PORT, GATEWAY_INTERNAL_PORT, GATEWAY_MIRRORED_PORT, GATEWAY_SHARED_PORT,
};

/// How `perennial gateway` is started; everything has its default in a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Namespace whose releases are served.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Directory where the routing table is kept.
    #[arg(long, env = "PERENNIAL_STATE_DIR", default_value = "/perennial/state")]
    pub state_dir: PathBuf,
    /// Directory with credentials of prompt backends and certificates: `<directory>/<secret>/<key>`.
    #[arg(
        long,
        env = "PERENNIAL_CREDENTIALS_DIR",
        default_value = "/perennial/credentials"
    )]
    pub credentials_dir: PathBuf,
    /// Address to listen on; all of them when absent.
    #[arg(long, env = "PERENNIAL_LISTEN_ADDRESS")]
    pub address: Option<IpAddr>,
    /// Seconds that a model server has to begin its answer.
    #[arg(long, env = "PERENNIAL_RESPONSE_TIMEOUT", default_value_t = 60)]
    pub response_timeout: u64,
    /// Longest body of a request to a model, in MiB.
    #[arg(long, env = "PERENNIAL_MAX_BODY", default_value_t = 64)]
    pub max_body: u64,
}

/// How a gateway runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the table is kept; `None`: nowhere.
    pub state: Option<PathBuf>,
    /// Credentials of prompt backends, and certificates.
    pub credentials: PathBuf,
    /// Address to listen on; all of them when absent.
    pub address: Option<IpAddr>,
    /// The port that all releases share; 0: any.
    pub shared_port: u16,
    /// The port where revisions have an address; 0: any.
    pub internal_port: u16,
    /// The admin port; 0: any.
    pub admin_port: u16,
    /// The port for pods that measure copied requests; 0: any.
    pub mirrored_port: u16,
    /// Limits.
    pub limits: Limits,
    /// How long it keeps taking connections after it was told to leave.
    pub leave: Duration,
    /// How long open requests have after that.
    pub drain: Duration,
    /// How long the operator has to read the last measurements after that.
    pub hand_over: Duration,
}

/// Limits on requests to models.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: u64,
    /// Wait for a connection to an endpoint.
    pub connect: Duration,
    /// Wait for an answer to begin.
    pub response: Duration,
    /// Wait for the head of an HTTP/1.1 request to be whole, from its first byte.
    pub head: Duration,
    /// Wait for the first byte of the next request on a connection. A request that is on its way when we close is lost, so it is the callers who close:
    /// they keep idle connections for 90 s (Go, hyper) or some minutes.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            connect: Duration::from_secs(2),
            response: Duration::from_secs(60),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(600),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state: None,
            credentials: "/perennial/credentials".into(),
            address: None,
            shared_port: GATEWAY_SHARED_PORT,
            internal_port: GATEWAY_INTERNAL_PORT,
            admin_port: GATEWAY_ADMIN_PORT,
            mirrored_port: GATEWAY_MIRRORED_PORT,
            limits: Limits::default(),
            // Nodes learn within a second or two that this pod is leaving; and whoever keeps a connection is told to close it.
            leave: Duration::from_secs(8),
            drain: Duration::from_secs(60),
            hand_over: Duration::from_secs(16),
        }
    }
}

/// What all requests share.
pub struct Shared {
    table: RwLock<Arc<Table>>,
    pool: Arc<Pool>,
    backends: Backends,
    reach: Reach,
    credentials: Credentials,
    certificates: Certificates,
    recorder: Arc<Recorder>,
    feedback: Feedback,
    features: Features,
    log: Arc<Log>,
    telemetry: Telemetry,
    /// Where the turns of callers without a key begin: elsewhere in each process.
    start: u64,
    /// Places for copies of requests.
    mirrors: Arc<Semaphore>,
    /// Who listens to what became of copies.
    pairs: Pairs,
    limits: Limits,
    ready: AtomicBool,
    started: Instant,
    /// Set when the process was told to leave.
    leaving: watch_channel::Sender<bool>,
    /// Whether anybody ever read the buckets.
    was_read: AtomicBool,
    handed_over: Notify,
}

impl Shared {
    fn table(&self) -> Arc<Table> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_table(&self, table: Arc<Table>) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// The place of the next caller of this release that has no key.
    fn next_place(&self, release: &Release) -> u64 {
        route::place(self.start, release.turns.fetch_add(1, Ordering::Relaxed))
    }

    /// A release's metrics.
    fn meters<'a>(&self, release: &'a Release) -> &'a Meters {
        let make = || self.telemetry.meters(release.kind, &release.name);
        release.meters.get_or_init(make)
    }

    /// Milliseconds since the start: by these, pods are left out for a while.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX >> 1)
    }
}

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port can't be opened, or a thread not started.
    #[error("the gateway can't start: {0}")]
    Io(#[from] io::Error),
    /// A metric is defined twice.
    #[error("the gateway's metrics are inconsistent: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The TLS library can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    settings: Settings,
    changes: mpsc::Sender<Change>,
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<Listeners>,
    admin: JoinHandle<()>,
    mirrored: JoinHandle<()>,
    /// Where the shared port listens.
    pub shared_address: SocketAddr,
    /// Where the internal port listens.
    pub internal_address: SocketAddr,
    /// Where the admin port listens.
    pub admin_address: SocketAddr,
    /// Where the port for pods that measure copied requests listens.
    pub mirrored_address: SocketAddr,
}

impl Gateway {
    /// Starts serving what is on disk; the rest comes by [`Gateway::changes`].
    ///
    /// # Errors
    /// If a port is taken.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let recorder = Arc::new(Recorder::new(process_name()));
        let log = Log::new(recorder.process(), &settings.credentials);
        log.start();
        let connector = prompt::connector(settings.limits.connect)?;
        let shared = Arc::new(Shared {
            table: RwLock::default(),
            pool: Pool::start(),
            backends: prompt::backends(connector.clone()),
            reach: Reach::new(connector),
            credentials: Credentials::new(&settings.credentials),
            certificates: Certificates::new(&settings.credentials),
            features: Features::start(recorder.clone(), log.clone())?,
            log,
            recorder,
            feedback: Feedback::default(),
            telemetry: Telemetry::new()?,
            start: proxy::random(),
            mirrors: Arc::new(Semaphore::new(proxy::mirror::MOST)),
            pairs: Pairs::default(),
            limits: settings.limits,
            ready: AtomicBool::new(false),
            started: Instant::now(),
            leaving: watch_channel::Sender::new(false),
            was_read: AtomicBool::new(false),
            handed_over: Notify::new(),
        });
        Reach::start(&shared);
        let open = async |port| listen::bind(settings.address, port).await;
        let (common, internal, admin, mirrored) = (
            open(settings.shared_port).await?,
            open(settings.internal_port).await?,
            open(settings.admin_port).await?,
            open(settings.mirrored_port).await?,
        );
        let addresses = (
            common.local_addr()?,
            internal.local_addr()?,
            admin.local_addr()?,
            mirrored.local_addr()?,
        );
        let mut listeners = Listeners::new(shared.clone(), settings.address);
        listeners.serve(common, Entry::Shared);
        listeners.serve(internal, Entry::Internal);
        let router = admin::router(shared.clone());
        // A socket that closed meanwhile is found out by the first read.
        let admin = admin.tap_io(|stream| drop(stream.set_nodelay(true)));
        let admin = tokio::spawn(async move {
            // Serves until the task is ended.
            let _ = axum::serve(admin, router).await;
        });
        let router = pairs::router(shared.clone());
        let mirrored = tokio::spawn(async move {
            let _ = axum::serve(mirrored, router).await;
        });
        let (changes, receiver) = mpsc::channel(4096);
        let (stop, stopped) = oneshot::channel();
        let keeper = Keeper::start(shared.clone(), listeners, settings.state.clone()).await;
        Ok(Self {
            shared,
            settings,
            changes,
            stop,
            keeper: tokio::spawn(keeper.run(receiver, stopped)),
            admin,
            mirrored,
            shared_address: addresses.0,
            internal_address: addresses.1,
            admin_address: addresses.2,
            mirrored_address: addresses.3,
        })
    }

    /// Where changes of the cluster go in.
    pub fn changes(&self) -> mpsc::Sender<Change> {
        self.changes.clone()
    }

    /// Leaves: not ready any more at once, takes connections for a while yet and asks for each to be closed after its answer, lets
    /// open requests end, and hands the last measurements over.
    pub async fn stop(self) {
        self.shared.leaving.send_replace(true);
        tokio::time::sleep(self.settings.leave).await;
        // It is gone only if the keeper is, which is what we want.
        let _ = self.stop.send(());
        if let Ok(listeners) = self.keeper.await {
            listeners.drain(self.settings.drain).await;
        }
        let longest = self.settings.hand_over;
        let read = async {
            if self.shared.was_read.load(Ordering::Relaxed) {
                let read = self.shared.handed_over.notified();
                let _ = tokio::time::timeout(longest, read).await;
            }
        };
        let logged = async {
            let looked_at = async {
                while !self.shared.features.is_idle() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let _ = tokio::time::timeout(longest / 4, looked_at).await;
            self.shared.log.flush(longest / 4 * 3).await;
        };
        tokio::join!(read, logged);
        self.admin.abort();
        self.mirrored.abort();
    }
}

/// A name that no other process has: start time and randomness.
fn process_name() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let now = jiff::Timestamp::now().as_second();
    format!("{now}-{:016x}", RandomState::new().build_hasher().finish())
}

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// If it can't start.
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let settings = Settings {
        state: Some(args.state_dir),
        credentials: args.credentials_dir,
        address: args.address,
        limits: Limits {
            body: args.max_body << 20,
            response: Duration::from_secs(args.response_timeout),
            ..Limits::default()
        },
        ..Settings::default()
    };
    let gateway = Gateway::start(settings).await?;
    let watches = tokio::spawn(watch::run(args.namespace, gateway.changes()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("leaving: open requests may end");
    gateway.stop().await;
    watches.abort();
    Ok(ExitCode::SUCCESS)
}
