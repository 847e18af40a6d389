//! Which release a request is for.

use std::sync::Arc;

use http::{Method, Response, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{Call, Found, Payload, read, read::peek, unknown};
use crate::{
    api::model_deployment::Protocol,
    gateway::{
        Shared,
        answer::{self, Shape},
        body::Body,
        objects::Kind,
        open_inference as rpc,
        table::{Backend, Release, Table},
    },
};

/// Metadata by which gRPC calls choose a ModelDeployment on the shared port.
const RELEASE: &str = "x-perennial-release";

/// `/revisions/<models|prompts>/<release>/<revision>/…`
pub(super) fn by_address(table: &Table, mut call: Call) -> Found {
    let path = call.parts.uri.path().to_owned();
    let mut segments = path.splitn(6, '/').skip(1);
    let found = (segments.next() == Some("revisions"))
        .then(|| {
            let kind = Kind::of_plural(segments.next()?)?;
            let release = table.by_name(kind, segments.next()?)?;
            let revision = segments.next()?.to_owned();
            Some((release.clone(), revision))
        })
        .flatten();
    let Some((release, revision)) = found else {
        let message = "write /revisions/models/<release>/<revision>/… or /revisions/prompts/<release>/<revision>/…, of a release of this namespace";
        return Err(unknown(&call, message));
    };
    set_path(&mut call.parts, segments.next().unwrap_or_default());
    call.revision = Some(revision);
    Ok((release, call))
}

/// By `/models/<release>/…`, `/prompts/<release>/…`, `/v2/models/<model>…`, or the body's `prompt.id` or `model`.
pub(super) async fn by_content(shared: &Shared, table: &Table, mut call: Call) -> Found {
    if Shape::of(&call.parts) == Shape::Grpc {
        return by_message(shared, table, call).await;
    }
    let path = call.parts.uri.path().to_owned();
    let segments: Vec<&str> = path.splitn(4, '/').skip(1).collect();
    match segments.as_slice() {
        [plural, name, rest @ ..] if Kind::of_plural(plural).is_some() => {
            let release = Kind::of_plural(plural).and_then(|kind| table.by_name(kind, name));
            let Some(release) = release.cloned() else {
                return Err(unknown(
                    &call,
                    &format!("there is no release {plural}/{name} in this namespace"),
                ));
            };
            set_path(&mut call.parts, rest.first().copied().unwrap_or_default());
            Ok((release, call))
        }
        ["v2", "models", rest] => {
            let name = rest.split('/').next().unwrap_or_default();
            match table.by_model(name) {
                Some(release) => Ok((release.clone(), call)),
                None => Err(unknown(&call, &no_model(name))),
            }
        }
        ["v1", "models"] if call.parts.method == Method::GET => {
            Err(Box::new(models(table.releases())))
        }
        ["v1", ..] if call.parts.method == Method::POST => {
            call = read(call).await?;
            let Payload::Read(_, body) = &call.payload else {
                return Err(unknown(&call, "the body could not be read"));
            };
            let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
            let prompt = text(body.get("prompt").and_then(|p| p.get("id")))
                .or_else(|| text(body.get("prompt_id")));
            let model = text(body.get("model"));
            let named =
                |name: &str| match (name.strip_prefix("prompt/"), name.strip_prefix("model/")) {
                    (Some(name), _) => table.by_name(Kind::Prompt, name),
                    (_, Some(name)) => table.by_model(name),
                    _ => table
                        .by_name(Kind::Prompt, name)
                        .or_else(|| table.by_model(name)),
                };
            let release = match (&prompt, &model) {
                (Some(id), _) => table.by_name(Kind::Prompt, id),
                (None, Some(model)) => named(model),
                (None, None) => None,
            };
            match release {
                Some(release) => Ok((release.clone(), call)),
                None => {
                    let name = prompt.or(model).unwrap_or_default();
                    let message = format!(
                        "no release of this namespace is named `{name}`: put a release's name into prompt.id or model"
                    );
                    Err(unknown(&call, &message))
                }
            }
        }
        _ => {
            let message = "this port is shared by all releases: name one with prompt.id or model in an OpenAI body, with /v2/models/<model>/…, \
                           or with /models/<release>/… or /prompts/<release>/… before the path";
            Err(unknown(&call, message))
        }
    }
}

/// By the metadata `x-perennial-release`, or the model that the first message of the Open Inference Protocol names. What is asked of the
/// server itself is answered here.
async fn by_message(shared: &Shared, table: &Table, call: Call) -> Found {
    let headers = &call.parts.headers;
    if let Some(name) = headers.get(RELEASE).and_then(|name| name.to_str().ok()) {
        return match table.by_model(name) {
            Some(release) => Ok((release.clone(), call)),
            None => Err(unknown(&call, &no_model(name))),
        };
    }
    let told = |message: &[u8]| Err(Box::new(answer::message(message)));
    // Field 1 of each answer: live, ready, name.
    match rpc::Method::of(call.parts.uri.path()) {
        Some(rpc::Method::Infer | rpc::Method::OfModel) => {}
        Some(rpc::Method::ServerLive) => return told(&[8, 1]),
        Some(rpc::Method::ServerReady) => {
            return told(&[8, u8::from(shared.is_ready() && !shared.is_leaving())]);
        }
        Some(rpc::Method::ServerMetadata) => return told(b"\x0a\x09perennial"),
        None => {
            let message = "this port is shared by all releases: name one in the metadata x-perennial-release, or call a method of \
                           inference.GRPCInferenceService that names a model";
            return Err(unknown(&call, message));
        }
    }
    let (call, name) = peek(call).await?;
    match table.by_model(&name) {
        Some(release) => Ok((release.clone(), call)),
        None => Err(unknown(&call, &no_model(&name))),
    }
}

fn no_model(name: &str) -> String {
    format!(
        "no ModelDeployment of this namespace is named `{name}`, and not exactly one serves a model of that name"
    )
}

/// OpenAI's list of models: what can be called by these names.
pub fn models<'a>(releases: impl Iterator<Item = &'a Arc<Release>>) -> Response<Body> {
    let speaks = |release: &&Arc<Release>| match release.stable.as_ref().map(|r| &r.backend) {
        Some(Backend::Model { protocol, .. }) => *protocol == Protocol::OpenAi,
        _ => release.kind == Kind::Prompt,
    };
    let data: Vec<Value> = releases
        .filter(speaks)
        .map(|r| json!({"id": r.name, "object": "model", "owned_by": "perennial"}))
        .collect();
    answer::value(StatusCode::OK, &json!({"object": "list", "data": data}))
}

fn set_path(parts: &mut Parts, rest: &str) {
    let query = parts.uri.query().map_or(String::new(), |q| format!("?{q}"));
    // It was part of a valid URI, so it is one.
    if let Ok(uri) = format!("/{rest}{query}").parse() {
        parts.uri = uri;
    }
}
