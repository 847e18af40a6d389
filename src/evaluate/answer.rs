//! Answers: what a model, or a file, predicts for each row.

use super::{input_failure, truth::canonical};
use crate::{
    data::table::{Cell, Table, Values},
    supervise::failure::Failure,
};

/// What is said of one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The class or number that was predicted: a canonical word.
    pub class: Option<String>,
    /// The number that was predicted.
    pub number: Option<f64>,
    /// Probabilities by class, in the model's order.
    pub probabilities: Vec<f64>,
}

/// Answers by row; `None` where none came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// One for each row.
    pub rows: Vec<Option<Answer>>,
    /// The classes of the probabilities, in their order; empty: one probability, that of the positive class.
    pub classes: Vec<String>,
}

impl Answers {
    /// Rows without an answer.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.rows.iter().filter(|answer| answer.is_none()).count()
    }

    /// From the columns of a file: what was predicted, and with which probability. `what` is the file.
    ///
    /// # Errors
    /// If a score is no probability.
    pub fn of_table(
        table: &Table,
        (prediction, score): (&str, &str),
        what: &str,
    ) -> Result<Self, Failure> {
        let (prediction, score) = (table.column(prediction), table.column(score));
        if let Some(score) = score {
            if !matches!(score.values, Values::Number(_) | Values::Integer(_)) {
                return Err(input_failure(
                    "InputUnreadable",
                    format!(
                        "{what}: column `{}` holds {}, not the probability of the positive class",
                        score.name,
                        score.values.kind()
                    ),
                ));
            }
            let wrong = (0..table.rows).find(|&row| {
                score
                    .values
                    .cell(row)
                    .number()
                    .is_some_and(|p| !(0.0..=1.0).contains(&p))
            });
            if let Some(row) = wrong {
                return Err(input_failure(
                    "InputUnreadable",
                    format!(
                        "{what}: `{}` in row {} is {}, not a probability between 0 and 1",
                        score.name,
                        row + 1,
                        score.values.cell(row)
                    ),
                ));
            }
        }
        let answer = |row: usize| {
            let cell = prediction.map_or(Cell::Null, |c| c.values.cell(row));
            let p = score.and_then(|c| c.values.cell(row).number());
            if cell.is_missing() && p.is_none() {
                return None;
            }
            Some(Answer {
                class: (!cell.is_missing()).then(|| canonical(cell)),
                number: cell.number(),
                probabilities: p.into_iter().collect(),
            })
        };
        Ok(Self {
            rows: (0..table.rows).map(answer).collect(),
            classes: Vec::new(),
        })
    }
}
