//! Kills an operator at each of its writes, three ways, and looks whether it ends where it would have ended.

use std::{collections::BTreeMap, fmt::Debug, future::Future};

use super::{
    Place,
    faults::{Faults, Moment},
    operator::Operator,
};

/// Runs `scenario` once without faults, and then once for each of the writes seen there and each [`Moment`]: the operator dies at that write, a
/// fresh one takes over and the scenario goes on. Each run has a namespace of its own.
///
/// - `start` makes the operator with its controllers around these faults.
/// - `scenario` does what users do and waits for the end; it must be able to go on while the operator is being replaced (requests of the
///   user have no faults). It returns what there is at the end: all runs must return the same.
pub async fn at_each_write<S, SF, T, TF, E>(place: &Place, start: S, scenario: T)
where
    S: Fn(Place, Faults) -> SF,
    SF: Future<Output = Operator>,
    T: Fn(Place) -> TF,
    TF: Future<Output = E>,
    E: PartialEq + Debug,
{
    let calm = Faults::none();
    let home = place.another().await;
    let operator = start(home.clone(), calm.clone()).await;
    let expected = scenario(home).await;
    operator.kill().await;
    let writes = calm.writes();
    assert!(writes > 0, "the scenario makes the operator write nothing");
    let mut survived = BTreeMap::new();
    for at in 0..writes {
        for moment in [Moment::Before, Moment::AnswerLost, Moment::After] {
            let faults = Faults::crash_at(at, moment);
            let home = place.another().await;
            let operator = start(home.clone(), faults.clone()).await;
            let ended = {
                let run = scenario(home.clone());
                tokio::pin!(run);
                tokio::select! {
                    ended = &mut run => {
                        operator.kill().await;
                        ended
                    }
                    () = faults.died() => {
                        operator.kill().await;
                        let next = start(home.clone(), Faults::none()).await;
                        let ended = run.await;
                        next.kill().await;
                        ended
                    }
                }
            };
            let last = faults.written().last().cloned().unwrap_or_default();
            assert_eq!(ended, expected, "killed {moment:?} write {at} ({last})");
            *survived.entry(format!("{moment:?}")).or_insert(0) += usize::from(faults.dead());
        }
    }
    println!("killed at {writes} writes, survived: {survived:?}");
}
