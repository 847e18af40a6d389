//! Insults, threats and profanity by a list of English words, each with a severity. Lists are short, and say little of hate without a bad word: what they
//! find on a labelled sample is in `docs/evaluation.md`.
//!
//! | taken wrongly | missed |
//! | --- | --- |
//! | quotes, "the stupid bug", profanity among friends | contempt in polite words, other languages, slurs (bring a list of your own) |

use super::finding::{Finding, unleet};

/// Words and phrases with how bad they are.
const LEXICON: &[(&str, &[&str], f64)] = &[
    (
        "threat",
        &[
            "kill you",
            "kill yourself",
            "kys",
            "hope you die",
            "hope you rot",
            "go die",
            "should die",
            "deserve to die",
            "burn in hell",
            "beat you up",
            "hurt you",
            "find where you live",
            "shoot you",
            "stab you",
            "hang yourself",
            "drop dead",
            "rot in hell",
        ],
        1.0,
    ),
    (
        "insult",
        &[
            "idiot",
            "idiots",
            "idiotic",
            "moron",
            "morons",
            "moronic",
            "imbecile",
            "imbeciles",
            "dumbass",
            "dumb ass",
            "asshole",
            "assholes",
            "bitch",
            "bitches",
            "bastard",
            "bastards",
            "scumbag",
            "scumbags",
            "scum",
            "dickhead",
            "dickheads",
            "douchebag",
            "retard",
            "retarded",
            "cunt",
            "cunts",
            "prick",
            "wanker",
            "twat",
            "slut",
            "whore",
            "motherfucker",
            "shithead",
            "jackass",
            "you loser",
            "pathetic loser",
            "losers like you",
            "piece of garbage",
            "piece of shit",
            "waste of space",
            "waste of oxygen",
            "are worthless",
            "worthless human",
            "you worthless",
            "subhuman",
            "vermin",
            "disgusting people",
            "stupid people",
            "stupid woman",
            "stupid man",
            "are stupid",
            "you stupid",
            "so stupid",
            "are trash",
            "fat pig",
            "ugly cow",
            "go back to your country",
            "nobody likes you",
            "hate you",
        ],
        0.8,
    ),
    (
        "profanity",
        &[
            "fuck",
            "fucks",
            "fucked",
            "fucker",
            "fuckers",
            "fucking",
            "shit",
            "shits",
            "shitty",
            "bullshit",
            "shut up",
            "shut the",
            "damn you",
            "screw you",
            "piss off",
            "crap",
            "goddamn",
            "stfu",
            "wtf",
        ],
        0.5,
    ),
];

/// Phrases that hold a listed word and mean no harm.
const HARMLESS: &[&str] = &[
    "shut up and take my money",
    "shut the door",
    "shut the window",
    "shut the box",
    "shut the laptop",
    "shut the gate",
    "kill you with kindness",
    "shut the engine",
    "holy crap",
];

/// Words of letters alone, with signs that stand for letters read as those, runs of a letter shortened, and letters written apart put together.
fn words(text: &str) -> Vec<String> {
    let lower = unleet(&text.to_lowercase().replace(['’', '\''], ""));
    let mut words: Vec<String> = Vec::new();
    let mut apart = String::new();
    let end = |apart: &mut String, words: &mut Vec<String>| {
        if apart.chars().count() > 2 {
            words.push(std::mem::take(apart));
        } else {
            words.extend(apart.drain(..).map(String::from));
        }
    };
    for word in lower
        .split(|c: char| !c.is_alphabetic())
        .filter(|w| !w.is_empty())
    {
        if word.chars().count() == 1 {
            apart.push_str(word);
            continue;
        }
        end(&mut apart, &mut words);
        words.push(word.to_owned());
    }
    end(&mut apart, &mut words);
    words
}

/// "fuuuck" as "fuck" and "asssshole" as "asshole": runs of three or more become one, or two.
fn shortened(word: &str, to: usize) -> String {
    let letters: Vec<char> = word.chars().collect();
    let mut out = String::new();
    for run in letters.chunk_by(|a, b| a == b) {
        let keep = if run.len() > 2 { to } else { run.len() };
        out.extend(std::iter::repeat_n(run[0], keep));
    }
    out
}

/// Looks for toxic words; `more` are a caller's own, of the severity of an insult.
#[must_use]
pub fn toxicity(text: &str, more: &[String]) -> Finding {
    let mut finding = Finding::default();
    let words = words(text);
    let mut forms: Vec<String> = [1, 2]
        .iter()
        .map(|&to| {
            let all: Vec<String> = words.iter().map(|w| shortened(w, to)).collect();
            format!(" {} ", all.join(" "))
        })
        .collect();
    for form in &mut forms {
        for harmless in HARMLESS {
            *form = form.replace(harmless, "-");
        }
    }
    let has = |phrase: &str| {
        let phrase = format!(" {} ", phrase.to_lowercase());
        forms.iter().any(|form| form.contains(&phrase))
    };
    for (name, phrases, severity) in LEXICON {
        if phrases.iter().any(|phrase| has(phrase)) {
            finding.add(name, *severity);
        }
    }
    if more.iter().any(|phrase| has(phrase)) {
        finding.add("listed", 0.8);
    }
    finding
}
