//! Random lives: whatever happens in whatever order, what must hold holds (`World::check` after every decision).

use perennial::{
    api::{gate::Verdict, rollout::CandidateSource, rollout::RolloutState},
    plan::rollout::Command,
    stats::random::Generator,
};

use crate::world::World;

const LADDERS: [&str; 6] = [
    "{}",
    "{steps: [{setWeight: 5}, {pause: {duration: 30s}}, {setWeight: 60}, {pause: {}}], evaluations: [quality], bake: 1m, progressDeadline: 3m, analysis: {minRequests: 20}}",
    "{steps: [{setWeight: 100}], bake: 30s, progressDeadline: 2m}",
    "{steps: [{setWeight: 20}, {evaluate: {names: [quality]}}, {approval: {}}, {setWeight: 70}, {pause: {duration: 30s}}, {evaluate: {names: [later]}}], bake: 30s, progressDeadline: 2m, analysis: {minRequests: 5, failureLimit: 2}}",
    "{steps: [{pause: {}}, {setWeight: 100}, {pause: {duration: 1m}}], evaluations: [quality], bake: 0s, progressDeadline: 2m, analysis: {noData: Wait}}",
    "{steps: [{setWeight: 0}, {setWeight: 33}, {pause: {duration: 20s}}], bake: 40s, progressDeadline: 1m, analysis: {noData: Fail, onInconclusive: Abort, minRequests: 10, gates: [{metric: errorRate, max: 0.02, proof: Safety}]}}",
];

#[test]
fn whatever_happens_the_invariants_hold() {
    let names = ["aaa", "bbb", "ccc", "ddd"];
    for seed in 0..28 {
        let mut generator = Generator::new(seed);
        let mut pick = |n: usize| generator.below(n);
        let replicas = [None, Some(1), Some(3)][pick(3)];
        let mut world = World::new(LADDERS[pick(LADDERS.len())], replicas);
        world.rate = 4.0;
        world.input.manual_versions = pick(2) == 0;
        world.wants("aaa", CandidateSource::Spec);
        for round in 0..250 {
            let name = names[pick(names.len())];
            match pick(40) {
                0 => world.wants(name, CandidateSource::Spec),
                1 => world.wants(name, CandidateSource::Version),
                2 => world.nature(name, |n| n.errors = 0.5),
                3 | 4 => world.nature(name, |n| n.errors = 0.0),
                5 => world.nature(name, |n| n.down = !n.down),
                6 => world.nature(name, |n| n.start = if n.start < 0 { 10 } else { -1 }),
                7 => world.nature(name, |n| n.verdict = Verdict::Failed),
                8 => world.nature(name, |n| n.verdict = Verdict::Passed),
                9 => world.command(Command::Abort, &format!("{name}/{round}")),
                10 | 11 => world.command(Command::Promote, &format!("{name}/{round}")),
                12 => world.command(Command::Retry, &format!("{name}/{round}")),
                13 => world.command(Command::RollbackTo, &format!("{name}/{round}")),
                14 => world.gateways_follow = !world.gateways_follow,
                15 => world.gateways = pick(3),
                16 => world.rate = [0.0, 4.0][pick(2)],
                17 if replicas.is_some() => {
                    world.input.replicas = Some([0, 1, 4][pick(3)]);
                }
                18 => world.evaluation = [-1, 20][pick(2)],
                19 => world.command(Command::Promote, "nonsense"),
                20 | 21 => world.command(Command::Approve, &format!("{name}.{round}/jane")),
                _ => {}
            }
            world.tick();
        }
        // Left alone with a good spec and good pods, it comes to rest or waits for a person.
        world.gateways = 2;
        world.gateways_follow = true;
        world.evaluation = 20;
        world.rate = 3.0;
        world.annotations.clear();
        for name in names {
            world.nature(name, |n| {
                *n = Default::default();
            });
        }
        if replicas.is_some() {
            world.input.replicas = replicas;
        }
        world.wants("end", CandidateSource::Spec);
        let ended = world.run_until(3600, |s| {
            let tried = s.history.iter().any(|h| h.revision == "end")
                || s.candidate_revision() == Some("end");
            matches!(s.rollout.state, RolloutState::Idle | RolloutState::Paused) && tried
        });
        assert!(ended, "seed {seed} did not come to rest:\n{}", world.trace);
    }
}
