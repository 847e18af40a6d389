//! What the operator knows of late labels of one release.

use std::sync::Arc;

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
    /// The requests that this revision answered in the seconds `from..=to`, under epochs for which `counts` holds, and that are as old as `horizon`
    /// seconds by what was read: each with the label that came in that time.
    ///
    /// A label that comes later counts for nobody: so a request of yesterday and one of just now have had the same time to be labelled, on
    /// both sides of a comparison, and what was once counted changes no more.
    #[must_use]
    pub fn cohort(
        &self,
        revision: &str,
        (from, to): (i64, i64),
        horizon: i64,
        counts: impl Fn(i64) -> bool,
    ) -> Cohort<'_> {
        let Some(read) = self.read else {
            return Cohort::default();
        };
        let to = to.min(read.saturating_sub(horizon));
        // What came up to a minute before or after its second is in that minute.
        let first = from.div_euclid(60).saturating_sub(1);
        let last = to.saturating_add(horizon).div_euclid(60).saturating_add(1);
        let parts = self.parts.iter().filter(|part| {
            part.revision == revision && (first..=last).contains(&part.minute) && counts(part.epoch)
        });
        Cohort::of(parts.map(|p| (p.minute, &*p.samples)), (from, to), horizon)
    }

    /// When the first request of these epochs will be old enough, if none is.
    #[must_use]
    pub fn first(&self, revision: &str, horizon: i64, counts: impl Fn(i64) -> bool) -> Option<i64> {
        let parts = self.parts.iter();
        let those = parts.filter(|p| p.revision == revision && counts(p.epoch));
        let at = those.flat_map(|p| p.samples.predictions.iter().map(|p| p.at));
        at.min().map(|at| at.saturating_add(horizon))
    }
}
