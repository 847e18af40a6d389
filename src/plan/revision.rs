//! Revisions: canonical content, its hash, and the objects that keep it.
//!
//! Two revisions are the same when their canonical content is the same; the hash only names them. Nothing that we inject and
//! no default of ours is in the content, so neither an upgrade of the operator nor a restart makes a rollout.

use k8s_openapi::{
    api::apps::v1::ControllerRevision,
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        runtime::RawExtension,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::api::revision::{ModelRevision, PromptRevision};

/// Length of a revision's hash, in hex digits.
pub const HASH_LENGTH: usize = 10;

/// The same JSON with the members of every object sorted by name: equal content has equal text.
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            Value::Object(
                names
                    .into_iter()
                    .map(|name| (name.clone(), canonical(&members[name])))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// SHA-256 of the canonical JSON, in 64 lower-case hex digits.
pub fn sha256(value: &Value) -> String {
    hex::encode(Sha256::digest(canonical(value).to_string().as_bytes()))
}

/// Name of a revision with this content: ten hex digits of its SHA-256. `salt` above 0 is for the case that
/// another content has the name already.
pub fn hash(content: &Value, salt: u32) -> String {
    let mut digits = match salt {
        0 => sha256(content),
        _ => sha256(&json!([content, salt])),
    };
    digits.truncate(HASH_LENGTH);
    digits
}

/// What is frozen in a ControllerRevision.
pub trait Content: Serialize + DeserializeOwned {
    /// All that decides how the revision serves, and nothing else.
    fn content(&self) -> Value;
}

impl Content for ModelRevision {
    fn content(&self) -> Value {
        let model = &self.model;
        let mut content = json!({
            "model": {"uri": model.uri, "digest": model.digest, "version": model.version},
            "server": self.server,
        });
        // A Secret counts by name.
        if let Some(credentials) = &model.credentials {
            content["model"]["credentials"] = json!(credentials);
        }
        if !self.config_maps.is_empty() {
            let digests = self.config_maps.iter();
            let digests = digests.map(|(name, frozen)| (name.clone(), json!(frozen.digest)));
            content["configMaps"] = Value::Object(digests.collect());
        }
        content
    }
}

impl Content for PromptRevision {
    fn content(&self) -> Value {
        json!({"prompt": self.prompt, "backend": self.backend})
    }
}

/// A revision that was read back, with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<R> {
    /// Its hash.
    pub hash: String,
    /// What is frozen.
    pub revision: R,
}

/// Reads what a release's ControllerRevision holds; `None` if it isn't one of ours (another name or other data).
pub fn read<R: Content>(release: &str, object: &ControllerRevision) -> Option<Named<R>> {
    let hash = object
        .metadata
        .name
        .as_deref()?
        .strip_prefix(release)?
        .strip_prefix('-')?;
    let revision = serde_json::from_value(object.data.as_ref()?.0.clone()).ok()?;
    (hash.len() == HASH_LENGTH && hash.bytes().all(|b| b.is_ascii_hexdigit())).then(|| Named {
        hash: hash.to_owned(),
        revision,
    })
}

/// The revision among `known` with the same content, else a name for it that none of them has.
pub fn name<R: Content>(wanted: &R, known: &[Named<R>]) -> String {
    let content = canonical(&wanted.content());
    if let Some(same) = known
        .iter()
        .find(|k| canonical(&k.revision.content()) == content)
    {
        return same.hash.clone();
    }
    (0..=u32::MAX)
        .map(|salt| hash(&content, salt))
        .find(|hash| known.iter().all(|k| &k.hash != hash))
        .unwrap_or_default()
}

/// The ControllerRevision `<release>-<hash>` that keeps a revision, owned by the release; `number` orders it among its
/// siblings. Its data never changes, so it is created, not applied.
pub fn object<R: Content>(
    revision: &Named<R>,
    number: i64,
    mut metadata: ObjectMeta,
    release: &str,
    owner: OwnerReference,
) -> ControllerRevision {
    metadata.name = Some(format!("{release}-{}", revision.hash));
    metadata.owner_references = Some(vec![owner]);
    ControllerRevision {
        metadata,
        revision: number,
        data: serde_json::to_value(&revision.revision)
            .ok()
            .map(RawExtension),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::{
        Credentials,
        model_deployment::ServerSpec,
        revision::{ArtifactCache, FrozenConfigMap, ModelReference, Signature},
    };

    fn revision(image: &str) -> ModelRevision {
        ModelRevision {
            model: ModelReference {
                name: Some("churn".to_owned()),
                version: Some("20130401-000000-abcdef".to_owned()),
                uri: "pvc://models/churn".to_owned(),
                digest: Some(format!("sha256:{}", "a".repeat(64))),
                ..ModelReference::default()
            },
            server: ServerSpec {
                template: serde_json::from_value(
                    json!({"spec": {"containers": [{"name": "server", "image": image}]}}),
                )
                .unwrap(),
                ..ServerSpec::default()
            },
            helper_image: "perennial:1".to_owned(),
            cache: None,
            ..ModelRevision::default()
        }
    }

    #[test]
    fn the_hash_is_stable_across_releases_of_the_operator() {
        // Changing this line makes a new name for every revision that exists.
        assert_eq!(
            hash(&revision("x:1").content(), 0),
            hash(&canonical(&revision("x:1").content()), 0)
        );
        assert_eq!(hash(&json!({"b": 1, "a": [true, null]}), 0), "51705a2c9e");
    }

    #[test]
    fn an_upgrade_of_the_operator_makes_no_new_revision() {
        let mut upgraded = revision("x:1");
        upgraded.helper_image = "perennial:2".to_owned();
        upgraded.cache = Some(ArtifactCache::default());
        upgraded.model.signature = Some(Signature::default());
        upgraded.model.profile = Some("churn-profile".to_owned());
        let known = [Named {
            hash: "0123456789".to_owned(),
            revision: revision("x:1"),
        }];
        assert_eq!(name(&upgraded, &known), "0123456789");
    }

    #[test]
    fn what_decides_how_it_serves_makes_a_new_revision() {
        let before = revision("x:1");
        let known = [Named {
            hash: name(&before, &[]),
            revision: before.clone(),
        }];
        let mut others = vec![revision("x:2")];
        for change in [
            |r: &mut ModelRevision| r.model.version = Some("20130501-000000-abcdef".to_owned()),
            |r: &mut ModelRevision| r.model.digest = Some("sha256:b".to_owned()),
            |r: &mut ModelRevision| r.model.uri.push('x'),
            |r: &mut ModelRevision| r.server.port = Some(9000),
            |r: &mut ModelRevision| drop(r.config_maps.insert("c".to_owned(), frozen("1"))),
            |r: &mut ModelRevision| drop(r.config_maps.insert("c".to_owned(), frozen("2"))),
            |r: &mut ModelRevision| {
                r.model.credentials = Some(Credentials {
                    secret_name: "s3".to_owned(),
                });
            },
        ] {
            let mut other = before.clone();
            change(&mut other);
            others.push(other);
        }
        for other in others {
            assert_ne!(name(&other, &known), known[0].hash);
        }
    }

    fn frozen(digest: &str) -> FrozenConfigMap {
        FrozenConfigMap {
            copy: "churn-0123456789-0".to_owned(),
            digest: Some(digest.to_owned()),
        }
    }

    #[test]
    fn names_of_copies_are_not_hashed_and_contents_are() {
        let with = |copy: &str, digest: &str| {
            let mut revision = revision("x:1");
            let mut frozen = frozen(digest);
            frozen.copy = copy.to_owned();
            revision.config_maps.insert("c".to_owned(), frozen);
            hash(&revision.content(), 0)
        };
        assert_eq!(with("", "1"), with("churn-0123456789-0", "1"));
        assert_ne!(with("", "1"), with("", "2"));
    }

    #[test]
    fn two_contents_never_share_a_name() {
        let wanted = revision("x:2");
        let known = [Named {
            hash: hash(&wanted.content(), 0),
            revision: revision("x:1"),
        }];
        assert_eq!(
            name(&wanted, &known),
            hash(&canonical(&wanted.content()), 1)
        );
    }

    #[test]
    fn a_revision_is_kept_and_read_back() {
        let named = Named {
            hash: "0123456789".to_owned(),
            revision: revision("x:1"),
        };
        let object = object(
            &named,
            3,
            ObjectMeta::default(),
            "churn",
            OwnerReference::default(),
        );
        assert_eq!(object.metadata.name.as_deref(), Some("churn-0123456789"));
        assert_eq!(read::<ModelRevision>("churn", &object), Some(named));
        assert_eq!(read::<ModelRevision>("chur", &object), None);
    }

    proptest! {
        #[test]
        fn the_order_of_members_does_not_matter(pairs in proptest::collection::btree_map("[a-z]{1,5}", 0i64..9, 0..8)) {
            let forward: Map<String, Value> = pairs.iter().map(|(k, v)| (k.clone(), json!({"x": v, "a": 1}))).collect();
            let backward: Map<String, Value> = pairs.iter().rev().map(|(k, v)| (k.clone(), json!({"a": 1, "x": v}))).collect();
            prop_assert_eq!(hash(&Value::Object(forward), 0), hash(&Value::Object(backward), 0));
        }
    }
}
