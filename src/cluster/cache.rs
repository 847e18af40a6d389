//! One watch per kind (and namespace, when limited to some) fills a store and tells every subscriber what changed, deletes included.
//!
//! Written because kube's shared streams lose deletes and wake-ups (kube#1590). Nothing but a watch writes to a store.

use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ApiResource, DeserializeGuard, NamespaceResourceScope, PartialObjectMeta},
    runtime::watcher::{self, Event, watcher},
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    kind::{Change, Key},
    store::{AnyStore, Entry, Store},
};
use crate::api::{Evaluation, ModelDeployment, PromptRelease, TrainingJob, serving::HTTPRoute};

/// The label that everything we make carries; children without it would not be seen again.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY_US: &str = "perennial";

/// How often a kind that the cluster doesn't know is looked for.
const ABSENT: std::time::Duration = std::time::Duration::from_secs(15);

/// How much of a kind is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Selection {
    /// Every object.
    All,
    /// Those with our label.
    Ours,
}

impl Selection {
    fn config(self) -> watcher::Config {
        // The server ends each watch after 45 s; kube gives up five seconds later: a silent connection is noticed within a minute.
        let config = watcher::Config::default().timeout(45);
        match self {
            Self::All => config,
            Self::Ours => config.labels(&format!("{MANAGED_BY}={MANAGED_BY_US}")),
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $field:ident: $type:ty, $selection:ident;)*) => {
        /// The kinds that the operator watches, and the only ones that it writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// How to address it.
            pub fn resource(self) -> ApiResource {
                match self { $(Kind::$kind => ApiResource::erase::<$type>(&()),)* }
            }

            /// The name of the kind, such as `Job`.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind),)* }
            }
        }

        /// What is known of the cluster: one store for each kind. Clones share them.
        #[derive(Clone)]
        pub struct Caches {
            $($(#[$doc])* pub $field: Store<$type>,)*
            /// Every ConfigMap, without what it holds: templates name those of users. Read it by [`super::Shell::fetch`]. Only who asks
            /// for one waits until they are listed.
            pub config_map_names: Store<PartialObjectMeta<ConfigMap>>,
            subscribers: Subscribers,
            scopes: Vec<String>,
        }

        impl Caches {
            /// Empty caches of these namespaces; none means the whole cluster.
            pub fn new(namespaces: &[String]) -> Self {
                let scopes = if namespaces.is_empty() { vec![String::new()] } else { namespaces.to_vec() };
                Self {
                    $($field: Store::new(Kind::$kind, &scopes),)*
                    config_map_names: Store::new(Kind::ConfigMap, &scopes),
                    subscribers: Subscribers::default(),
                    scopes,
                }
            }

            /// The store of a kind.
            pub fn store(&self, kind: Kind) -> &dyn AnyStore {
                match kind { $(Kind::$kind => &self.$field,)* }
            }

            /// Starts the watches; they end when `stop` is cancelled.
            pub fn start(&self, client: &Client, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
                let mut tasks = Vec::new();
                for scope in &self.scopes {
                    $({
                        let api: Api<DeserializeGuard<$type>> = api(client, scope);
                        let events = watcher(api, Selection::$selection.config());
                        let work = watch(events, |guard| entry(Kind::$kind, guard), self.$field.clone(), scope.clone(), self.subscribers.clone());
                        let stop = stop.clone();
                        tasks.push(tokio::spawn(async move { stop.run_until_cancelled(work).await; }));
                    })*
                    let events = watcher(api::<PartialObjectMeta<ConfigMap>>(client, scope), Selection::All.config());
                    let work = watch(events, without_annotations, self.config_map_names.clone(), scope.clone(), self.subscribers.clone());
                    let stop = stop.clone();
                    tasks.push(tokio::spawn(async move { stop.run_until_cancelled(work).await; }));
                }
                tasks
            }
        }
    };
}

