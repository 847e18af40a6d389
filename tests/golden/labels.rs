//! Gates on labels that come later.

use std::{collections::BTreeMap, sync::Arc};

use perennial::{
    api::{
        gate::{GateStatus, Verdict},
        rollout::{CandidateSource, LabelsMetric, MetricSource, Outcome},
    },
    stats::{
        labels::{Guess, Label, LatePart, Prediction, Samples},
        random::Generator,
    },
};

use crate::{
    lives::{idle, last},
    world::World,
};

const LADDER: &str = r"
steps: [{setWeight: 50}, {pause: {duration: 10m}}]
analysis: {interval: 15s, minRequests: 20, gates: [{metric: live, GATE}]}
bake: 1m
progressDeadline: 20m
";
/// Seconds that labels are waited for.
const HORIZON: i64 = 300;

/// How a revision's predictions turn out.
#[derive(Clone, Copy)]
struct Fate {
    /// Share of classes that are predicted.
    right: f64,
    /// Share of requests that get a label …
    labelled: f64,
    /// … after so many seconds.
    after: i64,
}

const GOOD: Fate = Fate {
    right: 0.85,
    labelled: 0.97,
    after: 200,
};

fn world(metric: &str, gate: &str) -> World {
    let mut world = World::new(&LADDER.replace("GATE", gate), Some(2));
    let labels: LabelsMetric =
        serde_json::from_value(serde_json::json!({"metric": metric, "horizon": "5m"})).unwrap();
    world.input.metrics.push(MetricSource {
        name: "live".into(),
        labels: Some(labels),
        ..MetricSource::default()
    });
    world.wants("aaa", CandidateSource::Spec);
    assert!(
        world.run_until(300, |s| s.stable.is_some()),
        "{}",
        world.trace
    );
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    world
}

/// Lets time pass until the rollout has ended, at most so many seconds, with so many requests in five.
fn until_idle(world: &mut World, seconds: i64, rate: u64, stable: Fate, candidate: Fate) {
    let mut generator = Generator::new(11);
    let mut id = 0u64;
    let mut coming: Vec<(i64, i64, &str, Label)> = Vec::new();
    for _ in 0..seconds / 5 {
        let second = world.now.as_second();
        let rollout = world.input.state.rollout.clone();
        let mut came: BTreeMap<(i64, &str), Samples> = BTreeMap::new();
        for _ in 0..rate {
            id += 1;
            let tried = rollout.weight > 0 && generator.unit() * 100.0 < f64::from(rollout.weight);
            let (revision, fate) = if tried {
                ("bbb", candidate)
            } else {
                ("aaa", stable)
            };
            let truth = generator.unit() < 0.4;
            let said = (generator.unit() < fate.right) == truth;
            let word = |b: bool| u8::from(b).to_string();
            let p = if said { 0.8 } else { 0.2 };
            let samples = came.entry((rollout.epoch, revision)).or_default();
            samples.predictions.push(Prediction {
                id,
                caller: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                at: second,
                rows: vec![Guess {
                    said: Some(word(said)),
                    probabilities: vec![1.0 - p, p],
                }],
            });
            if generator.unit() < fate.labelled {
                let at = second + fate.after;
                let label = Label {
                    id,
                    at,
                    rows: vec![word(truth)],
                };
                coming.push((at, rollout.epoch, revision, label));
            }
        }
        let due = |(at, ..): &mut (i64, i64, &str, Label)| *at <= second;
        for (_, epoch, revision, label) in coming.extract_if(.., due) {
            came.entry((epoch, revision))
                .or_default()
                .labels
                .push(label);
        }
        for ((epoch, revision), samples) in came {
            world.input.live.late.parts.push(LatePart {
                minute: second / 60,
                epoch,
                revision: revision.to_owned(),
                samples: Arc::new(samples),
            });
        }
        world.input.live.late.read = Some(second);
        world.input.live.late.since = Some(0);
        world.tick();
        if idle(&world.input.state) {
            return;
        }
    }
}

