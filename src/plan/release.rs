//! What both kinds of release do alike: keep their revisions as ControllerRevisions, read Evaluations, say that somebody must help.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::ControllerRevision,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use super::{
    Action, Reference,
    revision::{self, Content, Named},
    rollout::{EvaluationView, Mark},
};
use crate::api::{
    Evaluation, annotation,
    condition::{self, kind},
    evaluation::{ReleaseTarget, TargetRevision},
    label,
    rollout::RolloutSpec,
};

/// ControllerRevisions kept beside those in use.
const REVISION_HISTORY: usize = 10;

/// Name of what belongs to a revision.
pub fn name(release: &str, hash: &str) -> String {
    format!("{release}-{hash}")
}

/// The ControllerRevisions of a release.
pub struct Kept<'a> {
    release: String,
    namespace: Option<String>,
    owner: OwnerReference,
    labels: Map<String, Value>,
    objects: &'a [Arc<ControllerRevision>],
}

impl<'a> Kept<'a> {
    /// Those of this release; `labels` are for new ones.
    pub fn new<R: Resource<DynamicType = ()>>(
        release: &R,
        labels: Map<String, Value>,
        objects: &'a [Arc<ControllerRevision>],
    ) -> Self {
        Self {
            release: release.name_any(),
            namespace: release.namespace(),
            owner: release.controller_owner_ref(&()).unwrap_or_default(),
            labels,
            objects,
        }
    }

    /// What they hold, oldest first.
    pub fn known<R: Content>(&self) -> Vec<Named<R>> {
        let mut objects: Vec<&ControllerRevision> =
            self.objects.iter().map(AsRef::as_ref).collect();
        objects.sort_by_key(|r| (r.revision, r.name_any()));
        objects
            .into_iter()
            .filter_map(|object| revision::read(&self.release, object))
            .collect()
    }

    /// The one of this hash.
    pub fn find(&self, hash: &str) -> Option<&'a ControllerRevision> {
        let name = name(&self.release, hash);
        let mut objects = self.objects.iter().map(AsRef::as_ref);
        objects.find(|r| r.name_any() == name)
    }

    /// The object that keeps a revision, with its marks; a new one gets the next number.
    pub fn keep<R: Content>(&self, named: &Named<R>, mark: Option<&Mark>) -> Value {
        let next = || self.objects.iter().map(|r| r.revision).max().unwrap_or(0) + 1;
        let number = self.find(&named.hash).map_or_else(next, |o| o.revision);
        let marks: BTreeMap<String, String> = [
            (
                annotation::STABLE_SINCE,
                mark.and_then(|m| m.stable_since.clone()),
            ),
            (annotation::REJECTED, mark.and_then(|m| m.rejected.clone())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
        let mut labels = self.labels.clone();
        labels.insert(label::REVISION.to_owned(), json!(named.hash));
        let metadata = ObjectMeta {
            namespace: self.namespace.clone(),
            labels: serde_json::from_value(Value::Object(labels)).ok(),
            annotations: (!marks.is_empty()).then_some(marks),
            ..ObjectMeta::default()
        };
        let object = revision::object(named, number, metadata, &self.release, self.owner.clone());
        let mut value = serde_json::to_value(object).unwrap_or_default();
        value["apiVersion"] = json!("apps/v1");
        value["kind"] = json!("ControllerRevision");
        value
    }

    /// The writes that bring marks up to date.
    pub fn marks<R: Content, S>(&self, known: &[Named<R>], marks: &[Mark]) -> Vec<Action<S>> {
        marks
            .iter()
            .filter_map(|mark| {
                let named = known.iter().find(|k| k.hash == mark.revision)?;
                Some(Action::Apply(self.keep(named, Some(mark))))
            })
            .collect()
    }

    /// The oldest ones that nobody needs; those of the hashes in `keep` are needed.
    pub fn old(&self, keep: &[&str]) -> Vec<Reference> {
        let names: Vec<String> = keep.iter().map(|hash| name(&self.release, hash)).collect();
        let mut spare: Vec<&ControllerRevision> = self
            .objects
            .iter()
            .map(AsRef::as_ref)
            .filter(|r| !names.contains(&r.name_any()))
            .collect();
        spare.sort_by_key(|r| std::cmp::Reverse(r.revision));
        spare
            .into_iter()
            .skip(REVISION_HISTORY)
            .map(|r| Reference {
                api_version: "apps/v1".to_owned(),
                kind: "ControllerRevision".to_owned(),
                namespace: r.namespace().unwrap_or_default(),
                name: r.name_any(),
                uid: r.uid().unwrap_or_default(),
            })
            .collect()
    }
}

/// What a rollout reads of Evaluations, by name.
pub fn evaluations(
    observed: &BTreeMap<String, Arc<Evaluation>>,
) -> BTreeMap<String, EvaluationView> {
    let view = |evaluation: &Evaluation| EvaluationView {
        generation: evaluation.metadata.generation.unwrap_or_default(),
        runs: evaluation
            .status
            .as_ref()
            .map(|s| s.runs.clone())
            .unwrap_or_default(),
    };
    observed
        .iter()
        .map(|(name, evaluation)| (name.clone(), view(evaluation)))
        .collect()
}

/// The first Evaluation that a candidate must pass and that will never measure it, as a sentence. `target` finds a target of the release's kind.
pub fn elsewhere(
    name: &str,
    rollout: &RolloutSpec,
    observed: &BTreeMap<String, Arc<Evaluation>>,
    target: fn(&Evaluation) -> Option<&ReleaseTarget>,
) -> Option<String> {
    let steps = rollout.steps.iter().flatten();
    let steps = steps
        .filter_map(|s| s.evaluate.as_ref())
        .flat_map(|e| &e.names);
    let mut demanded = rollout.evaluations.iter().chain(steps);
    demanded.find_map(|evaluation| {
        let found = observed.get(evaluation)?;
        let what = match target(found) {
            None => "something else",
            Some(target) if target.name != name => target.name.as_str(),
            Some(target) if target.revision == Some(TargetRevision::Stable) => "stable only",
            Some(_) => return None,
        };
        Some(format!(
            "Evaluation {evaluation} measures {what}, so that no candidate of {name} can pass it: correct its spec.target, or take it out of spec.rollout"
        ))
    })
}

/// Somebody has to do something before the spec is in effect. Returns the message for the status.
pub fn needs_help(
    conditions: &mut Vec<Condition>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> String {
    for (kind, value) in [(kind::READY, false), (kind::STALLED, true)] {
        condition::set(conditions, kind, value, reason, message, generation, now);
    }
    condition::bounded(message.to_owned())
}