kinds! {
    /// Runs that make model versions.
    TrainingJob training_jobs: TrainingJob, All;
    /// Models that serve.
    ModelDeployment model_deployments: ModelDeployment, All;
    /// Measurements.
    Evaluation evaluations: Evaluation, All;
    /// Prompts.
    PromptRelease prompt_releases: PromptRelease, All;
    /// Jobs of ours.
    Job jobs: Job, Ours;
    /// Pods of ours.
    Pod pods: Pod, Ours;
    /// Deployments of ours.
    Deployment deployments: Deployment, Ours;
    /// Services of ours.
    Service services: Service, Ours;
    /// ConfigMaps of ours: profiles, frozen copies.
    ConfigMap config_maps: ConfigMap, Ours;
    /// Revisions.
    ControllerRevision controller_revisions: ControllerRevision, Ours;
    /// Endpoints of Services of ours.
    EndpointSlice endpoint_slices: EndpointSlice, Ours;
    /// Every claim: URIs name those of users.
    PersistentVolumeClaim claims: PersistentVolumeClaim, All;
    /// Gateways' accounts.
    ServiceAccount service_accounts: ServiceAccount, Ours;
    /// Gateways' roles.
    Role roles: Role, Ours;
    /// Gateways' role bindings.
    RoleBinding role_bindings: RoleBinding, Ours;
    /// Who may reach gateways.
    NetworkPolicy network_policies: NetworkPolicy, Ours;
    /// Disruption budgets of servers and gateways.
    PodDisruptionBudget disruption_budgets: PodDisruptionBudget, Ours;
    /// Autoscalers of servers.
    HorizontalPodAutoscaler autoscalers: HorizontalPodAutoscaler, Ours;
    /// Routes from outside: not every cluster knows them.
    HTTPRoute routes: HTTPRoute, Ours;
}

impl Kind {
    /// The kind with this `apiVersion` and `kind`, if it is one of ours.
    pub fn find(api_version: &str, kind: &str) -> Option<Kind> {
        Self::ALL.iter().copied().find(|k| {
            k.as_str() == kind && {
                let resource = k.resource();
                resource.api_version == api_version
            }
        })
    }

    /// Whether a cluster may do without this kind: nobody waits for it then, and it is looked for now and then.
    pub fn is_optional(self) -> bool {
        matches!(self, Kind::HTTPRoute)
    }

    /// Whether it is one of the four resources of `perennial.dev`.
    pub fn is_own(self) -> bool {
        matches!(
            self,
            Kind::TrainingJob | Kind::ModelDeployment | Kind::Evaluation | Kind::PromptRelease
        )
    }
}

type Subscriber = Arc<dyn Fn(&Caches, &Change) + Send + Sync>;

type Listener = Arc<dyn Fn(&Change) + Send + Sync>;

#[derive(Clone, Default)]
struct Subscribers(Arc<RwLock<Vec<Listener>>>);

impl Subscribers {
    fn tell(&self, changes: &[Change]) {
        let subscribers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            for subscriber in subscribers.iter() {
                subscriber(change);
            }
        }
    }
}

impl Caches {
    /// Calls `subscriber` with every change from now on. It must not block: it maps the change to keys and queues them.
    pub fn subscribe(&self, subscriber: Subscriber) {
        let caches = self.clone_without_subscribers();
        self.subscribers
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::new(move |change| subscriber(&caches, change)));
    }

    /// The same stores for use inside a subscriber, without a cycle of references.
    fn clone_without_subscribers(&self) -> Self {
        Self {
            subscribers: Subscribers::default(),
            ..self.clone()
        }
    }

    /// Feeds changes to the subscribers, as a watch does: for tests that fill stores by hand.
    pub fn tell(&self, changes: &[Change]) {
        self.subscribers.tell(changes);
    }

    /// Whether work can begin: what is watched is known, but for namespaces that we were told of and may not read. Those are gone, or not
    /// given to us yet; the others don't wait for them.
    pub fn ready(&self) -> bool {
        let refused = |scope: &String| {
            let mut kinds = Kind::ALL.iter();
            kinds.any(|kind| self.store(*kind).refused_in(scope))
        };
        let mut scopes = self.scopes.iter();
        let some = self.scopes.iter().any(|scope| self.ready_in(scope));
        some && scopes.all(|scope| self.ready_in(scope) || refused(scope))
    }

    /// Whether every store is complete for this namespace: before that nothing is decided in it.
    pub fn ready_in(&self, namespace: &str) -> bool {
        let mut kinds = Kind::ALL.iter();
        kinds.all(|kind| self.store(*kind).ready_in(namespace))
    }

    /// What keeps stores from being filled, one sentence for each kind.
    pub fn problems(&self) -> Vec<String> {
        Kind::ALL
            .iter()
            .filter_map(|kind| self.store(*kind).problem())
            .chain(self.config_map_names.problem())
            .collect()
    }

    /// Whether this namespace is one that is watched.
    pub fn covers(&self, namespace: &str) -> bool {
        self.scopes.iter().any(|s| s.is_empty() || s == namespace)
    }

    /// Waits until work can begin.
    pub async fn wait_ready(&self) {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while !self.ready() {
            tick.tick().await;
        }
    }
}