fn gate(world: &World) -> &GateStatus {
    let mut gates = world.input.state.rollout.gates.iter();
    gates.find(|g| g.metric == "live").unwrap()
}

#[test]
fn predictions_that_turn_out_as_well_as_stables_are_promoted_and_worse_ones_taken_back() {
    for (metric, bound) in [
        ("logLoss", "maxDifference: 0.1"),
        ("accuracy", "minDifference: -0.05"),
        ("ece", "max: 0.2"),
        ("rocAuc", "minDifference: -0.1"),
    ] {
        let mut good = world(metric, bound);
        until_idle(&mut good, 3600, 20, GOOD, GOOD);
        assert_eq!(
            last(&good),
            (Outcome::Promoted, "Promoted"),
            "{metric} {}",
            good.trace
        );
        let status = gate(&good);
        assert!(
            status.coverage.unwrap() > 0.9 && status.samples > 100,
            "{status:?}"
        );
        assert!(status.message.contains("5m old"), "{status:?}");

        let mut bad = world(metric, bound);
        let worse = Fate { right: 0.2, ..GOOD };
        until_idle(&mut bad, 3600, 20, GOOD, worse);
        assert_eq!(
            last(&bad),
            (Outcome::RolledBack, "GateFailed"),
            "{metric} {}",
            bad.trace
        );
    }
}

#[test]
fn before_labels_are_due_a_step_waits_and_says_for_what() {
    let mut world = world("logLoss", "max: 0.7");
    until_idle(&mut world, 120, 4, GOOD, GOOD);
    let status = gate(&world).clone();
    assert_eq!((status.verdict, status.samples), (Verdict::Inconclusive, 0));
    assert!(
        status
            .message
            .contains("the first requests count at 2026-03-02T09:"),
        "{status:?}"
    );
}

#[test]
fn few_labels_are_no_data_however_bad_they_look_and_end_at_the_deadline() {
    let mut world = world("accuracy", "min: 0.6");
    // Nine of ten that were wrong are reported at once, and nothing else.
    let biased = Fate {
        right: 0.2,
        labelled: 0.5,
        after: 10,
    };
    until_idle(&mut world, 2400, 4, GOOD, biased);
    assert_eq!(
        last(&world),
        (Outcome::Aborted, "NotEnoughData"),
        "{}",
        world.trace
    );
    let status = gate(&world);
    assert_eq!(status.verdict, Verdict::Inconclusive);
    assert!(status.message.contains("minCoverage is 0.9"), "{status:?}");
    assert!((status.coverage.unwrap() - 0.5).abs() < 0.1, "{status:?}");
}

#[test]
fn labels_that_come_too_late_count_for_nobody() {
    let mut world = world("accuracy", "min: 0.6");
    let slow = Fate {
        after: HORIZON + 10,
        ..GOOD
    };
    until_idle(&mut world, 2400, 4, GOOD, slow);
    assert_eq!(
        last(&world),
        (Outcome::Aborted, "NotEnoughData"),
        "{}",
        world.trace
    );
    assert_eq!(gate(&world).coverage, Some(0.0));
}

#[test]
fn sides_of_which_one_is_labelled_more_often_are_not_compared() {
    let mut world = world("accuracy", "minDifference: -0.05");
    let labels = world.input.metrics[0].labels.as_mut().unwrap();
    labels.min_coverage = Some(0.7);
    let (all, worse) = (
        Fate {
            labelled: 1.0,
            ..GOOD
        },
        Fate {
            right: 0.78,
            labelled: 0.8,
            ..GOOD
        },
    );
    until_idle(&mut world, 600, 20, all, worse);
    let status = gate(&world);
    assert_eq!(status.verdict, Verdict::Inconclusive, "{}", world.trace);
    assert!(status.message.contains("are not alike"), "{status:?}");
}
