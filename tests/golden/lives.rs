//! The scripted lives.

use perennial::{
    api::{
        gate::Verdict,
        model_deployment::ReleasePhase,
        rollout::{CandidateSource, EvaluationMetric, MetricSource, Outcome, RolloutState},
    },
    plan::rollout::{Command, Desired, State},
};

use crate::{golden, world::World};

const LADDER: &str = r"
evaluations: [quality]
steps:
- setWeight: 10
- pause: {duration: 5m}
- setWeight: 50
- pause: {duration: 5m}
analysis:
  interval: 15s
  minRequests: 200
  gates:
  - {metric: errorRate, max: 0.02, maxDifference: 0.005}
  - {metric: latencyP95, maxRatio: 1.25}
  - {metric: rocAuc, minDifference: -0.01}
bake: 10m
progressDeadline: 30m
";

pub fn idle(state: &State) -> bool {
    state.rollout.state == RolloutState::Idle
}

/// A release whose first revision `aaa` serves.
pub fn serving(rollout: &str, replicas: Option<i32>) -> World {
    let mut world = World::new(rollout, replicas);
    world.input.metrics = vec![MetricSource {
        name: "rocAuc".into(),
        evaluation: Some(EvaluationMetric {
            name: "quality".into(),
            metric: "rocAuc".into(),
        }),
        ..MetricSource::default()
    }];
    world.say("the first revision");
    world.wants("aaa", CandidateSource::Spec);
    assert!(
        world.run_until(300, |s| s.stable.is_some()),
        "{}",
        world.trace
    );
    world.run(60);
    world
}

pub fn last(world: &World) -> (Outcome, &str) {
    let last = world.input.state.history.last().expect("a history");
    (last.outcome, last.reason.as_str())
}

#[test]
fn a_good_version_climbs_the_ladder_and_is_promoted() {
    let mut world = serving(LADDER, Some(4));
    world.say("a newer version, a little better");
    world.wants("bbb", CandidateSource::Version);
    world.nature("bbb", |n| n.auc = 0.74);
    world.tick();
    assert!(world.run_until(7200, idle), "{}", world.trace);
    world.run(30);
    assert_eq!(
        last(&world),
        (Outcome::Promoted, "Promoted"),
        "{}",
        world.trace
    );
    assert!(world.decision.summary.ready.status);
    golden("promotion", &world.trace);
}

#[test]
fn a_server_that_fails_is_rolled_back_and_not_tried_again() {
    let mut world = serving(LADDER, Some(4));
    world.say("a server that fails four times in ten");
    world.wants("bad", CandidateSource::Spec);
    world.nature("bad", |n| n.errors = 0.4);
    world.tick();
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    world.say("self-heal applies the same spec again: nothing happens");
    world.run(300);
    assert!(idle(&world.input.state));
    assert_eq!(world.decision.summary.ready.reason, "RevisionRejected");
    assert!(world.decision.summary.stalled.status && world.decision.summary.available.status);
    world.say("the cause is gone; someone says retry");
    world.nature("bad", |n| n.errors = 0.002);
    world.command(Command::Retry, "bad/1");
    world.tick();
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    golden("gate-failure-and-retry", &world.trace);
}

#[test]
fn a_slow_server_is_rolled_back_by_its_latency() {
    let mut world = serving(LADDER, Some(4));
    world.say("a server that is three times as slow");
    world.wants("slow", CandidateSource::Spec);
    world.nature("slow", |n| n.latency = 120.0);
    world.tick();
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    golden("slow", &world.trace);
}

#[test]
fn a_model_that_its_evaluation_refuses_never_gets_a_caller() {
    let mut world = serving(LADDER, Some(2));
    world.say("a version trained on shuffled labels");
    world.wants("noise", CandidateSource::Version);
    world.nature("noise", |n| {
        n.verdict = Verdict::Failed;
        n.auc = 0.5;
    });
    world.tick();
    let epoch = world.input.state.rollout.epoch;
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "EvaluationFailed"));
    assert_eq!(
        world.input.state.rollout.epoch, epoch,
        "it was never routed to"
    );
    let summary = &world.decision.summary;
    assert!(summary.ready.status, "stable satisfies the spec");
    assert!(
        summary
            .candidate_rejected
            .as_ref()
            .is_some_and(|c| c.status)
    );
    golden("evaluation-refuses", &world.trace);
}

