//! ModelDeployment: what wakes it and what it is planned from.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Resource, ResourceExt};

use super::{
    claim,
    driver::{Controller, Outcome},
};
use crate::{
    api::{
        ModelDeployment, label, model_deployment::ModelDeploymentStatus, revision::ModelRevision,
        rollout::RolloutState,
    },
    cluster::{
        AnyStore, Caches, Change, Error, Key, Kind, Refusal, Shell,
        measure::{GatewayPod, Interest, Measure, ReleaseKey, ReleaseKind},
    },
    plan::{
        Plan, Reference, config_map,
        ended::{self, Ended},
        gateway,
        model_deployment::{
            self, Observed,
            drift::{
                predictions::{self, References},
                recorded::{self, Recorded},
            },
            frozen, model,
        },
        rollout::{self, Asking, Input, Questions, State},
    },
    stats::{bucket::ReleaseMeasurements, profile::Profile},
};

/// Parsed profiles, and users' ConfigMaps, that are kept; beyond that all are read again.
const MOST_KEPT: usize = 2000;
/// `analysis.interval` where it isn't given.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

/// A ConfigMap's resourceVersion, and what is in it, if it can be read.
type Parsed<T> = (Option<String>, Option<Arc<T>>);

/// The controller of ModelDeployments.
pub struct ModelDeployments {
    measure: Measure,
    /// By ConfigMap: its resourceVersion, and what it holds.
    profiles: Mutex<HashMap<Key, Parsed<Profile>>>,
    /// By ConfigMap: its resourceVersion, and what is recorded of a window.
    records: Mutex<HashMap<Key, Parsed<Recorded>>>,
    /// By ConfigMap: its resourceVersion, and the first windows of predictions.
    references: Mutex<HashMap<Key, Parsed<References>>>,
    /// Users' ConfigMaps that templates name, as they were read last.
    config_maps: Mutex<HashMap<Key, Arc<ConfigMap>>>,
}

impl ModelDeployments {
    /// With what gateways measure.
    pub fn new(measure: Measure) -> Self {
        Self {
            measure,
            profiles: Mutex::default(),
            records: Mutex::default(),
            references: Mutex::default(),
            config_maps: Mutex::default(),
        }
    }

    /// The profile in this ConfigMap, parsed once.
    fn profile(&self, caches: &Caches, key: &Key) -> Option<Arc<Profile>> {
        let object = caches.config_maps.get(key)?;
        let version = object.resource_version();
        let mut profiles = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, profile)) = profiles.get(key)
            && *known == version
        {
            return profile.clone();
        }
        let text = object.data.as_ref()?.get("profile.json")?;
        let profile = match serde_json::from_str(text) {
            Ok(profile) => Some(Arc::new(profile)),
            Err(error) => {
                tracing::warn!("the profile in ConfigMap {key} can't be read: {error}");
                None
            }
        };
        if profiles.len() >= MOST_KEPT {
            profiles.clear();
        }
        profiles.insert(key.clone(), (version, profile.clone()));
        profile
    }

    /// What is recorded of the filling window, parsed once.
    fn recorded(&self, object: &Arc<ConfigMap>) -> Option<Arc<Recorded>> {
        parsed(&self.records, object, |object| {
            recorded::read(object)
                .map_err(|error| {
                    let key = Key::of(&object.metadata);
                    tracing::warn!("the window in ConfigMap {key} begins anew: {error}");
                })
                .ok()
        })
    }

    /// What the release's template names, where it is there: read once for each version that the watch tells of.
    async fn config_maps(
        &self,
        shell: &Shell,
        names: BTreeMap<String, config_map::Need>,
        namespace: &str,
    ) -> Result<BTreeMap<String, Arc<ConfigMap>>, Error> {
        let mut found = BTreeMap::new();
        for name in names.into_keys() {
            let key = Key::new(namespace, &name);
            let Some(seen) = shell.caches.config_map_names.get(&key) else {
                continue;
            };
            let known = self.kept(&key).filter(|known| {
                (&known.metadata.uid, &known.metadata.resource_version)
                    == (&seen.metadata.uid, &seen.metadata.resource_version)
            });
            let config_map = match known {
                Some(known) => known,
                None => match shell.fetch::<ConfigMap>(&key).await? {
                    Some(read) => self.keep(key, read),
                    None => continue,
                },
            };
            found.insert(name, config_map);
        }
        Ok(found)
    }

    fn kept(&self, key: &Key) -> Option<Arc<ConfigMap>> {
        let kept = self.config_maps.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.get(key).cloned()
    }

    fn keep(&self, key: Key, read: ConfigMap) -> Arc<ConfigMap> {
        let read = Arc::new(read);
        let kept = self.config_maps.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, read.clone());
        read
    }

    /// Keeps the release measured, and reads what is known.
    fn measured(
        &self,
        caches: &Caches,
        object: &ModelDeployment,
        namespace: &str,
        uid: &str,
    ) -> ReleaseMeasurements {
        let rollout = object
            .status
            .as_ref()
            .and_then(|s| s.rollout.clone())
            .unwrap_or_default();
        let spec = object
            .spec
            .rollout
            .as_ref()
            .and_then(|r| r.analysis.as_ref());
        let interval = spec
            .and_then(|a| a.interval.as_ref())
            .map_or(DEFAULT_INTERVAL, crate::api::Duration::to_std);
        let window = object
            .spec
            .monitoring
            .as_ref()
            .and_then(|m| m.drift.as_ref()?.window.as_ref());
        let window = window.map_or(
            Duration::from_secs(7 * 86_400),
            crate::api::Duration::to_std,
        );
        let key = ReleaseKey {
            kind: ReleaseKind::Model,
            namespace: namespace.to_owned(),
            name: object.name_any(),
        };
        self.measure.ask(uid, &key, questions(object, &key));
        self.measure.track(
            uid,
            Interest {
                key,
                epoch: rollout.epoch,
                interval: (rollout.state != RolloutState::Idle).then_some(interval),
                keep_features: Some(window.saturating_mul(2)),
                keep_late: keep_late(object),
            },
        );
        ReleaseMeasurements {
            unreachable: super::gateway::unreachable(
                caches,
                namespace,
                label::MODEL_DEPLOYMENT,
                &object.name_any(),
                object.status.as_ref().and_then(|s| s.gateway.as_ref()),
            ),
            ..self.measure.read(namespace, uid)
        }
    }
}

