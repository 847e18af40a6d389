//! What tests against a real cluster share: a namespace each, an operator inside the test, faults between it and the API server.
//!
//! `hack/test` starts the cluster and sets KUBECONFIG.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod crash;
pub mod faults;
pub mod nodes;
pub mod operator;

use std::{
    future::Future,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// Longest time for one test.
const LIMIT: Duration = Duration::from_secs(600);

/// A namespace of a cluster.
#[derive(Clone)]
pub struct Place {
    /// A client without faults and without limits: the user's.
    pub client: Client,
    /// A namespace that only this test uses.
    pub namespace: String,
}

/// Runs a test in a namespace of its own, on a runtime of its own, with the CRDs applied.
pub fn on_cluster<F: Future<Output = ()>>(test: impl FnOnce(Place) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::try_from(config().await).unwrap();
        ready(&client).await;
        let place = Place {
            namespace: make_namespace(&client).await,
            client,
        };
        let ended = tokio::time::timeout(LIMIT, test(place.clone())).await;
        place.discard().await;
        assert!(ended.is_ok(), "the test took longer than {LIMIT:?}");
    });
}

/// How the cluster is reached.
pub async fn config() -> kube::Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    assert!(
        std::env::var_os("KUBECONFIG").is_some(),
        "these tests need a cluster: run `hack/test apiserver`, or set KUBECONFIG to one that may be written to"
    );
    let mut config = kube::Config::infer().await.unwrap();
    config.default_retry = false;
    config
}

/// Applies the CRDs once for each test program, and waits until they are served.
async fn ready(client: &Client) {
    static APPLIED: OnceLock<tokio::sync::Mutex<bool>> = OnceLock::new();
    let mut applied = APPLIED.get_or_init(Default::default).lock().await;
    if *applied {
        return;
    }
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in perennial::api::crds() {
        let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
        crds.patch(
            &name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(&crd),
        )
        .await
        .unwrap();
    }
    for crd in perennial::api::crds() {
        let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
        eventually(&format!("CRD {name} is served"), || async {
            let crd = crds.get(&name).await.ok()?;
            let conditions = crd.status?.conditions?;
            conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
                .then_some(())
        })
        .await;
    }
    *applied = true;
}

async fn make_namespace(client: &Client) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let name = format!("t-{}-{number}", std::process::id());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    name
}

/// Waits until `look` finds something; panics with `what` after a minute.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let limit = Duration::from_secs(60);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let end = tokio::time::Instant::now() + limit;
    while tokio::time::Instant::now() < end {
        tick.tick().await;
        if let Some(found) = look().await {
            return found;
        }
    }
    panic!("waited {limit:?} in vain until {what}");
}

impl Place {
    /// A namespace beside this one, for tests that need several.
    pub async fn another(&self) -> Place {
        Place {
            client: self.client.clone(),
            namespace: make_namespace(&self.client).await,
        }
    }

    /// Deletes the namespace; nobody waits until it is gone.
    pub async fn discard(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let _ = namespaces
            .delete(&self.namespace, &DeleteParams::background())
            .await;
    }

    /// Objects of a kind, untyped: `batch/v1`, `Job`.
    pub fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// All objects of a kind, untyped.
    pub async fn list(&self, api_version: &str, kind: &str) -> Option<Vec<DynamicObject>> {
        let api = self.api(api_version, kind);
        Some(api.list(&ListParams::default()).await.ok()?.items)
    }

    /// Objects of a type.
    pub fn typed<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object, as `kubectl create` with strict validation.
    pub async fn create(&self, object: &Value) -> Result<Value, kube::Error> {
        let (api_version, kind) = (
            object["apiVersion"].as_str().unwrap(),
            object["kind"].as_str().unwrap(),
        );
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let url = <DynamicObject as kube::Resource>::url_path(&resource, Some(&self.namespace));
        let request = http::Request::post(format!("{url}?fieldValidation=Strict"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request(request).await
    }

    /// Merges a patch into an object.
    pub async fn patch(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value, kube::Error> {
        let api = self.api(api_version, kind);
        let object = api
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(serde_json::to_value(object).unwrap())
    }

    /// Reads an object; `None` when it isn't there.
    pub async fn get(&self, api_version: &str, kind: &str, name: &str) -> Option<Value> {
        let object = self.api(api_version, kind).get_opt(name).await.unwrap()?;
        Some(serde_json::to_value(object).unwrap())
    }

    /// The least TrainingJob.
    pub fn training_job(&self, name: &str) -> Value {
        json!({
            "apiVersion": "perennial.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "model": {"name": "m", "output": "s3://models/m"},
                "template": {"spec": {"containers": [{"name": "trainer", "image": "registry.example/trainer:1", "command": ["train"]}]}},
            },
        })
    }

    /// The least PromptRelease.
    pub fn prompt_release(&self, name: &str) -> Value {
        json!({
            "apiVersion": "perennial.dev/v1alpha1",
            "kind": "PromptRelease",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "prompt": {"messages": [{"role": "user", "content": "Greet {{ name }}."}]},
                "backend": {"url": "http://llm.example/v1", "model": "small"},
            },
        })
    }
}

/// Serializes tests that change something cluster-wide.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
