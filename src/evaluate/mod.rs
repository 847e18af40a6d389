//! `perennial evaluate`: measures a model, a prompt or a file of predictions, inside an evaluation pod.
//!
//! | step | module | fails as |
//! | --- | --- | --- |
//! | rows and labels | [`rows`], [`join`], [`truth`] | `InputUnreadable`, `DigestMismatch`, `EmptyData`, `UnknownLabel` |
//! | a holdout that is one | [`disjoint`] | `TrainedOnRows`, `TrainingUnknown` |
//! | evaluators that are images, before | [`container`], [`results`] | `EvaluatorFailed`, `ResultsMissing`, `ResultsUnreadable` |
//! | judge | [`judge`] | `JudgeUnavailable`, `JudgeRefused` |
//! | a file to compare with | [`baseline`] | `InputUnreadable`, `TooManyUnanswered` |
//! | ask | [`protocol`] over [`client`]; of a prompt [`prompt`], [`early`] | `TargetUnreachable`, `TargetRefused`, `TooManyUnanswered` |
//! | listen to copies, in the place of rows and asking | [`mirrored`] | `NotEnoughData`, `TargetUnreachable` |
//! | compute | [`measure`], [`calibration`], [`fairness`], [`importance`], [`retrieval`], [`text`], [`drift`], [`quality`] | `NothingToMeasure` |
//! | look again | [`watched`] | `DatasetChanged` |
//!
//! What stable says on the same rows is `stable.<metric>`, the predictor that always says the same thing `baseline.<metric>`,
//! and `difference.<metric>` is candidate minus stable with an interval from the same draws.

pub mod answer;
pub mod baseline;
pub mod calibration;
pub mod changed;
pub mod chart;
pub mod client;
pub mod container;
pub mod details;
pub mod disjoint;
pub mod drift;
pub mod early;
pub mod fairness;
pub mod grounded;
pub mod importance;
pub mod join;
pub mod judge;
pub mod measure;
pub mod mirrored;
pub mod page;
pub mod paired;
pub mod prompt;
pub mod protocol;
pub mod publish;
pub mod quality;
pub mod results;
pub mod retrieval;
pub mod rows;
mod said;
mod side;
pub mod slices;
pub mod text;
pub mod texts;
pub mod truth;
mod wanted;
pub mod watched;
mod work;

use std::{collections::BTreeMap, net::Ipv6Addr, path::PathBuf, process::ExitCode, sync::Arc};

use tokio::sync::watch;

use crate::{
    api::{
        SUPERVISOR_PORT,
        evaluation::Predictions,
        run::{self, EXIT_INPUT, EvaluationRunSpec},
        verdict::short,
    },
    data::table::Table,
    supervise::{
        board::{self, Board},
        exit,
        failure::{Failure, Stop, until_stopped},
        signals, spec,
    },
};
pub(crate) use side::{Chat, chat_endpoint, prompt_sides};
pub(crate) use wanted::{wants_drift, wants_quality, wants_text, wants_truth};
use work::work;
pub use work::{Measured, measure};

/// Where things are; the contract's paths in a pod, others in tests.
#[derive(Clone, Debug)]
pub struct Places {
    /// Mounted claims: `dataset`, `reference` and `predictions`.
    pub volumes: PathBuf,
    /// What is downloaded.
    pub downloads: PathBuf,
    /// What was brought for evaluators that are images.
    pub gathered: PathBuf,
    /// Where they have put down what they found.
    pub results: PathBuf,
    /// Where a claim for reports is mounted.
    pub output: PathBuf,
    /// Files that stand for `dataset`, `reference` or `predictions`, whatever the URI says.
    pub local: BTreeMap<&'static str, PathBuf>,
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
            gathered: run::INPUT_DIR.into(),
            results: run::RESULTS_DIR.into(),
            output: run::OUTPUT_DIR.into(),
            local: BTreeMap::new(),
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
    let about = spec.clone();
    let work = async {
        let mut measured = work(spec, places, &board).await?;
        board.stage("Publishing");
        measured.report.page = Some(publish::publish(&about, &measured, places).await);
        Ok(measured.report)
    };
    let ended = until_stopped(&mut stop, work).await;
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

/// Names of the columns of a file of predictions.
pub(crate) fn prediction_columns(target: &Predictions) -> (&str, &str) {
    (
        target.prediction.as_deref().unwrap_or("prediction"),
        target.score.as_deref().unwrap_or("score"),
    )
}

/// Refuses to speak of all rows where more than `maxItemErrors` of them are without an answer: those that answer are not a sample of the others.
///
/// # Errors
/// `TooManyUnanswered`, which is inconclusive.
pub(crate) fn enough(
    missing: usize,
    count: usize,
    share: f64,
    who: &str,
    why: &str,
) -> Result<(), Failure> {
    if missing as f64 <= share * count as f64 {
        return Ok(());
    }
    let why = if why.is_empty() {
        String::new()
    } else {
        format!("; the last one: {why}")
    };
    let message = format!(
        "{missing} of {count} rows are without an answer of {who}, and maxItemErrors allows {}{why}",
        short(share)
    );
    Err(Failure::new("TooManyUnanswered", message, 1).inconclusive())
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
