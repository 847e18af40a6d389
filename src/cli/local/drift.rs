//! `perennial drift --reference A --current B`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use super::{Output, UNMEASURED, aligned};
use crate::{
    api::{gate::Verdict, verdict::short},
    data::table::Source,
    evaluate::{
        self, Measured,
        details::Details,
        drift::{How, compare},
    },
    stats::drift::{Method, Report as DriftReport},
};

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
    let how = How {
        columns: files.columns.clone(),
        method: files.method,
        thresholds: files.threshold.iter().cloned().collect(),
        share: Some(files.share),
        charts: matches!(files.output, Output::Html),
    };
    let (report, distributions) = compare(&how, &r, &c, &[]).map_err(|f| f.message)?;
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
                ..Measured::default()
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
