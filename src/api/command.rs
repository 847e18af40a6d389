//! Commands: annotations with the value `<revision>/<nonce>`, each done once and echoed in status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::bounded;

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

impl HandledCommand {
    /// A command's echo. A value longer than any revision and user name is cut, as status is bounded.
    pub fn new(name: &str, value: &str, result: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            value: shortened(value),
            result: bounded(result.into()),
        }
    }

    /// Whether this is the echo of that value.
    pub fn is_of(&self, name: &str, value: &str) -> bool {
        self.name == name && self.value == shortened(value)
    }
}

/// What of a value is echoed.
pub fn shortened(value: &str) -> String {
    value.chars().take(512).collect()
}
