//! docs/conditions.md lists every condition and reason, in the words of the constants' own doc comments; links of pages lead somewhere.
//!
//! `UPDATE_DOCS=1 cargo test --test conditions` writes it anew.

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

/// Title, what stands below it, source file, and the block in it to read (all of the file when empty).
const REASONS: &[(&str, &str, &str, &str)] = &[
    (
        "Both kinds of release",
        "Conditions, Events, `status.history[].reason` and `status.rejectedRevisions[].reason` of ModelDeployments and PromptReleases. What they mean for a rollout is in [rollouts.md](rollouts.md).",
        "src/plan/rollout/reason.rs",
        "",
    ),
    (
        "ModelDeployment",
        "",
        "src/plan/model_deployment/reason.rs",
        "",
    ),
    (
        "ModelDeployment: retraining",
        "The condition `Retraining` and its Events; [retraining.md](retraining.md) says more.",
        "src/plan/model_deployment/reason.rs",
        "pub mod retraining {",
    ),
    (
        "ModelDeployment: size and route",
        "The conditions `Autoscaled` and `Routed`; [serving.md](serving.md) says more.",
        "src/plan/model_deployment/reason.rs",
        "pub mod serving {",
    ),
    (
        "ModelDeployment: payload log",
        "The condition `PayloadLogged`; [gateway.md](gateway.md#the-payload-log) says more.",
        "src/plan/model_deployment/reason.rs",
        "pub mod log {",
    ),
    (
        "ModelDeployment: `status.retraining.runs[].result`",
        "",
        "src/plan/model_deployment/retraining.rs",
        "pub mod result {",
    ),
    (
        "ModelDeployment: `status.retraining.triggers[].state`",
        "",
        "src/plan/model_deployment/trigger.rs",
        "",
    ),
    ("PromptRelease", "", "src/plan/prompt_release/reason.rs", ""),
    (
        "TrainingJob",
        "How an attempt ended (`status.attemptHistory[].reason`) is in [data.md](data.md#how-a-run-ends).",
        "src/plan/training_job/reason.rs",
        "",
    ),
    ("Evaluation", "", "src/plan/evaluation/reason.rs", ""),
    (
        "All kinds: a write that the API server refused",
        "The message has its own words. It isn't repeated until something changes or some time has passed.",
        "src/cluster/error.rs",
        "pub enum RefusalReason {",
    ),
];

/// Kind, and the file whose status says which conditions it has.
const KINDS: [(&str, &str); 4] = [
    ("TrainingJob", "src/api/training_job.rs"),
    ("ModelDeployment", "src/api/model_deployment.rs"),
    ("PromptRelease", "src/api/prompt_release.rs"),
    ("Evaluation", "src/api/evaluation/status.rs"),
];

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines of a block, or those of the file that are in none.
fn lines<'a>(text: &'a str, block: &str) -> Vec<&'a str> {
    if block.is_empty() {
        // Indented lines belong to blocks.
        return text.lines().filter(|l| !l.starts_with(' ')).collect();
    }
    let lines = text.lines().skip_while(|line| *line != block).skip(1);
    lines.take_while(|line| *line != "}").collect()
}

/// Each constant (or variant of an enum) with its doc comment, in the order of the source.
fn documented(path: &str, block: &str) -> Vec<(String, String)> {
    let text = read(path);
    let (mut all, mut words) = (Vec::new(), Vec::new());
    for line in lines(&text, block) {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            words.push(comment.trim());
            continue;
        }
        let constant = line.strip_prefix("pub const ");
        let constant = constant.and_then(|c| c.split_once(": &str = \""));
        let value = constant.and_then(|(_, value)| value.strip_suffix("\";"));
        let variant = line.strip_suffix(',').filter(|name| is_camel(name));
        if let Some(name) = value.or(variant.filter(|_| block.starts_with("pub enum"))) {
            assert!(is_camel(name), "{path}: {name} is not in CamelCase");
            assert!(!words.is_empty(), "{path}: {name} has no doc comment");
            all.push((name.to_owned(), words.join(" ")));
        }
        words.clear();
    }
    assert!(!all.is_empty(), "{path}: nothing to document was found");
    let names: BTreeSet<&String> = all.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), all.len(), "{path}: a name stands there twice");
    all
}

