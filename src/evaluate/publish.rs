//! A run's report: a page for people, and all that was found as JSON. A report that can't be stored takes nothing from the verdict; the
//! reason is said.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{Measured, Places, page::Page as View};
use crate::{
    api::{
        gate::{GateStatus, Verdict},
        run::{EvaluationRunSpec, Page, predictions_file},
        verdict,
    },
    data::{
        Error,
        store::{Environment, Folder},
        uri::Uri,
    },
};

/// Bytes of a gzipped page that are handed to the operator; more are only stored at `output`.
const LARGEST: usize = 256 << 10;

/// What came of the gates, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Every gate.
    pub gates: Vec<GateStatus>,
    /// One sentence.
    pub message: String,
}

/// Judges a run as the planner will.
#[must_use]
pub fn judge(spec: &EvaluationRunSpec, measured: &Measured) -> Judged {
    let metrics = &measured.report.metrics;
    let gates: Vec<GateStatus> = spec
        .gates
        .iter()
        .map(|gate| verdict::judge(gate, metrics))
        .collect();
    let verdict = verdict::verdict(&gates);
    let worst = gates.iter().find(|gate| gate.verdict == verdict);
    let message = match (verdict, worst) {
        (_, None) => "measured; there are no gates".to_owned(),
        (Verdict::Passed, Some(_)) => format!("all {} gates passed", gates.len()),
        (_, Some(worst)) => worst.message.clone(),
    };
    Judged {
        verdict,
        gates,
        message,
    }
}

/// The page.
///
/// # Errors
/// If the template has a mistake.
pub fn page(
    spec: &EvaluationRunSpec,
    measured: &Measured,
    now: jiff::Timestamp,
) -> Result<String, String> {
    let judged = judge(spec, measured);
    let report = &measured.report;
    View {
        title: &spec.name,
        subject: &spec.subject,
        verdict: judged.verdict,
        message: &judged.message,
        rows: report.summary.rows,
        time: Some(now),
        metrics: &report.metrics,
        gates: &judged.gates,
        datasets: &report.datasets,
        details: &measured.details,
    }
    .render()
}

/// All that was found, as JSON.
#[must_use]
pub fn json(spec: &EvaluationRunSpec, measured: &Measured) -> Value {
    let judged = judge(spec, measured);
    let report = &measured.report;
    json!({
        "evaluation": spec.name,
        "target": spec.subject,
        "verdict": judged.verdict,
        "message": judged.message,
        "rows": report.summary.rows,
        "datasets": report.datasets,
        "metrics": report.metrics,
        "gates": judged.gates,
        "details": measured.details,
    })
}

/// Writes page and JSON where the spec says, and gives what the operator is told.
pub async fn publish(spec: &EvaluationRunSpec, measured: &Measured, places: &Places) -> Page {
    let html = match page(spec, measured, jiff::Timestamp::now()) {
        Ok(html) => html,
        Err(message) => {
            return Page {
                message: Some(message),
                ..Page::default()
            };
        }
    };
    let mut told = Page::default();
    if let Some(output) = &spec.output {
        let text = json(spec, measured).to_string();
        let name = format!("{}-{}", spec.name, spec.number);
        let mut files = vec![
            (format!("{name}.json"), Bytes::from(text)),
            (format!("{name}.html"), Bytes::from(html.clone())),
        ];
        match &measured.said {
            Some(Ok(said)) => files.push((predictions_file(&name), said.clone().into())),
            Some(Err(why)) => told.message = Some(format!("outputPredictions: {why}")),
            None => {}
        }
        match store(output, &name, files, places).await {
            Ok(uri) => told.uri = Some(uri),
            Err(error) => {
                tracing::warn!("the report can't be stored: {error}");
                told.message = Some(format!("the report can't be stored at {output}: {error}"));
            }
        }
    }
    match gzip(html.as_bytes()) {
        Ok(zipped) if zipped.len() <= LARGEST => told.html = Some(ByteString(zipped)),
        Ok(zipped) => {
            let large = format!(
                "the report has {} KiB, more than the {} KiB that are kept in the cluster: write output",
                zipped.len() >> 10,
                LARGEST >> 10
            );
            told.message.get_or_insert(large);
        }
        Err(error) => {
            told.message.get_or_insert(error.to_string());
        }
    }
    told
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

async fn store(
    output: &str,
    name: &str,
    files: Vec<(String, Bytes)>,
    places: &Places,
) -> Result<String, Error> {
    let uri: Uri = output.parse()?;
    match Folder::open(&uri, &Environment::prefixed("PERENNIAL_CRED_3_"))? {
        Some(folder) => {
            for (file, bytes) in files {
                folder.put(&file, bytes).await?;
            }
        }
        None => {
            let failed =
                |path: &std::path::Path, e: &std::io::Error| Error::file("writing", path, e);
            std::fs::create_dir_all(&places.output).map_err(|e| failed(&places.output, &e))?;
            for (file, bytes) in files {
                let path = places.output.join(file);
                std::fs::write(&path, bytes).map_err(|e| failed(&path, &e))?;
            }
        }
    }
    Ok(format!("{}/{name}.html", output.trim_end_matches('/')))
}
