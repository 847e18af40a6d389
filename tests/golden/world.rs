//! A small world around the engine: pods that start, gateways that follow, callers that call, evaluations that measure.
//!
//! Time is virtual and goes in steps of five seconds. Whatever the engine decides is recorded and carried out as the planners do.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use perennial::{
    api::{
        evaluation::EvaluationRun,
        gate::{MetricValue, Verdict},
        rollout::{CandidateSource, Outcome, RolloutSpec, RolloutState},
    },
    plan::rollout::{
        Command, Commands, Decision, Desired, EvaluationView, Input, Revision, State, Target,
        decide, step_to_come,
    },
    stats::{
        bucket::{Bucket, Gateway, Traffic},
        mirror::{Answered, Compared, Mirrored},
        random::Generator,
    },
};

/// How a revision behaves.
#[derive(Clone, Debug)]
pub struct Nature {
    /// Seconds until a pod of it is ready; never, if negative.
    pub start: i64,
    /// Share of requests that fail.
    pub errors: f64,
    /// Milliseconds of a typical answer.
    pub latency: f64,
    /// What Evaluations say of it, with its AUC.
    pub verdict: Verdict,
    /// Its AUC.
    pub auc: f64,
    /// Share of its answers that are stable's.
    pub agreement: f64,
    /// Whether all its pods are gone for the moment.
    pub down: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            start: 10,
            errors: 0.002,
            latency: 40.0,
            verdict: Verdict::Passed,
            auc: 0.70,
            agreement: 1.0,
            down: false,
        }
    }
}

/// The world.
pub struct World {
    pub now: Timestamp,
    pub start: Timestamp,
    pub input: Input,
    pub natures: BTreeMap<String, Nature>,
    /// Requests in a second.
    pub rate: f64,
    /// Ready gateway pods.
    pub gateways: usize,
    /// Whether gateways follow.
    pub gateways_follow: bool,
    /// Whether the operator can't ask them, and hears of no measurements either.
    pub out_of_reach: bool,
    /// Seconds that an evaluation takes; never ends, if negative.
    pub evaluation: i64,
    /// Annotations with commands.
    pub annotations: BTreeMap<String, String>,
    /// What was printed.
    pub trace: String,
    generator: Generator,
    /// Pods wanted by revision: how many, how many of them were there before, and since when.
    pods: BTreeMap<String, (i32, i32, Timestamp)>,
    /// Evaluations by name, revision and attempt: since when, and stable at that time.
    begun: BTreeMap<(String, String, i64), (Timestamp, Option<String>)>,
    served: i64,
    last: String,
    last_gates: String,
    pub decision: Decision,
}

impl World {
    pub fn new(rollout: &str, replicas: Option<i32>) -> Self {
        let start: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
        let rollout: RolloutSpec = serde_yaml(rollout);
        Self {
            now: start,
            start,
            input: Input {
                name: "arrival-delay".into(),
                uid: "uid".into(),
                generation: 1,
                rollout,
                replicas,
                ..Input::default()
            },
            natures: BTreeMap::new(),
            rate: 10.0,
            gateways: 2,
            gateways_follow: true,
            out_of_reach: false,
            evaluation: 20,
            annotations: BTreeMap::new(),
            trace: String::new(),
            generator: Generator::new(7),
            pods: BTreeMap::new(),
            begun: BTreeMap::new(),
            served: 0,
            last: String::new(),
            last_gates: String::new(),
            decision: Decision::default(),
        }
    }

    pub fn say(&mut self, text: &str) {
        self.trace.push_str(&format!("\n# {text}\n"));
    }

    /// The spec asks for this revision.
    pub fn wants(&mut self, revision: &str, source: CandidateSource) {
        self.input.generation += i64::from(source == CandidateSource::Spec);
        self.input.desired = Desired::Revision(Target {
            revision: revision.into(),
            version: Some(format!("v-{revision}")),
            digest: None,
            uri: None,
            source,
        });
        self.natures.entry(revision.into()).or_default();
    }

    pub fn nature(&mut self, revision: &str, change: impl FnOnce(&mut Nature)) {
        change(self.natures.entry(revision.into()).or_default());
    }

    pub fn command(&mut self, command: Command, value: &str) {
        self.annotations
            .insert(command.annotation().into(), value.into());
    }

    /// Lets so many seconds pass.
    pub fn run(&mut self, seconds: i64) {
        for _ in 0..(seconds / 5) {
            self.tick();
        }
    }

    /// Until it holds, at most so many seconds; says whether it did.
    pub fn run_until(&mut self, seconds: i64, holds: impl Fn(&State) -> bool) -> bool {
        for _ in 0..(seconds / 5) {
            self.tick();
            if holds(&self.input.state) {
                return true;
            }
        }
        false
    }

