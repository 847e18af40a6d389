//! Asking no more rows than the gates need (`stopWhen`): a few at a time in a random order, looking after each few at intervals that hold at every
//! look at once.

use super::{
    details::Details,
    enough,
    prompt::{self, Replies, Sides},
    protocol::open_inference::Manner,
    rows::Rows,
    text::{self, Column},
    texts::Texts,
};
use crate::{
    api::{
        evaluation::StopWhen,
        gate::{Gate, MetricValue},
        run::EvaluationRunSpec,
        verdict::short,
    },
    stats::random::Generator,
    supervise::failure::Failure,
};

/// Rows before the first look.
const FIRST: usize = 50;
/// Rows between two looks: at least so many, and a quarter of those before.
const STEP: usize = 25;

/// The rows that were asked, and what came.
pub struct Asked {
    /// The rows.
    pub rows: Rows,
    /// What both sides answered to them.
    pub replies: Replies,
    /// What a file to compare with says to them.
    pub said: Option<Column>,
    /// Rows that weren't asked.
    pub left: usize,
    /// Why it stopped, or didn't.
    pub note: String,
}

/// Asks until the gates are decided or all rows are asked.
///
/// # Errors
/// As [`prompt::ask`].
pub async fn ask(
    (spec, stop): (&EvaluationRunSpec, &StopWhen),
    sides: Sides<'_>,
    (rows, said): (&Rows, Option<&Column>),
    manner: Manner<'_>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Asked, Failure> {
    let order = shuffled(rows.count, spec.seed);
    let mut own = vec![None; rows.count];
    let mut stable = sides.stable.map(|_| vec![None; rows.count]);
    let (mut asked, mut begun) = (0, 0);
    let each = 1 + usize::from(stable.is_some());
    loop {
        let next = (asked + STEP.max(asked / 4)).max(FIRST).min(rows.count);
        let few = &order[asked..next];
        // What all rows may lack may be lacking in a few of them; it is looked at below.
        let share = (manner.share * rows.count as f64 / few.len().max(1) as f64).min(1.0);
        let manner_of_few = Manner { share, ..manner };
        let told = |done: usize, _: usize| progress(begun + done, rows.count * each);
        let got = prompt::ask(sides, &rows.of_rows(few), manner_of_few, &told).await?;
        begun += few.len() * each;
        put(&mut own, few, got.own);
        if let (Some(into), Some(from)) = (&mut stable, got.stable) {
            put(into, few, from);
        }
        asked = next;
        let mut those = order[..asked].to_vec();
        those.sort_unstable();
        let pick = |all: &[Option<_>]| those.iter().map(|&row| all[row].clone()).collect();
        let replies = Replies {
            own: pick(&own),
            stable: stable.as_deref().map(pick),
        };
        let all = asked == rows.count;
        let whole = complete(&replies, (asked, rows.count), manner.share)?;
        let said: Option<Column> = said.map(|s| those.iter().map(|&row| s[row].clone()).collect());
        let few = rows.of_rows(&those);
        let open = open(spec, stop, (&few, &replies, said.as_ref()))?;
        if !all && (open.is_some() || !whole) {
            continue;
        }
        let note = match (all, open) {
            (false, _) => format!(
                "Stopped early: {asked} of {} rows were asked. The interval of each gate (95 % at every look) lies on one side of its bound or within {} of the value.",
                rows.count,
                short(stop.precision)
            ),
            (true, Some(why)) => format!("stopWhen: all rows were asked, as {why}."),
            (true, None) => "stopWhen: all rows were asked.".to_owned(),
        };
        return Ok(Asked {
            rows: few,
            replies,
            said,
            left: rows.count - asked,
            note,
        });
    }
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut generator = Generator::new(seed);
    for last in (1..count).rev() {
        order.swap(last, generator.below(last + 1));
    }
    order
}

fn put<T>(into: &mut [Option<T>], places: &[usize], from: Vec<Option<T>>) {
    for (place, one) in places.iter().zip(from) {
        into[*place] = one;
    }
}

/// Whether as few rows are without an answer as of those asked may be; an error once they are more than of all may be.
fn complete(replies: &Replies, (asked, all): (usize, usize), share: f64) -> Result<bool, Failure> {
    let sides = std::iter::once(("the target", &replies.own));
    let mut whole = true;
    for (who, side) in sides.chain(replies.stable.as_ref().map(|side| ("stable", side))) {
        let missing = side.iter().filter(|reply| reply.is_none()).count();
        enough(missing, all, share, who, "")?;
        whole &= missing as f64 <= share * asked as f64;
    }
    Ok(whole)
}

