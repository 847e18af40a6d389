//! What is seen of a ModelDeployment and around it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};

use super::drift::{predictions::References, recorded::Recorded};
use crate::{
    api::{Evaluation, ModelDeployment, TrainingJob, revision::ArtifactCache, serving::HTTPRoute},
    plan::{Reference, claim::Claim},
    stats::{bucket::ReleaseMeasurements, profile::Profile},
};

/// Everything that its planner looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object.
    pub deployment: Arc<ModelDeployment>,
    /// Whether every store was filled: nothing is removed before.
    pub complete: bool,
    /// The namespace's TrainingJobs.
    pub training_jobs: Vec<Arc<TrainingJob>>,
    /// The Evaluations that the release names, by name.
    pub evaluations: BTreeMap<String, Arc<Evaluation>>,
    /// ControllerRevisions owned by the release.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Deployments owned by the release.
    pub servers: Vec<Arc<Deployment>>,
    /// Autoscalers owned by the release.
    pub autoscalers: Vec<Arc<HorizontalPodAutoscaler>>,
    /// Its HTTPRoute.
    pub route: Option<Arc<HTTPRoute>>,
    /// Whether the cluster knows HTTPRoutes.
    pub knows_routes: bool,
    /// Its other children that may have to go: Services, PodDisruptionBudgets, autoscalers, its route.
    pub others: Vec<Reference>,
    /// Server pods and resolve pods of the release.
    pub pods: Vec<Arc<Pod>>,
    /// Jobs owned by the release: they pin digests, or look for new data.
    pub resolves: Vec<Arc<Job>>,
    /// ConfigMaps that the server's template names, by name, where they are there.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Copies of ConfigMaps that belong to the release's revisions.
    pub copies: Vec<Arc<ConfigMap>>,
    /// Where pods of new revisions share the artifacts that they fetch, if the namespace has such a claim.
    pub cache: Option<ArtifactCache>,
    /// Claims that revisions' pods use.
    pub claims: BTreeMap<String, Claim>,
    /// Profile of the training data of what status calls stable, and the name of its ConfigMap, if that is there.
    pub profile: Option<(String, Arc<Profile>)>,
    /// What is recorded of the filling window of live inputs.
    pub recorded: Option<Arc<Recorded>>,
    /// First windows of predictions, by revision.
    pub references: Arc<References>,
    /// What gateways measured.
    pub live: ReleaseMeasurements,
    /// UIDs and ports of the namespace's other releases, of both kinds.
    pub ports: Vec<(String, u16)>,
    /// Writes for this object that the API server refused, and that stand.
    pub refused: Vec<Refused>,
    /// Image of the operator.
    pub image: String,
}

/// A write that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Kind of the child, such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `Invalid`, `Forbidden` or `NameTaken`.
    pub reason: String,
    /// A sentence, with the API server's own words.
    pub message: String,
}
