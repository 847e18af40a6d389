//! A prompt asked with rows: by a server that takes what the gateway's internal address takes, and answers by a rule.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::extract::{Path as Route, State};

use super::*;

/// What the server is asked, and does.
#[derive(Default)]
pub(super) struct Rule {
    /// Questions that are answered with this status.
    fails: BTreeMap<&'static str, u16>,
    /// Every answer.
    says: Option<Value>,
    /// The first requests are answered with 429 and this `Retry-After`.
    busy: Option<(usize, &'static str)>,
    asked: Mutex<Vec<(String, Value)>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

impl Rule {
    /// One that has no answer to these questions.
    pub(super) fn failing(questions: &[&'static str]) -> Self {
        Self {
            fails: questions.iter().map(|question| (*question, 500)).collect(),
            ..Self::default()
        }
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Whether no other revision was asked.
    pub(super) fn asked_only(&self, revision: &str) -> bool {
        let asked = self.asked.lock().unwrap();
        !asked.is_empty() && asked.iter().all(|(who, _)| who == revision)
    }
}

async fn answer(
    State(rule): State<Arc<Rule>>,
    Route(revision): Route<String>,
    Json(body): Json<Value>,
) -> Response {
    let open = rule.open.fetch_add(1, Ordering::SeqCst) + 1;
    rule.most_open.fetch_max(open, Ordering::SeqCst);
    let n = {
        let mut asked = rule.asked.lock().unwrap();
        asked.push((revision.clone(), body.clone()));
        asked.len()
    };
    // Long enough that requests meet each other.
    tokio::time::sleep(Duration::from_millis(5)).await;
    rule.open.fetch_sub(1, Ordering::SeqCst);
    if let Some((_, wait)) = rule.busy.filter(|(times, _)| n <= *times) {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", wait)]).into_response();
    }
    let variables = &body["prompt"]["variables"];
    let question = variables["question"].as_str().unwrap_or_default();
    if let Some(status) = rule.fails.get(question) {
        let error = json!({"error": {"message": format!("no answer to {question}"), "type": "x"}});
        return (StatusCode::from_u16(*status).unwrap(), Json(error)).into_response();
    }
    let text = match revision.as_str() {
        "new" => format!("{{\"reply\": \"the answer to {question}\"}}"),
        _ => format!("write to jane@example.org about {question}"),
    };
    let said = json!({
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": if revision == "new" { 20 } else { 10 }},
    });
    Json(rule.says.clone().unwrap_or(said)).into_response()
}

pub(super) async fn serve(rule: Rule) -> (String, Arc<Rule>) {
    let rule = Arc::new(rule);
    let app = Router::new()
        .route("/{revision}/v1/chat/completions", post(answer))
        .with_state(rule.clone());
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), rule)
}

/// The prompt's target: a question that is required, a number and a list that aren't.
pub(super) fn target(base: &str, stable: bool) -> Value {
    let side = |revision: &str, output: f64| {
        json!({
            "url": format!("{base}/{revision}/v1"),
            "variables": {"question": {"required": true}, "count": {"kind": "Plain"}, "context": {"kind": "Json"}, "note": {}},
            "prices": {"inputPerMillion": 1.0, "outputPerMillion": output},
        })
    };
    let stable = stable.then(|| side("old", 10.0));
    json!({"prompt": {"release": "reply", "own": side("new", 10.0), "stable": stable}})
}

pub(super) fn spec(target: Value, evaluators: Value) -> Value {
    json!({
        "target": target, "dataset": {"uri": "pvc://q/questions.jsonl"}, "textReference": "reference",
        "evaluators": evaluators, "requests": {"retries": 0},
    })
}

pub(super) fn questions(n: usize) -> String {
    let line = |i: usize| {
        json!({"id": i, "question": format!("q{i}"), "count": i, "context": "[1, 2]", "note": 7, "reference": format!("the answer to q{i}")}).to_string() + "\n"
    };
    (0..n).map(line).collect()
}

fn found<'a>(report: &'a Report, name: &str) -> &'a MetricValue {
    let metric = report.metrics.iter().find(|m| m.name == name);
    metric.unwrap_or_else(|| panic!("no {name} in {:?}", report.metrics))
}

