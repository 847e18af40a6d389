//! What users of other rollout controllers complained about, each as a life that must go well here. The threads are in those
//! controllers' repositories; docs/reliability.md has the table.

use perennial::{
    api::{
        gate::Verdict,
        rollout::{CandidateSource, Outcome, RolloutState},
    },
    plan::rollout::{Command, State},
};

use crate::{
    lives::{idle, last, serving},
    world::World,
};

const QUICK: &str = r"
steps: [{setWeight: 20}, {pause: {duration: 1m}}, {setWeight: 50}, {pause: {}}]
evaluations: [quality]
analysis: {interval: 15s, minRequests: 20, gates: [{metric: errorRate, max: 0.05}]}
bake: 2m
progressDeadline: 5m
";

fn state(world: &World) -> RolloutState {
    world.input.state.rollout.state
}

fn paused(state: &State) -> bool {
    state.rollout.state == RolloutState::Paused
}

/// argo-rollouts#4694: a promote was missed, and it paused until the controller was restarted.
#[test]
fn a_promote_given_while_nobody_looked_is_done_once() {
    let mut world = serving(QUICK, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    assert!(world.run_until(600, paused), "{}", world.trace);
    world.command(Command::Promote, "bbb/1");
    world.now += jiff::SignedDuration::from_hours(3);
    world.tick();
    assert_eq!(state(&world), RolloutState::Stepping);
    assert!(world.run_until(600, idle), "{}", world.trace);
    world.say("the annotation is still there: the next rollout isn't promoted by it");
    world.wants("ccc", CandidateSource::Spec);
    assert!(world.run_until(600, paused), "{}", world.trace);
    world.run(300);
    assert_eq!(state(&world), RolloutState::Paused);
}

/// argo-rollouts#1329, #1360, #2151, #1905, #1466; flagger#1035, #1689: terminated, empty or NaN measurements pass, crash or hang.
#[test]
fn a_measurement_that_is_empty_broken_or_an_error_is_never_a_pass_and_ends_at_a_deadline() {
    for (verdict, auc) in [
        (Verdict::Error, 0.7),
        (Verdict::Inconclusive, 0.7),
        (Verdict::Pending, 0.7),
        (Verdict::Passed, f64::NAN),
        (Verdict::Passed, f64::INFINITY),
    ] {
        let rollout = format!("{QUICK}\n").replace(
            "{metric: errorRate, max: 0.05}",
            "{metric: errorRate, max: 0.05}, {metric: rocAuc, min: 0.6, minDifference: -0.01}",
        );
        let mut world = serving(&rollout, Some(2));
        world.wants("odd", CandidateSource::Spec);
        world.nature("odd", |n| (n.verdict, n.auc) = (verdict, auc));
        world.tick();
        let started = world.now;
        assert!(world.run_until(3600, idle), "{}", world.trace);
        assert_eq!(
            last(&world),
            (Outcome::Aborted, "NotEnoughData"),
            "{verdict:?} {auc}: {}",
            world.trace
        );
        assert!(world.input.state.rejected.is_empty(), "{verdict:?} {auc}");
        assert!(!world.trace.contains("weight 20"), "{verdict:?} {auc}");
        assert!(world.now.duration_since(started).as_secs() < 600);
    }
}

/// argo-rollouts#4841, #4973: abort leaves weight on the candidate; weight moves before it is ready.
#[test]
fn an_abort_in_any_state_takes_every_caller_back_at_once() {
    let states = [
        RolloutState::Preparing,
        RolloutState::Stepping,
        RolloutState::Paused,
        RolloutState::Promoting,
        RolloutState::Baking,
    ];
    for wanted in states {
        let mut world = serving(QUICK, Some(2));
        world.wants("bbb", CandidateSource::Spec);
        for _ in 0..200 {
            world.tick();
            if state(&world) == RolloutState::Paused && wanted != RolloutState::Paused {
                world.command(Command::Promote, "bbb/1");
            }
            if state(&world) == wanted {
                break;
            }
        }
        assert_eq!(state(&world), wanted, "{}", world.trace);
        world.command(Command::Abort, "bbb/1");
        world.tick();
        assert_eq!(world.input.state.rollout.weight, 0, "{wanted:?}");
        assert_eq!(
            world.input.state.stable_revision(),
            Some("aaa"),
            "{wanted:?}"
        );
        assert!(world.run_until(120, idle), "{}", world.trace);
        assert_eq!(last(&world), (Outcome::Aborted, "Aborted"));
    }
}

/// argo-rollouts#4841: weight moved before the candidate was ready.
#[test]
fn no_caller_comes_before_a_pod_of_the_candidate_is_ready() {
    let mut world = serving(QUICK, Some(4));
    world.wants("slow", CandidateSource::Spec);
    world.nature("slow", |n| n.start = 120);
    world.run(115);
    assert_eq!(world.input.state.rollout.weight, 0);
    assert_eq!(state(&world), RolloutState::Preparing);
    assert!(world.run_until(120, |s| s.rollout.weight == 20));
}

/// argo-rollouts#3578, #2929, #3120, argo-cd#9570: after an abort a new image can't sync, or the old one is silently retried, or
/// GitOps redeploys what was rolled back.
#[test]
fn what_was_taken_back_is_not_tried_again_and_another_spec_starts_clean() {
    let mut world = serving(QUICK, Some(2));
    world.wants("bad", CandidateSource::Spec);
    world.nature("bad", |n| n.errors = 0.5);
    world.tick();
    assert!(world.run_until(900, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    let attempts = world.input.state.attempts;
    for _ in 0..5 {
        world.wants("bad", CandidateSource::Spec);
        world.run(60);
    }
    assert_eq!(
        world.input.state.attempts, attempts,
        "self-heal tried it again"
    );
    world.say("a new image");
    world.wants("good", CandidateSource::Spec);
    assert!(world.run_until(60, |s| s.candidate_revision() == Some("good")));
    world.say("self-heal with the old spec withdraws it, and doesn't start what was refused");
    world.wants("bad", CandidateSource::Spec);
    assert!(world.run_until(60, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Withdrawn, "Withdrawn"));
    world.wants("good", CandidateSource::Spec);
    assert!(world.run_until(900, paused), "{}", world.trace);
}

/// argo-rollouts#4128, #1377, #1774, flagger#1591: stuck when pods of stable are sick.
#[test]
fn a_sick_stable_does_not_hold_up_a_healthy_candidate() {
    let rollout = QUICK.replace(", {pause: {}}", "");
    let mut world = serving(&rollout, Some(2));
    world.say("stable crashes; a repaired spec comes");
    world.nature("aaa", |n| n.down = true);
    world.run(30);
    assert!(!world.decision.summary.available.status);
    world.wants("fixed", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    assert!(world.decision.summary.available.status);
}

/// argo-rollouts#2276, #2087, flagger#1304: nobody can see why it failed.
#[test]
fn after_a_rollback_status_still_shows_value_bound_samples_and_verdict() {
    let mut world = serving(QUICK, Some(2));
    world.wants("bad", CandidateSource::Spec);
    world.nature("bad", |n| n.errors = 0.5);
    world.tick();
    assert!(world.run_until(900, idle), "{}", world.trace);
    world.run(1800);
    let gates = &world.input.state.rollout.gates;
    let gate = gates.iter().find(|g| g.verdict == Verdict::Failed);
    let gate = gate.expect("the gate that failed is still shown");
    assert_eq!(
        (gate.metric.as_str(), gate.bound.as_str()),
        ("errorRate", "max 0.05")
    );
    assert!(gate.value.is_some_and(|v| v > 0.3) && gate.lower.is_some_and(|l| l > 0.05));
    assert!(gate.samples > 3 && gate.message.contains("proven to be beyond"));
    let rejected = &world.input.state.rejected[0];
    assert!(
        rejected.message.contains("max 0.05"),
        "{}",
        rejected.message
    );
    assert_eq!(rejected.reason, "GateFailed");
    let broken = rejected.gate.as_ref().expect("the bound that it broke");
    assert_eq!(
        (broken.metric.as_str(), broken.bound.as_str(), broken.value),
        ("errorRate", "max 0.05", gate.value)
    );
}

/// flagger#1663, #1816, #1801: failures outside the analysis raise nothing; no rollback while a gate waits.
#[test]
fn a_gate_that_fails_while_a_person_is_awaited_takes_the_candidate_back_and_says_so() {
    let mut world = serving(QUICK, Some(2));
    world.wants("late", CandidateSource::Spec);
    assert!(world.run_until(600, paused), "{}", world.trace);
    world.say("it fails only now");
    world.nature("late", |n| n.errors = 0.6);
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    for event in ["! RollingBack:", "! RevisionRejected:"] {
        assert!(world.trace.contains(event), "{event} in {}", world.trace);
    }
}

/// Commands that come together: abort, rollback-to, retry, promote, approve, in whatever order they were given.
#[test]
fn of_commands_that_come_together_the_more_careful_one_is_done() {
    let mut world = serving(QUICK, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    assert!(world.run_until(600, paused), "{}", world.trace);
    world.command(Command::Approve, "bbb/jane");
    world.command(Command::Promote, "bbb/1");
    world.command(Command::Retry, "bbb/1");
    world.command(Command::Abort, "bbb/1");
    world.tick();
    let handled = &world.input.state.handled;
    let result = |name: &str| {
        let found = handled.iter().find(|h| h.name == name);
        found.map(|h| h.result.as_str()).unwrap_or_default()
    };
    assert_eq!(result("abort"), "Done");
    assert!(result("promote").contains("taken back"), "{handled:?}");
    assert!(
        result("approve").contains("not at an approval step"),
        "{handled:?}"
    );
    assert!(result("retry").contains("not rejected"), "{handled:?}");
    assert_eq!(world.input.state.rollout.weight, 0);
}

/// A ladder is what it was at the start: edits to steps hold from the next rollout, edits to gates at once.
#[test]
fn an_edit_of_steps_holds_from_the_next_rollout_and_one_of_gates_at_once() {
    let mut world = serving(QUICK, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.nature("bbb", |n| n.errors = 0.1);
    world
        .input
        .rollout
        .analysis
        .as_mut()
        .expect("analysis")
        .gates = Some(Vec::new());
    assert!(world.run_until(600, |s| s.rollout.weight == 20));
    world.input.rollout.steps = Some(Vec::new());
    world.run(30);
    assert_eq!(world.input.state.rollout.steps.len(), 4);
    assert_eq!(world.input.state.rollout.weight, 20);
    world.input.rollout.analysis =
        serde_yaml::from_str("{minRequests: 20, gates: [{metric: errorRate, max: 0.001}]}")
            .expect("yaml");
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
}

/// `noData`, each way: an empty night is no pass.
#[test]
fn without_data_each_policy_does_what_it_says() {
    let with = |no_data: &str| {
        let rollout = format!(
            "{{steps: [{{setWeight: 20}}, {{pause: {{duration: 1m}}}}], bake: 1m, progressDeadline: 5m, \
             analysis: {{noData: {no_data}, minRequests: 50, gates: [{{metric: errorRate, max: 0.2}}]}}}}"
        );
        let mut world = serving(&rollout, Some(1));
        world.rate = 0.0;
        world.wants("bbb", CandidateSource::Spec);
        world.tick();
        world
    };
    let mut fails = with("Fail");
    assert!(fails.run_until(600, idle), "{}", fails.trace);
    assert_eq!(last(&fails), (Outcome::RolledBack, "NoData"));

    let mut inconclusive = with("Inconclusive");
    assert!(inconclusive.run_until(1200, idle), "{}", inconclusive.trace);
    assert_eq!(last(&inconclusive), (Outcome::Aborted, "NotEnoughData"));

    let mut waits = with("Wait");
    waits.run(4 * 3600);
    assert_eq!(waits.input.state.rollout.weight, 20, "{}", waits.trace);
    assert!(waits.input.state.rollout.deadline.is_none());
    waits.say("morning");
    waits.rate = 10.0;
    assert!(waits.run_until(1200, idle), "{}", waits.trace);
    assert_eq!(last(&waits), (Outcome::Promoted, "Promoted"));
}

/// In the bake as before it: the operator and the gateways were restarted, and nobody calls any more.
#[test]
fn a_bake_in_which_nothing_was_measured_is_never_a_pass() {
    let with = |analysis: &str| {
        let rollout = format!(
            "{{steps: [{{setWeight: 20}}, {{pause: {{duration: 1m}}}}], bake: 2m, progressDeadline: 5m, \
             analysis: {{minRequests: 50, {analysis}}}}}"
        );
        let mut world = serving(&rollout, Some(1));
        world.wants("bbb", CandidateSource::Spec);
        world.tick();
        assert!(world.run_until(1200, |s| s.rollout.state == RolloutState::Baking));
        world.rate = 0.0;
        world.input.live.buckets.clear();
        world
    };
    let gates = "gates: [{metric: errorRate, max: 0.2}]";
    let mut inconclusive = with(gates);
    inconclusive.run(180);
    assert_eq!(state(&inconclusive), RolloutState::Baking);
    let said = &inconclusive.decision.summary.progressing.message;
    assert!(said.contains("waits for data"), "{said}");
    assert!(inconclusive.run_until(600, idle), "{}", inconclusive.trace);
    assert_eq!(last(&inconclusive), (Outcome::Aborted, "NotEnoughData"));
    assert_eq!(inconclusive.input.state.stable_revision(), Some("aaa"));
    assert!(inconclusive.input.state.rejected.is_empty());

    let mut fails = with(&format!("noData: Fail, {gates}"));
    assert!(fails.run_until(180, idle), "{}", fails.trace);
    assert_eq!(last(&fails), (Outcome::RolledBack, "NoData"));

    let mut waits = with(&format!("noData: Wait, {gates}"));
    waits.run(4 * 3600);
    assert_eq!(state(&waits), RolloutState::Baking);
    assert!(waits.input.state.rollout.deadline.is_none());
    waits.say("morning");
    waits.rate = 10.0;
    assert!(waits.run_until(120, idle), "{}", waits.trace);
    assert_eq!(last(&waits), (Outcome::Promoted, "Promoted"));

    // Nobody wants to know.
    let mut unarmed = with("gates: []");
    assert!(unarmed.run_until(180, idle), "{}", unarmed.trace);
    assert_eq!(last(&unarmed), (Outcome::Promoted, "Promoted"));
}

/// Hours later it is another time of day: comparisons stop ten minutes after stable's last callers, absolute gates don't.
#[test]
fn in_a_long_bake_only_absolute_gates_still_judge() {
    let with = |gates: &str| {
        let rollout = format!(
            "{{steps: [{{setWeight: 50}}, {{pause: {{duration: 5m}}}}], bake: 30m, progressDeadline: 5m, \
             analysis: {{minRequests: 50, gates: [{gates}]}}}}"
        );
        let mut world = serving(&rollout, Some(1));
        world.wants("bbb", CandidateSource::Spec);
        world.tick();
        assert!(world.run_until(1200, |s| s.rollout.state == RolloutState::Baking));
        world.run(900);
        world.say("the busy hours: everything takes twice as long");
        world.nature("bbb", |n| n.latency = 80.0);
        world
    };
    let mut compared = with("{metric: latencyP50, maxRatio: 1.2}");
    assert!(compared.run_until(3 * 3600, idle), "{}", compared.trace);
    assert_eq!(last(&compared), (Outcome::Promoted, "Promoted"));
    let gate = &compared.input.state.rollout.gates[0];
    assert!(gate.message.contains("too long ago"), "{}", gate.message);

    let mut absolute = with("{metric: latencyP50, max: 0.06}");
    assert!(absolute.run_until(3 * 3600, idle), "{}", absolute.trace);
    assert_eq!(last(&absolute), (Outcome::RolledBack, "GateFailed"));
}
