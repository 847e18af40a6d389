//! Gates: which are armed, what they say, and whether a step may end.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Input, asked, engine::plus, evaluated, improvement, labelled, measure, policy::Policy, status,
};
use crate::{
    api::{
        gate::{Gate, GateStatus, Proof, Verdict},
        rollout::{BrokenBound, Epochs, EvaluationGate},
    },
    stats::sequential::{self, Bound, Finding},
};

/// How often one rollout may be wrong about harm, over all its gates, steps and bake.
const ERROR_BUDGET: f64 = 0.01;
/// The line among the gates that shows `minRequests`.
const REQUESTS: &str = "requests";

/// What a comparison says when it is over.
const PAST: &str = "stable's last callers are too long ago to compare more";

/// Who is judged against whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sides<'a> {
    /// The revision that is tried, or baking.
    pub candidate: &'a str,
    /// Its attempt.
    pub attempt: i64,
    /// The revision that it is compared with; none for the first one.
    pub stable: Option<&'a str>,
    /// First epoch that counts; `None` while warming up.
    pub from: Option<i64>,
    /// Epochs since then that don't count, as the candidate's pods were new.
    pub skipped: &'a [Epochs],
    /// While they are new again: the first epoch that doesn't count.
    pub cold: Option<i64>,
    /// The epoch of the present weight.
    pub epoch: i64,
    /// Whether the candidate has callers.
    pub live: bool,
    /// Whether it gets copies of stable's requests.
    pub mirrored: bool,
    /// Whether Evaluations are asked.
    pub evaluated: bool,
    /// Whether it bakes: no step is waiting for requests then.
    pub baking: bool,
    /// Seconds since every gateway serves the present weight.
    pub seconds: Option<i64>,
    /// The last epoch in which both sides served, where status keeps it.
    pub window: Option<&'a str>,
}

impl Sides<'_> {
    /// Whether what is measured in this epoch counts.
    pub fn counts(&self, epoch: i64) -> bool {
        let from = self.from.unwrap_or(i64::MAX);
        let mut skipped = self.skipped.iter();
        (from..=self.epoch).contains(&epoch)
            && self.cold.is_none_or(|cold| epoch < cold)
            && !skipped.any(|s| (s.from..=s.to).contains(&epoch))
    }
}

/// What gates said at earlier looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before<'a> {
    /// As they were recorded.
    pub gates: &'a [GateStatus],
    /// The live bounds that were judged in this rollout so far.
    pub judged: &'a [String],
    /// How many of them were there from the beginning, where that was recorded.
    pub judged_first: Option<usize>,
    /// The time of this look.
    pub now: Timestamp,
}

/// What gates and evaluations say now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// Each bound of each armed gate, and `requests`.
    pub gates: Vec<GateStatus>,
    /// Each evaluation.
    pub evaluations: Vec<EvaluationGate>,
    /// The live bounds that were judged in this rollout, now included.
    pub judged: Vec<String>,
    /// How many of them were there from the beginning.
    pub judged_first: Option<i32>,
    /// The first gate that failed.
    pub failed_gate: Option<Failure>,
    /// The first evaluation that failed.
    pub failed_evaluation: Option<Failure>,
    /// Why the version of a retraining isn't better than stable.
    pub not_improved: Option<String>,
    /// What evaluations have not said yet: without it a candidate gets no traffic, and no step ends.
    pub unmeasured: Vec<String>,
    /// What live data is missing before a step may end.
    pub missing: Vec<String>,
    /// What is not proven, though there is data.
    pub unproven: Vec<String>,
    /// What couldn't be asked: no step ends until it could, but nobody gives up for it before the deadline.
    pub broken: Vec<String>,
}

/// What takes a candidate back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Failure {
    /// One sentence.
    pub message: String,
    /// The bound that was broken.
    pub bound: Option<BrokenBound>,
}

