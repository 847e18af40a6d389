//! Stable's and the candidate's answers to one request, compared off the request path.
//!
//! Outputs of the Open Inference Protocol are compared value by value, texts of an OpenAI-compatible answer choice by choice, other JSON
//! as a whole, and anything else byte by byte. Of numbers with a fraction three digits must agree, of everything else all.

use bytes::Bytes;
use http::{HeaderMap, header, response::Parts};
use serde_json::{Map, Value};

use super::{pairs::MAX_TEXT, tensors::Form};
use crate::stats::mirror::{Compared, Output};

/// Longer answers aren't compared.
pub const MAX_ANSWER: usize = 256 << 10;
/// Numbers agree that are no farther apart, relatively or absolutely.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-6;
/// Names of outputs are cut to so many characters.
const MAX_NAME: usize = 64;
/// What isn't made of outputs is one of this name.
const ANSWER: &str = "answer";

/// An answer, kept as far as it can be compared.
#[derive(Debug, Default)]
pub struct Kept {
    /// Its status; 0: the gateway's own answer.
    pub status: u16,
    format: Format,
    form: Form,
    pieces: Vec<Bytes>,
    size: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Format {
    /// Not to be looked at: nothing was kept.
    #[default]
    Opaque,
    Json,
    /// Bytes; the Open Inference Protocol with binary tensors among them.
    Other,
}

impl Kept {
    /// The head of an answer.
    pub fn head(parts: &Parts) -> Self {
        Self {
            status: parts.status.as_u16(),
            format: format(&parts.headers),
            form: Form::of(&parts.headers),
            ..Self::default()
        }
    }

    /// As [`Kept::head`], of an answer whose predictions are read: also one that isn't compared.
    pub fn predicting(parts: &Parts) -> Self {
        let mut kept = Self::head(parts);
        if kept.form == Form::Message {
            kept.format = Format::Other;
        }
        kept
    }

    /// The next piece of its body.
    pub fn add(&mut self, data: &Bytes) {
        self.size += data.len();
        if self.size > MAX_ANSWER {
            self.format = Format::Opaque;
        }
        match self.format {
            Format::Opaque => self.pieces.clear(),
            Format::Json | Format::Other => self.pieces.push(data.clone()), // Shares the bytes.
        }
    }

    /// Its form and its pieces; these are empty if it has none that is read, or wasn't kept as a whole.
    pub fn body(self) -> (Form, Vec<Bytes>) {
        let known = match self.format {
            Format::Opaque => false,
            Format::Json => true,
            Format::Other => self.form != Form::Json,
        };
        (self.form, if known { self.pieces } else { Vec::new() })
    }

    /// Its body, if it is a text that isn't too long, of an answer that says something.
    pub fn text(&self) -> Option<String> {
        let known = (200..300).contains(&self.status) && self.format != Format::Opaque;
        (known && self.size <= MAX_TEXT)
            .then(|| String::from_utf8(self.bytes().to_vec()).ok())
            .flatten()
    }

