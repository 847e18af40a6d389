//! `perennial evaluate`: measures a model, or a file of predictions, inside an evaluation pod.
//!
//! | step | module | fails as |
//! | --- | --- | --- |
//! | rows and labels | [`rows`], [`truth`] | `InputUnreadable`, `DigestMismatch`, `EmptyData`, `UnknownLabel` |
//! | ask the model | [`inference`] | `TargetUnreachable`, `TargetRefused` |
//! | compute | [`measure`], [`drift`] | `NothingToMeasure` |
//!
//! What stable says on the same rows is `stable.<metric>`, the predictor that always says the same thing `baseline.<metric>`,
//! and `difference.<metric>` is candidate minus stable with an interval from the same draws.

pub mod answer;
pub mod drift;
pub mod inference;
pub mod measure;
pub mod rows;
pub mod truth;

use std::{net::Ipv6Addr, path::PathBuf, process::ExitCode, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;

use crate::{
    api::{
        SUPERVISOR_PORT,
        evaluation::{Evaluator, Predictions},
        gate::MetricValue,
        model_deployment::Protocol,
        run::{self, EXIT_INPUT, EvaluationRunSpec, EvaluationTarget, Report, Summary},
        training_job::Progress,
    },
    data::table::Table,
    supervise::{
        board::{self, Board},
        exit,
        failure::{Failure, Stop, blocking, until_stopped},
        signals, spec,
    },
};
use answer::Answers;
use truth::Truth;

/// Where things are; the contract's paths in a pod, others in tests.
#[derive(Clone, Debug)]
pub struct Places {
    /// Mounted claims: `dataset`, `reference` and `predictions`.
    pub volumes: PathBuf,
    /// What is downloaded.
    pub downloads: PathBuf,
    /// The termination message.
    pub termination_log: PathBuf,
    /// Where `/progress` and `/report` are served.
    pub address: std::net::SocketAddr,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            volumes: run::VOLUME_DIR.into(),
            downloads: format!("{}/inputs", run::RUN_DIR).into(),
            termination_log: "/dev/termination-log".into(),
            address: (Ipv6Addr::UNSPECIFIED, SUPERVISOR_PORT).into(),
        }
    }
}

/// Runs the role: the spec is [`run::RUN_ENV`].
///
/// # Errors
/// Never; what goes wrong is a report, a termination message and an exit code.
pub async fn run() -> Result<ExitCode, crate::data::Error> {
    let places = Places::default();
    let code = match spec::<EvaluationRunSpec>() {
        Ok(spec) => evaluate(spec, &places, signals()).await,
        Err(failure) => {
            board::write_summary(&places.termination_log, &failure.report().summary);
            failure.code
        }
    };
    if code == 0 {
        return Ok(exit(0));
    }
    // Reading that is under way on other threads must not hold up the end.
    std::process::exit(code)
}

/// Runs an evaluation from its inputs to the acknowledged report; gives the exit code.
pub async fn evaluate(
    spec: EvaluationRunSpec,
    places: &Places,
    asked: watch::Receiver<bool>,
) -> i32 {
    let board = Arc::new(Board::default());
    let server = board::serve(board.clone(), places.address).await;
    let mut stop = Stop::watch(spec.deadline, asked.clone());
    let acknowledge = spec.acknowledge_timeout.to_std();
    let ended = until_stopped(&mut stop, work(spec, places, &board)).await;
    let (report, code) = match ended {
        Ok(report) => (report, 0),
        Err(failure) => {
            tracing::error!(reason = failure.reason, "{}", failure.message);
            (failure.report(), failure.code)
        }
    };
    board::write_summary(&places.termination_log, &report.summary);
    board.finish(report);
    board.acknowledged(acknowledge, asked).await;
    if let Some(server) = server {
        server.end().await;
    }
    code
}

