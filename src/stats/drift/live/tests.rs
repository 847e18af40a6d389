use super::grid::jensen_shannon;
use super::*;
use crate::stats::profile::{Calendar, NoisePoint, ProfileBuilder};
use crate::stats::random::Generator;
use crate::stats::sketch::Cell;

/// A reference of 20,000 rows and a live sample of 5,000, in which each column moves on request.
struct World {
    shift: f64,
    carriers: &'static [&'static str],
}

const KINDS: [(&str, ColumnKind); 3] = [
    ("temp", ColumnKind::Numeric),
    ("dow", ColumnKind::Numeric),
    ("carrier", ColumnKind::Categorical),
];
const CARRIERS: &[&str] = &["UA", "UA", "UA", "AA", "AA", "DL"];

impl World {
    fn row(&self, generator: &mut Generator) -> [Cell<'static>; 3] {
        let normal = (0..12).map(|_| generator.unit()).sum::<f64>() - 6.0;
        [
            Cell::Number(40.0 + 10.0 * (normal + self.shift)),
            Cell::Number(generator.below(7) as f64 + 1.0),
            Cell::Text(self.carriers[generator.below(self.carriers.len())]),
        ]
    }

    fn profile(&self) -> Profile {
        let mut generator = Generator::new(1);
        let mut builder = ProfileBuilder::new(KINDS);
        (0..20_000).for_each(|_| builder.add(&self.row(&mut generator)));
        builder.finish()
    }

    fn live(&self, seed: u64, rows: usize) -> RowSketch {
        let mut generator = Generator::new(seed);
        let mut sketch = RowSketch::new(KINDS);
        for _ in 0..rows {
            let row = self.row(&mut generator);
            sketch.add(KINDS.iter().map(|k| k.0).zip(row));
        }
        sketch
    }
}

const SAME: World = World {
    shift: 0.0,
    carriers: CARRIERS,
};

fn column<'a>(drift: &'a Drift, name: &str) -> &'a ColumnDrift {
    drift.columns.iter().find(|c| c.column == name).unwrap()
}

#[test]
fn traffic_like_the_reference_has_not_drifted() {
    let profile = SAME.profile();
    for seed in 2..12 {
        let drift = compare(&profile, &SAME.live(seed, 5_000), &Rule::default());
        assert_eq!(
            (drift.compared, drift.drifted, drift.share),
            (3, 0, Some(0.0)),
            "{drift:#?}"
        );
        assert!(column(&drift, "temp").score.unwrap() < 0.06, "{drift:#?}");
    }
}

#[test]
fn a_shift_is_measured_in_standard_deviations_of_the_reference() {
    let drift = compare(
        &SAME.profile(),
        &World { shift: 0.5, ..SAME }.live(2, 5_000),
        &Rule::default(),
    );
    let temp = column(&drift, "temp");
    assert!((temp.score.unwrap() - 0.5).abs() < 0.05, "{temp:?}");
    assert_eq!(
        (temp.reason, temp.drifted, drift.drifted),
        (Reason::Drifted, true, 1)
    );
    assert_eq!(drift.columns[0].column, "temp");
}

#[test]
fn a_shift_far_out_of_the_reference_is_measured_too() {
    let drift = compare(
        &SAME.profile(),
        &World {
            shift: 30.0,
            ..SAME
        }
        .live(2, 5_000),
        &Rule::default(),
    );
    assert!(
        (column(&drift, "temp").score.unwrap() - 30.0).abs() < 0.3,
        "{drift:#?}"
    );
}

#[test]
fn other_shares_and_new_categories_are_drift() {
    let live = World {
        carriers: &["UA", "AA", "ZZ"],
        ..SAME
    }
    .live(2, 5_000);
    let drift = compare(&SAME.profile(), &live, &Rule::default());
    let carrier = column(&drift, "carrier");
    assert_eq!(
        (carrier.reason, carrier.method),
        (Reason::Drifted, Some(Method::JensenShannon))
    );
    // P = (1/2, 1/3, 1/6, 0), Q = (1/3, 1/3, 0, 1/3), DL and ZZ apart.
    let exact = jensen_shannon(
        &[0.5, 1.0 / 3.0, 1.0 / 6.0, 0.0],
        &[1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0],
    );
    assert!(
        (carrier.score.unwrap() - exact).abs() < 0.02,
        "{carrier:?} {exact}"
    );
}

