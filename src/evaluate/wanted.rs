//! What a run's evaluators want of it.

use crate::api::{
    evaluation::{EndpointProtocol, Evaluator},
    run::{EvaluationRunSpec, EvaluationTarget},
};

/// Whether an evaluator compares with labels.
pub(super) fn of_labels(evaluator: &Evaluator) -> bool {
    let Evaluator {
        classification,
        regression,
        calibration,
        fairness,
        feature_importance,
        retrieval,
        drift: _,
        data_quality: _,
        text: _,
        json_schema: _,
        pii: _,
        toxicity: _,
        injection: _,
        groundedness: _,
        judge: _,
        container: _,
    } = evaluator;
    classification.is_some()
        || regression.is_some()
        || calibration.is_some()
        || fairness.is_some()
        || feature_importance.is_some()
        || retrieval.is_some()
}

/// Whether anything is computed from labels.
pub(crate) fn wants_truth(spec: &EvaluationRunSpec) -> bool {
    let asked = spec.evaluators.is_empty() || spec.evaluators.iter().any(of_labels);
    spec.label.is_some() && asked
}

/// Whether texts are looked at.
pub(crate) fn wants_text(spec: &EvaluationRunSpec) -> bool {
    let of_text = |e: &Evaluator| {
        let by_rule = e.text.is_some() || e.json_schema.is_some() || e.pii.is_some();
        let found = e.toxicity.is_some() || e.injection.is_some();
        by_rule || found || e.groundedness.is_some() || e.judge.is_some()
    };
    spec.evaluators.iter().any(of_text)
}

/// Whether the data itself is looked at.
pub(crate) fn wants_quality(spec: &EvaluationRunSpec) -> bool {
    spec.evaluators.iter().any(|e| e.data_quality.is_some())
}

/// Whether drift is measured: when asked for, or when there is nothing but a reference.
pub(crate) fn wants_drift(spec: &EvaluationRunSpec) -> Option<Evaluator> {
    let asked = spec.evaluators.iter().find(|e| e.drift.is_some());
    asked.cloned().or_else(|| {
        (spec.evaluators.is_empty() && spec.reference.is_some()).then(Evaluator::default)
    })
}

/// Where a model is asked for predictions of rows.
pub(super) fn model_url(target: &EvaluationTarget) -> Option<&str> {
    match target {
        EvaluationTarget::Model { url, .. }
        | EvaluationTarget::Endpoint {
            url,
            protocol: EndpointProtocol::OpenInference,
            ..
        } => Some(url),
        EvaluationTarget::Endpoint { .. }
        | EvaluationTarget::Prompt { .. }
        | EvaluationTarget::Predictions(_) => None,
    }
}

/// Whether an evaluator is of a kind.
type Is = fn(&Evaluator) -> bool;

/// Why these evaluators can't all be measured of this target, where one would be left out otherwise. The API server refuses it too, of what comes from there.
pub(super) fn unmeasurable(spec: &EvaluationRunSpec) -> Option<String> {
    let count = |is: Is| spec.evaluators.iter().filter(|e| is(e)).count();
    if spec.label.is_none() && count(of_labels) > 0 {
        return Some("an evaluator compares with labels, and nobody says which column has them: write dataset.label or target.predictions.label".to_owned());
    }
    if count(|e| e.feature_importance.is_some()) > 0 && model_url(&spec.target).is_none() {
        return Some("featureImportance asks the model again with a column shuffled, and this target is no model that can be asked: take the evaluator out, or write target.modelDeployment".to_owned());
    }
    if count(|e| e.drift.is_some()) > 0 && spec.reference.is_none() {
        return Some("the drift evaluator compares with reference: write reference.uri".to_owned());
    }
    if wants_text(spec) && model_url(&spec.target).is_some() && spec.mirrored.is_none() {
        return Some("text, jsonSchema, pii, toxicity, injection, groundedness and judge look at texts, and this target predicts rows".to_owned());
    }
    let single: [(&str, Is); 7] = [
        ("classification", |e| e.classification.is_some()),
        ("calibration", |e| e.calibration.is_some()),
        ("featureImportance", |e| e.feature_importance.is_some()),
        ("retrieval", |e| e.retrieval.is_some()),
        ("drift", |e| e.drift.is_some()),
        ("jsonSchema", |e| e.json_schema.is_some()),
        ("text with a pattern", |e| {
            e.text.as_ref().is_some_and(|text| text.pattern.is_some())
        }),
    ];
    let twice = single.iter().find(|(_, is)| count(*is) > 1);
    twice.map(|(name, _)| {
        format!("two evaluators are {name} and would give the same metrics: keep one")
    })
}
