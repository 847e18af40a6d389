//! The writes themselves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource,
    api::{
        DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    APPLIED, Acted,
    memory::{Applied, Echo, Settled},
};
use crate::{
    api::{MANAGER, SCALE_MANAGER, STATUS_MANAGER},
    cluster::{
        cache::{Kind, MANAGED_BY, MANAGED_BY_US},
        compare::{contains, digest, project},
        error::{Error, Refusal, RefusalReason, classify},
        kind::{Key, controller_of},
        shell::Shell,
        store::version_of,
        subject::Subject,
    },
    plan::Reference,
    telemetry::metrics::WRITES,
};

/// Writes for one object. The resourceVersion and status move on with each status that is written.
pub(super) struct Writer<'a> {
    shell: &'a Shell,
    key: Key,
    uid: String,
    kind: Option<Kind>,
    version: Option<String>,
    status: Value,
    writes: usize,
    /// Objects that somebody else keeps changing.
    pub(super) contested: Vec<Refusal>,
}

impl<'a> Writer<'a> {
    pub(super) fn new<O: Subject>(shell: &'a Shell, object: &O) -> Self {
        Self {
            shell,
            key: object.key(),
            uid: object.uid(),
            kind: object.kind(),
            version: object.resource_version(),
            status: object.status(),
            writes: 0,
            contested: Vec::new(),
        }
    }

    /// Writes that were sent so far.
    pub(super) fn writes(&self) -> usize {
        self.writes
    }

    pub(super) fn acted(&self, refused: Option<Refusal>, newly_refused: bool) -> Acted {
        Acted {
            writes: self.writes,
            refused,
            newly_refused,
            contested: self.contested.clone(),
        }
    }

