//! Evaluators of rankings, and of what rules find in texts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rankings: rows are items of questions, the label what each is worth (or whether it is relevant), the prediction what orders them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrievalEvaluator {
    /// The column that says to which question a row belongs.
    #[schemars(length(min = 1, max = 128))]
    pub question: String,
    /// Items that are looked at, from the best, in `retrieval.ndcg`, `.recall` and `.precision` (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub k: Option<i32>,
}

/// Toxic words, by lexicon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToxicityEvaluator {
    /// Words and phrases of your own that count, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub words: Vec<String>,
}

/// Attempts to give a model orders, by rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InjectionEvaluator {
    /// Columns that are looked at beside the answers, such as the context: `injectionRate.<column>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 100)))]
    pub columns: Vec<String>,
}
