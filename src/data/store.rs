//! Getting data from where it lies, and putting it there.
//!
//! Credentials are environment variables, given to the pod by the Secret that `credentials` names: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL` … for `s3://`; `GOOGLE_SERVICE_ACCOUNT_KEY` … for
//! `gs://`; `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY` … for `az://`; `HTTP_TOKEN`, or `HTTP_USERNAME` and `HTTP_PASSWORD`, for
//! `http(s)://`.

pub(super) mod clouds;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as Key};
use tokio::io::AsyncWriteExt;

use super::{Error, Result, uri::Uri};

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Silence after which a transfer counts as broken.
const SILENCE: Duration = Duration::from_secs(60);
/// Tries of one request.
const TRIES: usize = 5;
/// Objects transferred at a time.
const PARALLEL: usize = 8;

/// Credentials and endpoints, as environment variables.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables with this prefix, without it. If there is none, no credentials were given, and the pod's own identity
    /// counts: the process's environment as it is.
    #[must_use]
    pub fn prefixed(prefix: &str) -> Self {
        let own: BTreeMap<String, String> = std::env::vars()
            .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value)))
            .collect();
        if own.is_empty() {
            Self(std::env::vars().collect())
        } else {
            Self(own)
        }
    }

    /// These variables and no others.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(values.into_iter().collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| v.trim()).filter(|v| !v.is_empty())
    }
}

/// Certificate authorities that we trust: the public ones built in, this machine's bundle, and `SSL_CERT_FILE`.
fn roots() -> &'static [Vec<u8>] {
    static ROOTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        // Fails if another part of the program has installed one, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut found: Vec<Vec<u8>> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|der| der.to_vec())
            .collect();
        let bundles = [
            std::env::var("SSL_CERT_FILE").ok(),
            Some("/etc/ssl/certs/ca-certificates.crt".to_owned()),
            Some("/etc/pki/tls/certs/ca-bundle.crt".to_owned()),
        ];
        for path in bundles.into_iter().flatten() {
            use rustls::pki_types::{CertificateDer, pem::PemObject};
            if let Ok(certificates) = CertificateDer::pem_file_iter(&path) {
                found.extend(certificates.filter_map(|c| c.ok().map(|c| c.to_vec())));
            }
        }
        found.sort();
        found.dedup();
        found
    })
}

/// An HTTP client with our certificate authorities and time-outs.
///
/// # Errors
/// If TLS can't be set up.
pub fn http_client() -> Result<reqwest::Client> {
    patient_client(SILENCE)
}

