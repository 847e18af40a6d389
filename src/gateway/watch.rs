//! The cluster's side: watches of one namespace that feed changes to the keeper, as long as the process lives.

use std::time::Duration;

use futures::StreamExt;
use kube::{
    Api, Client, Config,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::sync::mpsc::Sender;
use tracing::warn;

use super::objects::{Change, Source};
use crate::api;

/// A watch is renewed so often, so that one that died silently is noticed.
const RENEW: u32 = 60;

fn resource(source: Source) -> ApiResource {
    let (group, version, kind, plural) = match source {
        Source::Models => (
            api::GROUP,
            api::VERSION,
            "ModelDeployment",
            "modeldeployments",
        ),
        Source::Prompts => (api::GROUP, api::VERSION, "PromptRelease", "promptreleases"),
        Source::Revisions => ("apps", "v1", "ControllerRevision", "controllerrevisions"),
        Source::Endpoints => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Watches until the receiver is gone. Without an API server it goes on trying, and what is on disk is served.
pub async fn run(namespace: String, changes: Sender<Change>) {
    let client = loop {
        match client().await {
            Ok(client) => break client,
            Err(error) => warn!(%error, "no client for the API server; trying again"),
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        if changes.is_closed() {
            return;
        }
    };
    watch(client, &namespace, &changes).await;
}

/// Watches with a client.
pub async fn watch(client: Client, namespace: &str, changes: &Sender<Change>) {
    let all = Source::ALL.map(|source| {
        one(
            client.clone(),
            namespace.to_owned(),
            source,
            changes.clone(),
        )
    });
    futures::future::join_all(all).await;
}

async fn client() -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.headers.push(crate::telemetry::user_agent("gateway"));
    config.read_timeout = Some(Duration::from_secs(u64::from(RENEW) + 15));
    Ok(Client::try_from(config)?)
}

async fn one(client: Client, namespace: String, source: Source, changes: Sender<Change>) {
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource(source));
    let config = watcher::Config::default().timeout(RENEW);
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.push(object);
                continue;
            }
            Ok(Event::InitDone) => Change::All(source, std::mem::take(&mut listed)),
            Ok(Event::Apply(object)) => Change::Put(source, Box::new(object)),
            Ok(Event::Delete(object)) => {
                Change::Gone(source, object.metadata.name.unwrap_or_default())
            }
            Err(error) => {
                warn!(?source, %error, "a watch failed; what is known stays in effect");
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}
