//! Who calls, and which revision that leads to.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::Call;
use crate::gateway::{
    answer,
    route::{self, Chosen, Why},
    table::{Release, Table},
};

/// Header with the caller's key.
pub const KEY: &str = "x-perennial-key";

/// The caller's key: the header, else OpenAI's `user`, else the conversation.
pub fn caller(headers: &HeaderMap, body: Option<&Map<String, Value>>) -> Option<String> {
    let header = headers
        .get(KEY)
        .and_then(|v| v.to_str().ok())
        .filter(|v| !v.is_empty());
    if let Some(key) = header {
        return Some(key.to_owned());
    }
    let body = body?;
    let text = |value: Option<&Value>| {
        value
            .and_then(Value::as_str)
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
    };
    let metadata = |name: &str| text(body.get("metadata").and_then(|m| m.get(name)));
    let conversation = body.get("conversation");
    text(body.get("user"))
        .or_else(|| metadata("conversation_id"))
        .or_else(|| metadata("session_id"))
        .or_else(|| text(conversation))
        .or_else(|| text(conversation.and_then(|c| c.get("id"))))
        .or_else(|| metadata("user_id"))
}

/// Chooses the revision: what was asked for by address, else by the caller's key.
pub fn choose(
    table: &Table,
    release: &Release,
    call: &Call,
    key: Option<&str>,
    version: Option<&str>,
) -> Option<Chosen> {
    if let Some(hash) = &call.revision {
        let revision = table.revision(release.kind, &release.name, hash)?;
        return Some(Chosen {
            revision: revision.clone(),
            candidate: release
                .candidate
                .as_ref()
                .is_some_and(|c| c.hash == revision.hash),
            why: Why::Version,
        });
    }
    let sent = call
        .parts
        .headers
        .get(answer::VERSION)
        .and_then(|v| v.to_str().ok());
    route::choose(release, key, version.or(sent), random())
}

/// 64 random bits: the standard library's hasher is keyed anew each time, from the system's randomness.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
