//! Rollouts in virtual time, decided by the operator's own engine on what the gateways' own buckets say of made-up callers.
//!
//! What is hard about it is all there at once: sticky callers who differ from each other, one of whom makes 30 % of the traffic; a
//! daily cycle in errors, latencies and requests; a ramp 10 → 50 → 100; a look every interval; four gates.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use perennial::{
    api::rollout::{CandidateSource, Outcome, RevisionStatus, RolloutSpec, RolloutState},
    plan::rollout::{Desired, Input, Revision, State, Target, decide},
    stats::{
        bucket::{Bucket, Gateway, Traffic},
        random::Generator,
    },
};

/// Seconds between two looks: `interval` of the rollouts below.
const INTERVAL: i64 = 600;

/// Four gates whose bounds are what two equal versions have: each look is as likely as can be to be wrong.
macro_rules! equal {
    (bake: $bake:literal) => {
        concat!(
            r"
steps: [{setWeight: 10}, {pause: {duration: 6h}}, {setWeight: 50}, {pause: {duration: 6h}}]
analysis:
  interval: 10m
  minRequests: 20
  gates:
  - {metric: errorRate, maxDifference: 0}
  - {metric: errorRate, maxRatio: 1}
  - {metric: latencyP50, maxDifference: 0}
  - {metric: latencyP95, maxRatio: 1}
progressDeadline: 2h
bake: ",
            $bake
        )
    };
}

/// With the default bake.
pub const EQUAL: &str = equal!(bake: "10m");

/// With a bake of an hour: at its end it is another time of day than stable's last, and those gates leave no room for it.
pub const LONG_BAKE: &str = equal!(bake: "1h");

/// Gates as a user writes them, and time enough to find out.
pub const USUAL: &str = r"
steps: [{setWeight: 10}, {pause: {duration: 6h}}, {setWeight: 50}, {pause: {duration: 12h}}]
analysis:
  interval: 10m
  minRequests: 20
  gates:
  - {metric: errorRate, maxDifference: 0.01}
  - {metric: errorRate, max: 0.5}
  - {metric: latencyP50, maxRatio: 1.5}
  - {metric: latencyP95, maxRatio: 1.25}
bake: 10m
progressDeadline: 2h
";

/// Who calls, and what is wrong with the candidate.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// `spec.rollout`.
    pub rollout: &'static str,
    /// Callers with a key of their own; 0: nobody has one.
    pub callers: usize,
    /// Share of the traffic that the first of them makes.
    pub busy: f64,
    /// Requests between two looks, on average over the day.
    pub rate: f64,
    /// Stable's error rate.
    pub errors: f64,
    /// The candidate's error rate is this many times stable's.
    pub more_errors: f64,
    /// The candidate takes this many times as long.
    pub slower: f64,
}

impl Scenario {
    /// Two equal versions.
    pub const fn equal() -> Self {
        Self {
            rollout: EQUAL,
            callers: 300,
            busy: 0.3,
            rate: 150.0,
            errors: 0.02,
            more_errors: 1.0,
            slower: 1.0,
        }
    }

    /// The same, and nobody says who calls.
    pub const fn without_keys(self) -> Self {
        Self { callers: 0, ..self }
    }
}

/// How a rollout ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Its outcome; `None`: it didn't end in time.
    pub outcome: Option<Outcome>,
    /// Reason and message.
    pub why: String,
    /// Callers (requests, where nobody has a key) that the candidate had answered.
    pub callers: usize,
}

/// A caller who differs from the others.
struct Caller {
    /// Where the hash puts it: on the candidate below the weight.
    place: f64,
    errors: f64,
    latency: f64,
}

struct World {
    scenario: Scenario,
    generator: Generator,
    callers: Vec<Caller>,
    /// Where in the day it begins.
    phase: f64,
    met: BTreeSet<usize>,
    requests: usize,
}

impl World {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let mut generator = Generator::new(seed);
        let callers = (0..scenario.callers)
            .map(|i| Caller {
                place: generator.unit() * 100.0,
                // Few fail far more often than most, and the busy one is a bad one.
                errors: match i == 0 || generator.unit() < 0.05 {
                    true => 8.0,
                    false => 0.6,
                },
                latency: match i {
                    0 => 3.0,
                    _ => (0.4 * normal(&mut generator)).exp(),
                },
            })
            .collect();
        let phase = generator.unit();
        Self {
            scenario,
            generator,
            callers,
            phase,
            met: BTreeSet::new(),
            requests: 0,
        }
    }

    /// One interval of callers: what stable and the candidate answered.
    fn traffic(&mut self, seconds: i64, weight: f64) -> [Traffic; 2] {
        let Scenario {
            busy,
            rate,
            errors,
            more_errors,
            slower,
            ..
        } = self.scenario;
        let day = (seconds as f64 / 86_400.0 + self.phase) * std::f64::consts::TAU;
        let daily = 1.0 + 0.8 * day.sin();
        let requests = rate * (1.0 + 0.5 * day.cos());
        let mut sides = [Traffic::default(), Traffic::default()];
        for _ in 0..requests as usize {
            let (key, place, own_errors, own_latency) = if self.callers.is_empty() {
                (None, self.generator.unit() * 100.0, 1.0, 1.0)
            } else {
                let who = match self.generator.unit() < busy {
                    true => 0,
                    // Some call far more often than others.
                    false => {
                        let u = self.generator.unit();
                        (u * u * self.callers.len() as f64) as usize
                    }
                };
                let caller = &self.callers[who];
                (Some(who), caller.place, caller.errors, caller.latency)
            };
            let candidate = place < weight;
            let worse = if candidate { more_errors } else { 1.0 };
            let failed = self.generator.unit() < errors * own_errors * daily * worse;
            let slow = if candidate { slower } else { 1.0 };
            let noise = (0.5 * normal(&mut self.generator)).exp();
            let micros = (40_000.0 * own_latency * daily.sqrt() * slow * noise) as u64;
            let traffic = &mut sides[usize::from(candidate)];
            match key {
                Some(who) => {
                    traffic.record(Some(&format!("caller-{who}")), failed, micros, None);
                    if candidate {
                        self.met.insert(who);
                    }
                }
                None => {
                    traffic.record(None, failed, micros, None);
                }
            }
            self.requests += usize::from(candidate && key.is_none());
        }
        sides
    }
}

