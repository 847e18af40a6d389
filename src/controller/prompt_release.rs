//! PromptRelease: what wakes it and what it is planned from.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;

use super::driver::{Controller, Outcome};
use crate::{
    api::{
        PromptRelease, label,
        prompt_release::PromptReleaseStatus,
        rollout::{GatewayStatus, RolloutState},
    },
    cluster::{
        Caches, Change, Error, Key, Kind, Refusal, Shell,
        measure::{Interest, Measure, ReleaseKey, ReleaseKind},
    },
    plan::{
        Plan,
        ended::{self, Ended},
        gateway,
        prompt_release::{self, Observed},
        rollout::{self, Asking, Input, Questions, State},
    },
    stats::bucket::ReleaseMeasurements,
};

/// The controller of PromptReleases.
pub struct PromptReleases {
    measure: Measure,
}

impl PromptReleases {
    /// A controller that reads gateways by this handle, whose `wake` must queue the release's key.
    pub fn new(measure: Measure) -> Self {
        Self { measure }
    }
}

impl Controller for PromptReleases {
    type Object = PromptRelease;
    type Status = PromptReleaseStatus;
    type Observed = Observed;

    const NAME: &'static str = "prompt_release";

    fn keys(&self, caches: &Caches) -> Vec<Key> {
        caches.prompt_releases.keys()
    }

    fn find(&self, caches: &Caches, key: &Key) -> Option<Arc<PromptRelease>> {
        caches.prompt_releases.get(key)
    }

    fn wakes(&self, caches: &Caches, change: &Change) -> Vec<Key> {
        let namespace = &change.key.namespace;
        let those = |wanted: &dyn Fn(&PromptRelease) -> bool| -> Vec<Key> {
            caches
                .prompt_releases
                .in_namespace(namespace)
                .iter()
                .filter(|release| wanted(release))
                .map(|release| Key::of(&release.metadata))
                .collect()
        };
        match change.kind {
            Kind::PromptRelease => {
                if change.deleted {
                    self.measure.forget(namespace, &change.uid);
                }
                let mut keys = vec![change.key.clone()];
                let other = caches.prompt_releases.get(&change.key);
                if let Some(port) = other.and_then(|o| port(o.status.as_ref()?.gateway.as_ref())) {
                    keys.extend(those(&|r| {
                        has_port(r, port) && r.name_any() != change.key.name
                    }));
                }
                keys
            }
            // Two releases of one namespace that took the same port at the same moment: one of them has to move.
            Kind::ModelDeployment => {
                let other = caches.model_deployments.get(&change.key);
                match other.and_then(|o| port(o.status.as_ref()?.gateway.as_ref())) {
                    Some(port) => those(&|r| has_port(r, port)),
                    None => Vec::new(),
                }
            }
            Kind::ControllerRevision | Kind::Service => change
                .belongs_to("PromptRelease", label::PROMPT_RELEASE)
                .into_iter()
                .collect(),
            // Whether callers of the release's Service reach the gateway.
            Kind::EndpointSlice if change.label(label::ROLE) == Some("release") => change
                .belongs_to("PromptRelease", label::PROMPT_RELEASE)
                .into_iter()
                .collect(),
            Kind::Evaluation => those(&|r| names(r).contains(&change.key.name)),
            // Epochs and readiness of gateways decide about every release behind them.
            Kind::Pod if change.label(label::ROLE) == Some(gateway::ROLE) => those(&|_| true),
            _ => Vec::new(),
        }
    }

