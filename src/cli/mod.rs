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
mod release;
mod status;
mod validate;
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
    /// Show live inputs against the training data, column by column.
    Drift(Named),
    /// Show an Evaluation's runs, with gates and metrics.
    Eval {
        /// `NAME` or `pev/NAME`.
        evaluation: String,
    },
    /// Ask the API server what it would say of a file, and write nothing.
    Validate {
        /// Files with YAML or JSON; `-` for standard input.
        #[arg(required = true)]
        files: Vec<String>,
    },
}

/// Runs the plugin.
pub async fn run(arguments: Arguments) -> ExitCode {
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
        Verb::Drift(named) => drift::run(&arguments.place, &named.release).await,
        Verb::Eval { evaluation } => eval::run(&arguments.place, &evaluation).await,
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
