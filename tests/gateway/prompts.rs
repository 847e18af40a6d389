//! PromptReleases: rendered, called, streamed, counted. The LLM is a server of these tests.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use futures::stream;
use http_body_util::BodyExt;
use perennial::gateway::objects::Source;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::*;

const PROMPT: &str = "p-0000-0001";

fn release(port: u16, weight: i32, epoch: i64) -> Value {
    json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease",
        "metadata": {"name": "support", "uid": PROMPT},
        "status": {
            "stable": {"revision": STABLE, "version": "sha-1"}, "candidate": {"revision": CANDIDATE, "version": "sha-2"},
            "rollout": {"weight": weight, "epoch": epoch}, "gateway": {"port": port},
        },
    })
}

fn revision(hash: &str, content: &str, backend: Value) -> Value {
    let version = if hash == STABLE { "sha-1" } else { "sha-2" };
    json!({
        "metadata": {"name": format!("support-{hash}"), "ownerReferences": [
            {"apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease", "name": "support", "uid": PROMPT, "controller": true}]},
        "data": {"version": version, "backend": backend, "prompt": {
            "messages": [{"role": "user", "content": content}], "parameters": {"temperature": 0.5},
            "variables": {"type": "object", "required": ["question"], "properties": {"question": {"type": "string", "maxLength": 40}}}}},
    })
}

fn backend(address: std::net::SocketAddr) -> Value {
    json!({"url": format!("http://{address}/v1"), "model": "llama", "timeout": "500ms", "prices": {"inputPerMillion": 1, "outputPerMillion": 2, "currency": "USD"}})
}

async fn gateway(
    stable: Value,
    candidate: Value,
    weight: i32,
    state: Option<&std::path::Path>,
) -> Harness {
    let gateway = Harness::start(settings(state)).await;
    gateway.put(Source::Revisions, stable).await;
    gateway.put(Source::Revisions, candidate).await;
    gateway
        .put(Source::Prompts, release(gateway.port, weight, 1))
        .await;
    until("the prompt is served", || async {
        let epochs = gateway.epochs().await;
        epochs
            .releases
            .get(PROMPT)
            .filter(|r| r.epoch == 1)
            .map(|_| ())
    })
    .await;
    gateway
}

fn ask(gateway: &Harness, extra: Value) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut body = json!({"model": "support", "prompt": {"id": "support", "variables": {"question": "Why?"}}, "user": "u-1"});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    post(gateway.url("/v1/chat/completions"), &body)
}

const CHUNKS: [&str; 4] = [
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n",
    "data: [DONE]\n\n",
];

