//! `s3://` against a real S3 server: versitygw, whose binary `PERENNIAL_VERSITYGW` names
//! (`hack/cluster/extras versitygw`; `hack/test unit` runs them). The cluster tests run the same in pods. `gs://` and `az://` against stand-ins, as
//! the real ones can't be had without an account: moto (`PERENNIAL_MOTO`), an S3 server that checks no signature, as the XML API of Google's is S3's, and
//! Microsoft's Azurite (`PERENNIAL_AZURITE`).

use std::process::{Command, Stdio};

use super::{
    server::{SECRET, Server, environment, free_port},
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
    there_and_back("s3", &server.environment(SECRET)).await;
    assert!(server.root.path().join("models").exists());
}

/// Through a bucket `models`.
async fn there_and_back(scheme: &str, environment: &Environment) {
    let uri = |path: &str| uri(&format!("{scheme}://models/{path}"));
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
    let version = uri("churn/1");
    let folder = Folder::open(&version, environment).unwrap().unwrap();
    assert_eq!(folder.get("manifest.json").await.unwrap(), None);
    let content = digest::of_path(&at("in"), |_| false).unwrap();
    for file in &content.files {
        folder
            .upload(&file.path, &at("in").join(&file.path))
            .await
            .unwrap();
    }
    folder.put("manifest.json", "{}".into()).await.unwrap();
    let got = download(&version, environment, &at("out")).await.unwrap();
    let back = digest::of_path(&got, |path| path == "manifest.json").unwrap();
    assert_eq!(back, content);
    let file = download(&uri("churn/1/a.txt"), environment, &at("one"))
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
    let neighbour = Folder::open(&uri("churn/10"), environment)
        .unwrap()
        .unwrap();
    neighbour.put("x", "x".into()).await.unwrap();
    assert_eq!(folder.clear().await.unwrap(), 5);
    assert!(neighbour.get("x").await.unwrap().is_some());
    assert!(matches!(
        download(&version, environment, &at("gone")).await,
        Err(Error::NotFound(_))
    ));
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

#[tokio::test]
#[ignore = "needs moto: PERENNIAL_STORES=all hack/test unit -- google"]
async fn a_tree_goes_to_google_and_comes_back_the_same() {
    let binary = std::env::var("PERENNIAL_MOTO").expect("PERENNIAL_MOTO names moto_server");
    let port = free_port();
    let mut command = Command::new(binary);
    command
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stderr(Stdio::null());
    let server = Server::run(command, tempfile::tempdir().unwrap(), port).await;
    let bucket = format!("{}/models", server.endpoint);
    let made = http_client().unwrap().put(bucket).send().await.unwrap();
    assert_eq!(made.status().as_u16(), 200);
    let found = environment(&[
        ("GOOGLE_BEARER_TOKEN", "that nobody checks"),
        ("GOOGLE_BASE_URL", &server.endpoint),
    ]);
    there_and_back("gs", &found).await;
}

#[tokio::test]
#[ignore = "needs Azurite: PERENNIAL_STORES=all hack/test unit -- azure"]
async fn a_tree_goes_to_azure_and_comes_back_the_same() {
    /// The account that every Azurite has.
    const ACCOUNT: &str = "devstoreaccount1";
    const ACCOUNT_KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let binary = std::env::var("PERENNIAL_AZURITE").expect("PERENNIAL_AZURITE names azurite-blob");
    let root = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = Command::new(binary);
    command
        .args([
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port.to_string(),
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--location",
        ])
        .arg(root.path());
    let server = Server::run(command, root, port).await;
    let endpoint = format!("{}/{ACCOUNT}", server.endpoint);
    let with = |key| {
        environment(&[
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", key),
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
        ])
    };
    let target = tempfile::tempdir().unwrap();
    let failed = download(&uri("az://models/x"), &with(ACCOUNT_KEY), target.path()).await;
    assert!(matches!(failed, Err(Error::NotFound(_))), "{failed:?}");
    let wrong = with("d3JvbmcgYnV0IGJhc2U2NA==");
    let failed = download(&uri("az://models/x"), &wrong, target.path())
        .await
        .unwrap_err();
    assert!(
        matches!(&failed, Error::Denied(text) if text.contains("AZURE_STORAGE_ACCOUNT_KEY")),
        "{failed}"
    );
    // The container, which nothing of ours makes.
    let key = object_store::azure::AzureAccessKey::try_new(ACCOUNT_KEY).unwrap();
    let key = object_store::azure::AzureCredential::AccessKey(key);
    let mut request = http::Request::put(format!("{endpoint}/models?restype=container"))
        .header("content-length", 0)
        .body(object_store::client::HttpRequestBody::empty())
        .unwrap();
    object_store::azure::AzureAuthorizer::new(&key, ACCOUNT)
        .try_authorize(&mut request)
        .unwrap();
    let client = http_client().unwrap();
    let made = client
        .put(request.uri().to_string())
        .headers(request.headers().clone())
        .send()
        .await
        .unwrap();
    assert_eq!(made.status().as_u16(), 201);
    there_and_back("az", &with(ACCOUNT_KEY)).await;
}