    /// Applies a child; `digest` is its digest.
    pub(super) async fn apply(&mut self, desired: &Value, digest: String) -> Result<(), Error> {
        let (kind, key) = self.child(desired)?;
        let store = self.shell.caches.store(kind);
        let memory = &self.shell.memory;
        let settled = store.version(&key).map(|version| Settled {
            version,
            desired: digest.clone(),
        });
        if let Some(settled) = &settled
            && memory.is_settled(&self.uid, kind, &key, settled)
        {
            return Ok(());
        }
        let observed = match store.json(&key) {
            Some(observed) => observed,
            // The watch sees only what has our label: an object of somebody else would be missed.
            None => match self.read(kind, &key).await? {
                Some(live) => live,
                None => Value::Null,
            },
        };
        if !observed.is_null() {
            self.check_ours(kind, &key, desired, &observed)?;
            if self.same(kind, &key, desired, &digest, &observed) {
                if let Some(settled) = settled {
                    memory.settle(&self.uid, kind, &key, settled);
                }
                return Ok(());
            }
            self.check_peace(kind, &key, &digest, &observed).await?;
        }
        let mut sent = desired.clone();
        sent["metadata"]["annotations"][APPLIED] = json!(digest);
        if kind == Kind::Deployment && desired.pointer("/spec/replicas").is_none() {
            self.leave_replicas(kind, &key, &observed).await?;
        }
        // As precondition: should the object have been replaced by another since, the write fails.
        if let Some(uid) = observed.pointer("/metadata/uid") {
            sent["metadata"]["uid"] = uid.clone();
        }
        let params = PatchParams::apply(MANAGER).force();
        let answer = {
            let api = self.api(kind, &key.namespace);
            let patch = Patch::Apply(&sent);
            self.send("apply", kind, api.patch(&key.name, &params, &patch))
                .await?
        };
        let written = match answer {
            Ok(written) => written,
            Err(kube::Error::Api(status)) if status.code == 500 => {
                return Err(self.explain(kind, &key, &sent, status.message).await);
            }
            Err(kube::Error::Api(status)) if is_another(&status) => {
                let message = format!("{} {key}: {}", kind.as_str(), status.message);
                return Err(Error::Conflict(message));
            }
            Err(error) => return Err(classify(kind, &key, error)),
        };
        let version = written
            .metadata
            .resource_version
            .clone()
            .unwrap_or_default();
        let uid = written.metadata.uid.clone().unwrap_or_default();
        let changed = observed
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str)
            != Some(version.as_str());
        if changed {
            self.remember(kind, &key, &written.metadata);
        }
        let written = serde_json::to_value(&written).unwrap_or_default();
        self.shell.memory.applied(
            &self.uid,
            kind,
            &key,
            Applied {
                uid,
                projection: self::digest(&project(&written, desired)),
                desired: digest,
            },
        );
        Ok(())
    }

    /// Setting right what somebody else has changed has its limits: whoever does so again and again is not fought, but named.
    async fn check_peace(
        &mut self,
        kind: Kind,
        key: &Key,
        digest: &str,
        observed: &Value,
    ) -> Result<(), Error> {
        let annotation = observed
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(APPLIED));
        let memory = &self.shell.memory;
        let uid = text(observed, "/metadata/uid");
        let repairs = annotation.and_then(Value::as_str) == Some(digest)
            || memory.has_applied(&self.uid, kind, key, uid, digest);
        let Some(times) = repairs
            .then(|| memory.repair(&self.uid, kind, key))
            .flatten()
        else {
            return Ok(());
        };
        let live = self.read(kind, key).await?.unwrap_or_default();
        let (who, advice) = others(&live);
        Err(Error::Refused(Box::new(Refusal {
            kind,
            key: key.clone(),
            reason: RefusalReason::Contested,
            message: format!(
                "Contested: {} {} is changed again and again{who}: it was set right {times} times, and is once a minute from now on; {advice}",
                kind.as_str(),
                key.name
            ),
        })))
    }

    /// Before a number of pods that we wrote is left to an autoscaler: what a manager no longer says is removed, which would make it one pod,
    /// unless another manager says it, too. This one says what is there, and loses it with the autoscaler's first write. Not forced: if the
    /// number is somebody else's by now, there is nothing to do.
    async fn leave_replicas(
        &mut self,
        kind: Kind,
        key: &Key,
        observed: &Value,
    ) -> Result<(), Error> {
        let Some(replicas) = observed.pointer("/spec/replicas") else {
            return Ok(());
        };
        let sent = json!({
            "apiVersion": observed["apiVersion"], "kind": observed["kind"],
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": observed.pointer("/metadata/uid")},
            "spec": {"replicas": replicas},
        });
        let params = PatchParams::apply(SCALE_MANAGER);
        let answer = {
            let api = self.api(kind, &key.namespace);
            let patch = Patch::Apply(&sent);
            self.send("apply", kind, api.patch(&key.name, &params, &patch))
                .await?
        };
        match answer {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_anothers(&status) => Ok(()),
            Err(error) => Err(classify(kind, key, error)),
        }
    }

    /// Whether there is nothing to apply.
    fn same(&self, kind: Kind, key: &Key, desired: &Value, digest: &str, observed: &Value) -> bool {
        let annotation = observed
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(APPLIED));
        if annotation.and_then(Value::as_str) != Some(digest) {
            return false;
        }
        if contains(observed, desired) {
            return true;
        }
        let is = Applied {
            uid: text(observed, "/metadata/uid").to_owned(),
            desired: digest.to_owned(),
            projection: self::digest(&project(observed, desired)),
        };
        self.shell.memory.came_out_as(&self.uid, kind, key, &is)
    }

    pub(super) async fn create(&mut self, desired: &Value) -> Result<(), Error> {
        let (kind, key) = self.child(desired)?;
        if let Some(observed) = self.shell.caches.store(kind).json(&key) {
            return self.check_ours(kind, &key, desired, &observed);
        }
        let object: DynamicObject = serde_json::from_value(desired.clone())
            .map_err(|e| Error::Bug(format!("{} {key} can't be built: {e}", kind.as_str())))?;
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..Default::default()
        };
        let answer = {
            let api = self.api(kind, &key.namespace);
            self.send("create", kind, api.create(&params, &object))
                .await?
        };
        match answer {
            Ok(created) => self.remember(kind, &key, &created.metadata),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let Some(live) = self.read(kind, &key).await? else {
                    return Err(Error::Transient(format!(
                        "{} {key} came and went",
                        kind.as_str()
                    )));
                };
                self.check_ours(kind, &key, desired, &live)?;
                let meta = live.get("metadata").cloned().unwrap_or_default();
                if let Ok(meta) = serde_json::from_value::<ObjectMeta>(meta) {
                    self.remember(kind, &key, &meta);
                }
            }
            Err(error) => return Err(classify(kind, &key, error)),
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self, reference: &Reference) -> Result<(), Error> {
        let kind = Kind::find(&reference.api_version, &reference.kind).ok_or_else(|| {
            Error::Bug(format!(
                "{} {} is no kind that we delete",
                reference.api_version, reference.kind
            ))
        })?;
        let key = Key::new(&reference.namespace, &reference.name);
        let gone = match self.shell.caches.store(kind).meta(&key) {
            Some(meta) => {
                meta.uid.as_deref() != Some(&reference.uid) || meta.deletion_timestamp.is_some()
            }
            None => true,
        };
        if gone {
            return Ok(());
        }
        self.delete_uid(kind, &key, &reference.uid).await?;
        self.shell
            .memory
            .wrote(&self.uid, kind, &key, Echo::Gone(reference.uid.clone()));
        Ok(())
    }

    pub(super) async fn delete_self(&mut self) -> Result<(), Error> {
        let kind = self
            .kind
            .ok_or_else(|| Error::Bug(format!("{} can't be deleted", self.key)))?;
        let (key, uid) = (self.key.clone(), self.uid.clone());
        self.delete_uid(kind, &key, &uid).await?;
        self.shell
            .memory
            .wrote(&self.uid, kind, &key, Echo::Gone(uid.clone()));
        Ok(())
    }

    async fn delete_uid(&mut self, kind: Kind, key: &Key, uid: &str) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                ..Default::default()
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..Default::default()
        };
        let answer = {
            let api = self.api(kind, &key.namespace);
            self.send("delete", kind, api.delete(&key.name, &params))
                .await?
        };
        match answer {
            Ok(_) => Ok(()),
            // Gone already, or another object by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(classify(kind, key, error)),
        }
    }

    pub(super) async fn status<S: Serialize>(&mut self, status: &S) -> Result<(), Error> {
        let mut status = serde_json::to_value(status)
            .map_err(|e| Error::Bug(format!("the status of {} can't be written: {e}", self.key)))?;
        keep_transitions(&self.status, &mut status);
        if status == self.status {
            return Ok(());
        }
        let (Some(kind), Some(version)) = (self.kind, self.version.clone()) else {
            return Err(Error::Bug(format!("{} has no status", self.key)));
        };
        let resource = kind.resource();
        let object = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "namespace": self.key.namespace,
                "name": self.key.name,
                "uid": self.uid,
                "resourceVersion": version,
            },
            "status": status,
        });
        let object: DynamicObject = serde_json::from_value(object)
            .map_err(|e| Error::Bug(format!("the status of {} can't be built: {e}", self.key)))?;
        let params = PostParams {
            field_manager: Some(STATUS_MANAGER.to_owned()),
            ..Default::default()
        };
        let key = self.key.clone();
        let answer = {
            let api = self.api(kind, &key.namespace);
            self.send(
                "status",
                kind,
                api.replace_status(&key.name, &params, &object),
            )
            .await?
        };
        match answer {
            Ok(written) => {
                self.remember(kind, &key, &written.metadata);
                self.version = written.metadata.resource_version;
                self.status = status;
                Ok(())
            }
            Err(error) => Err(match classify(kind, &key, error) {
                // A status that the schema refuses is our mistake, not the user's.
                Error::Refused(refusal) if refusal.reason == RefusalReason::Invalid => {
                    Error::Bug(refusal.message)
                }
                Error::Refused(refusal) => Error::Transient(refusal.message),
                other => other,
            }),
        }
    }

    /// Kind and key of a child, checked for what would go wrong later.
    fn child(&self, desired: &Value) -> Result<(Kind, Key), Error> {
        let (api_version, kind) = (text(desired, "/apiVersion"), text(desired, "/kind"));
        let key = Key::new(
            text(desired, "/metadata/namespace"),
            text(desired, "/metadata/name"),
        );
        let bug = |what: &str| Error::Bug(format!("{kind} {key} {what}"));
        let found =
            Kind::find(api_version, kind).ok_or_else(|| bug("is of a kind that isn't watched"))?;
        if key.namespace != self.key.namespace {
            return Err(bug("is in another namespace than what it is for"));
        }
        if !found.is_own() && label(desired, MANAGED_BY) != Some(MANAGED_BY_US) {
            return Err(bug(
                "lacks the label app.kubernetes.io/managed-by=perennial and would not be seen again",
            ));
        }
        Ok((found, key))
    }

    /// Whether the object that is there may be written: it has the same controller, or, where there is none, our label.
    fn check_ours(
        &self,
        kind: Kind,
        key: &Key,
        desired: &Value,
        observed: &Value,
    ) -> Result<(), Error> {
        let owner = |object: &Value| {
            serde_json::from_value::<ObjectMeta>(
                object.get("metadata").cloned().unwrap_or_default(),
            )
            .ok()
            .and_then(|meta| controller_of(&meta))
        };
        let (wanted, is) = (owner(desired), owner(observed));
        let ours = match (&wanted, &is) {
            (Some(wanted), Some(is)) if wanted.uid == is.uid => true,
            // Left over from an object of the same name that was deleted: the garbage collector is on its way.
            (Some(wanted), Some(is)) if wanted.kind == is.kind && wanted.name == is.name => {
                return Err(Error::Transient(format!(
                    "{} {key} belongs to a deleted {} of the same name: waiting until it is gone",
                    kind.as_str(),
                    is.kind
                )));
            }
            (Some(_), _) => false,
            (None, None) => kind.is_own() || label(observed, MANAGED_BY) == Some(MANAGED_BY_US),
            (None, Some(_)) => false,
        };
        if !ours {
            let whose = is.map_or_else(
                || "isn't managed by Perennial".to_owned(),
                |owner| format!("belongs to {} {}", owner.kind, owner.name),
            );
            return Err(Error::Refused(Box::new(Refusal {
                kind,
                key: key.clone(),
                reason: RefusalReason::NameTaken,
                message: format!(
                    "NameTaken: {} {} is there already and {whose}; rename or delete it",
                    kind.as_str(),
                    key.name
                ),
            })));
        }
        if observed.pointer("/metadata/deletionTimestamp").is_some() {
            return Err(Error::Transient(format!(
                "{} {key} is being deleted: waiting until it is gone",
                kind.as_str()
            )));
        }
        Ok(())
    }

    /// Server-side apply answers an unknown field with 500, as it does when it is itself in trouble: a dry run tells them apart.
    async fn explain(&mut self, kind: Kind, key: &Key, sent: &Value, message: String) -> Error {
        let mut object = sent.clone();
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("uid");
        }
        let url = DynamicObject::url_path(&kind.resource(), Some(&key.namespace));
        let request = http::Request::post(format!(
            "{url}?dryRun=All&fieldManager={MANAGER}&fieldValidation=Strict"
        ))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes());
        let Ok(request) = request else {
            return Error::Bug(format!("{} {key} has no address", kind.as_str()));
        };
        let answer = self
            .limited(self.shell.client.request::<Value>(request))
            .await;
        match answer {
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 422) => {
                classify(kind, key, kube::Error::Api(status))
            }
            _ => Error::Transient(format!("{} {key}: {message} (500)", kind.as_str())),
        }
    }

    async fn read(&self, kind: Kind, key: &Key) -> Result<Option<Value>, Error> {
        let api = self.api(kind, &key.namespace);
        match self.limited(api.get_opt(&key.name)).await? {
            Ok(object) => Ok(object.and_then(|o| serde_json::to_value(o).ok())),
            Err(error) => Err(classify(kind, key, error)),
        }
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.shell.client.clone(), namespace, &kind.resource())
    }

    fn remember(&self, kind: Kind, key: &Key, meta: &ObjectMeta) {
        self.shell
            .memory
            .wrote(&self.uid, kind, key, Echo::Version(version_of(meta)));
    }

    /// A write, if we may and in time.
    async fn send<T>(
        &mut self,
        verb: &str,
        kind: Kind,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<Result<T, kube::Error>, Error> {
        if !self.shell.leadership.may_write() {
            return Err(Error::NotLeader);
        }
        self.writes += 1;
        WRITES.with_label_values(&[verb, kind.as_str()]).inc();
        self.limited(request).await
    }

    async fn limited<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.shell.settings.write_limit;
        tokio::time::timeout(limit, request).await.map_err(|_| {
            Error::Transient(format!("no answer from the API server within {limit:?}"))
        })
    }
}

