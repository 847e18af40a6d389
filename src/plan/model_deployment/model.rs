//! Which model version is to serve.
//!
//! Versions are ordered by name, which sorts by time. Only newer ones than stable's are tried; one that was rejected here, that a
//! retraining on the same data made, or that was stable before and was left, is passed over. A version whose TrainingJob
//! vanished changes nothing, as the revision carries it. Where versions wait for a person, another template is stable's version's first.

use kube::ResourceExt;

use super::{Observed, frozen, reason, recipe, resolve, retraining::result};
use crate::{
    api::{
        ModelDeployment, TrainingJob,
        model_deployment::{ModelDeploymentStatus, ModelSource, Promotion},
        revision::{ModelReference, ModelRevision},
        rollout::{CandidateSource, Outcome, RevisionStatus},
        training_job::{Publish, TrainingPhase},
    },
    plan::revision::{Content, Named, canonical, name},
};

/// What the spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// This revision, under this hash.
    Revision {
        /// What is frozen, and its name.
        named: Box<Named<ModelRevision>>,
        /// What brought it.
        source: CandidateSource,
    },
    /// The digest of the artifact is not known yet: a resolve pod reads it.
    Resolve {
        /// What is to be read.
        model: Box<ModelReference>,
        /// CamelCase.
        reason: &'static str,
        /// One sentence.
        message: String,
    },
    /// There is none.
    Nothing {
        /// CamelCase.
        reason: &'static str,
        /// One sentence.
        message: String,
    },
}

/// The model that a ModelDeployment names: by default its own name.
pub fn source(deployment: &ModelDeployment) -> ModelSource {
    let mut source = deployment.spec.model.clone().unwrap_or_default();
    if source.uri.is_none() && source.name.is_none() {
        source.name = Some(deployment.name_any());
    }
    source
}

/// What the spec asks for, given what is known and recorded.
pub fn wanted(
    observed: &Observed,
    status: &ModelDeploymentStatus,
    known: &[Named<ModelRevision>],
) -> Wanted {
    let source = source(&observed.deployment);
    let wanted = match &source.uri {
        Some(_) => by_uri(observed, status, known, &source),
        None => by_name(observed, status, known, &source),
    };
    match (&wanted, frozen::missing(observed)) {
        (Wanted::Revision { .. }, Some(message)) => Wanted::Nothing {
            reason: reason::CONFIG_MAP_MISSING,
            message,
        },
        _ => wanted,
    }
}

fn freeze(
    observed: &Observed,
    known: &[Named<ModelRevision>],
    model: ModelReference,
) -> Named<ModelRevision> {
    let mut revision = ModelRevision {
        model,
        server: observed.deployment.spec.server.clone(),
        helper_image: observed.image.clone(),
        cache: observed.cache.clone(),
        config_maps: frozen::contents(observed),
    };
    let hash = name(&revision, known);
    // What is recorded stands, with the helper image of then.
    match known.iter().find(|k| k.hash == hash) {
        Some(known) => known.clone(),
        None => {
            let release = observed.deployment.name_any();
            frozen::name_copies(&release, &hash, &mut revision.config_maps);
            Named { hash, revision }
        }
    }
}

fn revision<'a>(
    known: &'a [Named<ModelRevision>],
    hash: Option<&str>,
) -> Option<&'a ModelRevision> {
    known
        .iter()
        .find(|k| Some(k.hash.as_str()) == hash)
        .map(|k| &k.revision)
}

/// `Version` if the running candidate, or else stable, differs from it in nothing but the version.
fn brought_by(
    status: &ModelDeploymentStatus,
    known: &[Named<ModelRevision>],
    wanted: &ModelRevision,
) -> CandidateSource {
    let base = status.candidate.as_ref().or(status.stable.as_ref());
    let server = |r: &ModelRevision| {
        let mut content = canonical(&r.content());
        content["model"].take();
        content
    };
    match revision(known, base.map(|b| b.revision.as_str())) {
        Some(base)
            if server(base) == server(wanted)
                && base.model.name == wanted.model.name
                && base.model.name.is_some() =>
        {
            CandidateSource::Version
        }
        _ => CandidateSource::Spec,
    }
}