#[tokio::test]
async fn a_prompt_is_measured_beside_stable_on_the_same_rows() {
    let pod = pod(&[("dataset/questions.jsonl", &questions(40))]);
    let (base, rule) = serve(Rule::default()).await;
    let evaluators = json!([
        {"text": {"metrics": ["tokenF1", "contains", "bleu"]}}, {"pii": {}},
        {"jsonSchema": {"schema": {"type": "object", "required": ["reply"]}}},
    ]);
    let report = pod
        .run(spec(target(&base, true), evaluators))
        .await
        .unwrap();
    assert_eq!(report.summary.rows, Some(40));
    for (name, own, stable) in [
        ("contains", 1.0, 0.0),
        ("jsonSchemaRate", 1.0, 0.0),
        ("piiRate", 0.0, 1.0),
        ("tokensPerRequest", 120.0, 110.0),
        ("costPerRequest", 0.0003, 0.0002),
        ("unansweredRows", 0.0, 0.0),
        ("unansweredShare", 0.0, 0.0),
    ] {
        let theirs = format!("stable.{name}");
        assert!((value(&report, name) - own).abs() < 1e-9, "{name}");
        assert!((value(&report, &theirs) - stable).abs() < 1e-9, "{theirs}");
        assert_eq!(found(&report, name).samples, Some(40));
    }
    let difference = found(&report, "difference.costPerRequest");
    assert!((difference.value.unwrap() - 0.0001).abs() < 1e-9);
    assert!(value(&report, "tokenF1") > value(&report, "stable.tokenF1"));
    assert!(value(&report, "bleu") > value(&report, "stable.bleu"));
    let latency = found(&report, "latencyP95");
    assert!(latency.value.unwrap() >= 0.005 && latency.lower.is_some());
    assert_eq!(report.summary.tokens, Some(40 * 230));
    assert!((report.summary.cost.unwrap() - 40.0 * 0.0005).abs() < 1e-9);
    // What was sent: the variables as the prompt takes them, and no other column.
    let asked = rule.asked.lock().unwrap();
    assert_eq!(asked.len(), 80);
    let revisions: BTreeSet<&str> = asked.iter().map(|(r, _)| r.as_str()).collect();
    assert_eq!(revisions, BTreeSet::from(["new", "old"]));
    let third = asked
        .iter()
        .find(|(_, body)| body["prompt"]["variables"]["question"] == "q3");
    assert_eq!(
        third.unwrap().1,
        json!({"model": "reply", "prompt": {"id": "reply", "variables": {"question": "q3", "count": 3, "context": [1, 2], "note": "7"}}})
    );
}

#[tokio::test]
async fn a_prompt_that_places_the_callers_message_gets_the_column_input() {
    let pod = pod(&[("dataset/questions.jsonl", "{\"input\": \"hello\"}\n")]);
    let (base, rule) = serve(Rule::default()).await;
    let target = json!({"prompt": {"release": "reply", "own": {"url": format!("{base}/new/v1"), "variables": {}, "message": true}}});
    let mut spec = spec(target, json!([]));
    spec["textReference"] = Value::Null;
    let report = pod.run(spec).await.unwrap();
    assert_eq!(
        rule.asked.lock().unwrap()[0].1["messages"],
        json!([{"role": "user", "content": "hello"}])
    );
    // Without prices there is no cost, and the reason is said.
    let cost = found(&report, "costPerRequest");
    assert_eq!(cost.value, None);
    assert!(cost.message.as_ref().unwrap().contains("backend.prices"));
}

