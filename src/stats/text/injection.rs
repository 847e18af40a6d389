//! Whether a text tries to give a model instructions that aren't its own (OWASP LLM01), by weighted rules; also in base64, hexadecimal, ROT13, invisible tags
//! and digits for letters.
//!
//! | taken wrongly | missed |
//! | --- | --- |
//! | texts about prompt injection that quote one; "ignore the previous instructions in the manual" | requests in other words, other languages, or spread over several messages |

use std::sync::LazyLock;

use regex::Regex;

use super::finding::{Finding, plain, unleet};

/// Longest text that is looked at, and longest that is decoded in it, in bytes.
const LONGEST: usize = 1 << 16;

/// Patterns on plain text, with weights.
static RULES: LazyLock<Vec<(&'static str, f64, Regex)>> = LazyLock::new(|| {
    [
        (
            "override",
            0.8,
            r"\b(?:ignore|disregard|forget|override|bypass|discard|don't follow|do not follow|stop following|pay no attention to|set aside)\b(?:\W+\w+){0,5}?\W+(?:instructions?|rules?|prompts?|guidelines?|directions?|directives?|constraints?|restrictions?|programming|guardrails|safety (?:policy|policies|filters?)|(?:said|told|written) (?:before|above|earlier))\b",
        ),
        (
            "forget everything",
            0.6,
            r"\b(?:ignore|disregard|forget)\b(?:\W+\w+){0,2}?\W+(?:everything|all|anything|what)\b(?:\W+\w+){0,4}?\W+(?:above|before|earlier|previously|previous|prior|so far|you were told|you know)\b",
        ),
        (
            "reveal",
            0.8,
            r"\b(?:reveal|print|show|repeat|output|display|leak|disclose|recite|reproduce|share|write out|tell me|give me|what (?:is|are|was|were))\b(?:\W+\w+){0,5}?\W+(?:system (?:prompt|message|instructions?)|(?:hidden|secret|initial|original|developer) (?:prompt|instructions?|message|rules)|your (?:prompt|instructions|guidelines|rules)|prompt above|text above)\b",
        ),
        (
            "another role",
            0.6,
            r"\b(?:you are now|from now on,? you(?: are|'re| will)?|act as|pretend (?:to be|that you|you)|roleplay as|simulate)\b(?:\W+\w+){0,8}?\W+(?:dan|unrestricted|unfiltered|uncensored|jailbroken|evil|without (?:any )?(?:restrictions?|rules|limits|filters?|guidelines)|no (?:restrictions?|rules|limits|filters?|guidelines)|not bound|free of)\b",
        ),
        (
            "jailbreak",
            0.8,
            r"\b(?:do anything now|developer mode (?:enabled|on|activated)|(?:enable|enter|activate) (?:developer|god|debug|admin|dan) mode|jailbreak (?:mode|prompt)|new instructions?:|real instructions?:|important: new|system override|admin override|end of (?:system )?prompt|begin new (?:session|instructions))",
        ),
        (
            "chat tokens",
            0.8,
            r"<\|(?:im_start|im_end|im_sep|system|user|assistant|endoftext|begin_of_text|start_header_id|end_header_id|eot_id)\|>|\[/?inst\]|<</?sys>>|</?(?:system|assistant)>",
        ),
        ("role marker", 0.3, r"(?:^|[\n.!?\]}>#*] ?)(?:### ?)?(?:system|assistant|developer)(?: message)?: "),
        ("image with a query", 0.5, r"!\[[^\]]{0,200}\]\(https?://[^)\s]{1,500}\?[^)\s]*=[^)\s]*\)"),
        ("send out", 0.6, r"\b(?:send|post|forward|email|upload|exfiltrate)\b(?:\W+\w+){0,6}?\W+(?:conversation|chat history|api keys?|credentials|passwords?|system prompt)\b(?:\W+\w+){0,3}?\W+(?:to|at)\b"),
    ]
    .into_iter()
    .filter_map(|(name, weight, rule)| Some((name, weight, Regex::new(rule).ok()?)))
    .collect()
});

static ENCODED: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        "[A-Za-z0-9+/_-]{20,}={0,2}",
        r"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[ ,]?){12,}",
    ]
    .into_iter()
    .filter_map(|rule| Regex::new(rule).ok())
    .collect()
});

