//! A candidate is judged by an Evaluation of copied requests before any caller sees it: of a model and of a prompt, on real pods.

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers},
    installation,
    minimal::stand_in,
    rollout,
    space::{Space, is},
};

/// Copies first, then the Evaluation of them, and only then callers.
fn ladder() -> Value {
    json!({
        "steps": [{"setMirror": {"percent": 50}}, {"evaluate": {"names": ["live"]}}, {"setWeight": 50}, {"pause": {"duration": "3s"}}],
        "analysis": {"interval": "2s", "minRequests": 0, "gates": [{"metric": "errorRate", "max": 0.5}]},
        "bake": "3s", "progressDeadline": "5m",
    })
}

fn live(target: &Value, evaluators: &Value, gates: &Value) -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "live"}, "spec": {
        "target": target, "mirrored": {"requests": 60}, "evaluators": evaluators, "gates": gates,
    }})
    .to_string()
}

/// The deployment; another `grace` is another revision that answers the same.
fn deployment(grace: i32) -> String {
    let mut deployment = rollout::deployment("");
    let spec = &mut deployment["spec"];
    spec["rollout"] = ladder();
    spec["server"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(grace);
    deployment.to_string()
}

fn entries(release: &Value) -> usize {
    release["status"]["history"].as_array().map_or(0, Vec::len)
}

/// The last entry of the history, once there is one more, with what the Evaluation said of that revision.
async fn ended(space: &Space, kind: &str, name: &str, before: usize) -> (Value, Value) {
    let more = |r: &Value| entries(r) > before;
    let release = space
        .until(kind, name, 240, "its rollout has ended", more)
        .await;
    let entry = release["status"]["history"][before].clone();
    let evaluation = space.read("Evaluation", "live").await.unwrap();
    let runs = evaluation["status"]["runs"].as_array();
    let mut of = runs.into_iter().flatten();
    let run = of.find(|run| run["revision"] == entry["revision"]);
    (entry, run.cloned().unwrap_or_default())
}

fn metric(run: &Value, name: &str) -> Option<f64> {
    let mut metrics = run["metrics"].as_array().into_iter().flatten();
    metrics.find(|m| m["name"] == name)?["value"].as_f64()
}

#[tokio::test]
async fn a_model_that_answers_otherwise_is_refused_at_weight_0_and_one_that_agrees_is_promoted() {
    let _peace = installation::in_peace().await;
    let space = Space::new("mirrored").await;
    rollout::tables(&space).await;
    let target = json!({"modelDeployment": {"name": "churn"}});
    let gates = json!([
        {"metric": "agreement", "min": 0.95, "minSamples": 50},
        {"metric": "errorRate", "maxDifference": 0.02},
        {"metric": "latencyP50", "max": 30},
    ]);
    for object in [
        rollout::training("churn-a", "churn"),
        live(&target, &json!([]), &gates),
        deployment(10),
    ] {
        space.apply(&object).await;
    }
    let first = space
        .until_condition("ModelDeployment", "churn", 240, "Ready", "True")
        .await;
    let stable = first["status"]["stable"]["revision"].clone();
    // The first revision had no copies, and nothing to be compared with.
    let idle = space.read("Evaluation", "live").await.unwrap();
    assert_eq!(idle["status"]["lastRun"], Value::Null, "{idle}");
    let address = caller::address(&space, "churn").await;
    let url = format!("{address}/v2/models/churn/infer");
    let callers = Callers::start(&url, &rollout::customer(), 25);

    // It learnt the opposite: no error and no slowness, only other answers.
    let before = entries(&first);
    space
        .apply(&rollout::training("churn-swapped", "churn-swapped"))
        .await;
    let (entry, run) = ended(&space, "ModelDeployment", "churn", before).await;
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("EvaluationFailed")),
        "{entry}"
    );
    let message = entry["message"].as_str().unwrap();
    assert!(message.contains("agreement"), "{message}");
    assert!(
        run["verdict"] == "Failed" && run["baseline"] == stable,
        "{run}"
    );
    assert!(metric(&run, "agreement") < Some(0.95), "{run}");
    assert!(metric(&run, "difference") > Some(0.0), "{run}");
    assert_eq!(metric(&run, "stable.errorRate"), Some(0.0), "{run}");
    assert!(run["rows"].as_i64() >= Some(60), "{run}");
    let seen = callers.seen();
    assert_eq!(seen.failed, 0, "{seen:?}");
    let revisions: Vec<_> = seen.by_revision.keys().collect();
    assert_eq!(revisions, [stable.as_str().unwrap()], "no caller saw it");

    // The same version in another pod agrees.
    let before = before + 1;
    space.apply(&deployment(11)).await;
    let (entry, run) = ended(&space, "ModelDeployment", "churn", before).await;
    assert_eq!(entry["outcome"], "Promoted", "{entry}");
    assert_eq!(run["verdict"], "Passed", "{run}");
    assert_eq!(metric(&run, "agreement"), Some(1.0), "{run}");
    let seen = callers.stop().await;
    assert_eq!((seen.failed, seen.by_revision.len()), (0, 2), "{seen:?}");
}

