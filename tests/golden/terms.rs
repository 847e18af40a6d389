//! What may be edited while a rollout goes on, or after it, and what an edit does not bring about.

use perennial::{
    api::{
        gate::{Gate, GateStatus},
        rollout::{CandidateSource, MetricSource, Outcome},
    },
    plan::rollout::Command,
};

use crate::{
    lives::{idle, last, serving},
    world::World,
};

const LADDER: &str = r"
steps: [{setWeight: 20}, {pause: {duration: 1m}}]
analysis: {interval: 15s, minRequests: 200, gates: [{metric: errorRate, max: 0.05}]}
bake: 1m
progressDeadline: 5m
";

fn without_data() -> World {
    let mut world = serving(LADDER, Some(2));
    world.rate = 0.2;
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Aborted, "NotEnoughData"));
    world
}

#[test]
fn scaling_does_not_try_again_what_ended_for_want_of_data() {
    let mut world = without_data();
    for replicas in [3, 1, 4] {
        // An autoscaler writes to `scale`, and the generation grows.
        world.input.generation += 1;
        world.input.replicas = Some(replicas);
        world.run(120);
        assert!(idle(&world.input.state), "{}", world.trace);
    }
    assert_eq!(world.decision.summary.ready.reason, "NotEnoughData");
}

#[test]
fn an_edit_of_what_decides_how_long_data_is_awaited_does() {
    let mut world = without_data();
    let attempts = world.input.state.attempts;
    world.input.rollout.analysis.as_mut().unwrap().min_requests = Some(20);
    world.run(10);
    assert_eq!(world.input.state.attempts, attempts + 1);
    let mut world = without_data();
    world.input.metrics.push(MetricSource {
        name: "other".into(),
        ..MetricSource::default()
    });
    world.run(10);
    assert_eq!(world.input.state.attempts, attempts + 1);
}

#[test]
fn what_ended_under_an_operator_that_recorded_no_terms_waits_for_another_generation() {
    let mut world = without_data();
    world.input.state.history.last_mut().unwrap().terms = None;
    world.run(60);
    assert!(idle(&world.input.state));
    world.input.generation += 1;
    world.tick();
    assert!(!idle(&world.input.state));
}

fn gates(world: &mut World, gates: &[(&str, f64)]) {
    let gate = |(metric, max): &(&str, f64)| Gate {
        metric: (*metric).into(),
        max: Some(*max),
        ..Gate::default()
    };
    let analysis = world.input.rollout.analysis.as_mut().unwrap();
    analysis.gates = Some(gates.iter().map(gate).collect());
}

/// How wide the interval of the gate on errors is.
fn width(world: &World) -> f64 {
    let mut gates = world.input.state.rollout.gates.iter();
    let gate: &GateStatus = gates.find(|g| g.metric == "errorRate").unwrap();
    gate.upper.unwrap() - gate.lower.unwrap()
}

#[test]
fn gates_edited_under_way_do_not_get_the_error_rate_back() {
    let with = |first: &[(&str, f64)]| {
        let ladder = LADDER.replace("minRequests: 200", "minRequests: 20");
        let mut world = serving(&ladder.replace("duration: 1m", "duration: 30m"), Some(2));
        world.wants("bbb", CandidateSource::Spec);
        gates(&mut world, first);
        world.tick();
        assert!(world.run_until(600, |s| s.rollout.measured_from.is_some()));
        world.run(120);
        world
    };
    let one = [("errorRate", 0.05)];
    let three = [
        ("errorRate", 0.05),
        ("latencyP50", 9.0),
        ("latencyP95", 9.0),
    ];
    let mut never = with(&one);
    let mut taken_out = with(&three);
    gates(&mut taken_out, &one);
    let mut replaced = with(&three[1..]);
    gates(&mut replaced, &one);
    for world in [&mut never, &mut taken_out, &mut replaced] {
        world.run(120);
    }
    // The same callers, by the same seed: only the level is another one. What came later has a share of what is kept for that.
    assert!(width(&taken_out) > width(&never));
    assert!(width(&replaced) > width(&taken_out));
    assert_eq!(taken_out.input.state.rollout.judged.len(), 3);
    let rollout = &replaced.input.state.rollout;
    assert_eq!(
        rollout.judged.last().map(String::as_str),
        Some("errorRate max")
    );
    assert_eq!(rollout.judged_first, Some(2));
    // Taken out and put in again, it has the share that it had.
    let before = width(&taken_out);
    gates(&mut taken_out, &three);
    gates(&mut taken_out, &one);
    taken_out.run(60);
    assert!(width(&taken_out) <= before);
    assert_eq!(taken_out.input.state.rollout.judged_first, Some(3));
    // Another number for the same bound costs nothing: one interval holds for all numbers.
    gates(&mut never, &[("errorRate", 0.06)]);
    never.run(60);
    assert_eq!(never.input.state.rollout.judged, ["errorRate max"]);
    // The next rollout has all of it again.
    taken_out.command(Command::Abort, "bbb/1");
    assert!(taken_out.run_until(300, idle));
    assert!(taken_out.input.state.rollout.judged.is_empty());
}

#[test]
fn what_ended_for_want_of_data_may_be_asked_for_again_after_something_else() {
    let mut world = without_data();
    let attempts = world.input.state.attempts;
    world.wants("aaa", CandidateSource::Spec);
    world.run(30);
    assert_eq!(world.input.state.attempts, attempts);
    world.wants("bbb", CandidateSource::Spec);
    world.run(30);
    assert_eq!(world.input.state.attempts, attempts + 1);
}
