//! Kills an operator at each of its writes, three ways, and looks whether it ends where it would have ended.

use std::{fmt::Debug, future::Future};

use futures::StreamExt;

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
    at_each_write_after(place, |_| async {}, start, scenario).await;
}

/// As [`at_each_write`], of what comes after `prepare`, during which nothing dies. What `prepare` returns lives as long as the run.
pub async fn at_each_write_after<P, PF, S, SF, T, TF, E>(
    place: &Place,
    prepare: P,
    start: S,
    scenario: T,
) where
    P: Fn(Place) -> PF,
    PF: Future,
    S: Fn(Place, Faults) -> SF,
    SF: Future<Output = Operator>,
    T: Fn(Place) -> TF,
    TF: Future<Output = E>,
    E: PartialEq + Debug,
{
    let calm = Faults::none();
    let home = place.another().await;
    let prepared = prepare(home.clone()).await;
    let operator = start(home.clone(), calm.clone()).await;
    let expected = scenario(home.clone()).await;
    operator.kill().await;
    drop(prepared);
    home.discard().await;
    let writes = calm.writes();
    assert!(writes > 0, "the scenario makes the operator write nothing");
    let moments = [Moment::Before, Moment::AnswerLost, Moment::After];
    let runs = (0..writes).flat_map(|at| moments.map(|moment| (at, moment)));
    let (prepare, start, scenario, expected) = (&prepare, &start, &scenario, &expected);
    let ended: Vec<(Place, bool)> = futures::stream::iter(runs)
        .map(|(at, moment)| async move {
            let faults = Faults::crash_at(at, moment);
            let home = place.another().await;
            let _prepared = prepare(home.clone()).await;
            let ended = killed_once(home.clone(), start, scenario, &faults).await;
            let last = faults.written().last().cloned().unwrap_or_default();
            assert_eq!(&ended, expected, "killed {moment:?} write {at} ({last})");
            (home, faults.dead())
        })
        // Each waits most of its time.
        .buffer_unordered(4)
        .collect()
        .await;
    let survived = ended.iter().filter(|(_, died)| *died).count();
    // Last, as deleting a namespace is more work for the cluster than a run.
    for (home, _) in ended {
        home.discard().await;
    }
    println!("{writes} writes, killed and survived {survived} times");
    // How many writes a run makes depends on who is faster; a few may end before the last ones.
    assert!(survived >= writes, "the operator was hardly ever killed");
}

/// One run: until the operator dies, and on with a fresh one.
async fn killed_once<S, SF, T, TF, E>(home: Place, start: &S, scenario: &T, faults: &Faults) -> E
where
    S: Fn(Place, Faults) -> SF,
    SF: Future<Output = Operator>,
    T: Fn(Place) -> TF,
    TF: Future<Output = E>,
{
    let operator = start(home.clone(), faults.clone()).await;
    let run = scenario(home.clone());
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => {
            operator.kill().await;
            return ended;
        }
        () = faults.died() => {}
    }
    operator.kill().await;
    let next = start(home, Faults::none()).await;
    let ended = run.await;
    next.kill().await;
    ended
}
