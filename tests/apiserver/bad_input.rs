//! What only the cluster can tell is wrong: a condition within seconds that says what and what to do, then quiet, and the rest goes on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Place, eventually, faults::Faults, on_cluster, operator::Operator};

/// Kind, name, and what its `Ready` condition says.
type Row = (&'static str, &'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "TrainingJob",
        "no-claim",
        "ClaimNotFound",
        "PersistentVolumeClaim nowhere doesn't exist in this namespace: create it, or correct the pvc:// URI that names it",
    ),
    (
        "TrainingJob",
        "bad-template",
        "Invalid",
        "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
    ),
    (
        "ModelDeployment",
        "no-version",
        "NoVersion",
        "model nobody has no version in this namespace yet: make one with a TrainingJob whose spec.model.name is nobody, or correct spec.model",
    ),
    (
        "ModelDeployment",
        "no-evaluation",
        "UnknownEvaluation",
        "there is no Evaluation nobody in this namespace: create it, or take it out of spec.rollout.evaluations and spec.metrics",
    ),
    (
        "ModelDeployment",
        "bad-server",
        "TemplateRefused",
        "strict decoding error: unknown field \"spec.template.spec.containers[0].resourcess\"",
    ),
    (
        "ModelDeployment",
        "taken",
        "NameTaken",
        "NameTaken: Service taken is there already and isn't managed by Perennial; rename or delete it",
    ),
    (
        "Evaluation",
        "no-target",
        "Idle",
        "ModelDeployment nobody doesn't exist (yet)",
    ),
    (
        "Evaluation",
        "no-prompt",
        "Idle",
        "PromptRelease nobody doesn't exist (yet)",
    ),
    (
        "PromptRelease",
        "elsewhere",
        "EvaluationElsewhere",
        "Evaluation no-target measures something else, so that no candidate of elsewhere can pass it: correct its spec.target, or take it out of spec.rollout",
    ),
    (
        "PromptRelease",
        "bad-jinja",
        "TemplateInvalid",
        "spec.prompt.messages[0].content is no Jinja template: syntax error: unexpected end of input",
    ),
    (
        "PromptRelease",
        "no-variable",
        "VariableUndeclared",
        "spec.prompt.messages[0].content uses `nome`, which spec.prompt.variables.properties does not declare (it has: name): declare it there, or correct the name",
    ),
];

fn objects(place: &Place) -> Vec<Value> {
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "perennial.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": place.namespace}, "spec": spec});
    let container =
        |name: &str| json!({"name": name, "image": "registry.example/x:1", "command": ["c"]});
    let mut no_claim = place.training_job("no-claim");
    no_claim["spec"]["datasets"] = json!([{"name": "d", "uri": "pvc://nowhere/d.csv"}]);
    let mut bad_template = place.training_job("bad-template");
    bad_template["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 99999}]);
    let server = json!({"template": {"spec": {"containers": [container("server")]}}});
    let mut bad_server = server.clone();
    bad_server["template"]["spec"]["containers"][0]["resourcess"] = json!({});
    let artifact = json!({"uri": "s3://models/m", "digest": format!("sha256:{}", "0".repeat(64))});
    let prompt = |content: &str, variables: Value| json!({"prompt": {"messages": [{"role": "user", "content": content}], "variables": variables}, "backend": {"url": "http://llm.example/v1", "model": "m"}});
    let mut elsewhere = prompt("Hello", json!({"type": "object"}));
    elsewhere["rollout"] = json!({"evaluations": ["no-target"]});
    let any = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken", "namespace": place.namespace}, "spec": {"ports": [{"port": 80}]}}),
        no_claim,
        bad_template,
        object(
            "ModelDeployment",
            "no-version",
            json!({"model": {"name": "nobody"}, "server": server}),
        ),
        object(
            "ModelDeployment",
            "no-evaluation",
            json!({"model": artifact, "server": server, "rollout": {"evaluations": ["nobody"]}}),
        ),
        object(
            "ModelDeployment",
            "bad-server",
            json!({"model": artifact, "server": bad_server}),
        ),
        object(
            "ModelDeployment",
            "taken",
            json!({"model": artifact, "server": server}),
        ),
        object(
            "Evaluation",
            "no-target",
            json!({"target": {"modelDeployment": {"name": "nobody"}}, "dataset": {"uri": "s3://b/d.csv", "label": "y"}}),
        ),
        object(
            "Evaluation",
            "no-prompt",
            json!({"target": {"promptRelease": {"name": "nobody"}}, "dataset": {"uri": "s3://b/d.jsonl"}}),
        ),
        object("PromptRelease", "elsewhere", elsewhere),
        object("PromptRelease", "bad-jinja", prompt("{{ name", any.clone())),
        object("PromptRelease", "no-variable", prompt("{{ nome }}", any)),
        place.training_job("good"),
    ]
}

#[test]
fn each_is_said_in_its_status_then_it_is_quiet_and_the_rest_goes_on() {
    on_cluster(|place| async move {
        let operator = Operator::new(&place, Faults::none())
            .await
            .with_all()
            .start()
            .await;
        for object in objects(&place) {
            place.create(&object).await.unwrap();
        }
        let mut wrong = Vec::new();
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        for (kind, name, reason, words) in ROWS {
            let right = |ready: &Value| {
                ready["reason"] == *reason
                    && ready["message"].as_str().is_some_and(|m| m.contains(words))
            };
            while !ready(&place, kind, name).await.is_some_and(|r| right(&r)) {
                if tokio::time::Instant::now() > end {
                    let is = ready(&place, kind, name).await.unwrap_or_default();
                    wrong.push(format!("{kind} {name}: {is}"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        eventually("the good one has its Job", || async {
            place.get("batch/v1", "Job", "good-1").await
        })
        .await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // Long enough for whatever would come again and again, but for the slowest back-off.
        operator.quiet(Duration::from_secs(20)).await;
        operator.kill().await;
    });
}

/// The `Ready` condition of an object.
pub async fn ready(place: &Place, kind: &str, name: &str) -> Option<Value> {
    let object = place.get("perennial.dev/v1alpha1", kind, name).await?;
    let conditions = object.pointer("/status/conditions")?.as_array()?.clone();
    conditions.into_iter().find(|c| c["type"] == "Ready")
}
