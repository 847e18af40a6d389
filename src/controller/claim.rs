//! What the caches show of PersistentVolumeClaims.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use crate::{
    cluster::{Caches, Key},
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

/// The claims that these URIs name.
pub(super) fn names<'a>(uris: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    uris.filter_map(ClaimPath::parse).map(|path| path.claim)
}
