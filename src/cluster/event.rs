//! Events of `events.k8s.io`, small: kube's recorder leaves the note out of its key, so a second note under the same reason is lost.

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{compare::digest, error::is_leaving, kind::Key, subject::Subject};
use crate::{api::condition::bounded, plan};

/// Writes Events. The name of an Event is a function of what it says, so that saying it again after a crash is no second Event, but
/// one more in its series.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    instance: String,
}

impl Recorder {
    /// A recorder for this process.
    pub fn new(client: Client, identity: &str) -> Self {
        Self {
            client,
            instance: identity.chars().take(128).collect(),
        }
    }

    /// Writes an Event on this object. An Event that can't be written is logged; nothing waits for it.
    pub async fn send<S: Subject>(&self, object: &S, event: &plan::Event, now: Timestamp) {
        if let Some(kind) = object.kind() {
            let regarding = json!({
                "apiVersion": kind.resource().api_version,
                "kind": kind.as_str(),
                "namespace": object.key().namespace,
                "name": object.key().name,
                "uid": object.uid(),
            });
            let limit = std::time::Duration::from_secs(5);
            match tokio::time::timeout(limit, self.write(&object.key(), regarding, event, now))
                .await
            {
                Ok(Ok(())) => {}
                // Nothing is lost: it goes with the namespace.
                Ok(Err(kube::Error::Api(status))) if is_leaving(&status) => {}
                Ok(Err(error)) => tracing::warn!(
                    reason = event.reason,
                    "an Event couldn't be written: {error}"
                ),
                Err(_) => tracing::warn!(
                    reason = event.reason,
                    "an Event couldn't be written within {limit:?}"
                ),
            }
        }
    }

    async fn write(
        &self,
        key: &Key,
        regarding: serde_json::Value,
        event: &plan::Event,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        use k8s_openapi::api::events::v1::Event;

        let api: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let what = json!([regarding["uid"], event.reason, event.action, event.note]);
        let name = format!("{}.{}", key.name, digest(&what));
        let time = format!("{now:.6}");
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": key.namespace},
            "eventTime": time,
            "reportingController": "perennial.dev/operator",
            "reportingInstance": self.instance,
            "action": event.action,
            "reason": event.reason,
            "regarding": regarding,
            "note": bounded(event.note.clone()),
            "type": if event.warning { "Warning" } else { "Normal" },
        });
        let object: Event = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let count = api
                    .get_opt(&name)
                    .await?
                    .and_then(|e| e.series)
                    .map_or(1, |s| s.count);
                let patch = json!({"series": {"count": count + 1, "lastObservedTime": time}});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                    .await
                    .map(|_| ())
            }
            Err(error) => Err(error),
        }
    }
}