/// Looks for an injection.
#[must_use]
pub fn injection(text: &str) -> Finding {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    let mut finding = Finding::default();
    by_rules(text, &mut finding);
    let hidden: String = text.chars().filter_map(tag).collect();
    if !hidden.is_empty() {
        finding.add("invisible tags", 0.6);
        decoded(&hidden, "invisible text", &mut finding);
    }
    // Joiners belong to emoji and some scripts; more of them, or of marks that turn the direction, don't.
    let invisible = text.chars().filter(|c| matches!(c, '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'));
    if invisible.count() > 2 {
        finding.add("invisible characters", 0.4);
        let seen: String = text
            .chars()
            .filter(|c| !matches!(c, '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}'))
            .collect();
        decoded(&seen, "letters with gaps", &mut finding);
    }
    decoded(&rot13(text), "rot13", &mut finding);
    let digits = text
        .chars()
        .filter(|c| c.is_ascii_digit() || matches!(c, '@' | '$'))
        .count();
    if digits > 2 {
        decoded(&unleet(text), "digits for letters", &mut finding);
    }
    if let [base64_like, hex_like] = ENCODED.as_slice() {
        for found in base64_like.find_iter(text).take(20) {
            if let Some(inner) = base64(found.as_str()) {
                decoded(&inner, "base64", &mut finding);
            }
        }
        for found in hex_like.find_iter(text).take(20) {
            if let Some(inner) = hexadecimal(found.as_str()) {
                decoded(&inner, "hexadecimal", &mut finding);
            }
        }
    }
    if noisy_end(text) {
        finding.add("noise at the end", 0.3);
    }
    finding
}

fn by_rules(text: &str, finding: &mut Finding) {
    let text = plain(text);
    for (name, weight, rule) in RULES.iter() {
        if rule.is_match(&text) {
            finding.add(name, *weight);
        }
    }
}

/// What is hidden counts only if it says something that isn't in plain sight.
fn decoded(text: &str, how: &'static str, finding: &mut Finding) {
    let mut inner = Finding::default();
    by_rules(text, &mut inner);
    inner
        .evidence
        .retain(|rule| !finding.evidence.contains(rule) && *rule != "role marker");
    if !inner.evidence.is_empty() {
        finding.add(how, 0.8);
    }
}

/// The letter of an invisible tag (U+E0020 to U+E007E).
fn tag(c: char) -> Option<char> {
    let code = u32::from(c).checked_sub(0xe_0000)?;
    (0x20..0x7f)
        .contains(&code)
        .then(|| char::from_u32(code))
        .flatten()
}

fn rot13(text: &str) -> String {
    let turn = |c: char| match c {
        'a'..='m' | 'A'..='M' => char::from(c as u8 + 13),
        'n'..='z' | 'N'..='Z' => char::from(c as u8 - 13),
        other => other,
    };
    text.chars().map(turn).collect()
}

/// Text that is mostly printable.
fn readable(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    let plain = text
        .chars()
        .filter(|c| !c.is_control() || c.is_whitespace())
        .count();
    (plain * 10 >= text.chars().count() * 9).then_some(text)
}

fn base64(text: &str) -> Option<String> {
    let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    readable(bytes)
}

fn hexadecimal(text: &str) -> Option<String> {
    let digits: Vec<u32> = text
        .replace("0x", "")
        .replace("\\x", "")
        .chars()
        .filter_map(|c| c.to_digit(16))
        .collect();
    readable(
        digits
            .chunks_exact(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect(),
    )
}

/// A last stretch without words, as automatic attacks find them (Zou et al. 2023): much punctuation, many different characters.
fn noisy_end(text: &str) -> bool {
    let last: Vec<char> = text
        .trim_end()
        .chars()
        .rev()
        .take(60)
        .filter(|c| !c.is_whitespace())
        .collect();
    if last.len() < 40 {
        return false;
    }
    let signs = last.iter().filter(|c| c.is_ascii_punctuation()).count();
    let different: std::collections::BTreeSet<&char> = last.iter().collect();
    signs * 10 > last.len() * 3 && different.len() * 2 > last.len()
}
