//! Gates on what Prometheus says.

use perennial::{
    api::{
        gate::Verdict,
        rollout::{CandidateSource, MetricSource, Outcome, PrometheusMetric, RolloutState},
    },
    plan::rollout::Command,
    stats::asked::{Answer, Answered},
};

use crate::{
    golden,
    lives::{idle, last},
    world::World,
};

const LADDER: &str = r"
steps: [{setWeight: 20}, {pause: {duration: 2m}}]
analysis: {interval: 15s, minRequests: 20, gates: [{metric: complaints, max: 0.5, maxRatio: 2}]}
bake: 1m
progressDeadline: 10m
";

fn world(rollout: &str, query: &str) -> World {
    let mut world = World::new(rollout, Some(2));
    world.input.metrics.push(MetricSource {
        name: "complaints".into(),
        prometheus: Some(PrometheusMetric {
            source: "default".into(),
            query: query.into(),
        }),
        ..MetricSource::default()
    });
    world.wants("aaa", CandidateSource::Spec);
    assert!(
        world.run_until(300, |s| s.stable.is_some()),
        "{}",
        world.trace
    );
    world
}

/// Lets time pass until the rollout has ended; stable's answer is 0.1, the candidate's is this.
fn until_idle(world: &mut World, seconds: i64, candidate: impl Fn(i64) -> Answer) {
    let start = world.now;
    world.tick();
    for _ in 0..seconds / 5 {
        let time = world.now;
        for (revision, answer) in [
            ("aaa", Answer::Value(0.1)),
            ("bbb", candidate(time.duration_since(start).as_secs())),
        ] {
            let key = ("complaints".to_owned(), revision.to_owned());
            let answers = &mut world.input.live.asked.answers;
            answers.insert(key, Answered { time, answer });
        }
        world.tick();
        if idle(&world.input.state) {
            return;
        }
    }
}

const QUERY: &str = "sum(rate(complaints_total{revision=\"{{ revision }}\"}[5m]))";

#[test]
fn an_answer_within_its_bounds_promotes_and_one_beyond_takes_back() {
    let mut good = world(LADDER, QUERY);
    good.say("few complain of the new one");
    good.wants("bbb", CandidateSource::Spec);
    until_idle(&mut good, 1800, |_| Answer::Value(0.15));
    assert_eq!(
        last(&good),
        (Outcome::Promoted, "Promoted"),
        "{}",
        good.trace
    );
    golden("prometheus", &good.trace);

    for value in [0.6, 0.3] {
        let mut bad = world(LADDER, QUERY);
        bad.wants("bbb", CandidateSource::Spec);
        until_idle(&mut bad, 1800, |_| Answer::Value(value));
        assert_eq!(
            last(&bad),
            (Outcome::RolledBack, "GateFailed"),
            "{}",
            bad.trace
        );
    }
}

#[test]
fn a_source_that_is_down_is_an_error_and_goes_on_when_it_is_back() {
    let down = || Answer::Failed("Prometheus source default can't be reached".into());
    // Whatever else is configured, nobody gives up before the deadline because nobody could ask.
    let mut world = world(
        &LADDER.replace(
            "minRequests: 20",
            "minRequests: 20, noData: Fail, onInconclusive: Abort",
        ),
        QUERY,
    );
    world.say("the source is down for five minutes");
    world.wants("bbb", CandidateSource::Spec);
    until_idle(&mut world, 295, |_| down());
    let gates = &world.input.state.rollout.gates;
    let gate = gates.iter().find(|g| g.metric == "complaints").unwrap();
    assert_eq!(gate.verdict, Verdict::Error, "{}", world.trace);
    assert!(gate.message.contains("can't be reached"), "{gate:?}");
    assert_eq!(world.input.state.rollout.weight, 20);
    world.say("it is back");
    until_idle(&mut world, 1800, |_| Answer::Value(0.1));
    assert_eq!(last(&world), (Outcome::Promoted, "Promoted"));
    golden("prometheus-down", &world.trace);
}

#[test]
fn a_source_that_stays_down_ends_at_the_deadline_and_rejects_nothing() {
    let mut world = world(LADDER, QUERY);
    world.wants("bbb", CandidateSource::Spec);
    until_idle(&mut world, 3600, |_| Answer::Failed("it is down".into()));
    assert_eq!(last(&world), (Outcome::Aborted, "NotEnoughData"));
    assert!(world.input.state.rejected.is_empty());
}

