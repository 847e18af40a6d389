//! `perennial supervise -- COMMAND ARGS…`: wraps the trainer's command inside a training pod.
//!
//! It fetches and verifies the inputs, checks and profiles them, runs the command, watches its progress, publishes what it
//! wrote, and reports: `/progress` and `/report` while it runs, a summary as termination message at the end.
//!
//! | stage | module | fails as |
//! | --- | --- | --- |
//! | `Inputs` | [`inputs`], [`check`] | `InputUnreadable`, `DigestMismatch`, `CheckFailed` |
//! | `Running` | [`trainer`], [`progress`] | `TrainerFailed`, `Stalled` |
//! | `Publishing` | [`output`] | `OutputEmpty`, `OutputUnwritable` |
//! | any | this one | `DeadlineExceeded`, `Terminated`, `InvalidRun` |

pub mod board;
pub mod cache;
pub mod check;
pub mod failure;
pub mod fetch;
pub mod first_process;
pub mod inputs;
pub mod install;
pub mod look;
pub mod output;
pub mod progress;
pub mod trainer;
pub mod warm_up;

use std::{
    ffi::OsString,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;

use crate::{
    api::{
        SUPERVISOR_PORT,
        revision::{ModelReference, Signature},
        run::{self, Manifest, Report, Summary, TrainingRun},
    },
    data::{
        store::Environment,
        training_rows::{self, RowSet},
        uri::Uri,
    },
};
use board::Board;
use failure::{Failure, Stop};
use trainer::Task;

/// Where things are; the contract's paths in a pod, others in tests.
#[derive(Clone, Debug)]
pub struct Places {
    /// Inputs as the trainer sees them.
    pub inputs: PathBuf,
    /// Mounted claims.
    pub volumes: PathBuf,
    /// Where the trainer writes.
    pub output: PathBuf,
    /// Progress lines.
    pub progress: PathBuf,
    /// The termination message.
    pub termination_log: PathBuf,
    /// Where `/progress` and `/report` are served.
    pub address: SocketAddr,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            inputs: run::INPUT_DIR.into(),
            volumes: run::VOLUME_DIR.into(),
            output: run::OUTPUT_DIR.into(),
            progress: run::PROGRESS_FILE.into(),
            termination_log: "/dev/termination-log".into(),
            address: (Ipv6Addr::UNSPECIFIED, SUPERVISOR_PORT).into(),
        }
    }
}

/// Runs the role: the spec is [`run::RUN_ENV`], `command` is the trainer's.
///
/// # Errors
/// Never; what goes wrong is a report, a termination message and an exit code.
pub async fn run(command: Vec<String>) -> Result<ExitCode, crate::data::Error> {
    if std::process::id() == 1 {
        return Ok(exit(first_process::run().await));
    }
    let places = Places::default();
    let code = match spec::<TrainingRun>() {
        Ok(training) => supervise(training, command, &places, signals()).await,
        Err(failure) => {
            let report = failure.report();
            board::write_summary(&places.termination_log, &report.summary);
            failure.code
        }
    };
    // Reading that is under way on other threads must not hold up the end.
    std::process::exit(code)
}

/// The run's spec from the environment.
///
/// # Errors
/// If it isn't there, or isn't what this version understands.
pub fn spec<T: serde::de::DeserializeOwned>() -> Result<T, Failure> {
    let name = run::RUN_ENV;
    let invalid = |message: String| Failure::new("InvalidRun", message, run::EXIT_SPEC).permanent();
    let text = std::env::var(name).map_err(|_| {
        invalid(format!(
            "the environment has no {name}: this command runs inside a pod that the operator made"
        ))
    })?;
    serde_json::from_str(&text).map_err(|e| {
        invalid(format!(
            "{name} isn't a run that this version understands: {e}"
        ))
    })
}

/// Exit code of a process; what doesn't fit is 1.
pub(crate) fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Becomes true when the process is asked to end (SIGTERM, SIGINT).
pub(crate) fn signals() -> watch::Receiver<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            tracing::warn!(
                "signals can't be received: the run ends without a report if it is stopped"
            );
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sender.send(true);
        // The channel must stay open: closed would look like never asked.
        sender.closed().await;
    });
    receiver
}

/// Runs a training from its inputs to the acknowledged report; gives the exit code.
pub async fn supervise(
    training: TrainingRun,
    command: Vec<String>,
    places: &Places,
    asked: watch::Receiver<bool>,
) -> i32 {
    let board = Arc::new(Board::default());
    let server = board::serve(board.clone(), places.address).await;
    let stop = Stop::watch(training.deadline, asked.clone());
    let mut found = Found::default();
    let ended = work(&training, &command, places, &board, stop, &mut found).await;
    let (report, code) = match ended {
        Ok(report) => (report, 0),
        Err(failure) => {
            tracing::error!(reason = failure.reason, "{}", failure.message);
            let mut report = failure.report();
            report.datasets = found.inputs.datasets;
            (report, failure.code)
        }
    };
    board::write_summary(&places.termination_log, &report.summary);
    board.finish(report);
    board
        .acknowledged(training.acknowledge_timeout.to_std(), asked)
        .await;
    if let Some(server) = server {
        server.end().await;
    }
    code
}

/// What is known so far, also when it ends badly.
#[derive(Default)]
struct Found {
    inputs: inputs::Inputs,
}

