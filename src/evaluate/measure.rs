//! Metrics of answers against the truth, with intervals.

use super::{
    answer::{Answer, Answers},
    input_failure,
    paired::p_value_of,
    rows::Rows,
    truth::{MOST_KINDS, Truth},
};
use crate::{
    api::gate::MetricValue,
    stats::performance::{Binary, Multiclass, Regression, bootstrap, top_k_accuracy},
    supervise::failure::Failure,
};

/// Level of the intervals.
pub(crate) const LEVEL: f64 = 0.95;
/// Draws of the bootstrap: at most, at least, and as many rows drawn in all as this allows.
const MOST_DRAWS: usize = 1000;
const LEAST_DRAWS: usize = 200;
const ROWS_DRAWN: usize = 10_000_000;
/// Classes of `top3Accuracy`.
const TOP: usize = 3;
/// Days below which blocks of a day say too little for an interval.
pub(crate) const FEWEST_DAYS: usize = 5;

/// One model's answers, ready to be measured with any weights.
enum Subject<'a> {
    Binary {
        data: Binary<'a>,
        scored: bool,
        one_class: bool,
    },
    Multi(Multiclass<'a>, &'a Columns, &'a [usize]),
    Number(Regression<'a>),
}

impl Subject<'_> {
    fn named(&self, weights: Option<&[f64]>) -> Vec<(&'static str, f64)> {
        match self {
            Self::Binary { data, .. } => data.measure(weights).named().to_vec(),
            Self::Multi(data, columns, truth) => {
                let mut all = data.measure(weights).named().to_vec();
                // A share of rows has no need of draws.
                let share = match (&columns.distributions, weights) {
                    (Some(rows), None) => top_k_accuracy(truth, rows, TOP),
                    _ => f64::NAN,
                };
                all.push(("top3Accuracy", share));
                all
            }
            Self::Number(data) => data.measure(weights).named().to_vec(),
        }
    }

    fn values(&self, weights: Option<&[f64]>) -> Vec<f64> {
        self.named(weights)
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    }

    fn constant(&self) -> Vec<(String, f64)> {
        let all = match self {
            Self::Binary { data, .. } => data.metrics(),
            Self::Multi(data, ..) => data.metrics(),
            Self::Number(data) => data.metrics(),
        };
        all.into_iter()
            .filter(|(name, _)| name.starts_with("baseline."))
            .collect()
    }

    /// Why a metric has no value.
    fn excuse(&self, name: &str) -> String {
        match self {
            Self::Binary { scored: false, .. }
                if matches!(name, "rocAuc" | "prAuc" | "logLoss" | "brier") =>
            {
                "the model gives no probabilities (output `predict_proba`, or a column `score`)"
                    .to_owned()
            }
            Self::Multi(_, columns, _)
                if columns.distributions.is_none()
                    && matches!(name, "rocAuc" | "rocAucPairs" | "logLoss" | "top3Accuracy") =>
            {
                "the model gives no probability of each class (output `predict_proba`)".to_owned()
            }
            Self::Binary {
                one_class: true, ..
            } => "all labels are of one class".to_owned(),
            _ => "it isn't defined on this data".to_owned(),
        }
    }
}

/// Answers as the statistics take them.
pub struct Columns {
    /// Whether each row is predicted positive.
    pub predicted: Vec<bool>,
    /// Probabilities of the positive class, where all have one.
    pub scores: Option<Vec<f64>>,
    /// Predicted classes, of several, as places in [`Compared::labels`].
    pub kinds: Vec<usize>,
    /// Probabilities of all of them, row by row, where all rows have them.
    pub distributions: Option<Vec<Vec<f64>>>,
    /// Predicted numbers.
    pub numbers: Vec<f64>,
}

/// Truth and answers of the rows that count.
pub struct Compared {
    /// The rows: labelled, and answered by all who were asked.
    pub kept: Vec<usize>,
    /// Whether each is positive; empty for numbers and several classes.
    pub classes: Vec<bool>,
    /// Several classes: those of the labels, and behind them what was predicted besides.
    pub labels: Vec<String>,
    /// The true ones, as places in `labels`.
    pub kinds: Vec<usize>,
    /// The true numbers; empty for classes.
    pub numbers: Vec<f64>,
    /// What the model says.
    pub own: Columns,
    /// What stable says.
    pub stable: Option<Columns>,
}

