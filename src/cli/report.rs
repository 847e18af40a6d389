//! `kubectl perennial report`: the page of an Evaluation's last run.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::{Place, connect::connect, eval};
use crate::api::{Evaluation, evaluation::EvaluationRun, run::REPORT_FILE};

/// Writes the page to a file and opens it, or prints it (`-`).
pub async fn run(
    place: &Place,
    which: &str,
    number: Option<i64>,
    output: Option<&Path>,
    open: bool,
) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let evaluation = eval::find(&client, &namespace, which).await?;
    let (run, map) = kept(&evaluation, number)?;
    let found = Api::<ConfigMap>::namespaced(client, &namespace)
        .get_opt(&map)
        .await
        .map_err(|e| format!("{map}: {e}"))?
        .ok_or_else(|| format!("ConfigMap {map} isn't there any more: ask for the last run"))?;
    let zipped = found
        .binary_data
        .and_then(|mut data| data.remove(REPORT_FILE));
    let zipped = zipped.ok_or_else(|| format!("ConfigMap {map} has no {REPORT_FILE}"))?;
    let mut html = String::new();
    GzDecoder::new(zipped.0.as_slice())
        .read_to_string(&mut html)
        .map_err(|e| format!("ConfigMap {map}: {e}"))?;
    if output.is_some_and(|path| path == Path::new("-")) {
        println!("{html}");
        return Ok(());
    }
    let name = evaluation.metadata.name.unwrap_or_default();
    let path = output.map_or_else(
        || PathBuf::from(format!("{name}-{run}.html")),
        Path::to_owned,
    );
    std::fs::write(&path, html).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("{}", path.display());
    if open {
        let program = if cfg!(target_os = "macos") {
            "open"
        } else {
            "xdg-open"
        };
        std::process::Command::new(program)
            .arg(&path)
            .spawn()
            .map_err(|e| {
                format!(
                    "{program} can't be started: {e}; open {} yourself",
                    path.display()
                )
            })?;
    }
    Ok(())
}

/// The run that was asked for (the last one with a report, without a number), and its ConfigMap.
fn kept(evaluation: &Evaluation, number: Option<i64>) -> Result<(i64, String), String> {
    let status = evaluation.status.clone().unwrap_or_default();
    let name = evaluation.metadata.name.as_deref().unwrap_or_default();
    let mut runs: Vec<&EvaluationRun> = status.runs.iter().chain(&status.last_run).collect();
    runs.sort_by_key(|run| run.number);
    let run = match number {
        Some(number) => *runs
            .iter()
            .rfind(|run| run.number == number)
            .ok_or_else(|| format!("{name} has no run {number} in its status"))?,
        None => *runs
            .iter()
            .rfind(|run| run.report.is_some())
            .ok_or_else(|| format!("no run of {name} has a report yet"))?,
    };
    let report = run.report.clone().unwrap_or_default();
    match (report.config_map, report.uri, report.message) {
        (Some(map), ..) => Ok((run.number, map)),
        (None, Some(uri), _) => Err(format!(
            "the report of run {} is at {uri}; the cluster keeps only the last ones",
            run.number
        )),
        (None, None, Some(message)) => Err(format!("run {} has no report: {message}", run.number)),
        (None, None, None) => Err(format!(
            "run {} has no report any more: without spec.output only the last ones are kept",
            run.number
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_is_meant_and_one_that_is_gone_is_said() {
        let evaluation: Evaluation = serde_json::from_value(serde_json::json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "quality"},
            "spec": {"target": {"modelDeployment": {"name": "churn"}}},
            "status": {"verdict": "Running", "runs": [
                {"number": 1, "target": "t", "verdict": "Passed", "report": {}},
                {"number": 2, "target": "t", "verdict": "Passed", "report": {"uri": "s3://r/quality-2.html"}},
                {"number": 3, "target": "t", "verdict": "Passed", "report": {"configMap": "quality-3-report"}}],
                "lastRun": {"number": 4, "target": "t", "verdict": "Running"}},
        }))
        .unwrap();
        assert_eq!(
            kept(&evaluation, None),
            Ok((3, "quality-3-report".to_owned()))
        );
        assert!(
            kept(&evaluation, Some(1))
                .unwrap_err()
                .contains("spec.output")
        );
        assert!(
            kept(&evaluation, Some(2))
                .unwrap_err()
                .contains("s3://r/quality-2.html")
        );
        assert!(kept(&evaluation, Some(9)).unwrap_err().contains("no run 9"));
    }
}
