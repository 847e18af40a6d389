//! `perennial evaluator -- COMMAND ARGS…`: wraps the command of an evaluator that is an image, as an init container of the evaluation's pod. It runs the
//! command, reads the results file that it leaves, and puts down what was read for `perennial evaluate`. An exit code that isn't 0, and results that
//! aren't there or can't be read, end the pod, and so the run, in an error.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::results::{self, LARGEST, Results};
use crate::{
    api::{
        container::ContainerResults,
        gate::MetricValue,
        run::{
            self, ContainerRun, EVALUATOR_OUTPUT_DIR, EXIT_RESULTS, EvaluationRunSpec,
            GATHERED_FILE, INPUT_DIR, RESULTS_DIR, Summary,
        },
    },
    supervise::{
        board::{self, Board},
        exit,
        failure::{Failure, Stop, blocking},
        first_process, output, signals, spec,
        trainer::{self, Task},
    },
};

/// Where things are; the contract's paths in a pod, others in tests.
#[derive(Clone, Debug)]
pub struct Places {
    /// Inputs, and what is known of them.
    pub inputs: PathBuf,
    /// Where the command writes.
    pub outputs: PathBuf,
    /// Where what was read goes.
    pub results: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            inputs: INPUT_DIR.into(),
            outputs: EVALUATOR_OUTPUT_DIR.into(),
            results: RESULTS_DIR.into(),
        }
    }
}

/// An input that was brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gathered {
    /// The file, or the directory of a tree.
    pub path: PathBuf,
    /// What it was then.
    pub digest: String,
}

/// Inputs by their names: `dataset`, `reference`, `predictions`.
pub type Inputs = BTreeMap<String, Gathered>;

/// Runs the role: the spec is [`run::RUN_ENV`], `command` is the evaluator's.
///
/// # Errors
/// Never; what goes wrong is a termination message and an exit code.
pub async fn run(command: Vec<String>) -> Result<ExitCode, crate::data::Error> {
    if std::process::id() == 1 {
        return Ok(exit(first_process::run().await));
    }
    let log = Path::new("/dev/termination-log");
    let ended = match spec::<ContainerRun>() {
        Ok(run) => evaluate(&run, command, &Places::default(), signals()).await,
        Err(failure) => Err(failure),
    };
    let code = match ended {
        Ok(found) => {
            tracing::info!("{} metrics", found.metrics.len());
            0
        }
        Err(failure) => {
            tracing::error!(reason = failure.reason, "{}", failure.message);
            board::write_summary(log, &failure.report().summary);
            failure.code
        }
    };
    std::process::exit(code)
}

/// Runs the command and reads what it leaves, which is put down too.
///
/// # Errors
/// `EvaluatorFailed`, `ResultsMissing` or `ResultsUnreadable`, or what stopped it.
pub async fn evaluate(
    run: &ContainerRun,
    command: Vec<String>,
    places: &Places,
    asked: watch::Receiver<bool>,
) -> Result<Results, Failure> {
    let who = who(run.place);
    let inputs = inputs(&places.inputs)?;
    output::clear(&places.outputs)
        .map_err(|e| Failure::of("EvaluatorFailed", &who, &e, EXIT_RESULTS))?;
    let paths: Vec<(String, String)> = inputs
        .iter()
        .map(|(name, input)| {
            let name = format!("PERENNIAL_{}", name.to_ascii_uppercase());
            (name, input.path.display().to_string())
        })
        .collect();
    // Kubernetes does so for what it knows before.
    let command: Vec<String> = command
        .into_iter()
        .map(|word| {
            let known = paths.iter();
            known.fold(word, |word, (name, path)| {
                word.replace(&format!("$({name})"), path)
            })
        })
        .collect();
    let mut environment: Vec<(String, OsString)> = paths
        .iter()
        .map(|(name, path)| (name.clone(), path.into()))
        .collect();
    environment.push((
        "PERENNIAL_OUTPUT_DIR".to_owned(),
        places.outputs.clone().into(),
    ));
    let task = Task {
        who: &who,
        reason: "EvaluatorFailed",
        command: &command,
        environment,
        progress: None,
        stall: None,
        accepted: results::tests_failed(run.results.format),
    };
    let mut stop = Stop::watch(run.deadline, asked);
    let code = trainer::run(&task, &Board::default(), &mut stop).await?;
    let (run, places) = (run.clone(), places.clone());
    blocking(move || finish(&run, code, &places)).await?
}

