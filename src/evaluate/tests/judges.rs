//! Judges: a stand-in that judges by a rule, and one that misbehaves. It is no language model.

use std::sync::Mutex;

use axum::extract::State;

use super::*;

/// How the stand-in behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    /// Yes if every word of the answer is in the other parts.
    #[default]
    Sound,
    /// Always yes.
    Kind,
    /// Of a pair the first is better, whatever it is.
    First,
    /// Of a pair the one in JSON is better.
    Fair,
    /// No JSON.
    Nonsense,
    /// It declines.
    Declines,
    /// 500.
    Down,
    /// 401.
    Locked,
    /// 400 to a request with `response_format`.
    Plain,
    /// Now yes, now no.
    Torn,
    /// It thinks for ever.
    Slow,
    /// Sound in the heartbeat before, kind afterwards.
    Tires,
}

struct StandIn {
    mood: Mood,
    asked: Mutex<Vec<Value>>,
}

/// The parts of the message, by name.
fn parts(body: &Value) -> Vec<(String, String)> {
    let message = body["messages"][1]["content"].as_str().unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in message.lines() {
        match line
            .strip_prefix("==== ")
            .and_then(|l| l.strip_suffix(" ===="))
        {
            Some(mark) => found.push((mark.split(' ').nth(1).unwrap().to_owned(), String::new())),
            None => found.last_mut().unwrap().1 += &format!("{line} "),
        }
    }
    found.pop();
    found
}

fn supported(parts: &[(String, String)]) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .filter(|w| w.len() > 3)
            .map(str::to_owned)
            .collect()
    };
    let (answer, rest) = parts.split_last().unwrap();
    let known: Vec<String> = rest.iter().flat_map(|(_, text)| words(text)).collect();
    // Endings aside.
    let alike = |a: &str, b: &str| a.chars().take(4).eq(b.chars().take(4));
    words(&answer.1)
        .iter()
        .all(|w| known.iter().any(|k| alike(w, k)))
}

async fn judge(State(own): State<Arc<StandIn>>, Json(body): Json<Value>) -> Response {
    let n = {
        let mut asked = own.asked.lock().unwrap();
        asked.push(body.clone());
        asked.len()
    };
    let said = |text: String| {
        let usage = json!({"prompt_tokens": 50, "completion_tokens": 10});
        let choice = json!({"message": {"content": text}, "finish_reason": "stop"});
        Json(json!({"choices": [choice], "usage": usage})).into_response()
    };
    let parts = parts(&body);
    let sound = || i32::from(supported(&parts));
    let verdict = match own.mood {
        Mood::Nonsense => return said("The answer is quite good, 8/10.".to_owned()),
        Mood::Declines => return said("I'm sorry, but I can't help with that.".to_owned()),
        Mood::Slow => {
            tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
            0
        }
        Mood::Down => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Locked => return StatusCode::UNAUTHORIZED.into_response(),
        Mood::Plain if !body["response_format"].is_null() => {
            return StatusCode::BAD_REQUEST.into_response();
        }
        Mood::Sound | Mood::Plain => sound(),
        Mood::Kind => 1,
        Mood::First => 1,
        // The question, then the two answers.
        Mood::Fair if parts[1].1.contains("reply") => 1,
        Mood::Fair => 2,
        // By the sample, not by the time.
        Mood::Torn => i32::from(body["seed"].as_i64().unwrap() % 2 == 1),
        Mood::Tires if n <= 40 => sound(),
        Mood::Tires => 1,
    };
    said(json!({"evidence": "as it says", "verdict": verdict}).to_string())
}

async fn stand_in(mood: Mood) -> (String, Arc<StandIn>) {
    let own = Arc::new(StandIn {
        mood,
        asked: Mutex::default(),
    });
    let app = Router::new()
        .route("/v1/chat/completions", post(judge))
        .with_state(own.clone());
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}/v1"), own)
}

/// Answers of which every fourth says what the context doesn't.
fn answers(n: usize) -> String {
    let line = |i: usize| {
        let answer = match i % 4 {
            0 => format!("luggage number {i} travels free of charge with elephants"),
            _ => format!("luggage number {i} travels free of charge"),
        };
        json!({"id": i, "context": format!("Every luggage, number {i} too, travels free of charge."), "prediction": answer}).to_string() + "\n"
    };
    (0..n).map(line).collect()
}

fn spec(url: &str, more: Value) -> Value {
    let mut judge = json!({
        "name": "grounded", "preset": "Groundedness", "input": ["context"],
        "backend": {"url": url, "model": "stand-in", "prices": {"inputPerMillion": 1.0, "outputPerMillion": 10.0}},
    });
    for (key, value) in more.as_object().unwrap() {
        judge[key] = value.clone();
    }
    json!({
        "target": {"predictions": {"uri": "pvc://f/answers.jsonl"}},
        "evaluators": [{"judge": judge}], "requests": {"retries": 0, "concurrency": 8},
    })
}