fn by_name(
    observed: &Observed,
    status: &ModelDeploymentStatus,
    known: &[Named<ModelRevision>],
    source: &ModelSource,
) -> Wanted {
    let model = source.name.clone().unwrap_or_default();
    if let Some(pinned) = &source.version {
        let mut versions = made(observed, source);
        versions.extend(
            known
                .iter()
                .map(|k| &k.revision.model)
                .filter(|m| m.name.as_deref() == Some(&model))
                .cloned(),
        );
        return match versions
            .into_iter()
            .find(|v| v.version.as_ref() == Some(pinned))
        {
            Some(version) => {
                let named = freeze(observed, known, version);
                let source = brought_by(status, known, &named.revision);
                // A pinned version is an edit of the spec.
                let source = if source == CandidateSource::Version {
                    CandidateSource::Spec
                } else {
                    source
                };
                Wanted::Revision {
                    named: Box::new(named),
                    source,
                }
            }
            None => Wanted::Nothing {
                reason: reason::NO_VERSION,
                message: format!(
                    "version {pinned} of model {model} is not known in this namespace: no TrainingJob made it; correct spec.model.version, or leave it out to follow the newest"
                ),
            },
        };
    }
    let (stable, newest) = followed(observed, status, known, source);
    let Some(version) = newest else {
        return Wanted::Nothing {
            reason: reason::NO_VERSION,
            message: no_version(observed, &model),
        };
    };
    let waits = is_manual(&observed.deployment)
        || by_hand(observed, status)
            .iter()
            .any(|v| Some(v) == version.version.as_ref());
    let named = freeze(observed, known, version);
    let source = brought_by(status, known, &named.revision);
    // A version that waits for a person doesn't take another template with it: that is stable's version's first.
    let named = match stable {
        Some(stable) if waits && source == CandidateSource::Spec => freeze(observed, known, stable),
        _ => named,
    };
    Wanted::Revision {
        named: Box::new(named),
        source,
    }
}

/// The versions that TrainingJobs have made of a model that is followed.
fn made(observed: &Observed, source: &ModelSource) -> Vec<ModelReference> {
    let model = source.name.as_deref().unwrap_or_default();
    let jobs = observed.training_jobs.iter();
    jobs.filter_map(|job| published(job, model, source))
        .collect()
}

/// Of a model that is followed: stable's version, and the newest that is to be tried, else stable's.
fn followed(
    observed: &Observed,
    status: &ModelDeploymentStatus,
    known: &[Named<ModelRevision>],
    source: &ModelSource,
) -> (Option<ModelReference>, Option<ModelReference>) {
    let of = |side: &Option<RevisionStatus>| {
        revision(known, side.as_ref().map(|s| s.revision.as_str()))
            .map(|r| &r.model)
            .filter(|m| m.name == source.name)
    };
    let (stable, candidate) = (of(&status.stable), of(&status.candidate));
    let mut versions = made(observed, source);
    for carried in [stable, candidate].into_iter().flatten() {
        if !versions.iter().any(|v| v.version == carried.version) {
            versions.push(carried.clone());
        }
    }
    versions.sort_by(|a, b| b.version.cmp(&a.version));
    let first = versions.first().cloned();
    let chosen = versions.into_iter().find(|version| match stable {
        Some(stable) => {
            version.version == stable.version
                || (version.version > stable.version && !passed_over(status, version))
        }
        None => {
            let hash = freeze(observed, known, version.clone()).hash;
            !status.rejected_revisions.iter().any(|r| r.revision == hash)
        }
    });
    // Without stable and with everything rejected, the newest is shown as what was refused.
    (stable.cloned(), chosen.or(first))
}

/// The version that a release which follows a model is to try, now or when what goes on has ended. Only what was superseded asks for it.
pub fn next(
    observed: &Observed,
    status: &ModelDeploymentStatus,
    known: &[Named<ModelRevision>],
) -> Option<String> {
    let source = source(&observed.deployment);
    let mut history = status.history.iter();
    let superseded = history.any(|h| h.outcome == Outcome::Superseded);
    if !superseded || source.uri.is_some() || source.version.is_some() {
        return None;
    }
    let (stable, newest) = followed(observed, status, known, &source);
    let (stable, newest) = (stable?.version, newest?.version);
    if newest == stable { None } else { newest }
}

/// Whether new versions wait for a person.
pub fn is_manual(deployment: &ModelDeployment) -> bool {
    let retraining = deployment.spec.retraining.as_ref();
    retraining.and_then(|r| r.promotion) == Some(Promotion::Manual)
}

