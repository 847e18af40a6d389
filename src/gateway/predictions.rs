//! What is read of answers of the Open Inference Protocol: the predictions, row by row, as Evaluations read them.

use serde_json::Value;

use crate::stats::{
    labels::{Guess, MAX_CLASSES, MAX_ROWS, MAX_WORD, word, word_of},
    predictions,
    sketch::RowSketch,
};

/// Rows of one answer that are looked at; of those in the sample for late labels, [`MAX_ROWS`].
const MOST_ROWS: usize = 10_000;

/// What an answer predicts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predicted {
    /// Row by row.
    pub rows: Vec<Guess>,
    /// Whether what is said is a number, not a class: by the output's datatype.
    pub numbers: bool,
}

impl Predicted {
    /// Adds it to a sketch.
    pub fn sketch(&self, into: &mut RowSketch) {
        for guess in &self.rows {
            predictions::add(into, guess, self.numbers);
        }
    }

    /// The rows, where there are no more than labels are taken for.
    pub fn sampled(self) -> Option<Vec<Guess>> {
        (self.rows.len() <= MAX_ROWS).then_some(self.rows)
    }
}

/// What an answer of the Open Inference Protocol predicts, row by row; `None`: that can't be told, or are too many rows.
///
/// `predict_proba`, or several fractions for each row, are probabilities; the first output with one value for each row is the class or
/// number.
pub fn of(answer: &Value) -> Option<Predicted> {
    let outputs = answer.get("outputs")?.as_array()?;
    let count = |output: &Value| {
        let rows = output.get("shape")?.as_array()?.first()?.as_u64()?;
        usize::try_from(rows).ok()
    };
    let rows = outputs.iter().find_map(count)?;
    if !(1..=MOST_ROWS).contains(&rows) {
        return None;
    }
    let mut numbers = false;
    let mut guesses = vec![Guess::default(); rows];
    for output in outputs.iter().filter(|o| count(o) == Some(rows)) {
        let text = |field: &str| {
            output
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let mut data = Vec::new();
        flatten(output.get("data")?, &mut data, rows * MAX_CLASSES)?;
        if data.is_empty() || !data.len().is_multiple_of(rows) {
            return None;
        }
        let width = data.len() / rows;
        let fractions = text("datatype").starts_with("FP");
        if text("name") == "predict_proba" || (width > 1 && fractions) {
            for (guess, values) in guesses.iter_mut().zip(data.chunks(width)) {
                let all: Option<Vec<f32>> = values.iter().map(|v| chance(v)).collect();
                guess.probabilities = all?;
            }
        } else if width == 1 && guesses.iter().all(|g| g.said.is_none()) {
            numbers = fractions;
            for (guess, value) in guesses.iter_mut().zip(data) {
                guess.said = Some(single(value)?);
            }
        }
    }
    let known = |g: &Guess| g.said.is_some() || !g.probabilities.is_empty();
    guesses.iter().all(known).then_some(Predicted {
        rows: guesses,
        numbers,
    })
}

/// As [`of`], of an answer in JSON.
pub fn read(answer: &[u8]) -> Option<Predicted> {
    of(&serde_json::from_slice(answer).ok()?)
}

fn chance(value: &Value) -> Option<f32> {
    let p = value.as_f64().filter(|p| (0.0..=1.0).contains(p))?;
    Some(p as f32)
}

fn flatten<'a>(data: &'a Value, into: &mut Vec<&'a Value>, most: usize) -> Option<()> {
    match data {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(item, into, most)),
        Value::Object(_) => None,
        value => {
            into.push(value);
            (into.len() <= most).then_some(())
        }
    }
}

/// A label or a prediction, as [`word`].
fn single(value: &Value) -> Option<String> {
    let text = match value {
        Value::Bool(b) => Some(u8::from(*b).to_string()),
        Value::Number(n) => n.as_f64().and_then(word_of),
        Value::String(text) => Some(word(text)),
        _ => None,
    };
    text.filter(|text| text.len() <= MAX_WORD)
}

