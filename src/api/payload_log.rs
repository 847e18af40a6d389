//! `spec.monitoring.payloadLog`: a log of requests and answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credentials, Duration};

/// Keys of the Secret in `credentials` that are read.
pub const KEYS: [&str; 20] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BASE_URL",
    "GOOGLE_SKIP_SIGNATURE",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_SKIP_SIGNATURE",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
];

/// Sampled requests and what was answered, as Parquet files in an object store, a file for each gateway pod, revision and rotation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PayloadLog {
    /// Where the files go: `s3://BUCKET/PREFIX` (`gs://`, `az://`), below it a folder for each day.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^(s3|gs|az)://[^/]+(/.*)?$")
    )]
    pub uri: String,
    /// Environment for writing them; absent: the gateway's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Which share of the requests is logged, 0 to 1 (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: Option<f64>,
    /// Only these features (default: all of the signature).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 128)))]
    pub columns: Option<Vec<String>>,
    /// Features that don't leave the gateway as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub redact: Vec<Redaction>,
    /// When a file is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotation>,
}

/// What becomes of a feature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redaction {
    /// The feature.
    #[schemars(length(min = 1, max = 128))]
    pub column: String,
    /// How it is redacted (default Drop).
    #[serde(default)]
    pub method: RedactionMethod,
}

/// Ways to redact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedactionMethod {
    /// The column isn't in the log.
    #[default]
    Drop,
    /// In the place of a value stands a hash of it with the release's UID: equal values stay equal. Of few possible values it can be guessed which one it was.
    Hash,
}

/// When a file is complete: at the first of these, or when it is 8 MiB large.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// After so long (default 5m, at least 1s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// With so many rows (default 100,000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rows: Option<i64>,
}

impl PayloadLog {
    /// Which share of the requests is logged, with the default.
    pub fn sampling(&self) -> f64 {
        self.sampling.unwrap_or(1.0).clamp(0.0, 1.0)
    }

    /// How long a file is written to, with the default.
    pub fn every(&self) -> std::time::Duration {
        let every = self.rotate.as_ref().and_then(|r| r.every.as_ref());
        let every = every.map_or(std::time::Duration::from_secs(300), Duration::to_std);
        every.clamp(
            std::time::Duration::from_secs(1),
            std::time::Duration::from_secs(86_400),
        )
    }

    /// Rows of a file at most, with the default.
    pub fn max_rows(&self) -> usize {
        let most = self.rotate.as_ref().and_then(|r| r.max_rows);
        most.and_then(|n| usize::try_from(n).ok())
            .unwrap_or(100_000)
            .max(1)
    }

    /// How a feature is logged; `None`: not at all.
    pub fn shows(&self, feature: &str) -> Option<Shown> {
        if self
            .columns
            .as_ref()
            .is_some_and(|only| only.iter().all(|c| c != feature))
        {
            return None;
        }
        let rules = self.redact.iter().filter(|r| r.column == feature);
        let mut shown = Shown::AsItIs;
        for rule in rules {
            match rule.method {
                RedactionMethod::Drop => return None,
                RedactionMethod::Hash => shown = Shown::Hashed,
            }
        }
        Some(shown)
    }
}

/// How a feature is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As it came.
    AsItIs,
    /// As a hash.
    Hashed,
}
