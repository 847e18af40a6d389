//! Judges: a model that answers one question about each answer of another.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{evaluation::TableSource, prompt_release::Backend};

/// A judge. It is pinned: backend, model, rubric and protocol are part of the Evaluation, temperature is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.preset) != has(self.rubric)",
    "message": "a judge has one question: write rubric, or preset (Groundedness, AnswerRelevance, ContextRelevance)"
}, {
    "rule": "!has(self.preset) || !has(self.scale) && !has(self.pairwise)",
    "message": "a preset is a question of yes or no: scale and pairwise belong to a rubric of yours"
}, {
    "rule": "!has(self.preset) || has(self.input) && size(self.input) > 0",
    "message": "a preset looks at more than the answer: write input, such as [context] for Groundedness, [question] for AnswerRelevance, [question, context] for ContextRelevance"
}, {
    "rule": "!has(self.pairwise) || !self.pairwise || !has(self.scale) && !has(self.calibration)",
    "message": "pairwise says which of two answers is better: it has no scale, and no calibration by labels of single answers"
}]))]
pub struct JudgeEvaluator {
    /// Name of the metric: the mean of the verdicts.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z][A-Za-z0-9]*$"))]
    pub name: String,
    /// The model that judges: write one that doesn't change under its name. Its `timeout` goes before that of `requests`.
    pub backend: Backend,
    /// A question that is ready to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The question, best one of yes or no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub rubric: Option<String>,
    /// Columns that the judge sees beside the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub input: Vec<String>,
    /// The verdicts there are (default 0 and 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// How often each is asked; the median counts (default 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub samples: Option<i32>,
    /// Which of two answers is better, the target's or stable's, asked in both orders: the metric is the share that the target wins, ties half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairwise: Option<bool>,
    /// What the judge must get right in every run, before and after: else its verdicts don't count. Presets bring their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub heartbeat: Vec<Probe>,
    /// Answers that people have judged: whether this judge may gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// A question that is ready to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// Whether every claim of the answer is supported by the input.
    Groundedness,
    /// Whether the answer responds to the input.
    AnswerRelevance,
    /// Whether the input's context holds what its question needs; the answer isn't looked at.
    ContextRelevance,
}

/// The verdicts there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.min < self.max && self.max - self.min <= 10",
    "message": "scale: min must be below max, by at most 10"
}]))]
pub struct Scale {
    /// The worst.
    #[schemars(range(min = -100, max = 100))]
    pub min: i32,
    /// The best.
    #[schemars(range(min = -100, max = 100))]
    pub max: i32,
}

/// Something with a verdict that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The input's columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub input: BTreeMap<String, String>,
    /// The answer; with `pairwise` that of the target.
    #[schemars(length(max = 4096))]
    pub answer: String,
    /// With `pairwise`: stable's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub stable: Option<String>,
    /// The verdict; with `pairwise` 1 where the target's answer is better, 2 where stable's is.
    #[schemars(range(min = -100, max = 100))]
    pub verdict: i32,
}

/// Answers that people have judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calibration {
    /// A table with the input's columns, the answer, and people's verdict.
    pub dataset: TableSource,
    /// The column with the answer (default `answer`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub answer: Option<String>,
    /// The column with people's verdict, on the judge's scale (default `label`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub label: Option<String>,
    /// Cohen's kappa that the judge must reach with people (default 0.4), by the lower end of its 95 % interval: else a gate on the metric is
    /// Inconclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_kappa: Option<f64>,
}
