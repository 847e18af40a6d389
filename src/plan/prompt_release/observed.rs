//! What is seen of a PromptRelease and around it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::{
    api::{Evaluation, PromptRelease},
    stats::bucket::ReleaseMeasurements,
};

/// Everything that its planner looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object.
    pub release: Arc<PromptRelease>,
    /// Whether every store was filled: nothing is removed before.
    pub complete: bool,
    /// The Evaluations that the release names, by name.
    pub evaluations: BTreeMap<String, Arc<Evaluation>>,
    /// ControllerRevisions owned by the release.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// What gateways measured.
    pub live: ReleaseMeasurements,
    /// UIDs and ports of the namespace's other releases, of both kinds.
    pub ports: Vec<(String, u16)>,
}