fn who(place: usize) -> String {
    format!("evaluators[{place}].container")
}

fn missing(place: usize, what: &str) -> Failure {
    let message = format!("{}: {what}", who(place));
    Failure::new("ResultsMissing", message, EXIT_RESULTS).permanent()
}

fn unreadable(place: usize, what: &str) -> Failure {
    let message = format!("{}: {what}", who(place));
    Failure::new("ResultsUnreadable", message, EXIT_RESULTS).permanent()
}

/// What was gathered; nothing where there is no such file.
///
/// # Errors
/// If it can't be read.
pub fn inputs(directory: &Path) -> Result<Inputs, Failure> {
    let path = directory.join(GATHERED_FILE);
    let wrong = |what: String| {
        let message = format!("{}: {what}", path.display());
        Failure::new("InputUnreadable", message, run::EXIT_INPUT)
    };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Inputs::new()),
        Err(e) => Err(wrong(e.to_string())),
    }
}

fn finish(run: &ContainerRun, code: i32, places: &Places) -> Result<Results, Failure> {
    let place = run.place;
    let file = find(&run.results, &places.outputs).map_err(|what| missing(place, &what))?;
    let name = file.strip_prefix(&places.outputs).unwrap_or(&file);
    let wrong = |what: &str| unreadable(place, &format!("{}: {what}", name.display()));
    let bytes = content(&file).map_err(|what| wrong(&what))?;
    let found = results::parse(run.results.format, &bytes, run.seed).map_err(|e| wrong(&e))?;
    if code != 0 && found.failed + found.errors == 0 {
        let message = format!(
            "{} ended with exit code {code}, which says that tests failed, and {} has none that did",
            who(place),
            name.display()
        );
        return Err(Failure::new("EvaluatorFailed", message, code));
    }
    let found = found
        .finish(run.name.as_deref(), run.max_item_errors)
        .map_err(|e| wrong(&e))?;
    put(&found, &places.results, place).map_err(|e| {
        let message = format!("{}: what was read can't be put down: {e}", who(place));
        Failure::new("ResultsUnreadable", message, EXIT_RESULTS)
    })?;
    Ok(found)
}

/// The one file that is meant.
fn find(results: &ContainerResults, outputs: &Path) -> Result<PathBuf, String> {
    /// Files that are named in a message.
    const SHOWN: usize = 3;
    let mut found = vec![outputs.to_owned()];
    for part in results.path.split('/') {
        let mut next = Vec::new();
        for directory in found {
            if !part.contains('*') {
                next.extend(Some(directory.join(part)).filter(|path| path.exists()));
                continue;
            }
            // What is no directory has no such file.
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            let names = entries.flatten().map(|entry| entry.file_name());
            let fits = names.filter(|name| name.to_str().is_some_and(|n| matches(part, n)));
            next.extend(fits.map(|name| directory.join(name)));
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    let path = &results.path;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "it ended well and left no file {path} in {}: see to it that it writes one there, or correct results.path",
            outputs.display()
        )),
        several => {
            let names = several.iter().take(SHOWN).map(|path| {
                let name = path.strip_prefix(outputs).unwrap_or(path);
                name.display().to_string()
            });
            Err(format!(
                "results.path {path} means {} files ({}, …): write one that means a single one",
                several.len(),
                names.collect::<Vec<_>>().join(", ")
            ))
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!(
            "it has more than {} MiB, which is what is read: leave out what isn't a result",
            LARGEST >> 20
        ));
    }
    Ok(bytes)
}

/// Whole or not at all, and for every user to read: the next container is another's.
pub(super) fn put(found: &Results, directory: &Path, place: usize) -> std::io::Result<()> {
    let path = directory.join(format!("{place}.json"));
    let partial = directory.join(format!(".{place}.partial"));
    fs::create_dir_all(directory)?;
    fs::write(&partial, serde_json::to_vec(found)?)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o644))?;
    fs::rename(&partial, &path)
}