/// Judges everything that is armed; `demanded` are the Evaluations that the candidate must have passed by now.
pub(super) fn judge(
    input: &Input,
    policy: &Policy,
    sides: Sides,
    demanded: &[String],
    before: Before,
) -> Judgement {
    let mut all = Judgement::default();
    for name in demanded.iter().filter(|_| sides.evaluated) {
        let bound = evaluated::broken(input, sides, name);
        all.evaluation(evaluated::evaluation(input, sides, name), bound);
    }
    let armed = || {
        policy
            .gates
            .iter()
            .flat_map(|gate| status::bounds(gate).map(move |bound| (gate, bound)))
            .filter(|(_, bound)| sides.stable.is_some() || !bound.compares())
    };
    let tested = |gate: &Gate| {
        measure::Metric::named(&gate.metric).is_some()
            || labelled::metric(input, &gate.metric).is_some()
    };
    let built_in = armed().filter(|(gate, _)| tested(gate));
    let built_in: Vec<String> = built_in.map(|(g, b)| status::quantity(g, b)).collect();
    let watched = built_in.len();
    // A bound that was taken out, or put in under way, has spent its share all the same.
    let mut judged = before.judged.to_vec();
    for quantity in built_in {
        if !judged.contains(&quantity) {
            judged.push(quantity);
        }
    }
    let first = match before.judged {
        [] => judged.len(),
        known => before.judged_first.unwrap_or(known.len()),
    };
    let share = |quantity: &str| {
        let place = judged.iter().position(|j| j == quantity);
        sequential::share(ERROR_BUDGET, first, place.unwrap_or(judged.len()))
    };
    if sides.from.is_some() {
        all.judged.clone_from(&judged);
        all.judged_first = i32::try_from(first).ok();
    }
    let strata = measure::strata(input, sides);
    let past = measure::is_past(sides, before.now);
    for (gate, bound) in armed() {
        if past && bound.compares() && measure::Metric::named(&gate.metric).is_some() {
            all.past(gate, bound, before);
            continue;
        }
        if let Some(metric) = measure::Metric::named(&gate.metric) {
            // The first revision has no callers before it serves, so nothing live can hold it back.
            if sides.stable.is_some() {
                let share = share(&status::quantity(gate, bound));
                let finding = metric.judge(&strata, bound, share);
                let kind = (metric.unit(), metric.is_of_copies());
                let mut status = live(gate, bound, kind, &finding, sides);
                if metric == measure::Metric::Feedback
                    && let Some(why) = measure::bias(&strata, gate)
                {
                    (status.verdict, status.message) = (Verdict::Inconclusive, why);
                }
                if let Some(worst) = metric.worst(&strata).filter(|_| status.samples > 0) {
                    status.message.push_str(&worst);
                }
                // Stable says nothing new in the bake: only what the candidate itself shows can still be awaited.
                let awaited = match metric.is_of_copies() {
                    true => sides.mirrored,
                    false => sides.live && !(sides.baking && bound.compares()),
                };
                let status = count(status, policy, before);
                all.live(gate, status, policy.failure_limit, awaited);
            }
            continue;
        }
        if gate.metric == measure::REQUEST_RATE {
            if sides.stable.is_some() {
                let status = measure::request_rate(input, sides, gate, bound);
                all.asked(count(status, policy, before), policy.failure_limit, sides);
            }
            continue;
        }
        if let Some(metric) = labelled::metric(input, &gate.metric) {
            if sides.stable.is_some() {
                let share = share(&status::quantity(gate, bound));
                let status = labelled::judge(input, sides, (gate, bound), metric, share);
                // In the bake no more comes of what stable answered beside it, but for labels.
                let awaited = sides.live && !(sides.baking && bound.compares());
                let status = count(status, policy, before);
                all.live(gate, status, policy.failure_limit, awaited);
            }
            continue;
        }
        if let Some(metric) = asked::metric(input, &gate.metric) {
            if sides.stable.is_some() {
                let status = asked::judge(input, policy, sides, (gate, bound), metric, before);
                all.asked(count(status, policy, before), policy.failure_limit, sides);
            }
            continue;
        }
        if !sides.evaluated {
            continue;
        }
        let sources = evaluated::sources(input, &gate.metric);
        let status = if sources.is_empty() {
            let message = format!(
                "`{}` is no metric: write a built-in one ({}), a name of spec.metrics, or a metric of an Evaluation in rollout.evaluations",
                gate.metric,
                measure::BUILT_IN
            );
            status::gate(gate, bound, Verdict::Error, message)
        } else {
            evaluated::judge(input, sides, gate, bound, &sources)
        };
        if !matches!(status.verdict, Verdict::Passed | Verdict::Failed) {
            all.unmeasured.push(status.message.clone());
        }
        all.push(status);
    }
    if let Some(status) = improvement::judge(input, sides) {
        all.improvement(status);
    }
    let wanted = match sides.baking {
        false => policy.min_requests,
        // Nobody looks at callers there: nothing is armed, or it is a way back, or it isn't to be watched.
        true if watched == 0 || !sides.evaluated || policy.bake == 0 => 0,
        true => policy.min_requests.max(1),
    };
    if sides.stable.is_some() && sides.live && wanted > 0 {
        // What came during the warm-up counts for nothing.
        let seen = match sides.baking {
            false if !sides.counts(sides.epoch) => 0,
            false => measure::requests(input, sides.candidate, sides.epoch),
            true => measure::requests_alone(input, sides),
        };
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        all.requests(seen, wanted, sides);
    }
    all
}

