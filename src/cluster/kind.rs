//! Keys of objects, and what a watch says about them.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::cache::Kind;

/// Namespace and name. The gateway's planner has keys with an empty name: one for each namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The controller reference of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Such as `TrainingJob`.
    pub kind: String,
    /// Name, in the object's namespace.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// An object was made, changed, deleted, or listed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind.
    pub kind: Kind,
    /// Which object.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Its controller, if it has one.
    pub owner: Option<Owner>,
    /// Its labels. When labels or owner changed there are two changes: one with the old, one with the new.
    pub labels: BTreeMap<String, String>,
    /// Whether it is gone.
    pub deleted: bool,
}

impl Change {
    /// What is to be said of an object.
    pub fn new(kind: Kind, meta: &ObjectMeta, deleted: bool) -> Self {
        Self {
            kind,
            key: Key::of(meta),
            uid: meta.uid.clone().unwrap_or_default(),
            owner: controller_of(meta),
            labels: meta.labels.clone().unwrap_or_default(),
            deleted,
        }
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// The owner that this child belongs to: its controller reference, when that is of our group's kind `kind`, else the value of
    /// the label `label` (pods of a Job, objects that outlive their maker).
    pub fn belongs_to(&self, kind: &str, label: &str) -> Option<Key> {
        match &self.owner {
            Some(owner) if owner.kind == kind => {
                Some(Key::new(&self.key.namespace, owner.name.clone()))
            }
            _ => self
                .label(label)
                .map(|name| Key::new(&self.key.namespace, name)),
        }
    }
}

/// The controller reference, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<Owner> {
    let reference = meta
        .owner_references
        .iter()
        .flatten()
        .find(|r| r.controller == Some(true))?;
    Some(Owner {
        kind: reference.kind.clone(),
        name: reference.name.clone(),
        uid: reference.uid.clone(),
    })
}
