//! Texts to look at: a target's answers, stable's beside them, and the columns that evaluators hold them against.

use super::{
    baseline, column, enough, input_failure,
    join::{join, keys},
    prediction_columns,
    text::{Column, Subject, cells},
};
use crate::{
    api::{
        evaluation::{BaselinePredictions, Evaluator, Predictions},
        run::EvaluationRunSpec,
    },
    data::table::{Source, Table},
    supervise::failure::Failure,
};

/// Answers by row, `None` where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    /// The target's.
    pub own: Column,
    /// Stable's to the same rows.
    pub stable: Option<Column>,
    /// What they are compared with.
    pub references: Option<Column>,
    /// Columns that evaluators look at beside the answers.
    pub inputs: Vec<(String, Column)>,
    /// A group for each row: its day.
    pub days: Option<Vec<usize>>,
}

impl Texts {
    /// As evaluators take them.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            own: &self.own,
            stable: self.stable.as_deref(),
            references: self.references.as_deref(),
            days: self.days.as_deref(),
        }
    }

    /// A column beside the answers.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&Column> {
        self.inputs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, column)| column)
    }

    /// Answers to the rows of a table, which has the other columns.
    ///
    /// # Errors
    /// If a column was not read.
    pub fn of_rows(
        spec: &EvaluationRunSpec,
        table: &Table,
        (own, stable): (Column, Option<Column>),
    ) -> Result<Self, Failure> {
        let references = spec.text_reference.as_deref();
        let references = references.map(|name| cells(table, name)).transpose()?;
        let inputs = inputs(&spec.evaluators).into_iter();
        let inputs = inputs.map(|name| Ok((name.to_owned(), cells(table, name)?)));
        Ok(Self {
            own,
            stable,
            references,
            inputs: inputs.collect::<Result<_, Failure>>()?,
            days: None,
        })
    }

    /// Those of a file, with what the file itself has or the dataset, and what a file to compare with says, joined by key.
    ///
    /// # Errors
    /// If a column isn't there, no row has an answer (`EmptyData`), or more than `maxItemErrors` have none (`TooManyUnanswered`).
    pub fn of_file(
        spec: &EvaluationRunSpec,
        (dataset, file, beside): (
            Option<&Source>,
            &Source,
            Option<(&BaselinePredictions, &Source)>,
        ),
        target: &Predictions,
    ) -> Result<Self, Failure> {
        let (answer, _) = prediction_columns(target);
        let reference = spec.text_reference.as_deref();
        if reference == Some(answer) {
            return Err(input_failure(
                "InputUnreadable",
                format!("`{answer}` can't be both answer and reference: name another column"),
            ));
        }
        let own_has = |name: &str| file.fields().iter().any(|f| f.name == name);
        let (mut left, mut right) = (Vec::new(), vec![answer]);
        match dataset {
            Some(_) => left.extend(reference),
            None => right.extend(reference),
        }
        for name in inputs(&spec.evaluators) {
            match dataset {
                Some(_) if !own_has(name) => left.push(name),
                _ => right.push(name),
            }
        }
        let table = match dataset.filter(|_| !left.is_empty()) {
            Some(dataset) => {
                let keys = keys(spec)?;
                left.extend(&keys);
                right.extend(&keys);
                let left = super::rows::read("dataset", dataset, &left)?;
                let right = super::rows::read("predictions", file, &right)?;
                join(left, &right, &keys)?
            }
            None => {
                if beside.is_some() {
                    right.extend(keys(spec)?);
                }
                super::rows::read("predictions", file, &right)?
            }
        };
        let own = cells(&table, answer)?;
        let (count, missing) = (own.len(), own.iter().filter(|a| a.is_none()).count());
        if missing == count {
            return Err(input_failure(
                "EmptyData",
                format!("none of {count} rows has an answer"),
            ));
        }
        enough(missing, count, spec.max_item_errors, "the file", "").map_err(Failure::permanent)?;
        let said = beside.map(|beside| baseline::texts(spec, beside, &table));
        Self::of_rows(spec, &table, (own, said.transpose()?))
    }
}

/// Columns that evaluators look at beside the answers.
#[must_use]
pub fn inputs(evaluators: &[Evaluator]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for evaluator in evaluators {
        if let Some(judge) = &evaluator.judge {
            names.extend(judge.input.iter().map(String::as_str));
        }
        if let Some(grounded) = &evaluator.groundedness {
            names.extend(grounded.context.iter().map(String::as_str));
            names.extend(grounded.question.as_deref());
        }
        if let Some(injection) = &evaluator.injection {
            names.extend(injection.columns.iter().map(String::as_str));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Columns of the calibration set of a judge.
///
/// # Errors
/// If one isn't there.
pub fn labelled(
    judge: &crate::api::judge::JudgeEvaluator,
    name: &str,
    source: &Source,
) -> Result<Table, Failure> {
    let calibration = judge.calibration.clone().unwrap_or_default();
    let (answer, label) = (
        calibration.answer.as_deref().unwrap_or("answer"),
        calibration.label.as_deref().unwrap_or("label"),
    );
    let mut columns = vec![answer, label];
    columns.extend(judge.input.iter().map(String::as_str));
    let table = super::rows::read(name, source, &columns)?;
    column(&table, label)?;
    Ok(table)
}
