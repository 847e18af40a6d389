//! Rows to measure on: fetched, verified, read.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use super::{
    Chat, Places,
    answer::Answers,
    baseline, chat_endpoint,
    container::{self, Inputs},
    input_failure,
    join::{join, keys, pick},
    prediction_columns, prompt, prompt_sides,
    text::Column as TextColumn,
    texts::{Texts, inputs, labelled},
    wants_drift, wants_quality, wants_text, wants_truth,
    watched::Watched,
};
use crate::{
    api::{
        evaluation::{Predictions, Sampling, TableSource},
        run::{self, EXIT_INPUT, EvaluationRunSpec, EvaluationTarget},
        training_job::DatasetStatus,
    },
    data::{
        self,
        digest::Content,
        store::Environment,
        table::{Cell, Column, Kind, Source, Table, Values},
    },
    stats::random::Generator,
    supervise::{
        failure::{Failure, blocking},
        inputs::{place, table_format},
    },
};

/// Rows with their labels, and what a model is given of them.
pub struct Rows {
    /// Every column that is needed.
    pub table: Table,
    /// How many.
    pub count: usize,
    /// What the model is given, in order.
    pub features: Vec<String>,
    /// The label's column.
    pub label: Option<String>,
    /// A group for each row: its day, when the data has times. Rows of one day resemble each other.
    pub days: Option<Vec<usize>>,
    /// Rows that there were before some were drawn.
    pub drawn_from: usize,
}

impl Rows {
    /// These rows, in this order.
    #[must_use]
    pub fn of_rows(&self, rows: &[usize]) -> Self {
        let order: Vec<Option<usize>> = rows.iter().map(|&row| Some(row)).collect();
        let columns = self.table.columns.iter().map(|column| Column {
            name: column.name.clone(),
            values: pick(&column.values, &order),
        });
        let days = self.days.as_ref();
        Self {
            table: Table {
                columns: columns.collect(),
                rows: rows.len(),
            },
            count: rows.len(),
            features: self.features.clone(),
            label: self.label.clone(),
            days: days.map(|days| rows.iter().map(|&row| days[row]).collect()),
            drawn_from: self.drawn_from,
        }
    }
}

/// `most` of `count` rows, drawn without replacement (all of them, if there aren't more), in their order.
#[must_use]
pub fn draw(count: usize, most: usize, seed: u64) -> Vec<usize> {
    let mut generator = Generator::new(seed);
    // Selection sampling (Knuth, The Art of Computer Programming 2, algorithm S).
    let mut left = most.min(count);
    (0..count)
        .filter(|row| {
            let taken = generator.below(count - row) < left;
            left -= usize::from(taken);
            taken
        })
        .collect()
}

/// The rows that the run's `sampling` leaves.
fn sampled(spec: &EvaluationRunSpec, rows: Rows) -> Result<Rows, Failure> {
    let chosen = match &spec.sampling {
        Some(Sampling {
            rows: Some(most), ..
        }) => {
            let most = usize::try_from(*most).unwrap_or(usize::MAX);
            if most >= rows.count {
                return Ok(rows);
            }
            draw(rows.count, most, spec.seed)
        }
        Some(Sampling {
            rate: Some(rate), ..
        }) => {
            let mut generator = Generator::new(spec.seed);
            (0..rows.count)
                .filter(|_| generator.unit() < *rate)
                .collect()
        }
        _ => return Ok(rows),
    };
    if chosen.is_empty() {
        return Err(input_failure(
            "EmptyData",
            format!(
                "sampling leaves none of {} rows: raise sampling.rate",
                rows.count
            ),
        ));
    }
    Ok(rows.of_rows(&chosen))
}

/// A table that lies ready.
pub struct Ready {
    /// The file or directory.
    pub source: Source,
}

