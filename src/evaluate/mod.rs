//! `perennial evaluate`: measures a model, a prompt or a file of predictions, inside an evaluation pod.
//!
//! | step | module | fails as |
//! | --- | --- | --- |
//! | rows and labels | [`rows`], [`join`], [`truth`] | `InputUnreadable`, `DigestMismatch`, `EmptyData`, `UnknownLabel` |
//! | evaluators that are images, before | [`container`], [`results`] | `EvaluatorFailed`, `ResultsMissing`, `ResultsUnreadable` |
//! | judge | [`judge`] | `JudgeUnavailable`, `JudgeRefused` |
//! | ask | [`protocol`] over [`client`]; of a prompt [`prompt`] | `TargetUnreachable`, `TargetRefused`, `TooManyUnanswered` |
//! | compute | [`measure`], [`calibration`], [`fairness`], [`importance`], [`retrieval`], [`text`], [`drift`], [`quality`] | `NothingToMeasure` |
//! | look again | [`watched`] | `DatasetChanged` |
//!
//! What stable says on the same rows is `stable.<metric>`, the predictor that always says the same thing `baseline.<metric>`,
//! and `difference.<metric>` is candidate minus stable with an interval from the same draws.

pub mod answer;
pub mod calibration;
pub mod changed;
pub mod chart;
pub mod client;
pub mod container;
pub mod details;
pub mod drift;
pub mod fairness;
pub mod grounded;
pub mod importance;
pub mod join;
pub mod judge;
pub mod measure;
pub mod page;
pub mod paired;
pub mod prompt;
pub mod protocol;
pub mod publish;
pub mod quality;
pub mod results;
pub mod retrieval;
pub mod rows;
pub mod slices;
pub mod text;
pub mod texts;
pub mod truth;
pub mod watched;

use std::{collections::BTreeMap, net::Ipv6Addr, path::PathBuf, process::ExitCode, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;

use crate::{
    api::{
        SUPERVISOR_PORT,
        evaluation::{EndpointProtocol, Evaluator, Predictions},
        gate::MetricValue,
        model_deployment::Protocol,
        run::{
            self, EXIT_INPUT, EvaluationRunSpec, EvaluationTarget, PromptSide, PromptVariables,
            Report, Summary,
        },
        training_job::Progress,
        verdict::short,
    },
    data::table::Table,
    stats::performance::Binary,
    supervise::{
        board::{self, Board},
        exit,
        failure::{Failure, Stop, blocking, until_stopped},
        signals, spec,
    },
};
use answer::Answers;
use details::{Classes, Details};
use measure::Compared;
use protocol::open_inference::{self, Manner};
use texts::Texts;
use truth::Truth;

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

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// What the operator is told.
    pub report: Report,
    /// What people are shown beyond that.
    pub details: Details,
}

/// Measures without telling anyone.
///
/// # Errors
/// Why it can't.
pub async fn measure(spec: EvaluationRunSpec, places: &Places) -> Result<Measured, Failure> {
    work(spec, places, &Board::default()).await
}

