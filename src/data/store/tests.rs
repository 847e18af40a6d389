//! `s3://` against a real S3 server: versitygw, whose binary `PERENNIAL_VERSITYGW` names
//! (`hack/cluster/extras versitygw`; `hack/test unit` runs them). The cluster tests run the same in pods.

use super::{
    server::{SECRET, Server},
    *,
};
use crate::data::digest;

fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

#[tokio::test]
#[ignore = "needs an S3 server: PERENNIAL_VERSITYGW=…/versitygw cargo test --lib s3 -- --ignored"]
async fn a_tree_goes_to_s3_and_comes_back_the_same() {
    let server = Server::start().await;
    let environment = server.environment(SECRET);
    let local = tempfile::tempdir().unwrap();
    let at = |path: &str| local.path().join(path);
    std::fs::create_dir_all(at("in/sub dir")).unwrap();
    std::fs::write(at("in/a.txt"), "one").unwrap();
    std::fs::write(at("in/sub dir/ü+%20.bin"), vec![7; 100]).unwrap();
    std::fs::write(at("in/empty"), "").unwrap();
    // Larger than one part.
    std::fs::write(
        at("in/large.bin"),
        (0..23_000_000u32).map(|i| i as u8).collect::<Vec<u8>>(),
    )
    .unwrap();
    let version = uri("s3://models/churn/1");
    let folder = Folder::open(&version, &environment).unwrap().unwrap();
    assert_eq!(folder.get("manifest.json").await.unwrap(), None);
    let content = digest::of_path(&at("in"), |_| false).unwrap();
    for file in &content.files {
        folder
            .upload(&file.path, &at("in").join(&file.path))
            .await
            .unwrap();
    }
    folder.put("manifest.json", "{}".into()).await.unwrap();
    let got = download(&version, &environment, &at("out")).await.unwrap();
    let back = digest::of_path(&got, |path| path == "manifest.json").unwrap();
    assert_eq!(back, content);
    let file = download(&uri("s3://models/churn/1/a.txt"), &environment, &at("one"))
        .await
        .unwrap();
    assert_eq!(
        (
            file.as_path(),
            std::fs::read_to_string(&file).unwrap().as_str()
        ),
        (at("one/a.txt").as_path(), "one")
    );
    // A neighbour whose name begins the same is no part of it.
    let neighbour = Folder::open(&uri("s3://models/churn/10"), &environment)
        .unwrap()
        .unwrap();
    neighbour.put("x", "x".into()).await.unwrap();
    assert_eq!(folder.clear().await.unwrap(), 5);
    assert!(neighbour.get("x").await.unwrap().is_some());
    assert!(matches!(
        download(&version, &environment, &at("gone")).await,
        Err(Error::NotFound(_))
    ));
    assert!(server.root.path().join("models").exists());
}

#[tokio::test]
#[ignore = "needs an S3 server: PERENNIAL_VERSITYGW=…/versitygw cargo test --lib s3 -- --ignored"]
async fn wrong_keys_and_buckets_for_s3_are_told_apart() {
    let server = Server::start().await;
    let target = tempfile::tempdir().unwrap();
    let get = async |text: &str, environment: &Environment| {
        download(&uri(text), environment, target.path())
            .await
            .unwrap_err()
    };
    let wrong = get("s3://models/x", &server.environment("wrong")).await;
    assert!(
        matches!(&wrong, Error::Denied(text) if text.contains("AWS_SECRET_ACCESS_KEY")),
        "{wrong}"
    );
    let good = server.environment(SECRET);
    assert!(matches!(
        get("s3://models/x", &good).await,
        Error::NotFound(_)
    ));
    assert!(matches!(
        get("s3://nobucket/x", &good).await,
        Error::NotFound(_)
    ));
}
