//! Cheap signals of whether an answer keeps to what it was given: by words and facts, without a model. English stop-words and endings.
//!
//! They miss paraphrase and negation ("is not refunded" has the words of "is refunded"), and count words that every text has: a low score is a reason
//! to look, a high one no proof. The judge presets ask the same questions of a model.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::OnceLock,
};

use regex::Regex;

/// Sentences of a context that are looked at together.
const WINDOW: usize = 3;
const STOP_WORDS: &str = "a about after all also am an and any are as at be been before but by can could did do does for from had has have he her his how i if in into is it its just may me more most my no not of on one only or other our out over own she should so some such than that the their them then there these they this those to too under up us very was we were what when where which while who whom why will with would you your yes";

/// Content words of a text, in order: lower case, without stop-words, endings taken off.
fn words(text: &str) -> Vec<String> {
    static STOP: OnceLock<BTreeSet<&str>> = OnceLock::new();
    let stop = STOP.get_or_init(|| STOP_WORDS.split(' ').collect());
    let lower = text.to_lowercase();
    lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && !stop.contains(word))
        .map(stem)
        .collect()
}

/// A light stemmer: the commonest endings of English, of words that stay long enough.
fn stem(word: &str) -> String {
    for ending in ["ing", "ies", "ed", "es", "s"] {
        if let Some(rest) = word.strip_suffix(ending)
            && rest.chars().count() >= 3
        {
            return match ending {
                "ies" => format!("{rest}y"),
                _ => rest.trim_end_matches('e').to_owned(),
            };
        }
    }
    word.trim_end_matches('e').to_owned()
}

fn sentences(text: &str) -> Vec<&str> {
    static END: OnceLock<Option<Regex>> = OnceLock::new();
    let end = END.get_or_init(|| Regex::new(r"[.!?]+\s+|\n+").ok());
    match end {
        Some(end) => end.split(text).filter(|s| !s.trim().is_empty()).collect(),
        None => vec![text],
    }
}

/// The share of each sentence's content words that the best three neighbouring sentences of the contexts hold, mean over sentences (ROUGE
/// precision, by sentence), with the sentence that fares worst. `None` for an answer without content words.
#[must_use]
pub fn lexical<'a>(answer: &'a str, contexts: &[&str]) -> Option<(f64, &'a str)> {
    let mut windows: Vec<BTreeSet<String>> = Vec::new();
    for context in contexts {
        let parts: Vec<BTreeSet<String>> = sentences(context)
            .into_iter()
            .map(|s| words(s).into_iter().collect())
            .collect();
        let starts = 0..parts.len().saturating_sub(WINDOW - 1).max(1);
        let window = |start: usize| {
            parts
                .iter()
                .skip(start)
                .take(WINDOW)
                .flatten()
                .cloned()
                .collect()
        };
        windows.extend(starts.map(window));
    }
    let scored = sentences(answer).into_iter().filter_map(|sentence| {
        let words = words(sentence);
        if words.is_empty() {
            return None;
        }
        let held = |window: &BTreeSet<String>| words.iter().filter(|w| window.contains(*w)).count();
        let best = windows.iter().map(held).max().unwrap_or(0);
        Some((best as f64 / words.len() as f64, sentence))
    });
    let scored: Vec<(f64, &str)> = scored.collect();
    let worst = scored.iter().min_by(|a, b| a.0.total_cmp(&b.0))?.1;
    let sum: f64 = scored.iter().map(|(score, _)| score).sum();
    Some((sum / scored.len() as f64, worst))
}

/// What a text states that can be checked by looking it up: numbers, addresses, quotations, names of several words, abbreviations; normalised.
fn stated(text: &str) -> BTreeMap<String, String> {
    static FACTS: OnceLock<Vec<Regex>> = OnceLock::new();
    let patterns = FACTS.get_or_init(|| {
        let patterns = [
            r"https?://[^\s)\]>]+",
            r"[\w.+-]+@[\w-]+\.[\w.]+\w",
            "[\"“«]([^\"”»]{3,80})[\"”»]",
            // Two or more capitalised words.
            r"\b\p{Lu}[\p{L}'-]+(?:\s+\p{Lu}[\p{L}'-]+)+",
            // ABC, AbcDef.
            r"\b\p{Lu}{2,}\d*\b|\b\p{Lu}\p{Ll}+\p{Lu}\p{L}+\b",
            r"\d+(?:[.,:/-]\d+)*(?:\s?%)?",
        ];
        patterns.iter().filter_map(|p| Regex::new(p).ok()).collect()
    });
    let mut rest = text.to_owned();
    let mut found = BTreeMap::new();
    for pattern in patterns {
        let hits: Vec<String> = pattern
            .captures_iter(&rest)
            .filter_map(|c| Some(c.get(1).or(c.get(0))?.as_str().to_owned()))
            .collect();
        for hit in hits {
            let key = normal(&hit);
            if !key.is_empty() {
                found.insert(key, hit);
            }
        }
        // What is part of one fact is none of its own.
        rest = pattern.replace_all(&rest, " ").into_owned();
    }
    found
}

/// Lower case, single spaces, numbers without separators of thousands and empty decimals.
fn normal(text: &str) -> String {
    static GROUPS: OnceLock<Option<(Regex, Regex)>> = OnceLock::new();
    let lower = text.to_lowercase();
    let spaced = lower.split_whitespace().collect::<Vec<_>>().join(" ");
    let patterns = GROUPS.get_or_init(|| {
        Some((
            Regex::new(r"(\d),(\d{3})\b").ok()?,
            Regex::new(r"(\d)\.0+\b|(\d)\s%").ok()?,
        ))
    });
    let Some((thousands, decimals)) = patterns else {
        return spaced;
    };
    let mut plain = spaced;
    // 1,000,000 takes two rounds, as matches don't overlap.
    for _ in 0..3 {
        plain = thousands.replace_all(&plain, "$1$2").into_owned();
    }
    let whole = decimals.replace_all(&plain, |c: &regex::Captures<'_>| {
        let digit = |i: usize| c.get(i).map(|m| m.as_str().to_owned());
        digit(1).unwrap_or_else(|| digit(2).unwrap_or_default() + "%")
    });
    whole.trim().to_owned()
}

