//! What labels say of predictions: row by row, by caller, and as units of a sequential test.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cohort, Guess, word};
use crate::stats::{
    performance::{Binary, calibration, surprise},
    sequential::{
        Bound, Finding, LatencySide, LatencyStratum, Stratum, Units, judge as verdict, means,
        scores,
    },
    sketch::LatencyHistogram,
};

/// Bins of probabilities, as `ece` of Evaluations has them.
const BINS: usize = 10;
/// Different classes that are told apart.
const MAX_WORDS: usize = 1000;
/// The largest count that a histogram is given for a value.
const LARGEST: f64 = 1e9;

/// How good predictions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Share of rows whose class was predicted.
    Accuracy,
    /// Mean of −ln of the probability given to the true class, clipped at the float64 epsilon.
    LogLoss,
    /// Mean of (probability of the positive class − truth)².
    Brier,
    /// Expected calibration error over ten bins of equal width.
    Ece,
    /// Area under the ROC curve: how likely a positive row has a higher probability than a negative one, ties half.
    RocAuc,
    /// Mean absolute error.
    Mae,
    /// Root of the mean squared error.
    Rmse,
}

/// How predictions are to be read: the same for both sides of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
struct Classes {
    /// Those that were seen, numbers by their size and before words: the order in which scikit-learn has their probabilities.
    words: Vec<String>,
    positive: String,
    /// Single numbers are probabilities, as some of them are fractions.
    fractions: bool,
}

/// Why a row has no loss.
enum Trouble {
    /// Its label is of another kind than what is predicted.
    Label,
    /// The model doesn't give what the metric needs.
    Model(String),
}

/// What a sample is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Unit {
    /// The sum over its rows.
    sum: f64,
    rows: u64,
    requests: u64,
    labelled: u64,
}

/// What labels say of one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// Requests that are old enough.
    pub requests: u64,
    /// Of those, with labels that can be used.
    pub labelled: u64,
    /// Their rows.
    pub rows: u64,
    /// Answers whose predictions couldn't be read.
    pub unread: u64,
    sum: f64,
    callers: BTreeMap<u64, Unit>,
    /// Of probabilities: truth and score, and whose they are.
    scored: Vec<(u64, bool, f64)>,
}

impl Outcomes {
    /// What labels say of each of these cohorts, read alike; `positive` is the class that probabilities are of (`1`).
    ///
    /// # Errors
    /// The metric can't be computed of what the model answers, as a sentence.
    pub fn of<'a, const N: usize>(
        cohorts: [&[Cohort<'a>]; N],
        metric: Metric,
        positive: Option<&str>,
    ) -> Result<[Vec<Outcomes>; N], String> {
        let classes = Classes::of(cohorts.iter().copied().flatten(), positive);
        let mut all = std::array::from_fn(|_| Vec::new());
        for (into, cohorts) in all.iter_mut().zip(cohorts) {
            for cohort in cohorts {
                into.push(classes.outcomes(cohort, metric)?);
            }
        }
        Ok(all)
    }

    /// The loss of each labelled row of a cohort, in the order of answers: for accuracy 1 where the class is another.
    ///
    /// # Errors
    /// As [`Outcomes::of`].
    pub fn losses(
        cohort: &Cohort<'_>,
        metric: Metric,
        positive: Option<&str>,
    ) -> Result<Vec<f64>, String> {
        let classes = Classes::of([cohort].into_iter(), positive);
        let mut all = Vec::new();
        for request in &cohort.requests {
            let Some(label) = request.label else { continue };
            for (guess, truth) in request.prediction.rows.iter().zip(&label.rows) {
                match (classes.loss(metric, guess, truth), metric) {
                    (Ok(right), Metric::Accuracy) => all.push(1.0 - right),
                    (Ok(loss), _) => all.push(loss),
                    (Err(Trouble::Label), _) => {}
                    (Err(Trouble::Model(why)), _) => return Err(why),
                }
            }
        }
        Ok(all)
    }

    /// Which share of the requests is labelled; `None` without requests.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.labelled as f64 / self.requests as f64)
    }

