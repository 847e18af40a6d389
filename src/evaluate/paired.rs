//! A statistic of one value a row: the target's, stable's on the same rows, and their difference, with intervals from the same draws.

use super::measure::{FEWEST_DAYS, LEVEL};
use crate::{
    api::gate::MetricValue,
    stats::{
        paired::{mcnemar, wilcoxon},
        performance::bootstrap,
        sequential::{Bound, Stratum, Units, scores},
    },
};

/// Draws of an interval.
const DRAWS: usize = 500;

/// What is made of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// Their mean.
    Mean,
    /// The least value that so large a share of them doesn't exceed (inverse of the empirical distribution).
    Quantile(f64),
}

/// Values by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// Which rows have one.
    pub rows: Vec<usize>,
    /// The target's.
    pub own: Vec<f64>,
    /// Stable's.
    pub stable: Option<Vec<f64>>,
}

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// Of the bootstrap.
    pub seed: u64,
    /// Whether somebody looked at the values before all were there, and might have stopped: then intervals are those that hold at every look at once, of means
    /// of values in 0…1, and other values have none.
    pub peeked: bool,
}

impl From<u64> for Draws {
    fn from(seed: u64) -> Self {
        Self {
            seed,
            peeked: false,
        }
    }
}

/// 95 % confidence sequences of the means of both sides and of their difference, row by row.
fn at_every_look(values: &Values) -> Vec<Option<(f64, f64)>> {
    let bounded = |all: &[f64]| all.iter().all(|x| (0.0..=1.0).contains(x));
    let stable = values.stable.as_deref();
    if !bounded(&values.own) || !stable.is_none_or(bounded) {
        return Vec::new();
    }
    let ends = |all: &mut dyn Iterator<Item = f64>| {
        let mut units = Units::default();
        all.for_each(|x| units.add(x, 1));
        let one = Stratum {
            candidate: units,
            ..Stratum::default()
        };
        let found = scores(&[one], Bound::Min(0.0), 1.0 - LEVEL);
        found.lower.zip(found.upper)
    };
    let mut all = vec![ends(&mut values.own.iter().copied())];
    if let Some(stable) = stable {
        all.push(ends(&mut stable.iter().copied()));
        // From −1…1 to 0…1 and back.
        let pairs = values.own.iter().zip(stable);
        let moved = ends(&mut pairs.map(|(a, b)| f64::midpoint(1.0, a - b)));
        all.push(moved.map(|(low, high)| (2.0 * low - 1.0, 2.0 * high - 1.0)));
    }
    all
}

/// `<name>`, and beside stable `stable.<name>` and `difference.<name>`; without rows no value, and `excuse`. `days` is a group for each row there is:
/// whole days are drawn.
#[must_use]
pub fn measure(
    name: &str,
    values: &Values,
    days: Option<&[usize]>,
    statistic: Statistic,
    (draws, excuse): (impl Into<Draws>, &str),
) -> Vec<MetricValue> {
    let draws: Draws = draws.into();
    let own = Prepared::of(&values.own, statistic);
    let stable = values.stable.as_ref();
    let stable = stable.map(|stable| Prepared::of(stable, statistic));
    let all = |weights: Option<&[f64]>| {
        let own = own.value(weights);
        match &stable {
            None => vec![own],
            Some(stable) => {
                let stable = stable.value(weights);
                vec![own, stable, own - stable]
            }
        }
    };
    let days: Option<Vec<usize>> =
        days.map(|days| values.rows.iter().map(|&row| days[row]).collect());
    let few = days.as_ref().is_some_and(|days| {
        let mut distinct = days.clone();
        distinct.sort_unstable();
        distinct.dedup();
        distinct.len() < FEWEST_DAYS
    });
    let count = values.rows.len();
    let ends = match (few || count == 0, draws.peeked, statistic) {
        (false, true, Statistic::Mean) => at_every_look(values),
        // No interval is better than one that is too narrow: of too few days, or for a look that wasn't the first.
        (true, ..) | (_, true, _) => Vec::new(),
        (false, false, _) => bootstrap(count, days.as_deref(), DRAWS, LEVEL, draws.seed, |w| {
            all(Some(w))
        }),
    };
    let prefixes = ["", "stable.", "difference."];
    // Rows of one day are no independent trials, which the tests take them for.
    let tested = statistic == Statistic::Mean && days.is_none() && count > 0 && !draws.peeked;
    let p_value = values.stable.as_ref().filter(|_| tested);
    let p_value = p_value.map(|stable| p_value_of(&values.own, stable));
    let points = all(None).into_iter().zip(prefixes).enumerate();
    points
        .map(|(place, (value, prefix))| {
            let value = Some(value).filter(|x| x.is_finite());
            let interval = ends.get(place).copied().flatten();
            let interval = interval.filter(|_| value.is_some());
            MetricValue {
                name: format!("{prefix}{name}"),
                value,
                lower: interval.map(|i| i.0),
                upper: interval.map(|i| i.1),
                samples: i64::try_from(count).ok(),
                p_value: p_value.filter(|_| prefix == "difference."),
                message: value.is_none().then(|| excuse.to_owned()),
                ..MetricValue::default()
            }
        })
        .collect()
}

