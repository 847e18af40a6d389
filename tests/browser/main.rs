//! Reports in a real browser (Chromium without a window): what a person would see of them. `hack/test browser` installs it where it can.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use perennial::{
    api::gate::{GateStatus, MetricValue, Verdict},
    evaluate::{
        changed::{Changed, Example as ChangedRow},
        details::{Details, Example, Importance, Slice},
        page::Page,
    },
};
use serde::Deserialize;

/// Programs that are this browser, whichever is there.
const BROWSERS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "google-chrome",
    "chrome",
];

/// What `look.html` writes down of a page in one width.
#[derive(Debug, Deserialize)]
struct Seen {
    /// Width of the window.
    width: u32,
    /// Width of the page, if it is more than the window's.
    scrolls: u32,
    /// Headings of its sections.
    sections: Vec<String>,
    /// Sections that show nothing.
    small: Vec<String>,
    charts: usize,
    /// Charts without height or width.
    flat: usize,
    /// Charts with a number that is none.
    broken: usize,
    /// Words of charts beyond their edge.
    cut: Vec<String>,
    /// What was loaded from elsewhere.
    loaded: Vec<String>,
    /// Elements that no report has, as of HTML in data.
    elements: usize,
    /// Texts of less contrast than WCAG 2.2 asks for (1.4.3: 4.5 to 1).
    faint: Vec<String>,
}

fn browser() -> &'static str {
    let there = |name: &&&str| {
        let found = Command::new(name).arg("--version").output();
        found.is_ok_and(|o| o.status.success())
    };
    BROWSERS.iter().find(there).unwrap_or_else(|| {
        panic!(
            "no browser is here: install Debian's chromium-headless-shell, or leave the suite out"
        )
    })
}

/// Opens the page in several widths, light or dark.
fn look(page: &Path, dark: bool) -> Vec<Seen> {
    let folder = tempfile::tempdir().expect("a folder");
    let look = folder.path().join("look.html");
    fs::write(&look, include_str!("look.html")).expect("look.html");
    // Chromium's preferredColorScheme: 0 is dark, 1 light.
    let output = Command::new(browser())
        .args([
            "--no-sandbox",
            "--headless",
            "--disable-gpu",
            "--enable-logging=stderr",
        ])
        .args([
            "--allow-file-access-from-files",
            "--virtual-time-budget=20000",
            "--dump-dom",
        ])
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!dark)
        ))
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg(format!(
            "file://{}?page=file://{}",
            look.display(),
            page.display()
        ))
        .output()
        .expect("the browser runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let console: Vec<&str> = errors.lines().filter(|l| l.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:#?}");
    let dom = String::from_utf8_lossy(&output.stdout);
    let seen = dom
        .split_once(r#"<pre id="seen">"#)
        .and_then(|(_, rest)| rest.split_once("</pre>"));
    let (seen, _) =
        seen.unwrap_or_else(|| panic!("nothing was seen of {}: {dom}\n{errors}", page.display()));
    let seen = seen
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    serde_json::from_str(&seen).unwrap_or_else(|e| panic!("{e}: {seen}"))
}

/// Opens it in every width and both colour schemes, and holds it to what a reader needs.
fn check(page: &Path, sections: &[&str], charts: usize) {
    for dark in [false, true] {
        let all = look(page, dark);
        assert_eq!(all.len(), 3, "{all:?}");
        for seen in all {
            let of = format!("{} at {} px, dark: {dark}", page.display(), seen.width);
            for section in sections {
                assert!(
                    seen.sections.iter().any(|s| s == section),
                    "{of}: no section {section}: {seen:?}"
                );
            }
            assert_eq!(seen.scrolls, 0, "{of}: wider than the window");
            assert_eq!(seen.small, [""; 0], "{of}: sections that show nothing");
            assert_eq!(
                (seen.charts, seen.flat, seen.broken),
                (charts, 0, 0),
                "{of}: charts"
            );
            assert_eq!(seen.cut, [""; 0], "{of}: words beyond their chart");
            assert_eq!(seen.loaded, [""; 0], "{of}: loads something");
            assert_eq!(
                seen.elements, 0,
                "{of}: HTML of the data is HTML of the page"
            );
            assert_eq!(seen.faint, [""; 0], "{of}: too faint to read");
        }
    }
}

/// Rows of a classifier with a gap, a word that is HTML, and a column that moves.
fn flights(path: &Path, rows: u32, moved: f64) {
    let mut text =
        "id,late,said,score,distance,temperature_at_the_origin_in_the_scheduled_hour,carrier\n"
            .to_owned();
    for i in 0..rows {
        // A fixed sequence that looks random enough: multiples of the golden ratio.
        let u = (f64::from(i) * 0.618_033_988_749_895).fract();
        let v = (f64::from(i) * 0.414_213_562_373_095).fract();
        let late = u8::from(u + 0.2 * v > 0.7);
        let score = (0.15 + 0.7 * u).clamp(0.0, 1.0);
        let carrier = ["UA", "AA", "B6", "<b>EV</b>"][(v * 4.0) as usize];
        let temperature = if i % 50 == 0 {
            String::new()
        } else {
            format!("{:.1}", 20.0 * u + moved)
        };
        let _ = writeln!(
            text,
            "{i},{late},{},{score:.3},{:.0},{temperature},{carrier}",
            u8::from(score > 0.5),
            200.0 + 3000.0 * v * v
        );
    }
    fs::write(path, text).expect("the rows");
}

