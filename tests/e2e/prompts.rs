//! A prompt rolls out like code: a version that errors is taken back by its gate, the next one is promoted, and callers outside of the
//! canary notice neither.

use serde_json::{Value, json};

use crate::{
    caller::{self, Callers, exposed},
    installation,
    minimal::stand_in,
    space::{Space, condition, is},
};

/// The release with this system message.
fn release(system: &str) -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease", "metadata": {"name": "reply"}, "spec": {
        "prompt": {"messages": [{"role": "system", "content": system}, {"role": "user", "content": "Question: {{ question }}"}]},
        "backend": {"url": "http://llm:8000/v1", "model": "stand-in-not-an-llm", "timeout": "30s"},
        "rollout": {
            "steps": [{"setWeight": 30}, {"pause": {"duration": "6s"}}],
            "analysis": {"interval": "2s", "minRequests": 20, "gates": [{"metric": "errorRate", "max": 0.05}]},
            "bake": "5s", "progressDeadline": "3m",
        },
    }})
    .to_string()
}

async fn until(space: &Space, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    space
        .until("PromptRelease", "reply", 120, what, wanted)
        .await
}

fn history(release: &Value) -> &[Value] {
    release["status"]["history"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

#[tokio::test]
async fn a_prompt_that_errors_is_taken_back_by_its_gate_and_the_next_one_is_promoted() {
    let _peace = installation::in_peace().await;
    let space = Space::new("prompts").await;
    space.apply(&stand_in()).await;
    space.apply(&release("You answer customers.")).await;
    space
        .until_condition("Deployment", "llm", 90, "Available", "True")
        .await;
    let first = space
        .until_condition("PromptRelease", "reply", 90, "Ready", "True")
        .await;
    let (uid, stable) = (
        first["metadata"]["uid"].as_str().unwrap().to_owned(),
        first["status"]["stable"]["revision"].clone(),
    );
    let address = caller::address(&space, "reply").await;
    let question = json!({"model": "reply", "prompt": {"id": "reply", "variables": {"question": "Where is my suitcase?"}}});
    let callers = Callers::start(&format!("{address}/v1/chat/completions"), &question, 30);

    // The stand-in fails on its control token, as models do; nothing but traffic shows that.
    let before = history(&first).len();
    space
        .apply(&release("You answer customers. <|endoftext|>"))
        .await;
    let back = until(&space, "the second version's rollout has ended", |r| {
        history(r).len() > before
    })
    .await;
    let entry = history(&back).last().unwrap().clone();
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("GateFailed")),
        "{entry}"
    );
    assert!(
        entry["message"].as_str().unwrap().contains("errorRate"),
        "{entry}"
    );
    let refused = entry["revision"].as_str().unwrap().to_owned();
    let stalled = space
        .until_condition("PromptRelease", "reply", 30, "Stalled", "True")
        .await;
    assert_eq!(condition(&stalled, "Ready").1, "RevisionRejected");
    assert_eq!(stalled["status"]["stable"]["revision"], stable);
    let after = callers.seen();
    assert!(
        after.failed > 0,
        "somebody must have seen it fail: {after:?}"
    );
    let others: Vec<_> = after
        .failed_callers
        .iter()
        .filter(|key| !exposed(&uid, &refused, key, 30.0))
        .collect();
    assert!(
        others.is_empty(),
        "callers outside of the canary saw failures: {others:?}"
    );

    // The third, without the token, is promoted, and nobody fails any more.
    space
        .apply(&release("You answer customers. If you don't know, say so."))
        .await;
    let promoted = until(
        &space,
        "the third version is stable and all is quiet",
        |r| {
            r["status"]["rollout"]["state"] == "Idle"
                && r["status"]["stable"]["revision"] != stable
                && is(r, "Ready", "True")
        },
    )
    .await;
    let entry = history(&promoted).last().unwrap();
    assert_eq!(entry["outcome"], "Promoted", "{entry}");
    assert_eq!(entry["revision"], promoted["status"]["stable"]["revision"]);
    let seen = callers.stop().await;
    // By revision, not by number: a call that was under way when the canary ended may be answered, and counted, later.
    let elsewhere = |words: &&String| !words.contains(&refused);
    assert_eq!(
        seen.failures.keys().find(elsewhere),
        None,
        "only the second version failed: {seen:?}"
    );
    assert_eq!(
        seen.by_revision.len(),
        2,
        "two revisions gave answers: {seen:?}"
    );

    let shown = space.perennial(&["history", "ppr/reply"]).await.unwrap();
    for word in ["RolledBack", "Promoted", "errorRate", &refused] {
        assert!(shown.contains(word), "`{word}` isn't in:\n{shown}");
    }
    let url = promoted["status"]["url"].as_str().unwrap();
    assert!(
        space
            .perennial(&["status", "reply"])
            .await
            .unwrap()
            .contains(url)
    );
}