/// All that was read.
pub struct Loaded {
    /// Digests and sizes.
    pub datasets: Vec<DatasetStatus>,
    /// How the files were then.
    pub watched: Vec<Watched>,
    /// Rows to measure on; absent where only drift is measured.
    pub rows: Option<Rows>,
    /// Texts of a file, where evaluators look at them.
    pub texts: Option<Texts>,
    /// Calibration sets of judges, by their places among the evaluators.
    pub labelled: BTreeMap<usize, Table>,
    /// Rows that a prompt is asked with.
    pub asked: Option<Rows>,
    /// What a file to compare with predicts for `rows`.
    pub baseline: Option<Answers>,
    /// What it says to `asked`.
    pub said: Option<TextColumn>,
    /// What drift is measured on: the dataset, or the file of predictions.
    pub current: Option<Ready>,
    /// What it is measured against.
    pub reference: Option<Ready>,
    /// What was brought for evaluators that are images, before.
    pub gathered: Inputs,
}

impl Loaded {
    /// Digest of what was measured on: of the dataset, else of the file of predictions.
    pub fn digest(&self) -> Option<String> {
        ["dataset", "predictions"].iter().find_map(|name| {
            let found = self.datasets.iter().find(|d| d.name == *name);
            found.map(|d| d.digest.clone())
        })
    }
}

/// Fetches, verifies and reads what the run needs.
///
/// # Errors
/// `InputUnreadable`, `DigestMismatch`, `EmptyData`.
pub async fn load(spec: &EvaluationRunSpec, places: &Places) -> Result<Loaded, Failure> {
    let mut loaded = Loaded {
        datasets: Vec::new(),
        watched: Vec::new(),
        rows: None,
        texts: None,
        labelled: BTreeMap::new(),
        asked: None,
        baseline: None,
        said: None,
        current: None,
        reference: None,
        gathered: match container::places(spec).next() {
            Some(_) => container::inputs(&places.gathered)?,
            None => Inputs::new(),
        },
    };
    if container::only(spec) {
        // What it holds is the containers' business.
        for (index, name, source) in sources(spec) {
            identify(index, name, source, places, &mut loaded).await?;
        }
        return Ok(loaded);
    }
    let mut dataset = None;
    if let Some(source) = &spec.dataset {
        dataset = Some(fetch(0, "dataset", source, places, &mut loaded).await?);
    }
    let compares = wants_drift(spec).is_some() || wants_quality(spec);
    if let Some(source) = spec.reference.as_ref().filter(|_| compares) {
        let source = fetch(1, "reference", source, places, &mut loaded).await?;
        loaded.reference = Some(Ready { source });
    }
    let predictions = match &spec.target {
        EvaluationTarget::Predictions(target) => {
            let source = fetch(2, "predictions", &target.source, places, &mut loaded).await?;
            Some((target.clone(), source))
        }
        EvaluationTarget::Model { .. }
        | EvaluationTarget::Prompt { .. }
        | EvaluationTarget::Endpoint { .. } => None,
    };
    let mut baseline = None;
    if let Some(from) = &spec.baseline {
        let file = fetch(4, "baseline", &from.source, places, &mut loaded).await?;
        baseline = Some((from.clone(), file));
    }
    let mut calibrations = Vec::new();
    for (place, evaluator) in spec.evaluators.iter().enumerate() {
        if let Some(judge) = &evaluator.judge
            && let Some(asked) = &judge.calibration
        {
            let name = run::calibration(place);
            let index = run::CALIBRATION_INDEX + place;
            let source = fetch(index, &name, &asked.dataset, places, &mut loaded).await?;
            calibrations.push((place, judge.clone(), name, source));
        }
    }
    let owned = spec.clone();
    let read = move || -> Result<Loaded, Failure> {
        if wants_truth(&owned) {
            loaded.rows = Some(match (&dataset, &predictions) {
                (Some(dataset), None) => for_model(&owned, dataset)?,
                (dataset, Some((target, file))) => {
                    for_predictions(&owned, dataset.as_ref(), target, file)?
                }
                (None, None) => {
                    return Err(unreadable(
                        "dataset",
                        &data::Error::Invalid("it is missing in the run".to_owned()),
                    ));
                }
            });
        }
        if let (true, Some((target, file))) = (wants_text(&owned), &predictions) {
            let beside = baseline.as_ref().map(|(from, file)| (from, file));
            let files = (dataset.as_ref(), file, beside);
            loaded.texts = Some(Texts::of_file(&owned, files, target)?);
        }
        for (place, judge, name, source) in &calibrations {
            let table = labelled(judge, name, source)?;
            loaded.labelled.insert(*place, table);
        }
        let chat = chat_endpoint(&owned.target);
        let sides = prompt_sides(&owned.target).or_else(|| chat.as_ref().map(Chat::sides));
        if let (Some(sides), Some(dataset)) = (sides, &dataset) {
            loaded.asked = Some(for_prompt(&owned, dataset, sides)?);
        }
        if let Some((from, file)) = &baseline {
            if let Some(rows) = &loaded.rows {
                loaded.baseline = Some(baseline::answers(&owned, (from, file), &rows.table)?);
            }
            if let Some(rows) = &loaded.asked {
                loaded.said = Some(baseline::texts(&owned, (from, file), &rows.table)?);
            }
        }
        loaded.current = predictions
            .map(|(_, source)| source)
            .or(dataset)
            .map(|source| Ready { source });
        Ok(loaded)
    };
    blocking(read).await?
}

