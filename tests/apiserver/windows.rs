//! A window of drift goes on where it was when the operator begins anew, hours later, and the gateways remember three of them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use perennial::{
    cluster::measure::{Answer, GatewayPod, Source},
    controller::model_deployment::{self, ModelDeployments},
    plan::model_deployment::drift::recorded::{self, Recorded},
    stats::{
        bucket::{Bucket, Buckets, Epochs, MAX_MINUTES, ServedEpoch},
        profile::ProfileBuilder,
        sketch::{Cell, ColumnKind, RowSketch},
    },
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{
    Place, eventually, faults::Faults, nodes::Nodes, on_cluster, operator::Operator,
};

const API: &str = "perennial.dev/v1alpha1";
const VERSION: &str = "20130401-000000-abcdef";
/// Minutes that the operator's clock, and the gateway's, are ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn clock() -> Timestamp {
    Timestamp::now() + SignedDuration::from_mins(AHEAD.load(Ordering::SeqCst))
}

fn minute() -> i64 {
    clock().as_second() / 60
}

/// A gateway that has answered a request of stable in each minute, and remembers as many as gateways do.
#[derive(Clone, Default)]
struct Remembering(Arc<Mutex<(String, String)>>);

impl Source for Remembering {
    fn ask<'a>(
        &'a self,
        pod: &'a GatewayPod,
        measure: bool,
        since: i64,
    ) -> BoxFuture<'a, Option<Answer>> {
        let (release, revision) = self.0.lock().unwrap().clone();
        let now = minute();
        let served = ServedEpoch {
            epoch: i64::MAX,
            ..ServedEpoch::default()
        };
        let bucket = |minute: i64| {
            let mut rows = RowSketch::new([("temp", ColumnKind::Numeric)]);
            rows.add([("temp", Cell::Number((minute % 20) as f64))]);
            Bucket {
                release: release.clone(),
                revision: revision.clone(),
                minute,
                features: Some(rows),
                ..Bucket::default()
            }
        };
        let started = now - MAX_MINUTES;
        let buckets = measure.then(|| Buckets {
            process: "one".to_owned(),
            started,
            minute: now,
            buckets: (started.max(since)..now).map(bucket).collect(),
            ..Buckets::default()
        });
        let answer = Answer {
            pod: pod.uid.clone(),
            epochs: Ok(Epochs {
                process: "one".to_owned(),
                releases: [(release.clone(), served)].into(),
            }),
            buckets,
        };
        async { Some(answer) }.boxed()
    }
}

/// An operator that asks this gateway.
async fn start(place: &Place, gateway: &Remembering) -> (Operator, JoinHandle<()>) {
    let mut operator = Operator::new(place, Faults::none()).await;
    operator.shell.clock = clock;
    let measure = model_deployment::measure(&operator.shell.caches);
    let (reading, source) = (measure.clone(), Arc::new(gateway.clone()));
    let reading = tokio::spawn(async move { reading.run_with(source).await });
    let operator = operator.with(ModelDeployments::new(measure));
    (operator.start().await, reading)
}

/// A version with a profile, a gateway's pod, and a release whose window lasts a day.
async fn prepare(place: &Place) {
    let mut profile = ProfileBuilder::new([("temp", ColumnKind::Numeric)]);
    for i in 0..2000 {
        profile.add(&[Cell::Number(f64::from(i % 20))]);
    }
    let profile = serde_json::to_string(&profile.finish()).unwrap();
    let ours = |role: &str| json!({"app.kubernetes.io/managed-by": "perennial", "perennial.dev/role": role});
    let mut job = place.training_job("first");
    job["spec"]["datasets"] = json!([{"name": "train", "uri": "s3://data/q1.csv"}]);
    for object in [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m-profile", "namespace": place.namespace, "labels": ours("profile")}, "data": {"profile.json": profile}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gateway", "namespace": place.namespace, "labels": ours("gateway")}, "spec": {"containers": [{"name": "gateway", "image": "registry.example/gateway:1"}]}}),
        job,
    ] {
        place.create(&object).await.unwrap();
    }
    let model = json!({
        "name": "m", "version": VERSION, "uri": format!("s3://models/m/{VERSION}"), "profile": "m-profile",
        "digest": format!("sha256:{}", "0".repeat(64)), "trainedTime": "2013-04-01T00:00:00Z",
    });
    let status = json!({"status": {"phase": "Succeeded", "message": "done", "attempts": 1, "model": model, "datasets": [], "conditions": []}});
    place
        .api(API, "TrainingJob")
        .patch_status(
            "first",
            &Default::default(),
            &kube::api::Patch::Merge(&status),
        )
        .await
        .unwrap();
    let release = json!({
        "apiVersion": API, "kind": "ModelDeployment", "metadata": {"name": "m", "namespace": place.namespace},
        "spec": {
            "server": {"template": {"spec": {"containers": [{"name": "server", "image": "registry.example/server:1"}]}}},
            "monitoring": {"drift": {"window": "1d", "minSamples": 1_000_000}},
        },
    });
    place.create(&release).await.unwrap();
}

/// The record, once it goes beyond this minute; and its resourceVersion.
async fn record(place: &Place, beyond: i64) -> (Recorded, Option<String>) {
    eventually("the window is recorded", || async {
        let api = place.typed::<ConfigMap>();
        let object = api.get_opt(&recorded::name("m")).await.unwrap()?;
        let record = recorded::read(&object).unwrap();
        (record.to > beyond).then_some((record, object.metadata.resource_version))
    })
    .await
}

#[test]
fn a_window_of_drift_goes_on_after_hours_without_an_operator() {
    on_cluster(|place| async move {
        let gateway = Remembering::default();
        let _nodes = Nodes::start(&place);
        prepare(&place).await;
        let (operator, reading) = start(&place, &gateway).await;
        let release = eventually("the version serves", || async {
            let release = place.get(API, "ModelDeployment", "m").await?;
            release["status"]["driftWindow"]["next"].as_str()?;
            Some(release)
        })
        .await;
        let text = |pointer: &str| {
            release
                .pointer(pointer)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        *gateway.0.lock().unwrap() = (text("/metadata/uid"), text("/status/stable/revision"));
        AHEAD.store(130, Ordering::SeqCst);
        let (first, _) = record(&place, 0).await;
        assert_eq!(
            first.rows.rows,
            u64::try_from(first.to - first.from).unwrap()
        );
        operator.kill().await;
        reading.abort();

        AHEAD.store(130 + 600, Ordering::SeqCst);
        let (operator, reading) = start(&place, &gateway).await;
        let (second, version) = record(&place, first.to).await;
        assert_eq!(
            (second.from, &second.revision),
            (first.from, &first.revision)
        );
        assert!(second.measured >= first.measured + 120, "{second:?}");
        assert!(
            second.measured < second.to - second.from,
            "nobody measured in between"
        );
        assert_eq!(second.rows.rows, u64::try_from(second.measured).unwrap());
        let release = place.get(API, "ModelDeployment", "m").await.unwrap();
        assert_eq!(
            release["status"]["driftWindow"]["next"],
            text("/status/driftWindow/next")
        );
        operator.quiet(Duration::from_secs(2)).await;
        assert_eq!(record(&place, first.to).await.1, version, "once an hour");
        operator.kill().await;
        reading.abort();
    });
}
