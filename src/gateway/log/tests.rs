//! The log without and with a real S3 server (versitygw, as in `data::store`).

use serde_json::{Value, json};

use super::*;
use crate::{
    data::{
        store::{
            download,
            server::{KEY, SECRET, Server},
        },
        table::{Kind, Source, Table},
    },
    gateway::{
        predictions,
        table::{
            Table as Routes,
            tests::{objects, release_of},
        },
    },
};

fn signature() -> Signature {
    serde_json::from_value(json!({"features": [
        {"name": "temp", "type": "Number"}, {"name": "carrier", "type": "String"},
        {"name": "holiday", "type": "Boolean"}, {"name": "time", "type": "Number"},
        {"name": "email", "type": "String"}, {"name": "name", "type": "String"},
    ]}))
    .unwrap()
}

fn inputs() -> Value {
    json!({"inputs": [
        {"name": "temp", "shape": [2], "datatype": "FP64", "data": [20.5, null]},
        {"name": "carrier", "shape": [2], "datatype": "BYTES", "data": ["UA", "AA"]},
        {"name": "holiday", "shape": [2], "datatype": "BOOL", "data": [true, false]},
        {"name": "time", "shape": [2], "datatype": "INT64", "data": [7, 8]},
        {"name": "email", "shape": [2], "datatype": "BYTES", "data": ["a@example.com", "a@example.com"]},
        {"name": "name", "shape": [2], "datatype": "BYTES", "data": ["Alice", "Bob"]},
    ]})
}

fn answer() -> Predicted {
    let answer = json!({"outputs": [
        {"name": "predict", "datatype": "INT64", "shape": [2], "data": [1, 0]},
        {"name": "predict_proba", "datatype": "FP64", "shape": [2, 2], "data": [[0.25, 0.75], [0.5, 0.5]]},
    ]});
    predictions::read(answer.to_string().as_bytes()).unwrap()
}

fn log(more: Value) -> Arc<PayloadLog> {
    let mut log = json!({"uri": "s3://models/log", "credentials": {"secretName": "s3"}, "redact": [
        {"column": "email", "method": "Hash"}, {"column": "name"}], "rotate": {"every": "1h"}});
    log.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    Arc::new(serde_json::from_value(log).unwrap())
}

fn logged(log: &Arc<PayloadLog>) -> Logged {
    let release = release_of(&Routes::build(
        &objects(0, 1),
        &Routes::default(),
        &Default::default(),
    ));
    Logged {
        release,
        log: log.clone(),
        signature: Some(Arc::new(signature())),
        entry: Entry {
            time: 1_700_000_000_000_000,
            id: "02ab".to_owned(),
            status: 200,
            latency: 0.25,
        },
    }
}

fn write(to: &Log, request: &Logged) {
    let (body, signature) = (inputs(), signature());
    let rows = Rows::of(&body, &signature).unwrap();
    to.add(request, &"aaaaaaaaaa".into(), Some(&rows), Some(&answer()));
}

