//! What holds for any two columns.

use proptest::prelude::*;

use super::*;
use crate::stats::random::Generator;

const TESTS: [Method; 9] = [
    Method::KolmogorovSmirnov,
    Method::ChiSquare,
    Method::Z,
    Method::AndersonDarling,
    Method::CramerVonMises,
    Method::MannWhitney,
    Method::T,
    Method::G,
    Method::FisherExact,
];
/// A law, as what it makes of a normal deviate.
type Law = fn(f64) -> f64;

const DISTANCES: [Method; 7] = [
    Method::Wasserstein,
    Method::JensenShannon,
    Method::Psi,
    Method::KullbackLeibler,
    Method::Hellinger,
    Method::TotalVariation,
    Method::Energy,
];

fn numbers(values: &[f64]) -> Sample {
    Sample::numbers(values.iter().copied().map(Some))
}

fn sketched(values: &[f64]) -> Sample {
    let mut builder = SampleBuilder::bounded(Form::Double);
    values.iter().for_each(|&v| builder.number(Some(v)));
    builder.finish()
}

fn score(method: Method, r: &Sample, c: &Sample) -> Option<f64> {
    let pair = Pair::new(r, c)?;
    Some(method.compare(&pair, None).ok()?.score)
}

/// A column: few values or many, whole or not, of any size.
fn column() -> impl Strategy<Value = Vec<f64>> {
    let sizes = 1usize..80;
    prop_oneof![
        prop::collection::vec((-5i32..5).prop_map(f64::from), sizes.clone()),
        prop::collection::vec(-1e3..1e3f64, sizes.clone()),
        prop::collection::vec(any::<f64>(), sizes.clone()),
        prop::collection::vec(Just(1.5), sizes),
    ]
}

/// Whole numbers, so that transformations are exact.
fn whole() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-200i32..200).prop_map(f64::from), 2..80)
}

/// Counts of some buckets on both sides, not all of them empty.
fn counts() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    prop::collection::vec((0u32..50, 0u32..50), 1..30).prop_map(|pairs| {
        let mut sides: (Vec<f64>, Vec<f64>) = pairs
            .into_iter()
            .map(|(r, c)| (f64::from(r), f64::from(c)))
            .unzip();
        sides.0[0] += 1.0;
        sides.1[0] += 1.0;
        sides
    })
}

