//! Bodies that must be known before the request can go anywhere.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::{Call, Payload, refusal};
use crate::gateway::{
    body::{Arriving, Body},
    open_inference,
};

/// Requests that name their model in the body are read whole, up to this.
const MAX_READ: usize = 16 << 20;
/// The name of a model is looked for in so much of a gRPC call.
const MAX_PEEK: usize = 64 << 10;
/// Longest wait for such a body.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the body as a JSON object.
///
/// # Errors
/// The answer to a body that is none.
pub async fn read(call: Call) -> Result<Call, Box<Response<Body>>> {
    let (mut call, bytes) = match collect(call).await? {
        (call, Some(bytes)) => (call, bytes),
        (call, None) => return Ok(call),
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(body)) => {
            call.payload = Payload::Read(bytes, body);
            Ok(call)
        }
        Ok(_) => Err(refusal(
            &call,
            StatusCode::BAD_REQUEST,
            "bad_body",
            "the body must be a JSON object",
        )),
        Err(error) => {
            let message = format!("the body is no JSON: {error}");
            Err(refusal(
                &call,
                StatusCode::BAD_REQUEST,
                "bad_body",
                &message,
            ))
        }
    }
}

/// Reads the body, whatever it is; the fields are those of a JSON object, and none if it is no such thing.
///
/// # Errors
/// The answer to a body that is too long, or doesn't come.
pub async fn read_anything(call: Call) -> Result<Call, Box<Response<Body>>> {
    let (mut call, bytes) = match collect(call).await? {
        (call, Some(bytes)) => (call, bytes),
        (call, None) => return Ok(call),
    };
    let fields = serde_json::from_slice(&bytes).unwrap_or_default();
    call.payload = Payload::Read(bytes, fields);
    Ok(call)
}

/// The model that a gRPC call names, read from as much of its body as that needs; the rest goes on as it comes.
///
/// # Errors
/// The answer to a body that names none, or doesn't come.
pub(super) async fn peek(mut call: Call) -> Result<(Call, String), Box<Response<Body>>> {
    let payload = std::mem::replace(&mut call.payload, Payload::nothing());
    let (read, mut rest) = match payload {
        Payload::Coming(body) => body.split(),
        Payload::Read(..) => return Err(no_name(&call, "the body was read before")),
    };
    let mut begun = BytesMut::from(read);
    let deadline = tokio::time::Instant::now() + READ_TIMEOUT;
    loop {
        match open_inference::model(&begun) {
            Ok(None) if begun.len() > MAX_PEEK => {
                let why = format!("the model isn't among its first {} KiB", MAX_PEEK >> 10);
                return Err(no_name(&call, &why));
            }
            Ok(None) => {}
            Ok(Some(name)) => {
                let name = name.to_owned();
                call.payload = Payload::Coming(Arriving::after(begun.freeze(), rest));
                return Ok((call, name));
            }
            Err(why) => return Err(no_name(&call, why)),
        }
        match tokio::time::timeout_at(deadline, rest.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    begun.extend_from_slice(data);
                }
            }
            Ok(None) => return Err(no_name(&call, "it ended in the middle of a message")),
            Ok(Some(Err(error))) => {
                return Err(no_name(&call, &format!("it could not be read: {error}")));
            }
            Err(_) => {
                let message = format!(
                    "no message came in {} seconds, so the model isn't known",
                    READ_TIMEOUT.as_secs()
                );
                let status = StatusCode::REQUEST_TIMEOUT;
                return Err(refusal(&call, status, "timeout", &message));
            }
        }
    }
}

fn no_name(call: &Call, why: &str) -> Box<Response<Body>> {
    let message = format!(
        "{why}: this port is shared by all releases, and finds that of a call by model_name, or by the metadata x-perennial-release"
    );
    refusal(call, StatusCode::BAD_REQUEST, "bad_body", &message)
}

/// The body's bytes, if it was still coming.
async fn collect(mut call: Call) -> Result<(Call, Option<Bytes>), Box<Response<Body>>> {
    let Payload::Coming(body) = call.payload else {
        return Ok((call, None));
    };
    call.payload = Payload::Read(Bytes::new(), Map::new());
    let collected =
        tokio::time::timeout(READ_TIMEOUT, Limited::new(body, MAX_READ).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is longer than {} MiB", MAX_READ >> 20);
            return Err(refusal(
                &call,
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_long",
                &message,
            ));
        }
        Ok(Err(error)) => {
            let message = format!("the body could not be read: {error}");
            return Err(refusal(
                &call,
                StatusCode::BAD_REQUEST,
                "bad_body",
                &message,
            ));
        }
        Err(_) => {
            let message = format!(
                "the body did not come in {} seconds",
                READ_TIMEOUT.as_secs()
            );
            return Err(refusal(
                &call,
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                &message,
            ));
        }
    };
    Ok((call, Some(bytes)))
}
