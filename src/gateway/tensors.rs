//! Bodies of the Open Inference Protocol as JSON has them, in whatever form they came: JSON, JSON with binary tensors behind it, or a gRPC message.

use serde_json::{Map, Value, json};

use super::protobuf::{Field, Fields, packed};

/// Header with the length of the JSON before binary tensors (binary data extension).
const JSON_LENGTH: &str = "inference-header-content-length";
/// Values of one body that are read at most.
const MOST_VALUES: usize = 1 << 17;
/// Bytes before a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// How a body says what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// JSON.
    #[default]
    Json,
    /// So many bytes of JSON, then tensors.
    Binary(usize),
    /// A message of gRPC.
    Message,
}

impl Form {
    /// By the head of a request or an answer.
    pub fn of(headers: &http::HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        if text("content-type").is_some_and(|kind| kind.starts_with("application/grpc")) {
            return Self::Message;
        }
        let length = text(JSON_LENGTH).and_then(|length| length.parse().ok());
        length.map_or(Self::Json, Self::Binary)
    }
}

/// Which of the two a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A request, with `inputs`.
    Request,
    /// An answer, with `outputs`.
    Answer,
}

/// The body with the data of its `inputs` or `outputs`; `None`: it can't be read.
pub fn read(body: &[u8], form: Form, side: Side) -> Option<Value> {
    match form {
        Form::Json => serde_json::from_slice(body).ok(),
        Form::Binary(length) => binary(body, length),
        Form::Message => message(body, side),
    }
}

fn binary(body: &[u8], length: usize) -> Option<Value> {
    let (head, mut rest) = body.split_at_checked(length)?;
    let mut value: Value = serde_json::from_slice(head).ok()?;
    for list in ["inputs", "outputs"] {
        let tensors = value.get_mut(list).and_then(Value::as_array_mut);
        for tensor in tensors.into_iter().flatten() {
            let size = tensor.pointer("/parameters/binary_data_size");
            let Some(size) = size.and_then(Value::as_u64) else {
                continue;
            };
            let raw = rest.split_off(..usize::try_from(size).ok()?)?;
            let datatype = tensor.get("datatype").and_then(Value::as_str);
            let data = values(raw, datatype?)?;
            tensor.as_object_mut()?.insert("data".to_owned(), data);
        }
    }
    Some(value)
}

/// The values of a raw tensor, in little-endian order.
fn values(raw: &[u8], datatype: &str) -> Option<Value> {
    fn each<const N: usize>(raw: &[u8], read: impl Fn([u8; N]) -> Value) -> Option<Vec<Value>> {
        let (chunks, rest) = raw.as_chunks::<N>();
        let fits = rest.is_empty() && chunks.len() <= MOST_VALUES;
        fits.then(|| chunks.iter().map(|chunk| read(*chunk)).collect())
    }
    let all = match datatype {
        "BOOL" => each(raw, |[b]| json!(b != 0)),
        "INT8" => each(raw, |b| json!(i8::from_le_bytes(b))),
        "UINT8" => each(raw, |b| json!(u8::from_le_bytes(b))),
        "INT16" => each(raw, |b| json!(i16::from_le_bytes(b))),
        "UINT16" => each(raw, |b| json!(u16::from_le_bytes(b))),
        "INT32" => each(raw, |b| json!(i32::from_le_bytes(b))),
        "UINT32" => each(raw, |b| json!(u32::from_le_bytes(b))),
        "INT64" => each(raw, |b| json!(i64::from_le_bytes(b))),
        "UINT64" => each(raw, |b| json!(u64::from_le_bytes(b))),
        "FP32" => each(raw, |b| json!(f32::from_le_bytes(b))),
        "FP64" => each(raw, |b| json!(f64::from_le_bytes(b))),
        "BYTES" => texts(raw),
        // Half precision is for tensors that nobody looks at by column.
        _ => None,
    };
    all.map(Value::Array)
}

/// Each with its length before it.
fn texts(mut raw: &[u8]) -> Option<Vec<Value>> {
    let mut all = Vec::new();
    while !raw.is_empty() && all.len() < MOST_VALUES {
        let length = u32::from_le_bytes(raw.split_off(..4)?.try_into().ok()?);
        let text = raw.split_off(..usize::try_from(length).ok()?)?;
        all.push(json!(std::str::from_utf8(text).ok()?));
    }
    raw.is_empty().then_some(all)
}

/// A ModelInferRequest or ModelInferResponse.
fn message(body: &[u8], side: Side) -> Option<Value> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let (name, raw_field) = match side {
        Side::Request => ("inputs", 7),
        Side::Answer => ("outputs", 6),
    };
    let (mut tensors, mut raws) = (Vec::new(), Vec::new());
    if prefix[0] != 0 {
        return None; // Compressed.
    }
    for field in Fields::of(message) {
        match field.ok()? {
            (5, Field::Bytes(tensor)) => tensors.push(tensor_of(tensor)?),
            (number, Field::Bytes(raw)) if number == raw_field => raws.push(raw),
            _ => {}
        }
    }
    // Either all of them have their contents behind the message, or none.
    if !raws.is_empty() {
        if raws.len() != tensors.len() {
            return None;
        }
        for (tensor, raw) in tensors.iter_mut().zip(raws) {
            let datatype = tensor.get("datatype").and_then(Value::as_str)?;
            let data = values(raw, datatype)?;
            tensor.insert("data".to_owned(), data);
        }
    }
    Some(json!({name: tensors}))
}