    /// The metric over all rows; `None` without rows.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f64> {
        if self.rows == 0 {
            return None;
        }
        let mean = self.sum / self.rows as f64;
        Some(match metric {
            Metric::Rmse => mean.sqrt(),
            Metric::Ece => {
                let (truth, scores): (Vec<bool>, Vec<f64>) =
                    self.scored.iter().map(|(_, truth, p)| (*truth, *p)).unzip();
                calibration(&truth, &scores, BINS).ece
            }
            Metric::RocAuc => return self.roc_auc(),
            _ => mean,
        })
    }

    /// Callers with labels.
    #[must_use]
    pub fn callers(&self) -> u64 {
        let labelled = |unit: &&Unit| unit.rows > 0;
        self.callers.values().filter(labelled).count() as u64
    }

    /// Which share of its requests each caller labelled, as units of [`crate::stats::sequential::rates`].
    #[must_use]
    pub fn responses(&self) -> Units {
        let mut units = Units::default();
        for unit in self.callers.values() {
            units.add(
                unit.labelled as f64 / unit.requests.max(1) as f64,
                unit.requests,
            );
        }
        units
    }

    /// Adds what was seen of the same revision at another time, which is one side of no comparison.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.labelled += other.labelled;
        self.rows += other.rows;
        self.unread += other.unread;
        self.sum += other.sum;
        self.scored.extend_from_slice(&other.scored);
        for (caller, more) in &other.callers {
            let unit = self.callers.entry(*caller).or_default();
            unit.sum += more.sum;
            unit.rows += more.rows;
            unit.requests += more.requests;
            unit.labelled += more.labelled;
        }
    }

    /// Each caller's mean in 0…1.
    fn shares(&self) -> Units {
        let mut units = Units::default();
        self.means().for_each(|(mean, rows)| units.add(mean, rows));
        units
    }

    fn means(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let labelled = self.callers.values().filter(|unit| unit.rows > 0);
        labelled.map(|unit| (unit.sum / unit.rows as f64, unit.rows))
    }

    /// `None` where all rows are of one class.
    fn roc_auc(&self) -> Option<f64> {
        let (truth, scores): (Vec<bool>, Vec<f64>) =
            self.scored.iter().map(|(_, truth, p)| (*truth, *p)).unzip();
        let found = Binary::from_scores(&truth, &scores, 0.5).measure(None);
        Some(found.roc_auc).filter(|x| x.is_finite())
    }

    /// The area as a share of so many trials as the rarer class has callers. It is the mean, over all ways to pair them, of such shares, so that bounds on a share of
    /// independent trials hold for it (Hoeffding 1963, section 5), at all times at once, as it is a reverse martingale (Manole, Ramdas 2023).
    fn ranked(&self) -> Units {
        let callers = |class: bool| {
            let those = self.scored.iter().filter(|(_, truth, _)| *truth == class);
            those
                .map(|(caller, ..)| caller)
                .collect::<BTreeSet<_>>()
                .len()
        };
        let Some(area) = self.roc_auc() else {
            return Units::default();
        };
        let pairs = callers(true).min(callers(false)) as u64;
        let sum = area * pairs as f64;
        Units {
            callers: pairs,
            sum,
            sum_squares: sum,
            requests: self.rows,
        }
    }

    /// Each caller's mean, in so many parts of one.
    fn histogram(&self, scale: f64) -> LatencySide {
        let mut histogram = LatencyHistogram::default();
        for (mean, _) in self.means() {
            histogram.add((mean / scale).round() as u64);
        }
        LatencySide {
            units: histogram.count() as f64,
            histogram,
        }
    }

    /// Of each bin of probabilities, how far the truth is above them, by caller, from −1…1 moved to 0…1.
    fn gaps(&self) -> [Units; BINS] {
        let mut sums: BTreeMap<(usize, u64), (f64, u64)> = BTreeMap::new();
        for (caller, truth, p) in &self.scored {
            // As `calibration_curve`: a score on an edge belongs to the lower bin.
            let bin = ((p * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            let sum = sums.entry((bin, *caller)).or_default();
            *sum = (sum.0 + f64::from(u8::from(*truth)) - p, sum.1 + 1);
        }
        let mut bins = [Units::default(); BINS];
        for ((bin, _), (sum, rows)) in sums {
            bins[bin].add(f64::midpoint(sum / rows as f64, 1.0), rows);
        }
        bins
    }
}

/// Judges a metric by a bound at level `alpha`, by the same epochs of both sides; one unit is a caller's mean over its labelled rows.
///
/// # Errors
/// There is no test for such a bound: what to write instead.
pub fn judge(
    metric: Metric,
    candidate: &[Outcomes],
    stable: &[Outcomes],
    bound: Bound,
    alpha: f64,
) -> Result<Finding, &'static str> {
    let both = || candidate.iter().zip(stable);
    let of = |side: fn(&Outcomes) -> Units| -> Vec<Stratum> {
        let strata = both().map(|(candidate, stable)| Stratum {
            candidate: side(candidate),
            stable: side(stable),
        });
        strata.collect()
    };
    let averages = |bound| {
        let largest = both().flat_map(|(c, s)| c.means().chain(s.means()));
        let largest = largest.fold(0.0, |most, (mean, _)| f64::max(most, mean));
        let scale = 10f64.powi((largest / LARGEST).max(1e-6).log10().ceil() as i32);
        let strata: Vec<LatencyStratum> = both()
            .map(|(candidate, stable)| LatencyStratum {
                candidate: candidate.histogram(scale),
                stable: stable.histogram(scale),
            })
            .collect();
        means(&strata, scale, bound, alpha)
    };
    Ok(match (metric, bound) {
        (Metric::Accuracy | Metric::Brier, _) => scores(&of(Outcomes::shares), bound, alpha),
        (Metric::RocAuc, _) => scores(&of(Outcomes::ranked), bound, alpha),
        (Metric::LogLoss | Metric::Mae, _) => averages(bound),
        (Metric::Rmse, Bound::MaxDifference(_) | Bound::MinDifference(_)) => {
            return Err("differences of rmse have no test: write maxRatio, or take mae");
        }
        // Squares keep the order, and their ratio is the square of the ratio.
        (Metric::Rmse, _) => rooted(averages(squared(bound)), bound),
        (Metric::Ece, Bound::Max(_) | Bound::Min(_)) => {
            let strata: Vec<[Units; BINS]> = candidate.iter().map(Outcomes::gaps).collect();
            calibrated(&strata, bound, alpha)
        }
        (Metric::Ece, _) => {
            return Err("ece has no test against stable: write max, or take brier or logLoss");
        }
    })
}