fn unreadable(name: &str, error: &data::Error) -> Failure {
    Failure::of("InputUnreadable", name, error, EXIT_INPUT)
}

/// What a run reads, with the indices of credentials and the names of mounts; without calibration sets of judges.
pub(super) fn sources(spec: &EvaluationRunSpec) -> Vec<(usize, &'static str, &TableSource)> {
    let predictions = match &spec.target {
        EvaluationTarget::Predictions(target) => Some(&target.source),
        EvaluationTarget::Model { .. }
        | EvaluationTarget::Prompt { .. }
        | EvaluationTarget::Endpoint { .. } => None,
    };
    let all = [
        (0, "dataset", spec.dataset.as_ref()),
        (1, "reference", spec.reference.as_ref()),
        (2, "predictions", predictions),
        (4, "baseline", spec.baseline.as_ref().map(|b| &b.source)),
    ];
    all.into_iter()
        .filter_map(|(index, name, source)| Some((index, name, source?)))
        .collect()
}

/// Brings a source to `directory/<name>`; gives the file, or the directory of a tree.
pub(super) async fn bring(
    index: usize,
    name: &str,
    source: &TableSource,
    directory: &Path,
    places: &Places,
) -> Result<PathBuf, Failure> {
    let environment = Environment::prefixed(&format!("PERENNIAL_CRED_{index}_"));
    let (mount, target) = (places.volumes.join(name), directory.join(name));
    place(&source.uri, &environment, &mount, &target)
        .await
        .map_err(|e| unreadable(name, &e))
}

/// Looks at what was brought, before it is read.
pub(super) fn verified(
    name: &str,
    source: &TableSource,
    path: &Path,
) -> Result<(Watched, Content), Failure> {
    let uri = &source.uri;
    let (watched, content) = Watched::begin(name, uri, path).map_err(|e| unreadable(name, &e))?;
    match &source.digest {
        Some(wanted) if *wanted != content.digest => Err(input_failure(
            "DigestMismatch",
            format!(
                "{name} ({uri}) has the digest {}, not {wanted}: the data has changed; write the new digest if that is meant, or read what was meant",
                content.digest
            ),
        )),
        _ => Ok((watched, content)),
    }
}

async fn fetch(
    index: usize,
    name: &str,
    table: &TableSource,
    places: &Places,
    loaded: &mut Loaded,
) -> Result<Source, Failure> {
    let path = identify(index, name, table, places, loaded).await?;
    let (named, format) = (name.to_owned(), table_format(table.format));
    let source = blocking(move || Source::open(&path, format))
        .await?
        .map_err(|e| unreadable(&named, &e))?;
    if let Some(status) = loaded.datasets.last_mut() {
        status.rows = i64::try_from(source.rows()).ok();
    }
    if source.rows() == 0 {
        return Err(input_failure(
            "EmptyData",
            format!(
                "{name} ({}) has no rows: there is nothing to measure on",
                table.uri
            ),
        ));
    }
    Ok(source)
}

