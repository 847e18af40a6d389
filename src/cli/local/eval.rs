//! `perennial eval -f FILE`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{INCONCLUSIVE, Output, UNMEASURED, aligned};
use crate::{
    api::{
        Evaluation,
        evaluation::{EvaluationSpec, Evaluator, Predictions, TableSource},
        gate::Verdict,
        run::{EvaluationRunSpec, EvaluationTarget},
        verdict::short,
    },
    cli::validate,
    data::table::Source,
    evaluate::{self, Measured, Places, publish},
    plan::evaluation::local_run,
};

/// What an Evaluation of a file is measured on.
#[derive(Clone, Debug, Args)]
pub struct EvalFiles {
    /// File with an Evaluation, measured here and now; `-` for standard input.
    #[arg(short, long)]
    pub file: Option<String>,
    /// File with predictions, instead of `target`. Without --dataset it has the label too.
    #[arg(long, requires = "file")]
    predictions: Option<PathBuf>,
    /// File with the labels, instead of `dataset.uri`; joined by `dataset.key`.
    #[arg(long, requires = "file")]
    dataset: Option<PathBuf>,
    /// File with the reference, instead of `reference.uri`.
    #[arg(long, requires = "file")]
    reference: Option<PathBuf>,
    /// File with predictions to compare with, instead of stable or `baseline`; joined by `dataset.key`.
    #[arg(long, requires = "file")]
    baseline: Option<PathBuf>,
    /// What only a cluster can do, left out all the same: names separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', requires = "file")]
    without: Vec<Elsewhere>,
    /// table, json or html.
    #[arg(short, long, value_enum, default_value_t, requires = "file")]
    output: Output,
}

/// What only a cluster can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Elsewhere {
    /// The evaluator that asks the model again.
    #[value(name = "featureImportance")]
    FeatureImportance,
    /// Evaluators that are images.
    #[value(name = "container")]
    Container,
    /// Whether the dataset has rows that the model was trained on.
    #[value(name = "disjointFrom")]
    DisjointFrom,
}

impl Elsewhere {
    const ALL: [Self; 3] = [Self::FeatureImportance, Self::Container, Self::DisjointFrom];

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::FeatureImportance => (
                "featureImportance",
                "the evaluator featureImportance needs a model to call, and this is a file of its answers",
            ),
            Self::Container => (
                "container",
                "evaluators that are containers need a cluster to run in",
            ),
            Self::DisjointFrom => (
                "disjointFrom",
                "dataset.disjointFrom looks into what the training of a version recorded, and this is a file of its answers",
            ),
        }
    }

    fn is_in(self, spec: &EvaluationSpec) -> bool {
        let evaluators = &spec.evaluators;
        match self {
            Self::FeatureImportance => evaluators.iter().any(|e| e.feature_importance.is_some()),
            Self::Container => evaluators.iter().any(|e| e.container.is_some()),
            Self::DisjointFrom => {
                let dataset = spec.dataset.as_ref();
                dataset.is_some_and(|d| d.disjoint_from.is_some())
            }
        }
    }
}

/// Leaves out what was asked to be; the rest must be measurable here, as nothing is left out unasked.
fn leave_out(
    evaluation: &EvaluationSpec,
    without: &[Elsewhere],
    run: &mut EvaluationRunSpec,
) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    for one in Elsewhere::ALL {
        if !one.is_in(evaluation) {
            continue;
        }
        let (name, why) = one.words();
        if !without.contains(&one) {
            return Err(format!(
                "{why}: measure it in a cluster, or leave it out with --without {name}"
            ));
        }
        notes.push(format!("{name} is left out"));
    }
    let left_out = |e: &Evaluator| {
        e.feature_importance.is_some() && without.contains(&Elsewhere::FeatureImportance)
            || e.container.is_some() && without.contains(&Elsewhere::Container)
    };
    let before = run.evaluators.len();
    run.evaluators.retain(|e| !left_out(e));
    if before > 0 && run.evaluators.is_empty() {
        return Err(format!(
            "{}, and no evaluator is left: there is nothing to measure here",
            notes.join(", ")
        ));
    }
    Ok(notes)
}