/// As [`http_client`], that bears so long a silence of a server.
///
/// # Errors
/// If TLS can't be set up.
pub fn patient_client(silence: Duration) -> Result<reqwest::Client> {
    let certificates = roots()
        .iter()
        .filter_map(|der| reqwest::Certificate::from_der(der).ok());
    reqwest::Client::builder()
        .tls_certs_only(certificates)
        .connect_timeout(CONNECT)
        .read_timeout(silence)
        .user_agent(concat!("perennial/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::Unavailable(format!("making an HTTP client failed: {}", chain(&e))))
}

/// An error with its causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

pub(super) fn key(uri: &Uri, path: &str) -> Result<Key> {
    Key::parse(path).map_err(|e| Error::Invalid(format!("{uri}: {}", chain(&e))))
}

/// Downloads what a URI names into a directory, which is made: a file under its own name, a tree as it is. Gives the path
/// of the file or of the directory. Claims and local paths aren't downloaded: see [`Uri::mounted`].
///
/// # Errors
/// If it isn't there, may not be read, or doesn't come after several tries.
pub async fn download(uri: &Uri, environment: &Environment, target: &Path) -> Result<PathBuf> {
    tokio::fs::create_dir_all(target)
        .await
        .map_err(|e| Error::file("making", target, &e))?;
    match uri {
        Uri::Http(url) => {
            let name = match uri.name() {
                "" => "data",
                name => name,
            };
            let path = target.join(name);
            get_http(url, environment, &path).await?;
            Ok(path)
        }
        Uri::Bucket {
            cloud,
            bucket,
            key: path,
        } => {
            let store = clouds::open(*cloud, bucket, environment)?;
            if !path.is_empty() {
                let at = key(uri, path)?;
                match store.head(&at).await {
                    Ok(_) => {
                        let file = target.join(uri.name());
                        get_object(store.as_ref(), &at, &file, uri).await?;
                        return Ok(file);
                    }
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => return Err(clouds::error(uri, &format!("reading {uri}"), &e)),
                }
            }
            get_tree(store, uri, path, target).await?;
            Ok(target.to_owned())
        }
        Uri::Pvc { .. } | Uri::File(_) => {
            Err(Error::Invalid(format!("{uri} is mounted, not downloaded")))
        }
    }
}

async fn get_tree(
    store: Arc<dyn ObjectStore>,
    uri: &Uri,
    prefix: &str,
    target: &Path,
) -> Result<()> {
    let root = key(uri, prefix)?;
    let objects: Vec<_> = store
        .list(Some(&root))
        .try_collect()
        .await
        .map_err(|e| clouds::error(uri, &format!("listing {uri}"), &e))?;
    if objects.is_empty() {
        return Err(Error::NotFound(format!(
            "{uri}: there is neither an object nor anything below it"
        )));
    }
    futures::stream::iter(objects.into_iter().map(|object| {
        let (store, root) = (store.clone(), root.clone());
        async move {
            let relative: PathBuf = object
                .location
                .prefix_match(&root)
                .map(|parts| parts.map(|p| p.as_ref().to_owned()).collect())
                .unwrap_or_default();
            let file = target.join(&relative);
            if let Some(parent) = file.parent() {
                tokio::fs::create_dir_all(parent)
                    .await
                    .map_err(|e| Error::file("making", parent, &e))?;
            }
            get_object(store.as_ref(), &object.location, &file, uri).await
        }
    }))
    .buffer_unordered(PARALLEL)
    .try_collect::<Vec<()>>()
    .await?;
    Ok(())
}

async fn get_object(store: &dyn ObjectStore, at: &Key, file: &Path, uri: &Uri) -> Result<()> {
    let mut last = None;
    for wait in waits() {
        tokio::time::sleep(wait).await;
        let result = async {
            let stream = store
                .get(at)
                .await
                .map_err(|e| clouds::error(uri, &format!("reading {uri} ({at})"), &e))?;
            let stream = stream
                .into_stream()
                .map_err(|e| clouds::error(uri, &format!("reading {uri} ({at})"), &e));
            save(stream, file).await
        }
        .await;
        match result {
            Err(Error::Unavailable(text)) => last = Some(Error::Unavailable(text)),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| Error::Unavailable(format!("reading {uri} failed"))))
}

/// Waits before each try: none, then doubling from half a second.
pub(super) fn waits() -> impl Iterator<Item = Duration> {
    (0..TRIES).map(|n| match n {
        0 => Duration::ZERO,
        n => Duration::from_millis(250 << n),
    })
}

async fn save(
    mut stream: impl futures::Stream<Item = Result<Bytes>> + Unpin,
    path: &Path,
) -> Result<()> {
    let failed = |e: &std::io::Error| Error::file("writing", path, e);
    let mut file = tokio::fs::File::create(path)
        .await
        .map_err(|e| failed(&e))?;
    while let Some(chunk) = stream.next().await {
        file.write_all(&chunk?).await.map_err(|e| failed(&e))?;
    }
    file.flush().await.map_err(|e| failed(&e))
}

async fn get_http(url: &url::Url, environment: &Environment, path: &Path) -> Result<()> {
    let client = http_client()?;
    let mut last = Error::Unavailable(format!("reading {url} failed"));
    for wait in waits() {
        tokio::time::sleep(wait).await;
        let request = authorized(client.get(url.clone()), environment);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(e) => {
                last = Error::Unavailable(format!("reading {url} failed: {}", chain(&e)));
                continue;
            }
        };
        let status = answer.status();
        last = match status.as_u16() {
            200 => {
                let length = answer.content_length();
                let stream = answer.bytes_stream().map_err(|e| {
                    Error::Unavailable(format!("reading {url} broke off: {}", chain(&e)))
                });
                match save(stream, path).await {
                    Ok(()) => {
                        let got = tokio::fs::metadata(path).await.map(|m| m.len()).ok();
                        if length.is_none() || length == got {
                            return Ok(());
                        }
                        Error::Unavailable(format!("reading {url} broke off early"))
                    }
                    Err(e @ Error::Unavailable(_)) => e,
                    Err(e) => return Err(e),
                }
            }
            _ => match http_error(url, status) {
                e @ Error::Unavailable(_) => e,
                e => return Err(e),
            },
        };
    }
    Err(last)
}

/// A request with what the environment says who asks.
pub(super) fn authorized(
    request: reqwest::RequestBuilder,
    environment: &Environment,
) -> reqwest::RequestBuilder {
    if let Some(token) = environment.get("HTTP_TOKEN") {
        request.bearer_auth(token)
    } else if let Some(user) = environment.get("HTTP_USERNAME") {
        request.basic_auth(user, environment.get("HTTP_PASSWORD"))
    } else {
        request
    }
}

/// What an answer that is no file means.
pub(super) fn http_error(url: &url::Url, status: reqwest::StatusCode) -> Error {
    match status.as_u16() {
        404 | 410 => Error::NotFound(format!("{url} isn't there: the server answers {status}")),
        401 | 403 => Error::Denied(format!(
            "{url} may not be read: the server answers {status}; are HTTP_TOKEN, or HTTP_USERNAME and HTTP_PASSWORD, in the Secret that `credentials` names?"
        )),
        408 | 429 | 500..=599 => Error::Unavailable(format!("{url} answers {status}")),
        _ => Error::Invalid(format!("{url} answers {status}, which is no file")),
    }
}

/// A prefix of a bucket that is written to.
#[derive(Clone)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    uri: Uri,
    prefix: String,
}