    pub fn tick(&mut self) {
        self.now += SignedDuration::from_secs(5);
        self.traffic();
        self.observe();
        let decision = decide(&self.input, self.now);
        self.check(&decision);
        self.act(decision);
    }

    fn available(&self, revision: &str) -> i32 {
        let nature = self.natures.get(revision).cloned().unwrap_or_default();
        let Some((pods, before, since)) = self.pods.get(revision) else {
            return 0;
        };
        if nature.down || nature.start < 0 {
            return 0;
        }
        let started = self.now >= *since + SignedDuration::from_secs(nature.start);
        if started { *pods } else { *before }
    }

    fn observe(&mut self) {
        let mut revisions = std::mem::take(&mut self.input.revisions);
        if let Some(target) = self.input.desired.target() {
            let number = revisions.len() as i64;
            // The planner makes the ControllerRevision before anything else.
            revisions
                .entry(target.revision.clone())
                .or_insert_with(|| Revision {
                    version: target.version.clone(),
                    number,
                    ..Revision::default()
                });
        }
        for (hash, known) in &mut revisions {
            known.available = self.available(hash);
            let nature = self.natures.get(hash).cloned().unwrap_or_default();
            let wanted = self.pods.get(hash).map_or(0, |p| p.0);
            known.failure = (wanted > 0 && nature.start < 0)
                .then(|| "container server: ImagePullBackOff".to_owned());
        }
        self.input.revisions = revisions;
        self.input.live.gateways = (0..self.gateways)
            .map(|i| Gateway {
                pod: format!("perennial-gateway-{i}"),
                ready: true,
                epoch: (!self.out_of_reach).then_some(self.served),
                unreachable: self.out_of_reach.then(|| "it can't be reached".to_owned()),
                ..Gateway::default()
            })
            .collect();
        self.input.commands = Commands::of(&self.annotations);
        self.evaluate();
    }

    /// Each Evaluation measures the candidate of each attempt once.
    fn evaluate(&mut self) {
        let state = &self.input.state;
        let names = Input::evaluation_names(
            &self.input.rollout,
            &self.input.metrics,
            Some(&state.rollout),
        );
        let asked = |name: &String| {
            self.input.rollout.evaluations.contains(name)
                || step_to_come(&state.rollout, name).is_none()
        };
        if let Some(candidate) = &state.candidate {
            let attempt = candidate.attempt.unwrap_or_default();
            if self.available(&candidate.revision) > 0 {
                for name in names.iter().filter(|name| asked(name)) {
                    let key = (name.clone(), candidate.revision.clone(), attempt);
                    let stable = state.stable_revision().map(str::to_owned);
                    self.begun.entry(key).or_insert((self.now, stable));
                }
            }
        }
        for name in names {
            let of = self.begun.iter().filter(|((n, ..), _)| *n == name);
            let runs = of.map(|((_, revision, attempt), (since, stable))| {
                self.run_of(revision, *attempt, *since, stable.as_deref())
            });
            let view = EvaluationView {
                generation: 1,
                runs: runs.collect(),
            };
            self.input.evaluations.insert(name, view);
        }
    }

    /// What an Evaluation says of a candidate.
    fn run_of(
        &self,
        revision: &str,
        attempt: i64,
        since: Timestamp,
        stable: Option<&str>,
    ) -> EvaluationRun {
        let auc = |revision: &str| self.natures.get(revision).map(|nature| nature.auc);
        let done =
            self.evaluation >= 0 && self.now >= since + SignedDuration::from_secs(self.evaluation);
        let nature = self.natures.get(revision).cloned().unwrap_or_default();
        let metric = |name: &str, value: Option<f64>| MetricValue {
            name: name.into(),
            value,
            samples: Some(4000),
            ..MetricValue::default()
        };
        EvaluationRun {
            release: Some("uid".into()),
            revision: Some(revision.into()),
            attempt,
            baseline: stable.map(str::to_owned),
            generation: 1,
            verdict: match done {
                true => nature.verdict,
                false => Verdict::Running,
            },
            message: match (done, nature.verdict) {
                (false, _) => "measuring".into(),
                (true, Verdict::Failed) => {
                    format!("rocAuc {} is beyond min 0.58 (4000 rows)", nature.auc)
                }
                (true, _) => "all gates passed".into(),
            },
            metrics: match done {
                true => vec![
                    metric("rocAuc", Some(nature.auc)),
                    metric("stable.rocAuc", stable.and_then(auc)),
                ],
                false => Vec::new(),
            },
            ..EvaluationRun::default()
        }
    }

