//! The small tables, read by what reads every table here. What can't be read is remembered as the case's problem, and has no values.

use std::{collections::BTreeMap, path::PathBuf, rc::Rc};

use crate::{
    data::{
        Result,
        sample::{As, samples},
        table::{Cell, Kind, Source, Values},
    },
    stats::drift::Sample,
};

/// A column; nothing if it could not be read.
pub(super) struct Column(Option<Rc<Values>>);

impl Column {
    /// Missing ones are NaN.
    pub(super) fn numbers(&self) -> Vec<f64> {
        self.cells(|cell| cell.number().unwrap_or(f64::NAN))
    }

    pub(super) fn booleans(&self) -> Vec<bool> {
        self.cells(|cell| matches!(cell, Cell::Integer(1) | Cell::Boolean(true)))
    }

    pub(super) fn texts(&self) -> Vec<Option<String>> {
        self.cells(|cell| (!cell.is_missing()).then(|| cell.to_string()))
    }

    fn cells<T>(&self, each: impl Fn(Cell<'_>) -> T) -> Vec<T> {
        let values = self.0.iter();
        values
            .flat_map(|values| (0..values.len()).map(|row| each(values.cell(row))))
            .collect()
    }
}

/// The tables opened so far, and columns read from them.
pub(super) struct Tables {
    folder: PathBuf,
    opened: BTreeMap<String, Rc<Source>>,
    read: BTreeMap<(String, String), Rc<Values>>,
    problem: Option<String>,
}

impl Tables {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            opened: BTreeMap::new(),
            read: BTreeMap::new(),
            problem: None,
        }
    }

    /// The column as a sample of the given type (`num` or `cat`), which wins over what the file says.
    pub(super) fn sample(&mut self, file: &str, column: &str, kind: &str) -> Sample {
        let nothing = || Sample::numbers([]);
        let Some(source) = self.source(file) else {
            return nothing();
        };
        let way = match source.field(column) {
            _ if kind == "cat" => As::Categories,
            Ok(field) if matches!(field.kind, Kind::Integer | Kind::Number) => As::Itself,
            _ => As::Floats,
        };
        let read = samples(&source, &[(column, way)], false);
        self.said(file, read)
            .and_then(|samples| samples.into_iter().next())
            .unwrap_or_else(nothing)
    }

    pub(super) fn lists(&mut self, file: &str, column: &str) -> Vec<Vec<f64>> {
        let lists = self
            .source(file)
            .map(|source| source.vectors(column, usize::MAX));
        lists
            .and_then(|read| self.said(file, read))
            .unwrap_or_default()
    }

    /// A column as it was read.
    pub(super) fn column(&mut self, file: &str, column: &str) -> Column {
        let key = (file.to_owned(), column.to_owned());
        if let Some(values) = self.read.get(&key) {
            return Column(Some(values.clone()));
        }
        let table = self.source(file).map(|source| source.read(&[column]));
        let values = table
            .and_then(|read| self.said(file, read))
            .and_then(|table| table.columns.into_iter().next())
            .map(|column| Rc::new(column.values));
        if let Some(values) = &values {
            self.read.insert(key, values.clone());
        }
        Column(values)
    }

    /// What could not be read since this was last asked.
    pub(super) fn problem(&mut self) -> Option<String> {
        self.problem.take()
    }

    fn said<T>(&mut self, file: &str, read: Result<T>) -> Option<T> {
        read.map_err(|error| {
            self.problem
                .get_or_insert(format!("{file}: {error}"))
                .clone()
        })
        .ok()
    }

    fn source(&mut self, file: &str) -> Option<Rc<Source>> {
        if let Some(source) = self.opened.get(file) {
            return Some(source.clone());
        }
        let opened = Source::open(&self.folder.join(file), None);
        let source = self.said(file, opened).map(Rc::new)?;
        self.opened.insert(file.to_owned(), source.clone());
        Some(source)
    }
}