    fn bytes(&self) -> Bytes {
        match self.pieces.as_slice() {
            [one] => one.clone(),
            several => several.concat().into(),
        }
    }
}

fn format(headers: &HeaderMap) -> Format {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let encoded = text(header::CONTENT_ENCODING).is_some_and(|e| e != "identity");
    let streams = ["text/event-stream", "application/grpc"];
    match kind {
        _ if encoded || streams.iter().any(|s| kind.starts_with(s)) => Format::Opaque,
        // With this header, JSON is followed by bytes.
        _ if headers.contains_key("inference-header-content-length") => Format::Other,
        _ if kind.starts_with("application/json") => Format::Json,
        _ => Format::Other,
    }
}

/// How much two answers agree. `None`: there is nothing to compare, or it can't be.
pub fn compare(stable: &Kept, candidate: &Kept) -> Option<Compared> {
    let answered = |kept: &Kept| (200..300).contains(&kept.status);
    if !answered(stable) || !answered(candidate) {
        return None;
    }
    let same = |agrees| Some(whole(agrees, Output::default()));
    match (stable.format, candidate.format) {
        (Format::Opaque, _) | (_, Format::Opaque) => None,
        (Format::Json, Format::Json) => {
            let read = |kept: &Kept| serde_json::from_slice::<Value>(&kept.bytes()).ok();
            Some(values(
                &read(stable)?,
                &read(candidate).unwrap_or(Value::Null),
            ))
        }
        (Format::Other, Format::Other) => same(stable.bytes() == candidate.bytes()),
        _ => same(false),
    }
}

/// Two answers of which it is only known whether they are the same.
fn whole(agrees: bool, mut output: Output) -> Compared {
    (output.values, output.agreeing) = (1, u64::from(agrees));
    Compared {
        agreement: output.agreement(),
        difference: output.mean_difference(),
        outputs: vec![(ANSWER.to_owned(), output)],
    }
}

fn values(stable: &Value, candidate: &Value) -> Compared {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned();
    if let Some(outputs) = list(stable, "outputs") {
        let theirs = list(candidate, "outputs").unwrap_or_default();
        return tensors(&outputs, &theirs);
    }
    if let Some(choices) = list(stable, "choices") {
        let theirs = list(candidate, "choices").unwrap_or_default();
        let texts = |choices: &[Value]| choices.iter().map(text).collect::<Vec<_>>();
        return whole(texts(&choices) == texts(&theirs), Output::default());
    }
    let mut output = Output::default();
    let agrees = walk(stable, candidate, &mut output);
    whole(agrees, output)
}

/// What a choice says, without what differs from call to call.
fn text(choice: &Value) -> Option<Value> {
    let message = choice.get("message");
    let Some(message) = message.and_then(Value::as_object) else {
        return choice.get("text").cloned();
    };
    let mut said = Map::new();
    for name in ["content", "refusal"] {
        said.insert(
            name.to_owned(),
            message.get(name).cloned().unwrap_or(Value::Null),
        );
    }
    let calls = message.get("tool_calls").and_then(Value::as_array);
    let calls = calls
        .into_iter()
        .flatten()
        .map(|c| c.get("function").cloned());
    said.insert(
        "tools".to_owned(),
        calls.map(Option::unwrap_or_default).collect(),
    );
    Some(Value::Object(said))
}

fn tensors(stable: &[Value], candidate: &[Value]) -> Compared {
    let name = |output: &Value| {
        output
            .get("name")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let (mut outputs, mut sum, mut total) = (Vec::new(), 0.0, Output::default());
    for (at, mine) in stable.iter().enumerate() {
        let called = name(mine);
        // Without a name it is the one in the same place.
        let other = match &called {
            Some(called) => candidate.iter().find(|o| name(o).as_ref() == Some(called)),
            None => candidate.get(at),
        };
        let found = tensor(mine, other);
        sum += found.agreement();
        total.merge(&found);
        let called = called.unwrap_or_else(|| at.to_string());
        outputs.push((called.chars().take(MAX_NAME).collect(), found));
    }
    Compared {
        agreement: match outputs.len() {
            0 => 1.0,
            n => sum / n as f64,
        },
        difference: total.mean_difference(),
        outputs,
    }
}

fn tensor(stable: &Value, candidate: Option<&Value>) -> Output {
    let data = |output: &Value| {
        let mut values = Vec::new();
        flatten(output.get("data").unwrap_or(&Value::Null), &mut values);
        values.into_iter().cloned().collect::<Vec<Value>>()
    };
    let mine = data(stable);
    let theirs = candidate.map(data).unwrap_or_default();
    let mut output = Output {
        values: mine.len() as u64,
        ..Output::default()
    };
    if mine.len() != theirs.len() {
        return output;
    }
    for (mine, other) in mine.iter().zip(&theirs) {
        output.agreeing += u64::from(walk(mine, other, &mut output));
    }
    output
}

/// Data may be flat or nested as its shape says. What nests deeper than JSON is read was refused by its reader.
fn flatten<'a>(data: &'a Value, values: &mut Vec<&'a Value>) {
    match data {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, values)),
        value => values.push(value),
    }
}