/// A table of the files, column by column as text.
fn read(path: &Path) -> (Source, Table) {
    let source = Source::open(path, None).unwrap();
    let names: Vec<String> = source.fields().iter().map(|f| f.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let table = source.read(&names).unwrap();
    (source, table)
}

fn column(table: &Table, name: &str) -> Vec<String> {
    let column = table.column(name).unwrap_or_else(|| panic!("{name}"));
    (0..table.rows)
        .map(|row| column.values.cell(row).to_string())
        .collect()
}

fn check(source: &Source, table: &Table, requests: usize) {
    assert_eq!(table.rows, 2 * requests);
    let kind = |name: &str| source.field(name).unwrap().kind;
    for (name, expected, first) in [
        ("temp", Kind::Number, ["20.5", ""]),
        ("carrier", Kind::Text, ["UA", "AA"]),
        ("holiday", Kind::Boolean, ["true", "false"]),
        // A feature's name is the feature's.
        ("time", Kind::Number, ["7", "8"]),
        ("_time", Kind::Time, ["2023-11-14T22:13:20Z"; 2]),
        ("request_id", Kind::Text, ["02ab"; 2]),
        ("row", Kind::Integer, ["0", "1"]),
        ("revision", Kind::Text, ["aaaaaaaaaa"; 2]),
        ("prediction", Kind::Text, ["1", "0"]),
        ("probability", Kind::Number, ["0.75", "0.5"]),
        ("status", Kind::Integer, ["200"; 2]),
        ("latency", Kind::Number, ["0.25"; 2]),
    ] {
        assert_eq!(kind(name), expected, "{name}");
        assert_eq!(&column(table, name)[..2], &first, "{name}");
    }
    assert!(table.column("name").is_none(), "it was dropped");
    let hashes = column(table, "email");
    assert_eq!(hashes[0], hashes[1], "equal values stay equal");
    assert!(
        hashes[0].len() == 32 && !hashes[0].contains('@'),
        "{hashes:?}"
    );
}

#[test]
fn a_file_has_features_by_type_redacted_before_they_are_written() {
    let to = Log::new("p", Path::new("/nowhere"));
    let log = log(json!({}));
    write(&to, &logged(&log));
    let mut only = logged(&self::log(json!({"columns": ["temp"]})));
    only.entry.id = "other".to_owned();
    to.add(&only, &"bbbbbbbbbb".into(), None, None);
    let mut state = to.state();
    let keys: Vec<_> = state.open.keys().cloned().collect();
    let mut files = keys.iter().map(|key| state.open.remove(key).unwrap());
    let directory = tempfile::tempdir().unwrap();
    for (name, file) in ["one.parquet", "two.parquet"].iter().zip(&mut files) {
        std::fs::write(directory.path().join(name), file.rows.parquet().unwrap()).unwrap();
    }
    let (source, table) = read(&directory.path().join("one.parquet"));
    check(&source, &table, 1);
    // Inputs that aren't understood are one row without features.
    let (source, table) = read(&directory.path().join("two.parquet"));
    assert_eq!(
        (table.rows, column(&table, "temp")),
        (1, vec![String::new()])
    );
    assert!(source.field("carrier").is_err());
}

#[tokio::test]
async fn a_store_that_is_down_costs_bounded_memory_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let to = Log::new("p", directory.path());
    let log = log(json!({"rotate": {"maxRows": 2}}));
    let problem = to.problem("u", &log).unwrap();
    assert!(
        problem.starts_with("CredentialsMissing: Secret s3"),
        "{problem}"
    );
    let secret = directory.path().join("s3");
    std::fs::create_dir(&secret).unwrap();
    for (key, value) in [
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ] {
        std::fs::write(secret.join(key), value).unwrap();
    }
    assert_eq!(to.problem("u", &log), None, "nothing was tried yet");
    let request = Logged {
        entry: Entry {
            id: "x".repeat(1 << 20),
            ..logged(&log).entry
        },
        ..logged(&log)
    };
    for _ in 0..40 {
        write(&to, &request);
    }
    let (files, bytes) = {
        let state = to.state();
        (state.complete.len(), state.bytes[&request.release.uid])
    };
    assert_eq!(files, 12, "two MiB each");
    assert!(
        (OF_RELEASE..OF_RELEASE + (3 << 20)).contains(&bytes),
        "{bytes}"
    );
    // Another release still has its room.
    let mut due = to.due(Instant::now());
    assert_eq!(due.len(), 1, "one at a time");
    let sent = tokio::time::timeout(Duration::from_secs(60), to.upload(due.remove(0))).await;
    assert!(sent.is_ok());
    let problem = to.problem(&request.release.uid, &log).unwrap();
    assert!(problem.starts_with("LogUnwritable: "), "{problem}");
    assert!(to.due(Instant::now()).is_empty(), "not again at once");
    assert_eq!(to.state().complete.len(), files, "it is kept");
    assert_eq!(to.due(Instant::now() + KEPT).len(), 0, "but not for ever");
    assert!(to.state().bytes.is_empty());
}

#[tokio::test]
#[ignore = "needs an S3 server: PERENNIAL_VERSITYGW=…/versitygw cargo test --lib s3 -- --ignored"]
async fn what_is_logged_to_s3_is_a_data_set_that_a_training_can_read() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("s3");
    std::fs::create_dir(&secret).unwrap();
    for (key, value) in [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_ENDPOINT_URL", server.endpoint.as_str()),
    ] {
        std::fs::write(secret.join(key), value).unwrap();
    }
    let to = Log::new("p", directory.path());
    to.start();
    let log = log(json!({"rotate": {"maxRows": 6}}));
    for _ in 0..7 {
        write(&to, &logged(&log));
    }
    to.flush(Duration::from_secs(20)).await;
    assert_eq!(to.problem(&logged(&log).release.uid, &log), None);
    assert!(to.state().bytes.is_empty());
    let uri: Uri = "s3://models/log".parse().unwrap();
    let local = tempfile::tempdir().unwrap();
    let environment = server.environment(SECRET);
    let got = download(&uri, &environment, local.path()).await.unwrap();
    let (source, table) = read(&got);
    check(&source, &table, 7);
    let names = crate::data::digest::list(local.path()).unwrap();
    assert_eq!(names.len(), 3, "{names:?}");
}
