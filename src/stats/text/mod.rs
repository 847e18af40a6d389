//! Texts against references: pure counting, the same numbers as sacrebleu and rouge-score; and what rules find in a text by itself.

mod bleu;
mod edit;
mod finding;
pub mod grounded;
mod injection;
pub mod pii;
mod readability;
mod refusal;
mod rouge;
mod toxicity;

pub use bleu::{Bleu, chrf, chrf_corpus, corpus_bleu, sentence_bleu};
pub use edit::{
    exact_match, indel_ratio, levenshtein, levenshtein_similarity, normalize, token_f1,
};
pub use finding::Finding;
pub use injection::injection;
pub use readability::Readability;
pub use refusal::refusal;
pub use rouge::{Rouge, rouge_l, rouge_n};
pub use toxicity::toxicity;

use std::collections::BTreeMap;

/// Counts of each run of `n` items.
fn ngrams<T: Ord + Clone>(items: &[T], n: usize) -> BTreeMap<Vec<T>, u64> {
    let mut counts = BTreeMap::new();
    for run in items.windows(n.max(1)) {
        *counts.entry(run.to_vec()).or_default() += 1;
    }
    counts
}

/// Size of the intersection as multisets.
fn overlap<T: Ord>(a: &BTreeMap<T, u64>, b: &BTreeMap<T, u64>) -> u64 {
    a.iter()
        .map(|(key, count)| *count.min(b.get(key).unwrap_or(&0)))
        .sum()
}

#[cfg(test)]
mod labelled;
#[cfg(test)]
mod tests;
