//! Very many operations on a few objects: neither memory nor series may grow with them.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{
    harness::{Place, alone, nodes::Nodes, on_cluster},
    number,
    process::Process,
};

const OURS: &str = "perennial.dev/v1alpha1";
const OBJECTS: usize = 25;
/// Looks at the operator on the way.
const PARTS: usize = 5;

/// A release whose rollouts need nobody's time.
fn release(place: &Place, name: &str) -> Value {
    let mut release = place.prompt_release(name);
    release["spec"]["rollout"] = json!({"steps": [], "bake": "1s", "analysis": {"gates": []}});
    release
}

/// One of what users do: a note, an edit that is no rollout, another prompt, another object under the old name.
async fn operation(place: &Place, round: usize, name: &str) {
    let patch = match round % 4 {
        0 => json!({"metadata": {"annotations": {"example.com/round": round.to_string()}}}),
        1 => json!({"spec": {"rollout": {"bake": format!("{}s", 1 + round % 5)}}}),
        2 => {
            let text = format!("Greet {{{{ name }}}}, for the {round}th time.");
            json!({"spec": {"prompt": {"messages": [{"role": "user", "content": text}]}}})
        }
        _ => {
            let api = place.api(OURS, "PromptRelease");
            api.delete(name, &DeleteParams::background()).await.unwrap();
            place.create(&release(place, name)).await.unwrap();
            return;
        }
    };
    let patched = place.patch(OURS, "PromptRelease", name, patch).await;
    patched.unwrap();
}

/// argo-rollouts#4571, #3929: 140 MiB became 8.9 GiB in 127 days, and series were never dropped.
#[test]
#[ignore = "minutes: PERENNIAL_OPERATIONS=20000 hack/test apiserver_many -- --ignored --nocapture operations"]
fn neither_memory_nor_series_grow_with_operations() {
    let operations = number("PERENNIAL_OPERATIONS", 10_000);
    let _alone = alone();
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = Process::start(&place, "only");
        operator.ready().await;
        let names: Vec<String> = (0..OBJECTS).map(|n| format!("r-{n}")).collect();
        for name in &names {
            place.create(&release(&place, name)).await.unwrap();
        }
        let (place, began) = (&place, Instant::now());
        let mut seen = Vec::new();
        for part in 0..PARTS {
            let rounds = operations / PARTS / OBJECTS;
            // Each object has its operations one after the other.
            let each = futures::stream::iter(&names).map(|name| async move {
                for round in 0..rounds {
                    operation(place, part * rounds + round, name).await;
                }
            });
            each.buffer_unordered(OBJECTS).collect::<()>().await;
            // What is left to do is done, or nearly.
            let (mut before, mut since) = (f64::NAN, Instant::now());
            let last = Instant::now() + Duration::from_secs(20);
            while since.elapsed() < Duration::from_secs(3) && Instant::now() < last {
                let written = operator.sum("perennial_cluster_writes_total").await;
                if written != before {
                    (before, since) = (written, Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            let (memory, most) = operator.memory();
            let (_, page) = operator.get("/metrics").await.unwrap();
            let series = page.lines().filter(|l| !l.starts_with('#')).count();
            let cached = operator.sum("perennial_cluster_cached_objects").await;
            let done = (part + 1) * rounds * OBJECTS;
            eprintln!(
                "{done} operations, {before} writes in {:.0?}: {memory} MiB, {most} MiB at most, {series} series, {cached} objects in the caches",
                began.elapsed()
            );
            seen.push((memory, series));
        }
        // The first part fills what is bounded: revisions that are kept, rejected ones, counters by outcome.
        let (first, last) = (seen[1], seen[PARTS - 1]);
        assert!(last.0 <= first.0 + first.0 / 10 + 2, "MiB: {seen:?}");
        assert!(last.1 <= first.1 + first.1 / 10, "series: {seen:?}");
    });
}