fn api<K>(client: &Client, scope: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    if scope.is_empty() {
        Api::all(client.clone())
    } else {
        Api::namespaced(client.clone(), scope)
    }
}

/// Fills a store with what a watch brings: `read` makes an entry of it.
async fn watch<T, K>(
    events: impl Stream<Item = watcher::Result<Event<T>>> + Send,
    read: impl Fn(T) -> Entry<K> + Send,
    store: Store<K>,
    scope: String,
    subscribers: Subscribers,
) where
    T: Resource<DynamicType = ()> + Send,
    K: Resource<DynamicType = ()> + serde::Serialize + Send + Sync,
{
    let kind = store.kind();
    let mut stream = std::pin::pin!(events);
    let mut failures: u32 = 0;
    let mut failed: Option<Instant> = None;
    while let Some(event) = stream.next().await {
        let changes = match event {
            Ok(event) => {
                // `Init` only announces an attempt to list; anything else is an answer.
                if failures > 0 && !matches!(event, Event::Init) {
                    tracing::info!(kind = kind.as_str(), scope, "watching again");
                    failures = 0;
                }
                match event {
                    Event::Init => {
                        store.begin(&scope);
                        Vec::new()
                    }
                    Event::Apply(object) | Event::InitApply(object) => {
                        store.put(&scope, read(object))
                    }
                    Event::Delete(object) => store.remove(&scope, object.meta()),
                    Event::InitDone => store.complete(&scope),
                }
            }
            Err(error) if kind.is_optional() && is_missing(&error) => {
                store.begin(&scope);
                let gone = store.complete(&scope);
                store.set_absent(&scope);
                subscribers.tell(&gone);
                tokio::time::sleep(ABSENT).await;
                Vec::new()
            }
            Err(error) => {
                let problem = describe(kind, &error);
                if failed
                    .is_some_and(|at: Instant| at.elapsed() > std::time::Duration::from_secs(60))
                {
                    failures = 0;
                }
                failed = Some(Instant::now());
                if failures == 0 {
                    tracing::warn!(kind = kind.as_str(), scope, "{problem}");
                }
                crate::telemetry::metrics::WATCH_ERRORS
                    .with_label_values(&[kind.as_str()])
                    .inc();
                // An expired resourceVersion or an ended connection is daily life, and is no problem until it lasts.
                if failures > 0 || !store.ready_in(&scope) {
                    store.set_problem(&scope, problem);
                }
                if matches!(&error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403)
                {
                    store.set_refused(&scope);
                }
                let wait = std::time::Duration::from_millis(100 << failures.min(6));
                failures += 1;
                tokio::time::sleep(wait.min(std::time::Duration::from_secs(5))).await;
                Vec::new()
            }
        };
        subscribers.tell(&changes);
    }
}

