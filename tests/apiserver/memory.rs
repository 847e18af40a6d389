//! The simulator's API server in memory, held against this one.

use http::Request;
use kube::client::Body;
use perennial::cluster::Key;
use serde_json::Value;

use crate::{
    api::Api,
    conformance,
    harness::{self, Place},
};

#[test]
fn the_simulators_api_server_answers_as_the_real_one_does() {
    harness::on_cluster(|place: Place| async move {
        let real = conformance::answers(|request, body| {
            let (client, namespace) = (place.client.clone(), place.namespace.clone());
            async move {
                let url = format!("{}?{}", request.url(&namespace), request.query);
                let sent = Request::builder()
                    .method(request.method)
                    .uri(url)
                    .header("content-type", request.content_type)
                    .body(Body::from(if body == "null" {
                        Vec::new()
                    } else {
                        body.into_bytes()
                    }))
                    .unwrap();
                let answer = client.send(sent).await.unwrap();
                let code = answer.status().as_u16();
                let bytes = answer.into_body().collect_bytes().await.unwrap();
                (code, serde_json::from_slice::<Value>(&bytes).unwrap())
            }
        })
        .await;
        let api = std::sync::Mutex::new(Api::new("2026-01-01T00:00:00Z".parse().unwrap(), 1));
        let simulated = conformance::answers(|request, body| {
            let body: Value = serde_json::from_str(&body).unwrap();
            let path = request.url(&place.namespace);
            let (code, answer) =
                api.lock()
                    .unwrap()
                    .serve(request.method, &path, &request.query, &body);
            async move { (code, std::sync::Arc::unwrap_or_clone(answer)) }
        })
        .await;
        let differ: Vec<String> = real
            .iter()
            .zip(&simulated)
            .filter(|(real, simulated)| real != simulated)
            .map(|(real, simulated)| format!("real:      {real}\nsimulated: {simulated}"))
            .collect();
        assert!(differ.is_empty(), "{}", differ.join("\n"));
        // What the script leaves behind is there for both.
        assert!(
            api.lock()
                .unwrap()
                .get(
                    perennial::cluster::Kind::Job,
                    &Key::new(place.namespace.clone(), "j")
                )
                .is_some()
        );
    });
}