/// The share of stated facts that occur in the sources, and those that don't. `None` for an answer that states none.
#[must_use]
pub fn facts(answer: &str, sources: &[&str]) -> Option<(f64, Vec<String>)> {
    let stated = stated(answer);
    if stated.is_empty() {
        return None;
    }
    let sources: Vec<String> = sources.iter().map(|s| normal(s)).collect();
    let number = |key: &str| key.starts_with(|c: char| c.is_ascii_digit());
    let in_sources = |key: &str| sources.iter().any(|s| occurs(s, key, number(key)));
    // A name that begins a sentence may have caught its first word: "Ask Nordic Air".
    let rest = |key: &str| {
        let rest = key.split_once(' ').map(|(_, rest)| rest.to_owned());
        rest.filter(|rest| rest.contains(' ') && !number(key))
    };
    let held = |key: &String| in_sources(key) || rest(key).is_some_and(|rest| in_sources(&rest));
    let all = stated.len() as f64;
    let missing: Vec<String> = stated
        .into_iter()
        .filter(|(key, _)| !held(key))
        .map(|(_, hit)| hit)
        .collect();
    Some((1.0 - missing.len() as f64 / all, missing))
}

/// Whether a text holds this; a number not as a part of a longer one.
fn occurs(source: &str, key: &str, number: bool) -> bool {
    let edge = |c: Option<char>| !number || c.is_none_or(|c| !c.is_ascii_digit());
    source.match_indices(key).any(|(at, _)| {
        let (before, after) = (&source[..at], &source[at + key.len()..]);
        edge(before.chars().next_back()) && edge(after.chars().next())
    })
}

/// How much each term of a question says: BM25's inverse document frequency (Robertson, Spärck Jones) over all the questions.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    questions: f64,
    with: HashMap<String, f64>,
}

impl Terms {
    /// Of these questions.
    #[must_use]
    pub fn of<'a>(questions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut terms = Self::default();
        for question in questions {
            terms.questions += 1.0;
            let once: BTreeSet<String> = words(question).into_iter().collect();
            for word in once {
                *terms.with.entry(word).or_default() += 1.0;
            }
        }
        terms
    }

    /// The share of the question's terms that the texts hold, each counted by its weight. `None` for a question without content words.
    #[must_use]
    pub fn overlap(&self, question: &str, texts: &[&str]) -> Option<f64> {
        let terms: BTreeSet<String> = words(question).into_iter().collect();
        let held: BTreeSet<String> = texts.iter().flat_map(|t| words(t)).collect();
        let weight = |term: &String| {
            let n = self.with.get(term).copied().unwrap_or(0.0);
            (1.0 + (self.questions - n + 0.5) / (n + 0.5)).ln()
        };
        let all: f64 = terms.iter().map(weight).sum();
        let found: f64 = terms.iter().filter(|t| held.contains(*t)).map(weight).sum();
        (all > 0.0).then(|| found / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &str = "Bags of up to 23 kg are free of charge. Heavier ones cost 1,500 crowns at the desk of Nordic Air. Write to desk@nordic.example.";

    #[test]
    fn sentences_are_held_against_the_best_place_of_the_context() {
        let (all, _) = lexical("Heavier bags cost 1,500 crowns.", &[CONTEXT]).unwrap();
        assert_eq!(all, 1.0);
        let (half, worst) = lexical(
            "Heavier bags cost more. Children travel without tickets.",
            &[CONTEXT],
        )
        .unwrap();
        assert!(
            half <= 0.5 && worst.starts_with("Children"),
            "{half} {worst}"
        );
        assert_eq!(lexical("It is.", &[CONTEXT]), None);
        assert_eq!(lexical("Bags cost.", &[]).unwrap().0, 0.0);
    }

    #[test]
    fn what_is_stated_must_be_in_the_sources() {
        for (answer, missing) in [
            ("It is 1500 crowns, or 1,500.00.", vec![]),
            ("Up to 23 kg.", vec![]),
            // Not as a part of 23.
            ("Up to 3 kg.", vec!["3"]),
            ("Ask Nordic Air at desk@nordic.example.", vec![]),
            ("You may ask Baltic Air.", vec!["Baltic Air"]),
            (
                "See https://nordic.example/bags.",
                vec!["https://nordic.example/bags."],
            ),
            ("They call it \"free of charge\".", vec![]),
        ] {
            let (score, found) = facts(answer, &[CONTEXT]).unwrap();
            assert_eq!(found, missing, "{answer}");
            assert_eq!(score == 1.0, missing.is_empty());
        }
        assert_eq!(facts("no facts here", &[CONTEXT]), None);
    }

    #[test]
    fn rare_terms_of_a_question_weigh_more() {
        let questions = [
            "What does a suitcase cost?",
            "What does a seat cost?",
            "What does a meal cost?",
        ];
        let terms = Terms::of(questions);
        let about = terms
            .overlap(questions[0], &["Your suitcases are free"])
            .unwrap();
        let cost = terms
            .overlap(questions[0], &["It costs ten euros"])
            .unwrap();
        assert!(about > cost && cost > 0.0, "{about} {cost}");
        assert_eq!(terms.overlap(questions[0], &["Bananas"]), Some(0.0));
        assert_eq!(terms.overlap("What is it?", &["Bananas"]), None);
    }
}