async fn work(
    spec: EvaluationRunSpec,
    places: &Places,
    board: &Board,
) -> Result<Measured, Failure> {
    if spec.label.is_none() && spec.evaluators.iter().any(of_labels) {
        return Err(input_failure(
            "NothingToMeasure",
            "an evaluator compares with labels, and nobody says which column has them: write dataset.label or target.predictions.label".to_owned(),
        ));
    }
    board.stage("Inputs");
    // Before anything is asked, as without them all would be for nothing.
    let found = container::collect(&spec, &places.results)?;
    let mut loaded = rows::load(&spec, places).await?;
    board.stage("Running");
    let mut texts = loaded.texts.take();
    let rows = loaded.rows.as_ref();
    let truth = match rows {
        Some(rows) if wants_truth(&spec) => Some(Truth::of(rows, &spec.evaluators)?),
        _ => None,
    };
    let (model, bearer) = match &spec.target {
        EvaluationTarget::Endpoint { model, .. } => {
            (model.as_deref(), std::env::var(run::ENDPOINT_KEY).ok())
        }
        _ => (None, None),
    };
    let manner = Manner {
        requests: &spec.requests,
        share: spec.max_item_errors,
        model,
        bearer: bearer.as_deref(),
    };
    let chat = chat_endpoint(&spec.target);
    let sides = prompt_sides(&spec.target).or_else(|| chat.as_ref().map(Chat::sides));
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
            let own = open_inference::ask(url, "the model", rows, truth, manner, &progress).await?;
            let stable = match baseline_url {
                Some(url) => {
                    Some(open_inference::ask(url, "stable", rows, truth, manner, &progress).await?)
                }
                None => None,
            };
            Some((own, stable))
        }
        (EvaluationTarget::Endpoint { url, .. }, Some(rows), Some(truth)) => {
            let progress = |done: usize| board.progress(asked_so_far(done, rows.count));
            let own = open_inference::ask(url, "the endpoint", rows, truth, manner, &progress);
            Some((own.await?, None))
        }
        (EvaluationTarget::Predictions(target), Some(rows), Some(_)) => {
            Some((Answers::of_file(rows, target)?, None))
        }
        _ => None,
    };
    let replies = match (sides, &loaded.asked) {
        (Some(sides), Some(rows)) => {
            let progress = |done: usize, all: usize| board.progress(asked_so_far(done, all));
            Some(prompt::ask(sides, rows, manner, &progress).await?)
        }
        _ => None,
    };
    let spent = sides.zip(replies.as_ref());
    let (mut tokens, mut cost) =
        spent.map_or((None, None), |(sides, replies)| replies.spent(sides));
    if let (Some(rows), Some(replies)) = (&loaded.asked, &replies) {
        let answers = Texts::of_rows(&spec, &rows.table, replies.both())?;
        let days = rows.days.clone();
        texts = Some(Texts { days, ..answers });
    }
    let mut details = Details::default();
    let mut judged = Vec::new();
    if let Some(texts) = &texts {
        for found in judge::all(&spec, texts, &loaded.labelled, manner, &mut details).await? {
            tokens = Some(tokens.unwrap_or(0) + i64::try_from(found.tokens).unwrap_or(i64::MAX));
            cost = found.cost.map(|c| c + cost.unwrap_or(0.0)).or(cost);
            judged.extend(found.metrics);
        }
    }
    let mut importance = Vec::new();
    let asked = spec
        .evaluators
        .iter()
        .find_map(|e| e.feature_importance.as_ref());
    let url = match &spec.target {
        EvaluationTarget::Model { url, .. } | EvaluationTarget::Endpoint { url, .. } => Some(url),
        EvaluationTarget::Prompt { .. } | EvaluationTarget::Predictions(_) => None,
    };
    if let (Some(evaluator), Some(url)) = (asked, url)
        && let (Some(rows), Some(truth), Some((own, _))) = (rows, &truth, &answers)
    {
        let subject = (rows, truth, own);
        let progress = |done: usize, all: usize| board.progress(shuffled_so_far(done, all));
        importance = importance::run(
            evaluator,
            url,
            subject,
            (spec.seed, manner),
            &mut details,
            &progress,
        )
        .await?;
    }
    details.notes.extend(container::notes(&spec, &found));
    for found in &found {
        tokens = found
            .tokens
            .map(|n| tokens.unwrap_or(0) + i64::try_from(n).unwrap_or(i64::MAX))
            .or(tokens);
        cost = found.cost.map(|c| c + cost.unwrap_or(0.0)).or(cost);
    }
    let (datasets, digest) = (loaded.datasets.clone(), loaded.digest());
    let about = spec.clone();
    let (mut metrics, count, details) = blocking(move || -> Result<_, Failure> {
        let found = (truth.zip(answers), texts, replies);
        let (metrics, count) = compute(&spec, &loaded, found, &mut details)?;
        loaded.watched.iter().try_for_each(watched::Watched::end)?;
        Ok((metrics, count, details))
    })
    .await??;
    metrics.extend(importance);
    metrics.extend(judged);
    container::add(&about, found, &mut metrics)?;
    if metrics.is_empty() {
        return Err(nothing_to_measure());
    }
    let rows = i64::try_from(count).ok();
    let rows = rows.filter(|_| !container::only(&about));
    let now = Time(jiff::Timestamp::now());
    metrics
        .iter_mut()
        .for_each(|m: &mut MetricValue| m.time = Some(now.clone()));
    let report = Report {
        summary: Summary {
            succeeded: true,
            message: match rows {
                Some(rows) => format!("{} metrics of {rows} rows", metrics.len()),
                None => format!("{} metrics", metrics.len()),
            },
            rows,
            dataset_digest: digest,
            tokens,
            cost,
            ..Summary::default()
        },
        metrics,
        datasets,
        ..Report::default()
    };
    Ok(Measured { report, details })
}

