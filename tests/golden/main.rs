//! Lives of releases, printed step by step and compared with the files beside this one.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes them anew; the difference is then read like code.

mod complaints;
mod labels;
mod lives;
mod marks;
mod prometheus;
mod random;
mod returns;
mod terms;
mod world;

use std::path::PathBuf;

/// Compares a trace with its file.
pub fn golden(name: &str, trace: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, trace).expect("the golden file can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != trace {
        let at = expected
            .lines()
            .zip(trace.lines())
            .position(|(a, b)| a != b)
            .unwrap_or(expected.lines().count().min(trace.lines().count()));
        panic!(
            "{name} differs from {} at line {}:\n  there: {}\n  now:   {}\nUPDATE_GOLDEN=1 writes it anew.\n\n{trace}",
            path.display(),
            at + 1,
            expected.lines().nth(at).unwrap_or("(end)"),
            trace.lines().nth(at).unwrap_or("(end)"),
        );
    }
}