impl Judgement {
    /// What keeps a step from ending, if anything.
    pub fn holding(&self) -> impl Iterator<Item = &String> {
        self.doubts().chain(&self.broken)
    }

    /// Of that, what `onInconclusive` is about.
    pub fn doubts(&self) -> impl Iterator<Item = &String> {
        self.unmeasured
            .iter()
            .chain(&self.missing)
            .chain(&self.unproven)
    }

    /// What keeps a bake from ending: Evaluations were asked before it.
    pub fn holding_bake(&self) -> impl Iterator<Item = &String> {
        self.missing
            .iter()
            .chain(&self.unproven)
            .chain(&self.broken)
    }

    fn evaluation(&mut self, gate: EvaluationGate, bound: Option<BrokenBound>) {
        let EvaluationGate {
            name,
            verdict,
            message,
        } = &gate;
        match verdict {
            Verdict::Passed => {}
            Verdict::Failed if self.failed_evaluation.is_some() => {}
            Verdict::Failed => {
                let message = format!("Evaluation {name} failed: {message}");
                self.failed_evaluation = Some(Failure { message, bound });
            }
            _ => {
                let sentence = format!("Evaluation {name} is {verdict:?}: {message}");
                self.unmeasured.push(sentence);
            }
        }
        self.evaluations.push(gate);
    }

    fn push(&mut self, gate: GateStatus) {
        if gate.verdict == Verdict::Failed && self.failed_gate.is_none() {
            self.failed_gate = Some(Failure {
                message: gate.message.clone(),
                bound: Some(BrokenBound::of(&gate)),
            });
        }
        self.gates.push(gate);
    }

    /// Enters what is said of the version of a retraining.
    fn improvement(&mut self, gate: GateStatus) {
        match gate.verdict {
            Verdict::Passed => {}
            Verdict::Failed => self.not_improved = Some(gate.message.clone()),
            _ => self.unmeasured.push(gate.message.clone()),
        }
        self.gates.push(gate);
    }