fn squared(bound: Bound) -> Bound {
    let square = |x: f64| x.abs() * x;
    match bound {
        Bound::Max(x) => Bound::Max(square(x)),
        Bound::Min(x) => Bound::Min(square(x)),
        Bound::MaxRatio(x) => Bound::MaxRatio(square(x)),
        Bound::MinRatio(x) => Bound::MinRatio(square(x)),
        other => other,
    }
}

fn rooted(found: Finding, bound: Bound) -> Finding {
    let root = |x: Option<f64>| x.map(|x| x.max(0.0).sqrt());
    let (lower, upper) = (root(found.lower), root(found.upper));
    Finding {
        estimate_candidate: root(found.estimate_candidate),
        estimate_stable: root(found.estimate_stable),
        value: root(found.value),
        lower,
        upper,
        detectable: root(found.detectable),
        verdict: verdict(bound, lower, upper),
        ..found
    }
}

/// Each bin's gap has an interval of its own, at a tenth of `alpha`; with the bins as large as they are, the error lies between the sums of their
/// smallest and largest sizes.
fn calibrated(strata: &[[Units; BINS]], bound: Bound, alpha: f64) -> Finding {
    let (mut callers, mut value, mut lower, mut upper) = (0.0, 0.0, 0.0, 0.0);
    for bin in 0..BINS {
        let strata: Vec<Stratum> = strata
            .iter()
            .map(|bins| Stratum {
                candidate: bins[bin],
                stable: Units::default(),
            })
            .collect();
        let found = scores(&strata, Bound::Max(0.0), alpha / BINS as f64);
        let (Some(mean), Some(low), Some(high)) = (found.value, found.lower, found.upper) else {
            continue;
        };
        let weight = found.samples as f64;
        let gap = |x: f64| 2.0 * x - 1.0;
        callers += weight;
        value += weight * gap(mean).abs();
        lower += weight * gap(low).max(-gap(high)).max(0.0);
        upper += weight * gap(low).abs().max(gap(high).abs());
    }
    if callers == 0.0 {
        return Finding::nothing();
    }
    let samples = strata
        .iter()
        .map(|bins| bins.iter().map(|units| units.callers).sum::<u64>())
        .sum();
    let (lower, upper) = (Some(lower / callers), Some(upper / callers));
    let value = Some(value / callers);
    Finding {
        estimate_candidate: value,
        value,
        lower,
        upper,
        samples,
        verdict: verdict(bound, lower, upper),
        ..Finding::nothing()
    }
}

