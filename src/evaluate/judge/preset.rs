//! What a judge with a preset must know: two that are right, two that are wrong.

use crate::api::judge::{JudgeEvaluator, Preset, Probe};

/// Text of the input, of the answer, and the verdict.
type Known = (&'static str, &'static str, i32);

const GROUNDED: [Known; 4] = [
    (
        "The museum opens at nine in the morning and is closed on Mondays.",
        "It is closed on Mondays.",
        1,
    ),
    (
        "Bags of up to 23 kg are free of charge. Heavier ones cost 60 euros.",
        "A bag of 30 kg costs 60 euros.",
        1,
    ),
    (
        "The museum opens at nine in the morning and is closed on Mondays.",
        "It opens at seven, and admission is free for children.",
        0,
    ),
    (
        "Bags of up to 23 kg are free of charge. Heavier ones cost 60 euros.",
        "Every passenger gets two bags of 32 kg for nothing.",
        0,
    ),
];

const ANSWERED: [Known; 4] = [
    (
        "What is the capital of France?",
        "The capital of France is Paris.",
        1,
    ),
    (
        "How do I reset my password?",
        "Open the settings, choose security, then reset password.",
        1,
    ),
    (
        "What is the capital of France?",
        "Our shop sells shoes in all sizes.",
        0,
    ),
    (
        "How do I reset my password?",
        "Bananas grow in warm and humid places.",
        0,
    ),
];

/// Here the second text is the context.
const HELPFUL: [Known; 4] = [
    (
        "When does the museum open?",
        "The museum opens at nine in the morning.",
        1,
    ),
    (
        "What does a heavy bag cost?",
        "Bags over 23 kg cost 60 euros.",
        1,
    ),
    (
        "When does the museum open?",
        "Bananas grow in warm and humid places.",
        0,
    ),
    (
        "What does a heavy bag cost?",
        "The museum opens at nine in the morning.",
        0,
    ),
];

/// The spec's own, or the preset's.
#[must_use]
pub fn heartbeat(evaluator: &JudgeEvaluator) -> Vec<Probe> {
    if !evaluator.heartbeat.is_empty() {
        return evaluator.heartbeat.clone();
    }
    let known = match evaluator.preset {
        None => return Vec::new(),
        Some(Preset::Groundedness) => GROUNDED,
        Some(Preset::AnswerRelevance) => ANSWERED,
        Some(Preset::ContextRelevance) => HELPFUL,
    };
    let named = |place: usize| evaluator.input.get(place).cloned();
    let probe = |(first, second, verdict): Known| {
        let mut input = Vec::from_iter(named(0).map(|name| (name, first.to_owned())));
        let context = evaluator.preset == Some(Preset::ContextRelevance);
        if context {
            let name = named(1).unwrap_or_else(|| "context".to_owned());
            input.push((name, second.to_owned()));
        }
        Probe {
            input: input.into_iter().collect(),
            answer: if context {
                String::new()
            } else {
                second.to_owned()
            },
            stable: None,
            verdict,
        }
    };
    known.into_iter().map(probe).collect()
}