#[test]
fn the_score_of_the_binned_columns_is_that_of_the_values() {
    // Against the exact distance on the values: two normal samples, shifted and stretched.
    let (mut generator, mut builder) = (
        Generator::new(4),
        ProfileBuilder::new([("x", ColumnKind::Numeric)]),
    );
    let mut normal = || (0..12).map(|_| generator.unit()).sum::<f64>() - 6.0;
    let mut reference: Vec<f64> = (0..10_000).map(|_| normal()).collect();
    let mut current: Vec<f64> = (0..10_000).map(|_| 0.2 + 1.4 * normal()).collect();
    reference
        .iter()
        .for_each(|&x| builder.add(&[Cell::Number(x)]));
    let profile = builder.finish();
    let mut live = profile.sketch();
    current
        .iter()
        .for_each(|&x| live.add([("x", Cell::Number(x))]));
    reference.sort_by(f64::total_cmp);
    current.sort_by(f64::total_cmp);
    let exact = reference
        .iter()
        .zip(&current)
        .map(|(a, b)| (a - b).abs())
        .sum::<f64>()
        / 10_000.0;
    let got = compare(&profile, &live, &Rule::default()).columns[0]
        .score
        .unwrap();
    assert!((got - exact).abs() < 0.02 * exact, "{got} against {exact}");
}

#[test]
fn nothing_seen_is_not_no_drift() {
    let profile = SAME.profile();
    let mut live = profile.sketch();
    for _ in 0..6_000 {
        live.add([
            ("dow", Cell::Number(1.0)),
            ("temp", Cell::Null),
            ("humidity", Cell::Number(0.3)),
        ]);
    }
    let drift = compare(&profile, &live, &Rule::default());
    assert_eq!(column(&drift, "carrier").reason, Reason::NotObserved);
    assert_eq!(column(&drift, "temp").reason, Reason::NotEnoughSamples);
    assert_eq!(column(&drift, "humidity").reason, Reason::SchemaMismatch);
    assert_eq!((drift.compared, drift.drifted), (1, 1));
    assert_eq!(
        compare(&profile, &profile.sketch(), &Rule::default()).share,
        None
    );
}

#[test]
fn few_samples_are_scored_but_not_judged() {
    let drift = compare(
        &SAME.profile(),
        &World { shift: 2.0, ..SAME }.live(2, 400),
        &Rule::default(),
    );
    let temp = column(&drift, "temp");
    assert_eq!(
        (temp.reason, temp.drifted),
        (Reason::NotEnoughSamples, false)
    );
    assert!(
        temp.score.unwrap() > 1.0 && temp.message.contains("400 of 5000"),
        "{temp:?}"
    );
    assert_eq!(drift.share, None);
}

#[test]
fn a_score_that_samples_of_the_reference_reach_is_noise() {
    let rule = Rule {
        thresholds: BTreeMap::from([("*".to_string(), 1e-6)]),
        min_samples: 100,
        ..Rule::default()
    };
    let drift = compare(&SAME.profile(), &SAME.live(3, 700), &rule);
    assert!(
        drift
            .columns
            .iter()
            .all(|c| c.reason == Reason::WithinNoise),
        "{drift:#?}"
    );
    assert_eq!(drift.share, Some(0.0));
}

