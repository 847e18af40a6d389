//! Rankings of a file's rows.

use super::*;

/// Three questions: the relevant item first, third, and none.
const ITEMS: &str = "question,item,score,relevance\n\
    a,1,0.9,1\na,2,0.5,0\na,3,0.1,0\n\
    b,1,0.2,2\nb,2,0.8,0\nb,3,0.4,0\n\
    c,1,0.3,0\nc,2,0.2,0\n";

fn ranked(label: &str, evaluators: Value) -> Value {
    json!({
        "target": {"predictions": {"uri": "pvc://f/items.csv", "prediction": "score"}},
        "label": label,
        "evaluators": evaluators,
    })
}

#[tokio::test]
async fn a_ranking_is_a_mean_over_questions_that_have_an_answer() {
    let pod = pod(&[("predictions/items.csv", ITEMS)]);
    let spec = ranked(
        "relevance",
        json!([{"retrieval": {"question": "question", "k": 2}}, {"regression": {}}]),
    );
    let report = pod.run(spec).await.unwrap();
    // Places 1 and 3; of b nothing is among the first two.
    for (name, expected) in [
        ("retrieval.mrr", (1.0 + 1.0 / 3.0) / 2.0),
        ("retrieval.map", (1.0 + 1.0 / 3.0) / 2.0),
        ("retrieval.ndcg", 0.5),
        ("retrieval.recall", 0.5),
        ("retrieval.precision", 0.25),
        // One of three, anywhere: (1 + 1/2 + 1/3) / 3.
        ("baseline.retrieval.mrr", 11.0 / 18.0),
        ("baseline.retrieval.recall", 2.0 / 3.0),
    ] {
        let found = report.metrics.iter().find(|m| m.name == name).unwrap();
        assert!(
            (found.value.unwrap() - expected).abs() < 1e-12,
            "{name}: {found:?}"
        );
        assert_eq!(found.samples, Some(2), "{name}: questions are the samples");
    }
}

#[tokio::test]
async fn what_can_not_be_ranked_is_told() {
    let pod = pod(&[(
        "predictions/items.csv",
        "question,score,worth,kind\na,0.9,-1,x\nb,0.4,2.5,y\n,0.1,1,z\n",
    )]);
    for (label, question, message) in [
        ("worth", "score", "one is worth -1"),
        ("kind", "question", "it has several classes"),
        ("score", "question", "row 3 has no `question`"),
        ("score", "nowhere", "nowhere"),
    ] {
        let mut spec = ranked(label, json!([{"retrieval": {"question": question}}]));
        if label == "kind" {
            spec["target"]["predictions"]["prediction"] = json!("kind");
        }
        let failure = pod.run(spec).await.unwrap_err();
        assert!(failure.message.contains(message), "{}", failure.message);
        assert!(failure.permanent);
    }
}