/// Versions of retrainings that began while `promotion` was `Manual`, and that nobody has promoted yet. Who pins one in the spec has said so.
pub fn by_hand(observed: &Observed, status: &ModelDeploymentStatus) -> Vec<String> {
    let deployment = &observed.deployment;
    if source(deployment).version.is_some() {
        return Vec::new();
    }
    let taken = [result::PROMOTED, result::DID_NOT_HELP];
    let runs = status.retraining.iter().flat_map(|r| &r.runs);
    runs.filter(|run| run.promotion == Some(Promotion::Manual))
        .filter(|run| !taken.contains(&run.result.as_str()))
        .filter_map(|run| {
            // Runs aren't followed any more once spec.retraining is gone.
            let mut jobs = observed.training_jobs.iter();
            let job = jobs.find(|job| recipe::is_of(job, deployment, run.firing));
            let made = || job?.status.as_ref()?.model.as_ref()?.version.clone();
            run.version.clone().or_else(made)
        })
        .collect()
}

/// Whether a newer version than stable's is not to be tried (again).
fn passed_over(status: &ModelDeploymentStatus, version: &ModelReference) -> bool {
    let is = |other: &Option<String>| other.is_some() && *other == version.version;
    let running = status.candidate.as_ref().is_some_and(|c| is(&c.version));
    let rejected = status.rejected_revisions.iter().any(|r| is(&r.version));
    let left = status
        .history
        .iter()
        .any(|h| h.outcome == Outcome::Promoted && is(&h.version));
    let same_data = status
        .retraining
        .iter()
        .flat_map(|r| &r.runs)
        .any(|r| r.result == result::NO_NEW_DATA && is(&r.version));
    rejected || ((left || same_data) && !running)
}

/// The version that a TrainingJob published under this name.
fn published(job: &TrainingJob, model: &str, source: &ModelSource) -> Option<ModelReference> {
    let status = job.status.as_ref()?;
    let labels = job.labels();
    let selected = source
        .selector
        .iter()
        .flat_map(|s| &s.match_labels)
        .all(|(k, v)| labels.get(k) == Some(v));
    let version = status.model.as_ref()?;
    (status.phase == TrainingPhase::Succeeded
        && job.spec.publish.unwrap_or_default() == Publish::Candidate
        && job.spec.model.name == model
        && selected
        && version.version.is_some()
        && version.digest.is_some())
    .then(|| {
        let mut version = version.clone();
        version.name = Some(model.to_owned());
        version.training_job.get_or_insert_with(|| job.name_any());
        version.credentials = version
            .credentials
            .or_else(|| job.spec.model.credentials.clone());
        version
    })
}

fn no_version(observed: &Observed, model: &str) -> String {
    let running: Vec<String> = observed
        .training_jobs
        .iter()
        .filter(|j| j.spec.model.name == model)
        .filter(|j| !j.status.as_ref().is_some_and(|s| s.phase.is_terminal()))
        .map(|j| j.name_any())
        .collect();
    if running.is_empty() {
        format!(
            "model {model} has no version in this namespace yet: make one with a TrainingJob whose spec.model.name is {model}, or correct spec.model"
        )
    } else {
        format!(
            "model {model} has no version yet: waiting for TrainingJob {}",
            running.join(", ")
        )
    }
}

fn by_uri(
    observed: &Observed,
    status: &ModelDeploymentStatus,
    known: &[Named<ModelRevision>],
    source: &ModelSource,
) -> Wanted {
    let mut model = ModelReference {
        uri: source.uri.clone().unwrap_or_default(),
        digest: source.digest.clone(),
        credentials: source.credentials.clone(),
        ..ModelReference::default()
    };
    if model.digest.is_none() {
        // Pinned once: by the revision that has it, else by the resolve pod that read it.
        let same = |k: &&Named<ModelRevision>| {
            k.revision.model.uri == model.uri
                && k.revision.model.credentials == model.credentials
                && k.revision.model.name.is_none()
        };
        let in_use = |hash: &str| {
            [&status.candidate, &status.stable]
                .into_iter()
                .flatten()
                .any(|r| r.revision == hash)
        };
        let pinned = known
            .iter()
            .filter(same)
            .find(|k| in_use(&k.hash))
            .or_else(|| known.iter().rfind(same));
        model.digest = match pinned {
            Some(pinned) => pinned.revision.model.digest.clone(),
            None => match resolve::digest(observed, &model) {
                Ok(digest) => Some(digest),
                Err((reason, message)) => {
                    return Wanted::Resolve {
                        model: Box::new(model),
                        reason,
                        message,
                    };
                }
            },
        };
    }
    model.version = model
        .digest
        .as_deref()
        .and_then(|d| d.strip_prefix("sha256:"))
        .map(|d| d.chars().take(12).collect());
    let named = freeze(observed, known, model);
    Wanted::Revision {
        named: Box::new(named),
        source: CandidateSource::Spec,
    }
}
