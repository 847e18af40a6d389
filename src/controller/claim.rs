//! What the caches show of PersistentVolumeClaims.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use crate::{
    api::revision::ArtifactCache,
    cluster::{Caches, Key, Shell},
    plan::{
        claim::{Claim, used_by},
        pod::ClaimPath,
    },
};

/// The claims that these URIs name, and those that these pods use, in a namespace.
pub(super) fn seen<'a>(
    caches: &Caches,
    namespace: &str,
    uris: impl Iterator<Item = &'a str>,
    pods: impl Iterator<Item = &'a Pod>,
) -> BTreeMap<String, Claim> {
    let named = names(uris).chain(pods.flat_map(used_by).map(str::to_owned));
    named
        .map(|name| {
            let claim = match caches.claims.get(&Key::new(namespace, &name)) {
                Some(claim) => {
                    let pods = caches.pods.in_namespace(namespace);
                    Claim::of(&claim, pods.iter().map(Arc::as_ref))
                }
                None => Claim::Missing,
            };
            (name, claim)
        })
        .collect()
}

/// Where pods of model servers in a namespace share what they fetch: the claim of the operator's configuration, if it is there and pods on any node may write
/// to it.
pub(super) fn cache(shell: &Shell, namespace: &str) -> Option<ArtifactCache> {
    let cache = shell.settings.artifact_cache.clone()?;
    let key = Key::new(namespace, &cache.claim_name);
    let claim = shell.caches.claims.get(&key)?;
    let modes = claim.spec.as_ref()?.access_modes.as_ref()?;
    let leaving = claim.metadata.deletion_timestamp.is_some();
    (!leaving && modes.iter().any(|mode| mode == "ReadWriteMany")).then_some(cache)
}

/// The claims that these URIs name.
pub(super) fn names<'a>(uris: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    uris.filter_map(ClaimPath::parse).map(|path| path.claim)
}