proptest! {
    #[test]
    fn no_column_makes_a_method_panic_and_probabilities_are_some(r in column(), c in column()) {
        for (r, c) in [(numbers(&r), numbers(&c)), (sketched(&r), sketched(&c))] {
            for method in TESTS {
                let p = score(method, &r, &c);
                prop_assert!(p.is_none_or(|p| p.is_nan() || (0.0..=1.0).contains(&p)), "{method:?} {p:?}");
            }
            for method in DISTANCES {
                let d = score(method, &r, &c);
                prop_assert!(d.is_none_or(|d| d.is_nan() || d >= -1e-12), "{method:?} {d:?}");
            }
            let report = compare_columns([("x", &r, &c)], None, &Default::default(), 0.5);
            prop_assert_eq!(report.columns[0].score.is_some(), report.columns[0].message.is_none());
        }
    }

    #[test]
    fn a_column_has_no_distance_to_itself(values in whole()) {
        let x = numbers(&values);
        for method in DISTANCES {
            let d = score(method, &x, &x).unwrap();
            prop_assert!(d.abs() < 1e-6, "{method:?} {d}");
        }
        prop_assert_eq!(score(Method::KolmogorovSmirnov, &x, &x), Some(1.0));
        let p = score(Method::CramerVonMises, &x, &x).unwrap();
        prop_assert!(p > 0.9, "{p}");
    }

    #[test]
    fn these_do_not_care_which_side_is_which(r in whole(), c in whole()) {
        let (r, c) = (numbers(&r), numbers(&c));
        for method in [Method::KolmogorovSmirnov, Method::CramerVonMises, Method::AndersonDarling, Method::T, Method::Energy, Method::TotalVariation] {
            let (a, b) = (score(method, &r, &c), score(method, &c, &r));
            match (a, b) {
                (Some(a), Some(b)) => prop_assert!(a.is_nan() && b.is_nan() || (a - b).abs() < 1e-9, "{method:?} {a} {b}"),
                _ => prop_assert_eq!(a, b),
            }
        }
        let raw = |r, c| Pair::new(r, c).map(|pair| distance::wasserstein_raw(&pair)).unwrap();
        prop_assert!((raw(&r, &c) - raw(&c, &r)).abs() < 1e-9);
    }

    #[test]
    fn distances_of_counts_are_symmetric_and_bounded((r, c) in counts()) {
        for (distance, most) in [
            (distance::psi_of as fn(&[f64], &[f64]) -> f64, f64::INFINITY),
            (distance::jensen_shannon_of, std::f64::consts::LN_2.sqrt()),
            (distance::hellinger_of, 1.0),
            (distance::total_variation_of, 1.0),
            (distance::l_infinity_of, 1.0),
        ] {
            let (a, b) = (distance(&r, &c), distance(&c, &r));
            prop_assert!((a - b).abs() < 1e-9 && (0.0..=most + 1e-12).contains(&a), "{a} {b}");
            prop_assert!(distance(&r, &r).abs() < 1e-6);
        }
        prop_assert!(distance::kullback_leibler_of(&r, &c) >= -1e-12);
        // Le Cam: H² ≤ TV ≤ H √(2 − H²); Pinsker with the midpoint: TV² ≤ 2 JS².
        let (h, tv) = (distance::hellinger_of(&r, &c), distance::total_variation_of(&r, &c));
        prop_assert!(h * h <= tv + 1e-9 && tv <= h * (2.0 - h * h).max(0.0).sqrt() + 1e-6);
        prop_assert!(tv * tv <= 2.0 * distance::jensen_shannon_of(&r, &c).powi(2) + 1e-9);
    }

    #[test]
    fn rank_tests_see_only_the_order(r in whole(), c in whole()) {
        let cubed = |v: &[f64]| numbers(&v.iter().map(|x| x * x * x + 5.0).collect::<Vec<_>>());
        let (a, b) = ((numbers(&r), numbers(&c)), (cubed(&r), cubed(&c)));
        for method in [Method::KolmogorovSmirnov, Method::CramerVonMises, Method::AndersonDarling, Method::MannWhitney, Method::TotalVariation] {
            let (x, y) = (score(method, &a.0, &a.1), score(method, &b.0, &b.1));
            prop_assert!(x == y || x.is_some_and(f64::is_nan), "{method:?} {x:?} {y:?}");
        }
    }

    #[test]
    fn the_scale_of_a_column_does_not_matter(r in whole(), c in whole()) {
        prop_assume!(r.iter().any(|x| *x != r[0]));
        let moved = |v: &[f64]| numbers(&v.iter().map(|x| 4.0 * x + 1024.0).collect::<Vec<_>>());
        for method in [Method::Wasserstein, Method::T, Method::Hellinger, Method::JensenShannon, Method::Psi] {
            let (x, y) = (score(method, &numbers(&r), &numbers(&c)), score(method, &moved(&r), &moved(&c)));
            let (Some(x), Some(y)) = (x, y) else { prop_assert_eq!(x, y); continue };
            prop_assert!(x.is_nan() && y.is_nan() || (x - y).abs() <= 1e-7 * (1.0 + x.abs()), "{method:?} {x} {y}");
        }
    }

    #[test]
    fn the_order_of_rows_and_what_is_missing_change_nothing(mut r in whole(), c in whole(), seed in any::<u64>()) {
        let c = numbers(&c);
        let before: Vec<_> = DISTANCES.iter().map(|m| score(*m, &numbers(&r), &c)).collect();
        let mut generator = Generator::new(seed);
        for i in (1..r.len()).rev() {
            r.swap(i, generator.below(i + 1));
        }
        let gaps = Sample::numbers(r.iter().flat_map(|x| [Some(*x), None, Some(f64::NAN), Some(f64::INFINITY)]));
        let after: Vec<_> = DISTANCES.iter().map(|m| score(*m, &gaps, &c)).collect();
        for (a, b) in before.iter().zip(&after) {
            prop_assert!((a.unwrap() - b.unwrap()).abs() < 1e-9, "{a:?} {b:?}");
        }
        prop_assert_eq!((gaps.missing(), gaps.infinite(), gaps.used()), (2 * r.len(), r.len(), r.len()));
    }

    #[test]
    fn a_sketch_of_few_values_gives_the_exact_scores(r in whole(), c in whole()) {
        let (exact, rough) = ((numbers(&r), numbers(&c)), (sketched(&r), sketched(&c)));
        prop_assert!(!rough.0.is_rounded());
        for method in DISTANCES.into_iter().chain([Method::KolmogorovSmirnov, Method::CramerVonMises]) {
            let (a, b) = (score(method, &exact.0, &exact.1).unwrap(), score(method, &rough.0, &rough.1).unwrap());
            prop_assert!((a - b).abs() < 1e-9, "{method:?} {a} {b}");
        }
    }
}