async fn work(spec: EvaluationRunSpec, places: &Places, board: &Board) -> Result<Report, Failure> {
    board.stage("Inputs");
    let loaded = rows::load(&spec, places).await?;
    board.stage("Running");
    let rows = loaded.rows.as_ref();
    let truth = match rows {
        Some(rows) if wants_truth(&spec) => Some(Truth::of(rows, &spec.evaluators)?),
        _ => None,
    };
    let answers = match (&spec.target, rows, &truth) {
        (
            EvaluationTarget::Model {
                url,
                baseline_url,
                protocol,
                ..
            },
            Some(rows),
            Some(truth),
        ) => {
            speaks(*protocol)?;
            let progress = |done: usize| board.progress(asked_so_far(done, rows.count));
            let own = inference::ask(url, "the model", rows, truth, &progress).await?;
            let stable = match baseline_url {
                Some(url) => Some(inference::ask(url, "stable", rows, truth, &progress).await?),
                None => None,
            };
            Some((own, stable))
        }
        (EvaluationTarget::Predictions(target), Some(rows), Some(_)) => {
            Some((Answers::of_file(rows, target)?, None))
        }
        _ => None,
    };
    let (datasets, digest) = (loaded.datasets.clone(), loaded.digest());
    let seed = spec.seed;
    let (mut metrics, count) = blocking(move || -> Result<_, Failure> {
        let mut metrics = Vec::new();
        let mut count = loaded.rows.as_ref().map_or(0, |rows| rows.count);
        if let (Some(rows), Some(truth), Some((own, stable))) = (&loaded.rows, &truth, &answers) {
            let measured = measure::run(rows, truth, own, stable.as_ref(), seed)?;
            count = measured.rows;
            metrics.extend(measured.metrics);
        }
        metrics.extend(drift::run(&spec, &loaded)?);
        Ok((metrics, count))
    })
    .await??;
    if metrics.is_empty() {
        return Err(nothing_to_measure());
    }
    let now = Time(jiff::Timestamp::now());
    metrics
        .iter_mut()
        .for_each(|m: &mut MetricValue| m.time = Some(now.clone()));
    Ok(Report {
        summary: Summary {
            succeeded: true,
            message: format!("{} metrics of {count} rows", metrics.len()),
            rows: i64::try_from(count).ok(),
            dataset_digest: digest,
            ..Summary::default()
        },
        metrics,
        datasets,
        ..Report::default()
    })
}

/// Whether anything is computed from labels: not if only drift is.
fn wants_truth(spec: &EvaluationRunSpec) -> bool {
    let only_drift =
        !spec.evaluators.is_empty() && spec.evaluators.iter().all(|e| e.drift.is_some());
    spec.label.is_some() && !only_drift
}

/// Whether drift is measured: when asked for, or when there is nothing but a reference.
pub(crate) fn wants_drift(spec: &EvaluationRunSpec) -> Option<Evaluator> {
    let asked = spec.evaluators.iter().find(|e| e.drift.is_some());
    asked.cloned().or_else(|| {
        (spec.evaluators.is_empty() && spec.reference.is_some()).then(Evaluator::default)
    })
}

fn nothing_to_measure() -> Failure {
    Failure::new(
        "NothingToMeasure",
        "there is neither a label to compare predictions with, nor a reference to compare columns with: write dataset.label or reference".to_owned(),
        EXIT_INPUT,
    )
    .permanent()
}

fn speaks(protocol: Protocol) -> Result<(), Failure> {
    match protocol {
        Protocol::OpenInference => Ok(()),
        other => Err(Failure::new(
            "ProtocolNotSupported",
            format!("the server speaks {other:?}, and an Evaluation asks models by OpenInference only: evaluate a file of predictions instead"),
            EXIT_INPUT,
        )
        .permanent()),
    }
}

fn asked_so_far(done: usize, all: usize) -> Progress {
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Progress {
        step: Some(whole(done)),
        total: Some(whole(all)),
        summary: format!("{done}/{all} rows"),
        time: Some(Time(jiff::Timestamp::now())),
        ..Progress::default()
    }
}

/// Names of the columns of a file of predictions.
pub(crate) fn prediction_columns(target: &Predictions) -> (&str, &str) {
    (
        target.prediction.as_deref().unwrap_or("prediction"),
        target.score.as_deref().unwrap_or("score"),
    )
}

/// A failure about the data that trying again won't mend.
pub(crate) fn input_failure(reason: &'static str, message: String) -> Failure {
    Failure::new(reason, message, EXIT_INPUT).permanent()
}

/// A column of a table that was read with it.
pub(crate) fn column<'a>(
    table: &'a Table,
    name: &str,
) -> Result<&'a crate::data::table::Column, Failure> {
    table
        .column(name)
        .ok_or_else(|| input_failure("InputUnreadable", format!("column `{name}` was not read")))
}

#[cfg(test)]
mod tests;