    fn requests(&mut self, seen: i64, wanted: i64, sides: Sides) {
        let enough = seen >= wanted;
        let what = match sides.baking {
            true => "the end of its bake",
            false => "a step",
        };
        let more = match sides.seconds {
            Some(seconds) if seen > 0 && seconds > 0 => {
                let more = (wanted - seen).saturating_mul(seconds) / seen;
                format!("; at this rate that takes {} more", about(more))
            }
            _ => String::new(),
        };
        let message = if enough {
            format!("the candidate served the {wanted} requests that {what} needs")
        } else {
            format!("the candidate served {seen} of the {wanted} requests that {what} needs{more}")
        };
        if !enough {
            self.missing.push(message.clone());
        }
        self.push(GateStatus {
            metric: REQUESTS.into(),
            bound: format!("min {wanted}"),
            value: Some(seen as f64),
            samples: seen,
            verdict: if enough {
                Verdict::Passed
            } else {
                Verdict::Inconclusive
            },
            message,
            ..GateStatus::default()
        });
    }

    /// A gate on a number without a test: an answer of Prometheus, or a rate.
    fn asked(&mut self, mut status: GateStatus, limit: i64, sides: Sides) {
        // Nobody is asked before there are callers.
        if !sides.live && status.verdict != Verdict::Failed {
            return self.push(status);
        }
        if tolerated(&mut status, limit) {
            self.unproven.push(status.message.clone());
            self.gates.push(status);
            return;
        }
        let list = match status.verdict {
            Verdict::Passed | Verdict::Failed => None,
            Verdict::Inconclusive => Some(&mut self.missing),
            Verdict::Error | Verdict::Pending | Verdict::Running => Some(&mut self.broken),
        };
        if let Some(list) = list {
            list.push(status.message.clone());
        }
        self.push(status);
    }

    /// A comparison with what stable did too long ago stays as it was.
    fn past(&mut self, gate: &Gate, bound: Bound, before: Before) {
        let (metric, words) = (&gate.metric, status::bound(bound));
        let mut gates = before.gates.iter();
        let known = gates.find(|g| g.metric == *metric && g.bound == words);
        let mut status = known.cloned().unwrap_or_else(|| {
            let message = format!("{metric} was not compared");
            status::gate(gate, bound, Verdict::Inconclusive, message)
        });
        if !status.message.ends_with(PAST) {
            status.message = format!("{}; {PAST}", status.message);
        }
        if status.verdict == Verdict::Failed {
            self.unproven.push(status.message.clone());
        }
        self.gates.push(status);
    }

    /// `awaited`: data that is missing now may still come.
    fn live(&mut self, gate: &Gate, mut status: GateStatus, limit: i64, awaited: bool) {
        let wanted = gate.min_samples.unwrap_or(1);
        if status.samples < wanted {
            if awaited {
                self.missing.push(status.message.clone());
            }
        } else if tolerated(&mut status, limit) {
            self.unproven.push(status.message.clone());
            self.gates.push(status);
            return;
        } else if awaited
            && gate.proof == Some(Proof::Safety)
            && status.verdict == Verdict::Inconclusive
        {
            self.unproven.push(status.message.clone());
        }
        self.push(status);
    }
}

/// Whether `failureLimit` allows this failure; the message says so then.
fn tolerated(status: &mut GateStatus, limit: i64) -> bool {
    let failures = status.failures.unwrap_or_default();
    let tolerated =
        status.verdict == Verdict::Failed && status.failures.is_some() && failures <= limit;
    if tolerated {
        status.message = format!(
            "{}; failed at {failures} of the {limit} looks that failureLimit allows",
            status.message
        );
    }
    tolerated
}

/// Counts a look at which a gate failed, once in each interval, where `failureLimit` allows some.
fn count(mut status: GateStatus, policy: &Policy, before: Before) -> GateStatus {
    if policy.failure_limit == 0 {
        return status;
    }
    let same = |g: &&GateStatus| g.metric == status.metric && g.bound == status.bound;
    let known = before.gates.iter().find(same);
    status.failures = known.and_then(|g| g.failures);
    status.failure_time = known.and_then(|g| g.failure_time.clone());
    let last = status.failure_time.as_ref().map(|t| t.0);
    let due = last.is_none_or(|last| plus(last, policy.interval) <= before.now);
    if status.verdict == Verdict::Failed && due {
        status.failures = Some(status.failures.unwrap_or(0).saturating_add(1));
        status.failure_time = Some(Time(before.now));
    }
    status
}