impl Classes {
    fn of<'a, 'b: 'a>(
        cohorts: impl Iterator<Item = &'a Cohort<'b>>,
        positive: Option<&str>,
    ) -> Self {
        let mut classes = Self {
            positive: word(positive.unwrap_or("1")),
            ..Self::default()
        };
        let mut words: BTreeMap<&str, ()> = BTreeMap::new();
        let mut said: BTreeMap<&str, ()> = BTreeMap::new();
        for request in cohorts.flat_map(|c| &c.requests) {
            for guess in &request.prediction.rows {
                let Some(text) = &guess.said else { continue };
                let number = text.parse::<f64>().ok();
                classes.fractions |=
                    guess.probabilities.is_empty() && number.is_some_and(|n| n.fract() != 0.0);
                if said.len() < MAX_WORDS {
                    said.insert(text, ());
                }
            }
            for label in request.label.iter().flat_map(|l| &l.rows) {
                if words.len() < MAX_WORDS {
                    words.insert(label, ());
                }
            }
        }
        if !classes.fractions {
            words.append(&mut said);
        }
        classes.words = words.into_keys().map(str::to_owned).collect();
        let rank = |text: &String| text.parse::<f64>().unwrap_or(f64::INFINITY);
        classes
            .words
            .sort_by(|a, b| rank(a).total_cmp(&rank(b)).then_with(|| a.cmp(b)));
        classes
    }

    fn outcomes(&self, cohort: &Cohort<'_>, metric: Metric) -> Result<Outcomes, String> {
        let mut all = Outcomes {
            unread: cohort.unread,
            ..Outcomes::default()
        };
        'requests: for request in &cohort.requests {
            let prediction = request.prediction;
            let unit = all.callers.entry(prediction.caller).or_default();
            all.requests += 1;
            unit.requests += 1;
            let Some(label) = request.label else { continue };
            let (mut sum, mut scored) = (0.0, Vec::new());
            for (guess, truth) in prediction.rows.iter().zip(&label.rows) {
                match self.loss(metric, guess, truth) {
                    Ok(loss) => sum += loss,
                    Err(Trouble::Label) => continue 'requests,
                    Err(Trouble::Model(why)) => return Err(why),
                }
                if matches!(metric, Metric::Ece | Metric::RocAuc) {
                    let p = self.chance(guess).map_err(|t| t.sentence())?;
                    scored.push((prediction.caller, *truth == self.positive, p));
                }
            }
            let rows = prediction.rows.len() as u64;
            all.labelled += 1;
            all.rows += rows;
            all.sum += sum;
            all.scored.append(&mut scored);
            unit.labelled += 1;
            unit.rows += rows;
            unit.sum += sum;
        }
        Ok(all)
    }

    fn loss(&self, metric: Metric, guess: &Guess, truth: &str) -> Result<f64, Trouble> {
        let truth_is_positive = truth == self.positive;
        let several = guess.probabilities.len() > 2;
        match metric {
            Metric::Mae | Metric::Rmse => {
                let truth: f64 = truth.parse().map_err(|_| Trouble::Label)?;
                let said = guess.said.as_ref().and_then(|s| s.parse::<f64>().ok());
                let said = said.ok_or_else(|| {
                    Trouble::Model("the model doesn't answer with one number for each row".into())
                })?;
                let error = (said - truth).abs();
                Ok(match metric {
                    Metric::Mae => error,
                    _ => error * error,
                })
            }
            Metric::Accuracy => {
                let right = match guess.said.as_deref().filter(|_| !self.fractions) {
                    Some(said) => said == truth,
                    None if several => self.most_likely(guess) == Some(self.place(guess, truth)?),
                    None => (self.chance(guess)? >= 0.5) == truth_is_positive,
                };
                Ok(f64::from(u8::from(right)))
            }
            Metric::LogLoss if several => {
                let place = self.place(guess, truth)?;
                Ok(surprise(f64::from(guess.probabilities[place])))
            }
            Metric::LogLoss => {
                let p = self.chance(guess)?;
                Ok(surprise(if truth_is_positive { p } else { 1.0 - p }))
            }
            Metric::Brier | Metric::Ece | Metric::RocAuc if several => {
                Err(Trouble::Model(format!(
                    "the model gives {} probabilities a row, and this metric is of two classes: take logLoss or accuracy",
                    guess.probabilities.len()
                )))
            }
            Metric::Brier | Metric::Ece | Metric::RocAuc => {
                let error = self.chance(guess)? - f64::from(u8::from(truth_is_positive));
                Ok(error * error)
            }
        }
    }

    /// The probability of the positive class.
    fn chance(&self, guess: &Guess) -> Result<f64, Trouble> {
        let binary = self.words.iter().all(|w| w == "0" || w == "1");
        if !binary && !self.words.contains(&self.positive) {
            return Err(Trouble::Model(format!(
                "the classes are {}, and none of them is `{}`: which is positive? write it in labels.positive",
                self.words
                    .iter()
                    .take(5)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", "),
                self.positive
            )));
        }
        match guess.probabilities.as_slice() {
            [one] => Ok(f64::from(*one)),
            [first, second] => {
                let place = self.words.iter().position(|w| *w == self.positive);
                let is_first = self.words.len() == 2 && place == Some(0);
                Ok(f64::from(if is_first { *first } else { *second }))
            }
            _ => {
                let said = guess.said.as_ref().filter(|_| self.fractions);
                let p = said.and_then(|s| s.parse::<f64>().ok());
                p.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| {
                    Trouble::Model("the model gives no probabilities (output `predict_proba`, or one number from 0 to 1 for each row)".into())
                })
            }
        }
    }

    /// Which of several probabilities is that of this class.
    fn place(&self, guess: &Guess, class: &str) -> Result<usize, Trouble> {
        let several = guess.probabilities.len();
        if self.words.len() == several {
            let place = self.words.iter().position(|w| w == class);
            return place.ok_or(Trouble::Label);
        }
        match class.parse::<usize>() {
            Ok(place) if place < several => Ok(place),
            Ok(_) => Err(Trouble::Label),
            Err(_) => Err(Trouble::Model(format!(
                "the model gives {several} probabilities a row, and {} classes were seen: nobody can tell yet which is whose",
                self.words.len()
            ))),
        }
    }

    fn most_likely(&self, guess: &Guess) -> Option<usize> {
        let all = guess.probabilities.iter().enumerate();
        all.max_by(|a, b| a.1.total_cmp(b.1))
            .map(|(place, _)| place)
    }
}