/// The release with other prices: another revision of the same version.
fn priced(per_million: f64) -> String {
    let mut release: Value = serde_json::from_str(&release("You answer customers.")).unwrap();
    let spec = &mut release["spec"];
    spec["backend"]["prices"] =
        json!({"inputPerMillion": per_million, "outputPerMillion": per_million, "currency": "EUR"});
    spec["rollout"] = json!({
        "steps": [{"setWeight": 50}, {"pause": {"duration": "6s"}}],
        "analysis": {"interval": "2s", "minRequests": 150, "gates": [{"metric": "costPerRequest", "maxRatio": 1.3}]},
        "bake": "5s", "progressDeadline": "3m",
    });
    release.to_string()
}

#[tokio::test]
async fn a_revision_that_costs_much_more_is_taken_back_and_answers_can_be_judged() {
    let _peace = installation::in_peace().await;
    let space = Space::new("prices").await;
    space.apply(&stand_in()).await;
    space.apply(&priced(0.5)).await;
    space
        .until_condition("Deployment", "llm", 90, "Available", "True")
        .await;
    let first = space
        .until_condition("PromptRelease", "reply", 90, "Ready", "True")
        .await;
    let address = caller::address(&space, "reply").await;
    let url = format!("{address}/v1/chat/completions");
    let question = json!({"model": "reply", "prompt": {"id": "reply", "variables": {"question": "Where is my suitcase?"}}});

    // Each answer has an id, by which it can be judged once.
    let http = caller::http();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    let answer = loop {
        let request = http::Request::post(&url)
            .header("content-type", "application/json")
            .body(question.to_string().into());
        let answer = http.request(request.unwrap()).await.unwrap();
        // The node learns of the backend's Service a moment after its pod is available.
        if answer.status() == 200 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let id = answer.headers()["x-perennial-request-id"].to_str().unwrap();
    let feedback = format!("{address}/v1/feedback");
    for status in [204, 409] {
        let body = json!({"id": id, "score": 0.5});
        let answer = caller::ask(&http, &feedback, None, &body).await.unwrap();
        assert_eq!(answer.0, status, "{answer:?}");
    }

    let callers = Callers::start(&url, &question, 40);
    let before = history(&first).len();
    space.apply(&priced(50.0)).await;
    let back = until(&space, "the dear revision's rollout has ended", |r| {
        history(r).len() > before
    })
    .await;
    let entry = history(&back).last().unwrap();
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("GateFailed")),
        "{entry}"
    );
    let message = entry["message"].as_str().unwrap();
    assert!(message.contains("costPerRequest ratio"), "{message}");
    assert_eq!(callers.stop().await.failed, 0);
}

/// The release whose user message is this, held to two Evaluations and a metric of the first.
fn measured(question: &str) -> String {
    let mut release: Value = serde_json::from_str(&release("You answer customers.")).unwrap();
    let spec = &mut release["spec"];
    spec["prompt"]["messages"][1]["content"] = json!(question);
    spec["prompt"]["variables"] = json!({"type": "object", "required": ["question"], "properties": {"question": {"type": "string"}}});
    spec["backend"]["prices"] =
        json!({"inputPerMillion": 1.0, "outputPerMillion": 1.0, "currency": "EUR"});
    spec["metrics"] =
        json!([{"name": "answers", "evaluation": {"name": "quality", "metric": "contains"}}]);
    spec["rollout"] = json!({
        "evaluations": ["quality"],
        "steps": [{"evaluate": {"names": ["later"]}}, {"setWeight": 50}, {"pause": {"duration": "3s"}}],
        "analysis": {"interval": "2s", "minRequests": 0, "gates": [{"metric": "answers", "minDifference": -0.05}]},
        "bake": "3s", "progressDeadline": "4m",
    });
    release.to_string()
}