fn tensor_of(message: &[u8]) -> Option<Map<String, Value>> {
    let mut tensor = Map::new();
    let mut shape = Vec::new();
    for field in Fields::of(message) {
        match field.ok()? {
            (1, name) => drop(tensor.insert("name".to_owned(), json!(name.text()?))),
            (2, kind) => drop(tensor.insert("datatype".to_owned(), json!(kind.text()?))),
            (3, Field::Bytes(lengths)) => shape.extend(packed(lengths).ok()?),
            (3, Field::Number(length)) => shape.push(length),
            (5, Field::Bytes(contents)) => {
                tensor.insert("data".to_owned(), Value::Array(contents_of(contents)?));
            }
            _ => {}
        }
    }
    tensor.insert("shape".to_owned(), json!(shape));
    Some(tensor)
}

/// InferTensorContents: one of its lists has values.
fn contents_of(message: &[u8]) -> Option<Vec<Value>> {
    let mut all = Vec::new();
    for field in Fields::of(message) {
        let (kind, field) = field.ok()?;
        let numbers = match field {
            Field::Number(number) => vec![number],
            Field::Bytes(bytes) if (1..=5).contains(&kind) => packed(bytes).ok()?,
            _ => Vec::new(),
        };
        match (kind, field) {
            (1, _) => all.extend(numbers.into_iter().map(|n| json!(n != 0))),
            (2 | 3, _) => all.extend(numbers.into_iter().map(|n| json!(n.cast_signed()))),
            (4 | 5, _) => all.extend(numbers.into_iter().map(|n| json!(n))),
            (6, Field::Bytes(raw)) => all.extend(values(raw, "FP32")?.as_array()?.clone()),
            (7, Field::Bytes(raw)) => all.extend(values(raw, "FP64")?.as_array()?.clone()),
            (8, Field::Bytes(text)) => all.push(json!(std::str::from_utf8(text).ok()?)),
            _ => return None,
        }
        if all.len() > MOST_VALUES {
            return None;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::open_inference::framed;

    #[test]
    fn binary_tensors_are_read_as_if_they_were_json() {
        let head = json!({"outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "z", "datatype": "INT64", "shape": [1], "data": [7]},
            {"name": "w", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
        ]})
        .to_string();
        let mut body = head.clone().into_bytes();
        body.extend(1.5f32.to_le_bytes());
        body.extend((-2f32).to_le_bytes());
        body.extend(b"\x02\0\0\0no\x01\0\0\0x");
        let form = Form::Binary(head.len());
        let value = read(&body, form, Side::Answer).unwrap();
        let data = |i: usize| value["outputs"][i]["data"].clone();
        assert_eq!(data(0), json!([1.5, -2.0]));
        assert_eq!(data(1), json!([7]));
        assert_eq!(data(2), json!(["no", "x"]));
        for cut in [body.len() - 1, head.len() + 3, head.len(), 5] {
            assert_eq!(read(&body[..cut], form, Side::Answer), None, "{cut}");
        }
        assert_eq!(read(&body, Form::Binary(usize::MAX), Side::Answer), None);
    }

    #[test]
    fn every_datatype_has_its_width_and_sign() {
        for (datatype, raw, expected) in [
            ("BOOL", &[1, 0][..], json!([true, false])),
            ("INT8", &[0xff], json!([-1])),
            ("UINT8", &[0xff], json!([255])),
            ("INT16", &[0xfe, 0xff], json!([-2])),
            ("UINT16", &[1, 1], json!([257])),
            ("INT32", &[0xff; 4], json!([-1])),
            ("UINT32", &[0xff; 4], json!([u32::MAX])),
            ("INT64", &[0xff; 8], json!([-1])),
            ("UINT64", &[0xff; 8], json!([u64::MAX])),
        ] {
            assert_eq!(values(raw, datatype), Some(expected), "{datatype}");
        }
        assert_eq!(values(&[0; 3], "FP32"), None, "no whole number of values");
        assert_eq!(values(&[0; 2], "FP16"), None);
        let nan = values(&f64::NAN.to_le_bytes(), "FP64");
        assert_eq!(nan, Some(json!([null])), "as JSON would have it");
    }

    #[test]
    fn a_message_is_read_with_contents_of_either_kind() {
        // `outputs: {name: "y", datatype: "FP64", shape: [1], contents: {fp64_contents: [1]}}`, as protoc writes it.
        let answer = b"\x0a\x01m\x2a\x18\x0a\x01y\x12\x04FP64\x1a\x01\x01\x2a\x0a\x3a\x08\0\0\0\0\0\0\xf0\x3f";
        let wanted =
            json!({"outputs": [{"name": "y", "datatype": "FP64", "data": [1.0], "shape": [1]}]});
        assert_eq!(
            read(&framed(answer), Form::Message, Side::Answer),
            Some(wanted)
        );
        // The same of INT32, negative, with its contents behind the message.
        let raw = b"\x2a\x0d\x0a\x01y\x12\x05INT32\x1a\x01\x01\x3a\x04\xff\xff\xff\xff";
        let value = read(&framed(raw), Form::Message, Side::Request).unwrap();
        assert_eq!(value["inputs"][0]["data"], json!([-1]));
        let int = b"\x2a\x1b\x0a\x01y\x12\x05INT32\x1a\x01\x01\x2a\x0c\x12\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        let value = read(&framed(int), Form::Message, Side::Answer).unwrap();
        assert_eq!(value["outputs"][0]["data"], json!([-1]));
        for cut in 0..answer.len() {
            // Whatever comes, nothing is read beyond.
            let _ = read(&framed(&answer[..cut]), Form::Message, Side::Answer);
        }
        let mut compressed = framed(answer);
        compressed[0] = 1;
        assert_eq!(read(&compressed, Form::Message, Side::Answer), None);
    }
}