/// What isn't decided by these answers.
fn open(
    spec: &EvaluationRunSpec,
    stop: &StopWhen,
    (rows, replies, said): (&Rows, &Replies, Option<&Column>),
) -> Result<Option<String>, Failure> {
    let (own, stable) = replies.both();
    let texts = Texts::of_rows(spec, &rows.table, (own, stable.or_else(|| said.cloned())))?;
    let (metrics, _) = text::run(spec, &texts, &mut Details::default())?;
    let mut gates = spec.gates.iter();
    Ok(gates.find_map(|gate| undecided(gate, &metrics, stop.precision)))
}

/// Why a gate needs more rows.
fn undecided(gate: &Gate, metrics: &[MetricValue], precision: f64) -> Option<String> {
    let name = &gate.metric;
    let find = |name: &str| metrics.iter().find(|m| m.name == name);
    let none = || {
        Some(format!(
            "the gate on {name} has no interval that holds at every look"
        ))
    };
    let Some(metric) = find(name) else {
        return none();
    };
    let samples = metric.samples.unwrap_or_default();
    if gate.min_samples.is_some_and(|least| samples < least) {
        return Some(format!("the gate on {name} has too few samples"));
    }
    let compares = find(&format!("stable.{name}")).is_some();
    if compares && (gate.min_ratio.is_some() || gate.max_ratio.is_some()) {
        return none();
    }
    let difference = find(&format!("difference.{name}")).filter(|_| compares);
    let own = [gate.min, gate.max].map(|bound| (bound, Some(metric)));
    let against = [gate.min_difference, gate.max_difference].map(|bound| (bound, difference));
    for (bound, of) in own.into_iter().chain(against) {
        let (Some(bound), Some(of)) = (bound, of) else {
            continue;
        };
        let Some((low, high)) = of.lower.zip(of.upper) else {
            return none();
        };
        let apart = bound < low || bound > high;
        if !apart && (high - low) / 2.0 > precision {
            return Some(format!(
                "the interval of {} is [{}, {}], with the bound {} in it",
                of.name,
                short(low),
                short(high),
                short(bound)
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_gate_is_decided_by_an_interval_on_one_side_or_one_that_is_narrow() {
        let metric = |name: &str, ends: Option<(f64, f64)>| MetricValue {
            name: name.to_owned(),
            value: Some(0.8),
            lower: ends.map(|e| e.0),
            upper: ends.map(|e| e.1),
            samples: Some(100),
            ..MetricValue::default()
        };
        let metrics = [
            metric("contains", Some((0.7, 0.9))),
            metric("stable.contains", Some((0.6, 0.8))),
            metric("difference.contains", Some((-0.04, 0.02))),
            metric("bleu", None),
        ];
        for (gate, precision, words) in [
            (json!({"metric": "contains", "min": 0.6}), 0.0, None),
            (json!({"metric": "contains", "min": 0.95}), 0.0, None),
            (
                json!({"metric": "contains", "min": 0.75}),
                0.05,
                Some("[0.7, 0.9]"),
            ),
            (json!({"metric": "contains", "min": 0.75}), 0.11, None),
            (
                json!({"metric": "contains", "max": 0.95, "minDifference": -0.05}),
                0.0,
                None,
            ),
            (
                json!({"metric": "contains", "minDifference": -0.02}),
                0.01,
                Some("difference.contains"),
            ),
            (
                json!({"metric": "contains", "minDifference": -0.02}),
                0.03,
                None,
            ),
            (
                json!({"metric": "contains", "min": 0.6, "minSamples": 101}),
                0.0,
                Some("too few samples"),
            ),
            (
                json!({"metric": "contains", "maxRatio": 1.1}),
                1.0,
                Some("no interval"),
            ),
            (
                json!({"metric": "bleu", "min": 0.5}),
                1.0,
                Some("no interval"),
            ),
            (
                json!({"metric": "costPerRequest", "max": 0.5}),
                1.0,
                Some("no interval"),
            ),
        ] {
            let said = undecided(
                &serde_json::from_value(gate.clone()).unwrap(),
                &metrics,
                precision,
            );
            match (&said, words) {
                (None, None) => {}
                (Some(said), Some(words)) if said.contains(words) => {}
                _ => panic!("{gate} {precision}: {said:?}"),
            }
        }
        let alone: Value = json!({"metric": "contains", "min": 0.6, "minDifference": -0.1});
        let alone = serde_json::from_value(alone).unwrap();
        assert_eq!(
            undecided(&alone, &metrics[..1], 0.0),
            None,
            "nothing to compare with"
        );
    }

    #[test]
    fn every_row_is_in_the_order_once() {
        let mut order = shuffled(300, 7);
        assert_ne!(order, (0..300).collect::<Vec<_>>());
        assert_eq!(order, shuffled(300, 7));
        order.sort_unstable();
        assert_eq!(order, (0..300).collect::<Vec<_>>());
    }
}