impl Controller for ModelDeployments {
    type Object = ModelDeployment;
    type Status = ModelDeploymentStatus;
    type Observed = Observed;

    const NAME: &'static str = "model_deployment";

    fn keys(&self, caches: &Caches) -> Vec<Key> {
        caches.model_deployments.keys()
    }

    fn find(&self, caches: &Caches, key: &Key) -> Option<Arc<ModelDeployment>> {
        caches.model_deployments.get(key)
    }

    fn wakes(&self, caches: &Caches, change: &Change) -> Vec<Key> {
        let those = |wanted: &dyn Fn(&ModelDeployment) -> bool| -> Vec<Key> {
            caches
                .model_deployments
                .in_namespace(&change.key.namespace)
                .iter()
                .filter(|r| wanted(r))
                .map(|r| Key::of(r.meta()))
                .collect()
        };
        let role = change.label(label::ROLE);
        match change.kind {
            Kind::ModelDeployment => {
                if change.deleted && !change.uid.is_empty() {
                    self.measure.forget(&change.key.namespace, &change.uid);
                }
                vec![change.key.clone()]
            }
            // Who may serve callers, and which epoch they serve.
            Kind::Pod if role == Some(gateway::ROLE) => those(&|_| true),
            Kind::ConfigMap if role == Some("profile") => those(&|_| true),
            // Whether callers of the release's Service reach the gateway.
            Kind::EndpointSlice if role == Some("release") => change
                .belongs_to("ModelDeployment", label::MODEL_DEPLOYMENT)
                .into_iter()
                .collect(),
            Kind::ConfigMap if role == Some(frozen::ROLE) => change
                .belongs_to("ModelDeployment", label::MODEL_DEPLOYMENT)
                .into_iter()
                .collect(),
            Kind::ConfigMap => {
                let names = |r: &ModelDeployment| config_map::named(&r.spec.server.template);
                those(&|r| names(r).contains_key(&change.key.name))
            }
            Kind::Pod
            | Kind::Job
            | Kind::Deployment
            | Kind::Service
            | Kind::PodDisruptionBudget
            | Kind::HorizontalPodAutoscaler
            | Kind::HTTPRoute
            | Kind::ControllerRevision => change
                .belongs_to("ModelDeployment", label::MODEL_DEPLOYMENT)
                .into_iter()
                .collect(),
            Kind::TrainingJob => match caches.training_jobs.get(&change.key) {
                Some(job) => those(&|r| reads_job(r, &change.key.name, &job.spec.model.name)),
                None => those(&|_| true),
            },
            Kind::Evaluation => those(&|r| evaluations(r).contains(&change.key.name)),
            _ => Vec::new(),
        }
    }