async fn work(
    training: &TrainingRun,
    command: &[String],
    places: &Places,
    board: &Board,
    mut stop: watch::Receiver<Option<Stop>>,
    found: &mut Found,
) -> Result<Report, Failure> {
    let uri: Uri = training
        .output
        .parse()
        .map_err(|e| Failure::of("OutputUnwritable", "model.output", &e, run::EXIT_OUTPUT))?;
    let credentials = Environment::prefixed("PERENNIAL_CRED_OUT_");
    let output = output::Output::open(&uri, &credentials, &places.output)?;
    board.stage("Inputs");
    let earlier = failure::until_stopped(&mut stop, output.prepare(&training.uid)).await?;
    if let Some(manifest) = earlier {
        return Ok(published_before(manifest));
    }
    failure::until_stopped(
        &mut stop,
        inputs::gather(training, places, &mut found.inputs),
    )
    .await?;
    // Put down, so that nobody's memory holds them while the model is trained.
    let rows = places.progress.with_file_name(training_rows::FILE);
    put_aside(&rows, std::mem::take(&mut found.inputs.rows)).await?;
    board.stage("Running");
    let task = Task {
        who: "the trainer",
        reason: "TrainerFailed",
        command,
        environment: environment(training, places),
        progress: Some(&places.progress),
        stall: training.stall_timeout.as_ref(),
        accepted: None,
    };
    trainer::run(&task, board, &mut stop).await?;
    board.stage("Publishing");
    let publishing = publish(training, &output, &found.inputs, &rows);
    let manifest = failure::until_stopped(&mut stop, publishing).await?;
    let model = manifest.model.clone();
    let message = format!(
        "version {} of {} is published with digest {}",
        training.version,
        training.model,
        model.digest.as_deref().unwrap_or("?")
    );
    Ok(Report {
        summary: Summary {
            succeeded: true,
            message,
            exit_code: Some(0),
            digest: model.digest.clone(),
            ..Summary::default()
        },
        metrics: manifest.metrics,
        profile: manifest.profile,
        model: Some(model),
        datasets: manifest.datasets,
        ..Report::default()
    })
}

fn environment(training: &TrainingRun, places: &Places) -> Vec<(String, OsString)> {
    let parameters = training.parameters.iter().map(|(name, value)| {
        let name = format!("PERENNIAL_PARAM_{}", name.to_ascii_uppercase());
        (name, value.into())
    });
    [
        ("PERENNIAL_OUTPUT_DIR", &places.output),
        ("PERENNIAL_PROGRESS_FILE", &places.progress),
    ]
    .map(|(name, path)| (name.to_owned(), path.into()))
    .into_iter()
    .chain(parameters)
    .collect()
}

/// Writes what the model is trained on to a file; none where nobody says what that is.
async fn put_aside(path: &Path, sets: Vec<RowSet>) -> Result<(), Failure> {
    let path = path.to_owned();
    let put = move || -> crate::data::Result<()> {
        let done = match sets.is_empty() {
            true if path.exists() => std::fs::remove_file(&path),
            true => Ok(()),
            false => {
                let bytes = training_rows::write(&sets)?;
                let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
                made.and_then(|()| std::fs::write(&path, bytes))
            }
        };
        done.map_err(|e| crate::data::Error::file("writing", &path, &e))
    };
    failure::blocking(put).await?.map_err(|e| {
        Failure::of(
            "OutputUnwritable",
            "what the model is trained on",
            &e,
            run::EXIT_OUTPUT,
        )
    })
}

async fn publish(
    training: &TrainingRun,
    output: &output::Output,
    inputs: &inputs::Inputs,
    rows: &Path,
) -> Result<Manifest, Failure> {
    let now = Time(jiff::Timestamp::now());
    let metrics = output.metrics(&now).await;
    output.add_rows(rows).await?;
    let content = output.digest().await?;
    let datasets = inputs
        .datasets
        .iter()
        .map(|d| (d.name.clone(), d.digest.clone()))
        .collect();
    let manifest = Manifest {
        model: ModelReference {
            name: Some(training.model.clone()),
            version: Some(training.version.clone()),
            uri: training.output.clone(),
            digest: Some(content.digest.clone()),
            size_bytes: i64::try_from(content.bytes).ok(),
            credentials: None,
            signature: inputs.signature.clone(),
            profile: None,
            training_job: Some(training.name.clone()),
            datasets,
            trained_time: Some(now),
        },
        files: output::manifest_files(&content),
        datasets: inputs.datasets.clone(),
        parameters: training.parameters.clone(),
        metrics,
        profile: inputs.profile.clone(),
        uid: training.uid.clone(),
    };
    output.publish(&content, &manifest).await?;
    Ok(manifest)
}

/// An earlier attempt of this very run got as far as the manifest: nothing is left to do but say so.
fn published_before(manifest: Manifest) -> Report {
    Report {
        summary: Summary {
            succeeded: true,
            message: "the version was already published by an earlier attempt of this run"
                .to_owned(),
            digest: manifest.model.digest.clone(),
            ..Summary::default()
        },
        metrics: manifest.metrics,
        profile: manifest.profile,
        model: Some(manifest.model),
        datasets: manifest.datasets,
        ..Report::default()
    }
}

/// The grace between SIGTERM and SIGKILL: less than the kubelet's default of 30 s.
pub(crate) const GRACE: Duration = Duration::from_secs(15);

/// A signature is worth having only with features.
pub(crate) fn signature_of(
    features: Vec<crate::api::revision::Feature>,
    label: Option<String>,
) -> Option<Signature> {
    (!features.is_empty()).then_some(Signature { features, label })
}

#[cfg(test)]
mod tests;
