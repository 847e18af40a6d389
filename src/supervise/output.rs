//! Outputs: what the trainer wrote becomes a version once its `manifest.json`, written last, is there.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::failure::{Failure, blocking};
use crate::{
    api::{
        gate::MetricValue,
        run::{EXIT_OUTPUT, Manifest, ManifestFile},
    },
    data::{
        self, Error,
        digest::{self, Content},
        store::{Environment, Folder},
        training_rows,
        uri::Uri,
    },
};

pub use crate::api::run::MANIFEST;

/// What the trainer measured.
const METRICS: &str = "metrics.json";
/// Metrics that are kept.
const MAX_METRICS: usize = 200;
/// Files uploaded at a time.
const PARALLEL: usize = 4;

/// Where a version is written.
pub struct Output {
    uri: String,
    directory: PathBuf,
    /// Where it is uploaded to; absent where the directory itself is the place.
    folder: Option<Folder>,
}

fn unwritable(error: &Error) -> Failure {
    Failure::of("OutputUnwritable", "the output", error, EXIT_OUTPUT)
}

impl Output {
    /// Opens the place.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn open(uri: &Uri, environment: &Environment, directory: &Path) -> Result<Self, Failure> {
        if matches!(uri, Uri::Http(_)) {
            return Err(unwritable(&Error::Invalid(format!(
                "{uri} can't be written: write model.output as s3://…, gs://…, az://… or pvc://…"
            ))));
        }
        Ok(Self {
            uri: uri.to_string(),
            directory: directory.to_owned(),
            folder: Folder::open(uri, environment).map_err(|e| unwritable(&e))?,
        })
    }

    /// Makes the place ready: gives the manifest if this very run was published before; else clears what an attempt
    /// that got stuck has left.
    ///
    /// # Errors
    /// If another run's version is there, or nothing can be written.
    pub async fn prepare(&self, uid: &str) -> Result<Option<Manifest>, Failure> {
        let path = self.directory.join(MANIFEST);
        let text = match &self.folder {
            Some(folder) => folder.get(MANIFEST).await.map_err(|e| unwritable(&e))?,
            None => match std::fs::read(&path) {
                Ok(text) => Some(text.into()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                Err(e) => return Err(unwritable(&Error::file("reading", &path, &e))),
            },
        };
        if let Some(text) = text {
            let taken = |what: String| {
                Failure::new(
                    "OutputUnwritable",
                    format!("{} already holds {what}: a version is never written over; choose another model.output", self.uri),
                    EXIT_OUTPUT,
                )
                .permanent()
            };
            let manifest: Manifest = serde_json::from_slice(&text)
                .map_err(|e| taken(format!("a {MANIFEST} that can't be read ({e})")))?;
            if manifest.uid != uid {
                return Err(taken(format!(
                    "the version of another run ({}, UID {})",
                    manifest.model.training_job.as_deref().unwrap_or("?"),
                    manifest.uid
                )));
            }
            return Ok(Some(manifest));
        }
        let directory = self.directory.clone();
        blocking(move || clear(&directory))
            .await?
            .map_err(|e| unwritable(&e))?;
        if let Some(folder) = &self.folder {
            let cleared = folder.clear().await.map_err(|e| unwritable(&e))?;
            if cleared > 0 {
                tracing::info!(
                    "cleared {cleared} objects that an earlier attempt had left at {}",
                    self.uri
                );
            }
        }
        Ok(None)
    }

    /// What `metrics.json` says; if it can't be read, a metric without a value that says why.
    pub async fn metrics(&self, now: &Time) -> Vec<MetricValue> {
        let path = self.directory.join(METRICS);
        match tokio::fs::read(&path).await {
            Ok(text) => read_metrics(&text, now),
            Err(_) => Vec::new(),
        }
    }

    /// Puts what the model was trained on beside it; without such a file there is none, also if the trainer copied one of another version.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn add_rows(&self, rows: &Path) -> Result<(), Failure> {
        let (from, to) = (rows.to_owned(), self.directory.join(training_rows::FILE));
        let put = move || -> data::Result<()> {
            let done = match from.exists() {
                true => std::fs::copy(&from, &to).map(|_| ()),
                false if to.exists() => std::fs::remove_file(&to),
                false => Ok(()),
            };
            done.map_err(|e| Error::file("writing", &to, &e))
        };
        blocking(put).await?.map_err(|e| unwritable(&e))
    }

    /// Digests of all that was written; makes it readable for all, and lasting.
    ///
    /// # Errors
    /// If nothing was written.
    pub async fn digest(&self) -> Result<Content, Failure> {
        let directory = self.directory.clone();
        let content = blocking(move || -> data::Result<Content> {
            open_up(&directory)?;
            digest::of_path(&directory, |path| path == MANIFEST)
        })
        .await?
        .map_err(|e| unwritable(&e))?;
        let ours = |path: &str| matches!(path, METRICS | training_rows::FILE);
        if content.files.iter().all(|file| ours(&file.path)) {
            return Err(Failure::new(
                "OutputEmpty",
                "the trainer ended well but wrote no file to $PERENNIAL_OUTPUT_DIR, so that there is no model".to_owned(),
                EXIT_OUTPUT,
            )
            .permanent());
        }
        Ok(content)
    }

    /// Puts everything in its place, the manifest last.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn publish(&self, content: &Content, manifest: &Manifest) -> Result<(), Failure> {
        use futures::{StreamExt, TryStreamExt};
        let text = serde_json::to_vec_pretty(manifest).map_err(|e| {
            unwritable(&Error::Content(format!(
                "the manifest can't be written: {e}"
            )))
        })?;
        let Some(folder) = &self.folder else {
            let directory = self.directory.clone();
            return blocking(move || write_last(&directory, &text))
                .await?
                .map_err(|e| unwritable(&e));
        };
        futures::stream::iter(content.files.iter().map(|file| async move {
            folder
                .upload(&file.path, &self.directory.join(&file.path))
                .await
        }))
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await
        .map_err(|e| unwritable(&e))?;
        folder
            .put(MANIFEST, text.into())
            .await
            .map_err(|e| unwritable(&e))
    }
}

