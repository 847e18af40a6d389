//! Equality and edit distance, in code points.

use super::{ngrams, overlap};

/// Lower case, without ASCII punctuation and the words a, an, the; single spaces (as SQuAD's evaluation does).
#[must_use]
pub fn normalize(text: &str) -> String {
    let lower: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let mut out = String::new();
    let mut word = String::new();
    for c in lower.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        out.push_str(if matches!(word.as_str(), "a" | "an" | "the") {
            " "
        } else {
            &word
        });
        word.clear();
        out.push(c);
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the normalised texts are equal.
#[must_use]
pub fn exact_match(prediction: &str, reference: &str) -> bool {
    normalize(prediction) == normalize(reference)
}

/// Harmonic mean of precision and recall over the normalised words as multisets; both empty 1, one empty 0.
#[must_use]
pub fn token_f1(prediction: &str, reference: &str) -> f64 {
    let (p, r) = (normalize(prediction), normalize(reference));
    let (p, r): (Vec<&str>, Vec<&str>) = (
        p.split_whitespace().collect(),
        r.split_whitespace().collect(),
    );
    if p.is_empty() || r.is_empty() {
        return f64::from(u8::from(p == r));
    }
    let common = overlap(&ngrams(&p, 1), &ngrams(&r, 1)) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / p.len() as f64, common / r.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Insertions, deletions and replacements from one text to the other.
#[must_use]
pub fn levenshtein(a: &str, b: &str) -> usize {
    distance(a, b, 1)
}

/// 1 − distance / length of the longer; 1 for two empty texts.
#[must_use]
pub fn levenshtein_similarity(a: &str, b: &str) -> f64 {
    let longer = a.chars().count().max(b.chars().count());
    if longer == 0 {
        1.0
    } else {
        1.0 - levenshtein(a, b) as f64 / longer as f64
    }
}

/// 1 − (insertions + deletions) / both lengths; 1 for two empty texts.
#[must_use]
pub fn indel_ratio(a: &str, b: &str) -> f64 {
    let both = a.chars().count() + b.chars().count();
    if both == 0 {
        1.0
    } else {
        1.0 - distance(a, b, 2) as f64 / both as f64
    }
}

fn distance(a: &str, b: &str, replace: usize) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + if x == *y { 0 } else { replace };
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j + 1] + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
