//! Inputs of Open Inference Protocol requests: rows by name, as pandas-style columns, or as one 2-D tensor in the signature's order.

use serde_json::Value;

use crate::{
    api::revision::Signature,
    stats::sketch::{Cell, ColumnKind, RowSketch},
};

/// Rows of one request that are looked at.
const MAX_ROWS: usize = 100_000;

/// A sketch of no rows yet.
pub fn empty(signature: &Signature) -> RowSketch {
    let columns = signature.features.iter();
    RowSketch::new(columns.map(|f| (f.name.as_str(), kind(&f.kind))))
}

/// How a feature of the signature is compared.
fn kind(feature_type: &str) -> ColumnKind {
    match feature_type {
        "Number" => ColumnKind::Numeric,
        _ => ColumnKind::Categorical,
    }
}

/// Adds the rows of a request body; `None`: not understood (`FeaturesUnknown`), and nothing was added.
pub fn add_rows(sketch: &mut RowSketch, body: &[u8], signature: &Signature) -> Option<()> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Rows::of(&body, signature)?.sketch(sketch);
    Some(())
}

/// The rows of a request.
pub enum Rows<'a> {
    /// Columns by name, all of one length, some of which the signature may not have.
    Named(Vec<Tensor<'a>>),
    /// One tensor, in the signature's order.
    Matrix(Tensor<'a>, &'a Signature),
}

impl<'a> Rows<'a> {
    /// Reads them; `None`: not understood.
    pub fn of(body: &'a Value, signature: &'a Signature) -> Option<Self> {
        let inputs = body.get("inputs")?.as_array()?;
        let known = |name: &str| signature.features.iter().any(|f| f.name == name);
        let mut tensors: Vec<Tensor<'_>> = inputs.iter().map(Tensor::of).collect::<Option<_>>()?;
        let rows = tensors.iter().map(|t| t.rows).max()?;
        if rows > MAX_ROWS {
            return None;
        }
        if tensors.iter().any(|t| known(t.name)) {
            // Columns of different lengths are no table.
            let is_column = |t: &Tensor<'_>| t.rows == rows && t.width() == 1;
            return tensors
                .iter()
                .all(is_column)
                .then_some(Self::Named(tensors));
        }
        let matrix = tensors.pop()?;
        let fits = tensors.is_empty() && matrix.width() == signature.features.len();
        fits.then_some(Self::Matrix(matrix, signature))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Named(tensors) => tensors.first().map_or(0, |t| t.rows),
            Self::Matrix(matrix, _) => matrix.rows,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A feature's value.
    pub fn cell(&self, feature: &str, row: usize) -> Cell<'a> {
        match self {
            Self::Named(tensors) => {
                let tensor = tensors.iter().find(|t| t.name == feature);
                tensor.map_or(Cell::Null, |t| t.cell(row))
            }
            Self::Matrix(matrix, signature) => {
                let at = signature.features.iter().position(|f| f.name == feature);
                at.map_or(Cell::Null, |i| matrix.cell(row * matrix.width() + i))
            }
        }
    }

    /// Adds them to a sketch.
    pub fn sketch(&self, sketch: &mut RowSketch) {
        for row in 0..self.len() {
            match self {
                Self::Named(tensors) => sketch.add(tensors.iter().map(|t| (t.name, t.cell(row)))),
                Self::Matrix(matrix, signature) => {
                    let (width, cells) = (matrix.width(), signature.features.iter().enumerate());
                    sketch.add(cells.map(|(i, f)| (f.name.as_str(), matrix.cell(row * width + i))));
                }
            }
        }
    }
}

/// An input tensor: `[n]`, `[n, 1]` or `[n, width]`.
pub struct Tensor<'a> {
    name: &'a str,
    rows: usize,
    values: Vec<&'a Value>,
}