#[test]
fn sketches_of_many_values_score_as_near_as_the_documentation_says() {
    let mut generator = Generator::new(11);
    let mut normal = || {
        let (u, v) = (1.0 - generator.unit(), generator.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let laws: [(&str, Law); 4] = [
        ("normal", |z| z),
        ("an offset", |z| 1013.0 + 5.0 * z),
        ("log-normal", |z| (1.5 * z).exp()),
        ("nine decades", |z| z.signum() * 10f64.powf(2.0 * z)),
    ];
    for (name, law) in laws {
        let r: Vec<f64> = (0..30_000).map(|_| law(normal())).collect();
        let c: Vec<f64> = (0..30_000).map(|_| law(normal() * 1.1 + 0.1)).collect();
        let (exact, rough) = ((numbers(&r), numbers(&c)), (sketched(&r), sketched(&c)));
        assert!(rough.0.is_rounded(), "{name}");
        for method in DISTANCES {
            // Over the distinct values: of two continuous samples nearly all differ, however alike the laws.
            if method == Method::TotalVariation || method == Method::Hellinger {
                continue;
            }
            let a = score(method, &exact.0, &exact.1).unwrap();
            let b = score(method, &rough.0, &rough.1).unwrap();
            assert!(
                (a - b).abs() <= 0.005 + 0.01 * a.abs(),
                "{name} {method:?}: {a} {b}"
            );
        }
        let d = |pair: (&Sample, &Sample)| {
            test::kolmogorov_smirnov(&Pair::new(pair.0, pair.1).unwrap()).statistic
        };
        let (a, b) = (d((&exact.0, &exact.1)), d((&rough.0, &rough.1)));
        assert!(b <= a + 1e-12 && a - b < 0.005, "{name}: {a} {b}");
    }
}

#[test]
fn categories_beyond_the_bound_are_counted_as_one_on_both_sides() {
    let bounded = |names: &mut dyn Iterator<Item = String>| {
        let mut builder = SampleBuilder::bounded(Form::Category);
        names.for_each(|name| builder.category(Some(&name)));
        builder.finish()
    };
    let r = bounded(&mut (0..40_000).map(|i| format!("k{}", i % 4_000)));
    let c = bounded(&mut (0..30_000).map(|i| format!("k{}", i % 3_000)));
    assert!(r.is_rounded() && c.is_rounded());
    let few = bounded(&mut (0..40_000).map(|i| format!("k{}", i % 40)));
    assert!(!few.is_rounded());
    let jensen = |r, c| score(Method::JensenShannon, r, c).unwrap();
    assert!(jensen(&r, &r) < 1e-9);
    // Exactly: a quarter of the reference's rows is of categories that the others lack.
    let exact = |n: usize| Sample::categories((0..40_000).map(|i| Some(format!("k{}", i % n))));
    let (all, fewer) = (exact(4_000), exact(3_000));
    let truth = jensen(&all, &fewer);
    assert!(jensen(&r, &c) <= truth + 1e-9 && jensen(&r, &c) > 0.0);
    assert_eq!(jensen(&few, &r), jensen(&few, &r));
    // Exact columns and sketches aren't compared.
    assert!(Pair::new(&few, &exact(40)).is_none());
}
