//! What an Evaluation computes: an evaluator is one of these.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OpenObject, container::ContainerEvaluator, judge::JudgeEvaluator};

/// What is computed: exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.classification), has(self.regression), has(self.calibration), has(self.fairness), has(self.featureImportance), has(self.retrieval), has(self.drift), has(self.dataQuality), has(self.text), has(self.jsonSchema), has(self.pii), has(self.toxicity), has(self.injection), has(self.groundedness), has(self.judge), has(self.container)].filter(x, x).size() == 1",
    "message": "an evaluator is one thing: write one of classification, regression, calibration, fairness, featureImportance, retrieval, drift, dataQuality, text, jsonSchema, pii, toxicity, injection, groundedness, judge and container"
}]))]
pub struct Evaluator {
    /// accuracy, precision, recall, f1, rocAuc, prAuc, logLoss, brier, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// mae, rmse, mape, r2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
    /// Whether probabilities mean what they say: ece, mce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationEvaluator>,
    /// Whether groups are treated alike: `equalizedOddsDifference.<column>`, `demographicParityRatio.<column>`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Fairness>,
    /// What the model loses when a column is shuffled: `featureImportance.<column>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_importance: Option<FeatureImportance>,
    /// How good the order is that predictions give to each question's rows: retrieval.ndcg, retrieval.map, retrieval.mrr, retrieval.recall, retrieval.precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<RetrievalEvaluator>,
    /// Columns against `reference`: driftShare, and `drift.<column>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftEvaluator>,
    /// Missing, constant, duplicate and unreadable data, and what differs from `reference` where there is one: missingShare, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_quality: Option<DataQuality>,
    /// Texts against references: exact, contains, regex, tokenF1, bleu, rouge1, rouge2, rougeL, chrF, editSimilarity; and by themselves: refusalRate,
    /// readingEase, readingGrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextEvaluator>,
    /// Whether texts are JSON of this schema: jsonSchemaRate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<JsonSchemaEvaluator>,
    /// Personal data in texts, by rule: piiRate, `pii.<entity>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pii: Option<PiiEvaluator>,
    /// Toxic words in texts, by lexicon: toxicityRate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toxicity: Option<ToxicityEvaluator>,
    /// Orders to a model in texts, by rule: injectionRate, `injectionRate.<column>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<InjectionEvaluator>,
    /// Whether texts keep to their context and question, by words and facts: grounded.lexical, grounded.facts, relevance.answer, relevance.context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groundedness: Option<GroundednessEvaluator>,
    /// Another model's verdict on texts: a metric of the judge's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeEvaluator>,
    /// Any image: its results file becomes metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerEvaluator>,
}

/// Binary classification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Classification {
    /// The label's value that counts as positive (default `true` or `1`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub positive: Option<String>,
    /// Probability from which a row is called positive (default 0.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: Option<f64>,
}

/// Regression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Regression {}

/// Calibration of probabilities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CalibrationEvaluator {
    /// Bins of equal width (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 100))]
    pub bins: Option<i32>,
}

/// Fairness between groups of rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fairness {
    /// The columns whose values make the groups, each by itself.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 100)))]
    pub sensitive: Vec<String>,
    /// Rows below which a group says too little: it is reported as insufficient, and not compared (default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_group_size: Option<i64>,
}

/// Permutation importance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeatureImportance {
    /// How often each column is shuffled (default 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub repeats: Option<i32>,
}

/// Quality of the data itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataQuality {}

/// Texts against references.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.metrics.exists(m, m == 'regex') == has(self.pattern)",
    "message": "the metric regex and pattern belong together: write both"
}]))]
pub struct TextEvaluator {
    /// What is computed.
    #[schemars(length(min = 1, max = 13))]
    pub metrics: Vec<TextMetric>,
    /// Regular expression of the metric `regex` (syntax of the Rust crate regex: no look-around, no back references).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,
}

/// A score of a text against its reference, or (from `RefusalRate` on) of a text by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names of the scores")]
pub enum TextMetric {
    Exact,
    Contains,
    Regex,
    TokenF1,
    Bleu,
    Rouge1,
    Rouge2,
    RougeL,
    ChrF,
    EditSimilarity,
    RefusalRate,
    ReadingEase,
    ReadingGrade,
}

/// Whether texts are JSON of a schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JsonSchemaEvaluator {
    /// The JSON Schema.
    pub schema: OpenObject,
}

/// Personal data by rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PiiEvaluator {}

/// Answers against what they were made from, without a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroundednessEvaluator {
    /// Columns with the context.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 128)))]
    pub context: Vec<String>,
    /// The column with the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub question: Option<String>,
}

/// Drift of columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftEvaluator {
    /// Only these columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub columns: Option<Vec<String>>,
    /// How columns are compared; by type and size when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<DriftMethod>,
    /// Score from which a column has drifted (of a test: p-value below which); the method's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub threshold: Option<f64>,
}

/// A way to compare two columns; docs/evaluation.md says which fits what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the names of the methods")]
pub enum DriftMethod {
    KS,
    ChiSquare,
    Z,
    Wasserstein,
    JensenShannon,
    PSI,
    KullbackLeibler,
    Hellinger,
    TotalVariation,
    Energy,
    AndersonDarling,
    CramerVonMises,
    MannWhitney,
    T,
    G,
    FisherExact,
}

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