/// The labels of an answer's rows: one, or a list of as many as the request had rows; `None`: they are no labels.
pub fn labels(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) if (1..=MAX_ROWS).contains(&items.len()) => {
            items.iter().map(single).collect()
        }
        other => Some(vec![single(other)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(outputs: Value) -> Option<Vec<(Option<String>, Vec<f32>)>> {
        let answer = json!({ "outputs": outputs }).to_string();
        let predicted = read(answer.as_bytes())?;
        Some(
            predicted
                .sampled()?
                .into_iter()
                .map(|g| (g.said, g.probabilities))
                .collect(),
        )
    }

    #[test]
    fn predictions_are_read_as_evaluations_read_them() {
        let said = |text: &str| Some(text.to_owned());
        for (what, outputs, expected) in [
            (
                "classes",
                json!([{"name": "predict", "datatype": "INT64", "shape": [2, 1], "data": [1, 0]}]),
                Some(vec![(said("1"), vec![]), (said("0"), vec![])]),
            ),
            (
                "classes and probabilities",
                json!([
                    {"name": "predict", "datatype": "BOOL", "shape": [1], "data": [true]},
                    {"name": "predict_proba", "datatype": "FP64", "shape": [1, 2], "data": [[0.25, 0.75]]},
                ]),
                Some(vec![(said("1"), vec![0.25, 0.75])]),
            ),
            (
                "one number",
                json!([{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5, -3]}]),
                Some(vec![(said("1.5"), vec![]), (said("-3"), vec![])]),
            ),
            (
                "words",
                json!([{"name": "y", "datatype": "BYTES", "shape": [1], "data": ["cat"]}]),
                Some(vec![(said("cat"), vec![])]),
            ),
            (
                "no probabilities",
                json!([{"name": "predict_proba", "datatype": "FP64", "shape": [1, 2], "data": [2, 3]}]),
                None,
            ),
            (
                "binary data",
                json!([{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]),
                None,
            ),
            (
                "another number of values",
                json!([{"name": "y", "datatype": "FP32", "shape": [2], "data": [1]}]),
                None,
            ),
            (
                "too many rows",
                json!([{"name": "y", "datatype": "FP32", "shape": [65], "data": vec![1; 65]}]),
                None,
            ),
            (
                "an object",
                json!([{"name": "y", "datatype": "FP32", "shape": [1], "data": {"a": 1}}]),
                None,
            ),
            ("nothing", json!([]), None),
        ] {
            assert_eq!(rows(outputs), expected, "{what}");
        }
        assert_eq!(read(b"?"), None);
        assert_eq!(labels(&json!(true)), Some(vec!["1".to_owned()]));
        assert_eq!(
            labels(&json!([1.0, "yes"])),
            Some(vec!["1".to_owned(), "yes".to_owned()])
        );
        for nonsense in [
            json!(null),
            json!([]),
            json!([[1]]),
            json!({}),
            json!("x".repeat(65)),
        ] {
            assert_eq!(labels(&nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn an_output_with_fractions_is_a_number_and_any_other_a_class() {
        for (datatype, numbers) in [("FP32", true), ("FP64", true), ("INT64", false)] {
            let outputs = json!([
                {"name": "predict_proba", "datatype": "FP64", "shape": [1, 2], "data": [0.5, 0.5]},
                {"name": "y", "datatype": datatype, "shape": [1], "data": [3]},
            ]);
            let answer = json!({ "outputs": outputs }).to_string();
            let predicted = read(answer.as_bytes()).unwrap();
            assert_eq!(predicted.numbers, numbers, "{datatype}");
            let mut sketch = predictions::empty();
            predicted.sketch(&mut sketch);
            let name = if numbers {
                predictions::NUMBER
            } else {
                predictions::CLASS
            };
            assert_eq!(sketch.columns[name].samples(), 1, "{datatype}");
            assert_eq!(sketch.columns[predictions::PROBABILITY].samples(), 1);
        }
        // A batch that is too long for labels is sketched.
        let batch = json!({"outputs": [{"name": "y", "datatype": "FP32", "shape": [500], "data": vec![1.5; 500]}]});
        let batch = read(batch.to_string().as_bytes()).unwrap();
        assert_eq!((batch.rows.len(), batch.sampled()), (500, None));
    }
}
