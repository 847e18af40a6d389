//! Opening a bucket of each cloud with what the environment says, and errors in words of that cloud.

use std::sync::Arc;

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
};

use super::{CONNECT, Environment, SILENCE, TRIES, chain, roots};
use crate::data::{
    Error, Result,
    uri::{Cloud, Uri},
};

/// Opens a bucket (of Azure: a container).
///
/// # Errors
/// If the environment makes no sense.
pub(in crate::data) fn open(
    cloud: Cloud,
    name: &str,
    environment: &Environment,
) -> Result<Arc<dyn ObjectStore>> {
    let failed = |e: object_store::Error| {
        let scheme = cloud.scheme();
        Error::Invalid(format!("{scheme}://{name}: {}", chain(&e)))
    };
    let store: Arc<dyn ObjectStore> = match cloud {
        Cloud::S3 => Arc::new(s3(name, environment).map_err(failed)?),
        Cloud::Google => Arc::new(google(name, environment).map_err(failed)?),
        Cloud::Azure => Arc::new(azure(name, environment).map_err(failed)?),
    };
    Ok(store)
}

/// Our certificate authorities and time-outs; plain HTTP only where somebody wrote it.
fn options(endpoint: Option<&str>) -> ClientOptions {
    let mut options = ClientOptions::new()
        .with_no_system_certificates(true)
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        .with_timeout_disabled()
        .with_allow_http(endpoint.is_some_and(|e| e.starts_with("http://")));
    for der in roots() {
        if let Ok(certificate) = object_store::Certificate::from_der(der) {
            options = options.with_root_certificate(certificate);
        }
    }
    options
}

fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: TRIES,
        retry_timeout: std::time::Duration::from_secs(120),
        ..RetryConfig::default()
    }
}

/// The variables of a cloud that its client knows.
fn known<'a, K: std::str::FromStr>(
    environment: &'a Environment,
    prefix: &'a str,
) -> impl Iterator<Item = (K, &'a str)> {
    environment
        .0
        .iter()
        .filter(move |(key, _)| key.starts_with(prefix))
        .filter_map(|(key, value)| Some((key.to_ascii_lowercase().parse().ok()?, value.trim())))
}

fn s3(name: &str, environment: &Environment) -> object_store::Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::new();
    for (key, value) in known::<AmazonS3ConfigKey>(environment, "AWS_") {
        builder = builder.with_config(key, value);
    }
    let endpoint = environment
        .get("AWS_ENDPOINT_URL_S3")
        .or(environment.get("AWS_ENDPOINT_URL"))
        .or(environment.get("AWS_ENDPOINT"));
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if environment.get("AWS_REGION").is_none() && environment.get("AWS_DEFAULT_REGION").is_none() {
        builder = builder.with_region("us-east-1");
    }
    builder
        .with_bucket_name(name)
        .with_client_options(options(endpoint))
        .with_retry(retry())
        .build()
}

fn google(
    name: &str,
    environment: &Environment,
) -> object_store::Result<object_store::gcp::GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in known::<GoogleConfigKey>(environment, "GOOGLE_") {
        builder = builder.with_config(key, value);
    }
    builder
        .with_bucket_name(name)
        .with_client_options(options(environment.get("GOOGLE_BASE_URL")))
        .with_retry(retry())
        .build()
}

fn azure(
    name: &str,
    environment: &Environment,
) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in known::<AzureConfigKey>(environment, "AZURE_") {
        builder = builder.with_config(key, value);
    }
    let endpoint = environment
        .get("AZURE_STORAGE_ENDPOINT")
        .or(environment.get("AZURE_ENDPOINT"));
    builder
        .with_container_name(name)
        .with_client_options(options(endpoint))
        .with_retry(retry())
        .build()
}

/// What went wrong with a bucket, and what to write under `credentials` where that is it.
pub(in crate::data) fn error(uri: &Uri, what: &str, error: &object_store::Error) -> Error {
    let text = format!("{what}: {}", chain(error));
    let (keys, public) = match uri {
        Uri::Bucket {
            cloud: Cloud::Google,
            ..
        } => ("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SKIP_SIGNATURE"),
        Uri::Bucket {
            cloud: Cloud::Azure,
            ..
        } => (
            "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_SKIP_SIGNATURE",
        ),
        _ => (
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            "AWS_SKIP_SIGNATURE",
        ),
    };
    // Without keys the client asks the cloud's metadata service who the pod is.
    let metadata = [
        "169.254.169.254",
        "169.254.170.",
        "metadata.google.internal",
    ];
    match error {
        object_store::Error::NotFound { .. } => Error::NotFound(format!("{what}: it isn't there")),
        _ if metadata.iter().any(|address| text.contains(address)) => Error::Denied(format!(
            "{what}: no credentials were given, and the pod has no identity of its own: name a Secret with {keys} under `credentials` (for a public bucket, with {public}=true)"
        )),
        // The codes of their APIs, which have no error of their own in the client.
        _ if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") => {
            Error::NotFound(format!("{what}: there is no such bucket"))
        }
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => Error::Denied(format!(
            "{text}; are {keys} in the Secret that `credentials` names?"
        )),
        _ => Error::Unavailable(text),
    }
}
