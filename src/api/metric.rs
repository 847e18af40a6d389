//! Metrics that gates and triggers can name beside the built-in ones: where their values come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A metric that gates and triggers can name beside the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.evaluation) != has(self.prometheus)",
    "message": "a metric comes from one place: write one of evaluation and prometheus"
}]))]
pub struct MetricSource {
    /// The name that gates use.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A metric of an Evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationMetric>,
    /// The answer to a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusMetric>,
}

/// A metric of an Evaluation in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationMetric {
    /// Name of the Evaluation.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The metric in its results.
    #[schemars(length(min = 1, max = 128))]
    pub metric: String,
}

/// The answer of a Prometheus server: one number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusMetric {
    /// Name of a source in the operator's configuration.
    #[schemars(length(min = 1, max = 63))]
    pub source: String,
    /// PromQL, with `{{ revision }}`, `{{ stable }}`, `{{ namespace }}` and `{{ name }}`. One that names the revision is asked for both sides. Each of its
    /// selectors is held to the release's namespace.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
}

/// What a query's placeholders stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// Hash of the revision that is asked about.
    pub revision: &'a str,
    /// Hash of the stable revision.
    pub stable: &'a str,
    /// Namespace of the release.
    pub namespace: &'a str,
    /// Name of the release.
    pub name: &'a str,
}

impl PrometheusMetric {
    /// Whether the query names the revision: only then it has an answer for each side.
    pub fn names_revision(&self) -> bool {
        let mut rest = self.query.as_str();
        while let Some((_, after)) = rest.split_once("{{") {
            let Some((inside, after)) = after.split_once("}}") else {
                return false;
            };
            if inside.trim() == "revision" {
                return true;
            }
            rest = after;
        }
        false
    }

    /// The query with names in the place of its placeholders.
    ///
    /// # Errors
    /// A placeholder that isn't known or isn't closed, in a sentence.
    pub fn render(&self, names: Names) -> Result<String, String> {
        let Names {
            revision,
            stable,
            namespace,
            name,
        } = names;
        let mut out = String::with_capacity(self.query.len());
        let mut rest = self.query.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inside, after)) = after.split_once("}}") else {
                return Err("its query has {{ without }}".to_owned());
            };
            out.push_str(before);
            out.push_str(match inside.trim() {
                "revision" => revision,
                "stable" => stable,
                "namespace" => namespace,
                "name" => name,
                other => {
                    return Err(format!(
                        "its query has {{{{ {other} }}}}: write revision, stable, namespace or name"
                    ));
                }
            });
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        revision: "abc",
        stable: "def",
        namespace: "team",
        name: "words",
    };

    fn metric(query: &str) -> PrometheusMetric {
        PrometheusMetric {
            source: "default".into(),
            query: query.into(),
        }
    }

    #[test]
    fn placeholders_are_replaced_and_others_are_refused() {
        let query = r#"sum(rate(x{revision="{{ revision }}",a="{{stable}}",b="{{ name }}"}[5m]))"#;
        assert_eq!(
            metric(query).render(NAMES).unwrap(),
            r#"sum(rate(x{revision="abc",a="def",b="words"}[5m]))"#
        );
        assert!(metric(query).names_revision());
        assert!(!metric("x{a=\"{{ stable }}\"}").names_revision());
        let error = metric("x{a=\"{{ Revision }}\"}").render(NAMES).unwrap_err();
        assert!(error.contains("{{ Revision }}"), "{error}");
        assert!(metric("x{{").render(NAMES).is_err() && !metric("x{{").names_revision());
    }
}
