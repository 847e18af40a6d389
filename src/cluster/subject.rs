//! The thing that is reconciled: one of the four resources, or a namespace.

use kube::core::object::HasStatus;
use serde::Serialize;
use serde_json::Value;

use super::{cache::Kind, kind::Key};
use crate::api::{
    evaluation::EvaluationStatus, model_deployment::ModelDeploymentStatus,
    prompt_release::PromptReleaseStatus, training_job::TrainingJobStatus,
};

/// What the driver must know of the thing that is reconciled.
pub trait Subject: Send + Sync + 'static {
    /// What kind it is, if it is an object that has a status and Events.
    fn kind(&self) -> Option<Kind>;
    /// Its key.
    fn key(&self) -> Key;
    /// Its uid; back-off is kept by it.
    fn uid(&self) -> String;
    /// The spec's generation: a new one ends a back-off.
    fn generation(&self) -> Option<i64>;
    /// The resourceVersion that was observed.
    fn resource_version(&self) -> Option<String>;
    /// Whether it is being deleted; then nothing is planned for it.
    fn deleting(&self) -> bool;
    /// Its status as it was observed.
    fn status(&self) -> Value;
    /// Whether its spec was edited since its status was written.
    fn is_unanswered(&self) -> bool;
}

/// The status of one of the four resources.
pub trait Answer: Serialize {
    /// The generation of the spec that it speaks of.
    fn observed_generation(&self) -> Option<i64>;
}

macro_rules! answers {
    ($($status:ty)*) => { $(impl Answer for $status {
        fn observed_generation(&self) -> Option<i64> {
            self.observed_generation
        }
    })* };
}

answers!(TrainingJobStatus ModelDeploymentStatus EvaluationStatus PromptReleaseStatus);

impl<K> Subject for K
where
    K: kube::Resource<DynamicType = ()> + HasStatus + Send + Sync + 'static,
    K::Status: Answer,
{
    fn kind(&self) -> Option<Kind> {
        Kind::find(&K::api_version(&()), &K::kind(&()))
    }

    fn key(&self) -> Key {
        Key::of(self.meta())
    }

    fn uid(&self) -> String {
        self.meta().uid.clone().unwrap_or_default()
    }

    fn generation(&self) -> Option<i64> {
        self.meta().generation
    }

    fn resource_version(&self) -> Option<String> {
        self.meta().resource_version.clone()
    }

    fn deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    fn status(&self) -> Value {
        HasStatus::status(self)
            .and_then(|s| serde_json::to_value(s).ok())
            .unwrap_or(Value::Null)
    }

    fn is_unanswered(&self) -> bool {
        let status = HasStatus::status(self);
        status.and_then(Answer::observed_generation) != self.meta().generation
    }
}

/// A namespace as the thing that is reconciled: the gateway's planner has one key for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub namespace: String,
}

impl Place {
    /// Its key: the name is empty.
    pub fn key_of(namespace: &str) -> Key {
        Key::new(namespace, "")
    }
}

impl Subject for Place {
    fn kind(&self) -> Option<Kind> {
        None
    }

    fn key(&self) -> Key {
        Self::key_of(&self.namespace)
    }

    fn uid(&self) -> String {
        format!("place/{}", self.namespace)
    }

    fn generation(&self) -> Option<i64> {
        None
    }

    fn resource_version(&self) -> Option<String> {
        None
    }

    fn deleting(&self) -> bool {
        false
    }

    fn status(&self) -> Value {
        Value::Null
    }

    fn is_unanswered(&self) -> bool {
        false
    }
}
