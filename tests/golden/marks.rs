//! What outlives a status: marks on ControllerRevisions, and what is made of them.

use jiff::SignedDuration;
use perennial::{
    api::rollout::{CandidateSource, Outcome, RolloutState},
    plan::rollout::{Command, Revision, State},
};

use crate::{
    golden,
    lives::{idle, last, serving},
    world::World,
};

const QUICK: &str = r"
steps: [{setWeight: 20}, {pause: {duration: 1m}}]
analysis: {interval: 15s, minRequests: 20, gates: [{metric: errorRate, max: 0.05}]}
bake: 1m
progressDeadline: 5m
";

fn result(world: &World, command: &str) -> String {
    let handled = world.input.state.handled.iter();
    let mut found = handled.filter(|h| h.name == command);
    found.next().map_or(String::new(), |h| h.result.clone())
}

/// A release with two revisions that were stable: aaa before, bbb now.
fn promoted() -> World {
    let mut world = serving(QUICK, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(1200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    world.run(30);
    world
}

fn lose(world: &mut World) {
    world.say("the status is lost");
    world.input.state = State::default();
}

#[test]
fn rollback_to_is_refused_for_a_revision_that_was_never_stable() {
    let mut world = serving(QUICK, Some(2));
    world.say("superseded before it had a pod");
    world.wants("never", CandidateSource::Spec);
    world.nature("never", |n| n.start = 600);
    world.run(15);
    assert_eq!(world.input.state.candidate_revision(), Some("never"));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(1200, idle), "{}", world.trace);
    world.say("refused by its gate, and pardoned");
    world.wants("bad", CandidateSource::Spec);
    world.nature("bad", |n| n.errors = 0.5);
    world.tick();
    assert!(world.run_until(1200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    world.wants("bbb", CandidateSource::Spec);
    world.command(Command::Retry, "bad/1");
    world.run(15);
    world.say("neither can be gone back to");
    for (revision, nonce) in [("never", 1), ("bad", 2)] {
        world.command(Command::RollbackTo, &format!("{revision}/{nonce}"));
        world.run(30);
        let why = result(&world, "rollback-to");
        assert!(why.contains("was never stable"), "{revision}: {why}");
        assert!(idle(&world.input.state), "{}", world.trace);
        assert_eq!(world.input.state.stable_revision(), Some("bbb"));
    }
    world.say("what was stable can");
    world.command(Command::RollbackTo, "aaa/3");
    world.tick();
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
    golden("rollback-to-untried", &world.trace);
}

#[test]
fn a_revision_whose_bake_failed_was_never_stable() {
    let mut world = serving(QUICK, Some(2));
    world.wants("late", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(1200, |s| s.rollout.state == RolloutState::Baking));
    world.tick();
    assert!(world.input.revisions["late"].stable_since.is_some());
    world.nature("late", |n| n.errors = 0.6);
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    world.tick();
    assert!(world.input.revisions["late"].stable_since.is_none());
    world.wants("aaa", CandidateSource::Spec);
    world.command(Command::Retry, "late/1");
    world.run(10);
    world.command(Command::RollbackTo, "late/2");
    world.run(10);
    let why = result(&world, "rollback-to");
    assert!(why.contains("was never stable"), "{why}");
}

#[test]
fn what_the_history_has_forgotten_can_still_be_gone_back_to_by_its_mark() {
    let mut world = promoted();
    world.input.state.history.clear();
    world.command(Command::RollbackTo, "aaa/1");
    world.tick();
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
}

#[test]
fn commands_of_before_a_status_was_lost_are_not_done_again() {
    let mut world = promoted();
    world.say("back to aaa, forward to ccc: the annotation stays");
    world.command(Command::RollbackTo, "aaa/1");
    world.tick();
    assert!(world.run_until(600, idle), "{}", world.trace);
    world.wants("ccc", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(1200, idle), "{}", world.trace);
    assert_eq!(world.input.state.stable_revision(), Some("ccc"));
    world.command(Command::Retrain, "ccc/1");
    world.command(Command::Retry, "bbb/1");
    world.run(15);
    world.command(Command::Retry, "bbb/2");
    world.run(15);
    lose(&mut world);
    world.run(300);
    assert_eq!(world.input.state.stable_revision(), Some("ccc"));
    assert!(idle(&world.input.state), "{}", world.trace);
    let since = world.trace.split("# the status is lost").last();
    assert!(
        since.is_some_and(|trace| !trace.contains("RolloutStarted")),
        "{}",
        world.trace
    );
    for command in ["rollback-to", "retry", "retrain"] {
        let result = result(&world, command);
        assert!(result.starts_with("not done again"), "{command}: {result}");
    }
    world.say("a new one is done");
    world.command(Command::RollbackTo, "aaa/2");
    world.tick();
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
    golden("lost-status-commands", &world.trace);
}

#[test]
fn a_lost_status_comes_back_with_the_right_stable_though_the_clock_went_back() {
    let mut world = serving(QUICK, Some(2));
    world.now -= SignedDuration::from_hours(3);
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(1200, idle), "{}", world.trace);
    world.run(30);
    let since = |world: &World, of: &str| world.input.revisions[of].stable_since;
    assert!(since(&world, "bbb") > since(&world, "aaa"));
    lose(&mut world);
    world.run(60);
    assert_eq!(world.input.state.stable_revision(), Some("bbb"));
}

#[test]
fn what_its_mark_says_is_rejected_is_never_stable_again_by_itself() {
    let mut world = promoted();
    world.command(Command::RollbackTo, "aaa/1");
    world.tick();
    assert!(world.run_until(600, idle), "{}", world.trace);
    world.tick();
    // The mark of stable was never written, and what was left bears the latest.
    let aaa: &mut Revision = world.input.revisions.get_mut("aaa").unwrap();
    aaa.stable_since = Some("2026-01-01T00:00:00Z".parse().unwrap());
    lose(&mut world);
    world.run(60);
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
    assert!(world.input.state.is_rejected("bbb"));
}

#[test]
fn the_ledger_comes_back_in_its_order_and_whole_though_no_revision_was_ever_stable() {
    let mut world = World::new(QUICK, Some(1));
    world.wants("zzz", CandidateSource::Spec);
    world.nature("zzz", |n| n.start = -1);
    assert!(world.run_until(900, |s| s.is_rejected("zzz")));
    world.run(30);
    world.wants("bad", CandidateSource::Spec);
    world.nature("bad", |n| n.start = -1);
    assert!(world.run_until(900, |s| s.is_rejected("bad")));
    world.run(30);
    let before = world.input.state.rejected.clone();
    lose(&mut world);
    world.run(60);
    assert_eq!(world.input.state.rejected, before);
    assert!(idle(&world.input.state), "{}", world.trace);
}

#[test]
fn every_revision_in_the_ledger_is_kept_with_its_mark() {
    let mut world = serving(QUICK, None);
    for n in 0..15 {
        let name = format!("bad-{n:02}");
        world.wants(&name, CandidateSource::Spec);
        world.nature(&name, |n| n.errors = 0.9);
        world.tick();
        assert!(world.run_until(900, idle), "{}", world.trace);
    }
    assert_eq!(world.input.state.rejected.len(), 15);
    let keep = &world.decision.keep;
    let ledger = &world.input.state.rejected;
    assert!(ledger.iter().all(|r| keep.contains(&r.revision)));
    let rejected = &world.input.revisions["bad-00"].rejected;
    let mark: serde_json::Value = serde_json::from_str(rejected.as_ref().unwrap()).unwrap();
    assert_eq!(mark["cause"], "GateFailed");
    assert_eq!(mark["gate"]["metric"], "errorRate");
    assert_eq!(mark["gate"]["bound"], "max 0.05");
    assert!(mark["gate"]["value"].as_f64().unwrap() > 0.3);
    lose(&mut world);
    world.run(30);
    assert_eq!(world.input.state.rejected.len(), 15);
    let gate = world.input.state.rejected[0].gate.as_ref().unwrap();
    assert_eq!(gate.metric, "errorRate");
}