/// The truth, what the target says, and stable.
type Answered = (Truth, (Answers, Option<Answers>));

/// Everything that is computed from what lies ready.
fn compute(
    spec: &EvaluationRunSpec,
    loaded: &rows::Loaded,
    (answered, texts, replies): (Option<Answered>, Option<Texts>, Option<prompt::Replies>),
    details: &mut Details,
) -> Result<(Vec<MetricValue>, usize), Failure> {
    let mut metrics = Vec::new();
    let mut count = 0;
    if let (Some(rows), Some((truth, (own, stable)))) = (&loaded.rows, &answered) {
        // Models were held to it while they were asked.
        if matches!(spec.target, EvaluationTarget::Predictions(_)) {
            enough(
                own.missing(),
                rows.count,
                spec.max_item_errors,
                "the file",
                "",
            )
            .map_err(Failure::permanent)?;
        }
        let compared = Compared::of(rows, truth, own, stable.as_ref())?;
        count = compared.kept.len();
        let sides = (own, stable.as_ref());
        metrics = measure::run(&compared, rows, truth, sides, spec.seed);
        sampling(rows, spec, details);
        for evaluator in &spec.evaluators {
            if let Some(evaluator) = &evaluator.calibration {
                metrics.extend(calibration::run(evaluator, truth, &compared, details)?);
            }
            if let Some(evaluator) = &evaluator.fairness {
                metrics.extend(fairness::run(evaluator, rows, truth, &compared, details)?);
            }
            if let Some(evaluator) = &evaluator.retrieval {
                let about = (spec.seed, &mut *details);
                metrics.extend(retrieval::run(evaluator, rows, truth, &compared, about)?);
            }
        }
        if matches!(truth, Truth::Binary { .. }) {
            let data = Binary::new(&compared.classes, &compared.own.predicted, None);
            details.confusion = Some(data.measure(None).confusion);
        }
        if matches!(truth, Truth::Multi { .. }) {
            details.classes = Some(Classes::of(&compared));
        }
        // What was predicted, and what says which row is which, are no properties of a row.
        let mut not: Vec<&str> = spec.key.iter().flatten().map(String::as_str).collect();
        if let EvaluationTarget::Predictions(target) = &spec.target {
            let (prediction, score) = prediction_columns(target);
            not.extend([prediction, score]);
        }
        details.slices = slices::worst(rows, truth, &compared, &not);
        details.changed = changed::of(rows, truth, &compared);
    } else if let Some(current) = &loaded.current {
        count = usize::try_from(current.source.rows()).unwrap_or(usize::MAX);
    }
    if let Some(texts) = &texts {
        let (found, answered) = text::run(spec, texts, details)?;
        // Counted once, where a class is measured too.
        let once = |m: &MetricValue| loaded.rows.is_none() || !m.name.starts_with("unanswered");
        metrics.extend(found.into_iter().filter(once));
        count = answered;
    }
    let chat = chat_endpoint(&spec.target);
    let sides = prompt_sides(&spec.target).or_else(|| chat.as_ref().map(Chat::sides));
    if let (Some(sides), Some(rows), Some(replies)) = (sides, &loaded.asked, &replies) {
        metrics.extend(replies.measure(sides, rows.days.as_deref(), spec.seed));
        sampling(rows, spec, details);
    }
    metrics.extend(drift::run(spec, loaded, details)?);
    if wants_quality(spec) {
        metrics.extend(quality::run(loaded, details)?);
    }
    Ok((metrics, count))
}