fn metric<'a>(report: &'a Report, name: &str) -> &'a MetricValue {
    let found = report.metrics.iter().find(|m| m.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", report.metrics))
}

fn gate(report: &Report, gate: Value) -> (crate::api::gate::Verdict, String) {
    let gate = serde_json::from_value(gate).unwrap();
    let judged = crate::api::verdict::judge(&gate, &report.metrics);
    (judged.verdict, judged.message)
}

#[tokio::test]
async fn a_judge_scores_answers_and_says_what_it_cost() {
    let pod = pod(&[("predictions/answers.jsonl", &answers(40))]);
    for mood in [Mood::Sound, Mood::Plain] {
        let (url, asked) = stand_in(mood).await;
        let measured = measure(pod.spec(&spec(&url, json!({}))), &pod.places)
            .await
            .unwrap();
        let report = &measured.report;
        assert_eq!(value(report, "grounded"), 0.75, "{mood:?}");
        let interval = metric(report, "grounded");
        assert!(interval.lower.unwrap() < 0.75 && interval.upper.unwrap() > 0.75);
        for name in ["errors", "refusals", "disagreement"] {
            assert_eq!(value(report, &format!("grounded.{name}")), 0.0);
        }
        // Forty answers and two heartbeats of four, each three times; before them one to find out what the backend takes.
        let calls = asked.asked.lock().unwrap().len();
        assert!((144..=150).contains(&calls), "{calls}");
        assert!(value(report, "grounded.tokens") >= 144.0 * 60.0);
        assert!(value(report, "grounded.cost") > 0.0);
        assert_eq!(
            report.summary.tokens,
            Some(value(report, "grounded.tokens") as i64)
        );
        let worst = &measured.details.examples[0];
        assert!(worst.why.contains("as it says") && worst.answer.contains("elephants"));
        assert!(
            measured
                .details
                .notes
                .iter()
                .any(|n| n.contains("write calibration"))
        );
    }
}

#[tokio::test]
async fn a_judge_that_errs_is_never_a_score() {
    use crate::api::gate::Verdict;
    let pod = pod(&[("predictions/answers.jsonl", &answers(12))]);
    let floor = || json!({"metric": "grounded", "min": 0.0});
    // What it must know it doesn't: nothing else is asked.
    for (mood, words) in [
        (
            Mood::Kind,
            "of heartbeat 3 judge grounded says 1 where 0 is right",
        ),
        (Mood::Nonsense, "gives no verdict"),
        (Mood::Declines, "it declines to judge"),
    ] {
        let (url, _) = stand_in(mood).await;
        let report = pod.run(spec(&url, json!({}))).await.unwrap();
        assert_eq!(metric(&report, "grounded").value, None, "{mood:?}");
        let (verdict, message) = gate(&report, floor());
        assert_eq!(verdict, Verdict::Inconclusive, "{message}");
        assert!(
            message.contains("JudgeDegraded") && message.contains(words),
            "{message}"
        );
    }
    // Without a heartbeat its errors are counted.
    let own = |more: Value| {
        let mut judge = json!({"preset": null, "rubric": "Is it supported?"});
        for (key, value) in more.as_object().unwrap() {
            judge[key] = value.clone();
        }
        judge
    };
    for (mood, words) in [
        (
            Mood::Nonsense,
            "12 of 12 questions have no verdict of judge grounded (0 of them refused)",
        ),
        (Mood::Declines, "(12 of them refused)"),
    ] {
        let (url, _) = stand_in(mood).await;
        let report = pod.run(spec(&url, own(json!({})))).await.unwrap();
        assert_eq!(metric(&report, "grounded").value, None);
        assert_eq!(value(&report, "grounded.errors"), 1.0);
        let (verdict, message) = gate(&report, floor());
        assert_eq!(verdict, Verdict::Inconclusive);
        assert!(message.contains(words), "{message}");
    }
    let (url, _) = stand_in(Mood::Torn).await;
    let report = pod.run(spec(&url, own(json!({})))).await.unwrap();
    assert_eq!(value(&report, "grounded.disagreement"), 1.0);
    // Down is tried again by another run; what is refused isn't.
    for (mood, reason, inconclusive) in [
        (Mood::Down, "JudgeUnavailable", true),
        (Mood::Locked, "JudgeRefused", false),
    ] {
        let (url, _) = stand_in(mood).await;
        let failure = pod.run(spec(&url, json!({}))).await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.inconclusive, failure.permanent),
            (reason, inconclusive, !inconclusive)
        );
    }
    // It knew before, and not afterwards: what it said in between counts for nothing.
    let (url, _) = stand_in(Mood::Tires).await;
    let report = pod.run(spec(&url, json!({}))).await.unwrap();
    assert!(
        metric(&report, "grounded")
            .message
            .as_ref()
            .unwrap()
            .contains("JudgeDegraded")
    );
}

