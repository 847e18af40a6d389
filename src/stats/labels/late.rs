//! What the operator knows of late labels of one release.

use std::{collections::BTreeMap, sync::Arc};

use super::{Cohort, Samples};

/// Predictions and labels that gateways of one release have read, and how far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Late {
    /// What came, in the order of minutes.
    pub parts: Vec<LatePart>,
    /// The unix second up to which every ready gateway was read; `None`: not yet.
    pub read: Option<i64>,
    /// The unix second since which nothing that gateways had sampled is missing.
    pub since: Option<i64>,
}

/// What one gateway process had of one minute.
#[derive(Clone, Debug, PartialEq)]
pub struct LatePart {
    /// Unix minute in which it came.
    pub minute: i64,
    /// Epoch of the answers.
    pub epoch: i64,
    /// Hash of the revision that answered.
    pub revision: String,
    /// Predictions and labels.
    pub samples: Arc<Samples>,
}

impl Late {
    /// The requests that this revision answered in these seconds, both included, and that are as old as `horizon` seconds by what was read: each with the label that came in that time.
    ///
    /// A label that comes later counts for nobody: so a request of yesterday and one of just now have had the same time to be labelled, on
    /// both sides of a comparison, and what was once counted changes no more.
    #[must_use]
    pub fn cohort(&self, revision: &str, seconds: (i64, i64), horizon: i64) -> Cohort<'_> {
        self.cohort_of(&self.of(revision, |_| true), seconds, horizon)
    }

    /// As [`Late::cohort`], all of them, by the epochs for which `counts` holds.
    #[must_use]
    pub fn cohorts(
        &self,
        revision: &str,
        horizon: i64,
        counts: impl Fn(i64) -> bool,
    ) -> BTreeMap<i64, Cohort<'_>> {
        let mut epochs: BTreeMap<i64, Vec<&LatePart>> = BTreeMap::new();
        for part in self.of(revision, counts) {
            epochs.entry(part.epoch).or_default().push(part);
        }
        let always = (i64::MIN, i64::MAX);
        let cohorts = epochs
            .into_iter()
            .map(|(epoch, parts)| (epoch, self.cohort_of(&parts, always, horizon)));
        cohorts.collect()
    }

    fn of(&self, revision: &str, counts: impl Fn(i64) -> bool) -> Vec<&LatePart> {
        let parts = self.parts.iter();
        parts
            .filter(|part| part.revision == revision && counts(part.epoch))
            .collect()
    }

    fn cohort_of<'a>(
        &self,
        parts: &[&'a LatePart],
        (from, to): (i64, i64),
        horizon: i64,
    ) -> Cohort<'a> {
        let Some(read) = self.read else {
            return Cohort::default();
        };
        let to = to.min(read.saturating_sub(horizon));
        // What came up to a minute before or after its second is in that minute.
        let first = from.div_euclid(60).saturating_sub(1);
        let last = to.saturating_add(horizon).div_euclid(60).saturating_add(1);
        let parts = parts.iter().filter(|p| (first..=last).contains(&p.minute));
        Cohort::of(parts.map(|p| (p.minute, &*p.samples)), (from, to), horizon)
    }

    /// When the first request of these epochs will be old enough, if none is.
    #[must_use]
    pub fn first(&self, revision: &str, horizon: i64, counts: impl Fn(i64) -> bool) -> Option<i64> {
        let parts = self.of(revision, counts).into_iter();
        let at = parts.flat_map(|p| p.samples.predictions.iter().map(|p| p.at));
        at.min().map(|at| at.saturating_add(horizon))
    }
}