#[test]
fn with_prometheus_down_and_gateways_out_of_reach_callers_still_go_back() {
    let down = || Answer::Failed("Prometheus source default can't be reached".into());
    let cut = |world: &mut World| {
        world.say("nobody can be asked, neither Prometheus nor the gateways");
        world.out_of_reach = true;
    };
    // Someone aborts.
    let mut aborted = world(LADDER, QUERY);
    aborted.wants("bbb", CandidateSource::Spec);
    until_idle(&mut aborted, 60, |_| Answer::Value(0.1));
    assert_eq!(aborted.input.state.rollout.weight, 20);
    cut(&mut aborted);
    until_idle(&mut aborted, 30, |_| down());
    aborted.command(Command::Abort, "bbb/1");
    aborted.tick();
    assert_eq!(aborted.input.state.rollout.weight, 0, "at once");
    until_idle(&mut aborted, 330, |_| down());
    assert_eq!(last(&aborted), (Outcome::Aborted, "Aborted"));
    assert_eq!(aborted.input.state.stable_revision(), Some("aaa"));
    golden("rollback-in-the-dark", &aborted.trace);

    // Nobody does: the deadline, and nothing is rejected, as nothing was seen.
    let mut left = world(LADDER, QUERY);
    left.wants("bbb", CandidateSource::Spec);
    until_idle(&mut left, 60, |_| Answer::Value(0.1));
    cut(&mut left);
    until_idle(&mut left, 1800, |_| down());
    assert_eq!(last(&left), (Outcome::Aborted, "NotEnoughData"));
    assert!(left.input.state.rejected.is_empty());
    assert_eq!(left.input.state.rollout.weight, 0);

    // In the bake, and someone goes back to the revision before.
    let mut baking = world(LADDER, QUERY);
    baking.wants("bbb", CandidateSource::Spec);
    baking.tick();
    for _ in 0..400 {
        until_idle(&mut baking, 5, |_| Answer::Value(0.1));
        if baking.input.state.rollout.state == RolloutState::Baking {
            break;
        }
    }
    cut(&mut baking);
    until_idle(&mut baking, 30, |_| down());
    baking.command(Command::RollbackTo, "aaa/1");
    baking.tick();
    assert_eq!(baking.input.state.stable_revision(), Some("aaa"), "at once");
    until_idle(&mut baking, 330, |_| down());
    assert_eq!(last(&baking), (Outcome::Aborted, "RolledBackTo"));
    assert!(baking.input.state.is_rejected("bbb"));
}

#[test]
fn no_series_is_no_data_and_never_a_pass() {
    let nothing = || Answer::Nothing("Prometheus source default has no series".into());
    let mut waits = world(LADDER, QUERY);
    waits.wants("bbb", CandidateSource::Spec);
    until_idle(&mut waits, 3600, |_| nothing());
    assert_eq!(last(&waits), (Outcome::Aborted, "NotEnoughData"));

    let fails = LADDER.replace("minRequests: 20", "minRequests: 20, noData: Fail");
    let mut fails = world(&fails, QUERY);
    fails.wants("bbb", CandidateSource::Spec);
    until_idle(&mut fails, 3600, |_| nothing());
    assert_eq!(last(&fails), (Outcome::RolledBack, "NoData"));
}

#[test]
fn failure_limit_counts_answers_too() {
    let rollout = LADDER.replace("minRequests: 20", "minRequests: 20, failureLimit: 3");
    let mut world = world(&rollout, QUERY);
    world.wants("bbb", CandidateSource::Spec);
    // Two looks that fail, and then none.
    until_idle(&mut world, 1800, |seconds| {
        Answer::Value(if (100..130).contains(&seconds) {
            0.9
        } else {
            0.1
        })
    });
    assert_eq!(
        last(&world),
        (Outcome::Promoted, "Promoted"),
        "{}",
        world.trace
    );
}

#[test]
fn a_gate_that_compares_needs_a_query_that_names_the_revision() {
    let mut world = world(LADDER, "sum(complaints_total)");
    world.wants("bbb", CandidateSource::Spec);
    until_idle(&mut world, 400, |_| Answer::Value(0.1));
    let gates = &world.input.state.rollout.gates;
    let gate = gates.iter().find(|g| g.bound == "maxRatio 2").unwrap();
    assert_eq!(gate.verdict, Verdict::Error);
    assert!(gate.message.contains("{{ revision }}"), "{gate:?}");
}
