//! Bodies that must be known before the request can go anywhere.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::{Call, Payload, refusal};
use crate::gateway::body::Body;

/// Requests that name their model in the body are read whole, up to this.
const MAX_READ: usize = 16 << 20;
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
