//! What a rule says of a text.

use serde::Serialize;

/// How sure a rule is, and of what.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Finding {
    /// 0 (nothing found) to 1.
    pub score: f64,
    /// Names of the rules that matched; no word of the text.
    pub evidence: Vec<&'static str>,
}

impl Finding {
    /// From which score a text counts.
    pub const BOUND: f64 = 0.5;

    /// Whether the text counts.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.score >= Self::BOUND
    }

    /// Adds a rule that matched.
    pub(super) fn add(&mut self, rule: &'static str, weight: f64) {
        if !self.evidence.contains(&rule) {
            self.evidence.push(rule);
            self.score = (self.score + weight).min(1.0);
        }
    }
}

/// Lower case, with straight apostrophes and single spaces.
pub(super) fn plain(text: &str) -> String {
    let lower = text.to_lowercase().replace(['’', '‘', '`', 'ʼ'], "'");
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Digits and signs that stand for letters.
pub(super) fn unleet(text: &str) -> String {
    let letter = |c: char| match c {
        '0' => 'o',
        '1' => 'i',
        '3' | '€' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    };
    text.chars().map(letter).collect()
}
