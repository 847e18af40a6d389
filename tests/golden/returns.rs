//! Candidates that lose their pods and come back.

use perennial::{
    api::rollout::{CandidateSource, Outcome, RolloutState},
    plan::rollout::Command,
};

use crate::{
    golden,
    lives::{idle, last, serving},
    world::World,
};

const LADDER: &str = r"
steps: [{setWeight: 20}, {pause: {duration: 4m}}, {setWeight: 50}, {pause: {duration: 4m}}]
analysis: {interval: 15s, minRequests: 20, gates: [{metric: errorRate, max: 0.1}, {metric: latencyP50, maxRatio: 1.3}]}
bake: 1m
progressDeadline: 5m
";

/// A candidate whose pods go as soon as it has callers, and before the gateways know of them.
fn flaps(world: &mut World) {
    for _ in 0..200 {
        world.nature("bbb", |n| n.down = !n.down);
        world.run(10);
        if idle(&world.input.state) {
            return;
        }
    }
}

#[test]
fn one_that_comes_and_goes_before_gateways_follow_runs_into_the_deadline_too() {
    let mut world = serving(LADDER, Some(2));
    world.gateways_follow = false;
    world.say("the gateways don't follow, and its pods come and go");
    world.wants("bbb", CandidateSource::Spec);
    world.nature("bbb", |n| n.start = 5);
    world.tick();
    let started = world.now;
    flaps(&mut world);
    assert!(idle(&world.input.state), "{}", world.trace);
    assert_eq!(
        last(&world),
        (Outcome::RolledBack, "ProgressDeadlineExceeded")
    );
    // Preparing, the step, and letting go.
    let took = world.now.duration_since(started).as_secs();
    assert!(took < 16 * 60, "{took} s");
}

#[test]
fn a_person_who_promoted_a_version_by_hand_is_not_asked_again_when_its_pods_were_lost() {
    let mut world = serving(LADDER, Some(2));
    world.input.manual_versions = true;
    world.wants("bbb", CandidateSource::Version);
    assert!(world.run_until(300, |s| s.rollout.state == RolloutState::Paused));
    world.gateways_follow = false;
    world.command(Command::Promote, "bbb/1");
    assert!(world.run_until(60, |s| s.rollout.weight == 20));
    world.say("lost before any gateway serves it");
    world.nature("bbb", |n| n.down = true);
    world.run(30);
    assert_eq!(world.input.state.rollout.weight, 0);
    world.gateways_follow = true;
    world.nature("bbb", |n| n.down = false);
    assert!(
        world.run_until(60, |s| s.rollout.weight == 20),
        "{}",
        world.trace
    );
    let asked = world.trace.matches("WaitingForPromotion").count();
    assert_eq!(asked, 1, "{}", world.trace);
}

#[test]
fn pods_that_come_back_warm_up_again_and_what_was_measured_before_still_counts() {
    let mut world = serving(LADDER, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(600, |s| s.rollout.measured_from.is_some()));
    world.run(120);
    let before = world.input.state.rollout.clone();
    let samples = |world: &World| {
        let gates = &world.input.state.rollout.gates;
        gates
            .iter()
            .find(|g| g.metric == "latencyP50")
            .unwrap()
            .samples
    };
    let counted = samples(&world);
    assert!(counted > 50, "{counted}");
    world.say("its node dies, and for a minute the new pods are slow: their caches are cold");
    world.nature("bbb", |n| n.down = true);
    world.run(30);
    world.nature("bbb", |n| (n.down, n.latency) = (false, 200.0));
    assert!(world.run_until(60, |s| s.rollout.weight == 20));
    world.run(55);
    assert_eq!(world.input.state.rollout.weight, 20, "{}", world.trace);
    assert!(world.input.state.rollout.cold_from.is_some());
    world.nature("bbb", |n| n.latency = 40.0);
    assert!(world.run_until(60, |s| s.rollout.cold_from.is_none()));
    let rollout = world.input.state.rollout.clone();
    assert_eq!(rollout.measured_from, before.measured_from);
    assert_eq!(rollout.skipped.len(), 1);
    assert!(rollout.skipped[0].from > before.epoch && rollout.skipped[0].to < rollout.epoch);
    world.run(60);
    assert!(samples(&world) > counted, "{}", world.trace);
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(
        last(&world),
        (Outcome::Promoted, "Promoted"),
        "{}",
        world.trace
    );
    golden("cold-again", &world.trace);
}

#[test]
fn no_step_ends_by_what_came_while_the_pods_were_cold_again() {
    let mut world = serving(LADDER, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(600, |s| s.rollout.measured_from.is_some()));
    // The pause is nearly over.
    world.run(120);
    world.nature("bbb", |n| n.down = true);
    world.run(10);
    world.nature("bbb", |n| n.down = false);
    assert!(world.run_until(60, |s| s.rollout.weight == 20));
    let gate = |world: &World| {
        let gates = world.input.state.rollout.gates.iter();
        gates
            .filter(|g| g.metric == "requests")
            .map(|g| g.samples)
            .sum::<i64>()
    };
    world.run(45);
    assert_eq!(gate(&world), 0, "{}", world.trace);
    world.run(120);
    assert!(gate(&world) > 0, "{}", world.trace);
}

#[test]
fn of_many_losses_only_the_last_ones_are_remembered() {
    // Callers who met no pod are errors, of which there would be too many.
    let ladder = LADDER
        .replace("progressDeadline: 5m", "progressDeadline: 5h")
        .replace("{metric: errorRate, max: 0.1}, ", "");
    let mut world = serving(&ladder, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    let mut first = None;
    for _ in 0..20 {
        assert!(world.run_until(300, |s| {
            s.rollout.measured_from.is_some() && s.rollout.cold_from.is_none()
        }));
        first = first.or(world.input.state.rollout.measured_from);
        world.nature("bbb", |n| n.down = true);
        world.run(10);
        world.nature("bbb", |n| n.down = false);
        assert!(world.input.state.rollout.skipped.len() <= 16);
    }
    assert!(world.input.state.rollout.measured_from > first);
}
