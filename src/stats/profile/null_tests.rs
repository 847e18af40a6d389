use super::*;
use crate::stats::random::Generator;
use crate::stats::sketch::Cell;

const HOUR: i64 = 3_600;

/// Forty days from a Tuesday on, five rows an hour: what the calendar says, and what only looks like it.
fn rows() -> Vec<(i64, Vec<Cell<'static>>)> {
    let mut generator = Generator::new(1);
    let mut temp = 0.0;
    let mut rows = Vec::new();
    for hour in 0..40 * 24_i64 {
        temp = 0.95 * temp + generator.unit() - 0.5;
        for _ in 0..5 {
            let day = hour / 24;
            rows.push((
                1_357_016_400 + hour * HOUR,
                vec![
                    Cell::Number((hour % 24) as f64 + 0.9 * generator.unit()),
                    Cell::Text(
                        ["Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Mon"][(day % 7) as usize],
                    ),
                    Cell::Number(rows.len() as f64),
                    Cell::Bool(hour % 168 >= 96 && hour % 168 < 144),
                    // None of the calendar: weather of one place, a constant, noise, a busy shop.
                    Cell::Number(temp),
                    Cell::Text("always"),
                    Cell::Number(generator.unit()),
                    Cell::Number((hour % 24) as f64 + 20.0 * generator.unit()),
                ],
            ));
        }
    }
    rows
}

#[test]
fn columns_that_only_say_when_it_is_are_known_as_such() {
    let kinds = [
        ("hour", ColumnKind::Numeric),
        ("weekday", ColumnKind::Categorical),
        ("id", ColumnKind::Numeric),
        ("weekend", ColumnKind::Categorical),
        ("temp", ColumnKind::Numeric),
        ("constant", ColumnKind::Categorical),
        ("noise", ColumnKind::Numeric),
        ("busy", ColumnKind::Numeric),
    ];
    let follows = |timed: bool| {
        let mut builder = ProfileBuilder::new(kinds);
        for (time, cells) in rows() {
            builder.add_at(timed.then_some(time), &cells);
        }
        let columns = builder.finish().columns;
        columns.iter().map(|c| c.calendar).collect::<Vec<_>>()
    };
    use Calendar::{HourOfDay, HourOfWeek, Time};
    let expected = [
        Some(HourOfDay),
        Some(HourOfWeek),
        Some(Time),
        Some(HourOfWeek),
    ];
    assert_eq!(follows(true), [expected.to_vec(), vec![None; 4]].concat());
    assert_eq!(follows(false), [None; 8], "no times, no calendar");
}

#[test]
fn rows_that_resemble_their_neighbours_are_noisier_than_shuffled_ones() {
    // A slow wave: any run of rows sees only a part of it.
    let wave = |i: usize| (i as f64 / 2_000.0).sin();
    let highest = |rows: Vec<f64>| {
        let mut builder = ProfileBuilder::new([("x", ColumnKind::Numeric)]);
        rows.iter().for_each(|&x| builder.add(&[Cell::Number(x)]));
        let profile = builder.finish();
        let windows = profile.windows.unwrap();
        assert_eq!((windows.timed, windows.total), (false, 40_000));
        assert_eq!(windows.lengths.last(), Some(&6_666));
        let null = profile.columns[0].null.clone().unwrap();
        null.windows.last().unwrap().unwrap().max
    };
    let ordered = highest((0..40_000).map(wave).collect());
    let shuffled = highest((0..40_000).map(|i| wave(i * 7_919 % 40_000)).collect());
    assert!(ordered > 10.0 * shuffled, "{ordered} against {shuffled}");
}

#[test]
fn the_null_is_the_same_every_time_and_bounded_whatever_comes() {
    let make = |rows: usize, columns: usize| {
        let names: Vec<String> = (0..columns).map(|i| format!("x{i}")).collect();
        let mut builder =
            ProfileBuilder::new(names.iter().map(|n| (n.as_str(), ColumnKind::Numeric)));
        let mut generator = Generator::new(6);
        for i in 0..rows {
            let cells: Vec<Cell<'_>> = (0..columns)
                .map(|_| Cell::Number(generator.unit()))
                .collect();
            builder.add_at(Some(i as i64 * 60), &cells);
        }
        builder.finish()
    };
    assert_eq!(make(5_000, 2), make(5_000, 2));
    assert!(make(2_000, 200).bytes() <= MAX_BYTES);
    for rows in [0, 1, 2, 10, 100] {
        let profile = make(rows, 1);
        assert!(
            profile.windows.unwrap().lengths.len() < 2,
            "{rows} rows have no windows to speak of"
        );
    }
    let mut nans = ProfileBuilder::new([("x", ColumnKind::Numeric)]);
    (0..100).for_each(|_| nans.add(&[Cell::Number(f64::NAN)]));
    assert_eq!(nans.finish().columns[0].null, None);
}