fn sampling(rows: &rows::Rows, spec: &EvaluationRunSpec, details: &mut Details) {
    if rows.drawn_from > rows.count {
        details.notes.push(format!(
            "Sampling: {} of {} rows, drawn with the seed {}.",
            rows.count, rows.drawn_from, spec.seed
        ));
    }
}

/// The sides of a prompt that is a target.
pub(crate) fn prompt_sides(target: &EvaluationTarget) -> Option<prompt::Sides<'_>> {
    match target {
        EvaluationTarget::Prompt {
            release,
            own,
            stable,
        } => Some(prompt::Sides {
            named: prompt::Named::Release(release),
            own,
            stable: stable.as_ref(),
        }),
        EvaluationTarget::Model { .. }
        | EvaluationTarget::Endpoint { .. }
        | EvaluationTarget::Predictions(_) => None,
    }
}

/// An endpoint that is asked for texts.
pub(crate) struct Chat {
    model: String,
    own: PromptSide,
}

impl Chat {
    pub(crate) fn sides(&self) -> prompt::Sides<'_> {
        prompt::Sides {
            named: prompt::Named::Model(&self.model),
            own: &self.own,
            stable: None,
        }
    }
}

/// The endpoint that is a target, if it answers with texts.
pub(crate) fn chat_endpoint(target: &EvaluationTarget) -> Option<Chat> {
    let EvaluationTarget::Endpoint {
        url,
        protocol: EndpointProtocol::OpenAi,
        model,
        prices,
    } = target
    else {
        return None;
    };
    Some(Chat {
        model: model.clone().unwrap_or_default(),
        own: PromptSide {
            url: url.clone(),
            takes: PromptVariables {
                message: true,
                ..PromptVariables::default()
            },
            prices: prices.clone(),
        },
    })
}

/// Whether an evaluator compares with labels.
fn of_labels(evaluator: &Evaluator) -> bool {
    let Evaluator {
        classification,
        regression,
        calibration,
        fairness,
        feature_importance,
        retrieval,
        drift: _,
        data_quality: _,
        text: _,
        json_schema: _,
        pii: _,
        toxicity: _,
        injection: _,
        groundedness: _,
        judge: _,
        container: _,
    } = evaluator;
    classification.is_some()
        || regression.is_some()
        || calibration.is_some()
        || fairness.is_some()
        || feature_importance.is_some()
        || retrieval.is_some()
}

/// Whether anything is computed from labels.
fn wants_truth(spec: &EvaluationRunSpec) -> bool {
    let asked = spec.evaluators.is_empty() || spec.evaluators.iter().any(of_labels);
    spec.label.is_some() && asked
}

/// Whether texts are looked at.
pub(crate) fn wants_text(spec: &EvaluationRunSpec) -> bool {
    let of_text = |e: &Evaluator| {
        let by_rule = e.text.is_some() || e.json_schema.is_some() || e.pii.is_some();
        let found = e.toxicity.is_some() || e.injection.is_some();
        by_rule || found || e.groundedness.is_some() || e.judge.is_some()
    };
    spec.evaluators.iter().any(of_text)
}

/// Whether the data itself is looked at.
pub(crate) fn wants_quality(spec: &EvaluationRunSpec) -> bool {
    spec.evaluators.iter().any(|e| e.data_quality.is_some())
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

fn shuffled_so_far(done: usize, all: usize) -> Progress {
    Progress {
        summary: format!("{done}/{all} shuffled columns"),
        ..asked_so_far(done, all)
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