#[test]
fn thresholds_are_by_column_with_a_fallback_and_calendar_columns_are_shown_not_counted() {
    let rule = Rule {
        thresholds: BTreeMap::from([("temp".to_string(), 3.0), ("*".to_string(), 0.2)]),
        ..Rule::default()
    };
    assert_eq!((rule.threshold("temp"), rule.threshold("dow")), (3.0, 0.2));
    assert_eq!(Rule::default().threshold("temp"), DEFAULT_THRESHOLD);
    let mut live = World { shift: 2.0, ..SAME }.live(2, 5_000);
    live.columns.insert("dow".into(), {
        let mut sketch = ColumnSketch::new(ColumnKind::Numeric);
        (0..5_000).for_each(|_| sketch.add(Cell::Number(7.0)));
        sketch
    });
    let mut profile = SAME.profile();
    profile.columns[1].calendar = Some(Calendar::HourOfWeek);
    let drift = compare(&profile, &live, &rule);
    assert_eq!(column(&drift, "temp").reason, Reason::WithinThreshold);
    assert_eq!(column(&drift, "dow").reason, Reason::Calendar);
    assert_eq!((drift.compared, drift.drifted), (2, 0));
}

#[test]
fn numbers_that_arrive_as_text_are_a_schema_mismatch() {
    let mut live = SAME.profile().sketch();
    (0..6_000).for_each(|_| live.add([("temp", Cell::Text("41.0"))]));
    let drift = compare(&SAME.profile(), &live, &Rule::default());
    let temp = column(&drift, "temp");
    assert_eq!(temp.reason, Reason::SchemaMismatch);
    assert!(temp.message.contains("6000 of 6000"), "{temp:?}");
}

#[test]
fn a_column_of_many_categories_does_not_drift_by_being_pooled() {
    let kinds = [("user", ColumnKind::Categorical)];
    let mut builder = ProfileBuilder::new(kinds);
    let mut generator = Generator::new(1);
    let mut draw = || format!("u{}", (5_000.0 * generator.unit().powi(3)) as u32);
    (0..20_000).for_each(|_| builder.add(&[Cell::Text(&draw())]));
    let profile = builder.finish();
    let mut live = profile.sketch();
    (0..10_000).for_each(|_| live.add([("user", Cell::Text(&draw()))]));
    let drift = compare(&profile, &live, &Rule::default());
    assert_eq!(drift.drifted, 0, "{drift:#?}");
}

#[test]
fn what_is_compared_survives_being_written_as_json() {
    let profile = SAME.profile();
    let live = World { shift: 0.3, ..SAME }.live(2, 5_000);
    let written = compare(
        &serde_json::from_str(&serde_json::to_string(&profile).unwrap()).unwrap(),
        &serde_json::from_str(&serde_json::to_string(&live).unwrap()).unwrap(),
        &Rule::default(),
    );
    let direct = compare(&profile, &live, &Rule::default());
    for (a, b) in written.columns.iter().zip(&direct.columns) {
        assert!((a.score.unwrap() - b.score.unwrap()).abs() < 1e-9);
        assert_eq!((&a.column, a.reason), (&b.column, b.reason));
    }
}

#[test]
fn a_few_nulls_do_not_make_a_window_too_small() {
    let profile = SAME.profile();
    let judged = |values: usize, nulls: usize| {
        let mut live = SAME.live(2, values);
        (0..nulls).for_each(|_| live.add([("temp", Cell::Null)]));
        column(&compare(&profile, &live, &Rule::default()), "temp").reason
    };
    assert_eq!(judged(4_990, 10), Reason::WithinThreshold);
    assert_eq!(judged(2_000, 4_000), Reason::NotEnoughSamples);
}

#[test]
fn values_that_lost_digits_in_single_precision_have_not_drifted() {
    // Tenths of degrees: 400 distinct values, none of which single precision can hold.
    let (mut generator, mut builder) = (
        Generator::new(4),
        ProfileBuilder::new([("x", ColumnKind::Numeric)]),
    );
    let mut tenth = || (generator.below(400) as f64 / 10.0).mul_add(1.0, 0.1);
    let reference: Vec<f64> = (0..20_000).map(|_| tenth()).collect();
    reference
        .iter()
        .for_each(|&x| builder.add(&[Cell::Number(x)]));
    let profile = builder.finish();
    let score = |value: &dyn Fn(f64) -> f64| {
        let mut live = profile.sketch();
        reference
            .iter()
            .for_each(|&x| live.add([("x", Cell::Number(value(x)))]));
        compare(&profile, &live, &Rule::default()).columns[0]
            .score
            .unwrap()
    };
    assert!(score(&|x| x) < 1e-9, "{}", score(&|x| x));
    assert!(
        score(&|x| f64::from(x as f32)) < 1e-6,
        "{}",
        score(&|x| f64::from(x as f32))
    );
}