/// Whether two values agree; notes how far apart their numbers are.
fn walk(stable: &Value, candidate: &Value, output: &mut Output) -> bool {
    match (stable, candidate) {
        (Value::Number(a), Value::Number(b)) => {
            let whole = !a.is_f64() && !b.is_f64();
            let (x, y) = (number(a), number(b));
            let apart = (x - y).abs();
            output.numbers += 1;
            output.difference += apart;
            output.largest = output.largest.max(apart);
            match whole {
                true => a == b,
                false => apart <= ABSOLUTE + RELATIVE * x.abs().max(y.abs()),
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let mut agree = a.len() == b.len();
            for (a, b) in a.iter().zip(b) {
                agree &= walk(a, b, output);
            }
            agree
        }
        (Value::Object(a), Value::Object(b)) => {
            let mut agree = a.len() == b.len();
            for (name, a) in a {
                agree &= b.get(name).is_some_and(|b| walk(a, b, output));
            }
            agree
        }
        (a, b) => a == b,
    }
}

fn number(number: &serde_json::Number) -> f64 {
    number.as_f64().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use http::Response;
    use serde_json::json;

    use super::*;

    fn kept(kind: &str, status: u16, pieces: &[&[u8]]) -> Kept {
        let head = Response::builder()
            .status(status)
            .header("content-type", kind);
        let (parts, ()) = head.body(()).unwrap().into_parts();
        let mut kept = Kept::head(&parts);
        for piece in pieces {
            kept.add(&Bytes::copy_from_slice(piece));
        }
        kept
    }

    fn json(body: &Value) -> Kept {
        let text = body.to_string();
        let (a, b) = text.as_bytes().split_at(text.len() / 2);
        kept("application/json; charset=utf-8", 200, &[a, b])
    }

    fn found(stable: Value, candidate: Value) -> Compared {
        compare(&json(&stable), &json(&candidate)).unwrap()
    }

    fn outputs(outputs: Value) -> Value {
        json!({"model_version": "1", "id": "7", "outputs": outputs})
    }

    #[test]
    fn outputs_are_compared_by_name_and_value_by_value() {
        let stable = outputs(json!([
            {"name": "label", "datatype": "BYTES", "shape": [4], "data": ["a", "b", "c", "d"]},
            {"name": "p", "datatype": "FP64", "shape": [2, 2], "data": [[0.5, 0.25], [0.1, 1]]},
        ]));
        let candidate = json!({"model_version": "2", "outputs": [
            {"name": "p", "datatype": "FP64", "shape": [2, 2], "data": [0.5001, 0.25, 0.3, 1.0]},
            {"name": "label", "datatype": "BYTES", "shape": [4], "data": ["a", "x", "c", "d"]},
        ]});
        let compared = found(stable.clone(), candidate);
        let [label, p] = [&compared.outputs[0], &compared.outputs[1]];
        assert_eq!((label.0.as_str(), label.1.agreement()), ("label", 0.75));
        assert_eq!((p.0.as_str(), p.1.agreement()), ("p", 0.75), "three digits");
        assert!((p.1.largest - 0.2).abs() < 1e-9);
        assert!((compared.difference.unwrap() - 0.2001 / 4.0).abs() < 1e-9);
        assert_eq!(compared.agreement, 0.75);
        assert_eq!(found(stable.clone(), stable).agreement, 1.0);
    }

    #[test]
    fn an_output_that_is_missing_or_of_another_size_agrees_nowhere() {
        let one = json!({"name": "y", "data": [1, 2]});
        for other in [
            json!([]),
            json!([{"name": "y", "data": [1]}]),
            json!([{"name": "z", "data": [1, 2]}]),
        ] {
            let compared = found(outputs(json!([one])), outputs(other));
            assert_eq!((compared.agreement, compared.difference), (0.0, None));
        }
        // One more of the candidate's is nothing that stable's callers miss.
        let more = outputs(json!([one, {"name": "z", "data": [3]}]));
        assert_eq!(found(outputs(json!([one])), more).agreement, 1.0);
        // Whole numbers are labels.
        let off = outputs(json!([{"name": "y", "data": [1, 2000]}]));
        let by_one = outputs(json!([{"name": "y", "data": [1, 2001]}]));
        assert_eq!(found(off, by_one).agreement, 0.5);
        assert_eq!(found(outputs(json!([])), outputs(json!([]))).agreement, 1.0);
    }

    #[test]
    fn other_json_agrees_as_a_whole_and_the_order_of_fields_is_nothing() {
        let a = json!({"score": 0.5, "labels": ["x"], "n": 3});
        let same = found(
            a.clone(),
            json!({"n": 3, "labels": ["x"], "score": 0.50001}),
        );
        assert_eq!(same.agreement, 1.0);
        let other = found(a.clone(), json!({"n": 3, "labels": ["x"], "score": 0.75}));
        assert_eq!(other.agreement, 0.0);
        assert_eq!(other.outputs[0].1.largest, 0.25);
        for other in [json!({"score": 0.5}), json!([]), json!("x")] {
            assert_eq!(found(a.clone(), other).agreement, 0.0);
        }
    }

    #[test]
    fn of_a_chat_only_what_is_said_counts() {
        let said = |id: &str, text: &str| json!({"id": id, "created": id.len(), "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": id}]});
        assert_eq!(found(said("1", "yes"), said("22", "yes")).agreement, 1.0);
        assert_eq!(found(said("1", "yes"), said("22", "no")).agreement, 0.0);
        let called = |id: &str, arguments: &str| json!({"choices": [{"message": {"content": null, "tool_calls": [{"id": id, "function": {"name": "f", "arguments": arguments}}]}}]});
        assert_eq!(found(called("a", "{}"), called("b", "{}")).agreement, 1.0);
        assert_eq!(found(called("a", "{}"), called("a", "[]")).agreement, 0.0);
    }

    #[test]
    fn what_can_not_be_compared_is_not_guessed() {
        let fine = || kept("text/plain", 200, &[b"one", b"two"]);
        let same = compare(&fine(), &kept("text/plain", 200, &[b"onetwo"]));
        assert_eq!(same.unwrap().agreement, 1.0);
        let other = compare(&fine(), &kept("text/plain", 200, &[b"three"]));
        assert_eq!(other.unwrap().agreement, 0.0);
        let other = compare(&json(&json!({})), &kept("text/plain", 200, &[b"{}"]));
        assert_eq!(other.unwrap().agreement, 0.0, "another format");
        let broken = kept("application/json", 200, &[b"{"]);
        assert_eq!(compare(&json(&json!({})), &broken).unwrap().agreement, 0.0);
        let long = vec![b'x'; MAX_ANSWER];
        for incomparable in [
            kept("text/plain", 200, &[&long, b"x"]),
            kept("text/event-stream", 200, &[b"onetwo"]),
            kept("application/grpc", 200, &[b"onetwo"]),
            kept("text/plain", 404, &[b"onetwo"]),
            Kept::default(),
        ] {
            assert_eq!(compare(&fine(), &incomparable), None);
            assert_eq!(compare(&incomparable, &fine()), None);
        }
    }
}