impl Trouble {
    fn sentence(self) -> String {
        match self {
            Self::Label => String::new(),
            Self::Model(why) => why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::Generator;

    #[test]
    fn the_interval_of_an_area_holds_the_truth_at_every_look_at_once() {
        // A score is uniform, and as likely as it says: ∫∫ 2x · 2(1 − y) over x > y.
        let (truth, alpha) = (5.0 / 6.0, 0.05);
        let (mut wrong, mut widest) = (0, 0.0);
        for run in 0..200 {
            let mut generator = Generator::new(run);
            let (mut seen, mut left) = (Outcomes::default(), false);
            for look in 1..=15u64 {
                for row in 0..40 {
                    let p = generator.unit();
                    let positive = generator.unit() < p;
                    seen.scored.push((look * 40 + row, positive, p));
                    seen.rows += 1;
                }
                let none = Outcomes::default();
                let found = judge(
                    Metric::RocAuc,
                    std::slice::from_ref(&seen),
                    &[none],
                    Bound::Min(0.5),
                    alpha,
                );
                let found = found.unwrap();
                let (low, high) = (found.lower.unwrap(), found.upper.unwrap());
                left |= low > truth || high < truth;
                widest = high - low;
            }
            wrong += u32::from(left);
        }
        assert!(wrong <= 19, "{wrong} of 200"); // 10 + 3 sigma
        assert!(widest < 0.2, "{widest} with 600 callers");
    }
}
