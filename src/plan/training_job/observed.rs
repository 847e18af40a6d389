//! What a TrainingJob's plan is made from.

use std::collections::BTreeMap;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

use crate::{
    api::{
        TrainingJob,
        run::{ProgressAnswer, Report},
    },
    plan::claim::Claim,
};

/// All that a decision about a TrainingJob may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object, with its status.
    pub job: TrainingJob,
    /// Attempt Jobs that this object owns, by name.
    pub jobs: BTreeMap<String, Job>,
    /// Pods of those Jobs.
    pub pods: Vec<Pod>,
    /// Each claim that a `pvc://` URI of the spec names, or a pod uses.
    pub claims: BTreeMap<String, Claim>,
    /// What the current attempt's pod answered.
    pub answers: Answers,
    /// Image of the operator, for the init container.
    pub image: String,
}

/// What a supervisor answered, if it could be asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// `GET /progress`.
    pub progress: Option<ProgressAnswer>,
    /// `GET /report`.
    pub report: Option<Report>,
}