impl Compared {
    /// Puts truth and answers side by side.
    ///
    /// # Errors
    /// `EmptyData` if no row has both label and answers; `TargetRefused` if an answer is of another kind than the label.
    pub fn of(
        rows: &Rows,
        truth: &Truth,
        own: &Answers,
        stable: Option<&Answers>,
    ) -> Result<Self, Failure> {
        let labelled = |row: usize| match truth {
            Truth::Binary { positive, .. } => positive[row].is_some(),
            Truth::Multi { kinds, .. } => kinds[row].is_some(),
            Truth::Number(numbers) => numbers[row].is_some(),
        };
        let answered = |answers: &Answers, row: usize| answers.rows[row].is_some();
        let kept: Vec<usize> = (0..rows.count)
            .filter(|&row| {
                labelled(row) && answered(own, row) && stable.is_none_or(|s| answered(s, row))
            })
            .collect();
        if kept.is_empty() {
            return Err(input_failure(
                "EmptyData",
                format!("none of {} rows has both a label and an answer", rows.count),
            ));
        }
        let mut labels = match truth {
            Truth::Multi { classes, .. } => classes.clone(),
            _ => Vec::new(),
        };
        let own = columns(truth, own, &kept, "the model", &mut labels)?;
        let stable = stable
            .map(|s| columns(truth, s, &kept, "stable", &mut labels))
            .transpose()?;
        let (classes, numbers) = truths(truth, &kept);
        let kinds = match truth {
            Truth::Multi { kinds, .. } => kept.iter().filter_map(|&row| kinds[row]).collect(),
            _ => Vec::new(),
        };
        // A class that only an answer knows has no probability.
        let widened = |mut columns: Columns| {
            for row in columns.distributions.iter_mut().flatten() {
                row.resize(labels.len(), 0.0);
            }
            columns
        };
        let (own, stable) = (widened(own), stable.map(widened));
        Ok(Self {
            kept,
            classes,
            labels,
            kinds,
            numbers,
            own,
            stable,
        })
    }
}

/// Measures `own`, and `stable` on the same rows where it was asked.
#[must_use]
pub fn run(
    compared: &Compared,
    rows: &Rows,
    truth: &Truth,
    (own, stable): (&Answers, Option<&Answers>),
    seed: u64,
) -> Vec<MetricValue> {
    let subject = |columns| subject(truth, compared, columns);
    let own_subject = subject(&compared.own);
    let stable_subject = compared.stable.as_ref().map(subject);
    let groups = match &rows.days {
        Some(days) => Groups::of(compared.kept.iter().map(|&row| days[row]).collect()),
        None => Groups::Rows,
    };
    let mut metrics = measure(
        &own_subject,
        stable_subject.as_ref(),
        &groups,
        compared.kept.len(),
        seed,
    );
    if let (Some(stable), Groups::Rows) = (&compared.stable, &groups) {
        let (name, own, theirs) = errors(compared, stable);
        let difference = metrics
            .iter_mut()
            .find(|m| m.name == name && m.value.is_some());
        if let Some(difference) = difference {
            difference.p_value = Some(p_value_of(&own, &theirs));
        }
    }
    let samples = i64::try_from(compared.kept.len()).ok();
    let count = |name: &str, value: f64| MetricValue {
        name: name.to_owned(),
        value: Some(value),
        samples: i64::try_from(rows.count).ok(),
        ..MetricValue::default()
    };
    metrics.iter_mut().for_each(|m| m.samples = samples);
    let stable = stable.map(|stable| ("stable.", stable.missing()));
    for (prefix, missing) in std::iter::once(("", own.missing())).chain(stable) {
        metrics.push(count(&format!("{prefix}unansweredRows"), missing as f64));
        let share = missing as f64 / rows.count.max(1) as f64;
        metrics.push(count(&format!("{prefix}unansweredShare"), share));
    }
    metrics
}

/// The difference that is a mean over rows, with both sides' values: whether each is right, or how far each number is off.
fn errors(compared: &Compared, stable: &Columns) -> (&'static str, Vec<f64>, Vec<f64>) {
    if compared.classes.is_empty() {
        let off = |columns: &Columns| {
            let pairs = compared.numbers.iter().zip(&columns.numbers);
            pairs.map(|(truth, x)| (truth - x).abs()).collect()
        };
        return ("difference.mae", off(&compared.own), off(stable));
    }
    let right = |columns: &Columns| {
        let pairs = compared.classes.iter().zip(&columns.predicted);
        pairs
            .map(|(truth, x)| f64::from(u8::from(truth == x)))
            .collect()
    };
    ("difference.accuracy", right(&compared.own), right(stable))
}