/// The files as the manifest lists them.
#[must_use]
pub fn manifest_files(content: &Content) -> Vec<ManifestFile> {
    content
        .files
        .iter()
        .map(|file| ManifestFile {
            path: file.path.clone(),
            digest: file.digest.clone(),
            size_bytes: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        })
        .collect()
}

/// Empties a directory (it may be a mount itself), and sees whether it can be written.
pub(crate) fn clear(directory: &Path) -> data::Result<()> {
    let failed = |path: &Path, e: &std::io::Error| Error::file("clearing", path, e);
    std::fs::create_dir_all(directory).map_err(|e| failed(directory, &e))?;
    for entry in std::fs::read_dir(directory).map_err(|e| failed(directory, &e))? {
        let path = entry.map_err(|e| failed(directory, &e))?.path();
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(|e| failed(&path, &e))?;
    }
    let probe = directory.join(".perennial");
    std::fs::write(&probe, "")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| match Error::file("writing to", directory, &e) {
            Error::Denied(text) => Error::Denied(format!(
                "{text}; user {} may not write to this volume: set securityContext.fsGroup in the pod template, or the volume's own permissions",
                rustix::process::getuid().as_raw()
            )),
            other => other,
        })
}

/// Servers run as other users than the trainer: everybody may read.
pub(super) fn open_up(directory: &Path) -> data::Result<()> {
    let failed = |path: &Path, e: &std::io::Error| Error::file("opening up", path, e);
    let grant = |path: &Path, bits: u32| -> data::Result<()> {
        let mode = std::fs::metadata(path)
            .map_err(|e| failed(path, &e))?
            .permissions()
            .mode();
        if mode & bits == bits {
            return Ok(());
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | bits))
            .map_err(|e| failed(path, &e))
    };
    // The root may belong to the kubelet.
    let _ = grant(directory, 0o555);
    for entry in std::fs::read_dir(directory).map_err(|e| failed(directory, &e))? {
        let path = entry.map_err(|e| failed(directory, &e))?.path();
        if path.is_symlink() {
            // A link is published as what it leads to; its target's mode isn't ours.
            continue;
        }
        if path.is_dir() {
            open_up(&path)?;
        } else {
            grant(&path, 0o444)?;
            std::fs::File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|e| Error::file("flushing", &path, &e))?;
        }
    }
    Ok(())
}

/// Writes the manifest so that it is there whole or not at all.
fn write_last(directory: &Path, text: &[u8]) -> data::Result<()> {
    use std::io::Write;
    let partial = directory.join(".manifest.json.partial");
    let whole = directory.join(MANIFEST);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(text)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.sync_all()?;
        std::fs::rename(&partial, &whole)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(|e| Error::file("writing", &whole, &e))
}

/// `{"rocAuc": 0.7}`, or `{"rocAuc": {"value": 0.7, "samples": 2000, "lower": …, "upper": …}}`.
fn read_metrics(text: &[u8], now: &Time) -> Vec<MetricValue> {
    let trouble = |message: String| {
        tracing::warn!("{message}");
        vec![MetricValue {
            name: METRICS.to_owned(),
            message: Some(message),
            ..MetricValue::default()
        }]
    };
    let object = match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return trouble(format!("{METRICS} is no JSON object of names and numbers")),
        Err(e) => {
            return trouble(format!(
                "{METRICS} isn't JSON ({e}); NaN and Infinity aren't JSON either"
            ));
        }
    };
    object
        .iter()
        .filter_map(|(name, value)| {
            let inner = |key: &str| value.get(key);
            let number = value.as_f64().or(inner("value").and_then(Value::as_f64))?;
            Some(MetricValue {
                name: super::board::shorten(name, 128),
                value: Some(number),
                samples: inner("samples").and_then(Value::as_i64),
                lower: inner("lower").and_then(Value::as_f64),
                upper: inner("upper").and_then(Value::as_f64),
                time: Some(now.clone()),
                ..MetricValue::default()
            })
        })
        .take(MAX_METRICS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_numbers_or_numbers_with_an_interval() {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let metrics = read_metrics(br#"{"rocAuc": 0.7, "n": 3, "loss": {"value": 0.5, "samples": 20, "lower": 0.4}, "note": "x"}"#, &now);
        let names: Vec<&str> = metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["rocAuc", "n", "loss"]);
        assert_eq!(
            (metrics[2].value, metrics[2].samples, metrics[2].lower),
            (Some(0.5), Some(20), Some(0.4))
        );
        let broken = read_metrics(br#"{"rocAuc": NaN}"#, &now);
        assert_eq!((broken.len(), broken[0].value), (1, None));
        assert!(broken[0].message.as_ref().unwrap().contains("NaN"));
    }
}
