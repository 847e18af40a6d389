//! Whole runs with real files, processes and web servers.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde_json::json;

use super::*;
use crate::api::{run::FetchRun, training_job::Dataset};

const DATA: &str = "id,temp,origin,late\n1,20.5,EWR,true\n2,19,JFK,false\n3,25,LGA,true\n";

struct Pod {
    root: tempfile::TempDir,
    places: Places,
    training: TrainingRun,
}

fn pod() -> Pod {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    std::fs::create_dir_all(at("volumes/train")).unwrap();
    std::fs::write(at("volumes/train/q1.csv"), DATA).unwrap();
    let places = Places {
        inputs: at("inputs"),
        volumes: at("volumes"),
        output: at("output"),
        progress: at("run/progress.jsonl"),
        termination_log: at("log"),
        address: (Ipv4Addr::LOCALHOST, 0).into(),
    };
    let training = TrainingRun {
        namespace: "ml".into(),
        name: "churn-1".into(),
        uid: "uid-1".into(),
        attempt: 1,
        model: "churn".into(),
        version: "20260101-000000-abcdef".into(),
        output: "pvc://models/churn/20260101-000000-abcdef".into(),
        datasets: vec![dataset(
            json!({"name": "train", "uri": "pvc://flights/q1.csv", "label": "late"}),
        )],
        parameters: BTreeMap::from([("learning_rate".into(), "0.1".into())]),
        stall_timeout: None,
        deadline: None,
        acknowledge_timeout: crate::api::Duration::from_secs(0),
    };
    Pod {
        root,
        places,
        training,
    }
}

fn dataset(value: serde_json::Value) -> Dataset {
    serde_json::from_value(value).unwrap()
}

impl Pod {
    /// Runs `sh -c SCRIPT` as trainer.
    async fn run(&self, script: &str) -> (i32, Summary) {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let (_keep, asked) = watch::channel(false);
        let code = supervise(self.training.clone(), command, &self.places, asked).await;
        let text = std::fs::read(&self.places.termination_log).unwrap();
        (code, serde_json::from_slice(&text).unwrap())
    }

    fn manifest(&self) -> Manifest {
        serde_json::from_slice(&std::fs::read(self.places.output.join("manifest.json")).unwrap())
            .unwrap()
    }
}

/// What the trainer of most tests does: reads its input and writes a model and metrics.
const TRAINER: &str = r#"
    set -e
    mkdir -p "$PERENNIAL_OUTPUT_DIR/sub"
    wc -l < "$INPUT/q1.csv" > "$PERENNIAL_OUTPUT_DIR/sub/model.txt"
    echo '{"step": 10, "total": 10}' >> "$PERENNIAL_PROGRESS_FILE"
    echo "{\"rocAuc\": 0.7, \"lr\": $PERENNIAL_PARAM_LEARNING_RATE}" > "$PERENNIAL_OUTPUT_DIR/metrics.json"
"#;

fn trainer(pod: &Pod) -> String {
    format!("INPUT={}/train\n{TRAINER}", pod.places.inputs.display())
}

#[tokio::test]
async fn a_run_publishes_what_the_trainer_wrote_with_digests_metrics_signature_and_profile() {
    let pod = pod();
    let (code, summary) = pod.run(&trainer(&pod)).await;
    assert_eq!((code, summary.succeeded), (0, true), "{summary:?}");
    let manifest = pod.manifest();
    assert_eq!(summary.digest, manifest.model.digest);
    let paths: Vec<&str> = manifest.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(
        paths,
        ["metrics.json", "perennial-rows.bin", "sub/model.txt"]
    );
    let content =
        crate::data::digest::of_path(&pod.places.output, |p| p == "manifest.json").unwrap();
    assert_eq!(
        manifest.model.digest.as_deref(),
        Some(content.digest.as_str())
    );
    let metrics: Vec<_> = manifest
        .metrics
        .iter()
        .map(|m| (m.name.as_str(), m.value))
        .collect();
    assert_eq!(metrics, [("rocAuc", Some(0.7)), ("lr", Some(0.1))]);
    let signature = manifest.model.signature.unwrap();
    let features: Vec<_> = signature
        .features
        .iter()
        .map(|f| (f.name.as_str(), f.kind.as_str()))
        .collect();
    assert_eq!(
        features,
        [("id", "Number"), ("temp", "Number"), ("origin", "String")]
    );
    assert_eq!(signature.label.as_deref(), Some("late"));
    let profile: crate::stats::profile::Profile =
        serde_json::from_value(manifest.profile.unwrap()).unwrap();
    assert_eq!((profile.rows, profile.columns.len()), (3, 4));
    assert_eq!(manifest.datasets[0].rows, Some(3));
    assert_eq!(
        manifest.datasets[0].digest,
        crate::data::digest::of_bytes(DATA.as_bytes())
    );
}