fn entry<K: Resource<DynamicType = ()>>(kind: Kind, guard: DeserializeGuard<K>) -> Entry<K> {
    match guard.0 {
        Ok(mut object) => {
            object.meta_mut().managed_fields = None;
            Entry::Valid(Box::new(object))
        }
        Err(invalid) => {
            let key = Key::of(&invalid.metadata);
            crate::telemetry::metrics::INVALID_OBJECTS
                .with_label_values(&[kind.as_str()])
                .inc();
            tracing::error!(
                kind = kind.as_str(),
                namespace = key.namespace,
                name = key.name,
                "InvalidObject: this version of the operator can't read it and leaves it alone: {}",
                invalid.error
            );
            Entry::Invalid(Box::new(invalid.metadata), invalid.error)
        }
    }
}

/// Annotations may hold the whole object once more.
fn without_annotations<K>(mut object: PartialObjectMeta<K>) -> Entry<PartialObjectMeta<K>> {
    object.metadata.managed_fields = None;
    object.metadata.annotations = None;
    Entry::Valid(Box::new(object))
}

/// Whether it says that the cluster doesn't know the kind.
fn is_missing(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// Why a kind can't be watched, and what to do about it.
fn describe(kind: Kind, error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status),
        watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    let resource = kind.resource();
    match status.map(|s| s.code) {
        Some(404) if kind.is_own() => format!(
            "the CRD {}.{} is missing: install it with `perennial crds | kubectl apply -f -`",
            resource.plural, resource.group
        ),
        Some(403) => format!(
            "the operator may not list and watch {}: {}",
            resource.plural,
            status.map(|s| s.message.as_str()).unwrap_or_default()
        ),
        _ => format!("{} can't be watched: {error}", resource.plural),
    }
}

/// Name of an object, for logs.
pub fn name_of<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> watcher::Error {
        watcher::Error::InitialListFailed(kube::Error::Api(
            kube::core::Status::failure(message, "")
                .with_code(code)
                .boxed(),
        ))
    }

    #[test]
    fn a_namespace_that_we_may_not_read_keeps_nobody_else_waiting() {
        let caches = Caches::new(&["a".to_owned(), "b".to_owned()]);
        let fill = |scope: &str| {
            caches.training_jobs.complete(scope);
            caches.model_deployments.complete(scope);
            caches.evaluations.complete(scope);
            caches.prompt_releases.complete(scope);
            caches.jobs.complete(scope);
            caches.pods.complete(scope);
            caches.deployments.complete(scope);
            caches.services.complete(scope);
            caches.config_maps.complete(scope);
            caches.controller_revisions.complete(scope);
            caches.endpoint_slices.complete(scope);
            caches.claims.complete(scope);
            caches.service_accounts.complete(scope);
            caches.roles.complete(scope);
            caches.role_bindings.complete(scope);
            caches.network_policies.complete(scope);
            caches.disruption_budgets.complete(scope);
            caches.autoscalers.complete(scope);
            caches.routes.complete(scope);
        };
        caches.pods.set_refused("b");
        assert!(!caches.ready(), "nothing is known yet");
        fill("a");
        assert!(caches.ready() && caches.ready_in("a") && !caches.ready_in("b"));
        fill("b");
        assert!(caches.ready() && caches.ready_in("b"));
        let everywhere = Caches::new(&[]);
        everywhere.pods.set_refused("");
        assert!(!everywhere.ready(), "without permissions nothing is ready");
    }

    #[test]
    fn a_kind_that_can_not_be_watched_says_what_to_do() {
        let missing = describe(Kind::Evaluation, &refused(404, "not found"));
        assert_eq!(
            missing,
            "the CRD evaluations.perennial.dev is missing: install it with `perennial crds | kubectl apply -f -`"
        );
        let forbidden = describe(Kind::Job, &refused(403, "jobs.batch is forbidden"));
        assert_eq!(
            forbidden,
            "the operator may not list and watch jobs: jobs.batch is forbidden"
        );
    }

    #[test]
    fn kinds_are_found_by_what_objects_say_of_themselves() {
        for kind in Kind::ALL {
            let resource = kind.resource();
            assert_eq!(
                Kind::find(&resource.api_version, kind.as_str()),
                Some(*kind)
            );
            assert_eq!(resource.kind, kind.as_str());
        }
        assert_eq!(Kind::find("v1", "Secret"), None);
    }
}
