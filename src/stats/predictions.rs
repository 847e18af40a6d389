//! What live answers predict, as drift sees it: sketches of what was said, in stretches of time.
//!
//! There is no data set of predictions that later ones could be compared with: a profile knows what the training data was, not what the model says of it, and
//! labels are no predictions. So the first full window of a revision is the reference of its later ones ([`Stretches::profile`]). How much
//! windows differ by themselves is seen in that window too: in the stretches of which it is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    labels::Guess,
    profile::{ColumnProfile, Profile, Windows},
    sketch::{Cell, ColumnKind, ColumnSketch, RowSketch},
};

/// The probability of the positive class: where there are two classes.
pub const PROBABILITY: &str = "probability";
/// A number: of outputs with a fraction (`FP32`, `FP64`, …).
pub const NUMBER: &str = "number";
/// A class: what is said otherwise, or the most probable of several.
pub const CLASS: &str = "class";

/// What is compared: the first of those that say most often. A probability says more than the class that follows from it.
const FINEST_FIRST: [&str; 3] = [PROBABILITY, NUMBER, CLASS];
/// Stretches that are kept at most: beyond that each is twice as long.
const MAX_STRETCHES: usize = 48;
/// Buckets of numbers in a stretch at most: a reference has 32 bins.
const MAX_BUCKETS: usize = 256;

/// A sketch of no predictions yet.
#[must_use]
pub fn empty() -> RowSketch {
    RowSketch::new([
        (PROBABILITY, ColumnKind::Numeric),
        (NUMBER, ColumnKind::Numeric),
        (CLASS, ColumnKind::Categorical),
    ])
}

/// Adds what was predicted for a row; `numbers`: what is said is a number, not a class.
pub fn add(sketch: &mut RowSketch, guess: &Guess, numbers: bool) {
    let probability = match guess.probabilities.as_slice() {
        [p] | [_, p] => Some((PROBABILITY, Cell::Number(f64::from(*p)))),
        _ => None,
    };
    let most_probable = match (&guess.said, guess.probabilities.as_slice()) {
        (None, several @ [_, _, _, ..]) => {
            let all = several.iter().enumerate();
            all.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))
                .map(|(class, _)| class.to_string())
        }
        _ => None,
    };
    let said = guess.said.as_ref().or(most_probable.as_ref());
    let said = said.map(|word| match word.parse() {
        Ok(number) if numbers => (NUMBER, Cell::Number(number)),
        _ => (CLASS, Cell::Text(word)),
    });
    sketch.add(probability.into_iter().chain(said));
}

/// Predictions by when they were made, in equal stretches of time; bounded, and the same in whatever order they come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stretches {
    /// How long each is, in minutes.
    pub minutes: i64,
    /// By the unix minute in which they begin.
    pub parts: BTreeMap<i64, RowSketch>,
}

impl Stretches {
    /// Adds what was predicted in so many minutes from this one on.
    pub fn add(&mut self, minute: i64, lasted: i64, rows: &RowSketch) {
        if rows.rows == 0 {
            return;
        }
        self.minutes = self.minutes.max(1);
        while self.minutes < lasted {
            self.widen();
        }
        self.put(minute, rows);
        while self.parts.len() > MAX_STRETCHES {
            self.widen();
        }
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        for (minute, rows) in &other.parts {
            self.add(*minute, other.minutes, rows);
        }
    }

    /// All of them.
    #[must_use]
    pub fn whole(&self) -> RowSketch {
        let mut whole = RowSketch::default();
        for part in self.parts.values() {
            // Columns of a name are of one kind.
            let _ = whole.merge(part);
        }
        whole
    }

