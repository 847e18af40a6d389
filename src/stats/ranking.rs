//! How good a ranking is: one list of items per question, each with what it is worth (or whether it is relevant) and the score that orders it.
//!
//! Items of equal scores have no order of their own: every measure is its mean over all orders of the tied ones, so that nothing depends on how the
//! rows were sorted ([`average_precision`] takes tied items together, as scikit-learn does). `None` where a measure isn't defined: a question without
//! a relevant item says nothing, and isn't a 0.
//!
//! ```
//! use perennial::stats::ranking::{Question, ndcg, reciprocal_rank};
//!
//! let question = Question::new(&[0.0, 3.0, 1.0], &[0.9, 0.8, 0.1]);
//! assert_eq!(reciprocal_rank(&question), Some(0.5));
//! assert!(ndcg(&question, None).unwrap() < 1.0);
//! ```

/// One question's items, in groups of equal scores, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    groups: Vec<Vec<f64>>,
}

impl Question {
    /// Items by what they are worth (0: nothing) and their scores; as many as both have. A score of NaN stands last.
    #[must_use]
    pub fn new(worth: &[f64], scores: &[f64]) -> Self {
        let rank = |score: f64| {
            if score.is_nan() {
                f64::NEG_INFINITY
            } else {
                score + 0.0
            }
        };
        let mut items: Vec<(f64, f64)> = scores
            .iter()
            .zip(worth)
            .map(|(&score, &worth)| (rank(score), worth))
            .collect();
        items.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self {
            groups: items
                .chunk_by(|a, b| a.0 == b.0)
                .map(|group| group.iter().map(|item| item.1).collect())
                .collect(),
        }
    }

    fn relevant(&self) -> usize {
        self.groups.iter().flatten().filter(|w| **w > 0.0).count()
    }