/// Places of evaluators that are images.
pub fn places(spec: &EvaluationRunSpec) -> impl Iterator<Item = usize> {
    let all = spec.evaluators.iter().enumerate();
    all.filter_map(|(place, e)| e.container.as_ref().map(|_| place))
}

/// Whether there is nothing but images: then nobody else asks the target or reads the data.
#[must_use]
pub fn only(spec: &EvaluationRunSpec) -> bool {
    !spec.evaluators.is_empty() && spec.evaluators.iter().all(|e| e.container.is_some())
}

/// What the containers have put down, in their order.
///
/// # Errors
/// If one has put down nothing.
pub fn collect(spec: &EvaluationRunSpec, directory: &Path) -> Result<Vec<Results>, Failure> {
    let one = |place: usize| {
        let path = directory.join(format!("{place}.json"));
        let read = fs::read(&path)
            .map_err(|e| e.to_string())
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()));
        read.map_err(|e| missing(place, &format!("its results aren't there ({e})")))
    };
    places(spec).map(one).collect()
}

/// What was tried, for the report.
#[must_use]
pub fn notes(spec: &EvaluationRunSpec, found: &[Results]) -> Vec<String> {
    let counted = places(spec).zip(found).filter(|(_, r)| r.items > 0);
    counted
        .map(|(place, results)| {
            format!(
                "{}: of {} items {} failed and {} ended in an error.",
                who(place),
                results.items,
                results.failed,
                results.errors
            )
        })
        .collect()
}

/// Adds what containers found; a name is one metric's only.
///
/// # Errors
/// If a metric is there already.
pub fn add(
    spec: &EvaluationRunSpec,
    found: Vec<Results>,
    metrics: &mut Vec<MetricValue>,
) -> Result<(), Failure> {
    for (place, results) in places(spec).zip(found) {
        let taken = |metric: &&MetricValue| metrics.iter().any(|m| m.name == metric.name);
        if let Some(twice) = results.metrics.iter().find(taken) {
            let what = format!(
                "another evaluator has the metric `{}` too: write `name`, which its metrics then begin with",
                twice.name
            );
            return Err(unreadable(place, &what));
        }
        metrics.extend(results.metrics);
    }
    Ok(())
}

/// Brings the inputs of a run to where evaluators read them, and notes what they are: `perennial gather`, spec in [`run::RUN_ENV`].
///
/// # Errors
/// Never; what goes wrong is a termination message and an exit code.
pub async fn gather() -> Result<ExitCode, crate::data::Error> {
    let log = Path::new("/dev/termination-log");
    let places = super::Places::default();
    let ended = match spec::<EvaluationRunSpec>() {
        Ok(spec) => bring(&spec, &places).await,
        Err(failure) => Err(failure),
    };
    Ok(match ended {
        Ok(inputs) => {
            board::write_summary(
                log,
                &Summary {
                    succeeded: true,
                    message: format!("{} inputs", inputs.len()),
                    ..Summary::default()
                },
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            tracing::error!(reason = failure.reason, "{}", failure.message);
            board::write_summary(log, &failure.report().summary);
            exit(failure.code)
        }
    })
}

/// Brings the inputs.
///
/// # Errors
/// `InputUnreadable` or `DigestMismatch`.
pub async fn bring(spec: &EvaluationRunSpec, places: &super::Places) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::new();
    for (index, name, source) in super::rows::sources(spec) {
        let path = super::rows::bring(index, name, source, &places.gathered, places).await?;
        let (named, source, brought) = (name.to_owned(), source.clone(), path.clone());
        let digest = blocking(move || super::rows::verified(&named, &source, &brought))
            .await??
            .1
            .digest;
        inputs.insert(name.to_owned(), Gathered { path, digest });
    }
    let path = places.gathered.join(GATHERED_FILE);
    let text = serde_json::to_vec(&inputs).unwrap_or_default();
    fs::create_dir_all(&places.gathered)
        .and_then(|()| fs::write(&path, text))
        .map_err(|e| {
            let error = crate::data::Error::file("writing", &path, &e);
            Failure::of("InputUnreadable", "inputs", &error, run::EXIT_INPUT)
        })?;
    Ok(inputs)
}