#[test]
fn the_longer_a_window_lasts_the_less_it_may_differ() {
    // Weather: one value an hour, which wanders.
    let (mut generator, mut builder) = (
        Generator::new(3),
        ProfileBuilder::new([("temp", ColumnKind::Numeric)]),
    );
    let mut temp = 0.0;
    for hour in 0..2_000 {
        temp = 0.9 * temp + generator.unit() - 0.5;
        for _ in 0..10 {
            let reading = temp + 0.1 * generator.unit();
            builder.add_at(Some(3_600 * hour), &[Cell::Number(reading)]);
        }
    }
    let profile = builder.finish();
    let mut live = profile.sketch();
    (0..1_000).for_each(|i| live.add([("temp", Cell::Number(1.4 + f64::from(i % 10) / 100.0))]));
    let judged = |hours: u64| {
        let rule = Rule {
            min_samples: 500,
            seconds: Some(3_600 * hours),
            ..Rule::default()
        };
        let drift = compare(&profile, &live, &rule);
        (drift.columns[0].reason, drift.columns[0].noise.unwrap())
    };
    // An hour is like that now and then; ten days are not.
    assert_eq!(judged(1).0, Reason::WithinNoise, "{:?}", judged(1));
    assert_eq!(judged(240).0, Reason::Drifted, "{:?}", judged(240));
    let noise: Vec<f64> = [1, 5, 20, 80, 300, 5_000].map(|h| judged(h).1).into();
    assert!(noise.is_sorted_by(|a, b| a >= b), "{noise:?}");
}

#[test]
fn each_of_many_columns_must_differ_more_than_a_single_one() {
    let names: Vec<String> = (0..100).map(|i| format!("x{i}")).collect();
    let kinds = || names.iter().map(|n| (n.as_str(), ColumnKind::Numeric));
    let mut generator = Generator::new(5);
    let mut builder = ProfileBuilder::new(kinds());
    for _ in 0..3_000 {
        let row: Vec<Cell<'_>> = names
            .iter()
            .map(|_| Cell::Number(generator.unit()))
            .collect();
        builder.add(&row);
    }
    let profile = builder.finish();
    let mut live = RowSketch::new(kinds());
    for _ in 0..500 {
        live.add(
            names
                .iter()
                .map(|n| (n.as_str(), Cell::Number(generator.unit()))),
        );
    }
    let noise = |columns: &[&str]| {
        let rule = Rule {
            columns: columns.iter().map(ToString::to_string).collect(),
            thresholds: BTreeMap::from([("*".to_string(), 0.0)]),
            min_samples: 500,
            ..Rule::default()
        };
        let drift = compare(&profile, &live, &rule);
        assert_eq!(drift.drifted, 0, "{drift:#?}");
        column(&drift, "x0").noise.unwrap()
    };
    assert!(noise(&[]) > 1.2 * noise(&["x0"]));
}

#[test]
fn a_profile_of_before_windows_were_drawn_is_read_as_it_was_written() {
    let mut profile = SAME.profile();
    profile.windows = None;
    for column in &mut profile.columns {
        column.null = None;
        column.noise = vec![NoisePoint {
            size: 500,
            score: 0.3,
        }];
    }
    let written = serde_json::to_string(&profile).unwrap();
    assert!(
        !written.contains("windows") && !written.contains("null\":"),
        "{written}"
    );
    let read: Profile = serde_json::from_str(&written).unwrap();
    let drift = compare(
        &read,
        &World { shift: 0.2, ..SAME }.live(2, 5_000),
        &Rule::default(),
    );
    assert_eq!(column(&drift, "temp").noise, Some(0.3));
    assert_eq!(column(&drift, "temp").reason, Reason::WithinNoise);
}
