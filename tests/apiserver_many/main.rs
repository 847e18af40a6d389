//! Very many objects at once, on a control plane that nobody else waits for: `hack/test apiserver_many`. What takes longer is run when it
//! is asked for: `hack/test apiserver_many -- --ignored --nocapture restart`, likewise `operations`.

#[path = "../harness/mod.rs"]
mod harness;

#[path = "../apiserver/process.rs"]
mod process;

mod operations;
mod restart;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DynamicObject;
use perennial::cluster::lease;

use harness::{eventually, on_cluster};
use process::{Process, holder};

/// A number of the environment, or this one.
fn number(name: &str, default: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().expect(name))
}

/// flagger#638: fifty canaries took half an hour, and leadership was lost in a loop.
#[test]
fn a_thousand_releases_at_once_cost_no_renewal_of_the_lease() {
    const RELEASES: usize = 1000;
    on_cluster(|place| async move {
        let mut operator = Process::start(&place, "only");
        eventually("it leads", || async {
            (holder(&place).await? == operator.name).then_some(())
        })
        .await;
        let (place, done) = (&place, &AtomicBool::new(false));
        let renewals = async {
            let (mut last, mut since, mut longest) = (None, Instant::now(), Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let lease = place.typed::<Lease>().get("l").await.unwrap();
                let spec = lease.spec.unwrap();
                assert_eq!(spec.holder_identity.as_deref(), Some("only"));
                assert_eq!(spec.lease_transitions.unwrap_or(0), 0);
                if spec.renew_time != last {
                    longest = longest.max(since.elapsed());
                    (last, since) = (spec.renew_time, Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            longest
        };
        let work = async {
            let names = (0..RELEASES).map(|n| format!("r-{n}"));
            let made = futures::stream::iter(names).map(|name| async move {
                place.create(&place.prompt_release(&name)).await.unwrap();
            });
            made.buffer_unordered(16).collect::<()>().await;
            let deadline = Instant::now() + Duration::from_secs(500);
            loop {
                let all = place.list("perennial.dev/v1alpha1", "PromptRelease").await;
                let tried = |release: &&DynamicObject| {
                    let status = &release.data["status"];
                    status["stable"].is_object() || status["candidate"].is_object()
                };
                let tried = all.unwrap().iter().filter(tried).count();
                if tried == RELEASES {
                    break;
                }
                assert!(Instant::now() < deadline, "{tried} after eight minutes");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            done.store(true, Ordering::Relaxed);
        };
        let (longest, ()) = tokio::join!(renewals, work);
        eprintln!("{RELEASES} releases, and {longest:?} between two renewals at most");
        let deadline = lease::Times::default().deadline;
        assert!(longest < deadline, "{longest:?} of {deadline:?}");
        operator.signal("-TERM");
        assert_eq!(operator.ended().await.code(), Some(0));
    });
}
