//! Who calls, and which revision that leads to.

use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::Call;
use crate::gateway::{
    Shared, answer,
    policy::KeyPlace,
    route::{self, Chosen, Why},
    table::{Release, Table},
};

/// Header with the caller's key.
pub const KEY: &str = "x-perennial-key";

/// The caller's key: the header, else what the release says, else OpenAI's `user`, else the conversation.
pub fn caller(
    headers: &HeaderMap,
    body: Option<&Map<String, Value>>,
    places: &[KeyPlace],
) -> Option<String> {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|v| v.to_str().ok());
        value.filter(|v| !v.is_empty()).map(str::to_owned)
    };
    if let Some(key) = header(KEY) {
        return Some(key);
    }
    if !places.is_empty() {
        return places.iter().find_map(|place| match place {
            KeyPlace::Header(name) => header(name.as_str()),
            KeyPlace::Cookie(name) => cookie(headers, name),
            KeyPlace::Field(path) => field(body?, path),
        });
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

/// A cookie's value (RFC 6265: `name=value` pairs, separated by semicolons).
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter();
    all.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(n, value)| *n == name && !value.is_empty())
        .map(|(_, value)| value.to_owned())
}

/// A field of the body: text, or a number as it is written.
fn field(body: &Map<String, Value>, path: &[String]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let value = rest
        .iter()
        .try_fold(body.get(first)?, |value, name| value.get(name))?;
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Chooses the revision: what was asked for by address, else the side that the caller chose, else by the caller's key, else by turns.
pub fn choose(
    shared: &Shared,
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
    let headers = &call.parts.headers;
    let side = release.policy.side_header.as_ref();
    let side = side.and_then(|name| headers.get(name)?.to_str().ok());
    if let Some(chosen) = side.and_then(|side| route::choose_side(release, side)) {
        return Some(chosen);
    }
    let sent = headers.get(answer::VERSION).and_then(|v| v.to_str().ok());
    route::choose(release, key, version.or(sent), || {
        shared.next_place(release)
    })
}

/// 64 random bits: the standard library's hasher is keyed anew each time, from the system's randomness.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn key(headers: &[(&'static str, &str)], body: Value, places: &[KeyPlace]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        caller(&map, body.as_object(), places)
    }

    #[test]
    fn a_key_is_where_the_release_says_and_our_own_header_comes_first() {
        let places = [
            KeyPlace::Header("x-user".parse().unwrap()),
            KeyPlace::Cookie("sid".into()),
            KeyPlace::Field(vec!["parameters".into(), "session".into()]),
        ];
        let body = json!({"parameters": {"session": 7}, "user": "u"});
        let found = |headers: &[(&'static str, &str)]| key(headers, body.clone(), &places);
        let cookies = ("cookie", "a=1; sid=s-1; b=2");
        assert_eq!(found(&[]).as_deref(), Some("7"));
        assert_eq!(found(&[cookies]).as_deref(), Some("s-1"));
        assert_eq!(found(&[cookies, ("x-user", "x")]).as_deref(), Some("x"));
        let all = [cookies, ("x-user", "x"), (KEY, "k")];
        assert_eq!(found(&all).as_deref(), Some("k"));
        assert_eq!(
            key(&[], json!({"user": "u"}), &places),
            None,
            "no other place counts"
        );
        assert_eq!(
            key(&[("cookie", "xsid=1; sid=")], json!({}), &places[1..2]),
            None
        );
    }

    #[test]
    fn without_such_places_it_is_openais_fields() {
        assert_eq!(key(&[], json!({"user": "u"}), &[]).as_deref(), Some("u"));
        let conversation = json!({"conversation": {"id": "c"}, "metadata": {"user_id": "m"}});
        assert_eq!(key(&[], conversation, &[]).as_deref(), Some("c"));
        assert_eq!(key(&[], json!({"user": ""}), &[]), None);
    }
}
