//! Requests that are old enough, each with its label if that came in time.

use std::collections::BTreeMap;

use super::{Label, Prediction, Samples};

/// Requests of the same age, or older: labelled or not.
#[derive(Clone, Debug, Default)]
pub struct Cohort<'a> {
    /// In the order of their answers, then of their ids.
    pub requests: Vec<Request<'a>>,
    /// Answers whose predictions couldn't be read: in no count.
    pub unread: u64,
    /// Labels that came in time and don't fit: another number of rows than the prediction. Their requests count as not labelled.
    pub misfits: u64,
}

/// A request of a cohort.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What was predicted.
    pub prediction: &'a Prediction,
    /// What was true.
    pub label: Option<&'a Label>,
}

impl<'a> Cohort<'a> {
    /// Joins predictions of answers in the seconds `from..=to` with the first label of each within `horizon` seconds.
    pub(super) fn of(
        parts: impl Iterator<Item = (i64, &'a Samples)>,
        (from, to): (i64, i64),
        horizon: i64,
    ) -> Self {
        let mut predictions: BTreeMap<(i64, u64), &Prediction> = BTreeMap::new();
        let mut labels: BTreeMap<u64, &Label> = BTreeMap::new();
        let mut unread = 0;
        for (minute, samples) in parts {
            if (from..=to).contains(&(minute * 60)) {
                unread += samples.unread;
            }
            for prediction in &samples.predictions {
                if (from..=to).contains(&prediction.at) {
                    predictions.insert((prediction.at, prediction.id), prediction);
                }
            }
            for label in &samples.labels {
                let first = labels.entry(label.id).or_insert(label);
                // Two gateways may have taken one each.
                if (label.at, &label.rows) < (first.at, &first.rows) {
                    *first = label;
                }
            }
        }
        let mut cohort = Self {
            unread,
            ..Self::default()
        };
        for prediction in predictions.into_values() {
            let label = labels.get(&prediction.id).copied();
            let label = label.filter(|l| l.at <= prediction.at.saturating_add(horizon));
            let fits = label.filter(|l| l.rows.len() == prediction.rows.len());
            cohort.misfits += u64::from(label.is_some() && fits.is_none());
            cohort.requests.push(Request {
                prediction,
                label: fits,
            });
        }
        cohort
    }

    /// Requests with a label.
    #[must_use]
    pub fn labelled(&self) -> usize {
        self.requests.iter().filter(|r| r.label.is_some()).count()
    }

    /// Which share of the requests is labelled; `None` without requests.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        let all = self.requests.len();
        (all > 0).then(|| self.labelled() as f64 / all as f64)
    }
}