/// An LLM that answers with the message it was sent, as a stream when asked; each chunk only when it is told to.
async fn llm(seen: Seen, go: watch::Receiver<usize>) -> std::net::SocketAddr {
    server(move |request: Request| {
        let (seen, go) = (seen.clone(), go.clone());
        async move {
            seen.note(request).await;
            let body: Value = serde_json::from_slice(&seen.last().1).unwrap();
            let content = body["messages"][0]["content"].as_str().unwrap();
            if content.contains("fail") {
                return Response::builder().status(500).body("{\"error\":{\"message\":\"no\"}}".into()).unwrap();
            }
            if body["stream"] == true {
                let chunks = stream::unfold((0, go), |(i, mut go)| async move {
                    go.wait_for(|n| *n >= i).await.ok()?;
                    Some((Ok::<_, Infallible>(*CHUNKS.get(i)?), (i + 1, go)))
                });
                return Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(chunks)).unwrap();
            }
            let answer = json!({"choices": [{"message": {"role": "assistant", "content": content}}], "usage": {"prompt_tokens": 11, "completion_tokens": 5}});
            Response::builder().header("content-type", "application/json").body(answer.to_string().into()).unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn a_prompt_is_rendered_and_the_answer_says_which_version_gave_it() {
    let (seen, (_go, told)) = (Seen::default(), watch::channel(9));
    let llm = llm(seen.clone(), told).await;
    let gateway = gateway(
        revision(STABLE, "Q: {{ question }}", backend(llm)),
        revision(CANDIDATE, "x {{ question }}", backend(llm)),
        0,
        None,
    )
    .await;
    let answer = call(
        &gateway.http,
        ask(&gateway, json!({"temperature": 2, "metadata": {"a": "b"}})),
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "Q: Why?");
    assert_eq!(
        (
            answer.header("x-perennial-revision"),
            answer.header("x-perennial-version")
        ),
        (STABLE, "sha-1")
    );
    let (parts, body) = seen.last();
    let sent: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        sent,
        json!({"model": "llama", "messages": [{"role": "user", "content": "Q: Why?"}], "temperature": 0.5, "user": "u-1", "metadata": {"a": "b"}})
    );
    assert_eq!(parts.uri.path(), "/v1/chat/completions");
    let traffic = gateway.traffic(STABLE).await;
    assert_eq!(
        (
            traffic.requests,
            traffic.with_usage,
            traffic.prompt_tokens,
            traffic.completion_tokens
        ),
        (1, 1, 11, 5)
    );
    // 11 tokens at 1 and 5 at 2 for a million, in billionths.
    let used = (traffic.caller_tokens.sum(), traffic.caller_costs.sum());
    assert_eq!(used, (16, 21_000));
    assert!(!answer.header("x-perennial-request-id").is_empty());
    assert_eq!(
        (
            traffic.first_byte.count(),
            traffic.callers.callers(),
            traffic.unkeyed
        ),
        (1, 1, 0)
    );
    // By the shared port, and by the internal address of a revision without traffic.
    let shared = post(
        format!(
            "http://{}/v1/chat/completions",
            gateway.gateway.shared_address
        ),
        &json!({"model": "prompt/support", "messages": [{"role": "user", "content": "Hm?"}]}),
    );
    assert_eq!(
        call(&gateway.http, shared).await.json()["choices"][0]["message"]["content"],
        "Q: Hm?"
    );
    let internal = format!(
        "http://{}/revisions/prompts/support/{CANDIDATE}/v1/chat/completions",
        gateway.gateway.internal_address
    );
    let tried = call(
        &gateway.http,
        post(
            internal,
            &json!({"prompt": {"variables": {"question": "Why?"}}}),
        ),
    )
    .await;
    assert_eq!(tried.json()["choices"][0]["message"]["content"], "x Why?");
    assert_eq!(gateway.traffic(CANDIDATE).await.requests, 0);
    let models = call(&gateway.http, get(gateway.url("/v1/models"))).await;
    assert_eq!(models.json()["data"][0]["id"], "support");
}

#[tokio::test]
async fn a_stream_is_passed_on_chunk_by_chunk_and_its_usage_only_to_who_asked() {
    for asked in [false, true] {
        let (seen, (go, told)) = (Seen::default(), watch::channel(0));
        let llm = llm(seen.clone(), told).await;
        let gateway = gateway(
            revision(STABLE, "{{ question }}", backend(llm)),
            revision(CANDIDATE, "{{ question }}", backend(llm)),
            0,
            None,
        )
        .await;
        let mut extra = json!({"stream": true});
        if asked {
            extra["stream_options"] = json!({"include_usage": true});
        }
        let mut answer = gateway.http.request(ask(&gateway, extra)).await.unwrap();
        let mut got = Vec::new();
        for i in 0.. {
            let frame = tokio::time::timeout(Duration::from_secs(10), answer.body_mut().frame())
                .await
                .unwrap();
            let Some(frame) = frame else { break };
            got.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
            // The next chunk is only made now, so this one was not held back. The third may be for nobody to see.
            go.send(if i >= 1 { 9 } else { i + 1 }).unwrap();
        }
        let all = got.concat();
        let expected: String = CHUNKS
            .iter()
            .filter(|c| asked || !c.contains("usage"))
            .copied()
            .collect();
        assert_eq!(all, expected);
        assert_eq!(got[0], CHUNKS[0]);
        let sent: Value = serde_json::from_slice(&seen.last().1).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true);
        let traffic = gateway.traffic(STABLE).await;
        assert_eq!(
            (
                traffic.prompt_tokens,
                traffic.completion_tokens,
                traffic.errors
            ),
            (7, 3, 0)
        );
        assert!(traffic.first_byte.max() <= traffic.latency.max());
    }
}

#[tokio::test]
async fn what_the_caller_got_wrong_is_named_and_is_no_error_of_the_version() {
    let (_go, told) = watch::channel(9);
    let llm = llm(Seen::default(), told).await;
    let gateway = gateway(
        revision(STABLE, "{{ question }}", backend(llm)),
        revision(CANDIDATE, "{{ question }}", backend(llm)),
        0,
        None,
    )
    .await;
    for (extra, param) in [
        (
            json!({"prompt": {"id": "support", "variables": {}}}),
            "prompt.variables.question",
        ),
        (
            json!({"prompt": {"id": "support", "variables": {"question": "x".repeat(41)}}}),
            "prompt.variables.question",
        ),
        (json!({"functions": []}), "functions"),
    ] {
        let answer = call(&gateway.http, ask(&gateway, extra)).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (
                answer.status,
                error["param"].as_str(),
                error["type"].as_str()
            ),
            (400, Some(param), Some("invalid_request_error"))
        );
    }
    let stale = call(&gateway.http, ask(&gateway, json!({"prompt": {"id": "support", "version": "sha-9", "variables": {"question": "?"}}}))).await;
    assert_eq!(stale.status, 404);
    let nonsense = http::Request::post(gateway.url("/v1/chat/completions"))
        .body(http_body_util::Full::from("{"))
        .unwrap();
    assert_eq!(call(&gateway.http, nonsense).await.status, 400);
    let traffic = gateway.traffic(STABLE).await;
    assert_eq!((traffic.requests, traffic.errors), (3, 0));
}

