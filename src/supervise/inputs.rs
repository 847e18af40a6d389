//! Inputs: fetched or linked, verified, checked, profiled.

use std::path::{Path, PathBuf};

use super::{
    Places, check,
    failure::{Failure, blocking},
    signature_of,
};
use crate::{
    api::{
        revision::{Feature, Signature},
        run::{EXIT_INPUT, TrainingRun},
        training_job::{Dataset, DatasetStatus, Format},
    },
    data::{
        self, digest, profile,
        store::{self, Environment},
        table::{self, Kind, Source},
        training_rows::{self, RowSet},
        uri::Uri,
    },
};

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Every dataset so far, with the digest that was read.
    pub datasets: Vec<DatasetStatus>,
    /// What the first dataset with a label or features says the model takes.
    pub signature: Option<Signature>,
    /// Its profile.
    pub profile: Option<serde_json::Value>,
    /// The rows of every dataset with a label or features.
    pub rows: Vec<RowSet>,
}

/// Gets all datasets of a run; `found` has what was read also when it fails.
///
/// # Errors
/// `InputUnreadable`, `DigestMismatch` or `CheckFailed`.
pub async fn gather(
    training: &TrainingRun,
    places: &Places,
    found: &mut Inputs,
) -> Result<(), Failure> {
    let learnt = training.datasets.iter().filter(|d| described(d)).count();
    let most = training_rows::MOST / learnt.max(1);
    for (index, dataset) in training.datasets.iter().enumerate() {
        let environment = Environment::prefixed(&format!("PERENNIAL_CRED_{index}_"));
        let target = match &dataset.mount_path {
            Some(path) => PathBuf::from(path),
            None => places.inputs.join(&dataset.name),
        };
        let mount = places.volumes.join(&dataset.name);
        let path = place(&dataset.uri, &environment, &mount, &target)
            .await
            .map_err(|e| unreadable(dataset, &e))?;
        let status = identify(dataset, path.clone()).await?;
        found.datasets.push(status);
        let wants_profile = found.signature.is_none();
        let understood = {
            let dataset = dataset.clone();
            blocking(move || understand(&dataset, &path, (wants_profile, most))).await??
        };
        let Understood { own, rows, sets } = understood;
        found.rows.extend(sets);
        if let Some(last) = found.datasets.last_mut() {
            last.rows = rows;
            tracing::info!(
                dataset = last.name,
                digest = last.digest,
                rows,
                "read {}",
                last.uri
            );
        }
        if let Some((signature, profile)) = own {
            found.signature = Some(signature);
            found.profile = Some(profile);
        }
    }
    Ok(())
}

fn unreadable(dataset: &Dataset, error: &data::Error) -> Failure {
    Failure::of(
        "InputUnreadable",
        &format!("dataset `{}`", dataset.name),
        error,
        EXIT_INPUT,
    )
}

/// Brings what a URI names to `target`: downloaded, or linked to where the claim is mounted. Gives the file, or the
/// directory of a tree.
///
/// # Errors
/// If it isn't there or can't be brought.
pub async fn place(
    uri: &str,
    environment: &Environment,
    mount: &Path,
    target: &Path,
) -> data::Result<PathBuf> {
    let uri: Uri = uri.parse()?;
    let Some(source) = uri.mounted(mount) else {
        return store::download(&uri, environment, target).await;
    };
    if !source.exists() {
        return Err(data::Error::NotFound(format!(
            "{uri} isn't there: the claim is mounted, but has no such file or directory"
        )));
    }
    link(&source, target)
}

/// Makes `target` a directory that holds a file, or all that a directory holds, as links. So that it works where `target`
/// is an empty volume of its own as well as where it is a name in one.
fn link(source: &Path, target: &Path) -> data::Result<PathBuf> {
    let failed = |path: &Path, e: &std::io::Error| data::Error::file("linking", path, e);
    std::fs::create_dir_all(target).map_err(|e| failed(target, &e))?;
    let one = |from: &Path| -> data::Result<PathBuf> {
        let name = from.file_name().unwrap_or_default();
        let to = target.join(name);
        // Left by an earlier start of this container.
        if to.is_symlink() {
            std::fs::remove_file(&to).map_err(|e| failed(&to, &e))?;
        }
        std::os::unix::fs::symlink(from, &to).map_err(|e| failed(&to, &e))?;
        Ok(to)
    };
    if source.is_file() {
        return one(source);
    }
    for entry in std::fs::read_dir(source).map_err(|e| failed(source, &e))? {
        one(&entry.map_err(|e| failed(source, &e))?.path())?;
    }
    Ok(target.to_owned())
}