/// Measures an Evaluation of a file.
///
/// # Errors
/// If there is nothing that can be measured here.
pub async fn eval(files: &EvalFiles) -> Result<ExitCode, String> {
    let file = files.file.as_deref().unwrap_or_default();
    let mut found: Vec<Evaluation> = Vec::new();
    for object in validate::objects(file)? {
        if object["kind"] == "Evaluation" {
            let said = object["spec"].clone();
            let one: Evaluation = serde_path_to_error::deserialize(object)
                .map_err(|e| format!("{file}: {}: {}", e.path(), e.inner()))?;
            let known = serde_json::to_value(&one.spec).map_err(|e| e.to_string())?;
            if let Some(field) = unknown(&said, &known, "spec") {
                return Err(format!("{file}: there is no field {field}"));
            }
            found.push(one);
        }
    }
    let [evaluation] = found.as_slice() else {
        return Err(format!(
            "{file} has {} Evaluations: it takes a file with one",
            found.len()
        ));
    };
    let root = scratch()?;
    let (spec, places, notes) = prepare(evaluation, files, root.path())?;
    for note in notes {
        eprintln!("{note}");
    }
    let measured = match evaluate::measure(spec.clone(), &places).await {
        Ok(measured) => measured,
        Err(failure) => {
            let message = format!("{}: {}", failure.reason, failure.message);
            if !failure.inconclusive {
                return Err(message);
            }
            let verdict = Verdict::Inconclusive;
            match files.output {
                Output::Json => println!(
                    "{:#}",
                    json!({"evaluation": spec.name, "target": spec.subject, "verdict": verdict, "message": message})
                ),
                Output::Html | Output::Table => println!("{verdict:?}: {message}"),
            }
            return Ok(ExitCode::from(INCONCLUSIVE));
        }
    };
    let judged = publish::judge(&spec, &measured);
    match files.output {
        Output::Json => println!("{:#}", publish::json(&spec, &measured)),
        Output::Html => println!(
            "{}",
            publish::page(&spec, &measured, jiff::Timestamp::now())?
        ),
        Output::Table => println!("{}", eval_table(&measured, &judged)),
    }
    Ok(match judged.verdict {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed => ExitCode::FAILURE,
        Verdict::Inconclusive => ExitCode::from(INCONCLUSIVE),
        Verdict::Error | Verdict::Pending | Verdict::Running => ExitCode::from(UNMEASURED),
    })
}

/// The first field that was said and isn't known: none may be ignored in silence.
fn unknown(said: &Value, known: &Value, at: &str) -> Option<String> {
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => said.iter().find_map(|(key, value)| {
            let at = format!("{at}.{key}");
            match known.get(key) {
                Some(known) => unknown(value, known, &at),
                // What is empty isn't written again.
                None if value.is_null() || *value == json!([]) => None,
                None => Some(at),
            }
        }),
        (Value::Array(said), Value::Array(known)) => said
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(i, (said, known))| unknown(said, known, &format!("{at}[{i}]"))),
        _ => None,
    }
}

/// A directory of our own for what is downloaded, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scratch() -> Result<Scratch, String> {
    let name = format!("perennial-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Scratch(path))
}

type Prepared = (EvaluationRunSpec, Places, Vec<String>);