/// Of two sides of the same rows: McNemar's test where all is yes or no, else Wilcoxon's.
#[must_use]
pub fn p_value_of(own: &[f64], stable: &[f64]) -> f64 {
    let binary = own.iter().chain(stable).all(|x| *x == 0.0 || *x == 1.0);
    let differences = own.iter().zip(stable).map(|(a, b)| a - b);
    if !binary {
        return wilcoxon(&differences.collect::<Vec<f64>>());
    }
    let (mut wins, mut losses) = (0, 0);
    for difference in differences {
        wins += u64::from(difference > 0.0);
        losses += u64::from(difference < 0.0);
    }
    mcnemar(wins, losses)
}

/// Values in the order that the statistic looks at them.
struct Prepared<'a> {
    values: &'a [f64],
    order: Vec<usize>,
    statistic: Statistic,
}

impl<'a> Prepared<'a> {
    fn of(values: &'a [f64], statistic: Statistic) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        if matches!(statistic, Statistic::Quantile(_)) {
            order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        }
        Self {
            values,
            order,
            statistic,
        }
    }

    fn value(&self, weights: Option<&[f64]>) -> f64 {
        let weight = |row: usize| weights.map_or(1.0, |w| w[row]);
        let whole: f64 = self.order.iter().map(|&row| weight(row)).sum();
        match self.statistic {
            Statistic::Mean => {
                let rows = self.order.iter();
                rows.map(|&row| self.values[row] * weight(row)).sum::<f64>() / whole
            }
            Statistic::Quantile(share) => {
                let mut below = 0.0;
                let found = self.order.iter().find(|&&row| {
                    below += weight(row);
                    // A hair of slack: 0.95 × 20 is 19, whatever floats say.
                    below > 0.0 && below >= share * whole - 1e-9
                });
                found.map_or(f64::NAN, |&row| self.values[row])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(own: &[f64], stable: Option<&[f64]>) -> Values {
        Values {
            rows: (0..own.len()).collect(),
            own: own.to_vec(),
            stable: stable.map(<[f64]>::to_vec),
        }
    }

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let seen: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        for (share, expected) in [(0.5, 10.0), (0.95, 19.0), (0.99, 20.0), (0.01, 1.0)] {
            let found = measure(
                "latency",
                &values(&seen, None),
                None,
                Statistic::Quantile(share),
                (1, ""),
            );
            assert_eq!(found[0].value, Some(expected), "{share}");
            assert!(found[0].lower <= found[0].value && found[0].value <= found[0].upper);
        }
    }

    #[test]
    fn the_difference_is_drawn_with_both_sides_together() {
        // Rows differ much, the sides by the same in each: the difference is certain, the means aren't.
        let own: Vec<f64> = (0..100).map(|i| f64::from(i % 10)).collect();
        let stable: Vec<f64> = own.iter().map(|x| x + 0.25).collect();
        let found = measure(
            "score",
            &values(&own, Some(&stable)),
            None,
            Statistic::Mean,
            (1, ""),
        );
        let names: Vec<&str> = found.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["score", "stable.score", "difference.score"]);
        let width = |m: &MetricValue| m.upper.unwrap() - m.lower.unwrap();
        assert!(
            width(&found[0]) > 0.5 && width(&found[2]) < 1e-9,
            "{found:?}"
        );
        assert!((found[2].value.unwrap() + 0.25).abs() < 1e-9);
        assert!(found[2].p_value.unwrap() < 1e-9 && found[0].p_value.is_none());
    }

    #[test]
    fn without_rows_there_is_no_value_and_with_few_days_no_interval() {
        let none = measure(
            "score",
            &Values::default(),
            None,
            Statistic::Mean,
            (1, "no row"),
        );
        assert_eq!(
            (none[0].value, none[0].message.as_deref()),
            (None, Some("no row"))
        );
        let days = [0, 0, 1, 1];
        let few = measure(
            "score",
            &values(&[1.0, 2.0, 3.0, 4.0], None),
            Some(&days),
            Statistic::Mean,
            (1, ""),
        );
        assert_eq!((few[0].value, few[0].lower), (Some(2.5), None));
    }
}