#[test]
fn a_bad_bake_goes_back_to_pods_that_are_still_there() {
    let mut world = serving(LADDER, Some(2));
    world.wants("late", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(7200, |s| s.rollout.state == RolloutState::Baking));
    world.run(120);
    world.say("it fails only now");
    world.nature("late", |n| n.errors = 0.5);
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
    golden("bake-failure", &world.trace);
}

#[test]
fn in_the_bake_stables_last_window_outlives_operator_and_gateways() {
    let rollout = LADDER.replace("max: 0.02, ", "");
    let mut world = serving(&rollout, Some(2));
    world.wants("late", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(7200, |s| s.rollout.state == RolloutState::Baking));
    world.run(60);
    let window = world.input.state.rollout.window.clone();
    assert!(window.is_some_and(|w| w.len() < 20_000));
    // Both were restarted: nothing that was measured is left.
    world.input.live.buckets.clear();
    world.run(60);
    world.nature("late", |n| n.errors = 0.5);
    assert!(world.run_until(600, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    let message = &world.input.state.rejected[0].message;
    assert!(message.contains("errorRate difference"), "{message}");
    assert!(world.input.state.rollout.window.is_none());
}

#[test]
fn a_pause_without_end_waits_for_promote_and_abort_beats_it() {
    let rollout = r"
steps: [{setWeight: 20}, {pause: {}}, {setWeight: 60}, {pause: {}}]
analysis: {gates: [{metric: errorRate, max: 0.05}]}
bake: 1m
progressDeadline: 10m
";
    let mut world = serving(rollout, None);
    world.say("a prompt with pauses until promoted");
    world.wants("bbb", CandidateSource::Spec);
    assert!(world.run_until(600, |s| s.rollout.state == RolloutState::Paused));
    world.say("an hour later nobody came: no deadline runs");
    world.rate = 0.2;
    world.run(3600);
    world.rate = 10.0;
    assert_eq!(world.input.state.rollout.state, RolloutState::Paused);
    world.say("promote of another revision is refused; then of this one");
    world.command(Command::Promote, "xyz/1");
    world.run(15);
    world.command(Command::Promote, "bbb/2");
    world.run(120);
    assert_eq!(world.input.state.rollout.step, 3);
    world.say("promote and abort at once");
    world.command(Command::Promote, "bbb/3");
    world.command(Command::Abort, "bbb/1");
    assert!(world.run_until(120, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Aborted, "Aborted"));
    assert!(world.input.state.is_rejected("bbb"));
    golden("pauses-and-commands", &world.trace);
}

#[test]
fn another_spec_supersedes_and_stables_spec_withdraws() {
    let mut world = serving(LADDER, Some(4));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(900, |s| s.rollout.weight == 10));
    world.run(60);
    world.say("another spec");
    world.wants("ccc", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(60, |s| s.candidate_revision() == Some("ccc")));
    world.say("a newer version waits its turn");
    world.wants("ddd", CandidateSource::Version);
    world.run(60);
    assert_eq!(world.input.state.candidate_revision(), Some("ccc"));
    world.say("back to stable's spec");
    world.wants("aaa", CandidateSource::Spec);
    assert!(world.run_until(60, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Withdrawn, "Withdrawn"));
    assert!(world.input.state.rejected.is_empty());
    assert!(world.decision.summary.ready.status);
    golden("supersede-and-withdraw", &world.trace);
}

#[test]
fn rollback_to_skips_the_steps_and_what_was_left_is_not_tried_again() {
    let mut world = serving(LADDER, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(7200, idle));
    world.run(30);
    world.say("someone goes back to the first revision");
    world.command(Command::RollbackTo, "aaa/1");
    world.tick();
    assert!(world.run_until(1200, idle), "{}", world.trace);
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
    assert!(world.input.state.is_rejected("bbb"));
    world.run(300);
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
    assert_eq!(world.decision.summary.ready.reason, "RevisionRejected");
    golden("rollback-to", &world.trace);
}

#[test]
fn without_callers_it_ends_for_want_of_data_and_rejects_nothing() {
    let mut world = serving(LADDER, Some(2));
    world.rate = 0.4;
    world.say("hardly anybody calls");
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Aborted, "NotEnoughData"));
    assert!(world.input.state.rejected.is_empty());
    world.run(300);
    assert!(idle(&world.input.state), "it isn't tried again by itself");
    world.say("callers come, and someone says retry");
    world.rate = 10.0;
    world.command(Command::Retry, "bbb/1");
    world.tick();
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    golden("not-enough-data", &world.trace);
}