#[tokio::test]
async fn a_candidate_that_refuses_what_stable_takes_is_counted_as_failing() {
    let (_go, told) = watch::channel(9);
    let llm = llm(Seen::default(), told).await;
    let mut narrower = revision(CANDIDATE, "{{ question }} {{ context }}", backend(llm));
    narrower["data"]["prompt"]["variables"] = json!({"type": "object", "required": ["question", "context"], "properties": {
        "question": {"type": "string"}, "context": {"type": "string"}}});
    let gateway = gateway(
        revision(STABLE, "{{ question }}", backend(llm)),
        narrower,
        50,
        None,
    )
    .await;
    for i in 0..40 {
        call(
            &gateway.http,
            ask(&gateway, json!({"user": format!("u-{i}")})),
        )
        .await;
    }
    let (stable, candidate) = (
        gateway.traffic(STABLE).await,
        gateway.traffic(CANDIDATE).await,
    );
    assert!(
        candidate.requests > 5 && candidate.errors == candidate.requests,
        "{} of {}",
        candidate.errors,
        candidate.requests
    );
    assert_eq!(
        (stable.requests + candidate.requests, stable.errors),
        (40, 0)
    );
}

#[tokio::test]
async fn errors_and_time_outs_are_counted_by_version() {
    let (_go, told) = watch::channel(9);
    let fine = llm(Seen::default(), told).await;
    let gateway = gateway(
        revision(STABLE, "{{ question }}", backend(fine)),
        revision(CANDIDATE, "fail {{ question }}", backend(fine)),
        50,
        None,
    )
    .await;
    for i in 0..40 {
        let answer = call(
            &gateway.http,
            ask(&gateway, json!({"user": format!("u-{i}")})),
        )
        .await;
        let expected = if answer.header("x-perennial-version") == "sha-1" {
            200
        } else {
            500
        };
        assert_eq!(answer.status, expected);
    }
    let (stable, candidate) = (
        gateway.traffic(STABLE).await,
        gateway.traffic(CANDIDATE).await,
    );
    assert_eq!((stable.errors, candidate.errors), (0, candidate.requests));
    for (weight, epoch, slow, code, status) in [
        (
            0,
            2,
            backend(server(|_| std::future::pending()).await),
            "BackendTimeout",
            504,
        ),
        (
            0,
            3,
            json!({"url": format!("http://127.0.0.1:{}/v1", free_port().await), "model": "m"}),
            "BackendFailed",
            502,
        ),
        (
            0,
            4,
            backend(
                server(|_| async { Response::builder().status(401).body("{}".into()).unwrap() })
                    .await,
            ),
            "BackendRefusesCredentials",
            502,
        ),
    ] {
        gateway
            .put(Source::Revisions, revision(STABLE, "{{ question }}", slow))
            .await;
        gateway
            .put(Source::Prompts, release(gateway.port, weight, epoch))
            .await;
        until("the new epoch is served", || async {
            (gateway.epochs().await.releases[PROMPT].epoch == epoch).then_some(())
        })
        .await;
        let answer = call(&gateway.http, ask(&gateway, json!({}))).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{answer:?}"
        );
    }
    assert_eq!(gateway.traffic(STABLE).await.errors, 3);
}

