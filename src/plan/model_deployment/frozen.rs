//! ConfigMaps of a revision: their content is part of it, and its pods read immutable copies.
//!
//! A copy is made before the ControllerRevision that names it, belongs to the release, and goes when that ControllerRevision is gone.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Observed, Status, children};
use crate::{
    api::{
        label,
        revision::{FrozenConfigMap, ModelRevision},
    },
    plan::{Action, Reference, config_map, revision::Named},
};

/// Value of [`label::ROLE`] on copies.
pub const ROLE: &str = "config";

/// What the template's ConfigMaps hold now, by name; copies have no names yet.
pub fn contents(observed: &Observed) -> BTreeMap<String, FrozenConfigMap> {
    config_map::named(&observed.deployment.spec.server.template)
        .into_keys()
        .map(|name| {
            let digest = observed
                .config_maps
                .get(&name)
                .map(|c| config_map::digest(c));
            let copy = String::new();
            (name, FrozenConfigMap { copy, digest })
        })
        .collect()
}

/// Names the copies of a revision of this hash.
pub fn name_copies(release: &str, hash: &str, config_maps: &mut BTreeMap<String, FrozenConfigMap>) {
    for (number, frozen) in config_maps.values_mut().enumerate() {
        frozen.copy = format!("{release}-{hash}-{number}");
    }
}

/// What the template needs and isn't there, as a sentence.
pub fn missing(observed: &Observed) -> Option<String> {
    let mut missing = Vec::new();
    for (name, need) in config_map::named(&observed.deployment.spec.server.template) {
        match observed.config_maps.get(&name) {
            None if need.required => missing.push(format!(
                "ConfigMap {name}, which spec.server.template names, is not there: create it, or make the reference optional"
            )),
            None => {}
            Some(found) => missing.extend(
                need.keys
                    .iter()
                    .filter(|key| !config_map::has_key(found, key))
                    .map(|key| format!("ConfigMap {name} has no key {key}, which spec.server.template reads: add it, or correct the template")),
            ),
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// The copies of a revision that aren't there and can be made.
pub fn copies(observed: &Observed, named: &Named<ModelRevision>) -> Vec<Action<Status>> {
    absent(observed, named)
        .filter_map(|(name, frozen)| {
            let source = held(observed, name, frozen)?;
            let release = observed.deployment.name_any();
            let mut labels = children::labels(&release, ROLE);
            labels.insert(label::REVISION.to_owned(), json!(named.hash));
            let mut copy = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": children::metadata(observed, &frozen.copy, &labels),
                "immutable": true,
            });
            if let Some(data) = &source.data {
                copy["data"] = json!(data);
            }
            if let Some(data) = &source.binary_data {
                copy["binaryData"] = json!(data);
            }
            Some(Action::Create(copy))
        })
        .collect()
}

/// A copy that is gone for good: the revision's next pod won't start.
pub fn lost(observed: &Observed, named: &Named<ModelRevision>) -> Option<String> {
    let (name, frozen) =
        absent(observed, named).find(|(name, frozen)| held(observed, name, frozen).is_none())?;
    Some(format!(
        "ConfigMap {}, its copy of ConfigMap {name}, was deleted and {name} holds something else now: its next pod can't start; give {name} back what it held, or roll out another revision",
        frozen.copy
    ))
}

fn absent<'a>(
    observed: &'a Observed,
    named: &'a Named<ModelRevision>,
) -> impl Iterator<Item = (&'a String, &'a FrozenConfigMap)> {
    let there = |copy: &str| observed.copies.iter().any(|c| c.name_any() == copy);
    let all = named.revision.config_maps.iter();
    all.filter(move |(_, frozen)| frozen.digest.is_some() && !there(&frozen.copy))
}

/// The user's ConfigMap, if it holds what was frozen.
fn held<'a>(
    observed: &'a Observed,
    name: &str,
    frozen: &FrozenConfigMap,
) -> Option<&'a k8s_openapi::api::core::v1::ConfigMap> {
    let found = observed.config_maps.get(name)?;
    (Some(config_map::digest(found)) == frozen.digest).then_some(found)
}

/// Deletes the copies of revisions that are not kept (names of ControllerRevisions).
pub fn unused(observed: &Observed, kept: &BTreeSet<String>) -> Vec<Action<Status>> {
    let release = observed.deployment.name_any();
    let stays = |hash: &String| kept.contains(&children::name(&release, hash));
    observed
        .copies
        .iter()
        .filter(|c| !c.labels().get(label::REVISION).is_some_and(stays))
        .map(|copy| {
            Action::Delete(Reference {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                namespace: copy.namespace().unwrap_or_default(),
                name: copy.name_any(),
                uid: copy.uid().unwrap_or_default(),
            })
        })
        .collect()
}

/// Makes a pod spec read the revision's copies.
pub fn read_copies(spec: &mut serde_json::Map<String, Value>, revision: &ModelRevision) {
    let copies = revision.config_maps.iter();
    let copies: BTreeMap<String, &str> = copies
        .map(|(name, frozen)| (name.clone(), frozen.copy.as_str()))
        .collect();
    if !copies.is_empty() {
        config_map::rename(spec, &copies);
    }
}