    /// Five seconds of callers, each with a key of its own, as gateways route and count them.
    fn traffic(&mut self) {
        let state = self.input.state.clone();
        let Some(stable) = state.stable_revision().filter(|_| !self.out_of_reach) else {
            return;
        };
        let candidate = state.candidate_revision().unwrap_or_default();
        let epoch = self.served;
        // Coarser than the gateways' minutes: fewer buckets to merge at each look.
        let minute = self.now.as_second().div_euclid(300) * 5;
        // Gateways that have not followed yet route as before.
        let weight = if epoch == state.rollout.epoch {
            state.rollout.weight
        } else {
            0
        };
        let mirror = match epoch == state.rollout.epoch {
            true => f64::from(state.rollout.mirror),
            false => 0.0,
        };
        let mut sides = [Traffic::default(), Traffic::default()];
        let mut copies = Mirrored::default();
        for _ in 0..(self.rate * 5.0) as usize {
            let place = self.generator.unit() * 100.0;
            let caller = format!("caller-{}", self.generator.below(600));
            let side = usize::from(place < f64::from(weight));
            let revision = [stable, candidate][side];
            let nature = self.natures.get(revision).cloned().unwrap_or_default();
            let failed = self.available(revision) == 0 && self.input.replicas.is_some()
                || self.generator.unit() < nature.errors;
            let traffic = &mut sides[side];
            let micros = nature.latency * 1000.0 * (0.5 + 1.5 * self.generator.unit());
            traffic.record(
                Some(&caller),
                failed,
                micros as u64,
                Some(micros as u64 / 2),
            );
            if side == 0 && mirror > 0.0 && self.generator.unit() * 100.0 < mirror {
                let latency = micros as u64;
                self.copy(
                    &mut copies,
                    &caller,
                    candidate,
                    Answered { failed, latency },
                );
            }
        }
        let (copied, mut all) = (copies.candidate.requests > 0, copies);
        for (side, revision) in [stable, candidate].into_iter().enumerate() {
            let copies = copied && side == 1;
            if sides[side].requests > 0 || copies {
                let mirrored = copies.then(|| Box::new(std::mem::take(&mut all)));
                let traffic = std::mem::take(&mut sides[side]);
                let buckets = &mut self.input.live.buckets;
                let same = |b: &&mut Arc<Bucket>| {
                    b.revision == revision && b.epoch == epoch && b.minute == minute
                };
                let fresh = Bucket {
                    release: "uid".into(),
                    revision: revision.into(),
                    epoch,
                    weight,
                    minute,
                    traffic,
                    mirrored,
                    ..Bucket::default()
                };
                match buckets.iter_mut().rev().take(4).find(same) {
                    Some(bucket) => Arc::make_mut(bucket).merge_counts(&fresh),
                    None => buckets.push(Arc::new(fresh)),
                }
            }
        }
    }

    /// A copy of a caller's request for the candidate.
    fn copy(&mut self, copies: &mut Mirrored, caller: &str, candidate: &str, stable: Answered) {
        let nature = self.natures.get(candidate).cloned().unwrap_or_default();
        let micros = nature.latency * 1000.0 * (0.5 + 1.5 * self.generator.unit());
        let answered = Answered {
            failed: self.generator.unit() < nature.errors,
            latency: micros as u64,
        };
        let agrees = self.generator.unit() < nature.agreement;
        let compared = Compared {
            agreement: f64::from(u8::from(agrees)),
            ..Compared::default()
        };
        copies.record(Some(caller), 0, stable, answered, Some(&compared));
    }

