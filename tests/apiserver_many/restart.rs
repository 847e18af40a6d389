//! A restart and a takeover among very many objects: how long until somebody's edit is answered, and in how much memory.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    harness::{Place, alone, eventually, on_cluster},
    number,
    process::{Process, holder},
};

const OURS: &str = "perennial.dev/v1alpha1";
/// Releases of one namespace, whose gateway has ports for 4,000.
const TOGETHER: usize = 100;
/// By when an edit is answered, by an operator that isn't optimized.
const SOON: Duration = Duration::from_secs(2);
/// The operator's gauges are no older.
const GAUGES: Duration = Duration::from_secs(16);
/// Requests at once while objects are made.
const HANDS: usize = 32;

/// A run of long ago: nothing is left to do about it.
async fn finished(place: &Place, name: &str) {
    place.create(&place.training_job(name)).await.unwrap();
    let (time, digest) = ("2026-01-01T00:00:00Z", format!("sha256:{}", "0".repeat(64)));
    let status = json!({"status": {
        "observedGeneration": 1, "phase": "Succeeded", "attempts": 1, "message": "the version was published",
        "startTime": time, "completionTime": time,
        "model": {"name": "m", "version": "20260101-000000-000000", "uri": "s3://models/m/20260101-000000-000000", "digest": digest},
        "conditions": [{
            "type": "Complete", "status": "True", "reason": "Succeeded", "message": "the version was published",
            "lastTransitionTime": time, "observedGeneration": 1,
        }],
    }});
    let api = place.api(OURS, "TrainingJob");
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

fn is_answered(release: &Value) -> bool {
    release["status"]["observedGeneration"] == release["metadata"]["generation"]
}

/// An edit that is no rollout.
async fn edit(place: &Place, name: &str) {
    let bake = json!({"spec": {"rollout": {"bake": "7m"}}});
    let edited = place.patch(OURS, "PromptRelease", name, bake).await;
    assert!(!is_answered(&edited.unwrap()), "it is new to everybody");
}

async fn answered(place: &Place, name: &str) {
    eventually(&format!("the edit of {name} is answered"), || async {
        let release = place.get(OURS, "PromptRelease", name).await?;
        is_answered(&release).then_some(())
    })
    .await;
}

/// Waits until every release is answered, and nothing has been written for so long.
async fn settled(operator: &Process, places: &[Place], quiet: Duration) {
    for place in places {
        let deadline = Instant::now() + Duration::from_secs(500);
        loop {
            let all = place.list(OURS, "PromptRelease").await.unwrap();
            let left = all.iter().filter(|release| {
                let release =
                    json!({"metadata": release.metadata, "status": release.data["status"]});
                !is_answered(&release)
            });
            let left = left.count();
            if left == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{left} are not answered");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let (mut before, mut since) = (f64::NAN, Instant::now());
    while since.elapsed() < quiet {
        let written = operator.sum("perennial_cluster_writes_total").await;
        if written != before {
            (before, since) = (written, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// kubernetes#74397: with 50,000 objects no answer for fifteen minutes after a restart. argo-rollouts#2855, #3112: 11 to 14 GB at 10,000.
#[test]
#[ignore = "minutes: PERENNIAL_RELEASES=2000 PERENNIAL_RUNS=20000 hack/test apiserver_many -- --ignored --nocapture restart"]
fn an_edit_is_answered_at_once_after_a_restart_and_a_takeover_among_very_many_objects() {
    let (releases, runs) = (
        number("PERENNIAL_RELEASES", 1000),
        number("PERENNIAL_RUNS", 9000),
    );
    let _alone = alone();
    on_cluster(|first| async move {
        let mut places = vec![first];
        while places.len() < releases.div_ceil(TOGETHER).max(1) {
            let another = places[0].another().await;
            places.push(another);
        }
        let (place, count) = (&places[0], places.len());
        let began = Instant::now();
        let made = futures::stream::iter(0..releases + runs).map(|n| {
            let place = &places[n % count];
            async move {
                match n.checked_sub(releases) {
                    Some(run) => finished(place, &format!("j-{run}")).await,
                    None => {
                        let release = place.prompt_release(&format!("r-{n}"));
                        place.create(&release).await.unwrap();
                    }
                }
            }
        });
        made.buffer_unordered(HANDS).collect::<()>().await;
        eprintln!(
            "{releases} releases in {count} namespaces and {runs} finished runs, made in {:.1?}",
            began.elapsed()
        );

        let (began, mut operator) = (Instant::now(), Process::everywhere(place, "first"));
        settled(&operator, &places, GAUGES).await;
        let cached = operator.sum("perennial_cluster_cached_objects").await;
        let (now, most) = operator.memory();
        eprintln!(
            "all answered after {:.1?}, of which {GAUGES:?} quiet; {cached} objects in the caches, {now} MiB, {most} MiB at most",
            began.elapsed()
        );

        // Nobody is there, and somebody edits: a release of the middle, for it is neither the first nor the last in anybody's order.
        let middle = |n: usize| (&places[n % count], format!("r-{n}"));
        operator.signal("-TERM");
        operator.ended().await;
        let (home, name) = middle(releases / 2);
        edit(home, &name).await;
        let (began, mut operator) = (Instant::now(), Process::everywhere(place, "second"));
        operator.ready().await;
        let ready = began.elapsed();
        answered(home, &name).await;
        let served = began.elapsed();
        eprintln!(
            "after a restart: everything read after {ready:.2?}, the edit answered after {served:.2?}"
        );
        settled(&operator, &places, Duration::from_secs(3)).await;
        let (now, most) = operator.memory();
        eprintln!("{now} MiB, {most} MiB at most");

        // Another takes over: an edit of before, and one of just afterwards.
        let standby = Process::everywhere(place, "third");
        standby.ready().await;
        let (before, after) = (middle(releases / 3), middle(releases / 4));
        operator.signal("-TERM");
        operator.ended().await;
        edit(before.0, &before.1).await;
        eventually("the third leads", || async {
            (holder(place).await? == standby.name).then_some(())
        })
        .await;
        let began = Instant::now();
        edit(after.0, &after.1).await;
        answered(before.0, &before.1).await;
        let of_before = began.elapsed();
        answered(after.0, &after.1).await;
        let of_after = began.elapsed();
        eprintln!(
            "after a takeover: the edit of before is answered after {of_before:.2?}, one of just afterwards after {of_after:.2?}"
        );
        for place in &places[1..] {
            place.discard().await;
        }
        let last = of_before.max(of_after);
        assert!(last < SOON, "{last:?}");
        assert!(
            served < ready + SOON,
            "{served:?}, of which {ready:?} for reading"
        );
    });
}
