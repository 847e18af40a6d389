//! Evaluators that are any image: what runs, and how its results are read.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{OpenObject, common::TemplateContainer};

/// Any image as evaluator: it runs in the Evaluation's pod before the other evaluators, and its results file becomes metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.template.spec.containers[0].command) && size(self.template.spec.containers[0].command) > 0",
    "message": "container: the evaluator must say its command (the image's own entry point can't be wrapped)"
}]))]
pub struct ContainerEvaluator {
    /// What its metrics begin with, as `<name>.<metric>`: for a second evaluator whose metrics have the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z][A-Za-z0-9]*$"))]
    pub name: Option<String>,
    /// The container, and the volumes that it mounts. What else its pod is like says the Evaluation's own `template`.
    pub template: EvaluatorTemplate,
    /// What it leaves.
    pub results: ContainerResults,
}

/// The file that a container leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerResults {
    /// Its path below `/perennial/outputs`; `*` stands for any characters of one name, where exactly one file is meant.
    #[schemars(
        length(min = 1, max = 256),
        regex(
            pattern = r"^[A-Za-z0-9_*@=+-][A-Za-z0-9._*@=+ -]*(/[A-Za-z0-9_*@=+-][A-Za-z0-9._*@=+ -]*)*$"
        )
    )]
    pub path: String,
    /// Who wrote it.
    pub format: ResultsFormat,
}

/// Whose results a file has; docs/evaluation.md says which metrics come of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResultsFormat {
    /// `Snapshot.save_json` of Evidently 0.7.
    Evidently,
    /// `promptfoo eval -o results.json`.
    Promptfoo,
    /// `lm_eval --output_path`.
    LmEval,
    /// JUnit's XML, as pytest and many others write it.
    JUnit,
    /// `{"metrics": {"name": 0.5}, "items": […]}`.
    #[default]
    Json,
}

/// One container and its volumes: not a whole pod, as it runs in the Evaluation's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluatorTemplate {
    /// The spec.
    #[serde(default)]
    pub spec: EvaluatorSpec,
}

/// The spec of an evaluator's template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluatorSpec {
    /// The container: exactly one.
    #[serde(default)]
    pub containers: Vec<TemplateContainer>,
    /// What it mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<OpenObject>,
}

impl JsonSchema for EvaluatorTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EvaluatorTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let strings = |bound: u32| json_schema!({"type": "array", "maxItems": bound, "items": {"type": "string", "maxLength": 16384}});
        let name = json_schema!({"type": "string", "minLength": 1, "maxLength": 63});
        json_schema!({
            "type": "object",
            "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["containers"],
                    "properties": {
                        "containers": {
                            "description": "The container: exactly one.",
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["name"],
                            "items": {
                                "type": "object",
                                "required": ["name", "image"],
                                "x-kubernetes-preserve-unknown-fields": true,
                                "properties": {
                                    "name": name,
                                    "image": {"type": "string", "minLength": 1, "maxLength": 1024},
                                    "command": strings(64),
                                    "args": strings(256),
                                },
                            },
                        },
                        "volumes": {
                            "description": "What it mounts.",
                            "type": "array",
                            "maxItems": 16,
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["name"],
                            "items": {
                                "type": "object",
                                "required": ["name"],
                                "x-kubernetes-preserve-unknown-fields": true,
                                "properties": {"name": name},
                            },
                        },
                    },
                },
            },
        })
    }
}
