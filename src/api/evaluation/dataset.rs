//! What is read: tables, the rows that a model is asked, and which of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Credentials,
    training_job::{Format, TimeColumn},
};

/// A table somewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableSource {
    /// `s3://`, `gs://`, `az://`, `http(s)://` or `pvc://CLAIM/PATH`.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|gs|az|https?|pvc)://[^/]+(/.*)?$")
    )]
    pub uri: String,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Environment for reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How to read it; by the file's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// The rows that the model is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationDataset {
    /// Where they are.
    #[serde(flatten)]
    pub source: TableSource,
    /// The column with the truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub label: Option<String>,
    /// The column with the reference of a text: what a prompt's answers are compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub reference: Option<String>,
    /// The columns that the model is given, in order; absent: the signature's, else all but label, key and time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub features: Option<Vec<String>>,
    /// The columns that identify a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub key: Option<Vec<String>>,
    /// The column that says when a row happened: intervals are by blocks of a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeColumn>,
    /// `Training`: it is a holdout. Rows that the model was trained on are an error, told by `key` where the TrainingJob's dataset has the same `key`, else by
    /// the whole row; and revisions that were measured on it are counted in `status.holdout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disjoint_from: Option<DisjointFrom>,
}

/// What a dataset must have no row of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DisjointFrom {
    /// What the model was trained on.
    Training,
}

/// Some of the rows instead of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.rows) != has(self.rate)",
    "message": "sampling is one thing: write rows (at most so many) or rate (a share)"
}]))]
pub struct Sampling {
    /// At most so many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows: Option<i64>,
    /// Each row with this probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.000001, max = 1.0))]
    pub rate: Option<f64>,
}
