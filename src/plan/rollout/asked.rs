//! Metrics that are asked of Prometheus: which questions are open, and what gates make of the answers.
//!
//! An answer is one number without a sample count, so it is compared as it is. Whoever needs proof uses a built-in metric.

use jiff::Timestamp;

use super::{
    Input, State,
    gates::{Before, Sides},
    policy::Policy,
    status::{finite, rounded},
};
use crate::{
    api::{
        gate::{Gate, GateStatus, Verdict},
        rollout::{MetricSource, Names, PrometheusMetric, RolloutSpec, RolloutState},
    },
    stats::{
        asked::{Answer, Answered},
        sequential::{self, Bound},
    },
};

/// Steady state: how often what triggers name is asked, in milliseconds.
const STEADY: u64 = 60_000;
/// An answer older than this, or than four intervals, says nothing of now.
const STALE: u64 = 120_000;

/// A question to a source, with its names filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Name of the metric.
    pub metric: String,
    /// Hash of the revision that it is about; empty if the query names none.
    pub revision: String,
    /// Name of the source.
    pub source: String,
    /// The query, not yet held to a namespace.
    pub query: String,
}

/// What a release wants to know, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The questions, sorted.
    pub all: Vec<Question>,
    /// Milliseconds from one time to the next.
    pub interval: u64,
    /// A question of each metric, asked now or one day: to be looked at for what is wrong with it.
    pub every: Vec<Question>,
    /// What is wrong with the text of one of them, as a sentence.
    pub refused: Option<String>,
}

/// A release, as far as its questions depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `spec.rollout`.
    pub rollout: Option<&'a RolloutSpec>,
    /// `spec.metrics`.
    pub metrics: &'a [MetricSource],
    /// Names of metrics that triggers watch.
    pub watched: &'a [String],
    /// Where it is.
    pub state: &'a State,
}

/// What is to be asked now: gates' metrics of both sides while a candidate has callers, triggers' metrics of stable always.
pub fn questions(of: Asking) -> Questions {
    let policy = Policy::of(&of.rollout.cloned().unwrap_or_default());
    let rollout = &of.state.rollout;
    let baking = rollout.state == RolloutState::Baking;
    let live = baking || rollout.weight > 0;
    let serving = of.state.stable_revision();
    let (tried, against) = match baking {
        true => (serving, rollout.previous.as_deref()),
        false => (of.state.candidate_revision(), serving),
    };
    let (mut all, mut every, mut refused) = (Vec::new(), Vec::new(), None);
    for source in of.metrics {
        let Some(metric) = &source.prometheus else {
            continue;
        };
        let gated = live && policy.gates.iter().any(|gate| gate.metric == source.name);
        let watched = of.watched.contains(&source.name);
        let sides = match (gated, watched) {
            (true, _) => [tried, against],
            (false, true) => [serving, None],
            (false, false) => [None, None],
        };
        let stable = against.or(serving).unwrap_or_default();
        let question = |revision: &str| {
            let query = metric.render(Names {
                revision,
                stable,
                namespace: of.namespace,
                name: of.name,
            })?;
            Ok::<_, String>(Question {
                metric: source.name.clone(),
                revision: side(metric, revision).to_owned(),
                source: metric.source.clone(),
                query,
            })
        };
        match question("none") {
            Ok(question) => every.push(question),
            Err(problem) => refused = Some(format!("metric {}: {problem}", source.name)),
        }
        // One that can't be rendered is a gate's error, not a question.
        all.extend(sides.into_iter().flatten().filter_map(|r| question(r).ok()));
    }
    all.sort();
    all.dedup_by(|a, b| (&a.metric, &a.revision) == (&b.metric, &b.revision));
    Questions {
        all,
        interval: if live { policy.interval } else { STEADY },
        every,
        refused,
    }
}

/// Under which revision an answer is kept.
pub fn side<'a>(metric: &PrometheusMetric, revision: &'a str) -> &'a str {
    match metric.names_revision() {
        true => revision,
        false => "",
    }
}

/// The Prometheus metric of this name, if there is one.
pub(super) fn metric<'a>(input: &'a Input, name: &str) -> Option<&'a PrometheusMetric> {
    let source = input.metrics.iter().find(|m| m.name == name)?;
    source.prometheus.as_ref()
}

