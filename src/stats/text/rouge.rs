//! ROUGE (Lin 2004) without stemming; tokens are runs of a–z and 0–9, so other scripts score 0.

use serde::Serialize;

use super::{ngrams, overlap};

/// One ROUGE score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rouge {
    /// Matches / n-grams of the prediction.
    pub precision: f64,
    /// Matches / n-grams of the reference.
    pub recall: f64,
    /// Their harmonic mean.
    pub f: f64,
}

fn tokens(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    words.filter(|w| !w.is_empty()).map(String::from).collect()
}

fn score(matches: u64, prediction: u64, reference: u64) -> Rouge {
    let share = |n: u64| matches as f64 / n.max(1) as f64;
    let (precision, recall) = (share(prediction), share(reference));
    let f = if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    };
    Rouge {
        precision,
        recall,
        f,
    }
}

/// ROUGE-N: n-grams in common.
#[must_use]
pub fn rouge_n(prediction: &str, reference: &str, n: usize) -> Rouge {
    let (p, r) = (
        ngrams(&tokens(prediction), n),
        ngrams(&tokens(reference), n),
    );
    score(overlap(&p, &r), p.values().sum(), r.values().sum())
}

/// ROUGE-L: the longest common subsequence.
#[must_use]
pub fn rouge_l(prediction: &str, reference: &str) -> Rouge {
    let (p, r) = (tokens(prediction), tokens(reference));
    let mut row = vec![0u64; r.len() + 1];
    for x in &p {
        let mut diagonal = 0;
        for (j, y) in r.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    score(row[r.len()], p.len() as u64, r.len() as u64)
}
