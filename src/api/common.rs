//! Types that several kinds share.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A length of time as users write it: `90s`, `5m`, `1h30m`, `7d`.
///
/// Pattern `^([0-9]+(ms|s|m|h|d))+$`. Keeps the text as written, so that it round-trips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    text: String,
    millis: u64,
}

impl Duration {
    /// The length in milliseconds (saturating).
    pub fn millis(&self) -> u64 {
        self.millis
    }

    /// The length as the standard library's type.
    pub fn to_std(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.millis)
    }

    /// The length as a jiff duration, for arithmetic with timestamps.
    pub fn to_signed(&self) -> jiff::SignedDuration {
        jiff::SignedDuration::from_millis(i64::try_from(self.millis).unwrap_or(i64::MAX))
    }

    /// A whole number of seconds.
    pub fn from_secs(seconds: u64) -> Self {
        Self {
            text: format!("{seconds}s"),
            millis: seconds.saturating_mul(1000),
        }
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("`{text}` is not a duration: write for example 90s, 5m, 1h30m or 7d");
        let mut millis: u64 = 0;
        let mut rest = text;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .filter(|n| *n > 0)
                .ok_or_else(wrong)?;
            // More digits than fit are still what the CRD's pattern allows: for ever.
            let number: u64 = rest[..digits].parse().unwrap_or(u64::MAX);
            rest = &rest[digits..];
            let letters = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let unit = match &rest[..letters] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            millis = millis.saturating_add(number.saturating_mul(unit));
            rest = &rest[letters..];
        }
        Ok(Self {
            text: text.to_owned(),
            millis,
        })
    }
}

impl TryFrom<String> for Duration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.text
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$", "maxLength": 32})
    }
}

/// A Secret whose keys are environment names (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …), given to the
/// pod only; the operator never reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Name of a Secret in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// A JSON object that we pass on as it is (a JSON Schema, model parameters).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpenObject(pub Map<String, Value>);

impl JsonSchema for OpenObject {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OpenObject".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}

/// A pod template: `containers[]` and `initContainers[]` have typed names, images and commands; the rest is
/// open, and checked by a server-side dry run of the child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations for the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// The pod's spec.
    #[serde(default)]
    pub spec: TemplateSpec,
}

/// Labels and annotations that pods of a template carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels; ours win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The spec of a pod template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSpec {
    /// Containers, by name.
    #[serde(default)]
    pub containers: Vec<TemplateContainer>,
    /// Init containers, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<TemplateContainer>,
    /// Everything else, as written.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A container of a pod template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateContainer {
    /// Name, unique in the pod.
    pub name: String,
    /// Image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Entry point; the image's when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Everything else, as written.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl PodTemplate {
    /// The container of this name, else the only one; `None` when there are several and none has the name.
    pub fn main_container(&self, name: &str) -> Option<&TemplateContainer> {
        let containers = &self.spec.containers;
        containers
            .iter()
            .find(|c| c.name == name)
            .or(match containers.as_slice() {
                [only] => Some(only),
                _ => None,
            })
    }
}

impl JsonSchema for PodTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let strings = |bound: u32| json_schema!({"type": "array", "maxItems": bound, "items": {"type": "string", "maxLength": 16384}});
        let containers = |what: &str, min: u32| {
            json_schema!({
                "description": what,
                "type": "array",
                "minItems": min,
                "maxItems": 16,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "name": {"type": "string", "maxLength": 63, "minLength": 1},
                        "image": {"type": "string", "maxLength": 1024},
                        "command": strings(64),
                        "args": strings(256),
                    },
                },
            })
        };
        let words = json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 4096}});
        json_schema!({
            "description": "A pod template, as in a Deployment or Job.",
            "type": "object",
            "required": ["spec"],
            "properties": {
                "metadata": {"type": "object", "properties": {"labels": words, "annotations": words}},
                "spec": {
                    "type": "object",
                    "required": ["containers"],
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "containers": containers("Containers, by name.", 1),
                        "initContainers": containers("Init containers, by name.", 0),
                    },
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("250ms", 250),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("99999999999999999999d", u64::MAX),
        ] {
            assert_eq!(
                text.parse::<Duration>().map(|d| d.millis()),
                Ok(millis),
                "{text}"
            );
        }
        for wrong in ["", "5", "m", "5 m", "1.5h", "-3s", "5mm"] {
            assert!(wrong.parse::<Duration>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_template_round_trips_with_everything_it_does_not_know() {
        let template = serde_json::json!({"metadata": {"labels": {"a": "b"}}, "spec": {
            "containers": [{"name": "server", "image": "x:1", "ports": [{"containerPort": 1}]}], "nodeSelector": {"gpu": "yes"}}});
        let parsed: PodTemplate = serde_json::from_value(template.clone()).unwrap();
        assert_eq!(serde_json::to_value(&parsed).unwrap(), template);
    }
}
