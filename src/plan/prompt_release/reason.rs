//! Reasons of a PromptRelease's own conditions; those of its rollout are in [`crate::plan::rollout::reason`].

/// Every template of the prompt can be rendered with its declared variables.
pub const RENDERS: &str = "Renders";
/// A message is no Jinja template.
pub const TEMPLATE_INVALID: &str = "TemplateInvalid";
/// `prompt.variables` is no JSON Schema.
pub const VARIABLES_INVALID: &str = "VariablesInvalid";
/// A template uses a variable that `prompt.variables` doesn't declare.
pub const VARIABLE_UNDECLARED: &str = "VariableUndeclared";
/// The backend's URL can't be used.
pub const BACKEND_INVALID: &str = "BackendInvalid";
/// The rollout names an Evaluation that isn't there.
pub const UNKNOWN_EVALUATION: &str = "UnknownEvaluation";
/// The rollout names an Evaluation that measures something else, so that no candidate can pass it.
pub const EVALUATION_ELSEWHERE: &str = "EvaluationElsewhere";
/// A metric can't be asked of Prometheus: its source isn't in the operator's configuration or not for this namespace, or its query makes no sense.
pub const METRIC_REFUSED: &str = "MetricRefused";
/// Every port of the gateway's range has a release.
pub const NO_PORT_LEFT: &str = "NoPortLeft";
