//! The Job that reads an artifact once to learn its digest, where the spec gives none.

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::{Observed, children, look, reason};
use crate::{
    api::{
        PodTemplate, label,
        revision::ModelReference,
        run::{FetchRun, Summary},
    },
    plan::{
        Action, Reference,
        pod::{self, restricted},
        revision::hash,
    },
};

/// Name of its only container.
pub const CONTAINER: &str = "resolve";
/// Value of [`label::ROLE`].
pub const ROLE: &str = "resolve";
/// After a failed Job, so many seconds until the next.
const RETRY_SECONDS: i64 = 300;

/// Name of the Job that reads this artifact: a function of what it reads.
pub fn name(release: &str, model: &ModelReference) -> String {
    let what = json!({"uri": model.uri, "credentials": model.credentials});
    format!("{release}-resolve-{}", &hash(&what, 0)[..8])
}

/// Whether a pod belongs to this Job.
pub fn is_of(pod: &Pod, job: &str) -> bool {
    pod.owner_references()
        .iter()
        .any(|o| o.kind == "Job" && o.name == job)
}

/// The Job.
pub fn job(observed: &Observed, model: &ModelReference) -> Value {
    let deployment = &observed.deployment;
    let release = deployment.name_any();
    let fetch = FetchRun {
        uri: model.uri.clone(),
        digest: None,
        target: children::FETCH_DIR.to_owned(),
        cache: None,
    };
    let mut container = children::fetch_container(&observed.image, &fetch, model);
    container["name"] = json!(CONTAINER);
    container["securityContext"] = restricted();
    let labels = children::labels(&release, ROLE);
    let mut spec = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": children::fetch_volumes(model, None),
    });
    place(&mut spec, &deployment.spec.server.template);
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name(&release, model),
            "namespace": deployment.namespace(),
            "labels": labels,
            "ownerReferences": [deployment.controller_owner_ref(&())],
        },
        "spec": {
            "backoffLimit": 3,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

/// Where and as whom the pods of this template run, so that it can read what they can.
pub(super) fn place(spec: &mut Value, template: &PodTemplate) {
    for field in [
        "serviceAccountName",
        "imagePullSecrets",
        "nodeSelector",
        "tolerations",
        "affinity",
        "automountServiceAccountToken",
    ] {
        if let Some(value) = template.spec.rest.get(field) {
            spec[field] = value.clone();
        }
    }
}

/// Deletes Jobs that nobody waits for any more, and a failed one after a while, so that the next try begins.
pub fn clean(
    observed: &Observed,
    wanted: Option<&str>,
    now: Timestamp,
) -> (Vec<Action<super::Status>>, Option<Timestamp>) {
    let mut check_at = None;
    let mut actions = Vec::new();
    for job in observed.resolves.iter().filter(|job| !look::is_look(job)) {
        let again = failed_at(job).map(|t| t + jiff::SignedDuration::from_secs(RETRY_SECONDS));
        let unwanted = wanted != Some(job.name_any().as_str());
        if (unwanted && observed.complete) || again.is_some_and(|t| t <= now) {
            actions.push(Action::Delete(Reference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                namespace: job.namespace().unwrap_or_default(),
                name: job.name_any(),
                uid: job.uid().unwrap_or_default(),
            }));
        } else {
            check_at = crate::plan::earlier(check_at, again);
        }
    }
    (actions, check_at)
}

fn failed_at(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions
        .iter()
        .find(|c| c.type_ == "Failed" && c.status == "True")?;
    Some(failed.last_transition_time.as_ref()?.0)
}

/// Label of what it is for, so that its pods are found.
pub const LABEL: &str = label::ROLE;

/// The digest that the resolve pod has read, or why there is none yet.
pub fn digest(
    observed: &Observed,
    model: &ModelReference,
) -> Result<String, (&'static str, String)> {
    let name = name(&observed.deployment.name_any(), model);
    let pods: Vec<&Pod> = observed
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|p| is_of(p, &name))
        .collect();
    let summaries: Vec<Summary> = pods
        .iter()
        .filter_map(|p| pod::summary(p, CONTAINER))
        .collect();
    if let Some(digest) = summaries
        .iter()
        .filter(|s| s.succeeded)
        .find_map(|s| s.digest.clone())
    {
        return Ok(digest);
    }
    let reading = (
        reason::RESOLVING,
        format!(
            "reading {} to pin its digest before the first pod starts",
            model.uri
        ),
    );
    let failed = summaries
        .iter()
        .find(|s| !s.succeeded)
        .map(|s| s.message.clone());
    let trouble = pods.iter().find_map(|p| pod::trouble(p)).map(|t| t.message);
    let ended = |job: &Job| {
        job.status.as_ref().is_some_and(|s| {
            s.conditions
                .iter()
                .flatten()
                .any(|c| c.type_ == "Failed" && c.status == "True")
        })
    };
    let given_up = observed
        .resolves
        .iter()
        .any(|j| j.name_any() == name && ended(j));
    match failed.or(trouble) {
        Some(why) => Err((
            reason::MODEL_UNREADABLE,
            format!("{} can't be read: {why}", model.uri),
        )),
        None if given_up => Err((
            reason::MODEL_UNREADABLE,
            format!(
                "{} can't be read: the pod that reads it failed; it is tried again after some minutes",
                model.uri
            ),
        )),
        None => Err(reading),
    }
}