/// A standard normal number (Box, Muller 1958).
fn normal(generator: &mut Generator) -> f64 {
    let radius = (-2.0 * (1.0 - generator.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * generator.unit()).cos()
}

/// One rollout, from the first look to its end.
pub fn rollout(seed: u64, scenario: Scenario) -> End {
    let mut world = World::new(seed, scenario);
    let start: Timestamp = "2026-03-02T09:00:00Z".parse().expect("a time");
    let revision = || Revision::default();
    let mut input = Input {
        name: "arrival-delay".into(),
        uid: "uid".into(),
        generation: 1,
        rollout: serde_json::from_value(
            serde_yaml::from_str::<serde_json::Value>(scenario.rollout).expect("yaml"),
        )
        .map(|spec: RolloutSpec| spec)
        .expect("a rollout"),
        desired: Desired::Revision(Target {
            revision: "new".into(),
            version: None,
            digest: None,
            uri: None,
            source: CandidateSource::Spec,
        }),
        state: State {
            stable: Some(RevisionStatus {
                revision: "old".into(),
                ..RevisionStatus::default()
            }),
            ..State::default()
        },
        revisions: [("old".into(), revision()), ("new".into(), revision())].into(),
        ..Input::default()
    };
    for look in 1..400 {
        let seconds = look * INTERVAL;
        let now = start + SignedDuration::from_secs(seconds);
        // Gateways serve what was decided at the last look.
        let rollout = &input.state.rollout;
        let baking = rollout.state == RolloutState::Baking;
        let epoch = rollout.epoch;
        let weight = if baking { 100 } else { rollout.weight };
        let sides = world.traffic(seconds, f64::from(weight));
        let minute = now.as_second().div_euclid(60);
        for (revision, traffic) in ["old", "new"].into_iter().zip(sides) {
            let same = |b: &&mut Arc<Bucket>| {
                b.revision == revision && b.epoch == epoch && b.minute == minute
            };
            if traffic.requests == 0 {
                continue;
            }
            match input.live.buckets.iter_mut().rev().take(4).find(same) {
                Some(bucket) => Arc::make_mut(bucket).traffic.merge(&traffic),
                None => input.live.buckets.push(Arc::new(Bucket {
                    release: "uid".into(),
                    revision: revision.into(),
                    epoch,
                    weight,
                    minute,
                    traffic,
                    ..Bucket::default()
                })),
            }
        }
        input.live.gateways = vec![Gateway {
            pod: "gateway".into(),
            ready: true,
            epoch: Some(epoch),
            ..Gateway::default()
        }];
        input.state = decide(&input, now).state;
        if let Some(last) = input.state.history.last() {
            return End {
                outcome: Some(last.outcome),
                why: format!("{}: {}", last.reason, last.message),
                callers: world.met.len() + world.requests,
            };
        }
    }
    End {
        outcome: None,
        why: input.state.message.clone(),
        callers: world.met.len() + world.requests,
    }
}

/// Many rollouts on all processors, in the order of their seeds.
pub fn many(seeds: std::ops::Range<u64>, scenario: Scenario) -> Vec<End> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = (seeds.end - seeds.start).div_ceil(workers).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..workers)
            .map(|worker| {
                let from = seeds.start + worker * share;
                let to = (from + share).min(seeds.end);
                scope.spawn(move || (from..to).map(|seed| rollout(seed, scenario)).collect())
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|_: _| Vec::<End>::new()))
            .collect()
    })
}

/// Rollouts that were taken back.
pub fn taken_back(ends: &[End]) -> Vec<&End> {
    let back = |end: &&End| end.outcome == Some(Outcome::RolledBack);
    ends.iter().filter(back).collect()
}

/// Callers within which `share` of the rollouts were taken back; `None`: fewer were.
pub fn within(ends: &[End], share: f64) -> Option<usize> {
    let mut callers: Vec<usize> = taken_back(ends).iter().map(|end| end.callers).collect();
    callers.sort_unstable();
    let rank = (share * ends.len() as f64).ceil() as usize;
    callers.get(rank.saturating_sub(1)).copied()
}
