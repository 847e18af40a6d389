use super::super::{MAX_BYTES, ProfileBuilder};
use super::*;
use crate::stats::drift::live::{Drift, Reason, Rule, compare};
use crate::stats::random::Generator;
use crate::stats::sketch::{Cell, ColumnKind, RowSketch};

const HOUR: i64 = 3_600;
/// A Monday, 0:00 UTC.
const MONDAY: i64 = 1_767_571_200;
const KINDS: [(&str, ColumnKind); 2] = [
    ("amount", ColumnKind::Numeric),
    ("kind", ColumnKind::Categorical),
];

/// A row: when, how much, of what.
type Sale = (i64, f64, &'static str);

/// A shop that is busy by day and sells other things in the evening and on weekends; each day is a little different.
fn shop(days: std::ops::Range<i64>, seed: u64, more: f64) -> Vec<Sale> {
    let mut generator = Generator::new(seed);
    let normal = |g: &mut Generator| (0..12).map(|_| g.unit()).sum::<f64>() - 6.0;
    let mut sales = Vec::new();
    for day in days {
        let level = 0.5 * normal(&mut generator) + more;
        let weekend = day.rem_euclid(7) >= 5;
        for hour in 0..24 {
            let angle = (hour as f64 - 9.0) / 24.0 * std::f64::consts::TAU;
            let middle = 10.0 * angle.sin() + if weekend { 6.0 } else { 0.0 };
            let wine = 0.4 + 0.3 * angle.cos() + if weekend { 0.2 } else { 0.0 };
            let rows = 10 + (10.0 * (1.0 + angle.sin())) as i64;
            for i in 0..rows {
                let time = MONDAY + (24 * day + hour) * HOUR + i * HOUR / rows;
                let kind = if generator.unit() < wine {
                    "wine"
                } else {
                    "bread"
                };
                sales.push((time, middle + level + 4.0 * normal(&mut generator), kind));
            }
        }
    }
    sales
}

fn profile(sales: &[Sale], timed: bool) -> Profile {
    let mut builder = ProfileBuilder::new(KINDS);
    for &(time, amount, kind) in sales {
        let cells = [Cell::Number(amount), Cell::Text(kind)];
        builder.add_at(timed.then_some(time), &cells);
    }
    builder.finish()
}

/// Windows of so many hours, beside each other.
fn windows(sales: &[Sale], hours: i64) -> Vec<Vec<Sale>> {
    let of = |sale: &Sale| sale.0.div_euclid(hours * HOUR);
    sales
        .chunk_by(|a, b| of(a) == of(b))
        .map(<[Sale]>::to_vec)
        .collect()
}

fn judge(profile: &Profile, sales: &[Sale], hours: i64, season: Option<Season>) -> Drift {
    let mut live = RowSketch::new(KINDS);
    let mut rule = Rule {
        min_samples: 10,
        seconds: u64::try_from(hours * HOUR).ok(),
        season,
        ..Rule::default()
    };
    for &(time, amount, kind) in sales {
        live.add([("amount", Cell::Number(amount)), ("kind", Cell::Text(kind))]);
        rule.hours.add(time, 1);
    }
    compare(profile, &live, &rule)
}

/// In how many of a hundred windows any column has drifted.
fn alarms(profile: &Profile, sales: &[Sale], hours: i64, season: Option<Season>) -> f64 {
    let all = windows(sales, hours);
    let alarms = all.iter().filter(|w| {
        let drift = judge(profile, w, hours, season);
        assert_eq!(drift.compared, 2, "{drift:#?}");
        drift.drifted > 0
    });
    100.0 * alarms.count() as f64 / all.len() as f64
}

#[test]
fn like_hours_raise_no_alarm_where_the_time_of_day_does() {
    let reference = shop(0..42, 1, 0.0);
    let later = shop(42..84, 2, 0.0);
    let timed = profile(&reference, true);
    let shuffled: Vec<Sale> = {
        let n = reference.len();
        (0..n).map(|i| reference[i * 7_919 % n]).collect()
    };
    let plain = alarms(&profile(&shuffled, false), &later, 3, None);
    println!("plain {plain} %");
    assert!(plain > 90.0, "{plain} %");
    for season in [Season::Day, Season::Week] {
        for hours in [2, 3, 6, 24] {
            let rate = alarms(&timed, &later, hours, Some(season));
            println!("{season:?}, windows of {hours} h: {rate:.2} %");
            assert!(rate < 1.0, "{season:?}, windows of {hours} h: {rate} %");
        }
    }
}

#[test]
fn a_real_shift_is_found_in_the_first_window_whenever_that_is() {
    let timed = profile(&shop(0..42, 1, 0.0), true);
    let found = |season, more: f64| {
        let later = shop(42..49, 3, more);
        let all = windows(&later, 3);
        let drifted = all.iter().filter(|w| {
            let drift = judge(&timed, w, 3, season);
            drift
                .columns
                .iter()
                .any(|c| c.column == "amount" && c.drifted)
        });
        (drifted.count(), all.len())
    };
    assert_eq!(found(Some(Season::Week), 8.0), (56, 56));
    // Hours of the day must differ by more than weekends do.
    assert_eq!(found(Some(Season::Day), 14.0), (56, 56));
    let (blind, of) = found(None, 8.0);
    assert!(
        blind * 10 < of,
        "{blind} of {of}: an hour differs by more from the day"
    );
}

#[test]
fn noise_of_like_hours_is_less_than_that_of_the_time_of_day() {
    let timed = profile(&shop(0..42, 1, 0.0), true);
    let window = &windows(&shop(42..43, 4, 0.0), 3)[5];
    let noise = |season| {
        let drift = judge(&timed, window, 3, season);
        let amount = drift.columns.iter().find(|c| c.column == "amount");
        amount.unwrap().noise.unwrap()
    };
    let [all, day, week] = [None, Some(Season::Day), Some(Season::Week)].map(noise);
    assert!(day < 0.8 * all && week < 0.4 * day, "{all} {day} {week}");
}

#[test]
fn what_is_missing_for_a_season_is_said_and_is_no_verdict() {
    let open = |sale: &&Sale| (8..20).contains(&(sale.0.rem_euclid(24 * HOUR) / HOUR));
    let of_days = |days| shop(0..days, 1, 0.0);
    let by_day: Vec<Sale> = of_days(10).iter().filter(open).copied().collect();
    let mut old = profile(&of_days(10), true);
    old.windows.as_mut().unwrap().hours = Hours::default();
    let live = of_days(1);
    for (what, reference, season, words) in [
        (
            "no times",
            profile(&of_days(10), false),
            Season::Day,
            "nobody knows when",
        ),
        ("an old profile", old, Season::Day, "was profiled before"),
        (
            "two days",
            profile(&of_days(2), true),
            Season::Day,
            "of 2.0 days",
        ),
        (
            "ten days",
            profile(&of_days(10), true),
            Season::Week,
            "of 10.0 days",
        ),
        (
            "closed at night",
            profile(&by_day, true),
            Season::Day,
            "% of the rows came at hours of the day",
        ),
    ] {
        let drift = judge(&reference, &live, 24, Some(season));
        assert_eq!((drift.compared, drift.share), (0, None), "{what}");
        for column in &drift.columns {
            assert_eq!(column.reason, Reason::SeasonUnknown, "{what}");
            assert!(column.message.contains(words), "{what}: {}", column.message);
        }
    }
    let drift = judge(&profile(&by_day, true), &live, 24, None);
    assert_eq!(drift.compared, 2);
    let open: Vec<Sale> = live.iter().filter(open).copied().collect();
    let drift = judge(&profile(&by_day, true), &open, 24, Some(Season::Day));
    assert_eq!((drift.compared, drift.drifted), (2, 0), "{drift:#?}");
}

#[test]
fn hours_are_bounded_whatever_comes_and_the_same_every_time() {
    let make = |columns: usize, days: i64| {
        let names: Vec<String> = (0..columns).map(|i| format!("x{i}")).collect();
        let mut builder =
            ProfileBuilder::new(names.iter().map(|n| (n.as_str(), ColumnKind::Numeric)));
        let mut generator = Generator::new(6);
        for i in 0..12 * days {
            let cells: Vec<Cell<'_>> = (0..columns)
                .map(|_| Cell::Number(generator.unit()))
                .collect();
            builder.add_at(Some(MONDAY + i * 2 * HOUR), &cells);
        }
        builder.finish()
    };
    assert_eq!(make(2, 25), make(2, 25));
    let few = make(20, 25);
    assert!(
        few.columns.iter().all(|c| c.season.is_some()),
        "room for all"
    );
    let many = make(200, 25);
    assert_eq!(many.columns.len(), 200);
    assert!(many.bytes() <= MAX_BYTES, "{}", many.bytes());
    let written = serde_json::to_string(&few).unwrap();
    assert_eq!(serde_json::from_str::<Profile>(&written).unwrap(), few);
}

#[test]
fn shares_come_back_nearly_as_they_were() {
    assert_eq!(decode(&encode(&[])), None);
    assert_eq!(decode(&encode(&[0, 0])), None);
    assert_eq!(decode("zz"), None);
    assert_eq!(
        decode(&encode(&[u64::from(u32::MAX), 0])),
        Some(vec![1.0, 0.0])
    );
    let back = decode(&encode(&[1, 2, 3, 994])).unwrap();
    for (share, expected) in back.iter().zip([0.001, 0.002, 0.003, 0.994]) {
        assert!((share - expected).abs() < 0.004, "{back:?}");
    }
}

#[test]
fn all_hours_together_are_the_column_itself() {
    let reference = shop(0..21, 1, 0.0);
    let timed = profile(&reference, true);
    let mut hours = Hours::default();
    reference.iter().for_each(|sale| hours.add(sale.0, 1));
    assert_eq!(timed.windows.as_ref().unwrap().hours, hours);
    for column in &timed.columns {
        for season in [Season::Day, Season::Week] {
            let windows = timed.windows.as_ref().unwrap();
            let LikeHours {
                grid,
                values,
                spread,
            } = like(column, windows, season, &hours).unwrap();
            assert!((0.98..1.02).contains(&spread), "{spread}");
            let whole = Grid::of(column).unwrap().shares();
            for (share, expected) in grid.shares().iter().zip(&whole) {
                assert!(
                    (share - expected).abs() < 0.01,
                    "{}: {share} {expected}",
                    column.name
                );
            }
            let all = column.count as f64;
            assert!((values - all).abs() < 0.01 * all, "{values} of {all}");
        }
    }
}
