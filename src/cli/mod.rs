//! `kubectl perennial …`: what a release is doing and why, and the commands that act on it.
//!
//! The commands only set annotations; the operator does what they say, once, and echoes it in status.

mod command;
mod connect;
mod diff;
mod drift;
mod eval;
mod history;
mod lineage;
pub mod local;
mod release;
mod report;
mod status;
mod validate;
pub mod vectors;
pub mod view;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Arguments of the plugin.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl perennial",
    version,
    about = "What model and prompt releases are doing and why, and commands that act on them"
)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

/// Where to look.
#[derive(Clone, Debug, Args)]
struct Place {
    /// Namespace (default: the context's).
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, global = true, env = "PERENNIAL_CONTEXT")]
    context: Option<String>,
}

/// A release that must be named.
#[derive(Clone, Debug, Args)]
struct Named {
    /// `NAME`, `pmd/NAME` (ModelDeployment) or `ppr/NAME` (PromptRelease).
    release: String,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Show releases as trees: revisions, weight, step, gates with values, drift by column, last retraining and why.
    Status {
        /// `NAME`, `pmd/NAME` or `ppr/NAME`; all of the namespace when absent.
        release: Option<String>,
        /// Go on showing when something changes.
        #[arg(short, long)]
        watch: bool,
    },
    /// Promote the candidate now, whatever step it is at.
    Promote(Named),
    /// Abort the rollout: all traffic back to stable.
    Abort(Named),
    /// Approve the candidate in your own name, at a step that waits for it.
    Approve(Named),
    /// Take a rejected revision out of the ledger, so that it may be tried again.
    Retry {
        #[command(flatten)]
        named: Named,
        /// The revision; the last rejected one when absent.
        revision: Option<String>,
    },
    /// Go back to a revision of the history, without steps.
    Rollback {
        #[command(flatten)]
        named: Named,
        /// The revision; the one that was stable before when absent.
        revision: Option<String>,
    },
    /// Retrain now.
    Retrain(Named),
    /// Show finished rollouts, retrainings and rejected revisions.
    History(Named),
    /// Show where versions come from: the run that made each, and the digests of what it read.
    Lineage(Named),
    /// Show what differs between two revisions.
    Diff {
        #[command(flatten)]
        named: Named,
        /// The revision to compare with; stable, or without a candidate the one before it, when absent.
        from: Option<String>,
        /// The other one; the candidate, or without one stable, when absent.
        to: Option<String>,
    },
    /// Show live inputs against the training data, column by column; or compare two files, without a cluster.
    Drift {
        /// `NAME` or `pmd/NAME`.
        #[arg(required_unless_present = "reference", conflicts_with = "reference")]
        release: Option<String>,
        #[command(flatten)]
        files: local::DriftFiles,
    },
    /// Show an Evaluation's runs, with gates and metrics; or measure one of a file, without a cluster.
    Eval {
        /// `NAME` or `pev/NAME`.
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        evaluation: Option<String>,
        #[command(flatten)]
        files: local::EvalFiles,
    },
    /// Write the report of an Evaluation's last run to a file.
    Report {
        /// `NAME` or `pev/NAME`.
        evaluation: String,
        /// Number of the run (default: the last one with a report).
        #[arg(long)]
        run: Option<i64>,
        /// File to write; `-` prints it (default: `<evaluation>-<run>.html`).
        #[arg(short, long)]
        output: Option<std::path::PathBuf>,
        /// Open it in the browser.
        #[arg(long)]
        open: bool,
    },
    /// Check statistics against the values of reference libraries.
    Stats {
        #[command(subcommand)]
        what: Stats,
    },
    /// Ask the API server what it would say of a file, and write nothing.
    Validate {
        /// Files with YAML or JSON; `-` for standard input.
        #[arg(required = true)]
        files: Vec<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum Stats {
    /// Run a file of vectors and print each mismatch.
    Vectors {
        /// The file; what it reads lies beside it.
        file: std::path::PathBuf,
    },
}

/// Runs what needs no cluster; `None` for everything else. Errors are no verdict, and have an exit code of their own.
async fn without_cluster(verb: &Verb) -> Option<ExitCode> {
    let done = match verb {
        Verb::Drift {
            release: None,
            files,
        } => local::drift(files),
        Verb::Eval {
            evaluation: None,
            files,
        } => local::eval(files).await,
        Verb::Stats {
            what: Stats::Vectors { file },
        } => vectors::run(file),
        _ => return None,
    };
    Some(done.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::from(local::UNMEASURED)
    }))
}

/// Runs the plugin.
pub async fn run(arguments: Arguments) -> ExitCode {
    if let Some(code) = without_cluster(&arguments.verb).await {
        return code;
    }
    let done = match arguments.verb {
        Verb::Status { release, watch } => {
            status::run(&arguments.place, release.as_deref(), watch).await
        }
        Verb::Promote(named) => {
            command::run(&arguments.place, &named.release, command::Command::Promote).await
        }
        Verb::Abort(named) => {
            command::run(&arguments.place, &named.release, command::Command::Abort).await
        }
        Verb::Approve(named) => {
            command::run(&arguments.place, &named.release, command::Command::Approve).await
        }
        Verb::Retry { named, revision } => {
            command::run(
                &arguments.place,
                &named.release,
                command::Command::Retry(revision),
            )
            .await
        }
        Verb::Rollback { named, revision } => {
            command::run(
                &arguments.place,
                &named.release,
                command::Command::Rollback(revision),
            )
            .await
        }
        Verb::Retrain(named) => {
            command::run(&arguments.place, &named.release, command::Command::Retrain).await
        }
        Verb::History(named) => history::run(&arguments.place, &named.release).await,
        Verb::Lineage(named) => lineage::run(&arguments.place, &named.release).await,
        Verb::Diff { named, from, to } => {
            diff::run(
                &arguments.place,
                &named.release,
                from.as_deref(),
                to.as_deref(),
            )
            .await
        }
        Verb::Drift { release, .. } => {
            drift::run(&arguments.place, &release.unwrap_or_default()).await
        }
        Verb::Eval { evaluation, .. } => {
            eval::run(&arguments.place, &evaluation.unwrap_or_default()).await
        }
        Verb::Report {
            evaluation,
            run,
            output,
            open,
        } => report::run(&arguments.place, &evaluation, run, output.as_deref(), open).await,
        // Done before: it needs no cluster.
        Verb::Stats { .. } => Ok(()),
        Verb::Validate { files } => validate::run(&arguments.place, &files).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
