//! Against a small server that gives the answers that a real Prometheus seldom does.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Response},
    routing::post,
};
use reqwest::dns::Resolve as _;

use super::{super::measure::ReleaseKind, *};

/// What it answers to a query, by the metric's name in it.
async fn answer(headers: HeaderMap, form: String) -> Response<Body> {
    let query = url::form_urlencoded::parse(form.as_bytes());
    let query = query
        .into_owned()
        .find(|(k, _)| k == "query")
        .unwrap_or_default()
        .1;
    let name = query.split('{').next().unwrap_or_default().to_owned();
    let vector = |values: &[&str]| {
        let series = values
            .iter()
            .map(|v| format!(r#"{{"metric":{{}},"value":[1.5,"{v}"]}}"#));
        let series: Vec<String> = series.collect();
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
            series.join(",")
        )
    };
    let (status, body) = match name.as_str() {
        "good" => (200, vector(&["0.25"])),
        "nan" => (200, vector(&["NaN"])),
        "infinite" => (200, vector(&["+Inf"])),
        "empty" => (200, vector(&[])),
        "many" => (200, vector(&["1", "2", "3"])),
        "words" => (200, vector(&["a lot"])),
        "matrix" => (
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
        ),
        "type" => (
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":7}}"#.into(),
        ),
        "html" => (200, "<html>log in first</html>".into()),
        "refused" => (
            422,
            r#"{"status":"error","errorType":"execution","error":"too many samples"}"#.into(),
        ),
        "gone" => (503, "upstream is gone".into()),
        "long" => (200, format!("{{\"status\":\"{}\"}}", "x".repeat(10 << 20))),
        "elsewhere" => {
            let moved = Response::builder().status(302).header("location", "/good");
            return moved.body(Body::empty()).unwrap();
        }
        "slow" => std::future::pending().await,
        "token" => {
            let given = headers.get("authorization").map(|v| v.to_str().unwrap());
            (
                200,
                vector(&[if given == Some("Bearer s3cret") {
                    "1"
                } else {
                    "0"
                }]),
            )
        }
        _ => (404, format!("what is {query}?")),
    };
    let response = Response::builder().status(status);
    response.body(Body::from(body)).unwrap()
}

async fn server() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/sub/api/v1/query", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/sub/")
}

fn source(url: &str, more: &str) -> Sources {
    Sources::parse(&format!(
        r#"{{"sources": [{{"name": "default", "url": "{url}", "timeoutSeconds": 1{more}}}]}}"#
    ))
    .unwrap()
}

async fn ask(url: &str, query: &str) -> Answer {
    let sources = source(url, "");
    let source = sources.find("default", "team").unwrap();
    ask::Asker::new().ask(source, query).await
}

#[tokio::test]
async fn a_number_is_a_value_and_everything_else_says_what_is_wrong() {
    let url = server().await;
    assert_eq!(ask(&url, "good").await, Answer::Value(0.25));
    for (query, words) in [("empty", "has no series"), ("nan", "answered NaN")] {
        let Answer::Nothing(why) = ask(&url, query).await else {
            panic!("{query} was an answer");
        };
        assert!(why.contains(words) && why.contains("default"), "{why}");
    }
    for (query, words) in [
        ("infinite", "divided by 0"),
        ("many", "gave 3 series"),
        ("words", "no number"),
        ("matrix", "gave a matrix"),
        ("type", "makes no sense"),
        ("html", "makes no sense"),
        ("refused", "refused the query: too many samples"),
        ("gone", "answered 503"),
        ("long", "more than 256 KiB"),
        ("elsewhere", "answered 302"),
        ("slow", "no answer within 1 s"),
    ] {
        let Answer::Failed(why) = ask(&url, query).await else {
            panic!("{query} was an answer");
        };
        assert!(why.contains(words) && why.contains("default"), "{why}");
    }
    // Nobody listens there.
    let Answer::Failed(why) = ask("http://127.0.0.1:1", "good").await else {
        panic!("nobody answered");
    };
    assert!(why.contains("can't be reached"), "{why}");
}

