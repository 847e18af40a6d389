//! Asking no more rows than the gates need.

use super::*;

fn spec(base: &str, stable: bool, gates: Value) -> Value {
    let metrics = json!([{"text": {"metrics": ["contains", "bleu"]}}]);
    let mut spec = prompts::spec(prompts::target(base, stable), metrics);
    spec["gates"] = gates;
    spec["stopWhen"] = json!({"precision": 0.02});
    spec
}

fn found<'a>(report: &'a Report, name: &str) -> &'a MetricValue {
    let metric = report.metrics.iter().find(|m| m.name == name);
    metric.unwrap_or_else(|| panic!("no {name} in {:?}", report.metrics))
}

#[tokio::test]
async fn what_fifty_rows_decide_takes_fifty_rows_and_intervals_are_those_of_every_look() {
    let pod = pod(&[("dataset/questions.jsonl", &prompts::questions(400))]);
    let (base, rule) = prompts::serve(prompts::Rule::default()).await;
    let gates =
        json!([{"metric": "contains", "min": 0.8, "minDifference": 0.5, "proof": "Safety"}]);
    let spec = pod.spec(&spec(&base, true, gates));
    let measured = measure(spec.clone(), &pod.places).await.unwrap();
    let report = &measured.report;
    assert_eq!(
        report.summary.rows,
        Some(50),
        "{:?}",
        measured.details.notes
    );
    assert_eq!(report.summary.not_asked, Some(350));
    assert_eq!(rule.asked(), 100, "both sides");
    assert!(measured.details.notes[0].contains("50 of 400 rows were asked"));
    let contains = found(report, "contains");
    assert_eq!((contains.value, contains.samples), (Some(1.0), Some(50)));
    let lower = contains.lower.unwrap();
    assert!(
        (0.8..0.95).contains(&lower),
        "wider than one that looks once: {lower}"
    );
    let difference = found(report, "difference.contains");
    assert_eq!((difference.value, difference.p_value), (Some(1.0), None));
    assert!(difference.lower.unwrap() > 0.5);
    // What has no such interval has none.
    for name in ["bleu", "latencyP95", "tokensPerRequest"] {
        assert_eq!(found(report, name).lower, None, "{name}");
    }
    let judged = publish::judge(&spec, &measured);
    assert_eq!(
        judged.verdict,
        crate::api::gate::Verdict::Passed,
        "{}",
        judged.message
    );
}

#[tokio::test]
async fn where_a_gate_stays_open_all_rows_are_asked_and_a_note_says_why() {
    let pod = pod(&[("dataset/questions.jsonl", &prompts::questions(120))]);
    for (gates, words) in [
        (json!([{"metric": "contains", "min": 0.99}]), "[0."),
        (
            json!([{"metric": "contains", "min": 0.5}, {"metric": "costPerRequest", "max": 1.0}]),
            "the gate on costPerRequest has no interval",
        ),
    ] {
        let (base, rule) = prompts::serve(prompts::Rule::default()).await;
        let spec = pod.spec(&spec(&base, false, gates));
        let measured = measure(spec, &pod.places).await.unwrap();
        assert_eq!(rule.asked(), 120);
        assert_eq!(measured.report.summary.not_asked, None);
        let note = &measured.details.notes[0];
        assert!(
            note.starts_with("stopWhen: all rows were asked, as") && note.contains(words),
            "{note}"
        );
    }
}

#[tokio::test]
async fn rows_without_an_answer_keep_it_from_stopping_and_too_many_of_them_are_no_verdict() {
    let pod = pod(&[("dataset/questions.jsonl", &prompts::questions(200))]);
    let gates = json!([{"metric": "contains", "min": 0.5}]);
    let some = [
        "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11",
    ];
    for (failing, stops) in [(some.to_vec(), false), (vec![], true)] {
        let (base, rule) = prompts::serve(prompts::Rule::failing(&failing)).await;
        let mut spec = spec(&base, false, gates.clone());
        spec["maxItemErrors"] = json!(0.01);
        let done = pod.run(spec).await;
        match (done, stops) {
            (Ok(report), true) => assert_eq!(report.summary.rows, Some(50)),
            (Err(failure), false) => {
                assert!(failure.inconclusive, "{failure:?}");
                assert_eq!(failure.reason, "TooManyUnanswered");
            }
            other => panic!("{failing:?}: {other:?} after {}", rule.asked()),
        }
    }
}
