//! Commands: annotations with the value `<revision>/<nonce>`, each done once and echoed in status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A command that was handled, done or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandledCommand {
    /// `promote`, `abort`, `retry`, `rollback-to`, `approve` or `retrain`.
    pub name: String,
    /// The annotation's value, word for word: the same value is never done twice.
    pub value: String,
    /// `Done`, or why it was refused, as a sentence.
    pub result: String,
}
