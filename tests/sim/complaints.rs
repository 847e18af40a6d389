//! What users of other controllers complained about, where it takes the whole operator to show that it doesn't happen here.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    faults::{Faults, Race, Weather},
    life::{Ended, lived},
    script::{Action, Script, Shape, Which},
};

/// A model is served, a new image is tried and promoted at its pause: `promote` is said once.
pub fn script() -> Script {
    Script {
        shape: Shape::Uri,
        paced: true,
        replicas: 1,
        rollout: 2,
        analysis: 0,
        evaluated: false,
        manual: false,
        trigger: 2,
        limited: false,
        settings: false,
        resync: false,
        actions: vec![
            (0, Action::Image("s:good-1".to_owned())),
            (0, Action::Command("promote", Which::Candidate)),
        ],
    }
}

fn with(faults: impl FnOnce(&mut Faults)) -> Ended {
    let mut all = Faults::new(1, Weather::Calm);
    faults(&mut all);
    lived(1, &script(), all, false, false)
}

/// argo-rollouts#3316: one event was lost, and a count stayed wrong for ever. argo-rollouts#4694: so did a promote.
///
/// A watch that has gone silent is found out and lists again within a minute (`cluster::cache`): each event is the first that is lost, and
/// everything ends as it would have, no later than by that minute.
#[test]
fn whichever_event_is_lost_all_is_as_it_would_have_been_within_a_minute() {
    let calm = with(|_| ());
    assert_eq!(calm.violation, None);
    assert!(calm.state.contains("stable s:good-1"), "{}", calm.state);
    assert!(
        calm.state.contains("command: promote done"),
        "{}",
        calm.state
    );
    assert!(calm.events > 50, "{} events", calm.events);
    let next = AtomicU64::new(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let lost = next.fetch_add(1, Ordering::Relaxed);
                    if lost > calm.events {
                        return;
                    }
                    let ended = with(|faults| faults.loses = Some(lost));
                    assert_eq!(ended.violation, None, "event {lost}");
                    assert_eq!(ended.state, calm.state, "event {lost}");
                    // What waits for the list looks again once an interval.
                    let busy = |life: &Ended| life.last_write - life.waited;
                    let late = busy(&ended).saturating_sub(busy(&calm));
                    if late > 75_000 {
                        let mut all = Faults::new(1, Weather::Calm);
                        all.loses = Some(lost);
                        let again = lived(1, &script(), all, true, false);
                        panic!("event {lost}: {late} ms late\n{}", again.trace);
                    }
                }
            });
        }
    });
}

/// argo-rollouts#4073: a write-back replaced a fresher object in the cache, and every write after it was refused (409) for ever.
#[test]
fn an_edit_between_our_write_and_its_echo_costs_one_refused_write_at_most() {
    let calm = with(|_| ());
    for race in [Race::Before, Race::After] {
        let raced = with(|faults| faults.race = Some(race));
        assert_eq!(raced.violation, None, "{race:?}");
        assert_eq!(raced.state, calm.state, "{race:?}");
        let (edits, conflicts) = (raced.edits, raced.conflicts);
        assert!(
            edits > 10 && conflicts <= edits,
            "{race:?}: {conflicts} of {edits}"
        );
        assert!(
            race == Race::After || conflicts == edits,
            "{conflicts} of {edits}"
        );
    }
}

/// argo-rollouts#1181, #2166, #254: thousands of finished analysis objects, Jobs and ReplicaSets.
///
/// 500 rollouts are a quarter of an hour in code that isn't optimised: `PERENNIAL_SIM_ROLLOUTS=500`.
#[test]
fn after_many_rollouts_there_is_no_more_than_after_a_few() {
    let many = std::env::var("PERENNIAL_SIM_ROLLOUTS");
    let many = many.map_or(40, |text| text.parse().expect("a number"));
    let after = |rollouts: usize| {
        let image = |n: usize| {
            // Some are refused, by the Evaluation or by their gates.
            let word = ["good", "good", "badeval", "good", "errors"][n % 5];
            (0, Action::Image(format!("s:{word}-{n}")))
        };
        let script = Script {
            rollout: 1,
            evaluated: true,
            settings: true,
            actions: (0..rollouts).map(image).collect(),
            ..script()
        };
        let mut ended = lived(1, &script, Faults::new(1, Weather::Calm), false, false);
        assert_eq!(ended.violation, None);
        let refused = (rollouts * 2 / 5).min(50);
        for (kind, most) in [
            // Ten that were stable, and those of the ledger's fifty; with a copy of a ConfigMap each.
            ("ControllerRevision", 10 + refused + 3),
            ("ConfigMap", 10 + refused + 3),
            // Twenty of each of two Evaluations, and one that pinned the digest.
            ("Job", 41),
            ("Pod", 43),
        ] {
            let there = ended.objects.remove(kind).expect("a kind");
            assert!(there <= most, "{there} of {kind}");
        }
        ended.objects
    };
    assert_eq!(after(10), after(many));
}

/// zookeeper-operator#389, keycloak-operator#121: an operator's own status write woke it, 100 requests in a second.
#[test]
fn nothing_is_written_while_nothing_happens() {
    let calm = |shape: Shape| {
        let script = Script {
            shape,
            evaluated: shape != Shape::Prompt,
            ..script()
        };
        lived(1, &script, Faults::new(1, Weather::Calm), false, true)
    };
    for shape in [Shape::Uri, Shape::Followed, Shape::Prompt] {
        let ended = calm(shape);
        assert_eq!(ended.violation, None, "{shape:?}");
    }
}
