//! Every statistic against the values that the reference libraries give: `README.md` here has the definitions. The same code is
//! `perennial stats vectors FILE`.

mod files;
mod flights;
mod windows;

use std::path::PathBuf;

use perennial::cli::vectors;

/// What the crate doesn't compute, with the number of cases. A covered one must not stand here.
const NOT_COVERED: &[(&str, usize)] = &[
    // A classifier trained with a library's random numbers: only roughly comparable.
    ("embedding/model", 2),
    // Of pandas' data types, and informative only.
    ("schema/infer_types", 11),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

#[test]
fn statistics_equal_those_of_the_reference_libraries() {
    let outcome = vectors::check(&folder().join("expected.json")).expect("it can be read");
    let declared = NOT_COVERED
        .iter()
        .map(|(what, count)| ((*what).to_owned(), *count))
        .collect();
    assert_eq!(outcome.left, declared);
    assert!(
        outcome.checked > 1_000,
        "only {} cases were checked",
        outcome.checked
    );
    assert!(
        outcome.mismatches.is_empty(),
        "{} mismatches:\n{}",
        outcome.mismatches.len(),
        outcome.mismatches.join("\n")
    );
}
