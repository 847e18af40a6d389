//! `perennial drift --reference A --current B` and `perennial eval -f FILE`: without a cluster, by the code that runs in one.
//!
//! Exit codes: 0 no drift, or the gates passed; 1 drift, or a gate failed; 2 it could not be measured; 3 too little data for a verdict.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    api::{
        Evaluation,
        evaluation::{Predictions, TableSource},
        gate::Verdict,
        run::{EvaluationRunSpec, Report},
        verdict::short,
    },
    data::table::Source,
    evaluate::{self, Measured, Places, details::Details, drift, publish},
    plan::evaluation::local_run,
    stats::drift::{Method, Report as DriftReport},
};

/// It could not be measured.
pub(super) const UNMEASURED: u8 = 2;
/// Too little data for a verdict.
const INCONCLUSIVE: u8 = 3;
/// All methods.
const METHODS: [Method; 16] = [
    Method::KolmogorovSmirnov,
    Method::ChiSquare,
    Method::Z,
    Method::Wasserstein,
    Method::JensenShannon,
    Method::Psi,
    Method::KullbackLeibler,
    Method::Hellinger,
    Method::TotalVariation,
    Method::Energy,
    Method::AndersonDarling,
    Method::CramerVonMises,
    Method::MannWhitney,
    Method::T,
    Method::G,
    Method::FisherExact,
];

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// One self-contained page.
    Html,
}

/// What two files are compared by.
#[derive(Clone, Debug, Args)]
pub struct DriftFiles {
    /// File (or directory) with the reference: Parquet, Arrow, CSV or JSONL, text also as .gz or .zst.
    #[arg(long, requires = "current")]
    pub reference: Option<PathBuf>,
    /// File with the current data.
    #[arg(long, requires = "reference")]
    pub current: Option<PathBuf>,
    /// Only these columns, separated by commas.
    #[arg(long, value_delimiter = ',', requires = "reference")]
    columns: Option<Vec<String>>,
    /// KS, ChiSquare, Z, Wasserstein, JensenShannon, PSI, KullbackLeibler, Hellinger, TotalVariation, Energy, AndersonDarling,
    /// CramerVonMises, MannWhitney, T, G or FisherExact (default: by type and size).
    #[arg(long, value_parser = method, requires = "reference")]
    method: Option<Method>,
    /// Score from which a column has drifted: `0.2`, or by column `temp=0.3` (may be given several times).
    #[arg(long, value_parser = threshold, requires = "reference")]
    threshold: Vec<(String, f64)>,
    /// Share of columns from which the data has drifted.
    #[arg(long, default_value_t = 0.5, requires = "reference")]
    share: f64,
    /// table, json or html.
    #[arg(short, long, value_enum, default_value_t, requires = "reference")]
    output: Output,
}

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
    /// table, json or html.
    #[arg(short, long, value_enum, default_value_t, requires = "file")]
    output: Output,
}

fn method(text: &str) -> Result<Method, String> {
    let name = |method: &Method| match serde_json::to_value(method) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    };
    let found = METHODS
        .iter()
        .find(|m| name(m).eq_ignore_ascii_case(text))
        .copied();
    found.ok_or_else(|| {
        let names: Vec<String> = METHODS.iter().map(name).collect();
        format!("it is one of {}", names.join(", "))
    })
}