#[test]
fn pods_that_never_start_end_at_the_deadline_with_their_own_words() {
    let mut world = serving(LADDER, Some(2));
    world.say("an image that doesn't exist");
    world.wants("bbb", CandidateSource::Spec);
    world.nature("bbb", |n| n.start = -1);
    world.tick();
    assert!(world.run_until(3600, idle), "{}", world.trace);
    assert_eq!(
        last(&world),
        (Outcome::RolledBack, "ProgressDeadlineExceeded")
    );
    let message = &world.input.state.rejected[0].message;
    assert!(message.contains("ImagePullBackOff"), "{message}");
    golden("never-starts", &world.trace);
}

#[test]
fn a_candidate_that_loses_its_pods_loses_its_callers_until_it_is_back() {
    let mut world = serving(LADDER, Some(4));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(900, |s| s.rollout.weight == 10));
    world.run(60);
    world.say("its node dies");
    world.nature("bbb", |n| n.down = true);
    world.run(60);
    assert_eq!(world.input.state.rollout.weight, 0);
    world.say("it is back");
    world.nature("bbb", |n| n.down = false);
    world.run(60);
    assert_eq!(world.input.state.rollout.weight, 10, "{}", world.trace);
    world.say("it dies for good");
    world.nature("bbb", |n| n.down = true);
    assert!(world.run_until(3600, idle), "{}", world.trace);
    golden("lost-pods", &world.trace);
}

#[test]
fn a_candidate_that_comes_and_goes_runs_into_the_steps_deadline() {
    let mut world = serving(LADDER, Some(4));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(900, |s| s.rollout.weight == 10));
    let started = world.now;
    for _ in 0..100 {
        if idle(&world.input.state) {
            break;
        }
        world.nature("bbb", |n| n.down = !n.down);
        world.run(60);
    }
    assert_eq!(last(&world).0, Outcome::RolledBack, "{}", world.trace);
    let took = world.now.duration_since(started).as_secs();
    assert!(took < 40 * 60, "{took} s");
}

#[test]
fn a_retrained_version_waits_at_weight_0_where_promotion_is_manual() {
    let mut world = serving(LADDER, Some(2));
    world.input.manual_versions = true;
    world.say("a retrained version, promotion: Manual");
    world.wants("bbb", CandidateSource::Version);
    world.run(3600);
    assert_eq!(world.input.state.rollout.state, RolloutState::Paused);
    assert_eq!(world.input.state.rollout.weight, 0);
    world.say("a person looked at it");
    world.command(Command::Promote, "bbb/1");
    world.tick();
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    golden("manual-promotion", &world.trace);
}

#[test]
fn a_version_that_a_person_is_to_promote_waits_at_weight_0_whatever_brought_it() {
    let mut world = serving(LADDER, Some(2));
    world.input.by_hand = vec!["v-bbb".into()];
    world.wants("bbb", CandidateSource::Spec);
    world.run(3600);
    assert_eq!(world.input.state.rollout.state, RolloutState::Paused);
    assert_eq!(world.input.state.rollout.weight, 0);
    world.command(Command::Promote, "bbb/1");
    world.tick();
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
}

const APPROVED: &str = r"
steps:
- setWeight: 10
- pause: {duration: 1m}
- evaluate: {names: [at-ten]}
- approval: {}
- setWeight: 50
- pause: {duration: 1m}
analysis: {minRequests: 20, gates: [{metric: errorRate, max: 0.2}]}
bake: 1m
progressDeadline: 10m
";