    fn length(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Groups with how many items stand before each.
    fn placed(&self) -> impl Iterator<Item = (usize, &Vec<f64>)> {
        self.groups.iter().scan(0, |before, group| {
            let here = *before;
            *before += group.len();
            Some((here, group))
        })
    }
}

fn discount(place: usize) -> f64 {
    1.0 / (place as f64 + 2.0).log2()
}

/// Discounted cumulative gain of the first `k` (all when absent): Σ worth / log₂(place + 1), places from 1 (Järvelin, Kekäläinen 2002, with scikit-learn's
/// linear gain).
#[must_use]
pub fn dcg(question: &Question, k: Option<usize>) -> f64 {
    let k = k.unwrap_or(usize::MAX);
    let gain = |(before, group): (usize, &Vec<f64>)| {
        let mean = group.iter().sum::<f64>() / group.len() as f64;
        let counted = before..(before + group.len()).min(k).max(before);
        mean * counted.map(discount).sum::<f64>()
    };
    question.placed().map(gain).sum()
}

/// [`dcg`] over that of the best order; between 0 and 1 where nothing is worth less than 0. `None` if nothing is worth anything.
#[must_use]
pub fn ndcg(question: &Question, k: Option<usize>) -> Option<f64> {
    let worth: Vec<f64> = question.groups.iter().flatten().copied().collect();
    let best = dcg(&Question::new(&worth, &worth), k);
    (best > 0.0).then(|| dcg(question, k) / best)
}

/// Mean over the relevant items of the share of relevant ones among those ranked no lower (scikit-learn's `average_precision_score`). Its mean over
/// questions is MAP.
#[must_use]
pub fn average_precision(question: &Question) -> Option<f64> {
    let all = question.relevant();
    let (mut found, mut sum) = (0usize, 0.0);
    for (before, group) in question.placed() {
        let here = group.iter().filter(|w| **w > 0.0).count();
        found += here;
        sum += here as f64 * found as f64 / (before + group.len()) as f64;
    }
    (all > 0).then(|| sum / all as f64)
}

/// 1 / place of the first relevant item (Voorhees 1999). Its mean over questions is MRR.
#[must_use]
pub fn reciprocal_rank(question: &Question) -> Option<f64> {
    let (before, group) = question
        .placed()
        .find(|(_, group)| group.iter().any(|w| *w > 0.0))?;
    let (size, relevant) = (group.len(), group.iter().filter(|w| **w > 0.0).count());
    // The chance that the first j of the tied ones are irrelevant and the next isn't, as drawn without replacement.
    let (mut none_so_far, mut mean) = (1.0, 0.0);
    for j in 0..=(size - relevant) {
        let hit = relevant as f64 / (size - j) as f64;
        mean += none_so_far * hit / (before + j + 1) as f64;
        none_so_far *= 1.0 - hit;
    }
    Some(mean)
}

/// Expected relevant items among the first `k`.
fn hits(question: &Question, k: usize) -> f64 {
    let here = |(before, group): (usize, &Vec<f64>)| {
        let counted = k.saturating_sub(before).min(group.len()) as f64;
        let relevant = group.iter().filter(|w| **w > 0.0).count() as f64;
        relevant * counted / group.len() as f64
    };
    question.placed().map(here).sum()
}

/// Share of the relevant items that are among the first `k`.
#[must_use]
pub fn recall_at(question: &Question, k: usize) -> Option<f64> {
    let all = question.relevant();
    (all > 0).then(|| hits(question, k) / all as f64)
}

/// Share of relevant items among the first `k`, or among all if there are fewer. `None` for no items, or k = 0.
#[must_use]
pub fn precision_at(question: &Question, k: usize) -> Option<f64> {
    let counted = k.min(question.length());
    (counted > 0).then(|| hits(question, k) / counted as f64)
}

/// Mean over the questions in which it is defined, with their number.
#[must_use]
pub fn mean(questions: &[Question], of: impl Fn(&Question) -> Option<f64>) -> Option<(f64, usize)> {
    let values: Vec<f64> = questions.iter().filter_map(of).collect();
    (!values.is_empty()).then(|| {
        (
            values.iter().sum::<f64>() / values.len() as f64,
            values.len(),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Case = (&'static [f64], &'static [f64], f64, f64, f64);

    /// Relevance, scores, and what scikit-learn 1.9.1 says: `ndcg_score`, the same with k=3, `average_precision_score` of relevance > 0.
    const SKLEARN: &[Case] = &[
        (
            &[2.0, 3.0, 3.0, 2.0, 3.0],
            &[0.659, -1.641, -0.005, -0.623, 0.149],
            0.9236224709999948,
            0.8435737579924144,
            1.0,
        ),
        (
            &[3.0, 2.0, 3.0, 0.0, 2.0, 1.0, 3.0, 0.0],
            &[1.0, 3.0, 1.0, 0.0, 3.0, 3.0, 3.0, 3.0],
            0.8094121528426276,
            0.5333333333333333,
            0.819047619047619,
        ),
        (
            &[1.0, 2.0, 3.0, 2.0, 3.0, 2.0, 0.0, 1.0, 2.0, 1.0],
            &[
                -0.672, 0.38, -0.11, 1.483, -1.83, -0.003, -0.892, 0.776, -2.118, -0.344,
            ],
            0.8513084164696402,
            0.6161648742095498,
            0.9765432098765432,
        ),
        (
            &[2.0, 2.0, 2.0, 3.0, 3.0, 2.0, 2.0, 0.0, 1.0, 3.0, 3.0, 0.0],
            &[1.0, 1.0, 2.0, 0.0, 1.0, 1.0, 0.0, 3.0, 2.0, 0.0, 3.0, 2.0],
            0.7868040040800982,
            0.4608934394981036,
            0.7311111111111112,
        ),
        (
            &[0.0, 2.0, 1.0],
            &[-0.71, -0.607, -0.798],
            0.9502344167898358,
            0.9502344167898358,
            0.8333333333333333,
        ),
    ];

    #[test]
    fn the_values_are_those_of_scikit_learn() {
        for (worth, scores, whole, three, precision) in SKLEARN {
            let question = Question::new(worth, scores);
            for (got, want) in [
                (ndcg(&question, None), whole),
                (ndcg(&question, Some(3)), three),
                (average_precision(&question), precision),
            ] {
                assert!(
                    (got.unwrap() - want).abs() < 1e-12,
                    "{worth:?} {scores:?}: {got:?} {want}"
                );
            }
        }
    }

    #[test]
    fn the_first_relevant_item_decides_and_ties_are_averaged() {
        let rank = |worth: &[f64], scores: &[f64]| reciprocal_rank(&Question::new(worth, scores));
        assert_eq!(rank(&[0.0, 0.0, 1.0], &[3.0, 2.0, 1.0]), Some(1.0 / 3.0));
        // Of two tied items one is relevant: first or second.
        assert_eq!(rank(&[0.0, 1.0], &[1.0, 1.0]), Some(0.75));
        assert_eq!(rank(&[0.0, 0.0], &[1.0, 2.0]), None);
        let question = Question::new(&[1.0, 0.0, 1.0, 1.0], &[4.0, 3.0, 2.0, 2.0]);
        assert_eq!(recall_at(&question, 1), Some(1.0 / 3.0));
        assert_eq!(recall_at(&question, 3), Some(2.0 / 3.0));
        assert_eq!(precision_at(&question, 10), Some(0.75));
        let none = Question::new(&[], &[]);
        assert_eq!(
            (
                precision_at(&none, 3),
                recall_at(&none, 3),
                ndcg(&none, None)
            ),
            (None, None, None)
        );
        let both = [question, Question::new(&[0.0], &[1.0])];
        assert_eq!(mean(&both, reciprocal_rank), Some((1.0, 1)));
    }

    proptest! {
        #[test]
        fn measures_stay_within_bounds_and_see_only_the_order(
            items in prop::collection::vec((0u8..4, -20i32..20), 0..25), k in 0usize..30
        ) {
            let worth: Vec<f64> = items.iter().map(|i| f64::from(i.0)).collect();
            let scores: Vec<f64> = items.iter().map(|i| f64::from(i.1)).collect();
            let cubed: Vec<f64> = scores.iter().map(|x| x * x * x).collect();
            let back = |v: &[f64]| v.iter().rev().copied().collect::<Vec<f64>>();
            let question = Question::new(&worth, &scores);
            let others = [Question::new(&worth, &cubed), Question::new(&back(&worth), &back(&scores))];
            let all = |q: &Question| [
                ndcg(q, None), ndcg(q, Some(k)), average_precision(q), reciprocal_rank(q), recall_at(q, k), precision_at(q, k),
            ];
            for (i, value) in all(&question).into_iter().enumerate() {
                prop_assert!(value.is_none_or(|v| (0.0..=1.0 + 1e-12).contains(&v)), "{i} {value:?}");
                for other in &others {
                    let other = all(other)[i];
                    prop_assert!(value == other || (value.unwrap() - other.unwrap()).abs() < 1e-12);
                }
            }
            // The best order is worth 1.
            let best = Question::new(&worth, &worth);
            for value in [ndcg(&best, None), average_precision(&best), reciprocal_rank(&best)] {
                prop_assert!(value.is_none_or(|v| (v - 1.0).abs() < 1e-12 ));
            }
            prop_assert!(recall_at(&question, k) <= recall_at(&question, k + 1));
        }
    }
}