impl Folder {
    /// Opens a prefix of a bucket; `None` for other schemes.
    ///
    /// # Errors
    /// If the environment makes no sense.
    pub fn open(uri: &Uri, environment: &Environment) -> Result<Option<Self>> {
        let Uri::Bucket { cloud, bucket, key } = uri else {
            return Ok(None);
        };
        Ok(Some(Self {
            store: clouds::open(*cloud, bucket, environment)?,
            uri: uri.clone(),
            prefix: key.clone(),
        }))
    }

    fn key(&self, path: &str) -> Result<Key> {
        let whole = format!("{}/{path}", self.prefix);
        key(&self.uri, whole.trim_matches('/'))
    }

    /// A small object; `None` if there is none.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let what = format!("reading {}/{path}", self.uri);
        match self.store.get(&self.key(path)?).await {
            Ok(object) => Ok(Some(
                object
                    .bytes()
                    .await
                    .map_err(|e| clouds::error(&self.uri, &what, &e))?,
            )),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(clouds::error(&self.uri, &what, &e)),
        }
    }

    /// Writes a small object.
    ///
    /// # Errors
    /// If the store refuses it.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.store
            .put(&self.key(path)?, bytes.into())
            .await
            .map_err(|e| clouds::error(&self.uri, &format!("writing {}/{path}", self.uri), &e))?;
        Ok(())
    }

    /// Writes a file; a large one in parts.
    ///
    /// # Errors
    /// If the file can't be read or the store refuses it.
    pub async fn upload(&self, path: &str, file: &Path) -> Result<()> {
        let what = format!("writing {}/{path}", self.uri);
        let mut reader = tokio::fs::File::open(file)
            .await
            .map_err(|e| Error::file("opening", file, &e))?;
        let mut writer =
            object_store::buffered::BufWriter::new(self.store.clone(), self.key(path)?);
        let copied = async {
            tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await
        };
        copied.await.map_err(|e| {
            match e
                .get_ref()
                .and_then(|cause| cause.downcast_ref::<object_store::Error>())
            {
                Some(cause) => clouds::error(&self.uri, &what, cause),
                None => Error::Unavailable(format!("{what}: {}", chain(&e))),
            }
        })
    }

    /// Deletes all objects below the prefix.
    ///
    /// # Errors
    /// If the store refuses it.
    pub async fn clear(&self) -> Result<usize> {
        let what = format!("clearing {}", self.uri);
        let root = self.key("")?;
        let objects: Vec<_> = self
            .store
            .list(Some(&root))
            .try_collect()
            .await
            .map_err(|e| clouds::error(&self.uri, &what, &e))?;
        for object in &objects {
            match self.store.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(clouds::error(&self.uri, &what, &e)),
            }
        }
        Ok(objects.len())
    }
}

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