impl<'a> Tensor<'a> {
    fn of(input: &'a Value) -> Option<Self> {
        let name = input.get("name")?.as_str()?;
        let shape: Vec<usize> = input
            .get("shape")?
            .as_array()?
            .iter()
            .map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()))
            .collect::<Option<_>>()?;
        let mut values = Vec::new();
        flatten(input.get("data")?, &mut values, 0)?;
        let rows = *shape.first()?;
        let size = shape
            .iter()
            .try_fold(1usize, |product, n| product.checked_mul(*n))?;
        (shape.len() <= 2 && size == values.len() && rows > 0).then_some(Self {
            name,
            rows,
            values,
        })
    }

    fn width(&self) -> usize {
        self.values.len() / self.rows
    }

    fn cell(&self, i: usize) -> Cell<'a> {
        match self.values.get(i) {
            Some(Value::Bool(b)) => Cell::Bool(*b),
            Some(Value::Number(n)) => Cell::Number(n.as_f64().unwrap_or(f64::NAN)),
            Some(Value::String(text)) => Cell::Text(text),
            _ => Cell::Null,
        }
    }
}

/// Data may be flat or nested as the shape says.
fn flatten<'a>(data: &'a Value, values: &mut Vec<&'a Value>, depth: usize) -> Option<()> {
    match data {
        Value::Array(items) if depth <= 2 => items
            .iter()
            .try_for_each(|item| flatten(item, values, depth + 1)),
        Value::Array(_) | Value::Object(_) => None,
        value => {
            values.push(value);
            Some(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::revision::Feature;
    use serde_json::json;

    fn signature() -> Signature {
        let feature = |name: &str, kind: &str| Feature {
            name: name.into(),
            kind: kind.into(),
        };
        Signature {
            features: vec![
                feature("temp", "Number"),
                feature("carrier", "String"),
                feature("late", "Boolean"),
            ],
            label: None,
        }
    }

    fn rows(body: &[u8]) -> Option<RowSketch> {
        let mut sketch = empty(&signature());
        let added = add_rows(&mut sketch, body, &signature());
        assert!(added.is_some() || sketch == empty(&signature()));
        added.map(|()| sketch)
    }

    fn read(inputs: Value) -> Option<RowSketch> {
        rows(json!({"inputs": inputs}).to_string().as_bytes())
    }

    fn counts(sketch: &RowSketch) -> (u64, Vec<u64>) {
        (
            sketch.rows,
            ["temp", "carrier", "late"]
                .map(|c| sketch.columns[c].samples())
                .to_vec(),
        )
    }

    #[test]
    fn inputs_are_taken_by_name_flat_or_nested() {
        let sketch = read(json!([
            {"name": "temp", "shape": [3], "datatype": "FP64", "data": [1.5, null, 3]},
            {"name": "carrier", "shape": [3, 1], "datatype": "BYTES", "data": [["UA"], ["AA"], ["UA"]]},
            {"name": "late", "shape": [3], "datatype": "BOOL", "data": [true, false, true]},
            {"name": "surprise", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]},
        ])).unwrap();
        assert_eq!(counts(&sketch), (3, vec![2, 3, 3]));
        assert_eq!(sketch.columns["temp"].nulls(), 1);
        assert_eq!(sketch.unknown["surprise"], 3);
    }

    #[test]
    fn one_unnamed_matrix_is_taken_in_the_signatures_order() {
        let sketch = read(json!([{"name": "input-0", "shape": [2, 3], "datatype": "FP32", "data": [1.0, 7, 0, 2.0, 8, 1]}])).unwrap();
        assert_eq!(counts(&sketch), (2, vec![2, 2, 2]));
        let nested = read(json!([{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[1.0, 7, 0], [2.0, 8, 1]]}])).unwrap();
        assert_eq!(nested, sketch);
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        for (why, inputs) in [
            (
                "another width",
                json!([{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]),
            ),
            (
                "shape and data differ",
                json!([{"name": "temp", "shape": [3], "datatype": "FP32", "data": [1, 2]}]),
            ),
            (
                "columns of different lengths",
                json!([{"name": "temp", "shape": [1], "data": [1]}, {"name": "carrier", "shape": [2], "data": ["a", "b"]}]),
            ),
            (
                "binary data",
                json!([{"name": "temp", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]),
            ),
            (
                "three dimensions",
                json!([{"name": "x", "shape": [1, 1, 3], "data": [[[1, 2, 3]]]}]),
            ),
            (
                "an overflow",
                json!([{"name": "x", "shape": [9_223_372_036_854_775_807u64, 9_223_372_036_854_775_807u64], "data": []}]),
            ),
            (
                "no rows",
                json!([{"name": "temp", "shape": [0], "data": []}]),
            ),
        ] {
            assert!(read(inputs).is_none(), "{why}");
        }
        assert!(rows(b"not json").is_none());
    }
}