fn threshold(text: &str) -> Result<(String, f64), String> {
    let (column, number) = text.rsplit_once('=').unwrap_or(("*", text));
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{number}` is no number: write 0.2 or COLUMN=0.2"))?;
    Ok((column.to_owned(), number))
}

/// Compares two files.
///
/// # Errors
/// If one can't be read, or there is nothing to compare.
pub fn drift(files: &DriftFiles) -> Result<ExitCode, String> {
    let (Some(reference), Some(current)) = (&files.reference, &files.current) else {
        return Err(
            "write --reference FILE and --current FILE, or the name of a release".to_owned(),
        );
    };
    let open = |path: &Path| {
        let source = Source::open(path, None).map_err(|e| format!("{}: {e}", path.display()))?;
        if source.rows() == 0 {
            return Err(format!("{} has no rows", path.display()));
        }
        if let Some(first) = &source.skipped().first {
            let lines = source.skipped().lines;
            eprintln!(
                "{lines} lines of {} can't be read and are left out; the first: {first}",
                path.display()
            );
        }
        Ok(source)
    };
    let (r, c) = (open(reference)?, open(current)?);
    let how = drift::How {
        columns: files.columns.clone(),
        method: files.method,
        thresholds: files.threshold.iter().cloned().collect(),
        share: Some(files.share),
        charts: matches!(files.output, Output::Html),
    };
    let (report, distributions) = drift::compare(&how, &r, &c, &[]).map_err(|f| f.message)?;
    let missing = |of: &Source, from: &Source| -> Vec<String> {
        let names = of.fields().iter().map(|f| f.name.clone());
        names
            .filter(|name| from.fields().iter().all(|f| f.name != *name))
            .collect()
    };
    let one_sided = (missing(&r, &c), missing(&c, &r));
    let words = drift_words(&report);
    match files.output {
        Output::Json => {
            let mut value = serde_json::to_value(&report).map_err(|e| e.to_string())?;
            if files.columns.is_none() {
                value["onlyInReference"] = json!(one_sided.0);
                value["onlyInCurrent"] = json!(one_sided.1);
            }
            println!("{value:#}");
        }
        Output::Table => {
            println!("{}", drift_table(&report));
            for (names, side) in [(&one_sided.0, "reference"), (&one_sided.1, "current data")] {
                if !names.is_empty() && files.columns.is_none() {
                    println!("only in the {side}: {}", names.join(", "));
                }
            }
            for note in &report.notes {
                println!("{note}");
            }
            println!("{words}");
        }
        Output::Html => {
            let mut measured = Measured {
                details: Details {
                    drift: Some(report.clone()),
                    distributions,
                    ..Details::default()
                },
                report: Report::default(),
            };
            measured.report.summary.rows = i64::try_from(c.rows()).ok();
            for (names, side) in [(&one_sided.0, "reference"), (&one_sided.1, "current data")] {
                if !names.is_empty() {
                    let note = format!("Only in the {side}: {}.", names.join(", "));
                    measured.details.notes.push(note);
                }
            }
            let verdict = if report.drifted {
                Verdict::Failed
            } else {
                Verdict::Passed
            };
            let page = evaluate::page::Page {
                title: "Drift",
                subject: &format!("{} against {}", current.display(), reference.display()),
                verdict,
                message: &words,
                rows: measured.report.summary.rows,
                time: Some(jiff::Timestamp::now()),
                metrics: &[],
                gates: &[],
                datasets: &[],
                details: &measured.details,
            };
            println!("{}", page.render()?);
        }
    }
    Ok(match (report.drift_share, report.drifted) {
        (None, _) => ExitCode::from(UNMEASURED),
        (_, true) => ExitCode::FAILURE,
        (_, false) => ExitCode::SUCCESS,
    })
}

fn drift_words(report: &DriftReport) -> String {
    let (compared, drifted) = (report.compared(), report.drifted_columns());
    match report.drift_share {
        None => "no column could be compared".to_owned(),
        Some(share) => format!(
            "{}: {drifted} of {compared} columns have drifted (share {})",
            if report.drifted { "drift" } else { "no drift" },
            short(share)
        ),
    }
}

fn drift_table(report: &DriftReport) -> String {
    let mut rows = vec![
        [
            "COLUMN",
            "METHOD",
            "SCORE",
            "THRESHOLD",
            "REFERENCE",
            "CURRENT",
            "",
        ]
        .map(str::to_owned),
    ];
    for column in &report.columns {
        let number = |x: Option<f64>| x.map(short).unwrap_or_default();
        let method = column.method.and_then(|m| serde_json::to_value(m).ok());
        rows.push([
            column.column.clone(),
            method
                .and_then(|m| m.as_str().map(str::to_owned))
                .unwrap_or_default(),
            number(column.score),
            number(column.threshold),
            column.reference.count.to_string(),
            column.current.count.to_string(),
            match (&column.message, column.drifted) {
                (Some(message), _) => message.clone(),
                (None, true) => "drifted".to_owned(),
                (None, false) => String::new(),
            },
        ]);
    }
    aligned(&rows)
}

/// Columns of equal width.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |i: usize| {
        rows.iter()
            .map(|row| row[i].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Measures an Evaluation of a file.
///
/// # Errors
/// If there is nothing that can be measured here.
pub async fn eval(files: &EvalFiles) -> Result<ExitCode, String> {
    let file = files.file.as_deref().unwrap_or_default();
    let mut found: Vec<Evaluation> = Vec::new();
    for object in super::validate::objects(file)? {
        if object["kind"] == "Evaluation" {
            let said = object["spec"].clone();
            let one: Evaluation =
                serde_json::from_value(object).map_err(|e| format!("{file}: {e}"))?;
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
        crate::api::run::EvaluationTarget::Predictions(p) => p.source.uri.clone(),
        crate::api::run::EvaluationTarget::Model { .. }
        | crate::api::run::EvaluationTarget::Prompt { .. }
        | crate::api::run::EvaluationTarget::Endpoint { .. } => String::new(),
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
    if spec
        .evaluators
        .iter()
        .any(|e| e.feature_importance.is_some())
    {
        spec.evaluators.retain(|e| e.feature_importance.is_none());
        notes.push("featureImportance asks the model itself: it is left out".to_owned());
    }
    let before = spec.evaluators.len();
    spec.evaluators.retain(|e| e.container.is_none());
    if spec.evaluators.len() < before {
        if spec.evaluators.is_empty() {
            return Err("its evaluators are containers, which run in a cluster".to_owned());
        }
        notes.push("evaluators that are containers run in a cluster: they are left out".to_owned());
    }
    let mut local: BTreeMap<&'static str, PathBuf> = BTreeMap::new();
    let given = [
        ("predictions", &files.predictions),
        ("dataset", &files.dataset),
        ("reference", &files.reference),
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
    let own = match &spec.target {
        crate::api::run::EvaluationTarget::Predictions(p) => Some(&p.source),
        crate::api::run::EvaluationTarget::Model { .. }
        | crate::api::run::EvaluationTarget::Prompt { .. }
        | crate::api::run::EvaluationTarget::Endpoint { .. } => None,
    };
    let read = [
        ("predictions", own),
        ("dataset", spec.dataset.as_ref()),
        ("reference", spec.reference.as_ref()),
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
