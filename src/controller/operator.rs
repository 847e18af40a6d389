//! The role `operator`: starts caches, election, servers and controllers, and stops them in order.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    evaluation::Evaluations,
    gateway::Gateways,
    model_deployment::{self, ModelDeployments},
    prompt_release::PromptReleases,
    round, shown,
    training_job::TrainingJobs,
};
use crate::{
    api::revision::ArtifactCache,
    cluster::{
        Caches, Kind, Settings, Shell,
        lease::{self, Leadership, Times},
        measure::Measure,
        prometheus::Sources,
        supervisor::Supervisors,
    },
    telemetry::{self, metrics, server},
};

/// Arguments of the operator.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Namespaces to work in, comma-separated; all when absent.
    #[arg(long, env = "PERENNIAL_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Image of our own containers: the one that this runs from.
    #[arg(long, env = "PERENNIAL_IMAGE", default_value_t = default_image())]
    image: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "PERENNIAL_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Work without a Lease; then nobody else may run.
    #[arg(long, env = "PERENNIAL_NO_LEADER_ELECTION")]
    no_leader_election: bool,
    /// Namespace of the Lease; the operator's own when absent.
    #[arg(long, env = "POD_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of the Lease.
    #[arg(long, default_value = "perennial-operator")]
    lease_name: String,
    /// Name of this process in the Lease and in Events.
    #[arg(long, env = "POD_NAME", default_value_t = default_identity())]
    identity: String,
    /// Reconciles at once, for each controller.
    #[arg(long, env = "PERENNIAL_CONCURRENCY", default_value_t = 4)]
    concurrency: usize,
    /// Pods of each namespace's gateway.
    #[arg(long, env = "PERENNIAL_GATEWAY_REPLICAS", default_value_t = 1)]
    gateway_replicas: i32,
    /// PersistentVolumeClaim (ReadWriteMany) in which pods of model servers share the artifacts that they fetch, in the namespaces that have it.
    #[arg(long, env = "PERENNIAL_ARTIFACT_CACHE_CLAIM")]
    artifact_cache_claim: Option<String>,
    /// GiB of artifacts that are kept in each volume of that claim.
    #[arg(long, env = "PERENNIAL_ARTIFACT_CACHE_GIB", default_value_t = 50)]
    artifact_cache_gib: u32,
    /// File that names the Prometheus servers that releases may ask: `{"sources": […]}`.
    #[arg(long, env = "PERENNIAL_PROMETHEUS_SOURCES")]
    prometheus_sources: Option<PathBuf>,
}

fn default_image() -> String {
    concat!("docker.io/perennial/perennial:", env!("CARGO_PKG_VERSION")).to_owned()
}

/// A name that no other process has, even in a second container of the same pod.
fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