/// A gate on an answer.
pub(super) fn judge(
    input: &Input,
    policy: &Policy,
    sides: Sides,
    (gate, bound): (&Gate, Bound),
    metric: &PrometheusMetric,
    before: Before,
) -> GateStatus {
    let (name, source) = (&gate.metric, &metric.source);
    let say = |verdict, message: String| super::status::gate(gate, bound, verdict, message);
    let probe = Names {
        revision: sides.candidate,
        stable: sides.stable.unwrap_or_default(),
        namespace: "",
        name: "",
    };
    if let Err(problem) = metric.render(probe) {
        return say(Verdict::Error, format!("{name} can't be asked: {problem}"));
    }
    if bound.compares() && !metric.names_revision() {
        let message = format!(
            "{name} can't be compared with stable: its query doesn't name {{{{ revision }}}}, so it has one answer for both sides"
        );
        return say(Verdict::Error, message);
    }
    if gate.min_samples.is_some() {
        let message = format!(
            "{name} is a number of Prometheus source {source}, which has no sample count: take minSamples out of its gate"
        );
        return say(Verdict::Error, message);
    }
    let warm = input.state.rollout.warm_until.as_ref().map(|t| t.0);
    let (Some(_), true, Some(warm)) = (sides.from, sides.live, warm) else {
        return say(Verdict::Pending, format!("{name} is not measured yet"));
    };
    let asked = |revision: &str| {
        let found = input.live.asked.get(name, side(metric, revision));
        // What was asked in the warm-up is about the warm-up.
        let found = found.filter(|a| a.time >= warm);
        number(found, name, source, policy, before.now)
    };
    let value = match asked(sides.candidate) {
        Ok(value) => value,
        Err((verdict, problem)) => return say(verdict, problem),
    };
    let stable = match sides.stable.filter(|_| bound.compares()).map(asked) {
        None => None,
        Some(Ok(value)) => Some(value),
        Some(Err((verdict, problem))) => return say(verdict, format!("of stable, {problem}")),
    };
    let bounded = match (bound, stable) {
        (Bound::MaxDifference(_) | Bound::MinDifference(_), Some(stable)) => value - stable,
        (Bound::MaxRatio(_) | Bound::MinRatio(_), Some(stable)) => value / stable,
        _ => value,
    };
    let words = super::status::bound(bound);
    let against = match stable {
        Some(stable) => format!(" against stable's {}", rounded(stable)),
        None => String::new(),
    };
    let (verdict, said) = match sequential::judge(bound, Some(bounded), Some(bounded)) {
        _ if !bounded.is_finite() => (Verdict::Inconclusive, "can't be judged by"),
        sequential::Verdict::Passed => (Verdict::Passed, "is within"),
        sequential::Verdict::Failed => (Verdict::Failed, "is beyond"),
        sequential::Verdict::Inconclusive => (Verdict::Inconclusive, "can't be judged by"),
    };
    let message = format!(
        "{name} {}{against} {said} {words} (Prometheus source {source})",
        rounded(value)
    );
    GateStatus {
        value: finite(Some(value)),
        stable: finite(stable),
        ..say(verdict, message)
    }
}

/// The number in an answer, or why there is none.
fn number(
    answered: Option<&Answered>,
    name: &str,
    source: &str,
    policy: &Policy,
    now: Timestamp,
) -> Result<f64, (Verdict, String)> {
    let Some(Answered { time, answer }) = answered else {
        let message = format!("{name} is being asked of Prometheus source {source}");
        return Err((Verdict::Pending, message));
    };
    let old = super::engine::plus(*time, policy.interval.saturating_mul(4).max(STALE)) < now;
    match answer {
        _ if old => Err((
            Verdict::Error,
            format!("{name} was last asked of Prometheus source {source} at {time}"),
        )),
        Answer::Value(value) => Ok(*value),
        Answer::Nothing(why) => Err((Verdict::Inconclusive, format!("{name}: {why}"))),
        Answer::Failed(why) => Err((Verdict::Error, format!("{name}: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rollout::{RevisionStatus, RolloutStatus};

    fn metric(name: &str, query: &str) -> MetricSource {
        MetricSource {
            name: name.into(),
            prometheus: Some(PrometheusMetric {
                source: "default".into(),
                query: query.into(),
            }),
            ..MetricSource::default()
        }
    }

    fn asked(state: RolloutState, weight: i32, watched: &[String]) -> (Vec<(String, String)>, u64) {
        let rollout: RolloutSpec = serde_json::from_value(serde_json::json!({
            "analysis": {"interval": "5s", "gates": [{"metric": "both", "max": 1}, {"metric": "one", "max": 1}]}
        }))
        .unwrap();
        let metrics = [
            metric("both", "x{r=\"{{ revision }}\",s=\"{{ stable }}\"}"),
            metric("one", "y{n=\"{{ name }}\"}"),
            metric("watched", "z{r=\"{{ revision }}\"}"),
            metric("broken", "z{r=\"{{ what }}\"}"),
        ];
        let side = |hash: &str| RevisionStatus {
            revision: hash.into(),
            ..RevisionStatus::default()
        };
        let state = State {
            stable: Some(side("s")),
            candidate: Some(side("c")),
            rollout: RolloutStatus {
                previous: (state == RolloutState::Baking).then(|| "p".into()),
                state,
                weight,
                ..RolloutStatus::default()
            },
            ..State::default()
        };
        let found = questions(Asking {
            namespace: "team",
            name: "words",
            rollout: Some(&rollout),
            metrics: &metrics,
            watched,
            state: &state,
        });
        assert_eq!(found.every.len(), 3);
        assert!(found.refused.unwrap().contains("broken"));
        let all = found.all.into_iter();
        (all.map(|q| (q.query, q.revision)).collect(), found.interval)
    }

    #[test]
    fn what_is_asked_is_what_somebody_waits_for() {
        let pair = |query: &str, revision: &str| (query.to_owned(), revision.to_owned());
        assert_eq!(asked(RolloutState::Idle, 0, &[]), (vec![], STEADY));
        assert_eq!(asked(RolloutState::Preparing, 0, &[]), (vec![], STEADY));
        let steady = asked(RolloutState::Idle, 0, &["watched".to_owned()]);
        assert_eq!(steady, (vec![pair("z{r=\"s\"}", "s")], STEADY));
        let (live, interval) = asked(RolloutState::Stepping, 10, &[]);
        let both = vec![
            pair("x{r=\"c\",s=\"s\"}", "c"),
            pair("x{r=\"s\",s=\"s\"}", "s"),
            pair("y{n=\"words\"}", ""),
        ];
        assert_eq!((live, interval), (both, 5000));
        let (baking, _) = asked(RolloutState::Baking, 0, &[]);
        let both = vec![
            pair("x{r=\"p\",s=\"p\"}", "p"),
            pair("x{r=\"s\",s=\"p\"}", "s"),
            pair("y{n=\"words\"}", ""),
        ];
        assert_eq!(baking, both);
    }
}