async fn identify(dataset: &Dataset, path: PathBuf) -> Result<DatasetStatus, Failure> {
    let content = blocking(move || digest::of_path(&path, |_| false))
        .await?
        .map_err(|e| unreadable(dataset, &e))?;
    let status = DatasetStatus {
        name: dataset.name.clone(),
        uri: dataset.uri.clone(),
        digest: content.digest,
        rows: None,
        size_bytes: i64::try_from(content.bytes).unwrap_or(i64::MAX),
    };
    match &dataset.digest {
        Some(wanted) if *wanted != status.digest => Err(Failure::new(
            "DigestMismatch",
            format!(
                "dataset `{}` ({}) has the digest {}, not {wanted}: the data has changed; write the new digest if that is meant, or read what was meant",
                dataset.name, dataset.uri, status.digest
            ),
            EXIT_INPUT,
        )
        .permanent()),
        _ => Ok(status),
    }
}

/// As the table reader says it.
#[must_use]
pub fn table_format(format: Option<Format>) -> Option<table::Format> {
    format.map(|format| match format {
        Format::Parquet => table::Format::Parquet,
        Format::Arrow => table::Format::Arrow,
        Format::Csv => table::Format::Csv,
        Format::Jsonl => table::Format::Jsonl,
    })
}

/// What is known of a dataset.
#[derive(Default)]
struct Understood {
    own: Option<(Signature, serde_json::Value)>,
    rows: Option<i64>,
    sets: Vec<RowSet>,
}

/// Whether a model learns from it, as far as anybody says.
fn described(dataset: &Dataset) -> bool {
    dataset.label.is_some() || dataset.features.is_some()
}

/// Reads a dataset as a table where it must be one or looks like one; at most so many of its rows are told apart.
fn understand(
    dataset: &Dataset,
    path: &Path,
    (wants_profile, most): (bool, usize),
) -> Result<Understood, Failure> {
    let described = described(dataset);
    let must = described || !dataset.checks.is_empty() || dataset.format.is_some();
    let source = match Source::open(path, table_format(dataset.format)) {
        Ok(source) => source,
        Err(error) if must => return Err(unreadable(dataset, &error)),
        Err(_) => return Ok(Understood::default()),
    };
    let skipped = source.skipped();
    if let Some(first) = &skipped.first {
        tracing::warn!(
            dataset = dataset.name,
            "{} lines can't be read and are left out of checks and profile; the first: {first}",
            skipped.lines
        );
    }
    let failures = check::run(&source, &dataset.checks).map_err(|e| unreadable(dataset, &e))?;
    if let Some(message) = check::sentence(&dataset.name, &failures) {
        return Err(Failure::new("CheckFailed", message, EXIT_INPUT).permanent());
    }
    let mut understood = Understood {
        rows: i64::try_from(source.rows()).ok(),
        ..Understood::default()
    };
    if described && wants_profile {
        understood.own = describe(dataset, &source).map_err(|e| unreadable(dataset, &e))?;
    }
    if described {
        understood.sets =
            training_rows::record(&dataset.name, &source, dataset.key.as_deref(), most)
                .map_err(|e| unreadable(dataset, &e))?;
    }
    Ok(understood)
}

/// Signature and profile: the features in order, then the label.
fn describe(
    dataset: &Dataset,
    source: &Source,
) -> data::Result<Option<(Signature, serde_json::Value)>> {
    let label = dataset.label.as_deref();
    let time = dataset.time.as_ref().map(|t| t.column.as_str());
    if let Some(time) = time {
        source.field(time)?;
    }
    let names: Vec<&str> = match &dataset.features {
        Some(features) => features.iter().map(String::as_str).collect(),
        None => source
            .fields()
            .iter()
            .filter(|f| f.kind != Kind::Other)
            .map(|f| f.name.as_str())
            .filter(|name| Some(*name) != label && Some(*name) != time)
            .filter(|name| !dataset.key.iter().flatten().any(|key| key == name))
            .collect(),
    };
    let mut features = Vec::with_capacity(names.len());
    for name in &names {
        features.push(Feature {
            name: (*name).to_owned(),
            kind: type_name(source.field(name)?.kind)
                .ok_or_else(|| {
                    data::Error::Content(format!(
                        "feature `{name}` holds lists, objects or bytes: a feature is one value"
                    ))
                })?
                .to_owned(),
        });
    }
    let columns: Vec<&str> = names.iter().copied().chain(label).collect();
    let profile = profile::build(source, &columns, time)?;
    let profile = serde_json::to_value(profile)
        .map_err(|e| data::Error::Content(format!("its profile can't be written: {e}")))?;
    Ok(signature_of(features, label.map(str::to_owned)).map(|signature| (signature, profile)))
}

/// A column's type, as signatures name it.
#[must_use]
pub fn type_name(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Integer | Kind::Number => "Number",
        Kind::Text => "String",
        Kind::Boolean => "Boolean",
        Kind::Time => "Time",
        Kind::Other => return None,
    })
}
