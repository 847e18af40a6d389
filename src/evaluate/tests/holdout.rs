//! Holdouts: whether rows that a version was trained on are found, and what is said where nobody can tell.

use std::path::Path;

use super::*;
use crate::{
    api::{revision::ModelReference, run::Manifest},
    data::{digest, table::Source, training_rows},
    supervise::output::manifest_files,
};

/// A version that was trained on these rows, as its supervisor leaves it; gives the artifact's digest.
fn train(directory: &Path, table: &str, key: Option<&str>) -> String {
    std::fs::create_dir_all(directory).unwrap();
    let file = directory.with_extension("csv");
    std::fs::write(&file, table).unwrap();
    let source = Source::open(&file, None).unwrap();
    let key = key.map(|key| vec![key.to_owned()]);
    let sets = training_rows::record("train", &source, key.as_deref(), training_rows::MOST);
    let bytes = training_rows::write(&sets.unwrap()).unwrap();
    std::fs::write(directory.join(training_rows::FILE), bytes).unwrap();
    std::fs::write(directory.join("model.json"), "{}").unwrap();
    let content = digest::of_path(directory, |_| false).unwrap();
    let manifest = Manifest {
        model: ModelReference::default(),
        files: manifest_files(&content),
        ..Manifest::default()
    };
    let text = serde_json::to_string(&manifest).unwrap();
    std::fs::write(directory.join("manifest.json"), text).unwrap();
    content.digest
}

/// Rows of the test's model, of which the first is `first`.
fn some(first: usize, count: usize) -> String {
    let all = rows();
    let mut lines = all.lines();
    let header = lines.next().unwrap();
    let those: Vec<&str> = lines.skip(first).take(count).collect();
    format!("{header}\n{}\n", those.join("\n"))
}

fn held_out(url: &str, digest: &str) -> Value {
    let mut spec = model(url, None);
    spec["training"] = json!({"version": "v1", "uri": "pvc://models/churn/v1", "digest": digest});
    spec
}

#[tokio::test]
async fn rows_that_the_model_was_trained_on_are_an_error_and_other_rows_are_measured() {
    let pod = pod(&[("dataset/holdout.csv", &some(300, 300))]);
    let server = Server::default();
    let asked = server.asked.clone();
    let url = server.start().await;
    let place = pod.places.volumes.join("training");
    // The same rows, but for their labels: another row as a whole, the same one by key.
    let flipped = some(290, 20)
        .replace(",true", ",?")
        .replace(",false", ",true")
        .replace(",?", ",false");
    for (what, trained, key, told) in [
        ("other rows", some(0, 300), None, None),
        ("other rows, by key", some(0, 300), Some("id"), None),
        ("ten rows", some(0, 310), None, Some("10 of 300 rows")),
        (
            "by their key",
            some(290, 20),
            Some("id"),
            Some("told by the key id; the first is row 1)"),
        ),
        (
            "as a whole",
            some(290, 20),
            None,
            Some("told by all 5 columns; the first is row 1)"),
        ),
        ("with other labels, as a whole", flipped.clone(), None, None),
        (
            "with other labels, by key",
            flipped,
            Some("id"),
            Some("10 of 300 rows"),
        ),
    ] {
        let digest = train(&place, &trained, key);
        let before = asked.load(Ordering::SeqCst);
        let spec = pod.spec(&held_out(&url, &digest));
        let done = measure(spec, &pod.places).await;
        match told {
            None => {
                let notes = done
                    .unwrap_or_else(|e| panic!("{what}: {e:?}"))
                    .details
                    .notes;
                assert!(
                    notes[0].contains("none of its 300 rows"),
                    "{what}: {notes:?}"
                );
                let without = key.is_none();
                assert_eq!(notes[0].contains("datasets[].key"), without, "{notes:?}");
            }
            Some(told) => {
                let failure = done.err().unwrap_or_else(|| panic!("{what} were measured"));
                assert_eq!(
                    (failure.reason, failure.permanent),
                    ("TrainedOnRows", true),
                    "{what}"
                );
                assert!(
                    failure.message.contains(told),
                    "{what}: {}",
                    failure.message
                );
                let after = asked.load(Ordering::SeqCst);
                assert_eq!(before, after, "{what}: the model was asked for nothing");
            }
        }
    }
}

#[tokio::test]
async fn where_nobody_can_tell_nothing_is_measured_and_a_sentence_says_why() {
    let pod = pod(&[("dataset/holdout.csv", &some(300, 300))]);
    let url = Server::default().start().await;
    let place = pod.places.volumes.join("training");
    let digest = train(&place, &some(0, 300), None);
    let file = place.join(training_rows::FILE);
    let whole = std::fs::read(&file).unwrap();
    let fails = async |spec: Value| pod.run(spec).await.unwrap_err();

    let good = held_out(&url, &digest);
    let mut other = good.clone();
    other["training"]["digest"] = json!("sha256:other");
    assert_eq!(fails(other).await.reason, "DigestMismatch");
    std::fs::write(&file, &whole[1..]).unwrap();
    assert_eq!(fails(good.clone()).await.reason, "DigestMismatch");
    std::fs::remove_file(&file).unwrap();
    let without = fails(good.clone()).await;
    assert_eq!(without.reason, "TrainingUnknown");
    assert!(
        without
            .message
            .contains("pvc://models/churn/v1 has no perennial-rows.bin"),
        "{}",
        without.message
    );
    std::fs::remove_file(place.join("manifest.json")).unwrap();
    assert_eq!(fails(good.clone()).await.reason, "TrainingUnknown");

    let mut secret = good.clone();
    secret["training"]["unnamedSecret"] = json!("models");
    let secret = fails(secret).await;
    assert!(
        secret.message.contains("the Secret models"),
        "{}",
        secret.message
    );

    // Another set of columns: rows as a whole can't be told.
    let more = some(0, 300).replace("id,when", "id,weight,when");
    let more: String = more
        .lines()
        .enumerate()
        .map(|(i, line)| match i {
            0 => format!("{line}\n"),
            _ => format!("{}\n", line.replacen(',', ",1,", 1)),
        })
        .collect();
    let columns = fails(held_out(&url, &train(&place, &more, None))).await;
    assert_eq!(columns.reason, "TrainingUnknown");
    assert!(
        columns.message.contains("no column `weight`"),
        "{}",
        columns.message
    );
    let keyed = held_out(&url, &train(&place, &more, Some("id")));
    assert!(pod.run(keyed).await.is_ok(), "by key they can");
}