/// Whether an apply was refused as the object was replaced by another of its name since it was read: that is no mistake of the user's.
fn is_another(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    status.code == 422
        && causes
            .into_iter()
            .any(|cause| cause.field == "metadata.uid")
}

/// Who else has written an object last, and what they should do instead.
fn others(live: &Value) -> (String, &'static str) {
    let managers = live.pointer("/metadata/managedFields");
    let mut managers: Vec<&Value> = managers
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|m| m["subresource"] != "status")
        .filter(|m| {
            ![MANAGER, SCALE_MANAGER]
                .map(Value::from)
                .contains(&m["manager"])
        })
        .collect();
    managers.sort_by_key(|m| m["time"].as_str().unwrap_or_default().to_owned());
    let Some(last) = managers.last() else {
        return (String::new(), "find out who does, and stop them");
    };
    let name = last["manager"].as_str().unwrap_or_default();
    match last["subresource"].as_str() {
        Some("scale") => (
            format!(" by {name} (scale)"),
            "an autoscaler has to target the ModelDeployment, not its children; or use spec.autoscaling",
        ),
        _ => (
            format!(" by {name}"),
            "it belongs to its owner, whose spec has to say what you want",
        ),
    }
}

/// Whether another manager has the field that was to be applied.
fn is_anothers(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    status.code == 409
        && causes
            .into_iter()
            .any(|cause| cause.reason == "FieldManagerConflict")
}

/// A condition whose status stayed keeps its transition time, whatever the planner went through to get there.
fn keep_transitions(observed: &Value, planned: &mut Value) {
    let Some(old) = observed.get("conditions").and_then(Value::as_array) else {
        return;
    };
    let Some(new) = planned.get_mut("conditions").and_then(Value::as_array_mut) else {
        return;
    };
    for condition in new {
        let before = old.iter().find(|o| o.get("type") == condition.get("type"));
        if let Some(before) = before
            && before.get("status") == condition.get("status")
            && let Some(time) = before.get("lastTransitionTime")
        {
            condition["lastTransitionTime"] = time.clone();
        }
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn label<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.pointer("/metadata/labels")?.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_was_replaced_is_a_conflict_and_no_mistake_in_a_template() {
        let refused = |field: &str| {
            let status = json!({"status": "Failure", "reason": "Invalid", "code": 422, "message": "field is immutable",
                "details": {"causes": [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": field}]}});
            serde_json::from_value::<kube::core::Status>(status).unwrap()
        };
        assert!(is_another(&refused("metadata.uid")));
        assert!(!is_another(&refused("spec.selector")));
    }
}