    async fn observe(
        &self,
        shell: &Shell,
        object: &Arc<PromptRelease>,
    ) -> Result<Outcome<Observed>, Error> {
        let caches = &shell.caches;
        let namespace = object.namespace().unwrap_or_default();
        let uid = object.uid().unwrap_or_default();
        let interest = interest(object, &namespace);
        let questions = questions(object, &interest.key);
        self.measure.ask(&uid, &interest.key, questions);
        self.measure.track(&uid, interest);
        let evaluations: BTreeMap<_, _> = names(object)
            .into_iter()
            .filter_map(|name| {
                let evaluation = caches.evaluations.get(&Key::new(&namespace, &name))?;
                Some((name, evaluation))
            })
            .collect();
        Ok(Outcome::Ready(Observed {
            release: object.clone(),
            complete: caches.ready_in(&namespace),
            evaluations,
            revisions: caches.controller_revisions.owned_by(&uid),
            live: ReleaseMeasurements {
                unreachable: super::gateway::unreachable(
                    caches,
                    &namespace,
                    label::PROMPT_RELEASE,
                    &object.name_any(),
                    object.status.as_ref().and_then(|s| s.gateway.as_ref()),
                ),
                ..self.measure.read(&namespace, &uid)
            },
            ports: ports(caches, &namespace, &uid),
        }))
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan<PromptReleaseStatus> {
        prompt_release::plan(observed, now)
    }

    fn ended(&self, object: &PromptRelease, status: &PromptReleaseStatus) -> Vec<Ended> {
        ended::of_prompt(object.status.as_ref(), status)
    }

    fn refused(
        &self,
        object: &PromptRelease,
        status: Option<PromptReleaseStatus>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<PromptReleaseStatus> {
        let mut status = status.or_else(|| object.status.clone()).unwrap_or_default();
        let (reason, message) = (refusal.reason.as_str(), &refusal.message);
        let generation = object.metadata.generation;
        prompt_release::refused(&mut status, reason, message, generation, now);
        Some(status)
    }
}

/// What the release asks of Prometheus now.
fn questions(release: &PromptRelease, key: &ReleaseKey) -> Questions {
    rollout::questions(Asking {
        namespace: &key.namespace,
        name: &key.name,
        rollout: release.spec.rollout.as_ref(),
        metrics: &release.spec.metrics,
        watched: &[],
        state: &State::of_prompt(release.status.as_ref()),
    })
}

/// Names of the Evaluations that the release's rollout looks at.
fn names(release: &PromptRelease) -> Vec<String> {
    let spec = &release.spec;
    let rollout = spec.rollout.clone().unwrap_or_default();
    let climbing = release.status.as_ref().and_then(|s| s.rollout.as_ref());
    let names = Input::evaluation_names(&rollout, &spec.metrics, climbing);
    names.into_iter().collect()
}

fn port(gateway: Option<&GatewayStatus>) -> Option<u16> {
    let port = u16::try_from(gateway?.port).ok()?;
    (port > 0).then_some(port)
}

fn has_port(release: &PromptRelease, wanted: u16) -> bool {
    let status = release.status.as_ref();
    port(status.and_then(|s| s.gateway.as_ref())) == Some(wanted)
}

/// UIDs and ports of the namespace's releases of both kinds, but this one.
pub fn ports(caches: &Caches, namespace: &str, but: &str) -> Vec<(String, u16)> {
    let models = caches.model_deployments.in_namespace(namespace);
    let models = models.iter().filter_map(|o| {
        let port = port(o.status.as_ref()?.gateway.as_ref())?;
        Some((o.uid()?, port))
    });
    let prompts = caches.prompt_releases.in_namespace(namespace);
    let prompts = prompts.iter().filter_map(|o| {
        let port = port(o.status.as_ref()?.gateway.as_ref())?;
        Some((o.uid()?, port))
    });
    models
        .chain(prompts)
        .filter(|(uid, _)| uid != but)
        .collect()
}

/// How closely the gateways are watched for this release.
fn interest(release: &PromptRelease, namespace: &str) -> Interest {
    let status = release.status.as_ref();
    let rollout = status.and_then(|s| s.rollout.as_ref());
    let going_on = rollout.is_some_and(|r| r.state != RolloutState::Idle);
    let spec = release.spec.rollout.as_ref();
    let interval = spec
        .and_then(|r| r.analysis.as_ref()?.interval.as_ref())
        .map_or(std::time::Duration::from_secs(15), |d| d.to_std());
    Interest {
        key: ReleaseKey {
            kind: ReleaseKind::Prompt,
            namespace: namespace.to_owned(),
            name: release.name_any(),
        },
        epoch: rollout.map_or(0, |r| r.epoch),
        interval: going_on.then_some(interval),
        keep_features: None,
        keep_late: None,
    }
}
