//! Drift: whether a sample comes from the same distribution as a reference.
//!
//! [`live`] compares merged sketches of traffic with a profile; [`online`] watches streams; the rest compares whole columns, equal to SciPy and Evidently:
//!
//! ```
//! use perennial::stats::drift::{Method, Sample, compare_columns};
//!
//! let reference = Sample::numbers((0..300).map(|i| Some(f64::from(i))));
//! let current = Sample::numbers((0..300).map(|i| Some(f64::from(i) + 60.0)));
//! let report = compare_columns([("temp", &reference, &current)], None, &Default::default(), 0.5);
//! let temp = &report.columns[0];
//! assert_eq!((temp.method, temp.drifted, report.drifted), (Some(Method::KolmogorovSmirnov), true, true));
//! ```
//!
//! Each statistic's formula and source stands with its function in [`distance`] and [`test`](mod@test).

pub mod bins;
mod classifier;
pub mod distance;
pub mod embedding;
mod kolmogorov;
pub mod live;
mod method;
pub mod online;
mod pair;
mod report;
mod sample;
mod sort;
pub mod test;

pub use classifier::{Domain, MOST_ROWS, domain_classifier, hashed_words};
pub use method::{Method, Outcome, Unsuited};
pub use pair::Pair;
pub use report::{ColumnReport, Comparison, Report, ReportKind, SideReport, compare_columns};
pub use sample::{Description, Form, Sample, SampleBuilder};

#[cfg(test)]
mod tests;