#[test]
fn a_step_evaluates_and_the_next_waits_for_a_named_person() {
    let mut world = serving(APPROVED, Some(2));
    world.say("measured at 10 %, then it waits for an approval");
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(900, |s| s.rollout.state == RolloutState::Paused));
    world.say("two hours later nobody came: no deadline runs");
    world.rate = 0.2;
    world.run(7200);
    world.rate = 10.0;
    assert_eq!(world.input.state.phase, ReleasePhase::Paused);
    assert!(world.input.state.message.contains("perennial approve"));
    world.say("promote is no approval, and of another revision there is none");
    world.command(Command::Promote, "bbb/1");
    world.run(5);
    world.command(Command::Approve, "xyz/jane");
    world.run(5);
    assert_eq!(world.input.state.rollout.state, RolloutState::Paused);
    world.say("jane approves");
    world.command(Command::Approve, "bbb/jane");
    world.tick();
    assert_eq!(world.input.state.rollout.approvals[0].user, "jane");
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    let message = &world.input.state.history.last().expect("history").message;
    assert!(message.contains("approved by jane"), "{message}");
    golden("evaluate-and-approve", &world.trace);
}

#[test]
fn promote_goes_no_further_than_an_approval_and_an_old_one_counts_for_nothing() {
    let mut world = serving(APPROVED, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    assert!(world.run_until(300, |s| s.rollout.weight == 10));
    world.say("promote, in the first step");
    world.command(Command::Promote, "bbb/1");
    assert!(world.run_until(60, |s| s.rollout.state == RolloutState::Paused));
    assert_eq!(
        (
            world.input.state.rollout.step,
            world.input.state.rollout.weight
        ),
        (3, 10)
    );
    world.say("approved, and aborted");
    world.command(Command::Approve, "bbb/jane");
    world.run(10);
    world.command(Command::Abort, "bbb/1");
    assert!(world.run_until(120, idle));
    world.say("tried again: what jane approved then is not approved now");
    world.command(Command::Retry, "bbb/1");
    assert!(world.run_until(900, |s| s.rollout.state == RolloutState::Paused));
    world.run(600);
    assert_eq!(world.input.state.rollout.state, RolloutState::Paused);
    world.say("she says it again");
    world.command(Command::Approve, "bbb.2/jane");
    assert!(world.run_until(1800, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    golden("promote-and-approval", &world.trace);
}

#[test]
fn a_version_that_a_step_measures_as_worse_is_taken_back() {
    let mut world = serving(APPROVED, Some(2));
    world.say("measured at 10 %, and refused");
    world.wants("noise", CandidateSource::Version);
    world.nature("noise", |n| {
        n.verdict = Verdict::Failed;
        n.auc = 0.5;
    });
    world.tick();
    assert!(world.run_until(900, |s| s.rollout.weight == 10));
    assert!(world.run_until(900, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "EvaluationFailed"));
    assert!(world.input.state.is_rejected("noise"));
    golden("evaluate-refuses", &world.trace);
}

#[test]
fn a_steps_evaluation_that_never_ends_runs_into_the_deadline_and_rejects_nothing() {
    let mut world = serving(APPROVED, None);
    world.evaluation = -1;
    world.wants("bbb", CandidateSource::Spec);
    world.tick();
    let started = world.now;
    assert!(world.run_until(3600, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Aborted, "NotEnoughData"));
    assert!(world.input.state.rejected.is_empty());
    let took = world.now.duration_since(started).as_secs();
    assert!(took < 15 * 60, "{took} s");
}

#[test]
fn a_gate_may_fail_as_often_as_failure_limit_says() {
    let rollout = r"
steps: [{setWeight: 50}, {pause: {duration: 2m}}]
analysis: {interval: 15s, failureLimit: 3, minRequests: 20, gates: [{metric: errorRate, max: 0.02}]}
bake: 1m
progressDeadline: 10m
";
    let mut world = serving(rollout, Some(2));
    world.say("it fails, and may do so at three looks");
    world.wants("bad", CandidateSource::Spec);
    world.nature("bad", |n| n.errors = 0.4);
    world.tick();
    let failed = |s: &State| s.rollout.gates.iter().any(|g| g.verdict == Verdict::Failed);
    assert!(world.run_until(900, failed), "{}", world.trace);
    let first = world.now;
    assert!(world.run_until(900, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    let took = world.now.duration_since(first).as_secs();
    assert!(
        (45..=75).contains(&took),
        "{took} s after the first failure"
    );
    golden("failure-limit", &world.trace);
}

#[test]
fn a_version_with_other_inputs_waits_at_weight_0_for_a_person() {
    let mut world = serving(LADDER, Some(2));
    let change = "its inputs are others than stable's (`x` is new)";
    world.input.signature_change = Some(change.into());
    world.wants("bbb", CandidateSource::Version);
    world.run(3600);
    let rollout = &world.input.state.rollout;
    assert_eq!((rollout.state, rollout.weight), (RolloutState::Paused, 0));
    let message = &world.decision.summary.paused.message;
    assert!(message.contains("`x` is new"), "{message}");
    world.command(Command::Promote, "bbb/1");
    world.tick();
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
}

const COPIES: &str = r"
steps:
- setMirror: {percent: 50}
- pause: {duration: 1m}
- setWeight: 10
- pause: {duration: 5m}
analysis: {minRequests: 50, gates: [{metric: errorRate, max: 0.05}]}
bake: 1m
progressDeadline: 30m
";

#[test]
fn a_candidate_gets_copies_before_it_gets_callers() {
    let mut world = serving(COPIES, Some(4));
    world.say("a newer version; the ladder begins with copies");
    world.wants("bbb", CandidateSource::Version);
    assert!(world.run_until(600, |s| s.rollout.mirror == 50));
    let rollout = &world.input.state.rollout;
    assert_eq!(rollout.weight, 0, "nobody is on it");
    let candidate = world.input.state.candidate.as_ref().unwrap();
    assert_eq!(
        candidate.replicas, 2,
        "it has the pods for half of the requests"
    );
    assert!(world.run_until(600, |s| s.rollout.weight == 10));
    assert_eq!(
        world.input.state.rollout.mirror, 0,
        "callers take their place"
    );
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    golden("copies", &world.trace);
}

const COPIES_THEN_CALLERS: &str = r"
steps:
- setMirror: {percent: 30}
- pause: {duration: 20s}
- setWeight: 30
- pause: {duration: 1m}
analysis: {minRequests: 0, gates: [{metric: errorRate, max: 0.9}]}
bake: 1m
progressDeadline: 30m
";

#[test]
fn copies_end_with_their_step_also_while_the_next_one_waits_for_pods() {
    let mut world = serving(COPIES_THEN_CALLERS, Some(4));
    world.wants("bbb", CandidateSource::Version);
    assert!(world.run_until(600, |s| s.rollout.mirror == 30));
    // In the pause somebody scales the release to zero.
    world.input.replicas = Some(0);
    assert!(
        world.run_until(600, |s| s.rollout.step == 2),
        "{}",
        world.trace
    );
    let epoch = world.input.state.rollout.epoch;
    world.run(30);
    let rollout = &world.input.state.rollout;
    assert_eq!((rollout.step, rollout.weight), (2, 0), "{}", world.trace);
    assert_eq!(rollout.mirror, 0, "the step gives callers, no copies");
    assert!(
        rollout.epoch <= epoch + 1,
        "and that is told the gateways once"
    );
    world.input.replicas = Some(4);
    assert!(
        world.run_until(600, |s| s.rollout.weight == 30),
        "{}",
        world.trace
    );
    assert_eq!(world.input.state.rollout.mirror, 0);
}

const COMPARED: &str = r"
steps:
- setMirror: {percent: 50}
- pause: {duration: 3m}
- setWeight: 10
- pause: {duration: 5m}
analysis:
  minRequests: 50
  gates:
  - {metric: errorRate, max: 0.05}
  - {metric: mirrorErrorRate, maxDifference: 0.05}
  - {metric: mirrorLatencyP95, maxRatio: 1.5}
  - {metric: mirrorAgreement, min: 0.9, proof: Safety, minSamples: 100}
bake: 1m
progressDeadline: 30m
";

#[test]
fn a_candidate_whose_copies_are_answered_otherwise_gets_no_caller() {
    let mut world = serving(COMPARED, Some(4));
    world.say("its answers are others than stable's");
    world.wants("bbb", CandidateSource::Version);
    world.nature("bbb", |n| n.agreement = 0.5);
    let mut most = 0;
    for _ in 0..360 {
        world.tick();
        let rollout = &world.input.state.rollout;
        assert_eq!(rollout.weight, 0, "{}", world.trace);
        most = most.max(rollout.mirror);
    }
    assert_eq!(most, 50);
    assert_eq!(last(&world), (Outcome::RolledBack, "GateFailed"));
    let message = &world.input.state.history.last().unwrap().message;
    assert!(message.contains("mirrorAgreement"), "{message}");
    world.say("a slow one");
    world.wants("ccc", CandidateSource::Version);
    world.nature("ccc", |n| n.latency = 100.0);
    assert!(world.run_until(900, |s| s.rollout.mirror > 0));
    assert!(world.run_until(900, idle), "{}", world.trace);
    let message = &world.input.state.history.last().unwrap().message;
    assert!(message.contains("mirrorLatencyP95"), "{message}");
    world.say("one whose answers are stable's but for a few; it is held until that is proven");
    world.wants("ddd", CandidateSource::Version);
    world.nature("ddd", |n| n.agreement = 0.97);
    assert!(
        world.run_until(7200, |s| s.rollout.weight > 0),
        "{}",
        world.trace
    );
    assert!(world.run_until(7200, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    golden("copies-compared", &world.trace);
}

#[test]
fn copies_that_nobody_asks_for_hold_the_step_as_missing_data_does() {
    let mut world = serving(COMPARED, Some(4));
    world.rate = 0.0;
    world.wants("bbb", CandidateSource::Version);
    assert!(world.run_until(3600, idle), "{}", world.trace);
    assert_eq!(last(&world), (Outcome::Aborted, "NotEnoughData"));
    let message = &world.input.state.history.last().unwrap().message;
    assert!(
        message.contains("mirrorAgreement: 0 of 100 callers"),
        "{message}"
    );
}

#[test]
fn an_abort_ends_the_copies_too() {
    let mut world = serving(COPIES, Some(4));
    world.wants("bbb", CandidateSource::Version);
    assert!(world.run_until(600, |s| s.rollout.mirror == 50));
    let before = world.input.state.rollout.epoch;
    world.command(Command::Abort, "bbb/1");
    world.tick();
    let rollout = &world.input.state.rollout;
    assert!(rollout.mirror == 0 && rollout.epoch > before);
    assert!(world.run_until(600, idle), "{}", world.trace);
}

#[test]
fn gateways_that_do_not_follow_hold_the_steps_clock() {
    let mut world = serving(LADDER, Some(2));
    world.wants("bbb", CandidateSource::Spec);
    world.gateways_follow = false;
    world.run(600);
    assert_eq!(world.input.state.rollout.step, 0, "{}", world.trace);
    assert_eq!(world.input.state.rollout.weight, 10);
    world.say("someone aborts; the gateways don't even let go");
    world.command(Command::Abort, "bbb/1");
    world.run(60);
    assert_eq!(world.input.state.rollout.state, RolloutState::RollingBack);
    assert_eq!(world.input.state.rollout.weight, 0);
    assert!(
        world.decision.pods.contains_key("bbb"),
        "its pods stay while callers may come"
    );
    assert!(world.run_until(600, idle), "{}", world.trace);
    golden("gateways-behind", &world.trace);
}

#[test]
fn a_first_revision_that_is_refused_is_said_to_need_help() {
    let mut world = World::new(LADDER, Some(1));
    world.input.desired = Desired::Nothing {
        reason: "NoVersion".into(),
        message: "no TrainingJob of model arrival-delay has made a version yet".into(),
        stalled: false,
    };
    world.run(30);
    world.say("the first version, and its evaluation fails");
    world.wants("aaa", CandidateSource::Version);
    world.nature("aaa", |n| {
        n.verdict = Verdict::Failed;
        n.auc = 0.5;
    });
    world.run(120);
    let summary = &world.decision.summary;
    assert!(!summary.available.status && !summary.ready.status && summary.stalled.status);
    world.say("a better one");
    world.wants("bbb", CandidateSource::Version);
    assert!(
        world.run_until(120, |s| s.stable_revision() == Some("bbb")),
        "{}",
        world.trace
    );
    world.run(30);
    assert!(world.decision.summary.ready.status);
    golden("first-revision", &world.trace);
}

#[test]
fn a_lost_status_is_rebuilt_from_the_marks() {
    let mut world = serving(LADDER, Some(2));
    world.wants("bad", CandidateSource::Spec);
    world.nature("bad", |n| n.errors = 0.4);
    world.tick();
    assert!(world.run_until(1800, idle));
    world.run(30);
    world.say("the status is lost");
    world.input.state = State::default();
    world.run(120);
    assert_eq!(world.input.state.stable_revision(), Some("aaa"));
    assert!(world.input.state.is_rejected("bad") && world.input.state.candidate.is_none());
    golden("lost-status", &world.trace);
}