    /// Predictions.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.parts.values().map(|part| part.rows).sum()
    }

    /// The profile of what is said most often, with how much windows of it differ from the whole. `None`: nothing was said.
    ///
    /// Of stretches that are fewer than six windows side by side nothing is known but what chance does.
    #[must_use]
    pub fn profile(&self) -> Option<Profile> {
        let whole = self.whole();
        let samples = |name: &str| whole.columns.get(name).map_or(0, ColumnSketch::samples);
        let most = FINEST_FIRST.into_iter().map(samples).max()?;
        let name = FINEST_FIRST
            .into_iter()
            .find(|name| samples(name) == most)?;
        let sketch = whole.columns.get(name).filter(|_| most > 0)?;
        let mut column = ColumnProfile::from_sketch(name, sketch);
        let (first, last) = (self.parts.keys().next()?, self.parts.keys().next_back()?);
        let stretches: Vec<Option<&ColumnSketch>> = (0..=(last - first) / self.minutes)
            .map(|i| {
                self.parts
                    .get(&(first + i * self.minutes))?
                    .columns
                    .get(name)
            })
            .collect();
        let seconds = u64::try_from(self.minutes).unwrap_or(1).saturating_mul(60);
        let windows = Windows::of_stretches(&mut column, &stretches, seconds);
        Some(Profile {
            rows: whole.rows,
            columns: vec![column],
            windows: Some(windows),
        })
    }

    fn put(&mut self, minute: i64, rows: &RowSketch) {
        let place = minute.div_euclid(self.minutes) * self.minutes;
        let part = self.parts.entry(place).or_default();
        if part.merge(rows).is_ok() {
            part.coarsen(MAX_BUCKETS);
        }
    }

    fn widen(&mut self) {
        self.minutes *= 2;
        for (minute, rows) in std::mem::take(&mut self.parts) {
            self.put(minute, &rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{
        drift::live::{self, Reason, Rule},
        random::Generator,
    };

    fn guess(said: Option<&str>, probabilities: &[f32]) -> Guess {
        Guess {
            said: said.map(str::to_owned),
            probabilities: probabilities.to_vec(),
        }
    }

    fn of(guesses: &[Guess], numbers: bool) -> RowSketch {
        let mut sketch = empty();
        guesses.iter().for_each(|g| add(&mut sketch, g, numbers));
        sketch
    }

    fn probabilities(values: impl IntoIterator<Item = f64>) -> RowSketch {
        let guesses: Vec<Guess> = values
            .into_iter()
            .map(|p| guess(None, &[p as f32]))
            .collect();
        of(&guesses, false)
    }

    #[test]
    fn what_is_said_most_finely_is_compared() {
        for (what, guess, numbers, column) in [
            (
                "two classes",
                guess(Some("1"), &[0.2, 0.8]),
                false,
                PROBABILITY,
            ),
            ("one probability", guess(None, &[0.8]), false, PROBABILITY),
            (
                "three classes",
                guess(Some("b"), &[0.2, 0.7, 0.1]),
                false,
                CLASS,
            ),
            ("a class alone", guess(Some("b"), &[]), false, CLASS),
            ("a regression", guess(Some("12.5"), &[]), true, NUMBER),
            ("no number after all", guess(Some("b"), &[]), true, CLASS),
        ] {
            let mut stretches = Stretches::default();
            stretches.add(7, 1, &of(&[guess], numbers));
            let profile = stretches.profile().unwrap();
            assert_eq!(profile.columns[0].name, column, "{what}");
        }
        let unnamed = of(&[guess(None, &[0.2, 0.7, 0.1])], false);
        assert_eq!(
            unnamed.columns[CLASS].categorical().unwrap().get("1"),
            Some(1)
        );
        assert_eq!(Stretches::default().profile(), None);
    }

    #[test]
    fn stretches_are_bounded_and_the_same_in_whatever_order_they_come() {
        let mut generator = Generator::new(3);
        let minutes: Vec<(i64, RowSketch)> = (1000..1700)
            .map(|minute| (minute, probabilities((0..20).map(|_| generator.unit()))))
            .collect();
        let (mut forward, mut backward) = (Stretches::default(), Stretches::default());
        let mut halves = [Stretches::default(), Stretches::default()];
        for (minute, rows) in &minutes {
            forward.add(*minute, 1, rows);
            halves[usize::from(minute % 2 == 0)].add(*minute, 1, rows);
        }
        for (minute, rows) in minutes.iter().rev() {
            backward.add(*minute, 1, rows);
        }
        let [mut merged, other] = halves;
        merged.merge(&other);
        assert_eq!(forward, backward);
        assert_eq!(forward, merged);
        assert_eq!((forward.minutes, forward.rows()), (16, 14_000));
        assert!(forward.parts.len() <= MAX_STRETCHES);
        let text = serde_json::to_string(&forward).unwrap();
        assert!(text.len() < 150_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<Stretches>(&text).unwrap(), forward);
        // Where only hours are known, no stretch is shorter.
        forward.add(0, 60, &minutes[0].1);
        assert_eq!(forward.minutes, 64);
    }

    /// A week in minutes: predictions follow the hour, as traffic does, by `swing` up and down around `middle`.
    fn week(seed: u64, middle: f64, swing: f64) -> Stretches {
        let mut generator = Generator::new(seed);
        let mut stretches = Stretches::default();
        for minute in 0..7 * 24 * 60 {
            let hour = (minute as f64 / (24.0 * 60.0) * std::f64::consts::TAU).sin();
            let rows = (0..10).map(|_| {
                let noise = generator.unit() + generator.unit() - 1.0;
                (middle + swing * hour + 0.2 * noise).clamp(0.0, 1.0)
            });
            stretches.add(minute, 1, &probabilities(rows.collect::<Vec<_>>()));
        }
        stretches
    }

    #[test]
    fn windows_of_the_same_law_have_not_drifted_and_those_of_another_have() {
        let reference = week(1, 0.4, 0.2).profile().unwrap();
        let windows = reference.windows.as_ref().unwrap();
        assert!(windows.lengths.len() >= 3, "{windows:?}");
        let judge = |live: &Stretches, seconds: u64| {
            let rule = Rule {
                seconds: Some(seconds),
                ..Rule::default()
            };
            live::compare(&reference, &live.whole(), &rule).columns[0].clone()
        };
        const WEEK: u64 = 7 * 86_400;
        for seed in 2..6 {
            let same = judge(&week(seed, 0.4, 0.2), WEEK);
            assert!(!same.drifted, "{same:?}");
        }
        let other = judge(&week(9, 0.55, 0.2), WEEK);
        assert!(
            other.drifted && other.reason == Reason::Drifted,
            "{other:?}"
        );
        // A quarter of a day isn't like the whole week, and isn't taken for drift.
        let mut morning = Stretches::default();
        for (minute, rows) in &week(11, 0.4, 0.2).parts {
            if (1440..1800).contains(minute) {
                morning.add(*minute, 1, rows);
            }
        }
        let rows = i64::try_from(morning.whole().rows).unwrap();
        assert!(rows > 1000);
        let short = live::compare(
            &reference,
            &morning.whole(),
            &Rule {
                seconds: Some(6 * 3600),
                min_samples: 1000,
                ..Rule::default()
            },
        );
        assert_eq!(short.columns[0].reason, Reason::WithinNoise, "{short:?}");
    }

    #[test]
    fn classes_that_come_more_often_are_drift() {
        let window = |often: usize| {
            let mut stretches = Stretches::default();
            for minute in 0..100 {
                let words = (0..100).map(|i| if i < often { "yes" } else { "no" });
                let guesses: Vec<Guess> = words.map(|w| guess(Some(w), &[])).collect();
                stretches.add(minute, 1, &of(&guesses, false));
            }
            stretches
        };
        let reference = window(20).profile().unwrap();
        let drifted = |often| {
            live::compare(&reference, &window(often).whole(), &Rule::default()).columns[0].drifted
        };
        assert!(!drifted(20) && !drifted(22) && drifted(60));
    }
}
