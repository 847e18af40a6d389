//! The program itself, as a process: election, probes, signals.

use std::{
    net::TcpListener,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DynamicObject;
use perennial::cluster::lease;
use serde_json::json;

use crate::harness::{Place, eventually, on_cluster};

/// A running operator; killed when dropped.
struct Process {
    child: Child,
    name: &'static str,
    port: u16,
}

impl Process {
    fn start(place: &Place, name: &'static str) -> Self {
        // Free a moment ago; should it be taken since, the test says so.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(env!("CARGO_BIN_EXE_perennial"))
            .args(["operator", "--lease-name", "l", "--log-format", "json"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args([
                "--namespaces",
                &place.namespace,
                "--lease-namespace",
                &place.namespace,
            ])
            .env("POD_NAME", name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, name, port }
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.port))
            .await
            .ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    async fn ready(&self) {
        eventually("the operator is ready", || async {
            (self.get("/readyz").await?.0 == 200).then_some(())
        })
        .await;
    }

    async fn ended(&mut self) -> ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        eventually("the process ends", || async {
            child.borrow_mut().try_wait().unwrap()
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn holder(place: &Place) -> Option<String> {
    let lease = place.typed::<Lease>().get_opt("l").await.unwrap()?;
    lease
        .spec?
        .holder_identity
        .filter(|holder| !holder.is_empty())
}

#[test]
fn a_leader_that_was_paused_too_long_ends_itself_and_the_other_has_taken_over() {
    on_cluster(|place| async move {
        let mut first = Process::start(&place, "first");
        eventually("the first leads", || async {
            (holder(&place).await? == first.name).then_some(())
        })
        .await;
        let mut second = Process::start(&place, "second");
        second.ready().await;
        first.signal("-STOP");
        eventually("the second leads", || async {
            (holder(&place).await? == second.name).then_some(())
        })
        .await;
        place.create(&place.training_job("j")).await.unwrap();
        let job = || async { place.get("batch/v1", "Job", "j-1").await };
        eventually("the second works", job).await;
        first.signal("-CONT");
        assert_eq!(
            first.ended().await.code(),
            Some(1),
            "it must not go on with old caches"
        );
        let status = || async {
            place
                .get("perennial.dev/v1alpha1", "TrainingJob", "j")
                .await?
                .pointer("/status/attempts")
                .cloned()
        };
        assert_eq!(eventually("the status is there", status).await, json!(1));
        second.signal("-TERM");
        assert_eq!(second.ended().await.code(), Some(0));
        assert_eq!(
            holder(&place).await,
            None,
            "a lease is given back at the end"
        );
    });
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
            let deadline = Instant::now() + Duration::from_secs(300);
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
                assert!(Instant::now() < deadline, "{tried} after five minutes");
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

#[test]
fn probes_and_metrics_are_served() {
    on_cluster(|place| async move {
        let mut operator = Process::start(&place, "only");
        operator.ready().await;
        assert_eq!(
            operator.get("/healthz").await,
            Some((200, "ok\n".to_owned()))
        );
        place.create(&place.training_job("j")).await.unwrap();
        eventually("the work shows in the metrics", || async {
            let (_, text) = operator.get("/metrics").await?;
            text.contains("perennial_controller_reconciles_total{controller=\"training_job\",outcome=\"done\"}").then_some(())
        })
        .await;
        operator.signal("-TERM");
        assert_eq!(operator.ended().await.code(), Some(0));
    });
}