/// The release whose user message is this.
fn reply(question: &str) -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease", "metadata": {"name": "reply"}, "spec": {
        "prompt": {
            "messages": [{"role": "system", "content": "You answer customers."}, {"role": "user", "content": question}],
            "variables": {"type": "object", "required": ["question"], "properties": {"question": {"type": "string"}}},
        },
        "backend": {"url": "http://llm:8000/v1", "model": "stand-in-not-an-llm", "timeout": "30s"},
        "rollout": ladder(),
    }})
    .to_string()
}

#[tokio::test]
async fn a_prompt_that_loses_the_question_is_refused_at_weight_0_and_one_that_asks_is_promoted() {
    let _peace = installation::in_peace().await;
    let space = Space::new("mirrored-prompt").await;
    space.apply(&stand_in()).await;
    space
        .until_condition("Deployment", "llm", 90, "Available", "True")
        .await;
    let target = json!({"promptRelease": {"name": "reply"}});
    let evaluators = json!([{"text": {"metrics": ["regex"], "pattern": "suitcase"}}, {"pii": {}}]);
    let gates = json!([{"metric": "regex", "minDifference": -0.05}, {"metric": "piiRate", "max": 0.0}, {"metric": "errorRate", "max": 0.02}]);
    space.apply(&live(&target, &evaluators, &gates)).await;
    space.apply(&reply("{{ question }}")).await;
    let first = space
        .until_condition("PromptRelease", "reply", 180, "Ready", "True")
        .await;
    let stable = first["status"]["stable"]["revision"].clone();
    let address = caller::address(&space, "reply").await;
    let question = json!({"model": "reply", "prompt": {"id": "reply", "variables": {"question": "Where is my suitcase?"}}});
    let callers = Callers::start(&format!("{address}/v1/chat/completions"), &question, 25);

    let before = entries(&first);
    space
        .apply(&reply("Say something nice to the customer."))
        .await;
    let (entry, run) = ended(&space, "PromptRelease", "reply", before).await;
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("EvaluationFailed")),
        "{entry}"
    );
    assert_eq!(
        (metric(&run, "regex"), metric(&run, "stable.regex")),
        (Some(0.0), Some(1.0)),
        "{run}"
    );
    let seen = callers.seen();
    let revisions: Vec<_> = seen.by_revision.keys().collect();
    assert_eq!(revisions, [stable.as_str().unwrap()], "no caller saw it");

    space.apply(&reply("Question: {{ question }}")).await;
    let (entry, run) = ended(&space, "PromptRelease", "reply", before + 1).await;
    assert_eq!(entry["outcome"], "Promoted", "{entry}");
    assert_eq!(run["verdict"], "Passed", "{run}");
    space
        .until("PromptRelease", "reply", 60, "all is quiet", |r| {
            is(r, "Ready", "True")
        })
        .await;
    callers.stop().await;
}