/// What the plugin prints as a page.
fn plugin(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-perennial"))
        .args(arguments)
        .args(["--output", "html"])
        .current_dir(folder)
        .output()
        .expect("the plugin runs");
    let path = folder.join(name);
    assert!(
        !output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(&path, output.stdout).expect("the page");
    path
}

#[test]
fn a_report_can_be_read_on_any_screen() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    flights(&at("reference.csv"), 3000, 0.0);
    flights(&at("current.csv"), 2000, 8.0);
    fs::write(
        at("evaluation.yaml"),
        r#"
apiVersion: perennial.dev/v1alpha1
kind: Evaluation
metadata: {name: an-evaluation-of-forty-characters-and-more}
spec:
  target: {predictions: {uri: pvc://f/current.csv, prediction: said, score: score}}
  dataset: {uri: pvc://f/current.csv, label: late, key: [id], features: [distance, temperature_at_the_origin_in_the_scheduled_hour, carrier]}
  reference: {uri: pvc://f/reference.csv}
  evaluators:
    - classification: {positive: "1"}
    - drift: {}
    - fairness: {sensitive: [carrier]}
    - calibration: {}
    - dataQuality: {}
  gates:
    - {metric: rocAuc, min: 0.58}
    - {metric: accuracy, min: 0.99}
"#,
    )
    .expect("the Evaluation");
    let files = [
        "--predictions",
        "current.csv",
        "--reference",
        "reference.csv",
    ];
    let page = plugin(
        folder.path(),
        "eval.html",
        &[&["eval", "-f", "evaluation.yaml"][..], &files].concat(),
    );
    let sections = [
        "Gates",
        "Metrics",
        "Calibration",
        "Confusion matrix",
        "Groups of carrier",
        "Worst slices",
        "Columns against the reference",
        "Data quality",
    ];
    check(&page, &sections, 4);
    let page = plugin(
        folder.path(),
        "drift.html",
        &[
            "drift",
            "--reference",
            "reference.csv",
            "--current",
            "current.csv",
        ],
    );
    check(&page, &["Columns against the reference"], 7);
}

#[test]
fn what_only_a_cluster_can_measure_can_be_read_too() {
    let long = "A sentence that nobody cut, with a-word-that-is-longer-than-any-column-of-the-table-and-cannot-be-broken. ".repeat(8);
    let changed = |worse: bool| ChangedRow {
        row: 4711,
        worse,
        label: "late".into(),
        stable: "late (0.812)".into(),
        answer: "not late (0.31)".into(),
        inputs: long.clone(),
    };
    let details = Details {
        changed: Some(Changed {
            rows: 5000,
            worse: 31,
            better: 45,
            examples: vec![changed(true), changed(false)],
        }),
        importance: (0..30)
            .map(|i| Importance {
                column: format!("column{i}"),
                mean: 0.1 / f64::from(1 + i),
                std: 0.001,
            })
            .collect(),
        slices: vec![Slice {
            column: "origin".into(),
            value: long.clone(),
            count: 100,
            error: 0.4,
            overall: 0.3,
        }],
        examples: vec![Example {
            row: 12,
            why: "<script>alert(1)</script>".into(),
            answer: long.clone(),
            reference: Some(long.clone()),
        }],
        notes: vec![long.clone()],
        ..Details::default()
    };
    let number = |name: &str, value: f64| MetricValue {
        name: name.to_owned(),
        value: Some(value),
        lower: Some(value - 0.01),
        upper: Some(value + 0.01),
        samples: Some(5000),
        ..MetricValue::default()
    };
    let metrics = [
        number("accuracy", 0.72),
        number("stable.accuracy", 0.71),
        number("difference.accuracy", 0.01),
    ];
    let gates = [GateStatus {
        metric: "accuracy".into(),
        bound: "minDifference -0.02".into(),
        verdict: Verdict::Inconclusive,
        value: Some(0.72),
        stable: Some(0.71),
        samples: 5000,
        message: long.clone(),
        ..GateStatus::default()
    }];
    let page = Page {
        title: "tone",
        subject: "revision 12ab",
        verdict: Verdict::Inconclusive,
        message: &long,
        rows: Some(5000),
        time: None,
        metrics: &metrics,
        gates: &gates,
        datasets: &[],
        details: &details,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("page.html");
    fs::write(&path, page.render().expect("the page")).expect("the page");
    let sections = [
        "Rows that changed against stable",
        "Feature importance",
        "Worst slices",
        "Answers that scored worst",
    ];
    check(&path, &sections, 0);
}
