//! Summaries of a column, or of latencies, that are bounded in memory and can be merged.
//!
//! All of them are functions of the *multiset* of what was added: chunking, the order of values and
//! the order of merges never change a byte of the result (tested), so that gateway replicas, minute
//! buckets and restarts can be combined in any way.
//!
//! ```
//! use perennial::stats::sketch::{Cell, ColumnKind, ColumnSketch};
//!
//! let mut here = ColumnSketch::new(ColumnKind::Numeric);
//! let mut there = ColumnSketch::new(ColumnKind::Numeric);
//! here.add(Cell::Number(1.5));
//! there.add(Cell::Null);
//! here.merge(&there).unwrap();
//! assert_eq!((here.samples(), here.nulls()), (1, 1));
//! ```

mod callers;
mod category;
mod column;
mod hashes;
mod latency;
mod numeric;
mod row;

pub use callers::{CallerSketch, MAX_CALLERS};
pub use category::{CategorySketch, MAX_CATEGORIES};
pub use column::{Cell, ColumnKind, ColumnSketch, KindMismatch};
pub use hashes::HashSketch;
pub use latency::LatencyHistogram;
pub use numeric::{MAX_BUCKETS, NumericSketch};
pub use row::{MAX_COLUMNS, MAX_UNKNOWN, RowSketch};
