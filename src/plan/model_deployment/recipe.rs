//! The recipe of a retraining: where it comes from, the TrainingJob that it makes, and whether that would bring anything new.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    api::{
        API_VERSION, ModelDeployment, OpenObject, TrainingJob, annotation, label,
        model_deployment::{DatasetOverride, Retraining, RetrainingRun, RetrainingStatus},
        training_job::{Publish, TrainingJobSpec},
    },
    plan::revision::sha256,
};

use super::{model, reason::retraining as reason};

/// A recipe with its overrides applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Spec of the TrainingJobs to make.
    pub spec: TrainingJobSpec,
    /// Tells recipes (with their overrides) apart.
    pub key: String,
}

/// Finds the recipe, copies it into status where it is another object's, and applies the overrides.
///
/// # Errors
/// Reason and sentence, if there is none.
pub fn resolve(
    retraining: &Retraining,
    jobs: &[Arc<TrainingJob>],
    status: &mut RetrainingStatus,
) -> Result<Recipe, (&'static str, String)> {
    if let Some(template) = &retraining.template {
        status.recipe = None;
        status.recipe_source = None;
        return overridden(template.spec.clone(), &retraining.datasets);
    }
    let from = retraining.from.clone().unwrap_or_default();
    if let Some(job) = jobs.iter().find(|j| j.name_any() == from) {
        let source = format!("{from}/{}", job.uid().unwrap_or_default());
        // A TrainingJob's spec doesn't change, so the copy of this one is what it says.
        if status.recipe_source.as_deref() != Some(&source)
            && let Ok(Value::Object(spec)) = serde_json::to_value(&job.spec)
        {
            status.recipe = Some(OpenObject(spec));
            status.recipe_source = Some(source);
        }
    }
    let copied = status
        .recipe_source
        .as_ref()
        .is_some_and(|s| s.split('/').next() == Some(&from));
    if !copied {
        status.recipe = None;
        status.recipe_source = None;
    }
    let Some(recipe) = &status.recipe else {
        let message = format!(
            "retraining.from names TrainingJob {from}, which is not there: create it, or correct the name; nothing is retrained until then"
        );
        return Err((reason::RECIPE_UNKNOWN, message));
    };
    let spec = serde_json::from_value(Value::Object(recipe.0.clone())).map_err(|error| {
        let message = format!(
            "the recipe copied from TrainingJob {from} can't be read any more: {error}; name another one in retraining.from"
        );
        (reason::RECIPE_UNREADABLE, message)
    })?;
    overridden(spec, &retraining.datasets)
}

fn overridden(
    mut spec: TrainingJobSpec,
    overrides: &[DatasetOverride],
) -> Result<Recipe, (&'static str, String)> {
    for wanted in overrides {
        let Some(dataset) = spec.datasets.iter_mut().find(|d| d.name == wanted.name) else {
            let names: Vec<&str> = spec.datasets.iter().map(|d| d.name.as_str()).collect();
            let message = format!(
                "retraining.datasets names {}, but the recipe reads {}: correct the name",
                wanted.name,
                if names.is_empty() {
                    "nothing".to_owned()
                } else {
                    names.join(", ")
                }
            );
            return Err((reason::DATASET_UNKNOWN, message));
        };
        dataset.uri = wanted.uri.clone();
        dataset.digest = None;
    }
    spec.publish = Some(Publish::Candidate);
    let key = key(&spec);
    Ok(Recipe { spec, key })
}

/// Tells recipes apart: of a recipe with its overrides, and of the TrainingJob that was made of it.
pub fn key(spec: &TrainingJobSpec) -> String {
    sha256(&json!(spec)).chars().take(12).collect()
}

/// Name of the TrainingJob of a firing: a function of release and firing, so that making it twice makes one.
pub fn job_name(deployment: &ModelDeployment, firing: i64) -> String {
    let uid: String = deployment
        .uid()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(6)
        .collect();
    format!("{}-{uid}-{firing}", deployment.name_any())
}

/// Value of [`annotation::FIRING`] that makes a TrainingJob count as this firing's.
pub fn mark(deployment: &ModelDeployment, firing: i64) -> String {
    format!("{}/{firing}", deployment.uid().unwrap_or_default())
}

/// Whether a TrainingJob is this firing's.
pub fn is_of(job: &TrainingJob, deployment: &ModelDeployment, firing: i64) -> bool {
    job.annotations().get(annotation::FIRING) == Some(&mark(deployment, firing))
}

/// The TrainingJob of a firing: labelled, not owned, so that lineage outlives the release.
pub fn job(deployment: &ModelDeployment, recipe: &Recipe, run: &RetrainingRun) -> Value {
    let release = deployment.name_any();
    let mut labels = BTreeMap::from([
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "perennial".to_owned(),
        ),
        (
            "app.kubernetes.io/part-of".to_owned(),
            "perennial".to_owned(),
        ),
        (label::MODEL_DEPLOYMENT.to_owned(), release.clone()),
        (label::MODEL.to_owned(), recipe.spec.model.name.clone()),
    ]);
    // So that the release follows what it asked for.
    let selector = model::source(deployment).selector.unwrap_or_default();
    labels.extend(selector.match_labels);
    json!({
        "apiVersion": API_VERSION, "kind": "TrainingJob",
        "metadata": {
            "name": run.job,
            "namespace": deployment.namespace(),
            "labels": labels,
            "annotations": {
                (annotation::FIRING): mark(deployment, run.firing),
                (annotation::FIRED_BECAUSE): run.message,
            },
        },
        "spec": recipe.spec,
    })
}

/// What a run is made of: the recipe without places and policies, and the digests of what it read. Two runs with the same
/// make the same model again. `None` while a digest isn't known.
pub fn inputs(spec: &TrainingJobSpec, digests: &BTreeMap<String, String>) -> Option<String> {
    let mut datasets = Vec::new();
    for dataset in &spec.datasets {
        datasets.push(json!({
            "name": dataset.name, "digest": digests.get(&dataset.name)?, "format": dataset.format,
            "label": dataset.label, "features": dataset.features,
        }));
    }
    let content =
        json!({"template": spec.template, "parameters": spec.parameters, "datasets": datasets});
    Some(sha256(&content).chars().take(12).collect())
}

/// [`inputs`] of a TrainingJob that has read them.
pub fn inputs_of(job: &TrainingJob) -> Option<String> {
    let read = job.status.as_ref()?.datasets.iter();
    let digests = read.map(|d| (d.name.clone(), d.digest.clone())).collect();
    inputs(&job.spec, &digests)
}

/// [`inputs`] of a run that is not made yet: known if every dataset's digest is pinned.
pub fn inputs_pinned(spec: &TrainingJobSpec) -> Option<String> {
    let digests = spec
        .datasets
        .iter()
        .filter_map(|d| Some((d.name.clone(), d.digest.clone()?)))
        .collect();
    inputs(spec, &digests)
}
