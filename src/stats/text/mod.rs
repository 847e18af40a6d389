//! Texts against references: pure counting, the same numbers as sacrebleu and rouge-score.

mod bleu;
mod edit;
pub mod grounded;
pub mod pii;
mod rouge;

pub use bleu::{Bleu, chrf, chrf_corpus, corpus_bleu, sentence_bleu};
pub use edit::{
    exact_match, indel_ratio, levenshtein, levenshtein_similarity, normalize, token_f1,
};
pub use rouge::{Rouge, rouge_l, rouge_n};

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
