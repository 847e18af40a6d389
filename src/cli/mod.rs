//! `kubectl perennial …`: what a release is doing and why, and the commands that act on it.
//!
//! The commands only set annotations; the operator does what they say, once, and echoes it in status.

mod command;
mod connect;
mod history;
mod release;
mod status;
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
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