/// What is run, and where its files are.
fn prepare(evaluation: &Evaluation, files: &EvalFiles, root: &Path) -> Result<Prepared, String> {
    let target = &evaluation.spec.target;
    let predictions = match (&files.predictions, &target.predictions) {
        (Some(path), own) => Predictions {
            source: TableSource {
                uri: path.display().to_string(),
                ..TableSource::default()
            },
            ..own.clone().unwrap_or_default()
        },
        (None, Some(own)) => own.clone(),
        (None, None) => {
            return Err(
                "its target is asked in a cluster: write --predictions FILE with its answers"
                    .to_owned(),
            );
        }
    };
    // Labels come from a file of their own where one is named, or where nothing was put in place of what the spec says.
    let joined = files.dataset.is_some()
        || (files.predictions.is_none() && evaluation.spec.dataset.is_some());
    let mut spec = local_run(evaluation, predictions, joined);
    spec.subject = match &spec.target {
        EvaluationTarget::Predictions(p) => p.source.uri.clone(),
        EvaluationTarget::Model { .. }
        | EvaluationTarget::Prompt { .. }
        | EvaluationTarget::Endpoint { .. } => String::new(),
    };
    let mut notes = Vec::new();
    if let (false, Some(path), Some(time)) = (joined, &files.predictions, &spec.time) {
        let source = Source::open(path, None).map_err(|e| format!("{}: {e}", path.display()))?;
        if source.field(time).is_err() {
            notes.push(format!(
                "{} has no column `{time}`: intervals are by rows, not by days",
                path.display()
            ));
            spec.time = None;
        }
    }
    notes.extend(leave_out(&evaluation.spec, &files.without, &mut spec)?);
    let mut local: BTreeMap<&'static str, PathBuf> = BTreeMap::new();
    let given = [
        ("predictions", &files.predictions),
        ("dataset", &files.dataset),
        ("reference", &files.reference),
        ("baseline", &files.baseline),
    ];
    for (name, path) in given {
        if let Some(path) = path {
            local.insert(name, path.clone());
        }
    }
    let here = |path: &PathBuf| TableSource {
        uri: path.display().to_string(),
        ..TableSource::default()
    };
    if let Some(path) = &files.dataset {
        spec.dataset = Some(here(path));
    }
    if let Some(path) = &files.reference {
        spec.reference = Some(here(path));
    }
    if let Some(path) = &files.baseline {
        spec.baseline.get_or_insert_default().source = here(path);
    }
    let own = match &spec.target {
        EvaluationTarget::Predictions(p) => Some(&p.source),
        EvaluationTarget::Model { .. }
        | EvaluationTarget::Prompt { .. }
        | EvaluationTarget::Endpoint { .. } => None,
    };
    let read = [
        ("predictions", own),
        ("dataset", spec.dataset.as_ref()),
        ("reference", spec.reference.as_ref()),
        ("baseline", spec.baseline.as_ref().map(|b| &b.source)),
    ];
    for (name, source) in read {
        let claim = source.is_some_and(|s| s.uri.starts_with("pvc://"));
        if claim && !local.contains_key(name) {
            return Err(format!(
                "{name} is on a claim of the cluster ({}): write --{name} FILE",
                source.map(|s| s.uri.as_str()).unwrap_or_default()
            ));
        }
    }
    let places = Places {
        volumes: root.join("volumes"),
        downloads: root.join("downloads"),
        local,
        ..Places::default()
    };
    Ok((spec, places, notes))
}

fn eval_table(measured: &Measured, judged: &publish::Judged) -> String {
    let mut rows = vec![["METRIC", "VALUE", "INTERVAL", "SAMPLES", ""].map(str::to_owned)];
    for metric in &measured.report.metrics {
        let interval = match (metric.lower, metric.upper) {
            (Some(low), Some(high)) => format!("[{}, {}]", short(low), short(high)),
            _ => String::new(),
        };
        rows.push([
            metric.name.clone(),
            metric.value.map(short).unwrap_or_default(),
            interval,
            metric.samples.map(|n| n.to_string()).unwrap_or_default(),
            metric.message.clone().unwrap_or_default(),
        ]);
    }
    let mut text = aligned(&rows);
    for gate in &judged.gates {
        text += &format!(
            "\n{:?}  {} {}: {}",
            gate.verdict, gate.metric, gate.bound, gate.message
        );
    }
    format!("{text}\n{:?}: {}", judged.verdict, judged.message)
}