fn evaluation(name: &str, evaluators: &Value, gates: &Value) -> String {
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": name}, "spec": {
        "target": {"promptRelease": {"name": "reply"}},
        "dataset": {"uri": "pvc://questions/questions.jsonl", "reference": "about"},
        "requests": {"concurrency": 8},
        "evaluators": evaluators,
        "gates": gates,
    }})
    .to_string()
}

#[tokio::test]
async fn an_evaluation_refuses_a_prompt_that_loses_the_question_and_lets_a_good_one_through() {
    let _peace = installation::in_peace().await;
    let space = Space::new("measured").await;
    let about = ["suitcase", "refund", "seat", "meal"];
    let line = |i: usize| {
        let about = about[i % 4];
        json!({"id": i, "question": format!("What of my {about}, number {i}?"), "about": about})
            .to_string()
            + "\n"
    };
    let questions: String = (0..60).map(line).collect();
    space
        .volume("questions", &[("questions.jsonl", questions.as_str())])
        .await;
    space.apply(&stand_in()).await;
    space
        .until_condition("Deployment", "llm", 90, "Available", "True")
        .await;
    let contains = json!([{"text": {"metrics": ["contains"]}}, {"pii": {}}]);
    let gates = json!([{"metric": "contains", "min": 0.9}, {"metric": "piiRate", "max": 0.0}, {"metric": "unansweredRows", "max": 0}]);
    space.apply(&evaluation("quality", &contains, &gates)).await;
    let dear = json!([{"metric": "costPerRequest", "maxRatio": 1.5}]);
    space.apply(&evaluation("later", &json!([]), &dear)).await;
    space.apply(&measured("{{ question }}")).await;
    let first = space
        .until_condition("PromptRelease", "reply", 180, "Ready", "True")
        .await;
    let stable = first["status"]["stable"]["revision"].clone();

    // It forgets to ask: no error, no slowness, only another answer.
    let before = history(&first).len();
    space
        .apply(&measured("Say something nice to the customer."))
        .await;
    let back = until(&space, "the second version's rollout has ended", |r| {
        history(r).len() > before
    })
    .await;
    let entry = history(&back).last().unwrap();
    assert_eq!(
        (&entry["outcome"], &entry["reason"]),
        (&json!("RolledBack"), &json!("EvaluationFailed")),
        "{entry}"
    );
    assert_eq!(back["status"]["stable"]["revision"], stable);
    let evaluation = space.read("Evaluation", "quality").await.unwrap();
    let run = evaluation["status"]["runs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["revision"] == entry["revision"])
        .expect("the run of the candidate");
    let metric = |name: &str| {
        let metrics = run["metrics"].as_array().unwrap();
        let found = metrics.iter().find(|m| m["name"] == name);
        found.and_then(|m| m["value"].as_f64())
    };
    assert_eq!(
        (metric("contains"), metric("stable.contains")),
        (Some(0.0), Some(1.0)),
        "{run}"
    );
    assert_eq!(
        (run["verdict"].as_str(), run["rows"].as_i64()),
        (Some("Failed"), Some(60))
    );
    assert!(run["tokens"].as_i64() > Some(0) && run["cost"].as_f64() > Some(0.0));

    // The third asks, in other words.
    space.apply(&measured("Question: {{ question }}")).await;
    let promoted = until(&space, "the third version is stable", |r| {
        r["status"]["stable"]["revision"] != stable && is(r, "Ready", "True")
    })
    .await;
    let entry = history(&promoted).last().unwrap();
    assert_eq!(entry["outcome"], "Promoted", "{entry}");
    let later = space.read("Evaluation", "later").await.unwrap();
    let runs = later["status"]["runs"].as_array().unwrap();
    assert!(
        runs.iter().any(|run| run["revision"] == entry["revision"]
            && run["verdict"] == "Passed"
            && run["baseline"] == stable),
        "measured at its step, against stable: {runs:?}"
    );
}
