//! The program itself, as a process: election, probes, signals.

use serde_json::json;

use crate::{
    harness::{eventually, on_cluster},
    process::{Process, holder},
};

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
