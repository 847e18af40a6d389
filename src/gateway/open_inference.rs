//! What the gateway reads of gRPC calls of the Open Inference Protocol: which model they name, and the head of their inputs.

use super::protobuf::{Cut, Field, Fields, packed};

/// The service's part of a path.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A method of the service; some are of Triton's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks a model for predictions.
    Infer,
    /// Whose request has the model's name in field 1.
    OfModel,
    /// Whether the server is there.
    ServerLive,
    /// Whether the server takes requests.
    ServerReady,
    /// What the server is.
    ServerMetadata,
}

impl Method {
    /// By a request's path; `None`: of another service, or one that says nothing of a model.
    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix(SERVICE)? {
            "ModelInfer" => Some(Method::Infer),
            "ModelReady" | "ModelMetadata" | "ModelStreamInfer" | "ModelConfig" => {
                Some(Method::OfModel)
            }
            "ServerLive" => Some(Method::ServerLive),
            "ServerReady" => Some(Method::ServerReady),
            "ServerMetadata" => Some(Method::ServerMetadata),
            _ => None,
        }
    }
}

/// The model that the first message of a body names, as far as the body has come; `Ok(None)`: more of it is needed.
///
/// # Errors
/// Why it will never be known, as a sentence.
pub fn model(begun: &[u8]) -> Result<Option<&str>, &'static str> {
    let Some((prefix, rest)) = begun.split_at_checked(PREFIX) else {
        return Ok(None);
    };
    let length = prefix[1..].iter().fold(0, |n, b| n << 8 | usize::from(*b));
    if prefix[0] != 0 {
        return Err("the message is compressed, so the model that it names isn't known here");
    }
    let whole = rest.get(..length);
    for field in Fields::of(whole.unwrap_or(rest)) {
        match field {
            Ok((1, field)) => {
                let name = field.text().filter(|name| !name.is_empty());
                return name.map(Some).ok_or("field 1 isn't the name of a model");
            }
            Ok(_) => {}
            Err(Cut) if whole.is_none() => return Ok(None),
            Err(Cut) => return Err("the message isn't one of Protocol Buffers"),
        }
    }
    match whole {
        Some(_) => Err("the message names no model"),
        None => Ok(None),
    }
}

/// What a request says of one of its inputs, without the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its datatype, such as `FP32`.
    pub datatype: &'a str,
    /// Its shape.
    pub shape: Vec<u64>,
}

/// The inputs of the only message of a ModelInfer's body.
///
/// # Errors
/// Why they can't be read, as a sentence.
pub fn inputs(body: &[u8]) -> Result<Vec<Tensor<'_>>, &'static str> {
    const BROKEN: &str = "the message is no ModelInferRequest";
    let (prefix, message) = body.split_at_checked(PREFIX).ok_or(BROKEN)?;
    if prefix[0] != 0 {
        return Err("the message is compressed, so its inputs can't be checked");
    }
    let mut tensors = Vec::new();
    for field in Fields::of(message) {
        if let (5, Field::Bytes(input)) = field.map_err(|Cut| BROKEN)? {
            tensors.push(tensor(input).map_err(|Cut| BROKEN)?);
        }
    }
    Ok(tensors)
}

fn tensor(input: &[u8]) -> Result<Tensor<'_>, Cut> {
    let mut tensor = Tensor::default();
    for field in Fields::of(input) {
        match field? {
            (1, name) => tensor.name = name.text().ok_or(Cut)?,
            (2, datatype) => tensor.datatype = datatype.text().ok_or(Cut)?,
            (3, Field::Bytes(shape)) => tensor.shape.extend(packed(shape)?),
            (3, Field::Number(length)) => tensor.shape.push(length),
            _ => {}
        }
    }
    Ok(tensor)
}

/// A body with this one message.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut body = vec![0];
    body.extend(length.to_be_bytes());
    body.extend(message);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `model_name: "m"`, `id: "7"`, and an input `temp` of FP64 with the shape [300, 1].
    const REQUEST: &[u8] =
        b"\x0a\x01m\x1a\x017\x2a\x11\x0a\x04temp\x12\x04FP64\x1a\x03\xac\x02\x01";

    #[test]
    fn the_model_is_known_as_soon_as_its_name_has_come() {
        let body = framed(REQUEST);
        for end in 0..body.len() {
            let known = if end < 8 { None } else { Some("m") };
            assert_eq!(model(&body[..end]), Ok(known), "{end}");
        }
        // Fields may come in any order.
        let turned = framed(&[&REQUEST[3..], &REQUEST[..3]].concat());
        assert_eq!(model(&turned), Ok(Some("m")));
        assert_eq!(model(&turned[..turned.len() - 1]), Ok(None));
    }

    #[test]
    fn a_message_that_names_no_model_is_known_as_such() {
        let compressed = [&[1], &framed(REQUEST)[1..]].concat();
        for (body, word) in [
            (framed(b""), "names no model"),
            (framed(b"\x0a\x00"), "field 1"),
            (framed(b"\x0b"), "isn't one of"),
            (compressed, "compressed"),
        ] {
            assert!(model(&body).unwrap_err().contains(word));
        }
    }

    #[test]
    fn the_head_of_inputs_is_read_whether_shapes_are_packed_or_not() {
        let wanted = vec![Tensor {
            name: "temp",
            datatype: "FP64",
            shape: vec![300, 1],
        }];
        assert_eq!(inputs(&framed(REQUEST)), Ok(wanted.clone()));
        let loose = b"\x2a\x11\x0a\x04temp\x12\x04FP64\x18\xac\x02\x18\x01";
        assert_eq!(inputs(&framed(loose)), Ok(wanted));
        assert!(inputs(b"").is_err() && inputs(&framed(&REQUEST[..10])).is_err());
        assert_eq!(
            Method::of("/inference.GRPCInferenceService/ModelInfer"),
            Some(Method::Infer)
        );
        assert_eq!(Method::of("/other.Service/ModelInfer"), None);
    }
}
