//! BLEU (Papineni et al. 2002; tokens and smoothing as in sacrebleu, Post 2018) and chrF (Popović 2015), 0 to 100, one reference each.

use super::{ngrams, overlap};

const ORDER: usize = 4;
const CHARACTERS: usize = 6;
const BETA: f64 = 2.0;

/// BLEU and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Bleu {
    /// 0 to 100.
    pub score: f64,
    /// By length of n-gram, 0 to 100.
    pub precisions: [f64; ORDER],
    /// Penalty for being shorter than the reference.
    pub brevity_penalty: f64,
    /// Tokens of the predictions.
    pub prediction_tokens: u64,
    /// Tokens of the references.
    pub reference_tokens: u64,
}

/// BLEU of one sentence: exponential smoothing, only n-grams that fit.
#[must_use]
pub fn sentence_bleu(prediction: &str, reference: &str) -> Bleu {
    bleu(&[(prediction, reference)], true)
}

/// BLEU of a corpus of (prediction, reference).
#[must_use]
pub fn corpus_bleu(pairs: &[(&str, &str)]) -> Bleu {
    bleu(pairs, false)
}

fn bleu(pairs: &[(&str, &str)], effective_order: bool) -> Bleu {
    let (mut right, mut total) = ([0u64; ORDER], [0u64; ORDER]);
    let (mut ours, mut theirs) = (0, 0);
    for (prediction, reference) in pairs {
        let (p, r) = (tokenize(prediction), tokenize(reference));
        ours += p.len() as u64;
        theirs += r.len() as u64;
        for n in 1..=ORDER {
            let grams = ngrams(&p, n);
            right[n - 1] += overlap(&grams, &ngrams(&r, n));
            total[n - 1] += grams.values().sum::<u64>();
        }
    }
    let brevity_penalty = match (ours, theirs) {
        (0, 1..) => 0.0,
        (a, b) if a < b => (1.0 - b as f64 / a as f64).exp(),
        _ => 1.0,
    };
    let mut precisions = [0.0; ORDER];
    let mut score = 0.0;
    if right.iter().any(|&c| c > 0) {
        let (mut smooth, mut order) = (1.0, ORDER);
        for n in 0..ORDER {
            if total[n] == 0 {
                break;
            }
            if effective_order {
                order = n + 1;
            }
            precisions[n] = if right[n] == 0 {
                smooth *= 2.0;
                100.0 / (smooth * total[n] as f64)
            } else {
                100.0 * right[n] as f64 / total[n] as f64
            };
        }
        let mean = precisions[..order]
            .iter()
            .map(|p: &f64| p.ln())
            .sum::<f64>()
            / order as f64;
        score = brevity_penalty * mean.exp();
    }
    Bleu {
        score,
        precisions,
        brevity_penalty,
        prediction_tokens: ours,
        reference_tokens: theirs,
    }
}

/// mteval-v13a's tokens.
fn tokenize(text: &str) -> Vec<String> {
    let text = text
        .trim_end()
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    let text = text
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let apart =
        |c: char| matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/');
    let mut chars = vec![' '];
    for c in text.chars() {
        if apart(c) {
            chars.extend([' ', c, ' '])
        } else {
            chars.push(c)
        }
    }
    chars.push(' ');
    let stop = |c: char| c == '.' || c == ',';
    let digit = |c: char| c.is_ascii_digit();
    chars = pairs(
        &chars,
        |a, b| !digit(a) && stop(b),
        |a, b| vec![a, ' ', b, ' '],
    );
    chars = pairs(
        &chars,
        |a, b| stop(a) && !digit(b),
        |a, b| vec![' ', a, ' ', b],
    );
    chars = pairs(
        &chars,
        |a, b| digit(a) && b == '-',
        |a, b| vec![a, ' ', b, ' '],
    );
    chars
        .into_iter()
        .collect::<String>()
        .split_whitespace()
        .map(String::from)
        .collect()
}

/// Replaces two neighbours that match, from left to right, without overlap.
fn pairs(
    chars: &[char],
    matches: impl Fn(char, char) -> bool,
    with: impl Fn(char, char) -> Vec<char>,
) -> Vec<char> {
    let mut out = Vec::with_capacity(chars.len() * 2);
    let mut i = 0;
    while i < chars.len() {
        if i + 1 < chars.len() && matches(chars[i], chars[i + 1]) {
            out.extend(with(chars[i], chars[i + 1]));
            i += 2;
        } else {
            out.push(chars[i]);
            i += 1;
        }
    }
    out
}

/// chrF of one text: character n-grams up to 6, β = 2.
#[must_use]
pub fn chrf(prediction: &str, reference: &str) -> f64 {
    chrf_corpus(&[(prediction, reference)], 0)
}

/// chrF of a corpus of (prediction, reference); with word n-grams up to `words` (2: chrF++).
#[must_use]
pub fn chrf_corpus(pairs: &[(&str, &str)], words: usize) -> f64 {
    // (n-grams of predictions, of references, in common) by order.
    let mut counts = vec![(0u64, 0u64, 0u64); CHARACTERS + words];
    for (prediction, reference) in pairs {
        let characters = |t: &str| {
            t.chars()
                .filter(|c| !c.is_whitespace())
                .collect::<Vec<char>>()
        };
        let (p, r) = (characters(prediction), characters(reference));
        for n in 1..=CHARACTERS {
            add(&mut counts[n - 1], &p, &r, n);
        }
        let (p, r) = (split_punctuation(prediction), split_punctuation(reference));
        for n in 1..=words {
            add(&mut counts[CHARACTERS + n - 1], &p, &r, n);
        }
    }
    let present: Vec<_> = counts.iter().filter(|c| c.0 > 0 && c.1 > 0).collect();
    let mean = |part: &dyn Fn(&(u64, u64, u64)) -> f64| {
        present.iter().map(|c| part(c)).sum::<f64>() / present.len().max(1) as f64
    };
    let (precision, recall) = (
        mean(&|c| c.2 as f64 / c.0 as f64),
        mean(&|c| c.2 as f64 / c.1 as f64),
    );
    if precision + recall == 0.0 {
        return 0.0;
    }
    let factor = BETA * BETA;
    100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
}

fn add<T: Ord + Clone>(counts: &mut (u64, u64, u64), prediction: &[T], reference: &[T], n: usize) {
    let (p, r) = (ngrams(prediction, n), ngrams(reference, n));
    if !r.is_empty() {
        counts.0 += p.values().sum::<u64>(); // as sacrebleu: only where the reference has any
    }
    counts.1 += r.values().sum::<u64>();
    counts.2 += overlap(&p, &r);
}

/// Words, with one punctuation mark at their end, or else at their beginning, split off.
fn split_punctuation(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let chars: Vec<char> = word.chars().collect();
        let (first, last) = (chars[0], chars[chars.len() - 1]);
        let text = |part: &[char]| part.iter().collect::<String>();
        if chars.len() > 1 && last.is_ascii_punctuation() {
            words.extend([text(&chars[..chars.len() - 1]), last.to_string()]);
        } else if chars.len() > 1 && first.is_ascii_punctuation() {
            words.extend([first.to_string(), text(&chars[1..])]);
        } else {
            words.push(word.to_string());
        }
    }
    words
}