/// What a live metric says of a bound; its unit, and whether it is of copies.
pub(super) fn live(
    gate: &Gate,
    bound: Bound,
    kind: (&str, bool),
    finding: &Finding,
    sides: Sides,
) -> GateStatus {
    let samples = i64::try_from(finding.samples).unwrap_or(i64::MAX);
    let verdict = match finding.verdict {
        _ if samples < gate.min_samples.unwrap_or(1) => Verdict::Inconclusive,
        sequential::Verdict::Passed => Verdict::Passed,
        sequential::Verdict::Failed => Verdict::Failed,
        sequential::Verdict::Inconclusive => Verdict::Inconclusive,
    };
    let message = live_message(gate, bound, kind, finding, verdict, sides);
    GateStatus {
        value: status::finite(finding.estimate_candidate),
        stable: status::finite(finding.estimate_stable).filter(|_| bound.compares()),
        lower: status::finite(finding.lower),
        upper: status::finite(finding.upper),
        samples,
        ..status::gate(gate, bound, verdict, message)
    }
}

/// A length of time for people.
fn about(seconds: i64) -> String {
    match seconds {
        ..90 => format!("{} s", seconds.max(1)),
        90..5400 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h", (seconds + 1800) / 3600),
    }
}

fn live_message(
    gate: &Gate,
    bound: Bound,
    (unit, of_copies): (&str, bool),
    finding: &Finding,
    verdict: Verdict,
    sides: Sides,
) -> String {
    let (name, samples) = (&gate.metric, finding.samples);
    let words = status::bound(bound);
    let measured = match of_copies {
        true => sides.mirrored || samples > 0,
        false => sides.live,
    };
    if sides.from.is_none() || !measured {
        let when = match of_copies {
            true => "; it is while copies are made (setMirror)",
            false => "",
        };
        return format!("{name} is not measured yet{when}");
    }
    let wanted = gate.min_samples.unwrap_or(1);
    if i64::try_from(samples).unwrap_or(i64::MAX) < wanted {
        let whom = match bound.compares() {
            true => "of the candidate beside stable",
            false => "of the candidate",
        };
        return format!("{name}: {samples} of {wanted} {unit} {whom}");
    }
    let number = |v: Option<f64>| match status::finite(v) {
        Some(v) => v.to_string(),
        None => "unknown".into(),
    };
    let what = match bound {
        Bound::MaxDifference(_) | Bound::MinDifference(_) => " difference",
        Bound::MaxRatio(_) | Bound::MinRatio(_) => " ratio",
        Bound::Max(_) | Bound::Min(_) => "",
    };
    let sides = match (bound.compares(), finding.estimate_stable) {
        (true, stable @ Some(_)) => format!(
            " (candidate {}, stable {})",
            number(finding.estimate_candidate),
            number(stable)
        ),
        _ => String::new(),
    };
    let value = number(finding.value);
    let (low, high) = (number(finding.lower), number(finding.upper));
    match verdict {
        Verdict::Failed => format!(
            "{name}{what} {value}{sides} is proven to be beyond {words}: {low} to {high} over {samples} {unit}"
        ),
        Verdict::Passed => format!(
            "{name}{what} {value}{sides} is proven to be within {words}: {low} to {high} over {samples} {unit}"
        ),
        _ => {
            let seen = match finding.detectable {
                Some(d) => format!("; {} would have been seen by now", status::rounded(d)),
                None => String::new(),
            };
            format!(
                "{name}{what} {value}{sides}: no proof against {words} in {low} to {high} over {samples} {unit}{seen}"
            )
        }
    }
}
