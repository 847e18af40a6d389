//! The roles of the one binary: arguments → role → exit code.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{api, cli, controller::operator, evaluate, gateway, supervise, telemetry::log, yaml};

/// Roles by their first argument; everything else is the kubectl plugin.
#[derive(Debug, Parser)]
#[command(
    name = "perennial",
    version,
    about = "Keeps machine-learning models and LLM prompts healthy in production"
)]
struct Arguments {
    #[command(flatten)]
    log: LogArguments,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Args)]
struct LogArguments {
    /// How log lines look (default: text on a terminal, JSON elsewhere).
    #[arg(long, global = true, env = "PERENNIAL_LOG_FORMAT")]
    log_format: Option<log::Format>,
    /// What is logged, as in RUST_LOG: `info`, `debug`, `perennial::cluster=trace`.
    #[arg(long, global = true, env = "PERENNIAL_LOG", default_value = "info")]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The controllers: reconcile the four resources.
    Operator(operator::Arguments),
    /// The data plane of a namespace: split traffic, render prompts, measure.
    Gateway(gateway::Args),
    /// Inside a training pod: fetch and verify inputs, run the trainer, publish its output, report.
    Supervise {
        /// The trainer's command and arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Inside an evaluation pod: measure a model or a file of predictions, report.
    Evaluate,
    /// Inside an evaluation pod: bring the inputs for evaluators that are images.
    Gather,
    /// Inside an evaluation pod: run such an evaluator, and read its results.
    Evaluator {
        /// The evaluator's command and arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Inside a server's pod: fetch and verify the model.
    Fetch,
    /// Look whether a recipe's datasets are what they were.
    Look,
    /// Beside a server: ask it what its warm-up says, and be ready when it has answered.
    WarmUp,
    /// Copy this program into a directory, for containers that don't have it.
    Install {
        /// The directory.
        directory: PathBuf,
    },
    /// Write the CRDs: to standard output, or one file each.
    Crds {
        /// Directory to write one file for each kind to.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// The first argument that makes it a role and not the plugin.
const ROLES: [&str; 11] = [
    "operator",
    "gateway",
    "supervise",
    "evaluate",
    "gather",
    "evaluator",
    "fetch",
    "look",
    "warm-up",
    "install",
    "crds",
];

/// Runs the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let first = arguments.get(1).and_then(|a| a.to_str());
    if !first.is_some_and(|first| ROLES.contains(&first)) {
        return plugin(arguments);
    }
    let arguments = Arguments::parse_from(arguments);
    log::start(arguments.log.log_format, &arguments.log.log_level);
    install_tls();
    match arguments.role {
        Role::Operator(arguments) => finish("operator", runtime(operator::run(arguments))),
        Role::Gateway(arguments) => finish("gateway", runtime(gateway::run(arguments))),
        Role::Supervise { command } => finish("supervise", runtime(supervise::run(command))),
        Role::Evaluate => finish("evaluate", runtime(evaluate::run())),
        Role::Gather => finish("gather", runtime(evaluate::container::gather())),
        Role::Evaluator { command } => {
            finish("evaluator", runtime(evaluate::container::run(command)))
        }
        Role::Fetch => finish("fetch", runtime(supervise::fetch::run())),
        Role::Look => finish("look", runtime(supervise::look::run())),
        Role::WarmUp => finish("warm-up", runtime(supervise::warm_up::run())),
        Role::Install { directory } => {
            finish("install", runtime(supervise::install::run(&directory)))
        }
        Role::Crds { out } => {
            sigpipe::reset();
            finish("crds", crds(out))
        }
    }
}

/// Runs the kubectl plugin.
pub fn plugin(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    sigpipe::reset();
    let arguments = cli::Arguments::parse_from(arguments);
    install_tls();
    runtime(cli::run(arguments))
}

/// Every TLS connection of the process uses ring; two providers could otherwise not be told apart.
fn install_tls() {
    // An error says that one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("without threads and timers nothing can be done")
        .block_on(work)
}

fn finish<E: std::fmt::Display>(role: &str, result: Result<ExitCode, E>) -> ExitCode {
    result.unwrap_or_else(|error| {
        tracing::error!(role, "{error}");
        ExitCode::FAILURE
    })
}

fn crds(dir: Option<PathBuf>) -> Result<ExitCode, String> {
    let mut all = String::new();
    for crd in api::crds() {
        let text = yaml::write(&crd);
        match &dir {
            Some(dir) => {
                let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
                let path = dir.join(format!("{plural}.yaml"));
                std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            None => {
                all.push_str("---\n");
                all.push_str(&text);
            }
        }
    }
    use std::io::Write;
    std::io::stdout()
        .write_all(all.as_bytes())
        .map_err(|e| format!("standard output: {e}"))?;
    Ok(ExitCode::SUCCESS)
}