fn is_camel(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The condition types of a kind, as the doc comment of its status lists them.
fn conditions_of(path: &str) -> Vec<String> {
    let text = read(path);
    let line = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("/// Conditions: "));
    let line = line.unwrap_or_else(|| panic!("{path}: no line says `/// Conditions: …`"));
    let names = line.trim_end_matches('.').split(", ");
    names.map(str::to_owned).collect()
}

fn table(out: &mut String, head: [&str; 2], rows: &[(String, String)]) {
    let [name, meaning] = head;
    writeln!(out, "| {name} | {meaning} |\n| --- | --- |").unwrap();
    for (name, words) in rows {
        writeln!(out, "| `{name}` | {} |", words.replace('|', "\\|")).unwrap();
    }
}

fn page() -> String {
    let mut out = String::from(
        "# Conditions and reasons\n\n\
         Written from the doc comments of the constants by `UPDATE_DOCS=1 cargo test --test conditions`: don't edit.\n\n\
         `Ready`, `Reconciling` and `Stalled` mean what kstatus means by them and speak of the spec's generation, so `kubectl wait`,\n\
         Helm, Argo CD and Flux understand them. A condition that was once set stays, `True` or `False`. Each message says what to do.\n\n\
         ## Conditions\n",
    );
    let kinds = documented("src/api/condition.rs", "pub mod kind {");
    table(&mut out, ["condition", "when it is True"], &kinds);
    out.push_str("\n| kind | its conditions |\n| --- | --- |\n");
    for (kind, path) in KINDS {
        let names = conditions_of(path);
        for name in &names {
            let known = kinds.iter().any(|(known, _)| known == name);
            assert!(
                known,
                "{path}: {name} is no constant of src/api/condition.rs"
            );
        }
        writeln!(out, "| {kind} | {} |", names.join(", ")).unwrap();
    }
    out.push_str("\n## Reasons\n");
    for (title, words, path, block) in REASONS {
        writeln!(out, "\n### {title}").unwrap();
        if !words.is_empty() {
            writeln!(out, "{words}\n").unwrap();
        }
        table(&mut out, ["reason", "meaning"], &documented(path, block));
    }
    out
}

#[test]
fn the_page_of_conditions_is_what_the_constants_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conditions.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == page,
        "docs/conditions.md is out of date: UPDATE_DOCS=1 cargo test --test conditions"
    );
}

#[test]
fn every_file_of_reasons_is_on_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in fs::read_dir(root.join("src/plan")).unwrap() {
        let file = folder.unwrap().path().join("reason.rs");
        let Ok(file) = file.strip_prefix(root).map(Path::to_path_buf) else {
            continue;
        };
        let name = file.to_string_lossy();
        let listed = REASONS.iter().any(|(_, _, path, _)| *path == name);
        assert!(
            listed || !root.join(&file).exists(),
            "{name} is not in REASONS"
        );
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "quickstart/README.md",
    ];
    let mut pages: Vec<_> = pages.iter().map(|page| root.join(page)).collect();
    let docs = fs::read_dir(root.join("docs")).unwrap();
    pages.extend(docs.map(|entry| entry.unwrap().path()));
    for page in pages
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            let target = match path.is_empty() {
                true => page.clone(),
                false => page.parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|l| l.starts_with('#'));
                let mut anchors = headings.map(as_anchor);
                assert!(anchors.any(|a| a == anchor), "{}: {link}", page.display());
            }
        }
    }
}

/// All text of Rust below a folder.
fn code(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &code(&path);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

#[test]
fn every_test_that_the_page_of_complaints_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let (code, mut names) = (code(&root.join("src")) + &code(&root.join("tests")), 0);
    for name in page.split('`').filter(|n| n.contains('_')) {
        if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            assert!(code.contains(&format!("fn {name}(")), "there is no {name}");
            names += 1;
        }
    }
    assert!(names > 25, "{names}");
    let rows = (1..=30).filter(|n| page.contains(&format!("| {n} | ")));
    assert_eq!(rows.count(), 30);
}

/// The anchor that a heading of Markdown gets.
fn as_anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().replace(' ', "-")
}
