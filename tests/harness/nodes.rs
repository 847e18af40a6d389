//! Stands in for nodes where there are none: a release's pods run as soon as they are made. Behind a gateway's pod is the program's own
//! gateway, in this process, at a loopback address; behind a server's pod is nothing, so no request may be sent. A pod that trains or
//! evaluates reports what the test says, on the supervisor's own board, and ends once that was read.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use perennial::{
    api::{
        SUPERVISOR_PORT,
        run::{RUN_ENV, Report},
    },
    gateway::{Gateway, Settings, watch},
    supervise::board::{self, Board},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Place, faults::Faults};

/// Pods must be on a node that exists, else no EndpointSlice has them. Nobody but us puts any there.
const NODE: &str = "stand-in";

/// What a pod reports, by its Job's name and its run's spec ([`RUN_ENV`]).
pub type Reports = Arc<dyn Fn(&str, &Value) -> Report + Send + Sync>;

/// The nodes of a namespace; they are gone when this is dropped.
pub struct Nodes(JoinHandle<()>);

impl Nodes {
    /// Runs pods of this namespace from now on.
    pub fn start(place: &Place) -> Self {
        Self::with_gateways(place, Faults::none())
    }

    /// Likewise, with faults between the gateways and the API server.
    pub fn with_gateways(place: &Place, faults: Faults) -> Self {
        Self(tokio::spawn(run(place.clone(), faults, None)))
    }

    /// Nodes on which pods that train or evaluate run too.
    pub fn with_runs(place: &Place, reports: Reports) -> Self {
        Self(tokio::spawn(run(
            place.clone(),
            Faults::none(),
            Some(reports),
        )))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(place: Place, faults: Faults, reports: Option<Reports>) {
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
    // They go on until the nodes are gone.
    let mut processes = tokio::task::JoinSet::new();
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
                processes.spawn(serve(faults.client().await, place.namespace.clone(), ip));
                ip
            }
            Some("trainer" | "evaluator")
                if phase != Some("Succeeded") && phase != Some("Failed") =>
            {
                let Some(reports) = &reports else { continue };
                let ip = address([127, 64]);
                let report = reports(job_of(&pod), &spec_of(&pod));
                processes.spawn(report_and_end(pods.clone(), pod, ip, report));
                ip
            }
            _ => continue,
        };
        let patch = Patch::Merge(json!({"status": running(ip)}));
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

fn running(ip: IpAddr) -> Value {
    let ready =
        json!({"type": "Ready", "status": "True", "lastTransitionTime": jiff::Timestamp::now()});
    json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]})
}

fn job_of(pod: &Pod) -> &str {
    let name = pod.labels().get("batch.kubernetes.io/job-name");
    name.map(String::as_str).unwrap_or_default()
}

/// The spec of a run, from the environment of the container that has one.
fn spec_of(pod: &Pod) -> Value {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let mut environment = containers.flat_map(|c| c.env.iter().flatten());
    let text = environment
        .find(|e| e.name == RUN_ENV)
        .and_then(|e| e.value.clone());
    serde_json::from_str(&text.unwrap_or_default().replace("$$", "$")).unwrap_or_default()
}

/// A supervisor whose command has ended: it shows its report until that was read, then its pod ends.
async fn report_and_end(pods: Api<Pod>, pod: Pod, ip: IpAddr, report: Report) {
    let board = Arc::new(Board::default());
    let summary = report.summary.clone();
    board.finish(report);
    let server = board::serve(board.clone(), (ip, SUPERVISOR_PORT).into()).await;
    let server = server.expect("every pod has an address of its own");
    let (_kept, asked) = tokio::sync::watch::channel(false);
    board.acknowledged(Duration::from_secs(60), asked).await;
    server.end().await;
    let container = &pod
        .spec
        .iter()
        .flat_map(|s| &s.containers)
        .next()
        .expect("a container")
        .name;
    let code = summary.exit_code.unwrap_or(i32::from(!summary.succeeded));
    let state = json!({"terminated": {"exitCode": code, "message": board::summary_text(&summary)}});
    let status = json!({
        "phase": if summary.succeeded { "Succeeded" } else { "Failed" },
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": jiff::Timestamp::now()}],
        "containerStatuses": [{"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}],
    });
    // It may be gone by now.
    let patch = Patch::Merge(json!({"status": status}));
    let _ = pods
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await;
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
