//! What an Evaluation's plan is made from.

use std::collections::BTreeMap;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

use super::{Content, Release};
use crate::{
    api::{Evaluation, TrainingJob},
    plan::{Reference, claim::Claim, training_job::Answers},
};

/// All that a decision about an Evaluation may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object, with its status.
    pub evaluation: Evaluation,
    /// The TrainingJob that is its target, if it exists.
    pub training_job: Option<TrainingJob>,
    /// The release that is its target, if it exists.
    pub release: Option<Release>,
    /// Content of the release's revisions, by hash.
    pub revisions: BTreeMap<String, Content>,
    /// Jobs of runs that this object owns, by name.
    pub jobs: BTreeMap<String, Job>,
    /// ConfigMaps with reports that this object owns.
    pub reports: Vec<Reference>,
    /// Pods of those Jobs.
    pub pods: Vec<Pod>,
    /// Each claim that a `pvc://` URI of the spec names, or a pod uses.
    pub claims: BTreeMap<String, Claim>,
    /// What the running pod answered.
    pub answers: Answers,
    /// Image of the operator, which measures.
    pub image: String,
}
