//! Stands in for nodes where there are none: a release's pods run as soon as they are made. Behind a gateway's pod is the program's own
//! gateway, in this process, at a loopback address; behind a server's pod is nothing, so no request may be sent.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use perennial::gateway::{Gateway, Settings, watch};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Place, faults::Faults};

/// Pods must be on a node that exists, else no EndpointSlice has them. Nobody but us puts any there.
const NODE: &str = "stand-in";

/// The nodes of a namespace; they are gone when this is dropped.
pub struct Nodes(JoinHandle<()>);

impl Nodes {
    /// Runs pods of this namespace from now on.
    pub fn start(place: &Place) -> Self {
        Self::with_gateways(place, Faults::none())
    }

    /// Likewise, with faults between the gateways and the API server.
    pub fn with_gateways(place: &Place, faults: Faults) -> Self {
        Self(tokio::spawn(run(place.clone(), faults)))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(place: Place, faults: Faults) {
    let node: Node = serde_json::from_value(
        json!({"metadata": {"name": NODE}, "spec": {"unschedulable": true}}),
    )
    .unwrap();
    // It may be there already.
    let _ = Api::all(place.client.clone())
        .create(&PostParams::default(), &node)
        .await;
    let pods: Api<Pod> = place.typed();
    let changed = watcher(pods.clone(), watcher::Config::default());
    let mut changed = changed.default_backoff().applied_objects().boxed();
    // They serve until the nodes are gone.
    let mut gateways = tokio::task::JoinSet::new();
    while let Some(pod) = changed.next().await {
        let Ok(pod) = pod else { continue };
        let name = pod.name_any();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = pods
                .delete(&name, &DeleteParams::default().grace_period(0))
                .await;
            continue;
        }
        if phase == Some("Running") {
            continue;
        }
        let ip = match pod.labels().get("perennial.dev/role").map(String::as_str) {
            // Loopback isn't allowed in an EndpointSlice.
            Some("server") => address([10, 96]),
            Some("gateway") => {
                let ip = address([127, 64]);
                gateways.spawn(serve(faults.client().await, place.namespace.clone(), ip));
                ip
            }
            _ => continue,
        };
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": jiff::Timestamp::now()});
        let status =
            json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]});
        let patch = Patch::Merge(json!({"status": status}));
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        });
        // It may be gone by now.
        let _ = pods
            .create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding)
            .await;
        let _ = pods
            .patch_status(&name, &PatchParams::default(), &patch)
            .await;
    }
}

fn address(net: [u8; 2]) -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    // Another test program may run beside this one.
    let process = u8::try_from(std::process::id() % 128).unwrap_or_default();
    Ipv4Addr::new(net[0], net[1] + process, high, low).into()
}

async fn serve(client: Client, namespace: String, ip: IpAddr) {
    let gateway = Gateway::start(Settings {
        address: Some(ip),
        leave: Duration::ZERO,
        drain: Duration::ZERO,
        hand_over: Duration::ZERO,
        ..Settings::default()
    });
    let gateway = gateway.await.unwrap();
    watch::watch(client, &namespace, &gateway.changes()).await;
}