/// Brings a source, unless that was done already, and notes what it is.
async fn identify(
    index: usize,
    name: &str,
    table: &TableSource,
    places: &Places,
    loaded: &mut Loaded,
) -> Result<PathBuf, Failure> {
    let gathered = loaded.gathered.get(name).cloned();
    let path = match (places.local.get(name), &gathered) {
        (Some(path), _) => path.clone(),
        (None, Some(gathered)) => gathered.path.clone(),
        (None, None) => bring(index, name, table, &places.downloads, places).await?,
    };
    let (named, source, brought) = (name.to_owned(), table.clone(), path.clone());
    let (watched, content) = blocking(move || verified(&named, &source, &brought)).await??;
    if let Some(gathered) = gathered.filter(|g| g.digest != content.digest) {
        return Err(watched.changed_since(&gathered.digest));
    }
    loaded.datasets.push(DatasetStatus {
        name: name.to_owned(),
        uri: table.uri.clone(),
        digest: content.digest,
        rows: None,
        size_bytes: i64::try_from(content.bytes).unwrap_or(i64::MAX),
    });
    loaded.watched.push(watched);
    Ok(path)
}

/// The columns that the model is given: the spec's, else the signature's, else all but label, key and time.
fn features(spec: &EvaluationRunSpec, source: &Source) -> Vec<String> {
    if let Some(features) = &spec.features {
        return features.clone();
    }
    if let EvaluationTarget::Model {
        signature: Some(signature),
        ..
    } = &spec.target
        && !signature.features.is_empty()
    {
        return signature.features.iter().map(|f| f.name.clone()).collect();
    }
    let not = |name: &str| {
        spec.label.as_deref() == Some(name)
            || spec.time.as_deref() == Some(name)
            || spec.key.iter().flatten().any(|key| key == name)
    };
    let names = source.fields().iter().map(|f| f.name.clone());
    names.filter(|name| !not(name)).collect()
}

/// The columns that make groups, and questions.
fn grouping(spec: &EvaluationRunSpec) -> impl Iterator<Item = &str> {
    let fairness = spec.evaluators.iter().filter_map(|e| e.fairness.as_ref());
    let retrieval = spec.evaluators.iter().filter_map(|e| e.retrieval.as_ref());
    let questions = retrieval.map(|r| r.question.as_str());
    fairness
        .flat_map(|f| f.sensitive.iter().map(String::as_str))
        .chain(questions)
}

pub(super) fn read(name: &str, source: &Source, columns: &[&str]) -> Result<Table, Failure> {
    let mut unique: Vec<&str> = Vec::new();
    for column in columns {
        if !unique.contains(column) {
            unique.push(column);
        }
    }
    source.read(&unique).map_err(|e| unreadable(name, &e))
}

fn for_model(spec: &EvaluationRunSpec, source: &Source) -> Result<Rows, Failure> {
    let features = features(spec, source);
    let keys = spec.key.iter().flatten().map(String::as_str);
    let mut columns: Vec<&str> = features.iter().map(String::as_str).collect();
    columns.extend(spec.label.as_deref());
    columns.extend(spec.time.as_deref());
    columns.extend(keys);
    columns.extend(grouping(spec));
    let table = read("dataset", source, &columns)?;
    finish(spec, table, features)
}

/// What a prompt is asked with, and what its answers are compared with.
fn for_prompt(
    spec: &EvaluationRunSpec,
    source: &Source,
    sides: prompt::Sides<'_>,
) -> Result<Rows, Failure> {
    let variables = prompt::columns(sides, source)?;
    let mut columns: Vec<&str> = variables.iter().map(String::as_str).collect();
    columns.extend(spec.text_reference.as_deref());
    columns.extend(inputs(&spec.evaluators));
    columns.extend(spec.time.as_deref());
    if spec.baseline.is_some() || spec.output_predictions {
        columns.extend(keys(spec)?);
    }
    finish(spec, read("dataset", source, &columns)?, Vec::new())
}

fn finish(spec: &EvaluationRunSpec, table: Table, features: Vec<String>) -> Result<Rows, Failure> {
    let days = match &spec.time {
        Some(time) => Some(days(super::column(&table, time)?)?),
        None => None,
    };
    let rows = Rows {
        count: table.rows,
        drawn_from: table.rows,
        table,
        features,
        label: spec.label.clone(),
        days,
    };
    sampled(spec, rows)
}

