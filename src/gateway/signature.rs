//! Whether an inference request is what the model was trained on: names, types and order of its inputs, or the width of its only tensor.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::open_inference::{self, Tensor};
use crate::api::revision::{Feature, Signature};

/// Header with the length of the JSON before binary tensors (binary data extension of the Open Inference Protocol).
const JSON_LENGTH: &str = "inference-header-content-length";

/// What is wrong with a request, as a sentence; `Ok`: nothing.
///
/// # Errors
/// That sentence.
pub fn check(headers: &HeaderMap, body: &Bytes, signature: &Signature) -> Result<(), String> {
    let length = headers.get(JSON_LENGTH).and_then(|v| v.to_str().ok());
    let length = length.and_then(|v| v.parse().ok()).unwrap_or(body.len());
    let body: Value = body
        .get(..length)
        .and_then(|json| serde_json::from_slice(json).ok())
        .ok_or("the body is no JSON, so its inputs can't be checked")?;
    let inputs = body.get("inputs").and_then(Value::as_array);
    let inputs: Vec<Input<'_>> = inputs
        .ok_or("the body has no list `inputs`")?
        .iter()
        .map(Input::of)
        .collect::<Option<_>>()
        .ok_or("an input lacks its name, datatype or shape")?;
    compare(&inputs, signature)
}

/// As [`check`], of a gRPC message.
///
/// # Errors
/// That sentence.
pub fn check_message(body: &Bytes, signature: &Signature) -> Result<(), String> {
    let inputs = open_inference::inputs(body)?;
    let inputs: Vec<Input<'_>> = inputs.into_iter().map(Input).collect();
    compare(&inputs, signature)
}

fn compare(inputs: &[Input<'_>], signature: &Signature) -> Result<(), String> {
    let features = &signature.features;
    let known = |name: &str| features.iter().find(|f| f.name == name);
    // An unnamed table: columns in the signature's order.
    if let [input] = inputs
        && let Input(only) = input
        && known(only.name).is_none()
        && let [_, width] = only.shape[..]
    {
        if width != features.len() as u64 {
            return Err(format!(
                "input `{}` has {width} columns, and the model takes {}: {}",
                only.name,
                features.len(),
                names(features)
            ));
        }
        return features.iter().try_for_each(|f| input.is(f));
    }
    for input in inputs {
        match known(input.0.name) {
            Some(feature) => input.is(feature)?,
            None => {
                return Err(format!(
                    "the model takes no input `{}`: it takes {}",
                    input.0.name,
                    names(features)
                ));
            }
        }
    }
    let given = |f: &&Feature| !inputs.iter().any(|i| i.0.name == f.name);
    if let Some(missing) = features.iter().find(given) {
        return Err(format!("input `{}` is missing", missing.name));
    }
    let order = inputs.iter().map(|i| i.0.name);
    if !order.eq(features.iter().map(|f| f.name.as_str())) {
        let sent = listed(inputs.iter().map(|i| i.0.name));
        return Err(format!(
            "the inputs come as {sent}, and the model was trained on {} in that order, once each",
            names(features)
        ));
    }
    Ok(())
}

/// The features, at most ten of them.
fn names(features: &[Feature]) -> String {
    listed(features.iter().map(|f| f.name.as_str()))
}

fn listed<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut text = names.by_ref().take(10).collect::<Vec<_>>().join(", ");
    if names.next().is_some() {
        text.push_str(", …");
    }
    text
}

struct Input<'a>(Tensor<'a>);

impl<'a> Input<'a> {
    fn of(input: &'a Value) -> Option<Self> {
        let shape = input.get("shape")?.as_array()?;
        Some(Self(Tensor {
            name: input.get("name")?.as_str()?,
            datatype: input.get("datatype")?.as_str()?,
            shape: shape.iter().map(Value::as_u64).collect::<Option<_>>()?,
        }))
    }

    /// Whether the datatype can carry the feature.
    fn is(&self, feature: &Feature) -> Result<(), String> {
        let datatype = self.0.datatype;
        let number = ["FP", "BF", "INT", "UINT"]
            .iter()
            .any(|prefix| datatype.starts_with(prefix));
        let fits = match feature.kind.as_str() {
            "Number" => number,
            "Boolean" => datatype == "BOOL" || number,
            "String" => datatype == "BYTES",
            // A time is text, or a number of seconds.
            "Time" => datatype == "BYTES" || number,
            // Of a newer operator.
            _ => true,
        };
        match fits {
            true => Ok(()),
            false => Err(format!(
                "input `{}` is {}, and the model's feature `{}` is a {}",
                self.0.name, datatype, feature.name, feature.kind
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(inputs: Value) -> Result<(), String> {
        let feature = |name: &str, kind: &str| Feature {
            name: name.into(),
            kind: kind.into(),
        };
        let signature = Signature {
            features: vec![feature("temp", "Number"), feature("carrier", "String")],
            label: None,
        };
        let body = json!({"inputs": inputs}).to_string();
        check(&HeaderMap::new(), &body.into(), &signature)
    }

    fn input(name: &str, datatype: &str, shape: &[u64]) -> Value {
        json!({"name": name, "datatype": datatype, "shape": shape, "data": []})
    }

    #[test]
    fn names_types_and_order_are_those_of_the_training_data() {
        let (temp, carrier) = (
            input("temp", "FP64", &[2]),
            input("carrier", "BYTES", &[2, 1]),
        );
        assert_eq!(checked(json!([temp, carrier])), Ok(()));
        for (inputs, word) in [
            (json!([temp]), "`carrier` is missing"),
            (
                json!([carrier, temp]),
                "come as carrier, temp, and the model was trained on temp, carrier in that order",
            ),
            (json!([temp, carrier, temp]), "once each"),
            (
                json!([temp, carrier, input("tmp", "FP64", &[2])]),
                "no input `tmp`",
            ),
            (
                json!([input("temp", "BYTES", &[2]), carrier]),
                "`temp` is BYTES, and the model's feature `temp` is a Number",
            ),
            (json!([{"name": "temp"}]), "lacks"),
            (json!("x"), "no list"),
        ] {
            let sentence = checked(inputs).unwrap_err();
            assert!(sentence.contains(word), "{sentence}");
        }
    }

    #[test]
    fn an_unnamed_table_has_the_signatures_width() {
        let wide = checked(json!([input("input-0", "FP32", &[1, 3])])).unwrap_err();
        assert!(
            wide.contains("3 columns, and the model takes 2: temp, carrier"),
            "{wide}"
        );
        let text = checked(json!([input("input-0", "FP32", &[1, 2])])).unwrap_err();
        assert!(text.contains("feature `carrier` is a String"), "{text}");
    }

    #[test]
    fn binary_tensors_are_checked_by_the_json_before_them() {
        let signature = Signature {
            features: vec![Feature {
                name: "temp".into(),
                kind: "Number".into(),
            }],
            label: None,
        };
        let head = json!({"inputs": [{"name": "temp", "datatype": "FP32", "shape": [1],
            "parameters": {"binary_data_size": 4}}]})
        .to_string();
        let mut headers = HeaderMap::new();
        headers.insert(JSON_LENGTH, head.len().into());
        let mut body = head.into_bytes();
        body.extend([0xff; 4]);
        assert_eq!(check(&headers, &body.clone().into(), &signature), Ok(()));
        assert!(check(&HeaderMap::new(), &body.into(), &signature).is_err());
    }
}