/// argo-rollouts#4707: a tenant's URL made the controller fetch inside addresses.
#[tokio::test]
async fn a_name_that_leads_to_a_link_local_address_is_not_asked() {
    let resolve = async |name: &str| {
        let found = ask::Resolver.resolve(name.parse().unwrap()).await;
        found.map_or_else(|e| e.to_string(), |all| format!("{}", all.count() > 0))
    };
    assert_eq!(resolve("localhost").await, "true");
    for name in ["169.254.169.254", "fe80::1", "fd00:ec2::254"] {
        let why = resolve(name).await;
        assert!(why.contains("link-local"), "{name}: {why}");
    }
}

#[tokio::test]
async fn a_token_is_read_anew_for_each_question() {
    let url = server().await;
    let folder = std::env::temp_dir().join(format!("perennial-prometheus-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("token");
    let more = format!(r#", "bearerTokenFile": "{}""#, file.display());
    let sources = source(&url, &more);
    let source = sources.find("default", "team").unwrap();
    let asker = ask::Asker::new();
    let Answer::Failed(why) = asker.ask(source, "token").await else {
        panic!("there is no token yet");
    };
    assert!(why.contains("can't be read"), "{why}");
    std::fs::write(&file, "s3cret\n").unwrap();
    assert_eq!(asker.ask(source, "token").await, Answer::Value(1.0));
    std::fs::write(&file, "another").unwrap();
    assert_eq!(asker.ask(source, "token").await, Answer::Value(0.0));
    std::fs::remove_dir_all(&folder).unwrap();
}

fn question(query: &str) -> Question {
    Question {
        metric: "m".into(),
        revision: "abc".into(),
        source: "default".into(),
        query: query.into(),
    }
}

#[tokio::test]
async fn questions_are_asked_of_the_own_namespace_and_news_wake_the_release() {
    let url = server().await;
    let woken = Arc::new((AtomicUsize::new(0), Notify::new()));
    let wake = woken.clone();
    let prometheus = Prometheus::new(source(&url, ""), move |_| {
        wake.0.fetch_add(1, Ordering::SeqCst);
        wake.1.notify_one();
    });
    let key = ReleaseKey {
        kind: ReleaseKind::Model,
        namespace: "team".into(),
        name: "words".into(),
    };
    let questions = |query: &str| Questions {
        all: vec![question(query)],
        interval: 1000,
        every: vec![question(query)],
        refused: None,
    };
    let running = prometheus.clone();
    let task = tokio::spawn(async move { running.run().await });
    let told = async || {
        tokio::time::timeout(Duration::from_secs(20), woken.1.notified())
            .await
            .expect("nobody was woken")
    };
    prometheus.track("uid", &key, questions("good"));
    told().await;
    let asked = prometheus.read("uid");
    assert_eq!(asked.get("m", "abc").unwrap().answer, Answer::Value(0.25));
    assert_eq!(asked.refused, None);
    // The server is asked what it can't know: it tells what it was asked.
    prometheus.track("uid", &key, questions("unknown"));
    told().await;
    let Answer::Failed(why) = prometheus
        .read("uid")
        .get("m", "abc")
        .unwrap()
        .answer
        .clone()
    else {
        panic!("an answer");
    };
    assert!(why.contains("404"), "{why}");
    // Another namespace isn't asked at all.
    let foreign = "good{namespace=\"other\"}";
    prometheus.track("uid", &key, questions(foreign));
    let asked = prometheus.read("uid");
    let refused = asked.refused.clone().unwrap();
    assert!(refused.contains("may only ask for"), "{refused}");
    assert!(matches!(
        asked.get("m", "abc").unwrap().answer,
        Answer::Failed(_)
    ));
    prometheus.track("uid", &key, Questions::default());
    assert_eq!(prometheus.read("uid"), Asked::default());
    task.abort();
}
