//! Leader election against a real API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use perennial::cluster::lease::{self, End, Leadership, Times};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{Place, eventually, faults::Faults, on_cluster};

/// Long enough for a busy machine.
const TIMES: Times = Times {
    duration: Duration::from_secs(15),
    deadline: Duration::from_secs(8),
    period: Duration::from_millis(100),
};

/// For what waits until a lease expires.
const SHORT: Times = Times {
    duration: Duration::from_secs(4),
    deadline: Duration::from_millis(2500),
    period: Duration::from_millis(100),
};

struct Candidate {
    leadership: Leadership,
    stop: CancellationToken,
    end: JoinHandle<End>,
}

async fn candidate(place: &Place, name: &'static str, faults: &Faults, times: Times) -> Candidate {
    let (leadership, stop) = (Leadership::none(), CancellationToken::new());
    let (client, namespace) = (faults.client().await, place.namespace.clone());
    let (own, end) = (leadership.clone(), stop.clone());
    let end =
        tokio::spawn(
            async move { lease::run(client, &namespace, "l", name, times, own, end).await },
        );
    Candidate {
        leadership,
        stop,
        end,
    }
}

async fn leads(candidate: &Candidate) {
    eventually("it leads", || async {
        candidate.leadership.may_write().then_some(())
    })
    .await;
}

#[test]
fn one_leads_and_hands_over_at_once_when_it_is_stopped() {
    on_cluster(|place| async move {
        let a = candidate(&place, "a", &Faults::none(), TIMES).await;
        leads(&a).await;
        let b = candidate(&place, "b", &Faults::none(), TIMES).await;
        eventually("the lease was renewed a few times", || async {
            let lease = place.typed::<Lease>().get("l").await.ok()?;
            let spec = lease.spec?;
            (spec.renew_time?.0 > spec.acquire_time?.0 + Duration::from_millis(500)).then_some(())
        })
        .await;
        assert!(a.leadership.may_write() && !b.leadership.may_write());
        let began = Instant::now();
        a.stop.cancel();
        assert_eq!(a.end.await.unwrap(), End::Stopped);
        assert!(!a.leadership.may_write());
        leads(&b).await;
        assert!(
            began.elapsed() < TIMES.duration,
            "a released lease isn't waited for"
        );
        b.stop.cancel();
    });
}

#[test]
fn a_leader_that_is_cut_off_stops_writing_before_another_begins() {
    on_cluster(|place| async move {
        let faults = Faults::none();
        let a = candidate(&place, "a", &faults, SHORT).await;
        leads(&a).await;
        let b = candidate(&place, "b", &Faults::none(), SHORT).await;
        faults.cut_off();
        let both = async {
            loop {
                let (one, other) = (a.leadership.may_write(), b.leadership.may_write());
                assert!(!(one && other), "two may write");
                if other {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .unwrap();
        assert_eq!(a.end.await.unwrap(), End::Lost);
        let lease = place.typed::<Lease>().get("l").await.unwrap().spec.unwrap();
        assert_eq!(lease.holder_identity.as_deref(), Some("b"));
        assert_eq!(lease.lease_transitions, Some(1));
        b.stop.cancel();
    });
}

#[test]
fn of_many_that_start_together_one_leads() {
    on_cluster(|place| async move {
        let names = ["a", "b", "c", "d", "e"];
        let mut candidates = Vec::new();
        for name in names {
            candidates.push(candidate(&place, name, &Faults::none(), TIMES).await);
        }
        eventually("somebody leads", || async {
            candidates
                .iter()
                .any(|c| c.leadership.may_write())
                .then_some(())
        })
        .await;
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            let leading = candidates
                .iter()
                .filter(|c| c.leadership.may_write())
                .count();
            assert!(leading <= 1, "{leading} may write");
            tokio::task::yield_now().await;
        }
        for candidate in &candidates {
            candidate.stop.cancel();
        }
    });
}

#[test]
fn a_lease_deleted_by_hand_is_taken_by_one() {
    on_cluster(|place| async move {
        let a = candidate(&place, "a", &Faults::none(), TIMES).await;
        leads(&a).await;
        let b = candidate(&place, "b", &Faults::none(), TIMES).await;
        place
            .typed::<Lease>()
            .delete("l", &Default::default())
            .await
            .unwrap();
        eventually("there is a lease again", || async {
            place.typed::<Lease>().get_opt("l").await.unwrap()
        })
        .await;
        eventually("one of them leads", || async {
            (a.leadership.may_write() != b.leadership.may_write()).then_some(())
        })
        .await;
        a.stop.cancel();
        b.stop.cancel();
    });
}
