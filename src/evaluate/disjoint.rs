//! Whether a holdout is one: no row of it may be among those that the model was trained on, which its training wrote down beside the artifact
//! ([`training_rows`]).

use std::path::Path;

use super::{Places, input_failure, rows::Loaded};
use crate::{
    api::run::{
        EXIT_INPUT, EvaluationRunSpec, MANIFEST, Manifest, TRAINING, TRAINING_INDEX, TrainedOn,
    },
    data::{
        self, Error,
        digest::{self, FileDigest},
        store::{Environment, Folder},
        table::Source,
        training_rows::{self, By, RowSet},
        uri::Uri,
    },
    supervise::failure::{Failure, blocking},
};

/// Looks for rows of the dataset among those of the training; gives a note of how it was told.
///
/// # Errors
/// `TrainedOnRows` if there are any, `TrainingUnknown` if it can't be told.
pub async fn check(
    spec: &EvaluationRunSpec,
    loaded: &Loaded,
    places: &Places,
) -> Result<Option<String>, Failure> {
    let Some(training) = &spec.training else {
        return Ok(None);
    };
    let sets = recorded(training, places).await?;
    let source = match (&loaded.current, loaded.gathered.get("dataset")) {
        (Some(current), _) => Some(current.source.clone()),
        (None, Some(gathered)) => {
            let path = gathered.path.clone();
            let opened = blocking(move || Source::open(&path, None)).await?;
            Some(opened.map_err(|e| unknown(training, &format!("the dataset is no table: {e}")))?)
        }
        (None, None) => None,
    };
    let source = source.ok_or_else(|| unknown(training, "there is no dataset"))?;
    let (training, key) = (training.clone(), spec.key.clone().unwrap_or_default());
    blocking(move || compare(&training, &sets, &key, &source))
        .await?
        .map(Some)
}

fn unknown(training: &TrainedOn, why: &str) -> Failure {
    let version = &training.version;
    input_failure(
        "TrainingUnknown",
        format!(
            "dataset.disjointFrom: which rows {version} was trained on can't be told: {why}; or take disjointFrom out"
        ),
    )
}

/// What the training wrote down, held to the artifact's digest.
async fn recorded(training: &TrainedOn, places: &Places) -> Result<Vec<RowSet>, Failure> {
    if let Some(secret) = &training.unnamed_secret {
        return Err(unknown(
            training,
            &format!(
                "its artifact is read with the Secret {secret}, which this Evaluation doesn't name: write it under dataset.credentials or outputCredentials, too"
            ),
        ));
    }
    let failed =
        |e: &Error| Failure::of("InputUnreadable", "the version's artifact", e, EXIT_INPUT);
    let get = async |name: &str| get(training, name, places).await.map_err(|e| failed(&e));
    let elsewhere = || {
        unknown(
            training,
            &format!(
                "{} has no {}, as versions have that a TrainingJob made of a dataset with label or features: train it by one",
                training.uri,
                training_rows::FILE
            ),
        )
    };
    let manifest = get(MANIFEST).await?.ok_or_else(elsewhere)?;
    let manifest: Manifest = serde_json::from_slice(&manifest)
        .map_err(|e| unknown(training, &format!("its {MANIFEST} can't be read: {e}")))?;
    let mut files = manifest.files.iter();
    let listed = files.find(|f| f.path == training_rows::FILE);
    let listed = listed.ok_or_else(elsewhere)?;
    let bytes = get(training_rows::FILE).await?.ok_or_else(elsewhere)?;
    let files = manifest.files.iter().map(|file| FileDigest {
        path: file.path.clone(),
        digest: file.digest.clone(),
        bytes: u64::try_from(file.size_bytes).unwrap_or_default(),
    });
    let whole = digest::of_listing(&files.collect::<Vec<_>>());
    let is_whole = training.digest.as_ref().is_none_or(|d| *d == whole);
    if !is_whole || digest::of_bytes(&bytes) != listed.digest {
        return Err(input_failure(
            "DigestMismatch",
            format!(
                "{} in {} isn't what its training wrote: restore it, or train anew",
                training_rows::FILE,
                training.uri
            ),
        ));
    }
    training_rows::parse(&bytes).map_err(|e| failed(&e))
}

/// A file of the artifact; `None` if it isn't there.
async fn get(training: &TrainedOn, name: &str, places: &Places) -> data::Result<Option<Vec<u8>>> {
    let uri: Uri = training.uri.parse()?;
    let environment = Environment::prefixed(&format!("PERENNIAL_CRED_{TRAINING_INDEX}_"));
    if let Some(folder) = Folder::open(&uri, &environment)? {
        return Ok(folder.get(name).await?.map(Vec::from));
    }
    match uri {
        Uri::Pvc { .. } => read(&places.volumes.join(TRAINING).join(name)).await,
        Uri::File(directory) => read(&directory.join(name)).await,
        // A single file, not a directory with a manifest.
        Uri::Http(_) | Uri::Bucket { .. } => Ok(None),
    }
}

async fn read(path: &Path) -> data::Result<Option<Vec<u8>>> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file("reading", path, &e)),
    }
}

/// By key where the training has the same, else by the whole row.
fn compare(
    training: &TrainedOn,
    sets: &[RowSet],
    key: &[String],
    source: &Source,
) -> Result<String, Failure> {
    let mut names: Vec<&str> = sets.iter().map(|set| set.dataset.as_str()).collect();
    names.dedup();
    let (mut trained, mut told, mut one_in) = (0, Vec::new(), 1u64);
    for name in names {
        let of_dataset = || sets.iter().filter(|set| set.dataset == name);
        let by_key = of_dataset().find(|set| !key.is_empty() && set.is_by(key));
        let Some(set) = by_key.or_else(|| of_dataset().find(|set| set.by == By::Row)) else {
            continue;
        };
        let how = match set.by {
            By::Key => format!("by the key {}", set.columns.join(", ")),
            By::Row => format!("by all {} columns", set.columns.len()),
        };
        if let Some(lacks) = set.columns.iter().find(|c| source.field(c).is_err()) {
            return Err(unknown(
                training,
                &format!(
                    "rows of its dataset {name} are told {how}, and this dataset has no column `{lacks}`: write the same key in the TrainingJob's datasets[].key and in dataset.key"
                ),
            ));
        }
        let found = set
            .overlap(source)
            .map_err(|e| Failure::of("InputUnreadable", "the dataset", &e, EXIT_INPUT))?;
        let each = 1u64 << set.zeros.min(63);
        if let Some(first) = found.first {
            let about = if each > 1 { "about " } else { "" };
            return Err(input_failure(
                "TrainedOnRows",
                format!(
                    "{about}{} of {} rows of the dataset are rows that {} was trained on (its dataset {name}, told {how}; the first is row {first}): measure on rows that it hasn't seen, or take dataset.disjointFrom out",
                    found.rows.saturating_mul(each).min(source.rows()),
                    source.rows(),
                    training.version
                ),
            ));
        }
        trained += set.rows;
        one_in = one_in.max(each);
        if !told.contains(&how) {
            told.push(how);
        }
    }
    let mut note = format!(
        "Holdout: none of its {} rows is among the {trained} that {} was trained on, told {}.",
        source.rows(),
        training.version,
        told.join(" and ")
    );
    if one_in > 1 {
        note += &format!(" One row in {one_in} was looked at, as that is what is kept of so many.");
    }
    if !key.is_empty() && !sets.iter().any(|set| set.is_by(key)) {
        note += " By key it could be told if the TrainingJob's datasets[].key were the same.";
    }
    Ok(note)
}