#[tokio::test]
async fn the_report_is_served_until_it_is_acknowledged() {
    let mut pod = pod();
    pod.training.acknowledge_timeout = crate::api::Duration::from_secs(60);
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    pod.places.address = (Ipv4Addr::LOCALHOST, port).into();
    let script = trainer(&pod);
    let run = pod.run(&script);
    let read = async {
        let client = crate::data::store::http_client().unwrap();
        loop {
            let answer = client
                .get(format!("http://127.0.0.1:{port}/report?acknowledge=true"))
                .send()
                .await;
            if let Ok(answer) = answer
                && answer.status() == 200
            {
                return answer.json::<Report>().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let both = async { tokio::join!(run, read) };
    let ((code, _), report) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .unwrap();
    assert_eq!(code, 0);
    assert!(report.profile.is_some() && report.model.is_some() && report.summary.succeeded);
    assert_eq!(report.metrics.len(), 2);
}

#[tokio::test]
async fn a_digest_that_does_not_match_fails_before_training_and_for_good() {
    let mut pod = pod();
    pod.training.datasets[0].digest = Some(format!("sha256:{}", "0".repeat(64)));
    let (code, summary) = pod.run("touch $PERENNIAL_OUTPUT_DIR/ran").await;
    assert_eq!((code, summary.permanent), (run::EXIT_INPUT, true));
    assert_eq!(summary.reason.as_deref(), Some("DigestMismatch"));
    assert!(
        summary.message.contains("dataset `train`"),
        "{}",
        summary.message
    );
    assert!(!pod.places.output.join("ran").exists());
}

#[tokio::test]
async fn inputs_that_are_wrong_are_said_in_a_sentence() {
    for (value, reason, permanent, word) in [
        (
            json!({"name": "train", "uri": "pvc://flights/nope.csv"}),
            "InputUnreadable",
            false,
            "isn't there",
        ),
        (
            json!({"name": "train", "uri": "pvc://flights/q1.csv", "label": "nope"}),
            "InputUnreadable",
            true,
            "no column `nope`",
        ),
        (
            json!({"name": "train", "uri": "pvc://flights/q1.csv", "checks": [{"rows": {"min": 10}}]}),
            "CheckFailed",
            true,
            "3 rows",
        ),
        (
            json!({"name": "train", "uri": "pvc://flights/q1.csv", "format": "Parquet"}),
            "InputUnreadable",
            true,
            "Parquet",
        ),
    ] {
        let mut pod = pod();
        pod.training.datasets = vec![dataset(value.clone())];
        let (code, summary) = pod.run("true").await;
        assert_eq!(
            (code, summary.permanent),
            (run::EXIT_INPUT, permanent),
            "{value} {summary:?}"
        );
        assert_eq!(summary.reason.as_deref(), Some(reason), "{value}");
        assert!(summary.message.contains(word), "{}", summary.message);
    }
}

#[tokio::test]
async fn a_trainer_that_fails_is_quoted_and_its_exit_code_kept() {
    let pod = pod();
    let (code, summary) = pod
        .run("echo fine; echo; echo 'ValueError: no' >&2; exit 3")
        .await;
    assert_eq!((code, summary.exit_code), (3, Some(3)));
    assert_eq!(summary.reason.as_deref(), Some("TrainerFailed"));
    assert_eq!(summary.last_line.as_deref(), Some("ValueError: no"));
    assert_eq!(
        summary.message,
        "the trainer ended with exit code 3: ValueError: no"
    );
    let (code, summary) = pod.run("kill -9 $$").await;
    assert_eq!(code, 137);
    assert!(summary.message.contains("signal 9"), "{}", summary.message);
    let (code, summary) = pod.run("true").await;
    assert_eq!(
        (code, summary.reason.as_deref()),
        (run::EXIT_OUTPUT, Some("OutputEmpty"))
    );
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_no_use_to_try_again() {
    let pod = pod();
    let (_keep, asked) = watch::channel(false);
    let code = supervise(
        pod.training.clone(),
        vec!["/nowhere".into()],
        &pod.places,
        asked,
    )
    .await;
    assert_eq!(code, 127);
}

#[tokio::test]
async fn a_stall_and_a_deadline_end_the_trainer_and_what_it_started() {
    let mut pod = pod();
    pod.training.stall_timeout = Some("300ms".parse().unwrap());
    let (code, summary) = pod.run("sleep 600 & sleep 600").await;
    assert_eq!(
        (code, summary.reason.as_deref()),
        (run::EXIT_STALLED, Some("Stalled"))
    );
    pod.training.stall_timeout = None;
    pod.training.deadline = Some(jiff::Timestamp::now() + jiff::SignedDuration::from_millis(700));
    let (code, summary) = pod
        .run("exec 2>/dev/null; trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done")
        .await;
    assert_eq!(
        (code, summary.reason.as_deref()),
        (run::EXIT_DEADLINE, Some("DeadlineExceeded"))
    );
    assert_eq!(
        (summary.permanent, summary.last_line.as_deref()),
        (true, Some("bye"))
    );
}

#[tokio::test]
async fn a_pod_that_is_taken_away_passes_the_signal_on() {
    let pod = pod();
    let (ask, asked) = watch::channel(false);
    let marker = pod.root.path().join("saw");
    let script = format!(
        "trap 'echo yes > {}; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        marker.display()
    );
    let command = vec!["sh".into(), "-c".into(), script];
    let run = supervise(pod.training.clone(), command, &pod.places, asked);
    let stop = async {
        let out = pod.places.progress.parent().unwrap().to_owned();
        while !out.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        ask.send(true).unwrap();
    };
    let (code, ()) = tokio::join!(run, stop);
    assert_eq!((code, marker.exists()), (143, true));
}

#[tokio::test]
async fn an_output_is_published_once_and_never_over_another_runs() {
    let mut pod = pod();
    std::fs::create_dir_all(pod.places.output.join("left/over")).unwrap();
    std::fs::write(pod.places.output.join("left/over/x"), "partial").unwrap();
    let (code, _) = pod.run(&trainer(&pod)).await;
    assert_eq!(code, 0);
    assert!(!pod.places.output.join("left").exists());
    let first = pod.manifest();
    // The same run again: nothing is trained, the report is the same.
    let (code, summary) = pod.run("exit 1").await;
    assert_eq!((code, summary.digest), (0, first.model.digest.clone()));
    assert_eq!(pod.manifest(), first);
    pod.training.uid = "uid-2".into();
    let (code, summary) = pod.run("exit 1").await;
    assert_eq!((code, summary.permanent), (run::EXIT_OUTPUT, true));
    assert!(
        summary.message.contains("another run (churn-1, UID uid-1)"),
        "{}",
        summary.message
    );
    assert_eq!(pod.manifest(), first);
}

#[tokio::test]
async fn a_tree_is_linked_file_by_file_also_into_a_mount_path() {
    let mut pod = pod();
    let volume = pod.root.path().join("volumes/tree/2013");
    std::fs::create_dir_all(volume.join("sub")).unwrap();
    std::fs::write(volume.join("a.csv"), "x\n1\n").unwrap();
    std::fs::write(volume.join("sub/b.csv"), "x\n2\n").unwrap();
    let mount = pod.root.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    pod.training.datasets = vec![dataset(
        json!({"name": "tree", "uri": "pvc://flights/all/2013/", "mountPath": mount, "features": ["x"]}),
    )];
    let script = format!(
        "cat {0}/a.csv {0}/sub/b.csv > $PERENNIAL_OUTPUT_DIR/model",
        mount.display()
    );
    for _ in 0..2 {
        let (code, summary) = pod.run(&script).await;
        assert_eq!(code, 0, "{summary:?}");
    }
    let manifest = pod.manifest();
    assert_eq!(manifest.datasets[0].rows, Some(2));
    assert_eq!(
        manifest.datasets[0].digest,
        crate::data::digest::of_path(&volume, |_| false)
            .unwrap()
            .digest
    );
}

#[tokio::test]
async fn data_on_a_web_server_is_fetched_with_retries() {
    use axum::{Router, http::StatusCode, routing::get};
    use std::sync::atomic::{AtomicUsize, Ordering};
    static TRIES: AtomicUsize = AtomicUsize::new(0);
    let app = Router::new()
        .route(
            "/q1.csv",
            get(|| async {
                if TRIES.fetch_add(1, Ordering::SeqCst) == 0 {
                    Err(StatusCode::SERVICE_UNAVAILABLE)
                } else {
                    Ok(DATA)
                }
            }),
        )
        .route(
            "/secret.csv",
            get(|headers: axum::http::HeaderMap| async move {
                match headers.get("authorization").and_then(|h| h.to_str().ok()) {
                    Some("Bearer abc") => Ok(DATA),
                    _ => Err(StatusCode::UNAUTHORIZED),
                }
            }),
        );
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let host = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut pod = pod();
    pod.training.datasets = vec![dataset(
        json!({"name": "train", "uri": format!("http://{host}/q1.csv"), "label": "late"}),
    )];
    let (code, summary) = pod.run(&trainer(&pod)).await;
    assert_eq!(code, 0, "{summary:?}");
    assert_eq!(TRIES.load(Ordering::SeqCst), 2);
    let get = async |path: &str, token: Option<&str>| {
        let environment = Environment::of(token.map(|t| ("HTTP_TOKEN".to_owned(), t.to_owned())));
        let target = pod.root.path().join("got");
        inputs::place(
            &format!("http://{host}/{path}"),
            &environment,
            &target,
            &target,
        )
        .await
    };
    assert!(get("secret.csv", Some("abc")).await.is_ok());
    let denied = get("secret.csv", None).await.unwrap_err().to_string();
    assert!(
        denied.contains("401") && denied.contains("HTTP_TOKEN"),
        "{denied}"
    );
    assert!(matches!(
        get("nope.csv", None).await,
        Err(crate::data::Error::NotFound(_))
    ));
}

#[tokio::test]
async fn an_artifact_is_copied_verified_and_readable_for_all() {
    use std::os::unix::fs::PermissionsExt;
    let pod = pod();
    let (code, _) = pod.run(&trainer(&pod)).await;
    assert_eq!(code, 0);
    // The claim's parent directory, as the pod has it.
    let mount = pod.root.path();
    let secret = pod.places.output.join("metrics.json");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let target = pod.root.path().join("target");
    let digest = pod.manifest().model.digest;
    let mut spec = FetchRun {
        uri: "pvc://models/churn/output".into(),
        digest: digest.clone(),
        target: target.to_string_lossy().into(),
        cache: None,
    };
    let summary = fetch::fetch(&spec, &Environment::default(), mount)
        .await
        .unwrap();
    assert_eq!(summary.digest, digest);
    let mode = |path: &str| {
        std::fs::metadata(target.join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("metrics.json"), mode("sub/model.txt")),
        (0o644, 0o644)
    );
    spec.digest = Some("sha256:other".into());
    let failure = fetch::fetch(&spec, &Environment::default(), mount)
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason, failure.permanent),
        ("DigestMismatch", true)
    );
    spec.digest = None;
    let found = fetch::fetch(&spec, &Environment::default(), mount)
        .await
        .unwrap();
    assert_eq!(found.digest, digest);
    spec.uri = "pvc://models/churn/nope".into();
    let failure = fetch::fetch(&spec, &Environment::default(), mount)
        .await
        .unwrap_err();
    assert_eq!(failure.reason, "InputUnreadable");
}

#[tokio::test]
async fn a_version_has_the_rows_it_was_trained_on_beside_it_and_never_those_of_another() {
    let mut pod = pod();
    pod.training.datasets[0].key = Some(vec!["id".to_owned()]);
    let (code, summary) = pod.run(&trainer(&pod)).await;
    assert_eq!(code, 0, "{summary:?}");
    let manifest = pod.manifest();
    let signature = manifest.model.signature.unwrap();
    let features: Vec<&str> = signature.features.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(features, ["temp", "origin"], "a key is no feature");
    let file = pod.places.output.join("perennial-rows.bin");
    let sets = training_rows::parse(&std::fs::read(&file).unwrap()).unwrap();
    let columns: Vec<_> = sets
        .iter()
        .map(|set| (set.columns.join(" "), set.rows))
        .collect();
    assert_eq!(
        columns,
        [("id late origin temp".to_owned(), 3), ("id".to_owned(), 3)]
    );
    let seen = pod.root.path().join("seen.csv");
    std::fs::write(&seen, "id\n9\n3\n").unwrap();
    let seen = crate::data::table::Source::open(&seen, None).unwrap();
    assert_eq!(sets[1].overlap(&seen).unwrap().first, Some(2));

    // Of data that nobody describes, nothing is known; a trainer that goes on from another version must not bring that one's.
    let copied = std::fs::read(&file).unwrap();
    let mut plain = self::pod();
    plain.training.datasets = vec![dataset(
        json!({"name": "train", "uri": "pvc://flights/q1.csv"}),
    )];
    std::fs::write(plain.root.path().join("old.bin"), copied).unwrap();
    let script = format!(
        "cp {}/old.bin \"$PERENNIAL_OUTPUT_DIR/perennial-rows.bin\"\n{}",
        plain.root.path().display(),
        trainer(&plain)
    );
    let (code, summary) = plain.run(&script).await;
    assert_eq!(code, 0, "{summary:?}");
    let listed = plain.manifest().files;
    assert!(
        listed.iter().all(|f| f.path != "perennial-rows.bin"),
        "{listed:?}"
    );
}