    async fn observe(
        &self,
        shell: &Shell,
        object: &Arc<ModelDeployment>,
    ) -> Result<Outcome<Observed>, Error> {
        let caches = &shell.caches;
        let namespace = object.namespace().unwrap_or_default();
        let names = config_map::named(&object.spec.server.template);
        if !names.is_empty() && !caches.config_map_names.ready_in(&namespace) {
            return Ok(Outcome::Waiting {
                reason: "ConfigMapsUnknown",
                message: "the namespace's ConfigMaps aren't listed yet".to_owned(),
                check_after: Duration::from_secs(1),
            });
        }
        let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
        let services = caches.services.owned_by(&uid);
        let budgets = caches.disruption_budgets.owned_by(&uid);
        let autoscalers = caches.autoscalers.owned_by(&uid);
        let route = caches.routes.owned_by(&uid).into_iter().next();
        let others = services
            .iter()
            .map(|o| reference("v1", "Service", o.meta()))
            .chain(
                budgets
                    .iter()
                    .map(|o| reference("policy/v1", "PodDisruptionBudget", o.meta())),
            )
            .chain(
                autoscalers
                    .iter()
                    .map(|o| reference("autoscaling/v2", "HorizontalPodAutoscaler", o.meta())),
            )
            .chain(
                route
                    .iter()
                    .map(|o| reference("gateway.networking.k8s.io/v1", "HTTPRoute", o.meta())),
            )
            .collect();
        let evaluations = evaluations(object)
            .into_iter()
            .filter_map(|name| {
                Some((
                    name.clone(),
                    caches.evaluations.get(&Key::new(&namespace, name))?,
                ))
            })
            .collect();
        let stable = object
            .status
            .as_ref()
            .and_then(|s| s.stable.as_ref())
            .map(|s| s.revision.clone());
        let profile = stable.and_then(|hash| {
            let object = caches
                .controller_revisions
                .get(&Key::new(&namespace, format!("{name}-{hash}")))?;
            let revision: ModelRevision = serde_json::from_value(object.data.clone()?.0).ok()?;
            let config_map = revision.model.profile?;
            let profile = self.profile(caches, &Key::new(&namespace, &config_map))?;
            Some((config_map, profile))
        });
        let copies = caches.config_maps.owned_by(&uid);
        let role = |c: &Arc<ConfigMap>| c.labels().get(label::ROLE).cloned();
        let is_copy = |c: &Arc<ConfigMap>| role(c).as_deref() == Some(frozen::ROLE);
        let record = copies
            .iter()
            .find(|c| role(c).as_deref() == Some(recorded::ROLE))
            .and_then(|c| self.recorded(c));
        let references = copies
            .iter()
            .find(|c| role(c).as_deref() == Some(predictions::ROLE))
            .and_then(|c| parsed(&self.references, c, |c| Some(predictions::read(c))));
        let revisions = caches.controller_revisions.owned_by(&uid);
        let uris = revisions
            .iter()
            .filter_map(|r| r.data.as_ref()?.0.pointer("/model/uri")?.as_str());
        let pods = caches
            .pods
            .labelled(&namespace, label::MODEL_DEPLOYMENT, &name);
        let claims = claim::seen(caches, &namespace, uris, pods.iter().map(Arc::as_ref));
        Ok(Outcome::Ready(Observed {
            claims,
            cache: claim::cache(shell, &namespace),
            config_maps: self.config_maps(shell, names, &namespace).await?,
            copies: copies.into_iter().filter(is_copy).collect(),
            complete: caches.ready_in(&namespace),
            training_jobs: caches.training_jobs.in_namespace(&namespace),
            evaluations,
            revisions,
            servers: caches.deployments.owned_by(&uid),
            autoscalers,
            route,
            knows_routes: !caches.routes.is_absent_in(&namespace),
            others,
            pods,
            resolves: caches.jobs.owned_by(&uid),
            profile,
            recorded: record,
            references: references.unwrap_or_default(),
            live: self.measured(caches, object, &namespace, &uid),
            ports: ports(caches, &namespace, &uid),
            refused: Vec::new(),
            image: shell.settings.image.clone(),
            deployment: object.clone(),
        }))
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan<ModelDeploymentStatus> {
        model_deployment::plan(observed, now)
    }

    fn ended(&self, object: &ModelDeployment, status: &ModelDeploymentStatus) -> Vec<Ended> {
        ended::of_model(object.status.as_ref(), status)
    }

    fn refused(
        &self,
        object: &ModelDeployment,
        status: Option<ModelDeploymentStatus>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<ModelDeploymentStatus> {
        let mut status = status.or_else(|| object.status.clone()).unwrap_or_default();
        model_deployment::refused(
            &mut status,
            &object.name_any(),
            (refusal.kind.as_str(), &refusal.key.name),
            (refusal.reason.as_str(), &refusal.message),
            object.metadata.generation,
            now,
        );
        Some(status)
    }
}

fn reference(
    api_version: &str,
    kind: &str,
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Reference {
    Reference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// What is in a ConfigMap of ours, parsed once for each of its versions.
fn parsed<T>(
    known: &Mutex<HashMap<Key, Parsed<T>>>,
    object: &ConfigMap,
    read: impl FnOnce(&ConfigMap) -> Option<T>,
) -> Option<Arc<T>> {
    let (key, version) = (Key::of(&object.metadata), object.resource_version());
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, content)) = known.get(&key)
        && *of == version
    {
        return content.clone();
    }
    let content = read(object).map(Arc::new);
    if known.len() >= MOST_KEPT {
        known.clear();
    }
    known.insert(key, (version, content.clone()));
    content
}

/// How long predictions and labels must be kept.
fn keep_late(release: &ModelDeployment) -> Option<Duration> {
    let labels = release
        .spec
        .metrics
        .iter()
        .filter_map(|m| m.labels.as_ref());
    let longest = labels.map(|of| of.kept_seconds()).max()?;
    Some(Duration::from_secs(u64::try_from(longest).unwrap_or(0)))
}

/// What the release asks of Prometheus now.
fn questions(release: &ModelDeployment, key: &ReleaseKey) -> Questions {
    let spec = &release.spec;
    let triggers = spec.retraining.iter().flat_map(|r| &r.triggers);
    let watched: Vec<String> = triggers.filter_map(|t| t.metric.clone()).collect();
    rollout::questions(Asking {
        namespace: &key.namespace,
        name: &key.name,
        rollout: spec.rollout.as_ref(),
        metrics: &spec.metrics,
        watched: &watched,
        state: &State::of_model(release.status.as_ref()),
    })
}

/// Evaluations that the spec or the ladder being climbed names.
fn evaluations(release: &ModelDeployment) -> std::collections::BTreeSet<String> {
    let rollout = release.spec.rollout.clone().unwrap_or_default();
    let climbing = release.status.as_ref().and_then(|s| s.rollout.as_ref());
    Input::evaluation_names(&rollout, &release.spec.metrics, climbing)
}

/// Whether a TrainingJob matters: its versions are followed, it is the recipe, or it is one that was asked for.
fn reads_job(release: &ModelDeployment, job: &str, model_name: &str) -> bool {
    let retraining = release.spec.retraining.as_ref();
    let runs = release.status.as_ref().and_then(|s| s.retraining.as_ref());
    model::source(release).name.as_deref() == Some(model_name)
        || retraining.is_some_and(|r| r.from.as_deref() == Some(job))
        || runs.is_some_and(|r| r.runs.iter().any(|run| run.job == job))
}

/// UIDs and ports of the namespace's other releases.
fn ports(caches: &Caches, namespace: &str, uid: &str) -> Vec<(String, u16)> {
    let models = caches.model_deployments.in_namespace(namespace);
    let prompts = caches.prompt_releases.in_namespace(namespace);
    let of_models = models
        .iter()
        .filter_map(|r| Some((r.uid()?, r.status.as_ref()?.gateway.as_ref()?.port)));
    let of_prompts = prompts
        .iter()
        .filter_map(|r| Some((r.uid()?, r.status.as_ref()?.gateway.as_ref()?.port)));
    of_models
        .chain(of_prompts)
        .filter(|(other, _)| other != uid)
        .filter_map(|(other, port)| Some((other, u16::try_from(port).ok().filter(|p| *p > 0)?)))
        .collect()
}

/// What reads the gateways of all namespaces, and wakes a release when there is news: one for the whole operator.
pub fn measure(caches: &Caches) -> Measure {
    let (pods, wake) = (caches.clone(), caches.clone());
    Measure::new(
        move |namespace| {
            let pods = pods.pods.labelled(namespace, label::ROLE, gateway::ROLE);
            pods.iter().map(|p| gateway_pod(p)).collect()
        },
        move |key| {
            let kind = match key.kind {
                ReleaseKind::Model => Kind::ModelDeployment,
                ReleaseKind::Prompt => Kind::PromptRelease,
            };
            // Told like a change of the release itself: whoever looks at the release, looks again.
            wake.tell(&[Change {
                kind,
                key: Key::new(&key.namespace, &key.name),
                uid: String::new(),
                owner: None,
                labels: std::collections::BTreeMap::new(),
                deleted: false,
            }]);
        },
    )
}

fn gateway_pod(pod: &Pod) -> GatewayPod {
    let status = pod.status.as_ref();
    let ready = status
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    GatewayPod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        ip: status.and_then(|s| s.pod_ip.as_ref()?.parse::<IpAddr>().ok()),
        ready,
        terminating: pod.metadata.deletion_timestamp.is_some(),
    }
}