#[tokio::test]
async fn a_judge_gates_only_if_people_agree_with_it() {
    use crate::api::gate::Verdict;
    let labels = |wrong: usize| -> String {
        let line = |i: usize| {
            let mut answer: Value =
                serde_json::from_str(answers(i + 1).lines().last().unwrap()).unwrap();
            answer["answer"] = answer["prediction"].clone();
            answer["label"] = json!(i32::from(i.is_multiple_of(4) == (i < wrong)));
            answer.to_string() + "\n"
        };
        (0..60).map(line).collect()
    };
    let (url, _) = stand_in(Mood::Sound).await;
    let floor = || json!({"metric": "grounded", "min": 0.5});
    for (wrong, verdict) in [(0, Verdict::Passed), (30, Verdict::Inconclusive)] {
        let pod = pod(&[
            ("predictions/answers.jsonl", &answers(40)),
            ("calibration-0/labels.jsonl", &labels(wrong)),
        ]);
        let calibration =
            json!({"calibration": {"dataset": {"uri": "pvc://f/labels.jsonl"}, "minKappa": 0.6}});
        let report = pod.run(spec(&url, calibration)).await.unwrap();
        // The number is there in any case.
        assert_eq!(value(&report, "grounded"), 0.75);
        let (is, message) = gate(&report, floor());
        assert_eq!(is, verdict, "{message}");
        let kappa = metric(&report, "grounded.kappa");
        if wrong == 0 {
            assert_eq!(kappa.value, Some(1.0));
            assert_eq!(value(&report, "grounded.agreement"), 1.0);
            // A judge without errors corrects nothing.
            assert_eq!(value(&report, "grounded.corrected"), 0.75);
        } else {
            assert!(
                message.contains("JudgeNotCalibrated") && message.contains("minKappa asks for 0.6"),
                "{message}"
            );
            assert_eq!(value(&report, "grounded.agreement"), 0.5);
        }
        assert!(
            report
                .datasets
                .iter()
                .any(|d| d.name == "calibration-0" && d.rows == Some(60))
        );
    }
    let pod = pod(&[
        ("predictions/answers.jsonl", &answers(4)),
        (
            "calibration-0/labels.jsonl",
            "{\"context\": \"c\", \"answer\": \"a\", \"label\": 7}\n",
        ),
    ]);
    let calibration = json!({"calibration": {"dataset": {"uri": "pvc://f/labels.jsonl"}}});
    let failure = pod.run(spec(&url, calibration)).await.unwrap_err();
    assert!(
        failure
            .message
            .contains("people's verdicts are numbers from 0 to 1"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn of_two_answers_the_order_decides_nothing() {
    use crate::api::gate::Verdict;
    let data = pod(&[("dataset/questions.jsonl", &prompts::questions(10))]);
    let (base, _) = prompts::serve(prompts::Rule::default()).await;
    let pairs = |judge: &str, stable: bool| {
        let judge = json!({"name": "preference", "rubric": "Which is the better answer?", "pairwise": true, "input": ["question"], "backend": {"url": judge, "model": "stand-in"}});
        prompts::spec(prompts::target(&base, stable), json!([{"judge": judge}]))
    };
    let half = || json!({"metric": "preference", "min": 0.6});
    for (mood, wins, flips, verdict) in [
        (Mood::First, 0.5, 1.0, Verdict::Failed),
        (Mood::Fair, 1.0, 0.0, Verdict::Passed),
    ] {
        let (url, _) = stand_in(mood).await;
        let report = data.run(pairs(&url, true)).await.unwrap();
        assert_eq!(value(&report, "preference"), wins, "{mood:?}");
        assert_eq!(value(&report, "stable.preference"), 1.0 - wins);
        assert_eq!(value(&report, "preference.flips"), flips);
        assert_eq!(gate(&report, half()).0, verdict);
    }
    // The first revision has nobody to be better than.
    let (url, asked) = stand_in(Mood::Fair).await;
    let report = data.run(pairs(&url, false)).await.unwrap();
    assert_eq!(gate(&report, half()).0, Verdict::Passed);
    assert!(asked.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_judge_that_thinks_for_longer_than_its_own_timeout_is_not_waited_for() {
    let pod = pod(&[("predictions/answers.jsonl", &answers(4))]);
    let (url, _) = stand_in(Mood::Slow).await;
    let backend = json!({"url": url, "model": "stand-in", "timeout": "200ms"});
    let run = pod.run(spec(&url, json!({"backend": backend})));
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), run).await;
    let failure = ended.expect("it is given up").unwrap_err();
    assert_eq!(failure.reason, "JudgeUnavailable");
}