    /// What must hold after every decision, whatever happened.
    fn check(&self, decision: &Decision) {
        let state = &decision.state;
        let rollout = &state.rollout;
        let place = format!("{} at {}", self.trace, self.now);
        assert!((0..=100).contains(&rollout.weight), "{place}");
        if rollout.weight > 0 {
            let candidate = state.candidate.as_ref().expect(&place);
            assert!(
                self.input.replicas.is_none() || candidate.available_replicas > 0,
                "callers on a candidate without pods: {place}"
            );
            assert!(
                !state.is_rejected(&candidate.revision),
                "callers on a rejected revision: {place}"
            );
        }
        let waits_for_a_person = match rollout.state {
            RolloutState::Idle | RolloutState::Paused => true,
            RolloutState::Preparing => self.input.replicas == Some(0),
            RolloutState::Stepping | RolloutState::Baking => {
                let analysis = self.input.rollout.analysis.as_ref();
                analysis.and_then(|a| a.no_data) == Some(perennial::api::rollout::NoData::Wait)
            }
            _ => false,
        };
        assert!(
            waits_for_a_person || rollout.deadline.is_some(),
            "no deadline: {place} {rollout:?}"
        );
        assert!(state.history.len() <= 20, "{place}");
        assert!(
            rollout.epoch >= self.input.state.rollout.epoch,
            "an epoch fell: {place}"
        );
        let same_route = |a: &State, b: &State| {
            a.stable_revision() == b.stable_revision() && a.rollout.weight == b.rollout.weight
        };
        if !same_route(&self.input.state, state) {
            assert!(
                rollout.epoch > self.input.state.rollout.epoch,
                "routing changed within an epoch: {place}"
            );
        }
        if let Some(last) = state
            .history
            .last()
            .filter(|h| h.outcome != Outcome::Promoted)
        {
            assert_ne!(
                state
                    .stable_revision()
                    .filter(|_| rollout.state == RolloutState::Idle
                        && state.is_rejected(&last.revision)),
                Some(last.revision.as_str()),
                "{place}"
            );
        }
        // Recorded and read back as JSON, deciding again changes nothing.
        let mut again = self.input.clone();
        let mut status = perennial::api::model_deployment::ModelDeploymentStatus::default();
        state.clone().into_model(&mut status);
        let text = serde_json::to_string(&status).expect("status is JSON");
        again.state = State::of_model(Some(
            &serde_json::from_str(&text).expect("status reads back"),
        ));
        let second = decide(&again, self.now);
        assert_eq!(second.state, *state, "deciding twice differs: {place}");
        assert!(second.events.is_empty(), "{:?} {place}", second.events);
        assert!(
            second.summary == decision.summary && second.pods == decision.pods,
            "{place}"
        );
    }

    fn act(&mut self, decision: Decision) {
        self.input.state = decision.state.clone();
        for mark in &decision.marks {
            if let Some(known) = self.input.revisions.get_mut(&mark.revision) {
                known.stable_since = mark.stable_since.as_ref().map(|t| t.parse().unwrap());
                known.rejected.clone_from(&mark.rejected);
            }
        }
        self.pods
            .retain(|revision, _| decision.pods.contains_key(revision));
        for (revision, wanted) in &decision.pods {
            let (ready, now) = (self.available(revision), self.now);
            let entry = self.pods.entry(revision.clone()).or_insert((0, 0, now));
            if *wanted > entry.0 {
                *entry = (*wanted, ready, now);
            } else if *wanted < entry.0 {
                *entry = (*wanted, entry.1.min(*wanted), entry.2);
            }
        }
        self.print(&decision);
        // Gateways follow until the next tick.
        if self.gateways_follow {
            self.served = self.input.state.rollout.epoch;
        }
        self.decision = decision;
    }

    fn print(&mut self, decision: &Decision) {
        let state = &decision.state;
        let rollout = &state.rollout;
        let name = |r: Option<&str>| r.unwrap_or("-").to_owned();
        let pods: Vec<String> = decision
            .pods
            .iter()
            .map(|(r, n)| format!("{r}:{n}"))
            .collect();
        let line = format!(
            "{:?} step {} weight {} epoch {}  stable {} candidate {}  pods {}  {:?} ready={}",
            rollout.state,
            rollout.step,
            rollout.weight,
            rollout.epoch,
            name(state.stable_revision()),
            name(state.candidate_revision()),
            if pods.is_empty() {
                "-".into()
            } else {
                pods.join(",")
            },
            state.phase,
            decision.summary.ready.reason,
        );
        let seconds = self.now.duration_since(self.start).as_secs();
        if line != self.last || !decision.events.is_empty() {
            let clock = format!("{:02}:{:02}", seconds / 60, seconds % 60);
            self.trace.push_str(&format!("{clock}  {line}\n"));
            for event in &decision.events {
                let mark = if event.warning { '!' } else { '*' };
                self.trace
                    .push_str(&format!("       {mark} {}: {}\n", event.reason, event.note));
            }
            self.trace
                .push_str(&format!("       \"{}\"\n", state.message));
            self.last = line;
        }
        let gates: Vec<String> = rollout
            .gates
            .iter()
            .map(|g| format!("{} {} {:?}", g.metric, g.bound, g.verdict))
            .collect();
        let gates = gates.join(", ");
        if gates != self.last_gates {
            for gate in &rollout.gates {
                self.trace
                    .push_str(&format!("       | {:?}: {}\n", gate.verdict, gate.message));
            }
            self.last_gates = gates;
        }
    }
}

/// Parses YAML of a rollout.
fn serde_yaml(text: &str) -> RolloutSpec {
    serde_json::from_value(yaml_serde_value(text)).expect("rollout")
}

fn yaml_serde_value(text: &str) -> serde_json::Value {
    ::serde_yaml::from_str(text).expect("yaml")
}