/// What a bootstrap draws.
enum Groups {
    Rows,
    Days(Vec<usize>),
    /// Too few days: no interval is better than one that is too narrow.
    TooFew,
}

impl Groups {
    fn of(days: Vec<usize>) -> Self {
        let mut distinct = days.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < FEWEST_DAYS {
            Self::TooFew
        } else {
            Self::Days(days)
        }
    }
}

fn truths(truth: &Truth, kept: &[usize]) -> (Vec<bool>, Vec<f64>) {
    match truth {
        Truth::Binary { positive, .. } => (
            kept.iter()
                .map(|&row| positive[row] == Some(true))
                .collect(),
            Vec::new(),
        ),
        Truth::Multi { .. } => (Vec::new(), Vec::new()),
        Truth::Number(numbers) => (
            Vec::new(),
            kept.iter().filter_map(|&row| numbers[row]).collect(),
        ),
    }
}

fn subject<'a>(truth: &Truth, compared: &'a Compared, columns: &'a Columns) -> Subject<'a> {
    let classes = &compared.classes;
    match truth {
        Truth::Binary { .. } => Subject::Binary {
            data: Binary::new(classes, &columns.predicted, columns.scores.as_deref()),
            scored: columns.scores.is_some(),
            one_class: classes.iter().all(|c| *c) || !classes.iter().any(|c| *c),
        },
        Truth::Multi { .. } => Subject::Multi(
            Multiclass::new(
                &compared.labels,
                &compared.kinds,
                &columns.kinds,
                columns.distributions.as_deref(),
            ),
            columns,
            &compared.kinds,
        ),
        Truth::Number(_) => Subject::Number(Regression::new(&compared.numbers, &columns.numbers)),
    }
}

/// Predicted classes, and the probabilities of all where every row has them.
type Kinds = (Vec<usize>, Option<Vec<Vec<f64>>>);

/// Classes and their probabilities, of several; what no label has joins `labels`.
fn kinds(
    given: &[&Answer],
    known: &[String],
    who: &str,
    labels: &mut Vec<String>,
) -> Result<Kinds, Failure> {
    let mut place = |class: &str| -> Result<usize, Failure> {
        if let Some(place) = labels.iter().position(|label| label == class) {
            return Ok(place);
        }
        if labels.len() >= 2 * MOST_KINDS {
            return Err(input_failure(
                "TargetRefused",
                format!(
                    "{who} predicts `{class}` and more than {MOST_KINDS} other classes that no row has"
                ),
            ));
        }
        labels.push(class.to_owned());
        Ok(labels.len() - 1)
    };
    let columns = known
        .iter()
        .map(|class| place(class))
        .collect::<Result<Vec<usize>, _>>()?;
    let full = |answer: &Answer| !columns.is_empty() && answer.probabilities.len() == columns.len();
    let mut kinds = Vec::with_capacity(given.len());
    for answer in given {
        let likeliest = || {
            let all = answer
                .probabilities
                .iter()
                .zip(&columns)
                .filter(|_| full(answer));
            all.max_by(|a, b| a.0.total_cmp(b.0))
                .map(|(_, place)| *place)
        };
        kinds.push(match &answer.class {
            Some(class) => place(class)?,
            None => likeliest().ok_or_else(|| {
                input_failure(
                    "TargetRefused",
                    format!(
                        "{who} gives neither a class nor a probability of each class for a row"
                    ),
                )
            })?,
        });
    }
    let width = labels.len();
    let whole = given.iter().all(|answer| full(answer));
    let distributions = whole.then(|| {
        let row = |answer: &&Answer| {
            let mut row = vec![0.0; width];
            for (p, place) in answer.probabilities.iter().zip(&columns) {
                row[*place] = *p;
            }
            row
        };
        given.iter().map(row).collect()
    });
    Ok((kinds, distributions))
}