/// Runs until SIGTERM, SIGINT, or the loss of leadership (exit code 1: a fresh process starts with clean caches).
///
/// # Errors
/// There is no cluster to talk to, or the address can't be listened on.
pub async fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let mut config = kube::Config::infer()
        .await
        .map_err(|e| format!("no cluster: neither a service account nor a kubeconfig: {e}"))?;
    // Retries of kube's client take minutes in one call; ours are per object, and visible.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    // Longer than a watch may be silent (`cluster::cache`): a list that hangs ends too.
    config.read_timeout = Some(Duration::from_secs(55));
    config
        .headers
        .push(crate::telemetry::user_agent("operator"));
    let own_namespace = config.default_namespace.clone();
    let client = |config: &kube::Config| {
        Client::try_from(config.clone())
            .map_err(|e| format!("the API server's address or credentials make no sense: {e}"))
    };
    let settings = Settings {
        image: arguments.image,
        namespaces: arguments.namespaces,
        artifact_cache: arguments
            .artifact_cache_claim
            .map(|claim_name| ArtifactCache {
                claim_name,
                bytes: u64::from(arguments.artifact_cache_gib) << 30,
            }),
        identity: arguments.identity,
        concurrency: arguments.concurrency,
        ..Settings::default()
    };
    let sources = match &arguments.prometheus_sources {
        Some(file) => Sources::read(file)?,
        None => Sources::default(),
    };
    let stop = CancellationToken::new();
    // The lease is given up last, when nothing writes any more.
    let last = CancellationToken::new();
    let caches = Caches::new(&settings.namespaces);
    let leadership = if arguments.no_leader_election {
        Leadership::always()
    } else {
        Leadership::none()
    };
    let shell = Shell::new(client(&config)?, caches, settings, leadership);

    let mut tasks = JoinSet::new();
    let listening = listen(arguments.listen, shell.caches.clone(), stop.clone());
    let mut server = tokio::spawn(listening);
    tokio::spawn(observe_metrics(shell.clone()));
    let (caches, leadership) = (shell.caches.clone(), shell.leadership.clone());
    telemetry::shown::show(move |page| {
        // The others know the same: each object is shown by one.
        if leadership.may_write() {
            shown::show(page, &caches);
        }
    });
    // Controllers subscribe before the watches start, so that no change is missed.
    let gateways = Gateways {
        replicas: arguments.gateway_replicas,
        operator_namespace: arguments.lease_namespace.clone(),
    };
    start(&shell, gateways, sources, &stop, &mut tasks);
    let watches = shell.caches.start(&shell.client, &stop);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        image = shell.settings.image,
        namespaces = shell.settings.namespaces.join(","),
        "started"
    );

    let election = async {
        if arguments.no_leader_election {
            last.cancelled().await;
            return lease::End::Stopped;
        }
        let client = match client(&config) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!("{error}");
                return lease::End::Lost;
            }
        };
        let namespace = arguments.lease_namespace.unwrap_or(own_namespace);
        let (name, identity) = (&arguments.lease_name, &shell.settings.identity);
        let leadership = shell.leadership.clone();
        lease::run(
            client,
            &namespace,
            name,
            identity,
            Times::default(),
            leadership,
            last.clone(),
        )
        .await
    };
    tokio::pin!(election);
    let code = tokio::select! {
        () = told_to_stop() => {
            tracing::info!("stopping");
            ExitCode::SUCCESS
        }
        end = &mut election => match end {
            lease::End::Stopped => ExitCode::SUCCESS,
            lease::End::Lost => ExitCode::FAILURE,
        },
        served = &mut server => return Err(match served {
            Ok(Err(error)) => error,
            Ok(Ok(())) => "the server of metrics ended".to_owned(),
            Err(error) => format!("the server of metrics ended: {error}"),
        }),
    };
    stop.cancel();
    let grace = Duration::from_secs(8);
    let ended = tokio::time::timeout(grace, async {
        while tasks.join_next().await.is_some() {}
        for watch in watches {
            let _ = watch.await;
        }
    });
    if ended.await.is_err() {
        tracing::warn!("some work didn't end within {grace:?}");
    }
    last.cancel();
    if code == ExitCode::SUCCESS {
        let _ = tokio::time::timeout(Duration::from_secs(3), election).await;
    }
    Ok(code)
}

/// Starts every controller; call it before the watches start.
pub fn start(
    shell: &Shell,
    gateways: Gateways,
    sources: Sources,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    // Reads only the gateways of releases that a controller tracks, which only the leader's do.
    let measure = model_deployment::measure(&shell.caches).asking(sources);
    let (reading, until) = (measure.clone(), stop.clone());
    tasks.spawn(async move {
        until.run_until_cancelled(reading.run()).await;
    });
    let supervisors = [Supervisors::default(), Supervisors::default()];
    controllers(shell, gateways, measure, supervisors, stop, tasks);
}

/// The controllers alone, around what reads gateways and supervisors (of training pods, of evaluation pods).
pub fn controllers(
    shell: &Shell,
    gateways: Gateways,
    measure: Measure,
    [training, evaluating]: [Supervisors; 2],
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(round::run(gateways, shell.clone(), stop.clone()));
    tasks.spawn(round::run(
        PromptReleases::new(measure.clone()),
        shell.clone(),
        stop.clone(),
    ));
    tasks.spawn(round::run(
        ModelDeployments::new(measure),
        shell.clone(),
        stop.clone(),
    ));
    tasks.spawn(round::run(
        TrainingJobs::new(training),
        shell.clone(),
        stop.clone(),
    ));
    tasks.spawn(round::run(
        Evaluations::new(evaluating),
        shell.clone(),
        stop.clone(),
    ));
}

async fn told_to_stop() {
    let (mut term, mut int) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(term), Ok(int)) => (term, int),
        _ => return std::future::pending().await,
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

async fn listen(
    address: SocketAddr,
    caches: Caches,
    stop: CancellationToken,
) -> Result<(), String> {
    let ready: server::Ready = Arc::new(move || {
        if caches.ready() {
            return Ok(());
        }
        let problems = caches.problems();
        Err(if problems.is_empty() {
            vec!["reading the cluster for the first time".to_owned()]
        } else {
            problems
        })
    });
    server::serve(address, ready, async move { stop.cancelled().await })
        .await
        .map_err(|e| format!("{address} can't be listened on: {e}"))
}

/// Gauges that are read, not counted.
async fn observe_metrics(shell: Shell) {
    let mut tick = tokio::time::interval(Duration::from_secs(15));
    loop {
        tick.tick().await;
        metrics::LEADING.set(i64::from(shell.leadership.may_write()));
        for kind in Kind::ALL {
            let count = i64::try_from(shell.caches.store(*kind).len()).unwrap_or(i64::MAX);
            metrics::CACHED_OBJECTS
                .with_label_values(&[kind.as_str()])
                .set(count);
        }
    }
}
