//! A run from its inputs to its metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Places,
    answer::Answers,
    calibration, changed, chat_endpoint, container,
    details::{Classes, Details},
    disjoint, drift, early, enough, fairness, importance, input_failure, judge,
    measure::{Compared, run as measure_all},
    mirrored, prediction_columns, prompt, prompt_sides,
    protocol::open_inference::{self, Manner},
    quality, retrieval, rows, said,
    side::Chat,
    slices, text,
    texts::Texts,
    truth::Truth,
    wanted::{model_url, unmeasurable, wants_quality, wants_text, wants_truth},
    watched,
};
use crate::{
    api::{
        gate::MetricValue,
        model_deployment::Protocol,
        run::{self, EXIT_INPUT, EvaluationRunSpec, EvaluationTarget, Report, Summary},
        training_job::Progress,
    },
    stats::performance::Binary,
    supervise::{
        board::Board,
        failure::{Failure, blocking},
    },
};

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// What the operator is told.
    pub report: Report,
    /// What people are shown beyond that.
    pub details: Details,
    /// The file of what was said, where it is wanted, or why there is none.
    pub said: Option<Result<Vec<u8>, String>>,
}

/// Measures without telling anyone.
///
/// # Errors
/// Why it can't.
pub async fn measure(spec: EvaluationRunSpec, places: &Places) -> Result<Measured, Failure> {
    work(spec, places, &Board::default()).await
}

pub(super) async fn work(
    spec: EvaluationRunSpec,
    places: &Places,
    board: &Board,
) -> Result<Measured, Failure> {
    if let Some(why) = unmeasurable(&spec) {
        return Err(input_failure("NothingToMeasure", why));
    }
    board.stage("Inputs");
    // Before anything is asked, as without them all would be for nothing.
    let found = container::collect(&spec, &places.results)?;
    let mut loaded = rows::load(&spec, places).await?;
    let held_out = disjoint::check(&spec, &loaded, places).await?;
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
            Some((own, stable.or_else(|| loaded.baseline.clone())))
        }
        (EvaluationTarget::Endpoint { url, .. }, Some(rows), Some(truth)) => {
            let progress = |done: usize| board.progress(asked_so_far(done, rows.count));
            let own = open_inference::ask(url, "the endpoint", rows, truth, manner, &progress);
            Some((own.await?, loaded.baseline.clone()))
        }
        (EvaluationTarget::Predictions(target), Some(rows), Some(_)) => {
            let own = Answers::of_table(&rows.table, prediction_columns(target), "predictions")?;
            Some((own, loaded.baseline.clone()))
        }
        _ => None,
    };
    let mut details = Details {
        notes: held_out.into_iter().chain(baseline_note(&spec)).collect(),
        ..Details::default()
    };
    let (mut replies, mut left) = (None, 0);
    if let (Some(sides), Some(rows)) = (sides, &loaded.asked) {
        let progress = |done: usize, all: usize| board.progress(asked_so_far(done, all));
        match &spec.stop_when {
            None => replies = Some(prompt::ask(sides, rows, manner, &progress).await?),
            Some(stop) => {
                let given = (rows, loaded.said.as_ref());
                let asked = early::ask((&spec, stop), sides, given, manner, &progress).await?;
                details.notes.push(asked.note);
                (replies, left) = (Some(asked.replies), asked.left);
                (loaded.asked, loaded.said) = (Some(asked.rows), asked.said);
            }
        }
    }
    let spent = sides.zip(replies.as_ref());
    let (mut tokens, mut cost) =
        spent.map_or((None, None), |(sides, replies)| replies.spent(sides));
    if let (Some(rows), Some(replies)) = (&loaded.asked, &replies) {
        let (own, stable) = replies.both();
        let stable = stable.or_else(|| loaded.said.take());
        let answers = Texts::of_rows(&spec, &rows.table, (own, stable))?;
        let days = rows.days.clone();
        texts = Some(Texts { days, ..answers });
    }
    let mut mirrored = None;
    if let Some(run) = &spec.mirrored {
        let progress = |done: usize, all: usize| board.progress(asked_so_far(done, all));
        let found = mirrored::gather(run, spec.deadline, &progress).await?;
        details.notes.extend(found.notes());
        if wants_text(&spec) {
            texts = Some(found.texts(&spec)?);
        }
        mirrored = Some(found);
    }
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
    if let (Some(evaluator), Some(url)) = (asked, model_url(&spec.target))
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
    let (mut metrics, mut count, mut details, said) = blocking(move || -> Result<_, Failure> {
        let said = match (&loaded.rows, &truth, &answers, &loaded.asked, &texts) {
            _ if !spec.output_predictions => None,
            (Some(rows), Some(truth), Some((own, _)), ..) => {
                Some(said::answers(&spec, &rows.table, truth, own))
            }
            (.., Some(rows), Some(texts)) => Some(said::texts(&spec, &rows.table, &texts.own)),
            _ => None,
        };
        let found = (truth.zip(answers), texts, replies);
        let (metrics, count) = compute(&spec, &loaded, found, &mut details)?;
        loaded.watched.iter().try_for_each(watched::Watched::end)?;
        Ok((metrics, count, details, said))
    })
    .await??;
    if let Some(found) = mirrored {
        let draws = text::draws(&about);
        count = found.pairs.len();
        metrics.extend(blocking(move || found.measure(draws)).await?);
        // They are callers' words.
        details.examples.clear();
    }
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
            not_asked: i64::try_from(left).ok().filter(|left| *left > 0),
            tokens,
            cost,
            ..Summary::default()
        },
        metrics,
        datasets,
        ..Report::default()
    };
    Ok(Measured {
        report,
        details,
        said,
    })
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
        metrics = measure_all(&compared, rows, truth, sides, spec.seed);
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
        metrics.extend(replies.measure(sides, rows.days.as_deref(), text::draws(spec)));
        sampling(rows, spec, details);
    }
    metrics.extend(drift::run(spec, loaded, details)?);
    if wants_quality(spec) {
        metrics.extend(quality::run(loaded, details)?);
    }
    Ok((metrics, count))
}

/// Whose `stable.<metric>` is.
fn baseline_note(spec: &EvaluationRunSpec) -> Option<String> {
    let baseline = spec.baseline.as_ref()?;
    Some(format!(
        "Compared with {}: its metrics are those of stable here.",
        baseline.source.uri
    ))
}

fn sampling(rows: &rows::Rows, spec: &EvaluationRunSpec, details: &mut Details) {
    if rows.drawn_from > rows.count {
        details.notes.push(format!(
            "Sampling: {} of {} rows, drawn with the seed {}.",
            rows.count, rows.drawn_from, spec.seed
        ));
    }
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
