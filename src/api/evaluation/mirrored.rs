//! Copied requests as what is measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many copied requests are measured. They are read from the gateway while this runs, and recorded nowhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirrored {
    /// So many are waited for (default 100). Fewer by the end of `activeDeadlineSeconds` are not enough data: `Inconclusive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub requests: Option<i64>,
}

impl Mirrored {
    /// How many are waited for, with the default.
    #[must_use]
    pub fn requests(&self) -> usize {
        let requests = self.requests.and_then(|n| usize::try_from(n).ok());
        requests.unwrap_or(100).clamp(1, 1000)
    }
}