/// The columns of a file that say what was predicted, and with which probability: those that it has; one that was `said` must be there.
///
/// # Errors
/// If it has none of them.
pub(super) fn predicted<'a>(
    what: &str,
    file: &Source,
    columns: [(&'a str, bool); 2],
) -> Result<Vec<&'a str>, Failure> {
    let has = |name: &str| file.fields().iter().any(|f| f.name == name);
    let mut own = Vec::new();
    for (name, said) in columns {
        if has(name) {
            own.push(name);
        } else if said {
            file.field(name).map_err(|e| unreadable(what, &e))?;
        }
    }
    if own.is_empty() {
        let [(prediction, _), (score, _)] = columns;
        let at = match what {
            "baseline" => "baseline.predictions",
            _ => "target.predictions",
        };
        return Err(input_failure(
            "InputUnreadable",
            format!(
                "{what}: the file has neither a column `{prediction}` nor `{score}`: name them under {at}"
            ),
        ));
    }
    Ok(own)
}

/// The rows of a file of predictions with their labels: its own, or those of the dataset, joined by key.
fn for_predictions(
    spec: &EvaluationRunSpec,
    dataset: Option<&Source>,
    target: &Predictions,
    file: &Source,
) -> Result<Rows, Failure> {
    let (prediction, score) = prediction_columns(target);
    let said = (target.prediction.is_some(), target.score.is_some());
    let mut own = predicted("predictions", file, [(prediction, said.0), (score, said.1)])?;
    let label = spec.label.as_deref().unwrap_or_default();
    let mut labelled: Vec<&str> = vec![label];
    labelled.extend(spec.time.as_deref());
    labelled.extend(grouping(spec));
    let Some(dataset) = dataset else {
        own.extend(labelled);
        if spec.baseline.is_some() {
            own.extend(keys(spec)?);
        }
        own.extend(beside(spec, file, &own));
        let table = read("predictions", file, &own)?;
        return finish(spec, table, Vec::new());
    };
    let keys = keys(spec)?;
    own.extend(&keys);
    labelled.extend(&keys);
    labelled.extend(beside(spec, dataset, &labelled));
    own.extend(beside(spec, file, &[own.as_slice(), &labelled].concat()));
    let left = read("dataset", dataset, &labelled)?;
    let right = read("predictions", file, &own)?;
    finish(spec, join(left, &right, &keys)?, Vec::new())
}

/// Cells that are read to look for slices: of a file with more rows fewer columns.
const SLICED_CELLS: u64 = 20_000_000;

/// Columns of a file, beside those taken, that may show where its predictions are worst.
fn beside<'a>(spec: &'a EvaluationRunSpec, source: &'a Source, taken: &[&str]) -> Vec<&'a str> {
    let most = usize::try_from(SLICED_CELLS / source.rows().max(1)).unwrap_or(usize::MAX);
    let key = |name: &str| spec.key.iter().flatten().any(|key| key == name);
    let fields = source.fields().iter();
    fields
        .filter(|f| !matches!(f.kind, Kind::Time | Kind::Other))
        .map(|f| f.name.as_str())
        .filter(|name| !taken.contains(name) && !key(name))
        .take(most)
        .collect()
}

/// The day (UTC) of each row as a group; rows without a time are one group.
fn days(column: &Column) -> Result<Vec<usize>, Failure> {
    const DAY: i64 = 86_400_000_000;
    if !matches!(column.values, Values::Time(_)) {
        return Err(input_failure(
            "InputUnreadable",
            format!(
                "column `{}` is named as time but holds {}: write times as RFC 3339, or name another column",
                column.name,
                column.values.kind()
            ),
        ));
    }
    let mut numbers = HashMap::new();
    let groups = (0..column.values.len()).map(|row| {
        let day = match column.values.cell(row) {
            Cell::Time(micros) => Some(micros.div_euclid(DAY)),
            _ => None,
        };
        let next = numbers.len();
        *numbers.entry(day).or_insert(next)
    });
    Ok(groups.collect())
}