#[tokio::test]
async fn data_that_the_prompt_can_not_be_asked_with_is_named_before_anything_is_asked() {
    let (base, rule) = serve(Rule::default()).await;
    for (data, words) in [
        (
            "{\"frage\": \"q\", \"reference\": \"r\"}\n",
            "the prompt needs the variable `question`, and the dataset has no column of that name: it has frage, reference",
        ),
        (
            "{\"question\": \"q\", \"reference\": \"r\"}\n{\"question\": null, \"reference\": \"r\"}\n",
            "row 2 of the dataset has no `question`, which the prompt requires",
        ),
        (
            "{\"question\": \"q\", \"context\": \"[1\", \"reference\": \"r\"}\n",
            "`context` is a list or object of the prompt, and isn't written as JSON",
        ),
    ] {
        let pod = pod(&[("dataset/questions.jsonl", data)]);
        let spec = spec(target(&base, false), json!([]));
        let failure = pod.run(spec).await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.permanent),
            ("InputUnreadable", true)
        );
        assert!(failure.message.contains(words), "{}", failure.message);
    }
    assert!(rule.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn answers_that_do_not_come_are_counted_and_never_scored() {
    let f1 = || json!([{"text": {"metrics": ["contains"]}}]);
    let data = pod(&[("dataset/questions.jsonl", &questions(50))]);
    let (base, _) = serve(Rule {
        fails: BTreeMap::from([("q7", 500)]),
        ..Rule::default()
    })
    .await;
    let mut some = spec(target(&base, true), f1());
    some["maxItemErrors"] = json!(0.02);
    let report = data.run(some.clone()).await.unwrap();
    // The row counts on neither side.
    assert_eq!(report.summary.rows, Some(49));
    assert_eq!(value(&report, "contains"), 1.0);
    assert_eq!(value(&report, "unansweredRows"), 1.0);
    assert_eq!(value(&report, "stable.unansweredShare"), 0.02);
    some["maxItemErrors"] = json!(0.01);
    let failure = data.run(some).await.unwrap_err();
    assert_eq!(
        (failure.reason, failure.inconclusive, failure.permanent),
        ("TooManyUnanswered", true, false)
    );
    assert!(
        failure
            .message
            .contains("1 of 50 rows are without an answer")
            && failure.message.contains("no answer to q7"),
        "{}",
        failure.message
    );
    let three = pod(&[("dataset/questions.jsonl", &questions(3))]);
    let all = |status| BTreeMap::from([("q0", status), ("q1", status), ("q2", status)]);
    let nonsense = |value: Value| Rule {
        says: Some(value),
        ..Rule::default()
    };
    let fails = |status| Rule {
        fails: all(status),
        ..Rule::default()
    };
    for (rule, reason, permanent, words) in [
        (fails(500), "TargetUnreachable", false, "it answers 500"),
        (
            fails(400),
            "TargetRefused",
            true,
            "it answers 400: no answer to q",
        ),
        (
            nonsense(json!({"ok": true})),
            "TargetUnreachable",
            false,
            "no `choices`",
        ),
        (
            nonsense(
                json!({"choices": [{"message": {"content": null}, "finish_reason": "tool_calls"}]}),
            ),
            "TargetUnreachable",
            false,
            "no text (finish_reason: tool_calls)",
        ),
    ] {
        let (base, _) = serve(rule).await;
        let failure = three
            .run(spec(target(&base, false), f1()))
            .await
            .unwrap_err();
        assert_eq!((failure.reason, failure.permanent), (reason, permanent));
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_target_is_asked_as_the_spec_says() {
    let pod = pod(&[("dataset/questions.jsonl", &questions(30))]);
    let with = |base: &str, requests: Value| {
        let mut spec = spec(target(base, false), json!([]));
        spec["requests"] = requests;
        spec
    };
    let (base, rule) = serve(Rule::default()).await;
    pod.run(with(&base, json!({"concurrency": 3})))
        .await
        .unwrap();
    assert_eq!(rule.most_open.load(Ordering::SeqCst), 3);
    let (base, _) = serve(Rule::default()).await;
    let begun = Instant::now();
    let slow = json!({"concurrency": 30, "perSecond": 100});
    pod.run(with(&base, slow)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(290), "29 pauses");
    // Busy, it is asked again when it says, not earlier.
    let (base, rule) = serve(Rule {
        busy: Some((1, "1")),
        ..Rule::default()
    })
    .await;
    let begun = Instant::now();
    let report = pod.run(with(&base, json!({"retries": 1}))).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(value(&report, "unansweredRows"), 0.0);
    assert_eq!(rule.asked.lock().unwrap().len(), 31);
    // Too slow is no answer.
    let (base, _) = serve(Rule::default()).await;
    let hasty = json!({"timeout": "1ms", "retries": 0});
    let failure = pod.run(with(&base, hasty)).await.unwrap_err();
    assert_eq!(failure.reason, "TargetUnreachable");
}

#[tokio::test]
async fn endpoints_are_asked_for_texts_or_for_predictions() {
    let texts = pod(&[(
        "dataset/questions.jsonl",
        "{\"input\": \"hello\", \"reference\": \"write to jane@example.org about\"}\n",
    )]);
    let (base, rule) = serve(Rule::default()).await;
    let endpoint = json!({"endpoint": {"url": format!("{base}/any/v1/"), "protocol": "OpenAI", "model": "small"}});
    let exact = json!([{"text": {"metrics": ["tokenF1"]}}, {"pii": {}}]);
    let report = texts.run(spec(endpoint, exact)).await.unwrap();
    assert_eq!(
        (value(&report, "tokenF1"), value(&report, "piiRate")),
        (1.0, 1.0)
    );
    assert_eq!(
        rule.asked.lock().unwrap()[0].1,
        json!({"model": "small", "messages": [{"role": "user", "content": "hello"}]})
    );
    let rows = pod(&[("dataset/holdout.csv", &rows())]);
    let url = Server::default().start().await;
    let mut spec = model(&url, None);
    spec["target"] = json!({"endpoint": {"url": url, "protocol": "OpenInference"}});
    let report = rows.run(spec.clone()).await.unwrap();
    assert!(value(&report, "rocAuc") > 0.75);
    // Of several models the one that is named.
    spec["target"]["endpoint"]["model"] = json!("churn");
    assert!(value(&rows.run(spec).await.unwrap(), "rocAuc") > 0.75);
}