#[tokio::test]
async fn a_credential_that_is_not_there_is_said_and_one_that_comes_is_used() {
    let state = tempfile::tempdir().unwrap();
    let (seen, (_go, told)) = (Seen::default(), watch::channel(9));
    let llm = llm(seen.clone(), told).await;
    let mut with_key = backend(llm);
    with_key["credentials"] = json!({"secretName": "llm", "key": "api-key"});
    let gateway = gateway(
        revision(STABLE, "{{ question }}", with_key),
        revision(CANDIDATE, "{{ question }}", backend(llm)),
        0,
        Some(state.path()),
    )
    .await;
    let answer = call(&gateway.http, ask(&gateway, json!({}))).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (503, Some("CredentialsMissing"))
    );
    assert_eq!(seen.len(), 0);
    let problem = gateway.epochs().await.releases[PROMPT]
        .problem
        .clone()
        .unwrap();
    assert!(
        problem.starts_with("CredentialsMissing: ") && problem.contains("Secret llm"),
        "{problem}"
    );
    let directory = state.path().join("credentials/llm");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("api-key"), "s3cret\n").unwrap();
    let answer = call(&gateway.http, ask(&gateway, json!({}))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(seen.last().0.headers["authorization"], "Bearer s3cret");
    std::fs::write(directory.join("api-key"), "renewed").unwrap();
    until("the renewed credential is used", || async {
        call(&gateway.http, ask(&gateway, json!({}))).await;
        (seen.last().0.headers["authorization"] == "Bearer renewed").then_some(())
    })
    .await;
    assert_eq!(gateway.epochs().await.releases[PROMPT].problem, None);
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_told_without_a_caller_and_forgotten_when_it_is_back() {
    let port = free_port().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let gateway = gateway(
        revision(STABLE, "{{ question }}", backend(address)),
        revision(
            CANDIDATE,
            "{{ question }}",
            json!({"url": "http://nowhere.invalid/v1", "model": "m"}),
        ),
        0,
        None,
    )
    .await;
    let served = || async { gateway.epochs().await.releases[PROMPT].clone() };
    assert!(served().await.looking, "nothing is known yet");
    let problem = until("it is told", || async { served().await.problem }).await;
    // The candidate has no caller, so its backend is nobody's problem.
    for words in [
        "BackendUnreachable: ",
        &format!("http://127.0.0.1:{port} can't be reached: "),
        "refused",
        "spec.backend.url",
        "NetworkPolicy",
    ] {
        assert!(problem.contains(words), "{words}: {problem}");
    }
    assert!(!served().await.looking);
    let answer = call(&gateway.http, ask(&gateway, json!({}))).await;
    assert_eq!(answer.status, 502);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        // It takes connections; that is all that is asked for.
        while listener.accept().await.is_ok() {}
    });
    until("it is forgotten", || async {
        served().await.problem.is_none().then_some(())
    })
    .await;
    // A host that no server of names knows, once it has callers.
    gateway
        .put(Source::Prompts, release(gateway.port, 50, 2))
        .await;
    let problem = until("the other is told", || async { served().await.problem }).await;
    assert!(
        problem.contains("http://nowhere.invalid can't"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_prompt_has_limits_and_copies_and_sides_like_a_model() {
    let (seen, (go, told)) = (Seen::default(), watch::channel(0));
    let llm = llm(seen.clone(), told).await;
    let gateway = gateway(
        revision(STABLE, "stable: {{ question }}", backend(llm)),
        revision(CANDIDATE, "candidate: {{ question }}", backend(llm)),
        0,
        None,
    )
    .await;
    let mut release = release(gateway.port, 0, 2);
    release["status"]["rollout"]["mirror"] = json!(100);
    release["spec"] =
        json!({"traffic": {"limits": {"concurrent": 1}, "override": {"header": "x-side"}}});
    gateway.put(Source::Prompts, release).await;
    until("it is served", || async {
        let epochs = gateway.epochs().await;
        (epochs.releases[PROMPT].epoch == 2).then_some(())
    })
    .await;
    // One stream is open: the next request of that side is refused, the other side's is not.
    let open = gateway
        .http
        .request(ask(&gateway, json!({"stream": true})))
        .await
        .unwrap();
    assert_eq!(open.status(), 200);
    let refused = call(&gateway.http, ask(&gateway, json!({}))).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["code"], "Overloaded");
    let mut other = ask(&gateway, json!({}));
    let side = http::HeaderValue::from_static("candidate");
    other.headers_mut().insert("x-side", side);
    let answer = call(&gateway.http, other).await;
    assert_eq!(
        answer.json()["choices"][0]["message"]["content"],
        "candidate: Why?"
    );
    let before = seen.len();
    go.send(9).unwrap();
    open.into_body().collect().await.unwrap();
    until(
        "the candidate got a copy of what stable answered",
        || async { (seen.len() == before + 1).then_some(()) },
    )
    .await;
    let copied: Value = serde_json::from_slice(&seen.last().1).unwrap();
    assert_eq!(copied["messages"][0]["content"], "candidate: Why?");
}
