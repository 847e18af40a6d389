//! promptfoo's `results.json`, version 3: `promptfoo eval -o results.json`.
//!
//! `passRate` and `score` are means over the results that are no errors, each named metric as promptfoo says it: the sum of its scores by
//! that of their weights. Several prompts, providers and repeats are one pool; results with the same `vars` are drawn together.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{Results, mean, number, read};
use crate::api::gate::MetricValue;

/// `version` of the results that are understood.
const VERSION: u64 = 3;
/// `failureReason` of a result that could not be evaluated (`ResultFailureReason.ERROR`).
const ERROR: u64 = 2;
/// How near a mean over results must be to promptfoo's own number to have its interval.
const NEAR: f64 = 1e-9;

#[derive(Deserialize)]
struct File {
    results: Summary,
}

#[derive(Deserialize)]
struct Summary {
    version: u64,
    results: Vec<Item>,
    #[serde(default)]
    prompts: Vec<Prompt>,
    #[serde(default)]
    stats: Stats,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    success: bool,
    score: f64,
    failure_reason: Option<u64>,
    error: Option<IgnoredAny>,
    grading_result: Option<IgnoredAny>,
    #[serde(default)]
    named_scores: BTreeMap<String, Option<f64>>,
    #[serde(default)]
    vars: Value,
}

impl Item {
    /// Versions that have no `failureReason` have no grading of what failed.
    fn is_error(&self) -> bool {
        match self.failure_reason {
            Some(reason) => reason == ERROR,
            None => self.error.is_some() && self.grading_result.is_none(),
        }
    }
}

#[derive(Deserialize)]
struct Prompt {
    metrics: Option<Metrics>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    #[serde(default)]
    named_scores: BTreeMap<String, Option<f64>>,
    #[serde(default)]
    named_scores_count: BTreeMap<String, f64>,
    named_score_weights: Option<BTreeMap<String, f64>>,
    cost: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    #[serde(default)]
    token_usage: Tokens,
}

#[derive(Default, Deserialize)]
struct Tokens {
    total: Option<u64>,
    assertions: Option<Graders>,
}

/// What models used that graded.
#[derive(Default, Deserialize)]
struct Graders {
    total: Option<u64>,
}

pub(super) fn parse(bytes: &[u8], seed: u64) -> Result<Results, String> {
    let File { results: found } = read(bytes)?;
    if found.version != VERSION {
        return Err(format!(
            "the field `results.version` is {}, and {VERSION} is read",
            found.version
        ));
    }
    if found.results.is_empty() {
        return Err("the field `results.results` has no result: nothing was evaluated".to_owned());
    }
    let evaluated: Vec<&Item> = found.results.iter().filter(|i| !i.is_error()).collect();
    let groups = groups(&evaluated);
    let groups = groups.as_deref();
    let passed = |item: &&Item| f64::from(u8::from(item.success));
    let mut metrics = vec![
        mean(
            "passRate",
            evaluated.iter().map(passed).collect(),
            groups,
            seed,
        ),
        mean(
            "score",
            evaluated.iter().map(|item| item.score).collect(),
            groups,
            seed,
        ),
    ];
    for (name, value) in named(&found.prompts) {
        let places: Vec<usize> = (0..evaluated.len())
            .filter(|&place| evaluated[place].named_scores.contains_key(&name))
            .collect();
        let scores: Option<Vec<f64>> = places
            .iter()
            .map(|&place| evaluated[place].named_scores[&name])
            .collect();
        let own: Option<Vec<usize>> = groups.map(|g| places.iter().map(|&p| g[p]).collect());
        let over_items = scores.map(|scores| mean(&name, scores, own.as_deref(), seed));
        let same = over_items.filter(|m| {
            let both = m.value.zip(value);
            both.is_some_and(|(own, value)| (own - value).abs() < NEAR)
        });
        metrics.push(same.unwrap_or_else(|| MetricValue {
            samples: i64::try_from(places.len()).ok(),
            ..number(&name, value)
        }));
    }
    let tokens = &found.stats.token_usage;
    let grading = tokens.assertions.as_ref().and_then(|g| g.total);
    let cost = found
        .prompts
        .iter()
        .filter_map(|p| p.metrics.as_ref()?.cost);
    Ok(Results {
        metrics,
        items: found.results.len() as u64,
        errors: (found.results.len() - evaluated.len()) as u64,
        failed: evaluated.iter().filter(|item| !item.success).count() as u64,
        tokens: tokens.total.map(|n| n.saturating_add(grading.unwrap_or(0))),
        cost: cost.reduce(|a, b| a + b).filter(|cost| cost.is_finite()),
    })
}

/// Named metrics over all prompts.
fn named(prompts: &[Prompt]) -> BTreeMap<String, Option<f64>> {
    let mut sums: BTreeMap<String, (Option<f64>, f64)> = BTreeMap::new();
    for metrics in prompts.iter().filter_map(|p| p.metrics.as_ref()) {
        let weights = metrics.named_score_weights.as_ref();
        let weights = weights.unwrap_or(&metrics.named_scores_count);
        for (name, score) in &metrics.named_scores {
            let sum = sums.entry(name.clone()).or_insert((Some(0.0), 0.0));
            sum.0 = sum.0.zip(*score).map(|(a, b)| a + b);
            sum.1 += weights.get(name).copied().unwrap_or_default();
        }
    }
    let share =
        |(sum, weight): (Option<f64>, f64)| sum.filter(|_| weight > 0.0).map(|s| s / weight);
    sums.into_iter()
        .map(|(name, sum)| (name, share(sum)))
        .collect()
}

/// Results about the same variables, where there are several about some.
fn groups(items: &[&Item]) -> Option<Vec<usize>> {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let of = |item: &&Item| {
        let next = numbers.len();
        *numbers.entry(item.vars.to_string()).or_insert(next)
    };
    let groups: Vec<usize> = items.iter().map(of).collect();
    (numbers.len() < items.len()).then_some(groups)
}
