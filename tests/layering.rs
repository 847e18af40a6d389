//! Who may use whom: the table of docs/architecture.md, checked against the sources.

use std::{collections::BTreeSet, fs, path::Path};

/// Module → modules of this crate that it may use.
const TABLE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("stats", &[]),
    ("plan", &["api", "stats"]),
    ("data", &["api", "stats"]),
    ("telemetry", &[]),
    ("yaml", &[]),
    ("cluster", &["api", "plan", "stats", "telemetry"]),
    (
        "controller",
        &["api", "cluster", "plan", "stats", "telemetry"],
    ),
    ("gateway", &["api", "data", "stats", "telemetry"]),
    ("supervise", &["api", "data", "stats", "telemetry"]),
    (
        "evaluate",
        &["api", "data", "stats", "supervise", "telemetry"],
    ),
    (
        "cli",
        &[
            "api",
            "cluster",
            "data",
            "evaluate",
            "plan",
            "stats",
            "telemetry",
            "yaml",
        ],
    ),
    (
        "role",
        &[
            "api",
            "cli",
            "controller",
            "evaluate",
            "gateway",
            "supervise",
            "telemetry",
            "yaml",
        ],
    ),
    ("main", &["role"]),
    ("kubectl", &["role"]),
];

/// Crates that the pure layers must not know.
const IMPURE: &[&str] = &[
    "tokio",
    "reqwest",
    "hyper",
    "axum",
    "object_store",
    "std::fs",
    "std::net",
    "std::env",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Utc::now",
    "rand::",
    "tracing",
];

#[test]
fn each_module_uses_only_the_layers_below_it() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = module_of(&file);
        let Some((_, allowed)) = TABLE.iter().find(|(m, _)| *m == module) else {
            if module != "lib" {
                wrong.push(format!("{file}: the module {module} isn't in the table"));
            }
            continue;
        };
        for used in used_modules(&text) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{file}: {module} may not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn plan_and_stats_are_pure() {
    let mut wrong = Vec::new();
    let sources = sources();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for (file, text) in &sources {
        let for_tests = tests.iter().any(|module| {
            file.strip_prefix(module.as_str())
                .is_some_and(|rest| rest.starts_with(['.', '/']))
        });
        if !matches!(module_of(file).as_str(), "plan" | "stats") || for_tests {
            continue;
        }
        // What is compiled for tests alone may do as it likes: the item after the attribute, to its `;` or its closing brace.
        let mut skipped_to: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(end) = &skipped_to {
                let first = end.is_empty();
                let indent = &line[..line.len() - line.trim_start().len()];
                if first && !line.trim_start().starts_with("#[") {
                    skipped_to = (!code.trim_end().ends_with(';')).then(|| format!("{indent}}}"));
                } else if !first && line.trim_end() == end {
                    skipped_to = None;
                }
                continue;
            }
            if code.contains("#[cfg(test)]") {
                skipped_to = Some(String::new());
                continue;
            }
            // Of kube the traits of resources are fine, as they only read metadata.
            let client = code.contains("kube::")
                && ["Api", "api::", "Client", "client", "Config", "runtime"]
                    .iter()
                    .any(|word| code.contains(word));
            if client || IMPURE.iter().any(|word| code.contains(word)) {
                wrong.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Paths of the modules that this file has for tests alone, without what comes behind their names.
fn test_modules((file, text): &(String, String)) -> Vec<String> {
    let folder = match file.strip_suffix("mod.rs") {
        Some(folder) => folder.to_owned(),
        None => format!("{}/", file.trim_end_matches(".rs")),
    };
    let names = text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| {
        let line = rest.lines().next()?.trim();
        let line = line.strip_prefix("pub(super) ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    names.map(|name| format!("{folder}{name}")).collect()
}

/// Every source file as (path below src, text).
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, out: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                out.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut out = Vec::new();
    walk(&root, &root, &mut out);
    out.sort();
    out
}

fn module_of(file: &str) -> String {
    let first = file.split('/').next().unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

/// First segments after `crate::` (or `perennial::` in the programs), also inside `use crate::{…}`.
fn used_modules(text: &str) -> BTreeSet<String> {
    // Comments may name any module.
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut out = BTreeSet::new();
    for start in ["crate::", "perennial::"] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let mut depth = 0;
                let mut word = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            keep(&mut out, &word);
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            keep(&mut out, &word);
                            word.clear();
                        }
                        c if depth == 0 => word.push(c),
                        _ => {}
                    }
                }
            } else {
                keep(
                    &mut out,
                    rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap_or_default(),
                );
            }
        }
    }
    out
}

fn keep(out: &mut BTreeSet<String>, path: &str) {
    let first = path.trim().split("::").next().unwrap_or_default().trim();
    let known = TABLE.iter().any(|(m, _)| *m == first);
    if known {
        out.insert(first.to_owned());
    }
}
