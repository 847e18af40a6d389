//! Feedback on answers, by the ids that they carry.

use serde_json::{Value, json};

use crate::harness::*;

const ID: &str = "x-perennial-request-id";

async fn give(gateway: &Harness, body: Value) -> Answer {
    call(&gateway.http, post(gateway.url("/v1/feedback"), &body)).await
}

#[tokio::test]
async fn a_score_counts_once_for_the_revision_caller_and_epoch_of_its_answer() {
    let gateway = Harness::start(settings(None)).await;
    gateway
        .model(&[named("{}").await], &[named("{}").await])
        .await;
    gateway.weight(0, 1).await;
    let mut ids = Vec::new();
    for key in [Some("a"), Some("a"), Some("b"), None] {
        let answer = gateway.get("/x", key).await;
        ids.push(answer.header(ID).to_owned());
    }
    let unique: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), 4);

    // Whatever is routed how when the score comes.
    gateway.weight(100, 2).await;
    for (id, score) in ids.iter().zip([1.0, 0.5, 0.2, 0.0]) {
        let answer = give(&gateway, json!({"id": id, "score": score})).await;
        assert_eq!(
            (answer.status, answer.text()),
            (204, ""),
            "{}",
            answer.text()
        );
    }
    let again = give(&gateway, json!({"id": ids[0], "score": 0})).await;
    assert_eq!(again.status, 409, "{}", again.text());
    let buckets = gateway.buckets().await.buckets;
    let scored: Vec<_> = buckets
        .iter()
        .filter(|b| b.traffic.feedback.callers() > 0)
        .collect();
    assert!(scored.iter().all(|b| b.epoch == 1 && b.revision == STABLE));
    let mut all = perennial::stats::bucket::Traffic::default();
    scored.iter().for_each(|b| all.merge(&b.traffic));
    let units = all.feedback.score_units();
    assert_eq!((units.callers, units.requests), (3, 4));
    assert!((units.sum - (0.75 + 0.2)).abs() < 1e-9, "{units:?}");
    assert_eq!(gateway.count("perennial_gateway_feedback_total").await, 4);
}

#[tokio::test]
async fn what_is_no_feedback_is_refused_with_a_sentence_and_another_process_knows_the_ids_too() {
    let gateway = Harness::start(settings(None)).await;
    gateway.model(&[named("{}").await], &[]).await;
    gateway.weight(0, 1).await;
    let id = gateway.get("/x", Some("a")).await.header(ID).to_owned();
    let forged = format!("{}00", &id[..id.len() - 2]);
    for (body, status, words) in [
        (json!({"score": 1}), 400, "x-perennial-request-id"),
        (json!({"id": id, "score": 2}), 400, "from 0"),
        (json!({"id": id}), 400, "from 0"),
        (json!({"id": id, "score": "good"}), 400, "from 0"),
        (json!({"id": "abc", "score": 1}), 404, "no id of an answer"),
        (json!({"id": forged, "score": 1}), 404, "no id of an answer"),
    ] {
        let answer = give(&gateway, body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
    }

    let other = Harness::start(settings(None)).await;
    other.model(&[named("{}").await], &[]).await;
    other.weight(0, 1).await;
    let answer = give(&other, json!({"id": id, "score": 1})).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let traffic = other.traffic(STABLE).await;
    assert_eq!(traffic.feedback.callers(), 1);
}