fn columns(
    truth: &Truth,
    answers: &Answers,
    kept: &[usize],
    who: &str,
    labels: &mut Vec<String>,
) -> Result<Columns, Failure> {
    let given: Vec<&Answer> = kept
        .iter()
        .filter_map(|&row| answers.rows[row].as_ref())
        .collect();
    let mut columns = Columns {
        predicted: Vec::new(),
        scores: None,
        kinds: Vec::new(),
        distributions: None,
        numbers: Vec::new(),
    };
    match truth {
        Truth::Multi { .. } => {
            (columns.kinds, columns.distributions) = kinds(&given, &answers.classes, who, labels)?;
        }
        Truth::Number(_) => {
            for answer in given {
                let number = answer.number.filter(|x| x.is_finite()).ok_or_else(|| {
                    let got = answer
                        .class
                        .clone()
                        .unwrap_or_else(|| "probabilities".to_owned());
                    input_failure(
                        "TargetRefused",
                        format!("{who} predicts `{got}` where the label is a number"),
                    )
                })?;
                columns.numbers.push(number);
            }
        }
        Truth::Binary {
            name, threshold, ..
        } => {
            let place = answers.classes.iter().position(|class| class == name);
            if !answers.classes.is_empty() && place.is_none() {
                return Err(input_failure(
                    "TargetRefused",
                    format!(
                        "{who} knows the classes {}, not `{name}`",
                        answers.classes.join(", ")
                    ),
                ));
            }
            let score = |answer: &Answer| answer.probabilities.get(place.unwrap_or(0)).copied();
            let scores: Option<Vec<f64>> = given.iter().map(|answer| score(answer)).collect();
            // A file says itself what was predicted; a model's probabilities are called by the threshold.
            let of_file = answers.classes.is_empty();
            for answer in &given {
                let predicted = match (&answer.class, score(answer)) {
                    (Some(class), _) if of_file => class == name,
                    (_, Some(p)) => p >= *threshold,
                    (Some(class), None) => class == name,
                    (None, None) => {
                        return Err(input_failure(
                            "TargetRefused",
                            format!("{who} gives neither a class nor a probability for a row"),
                        ));
                    }
                };
                columns.predicted.push(predicted);
            }
            columns.scores = scores;
        }
    }
    Ok(columns)
}

fn measure(
    own: &Subject<'_>,
    stable: Option<&Subject<'_>>,
    groups: &Groups,
    rows: usize,
    seed: u64,
) -> Vec<MetricValue> {
    let draws = (ROWS_DRAWN / rows.max(1)).clamp(LEAST_DRAWS, MOST_DRAWS);
    let all = |weights: Option<&[f64]>| {
        let mut values = own.values(weights);
        if let Some(stable) = stable {
            let theirs = stable.values(weights);
            let difference: Vec<f64> = values.iter().zip(&theirs).map(|(a, b)| a - b).collect();
            values.extend(theirs);
            values.extend(difference);
        }
        values
    };
    let points = all(None);
    let days = match groups {
        Groups::Days(days) => Some(days.as_slice()),
        Groups::Rows | Groups::TooFew => None,
    };
    let ends = match groups {
        Groups::TooFew => Vec::new(),
        _ => bootstrap(rows, days, draws, LEVEL, seed, |weights| all(Some(weights))),
    };
    let names: Vec<&str> = own.named(None).into_iter().map(|(name, _)| name).collect();
    let whose: [(&str, Option<&Subject<'_>>); 3] = [
        ("", Some(own)),
        ("stable.", stable),
        ("difference.", stable),
    ];
    let mut metrics = Vec::new();
    let mut place = 0;
    for (prefix, subject) in whose {
        let Some(subject) = subject else { continue };
        for name in &names {
            let value = points.get(place).copied().filter(|x| x.is_finite());
            let interval = ends
                .get(place)
                .copied()
                .flatten()
                .filter(|_| value.is_some());
            metrics.push(MetricValue {
                name: format!("{prefix}{name}"),
                value,
                lower: interval.map(|(lower, _)| lower),
                upper: interval.map(|(_, upper)| upper),
                message: value.is_none().then(|| subject.excuse(name)),
                ..MetricValue::default()
            });
            place += 1;
        }
    }
    let constant = own.constant().into_iter().map(|(name, value)| MetricValue {
        name,
        value: Some(value),
        ..MetricValue::default()
    });
    metrics.extend(constant);
    metrics
}
