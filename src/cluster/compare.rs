//! Whether an observed object already is what we would write.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Whether `observed` has everything that `desired` says. Lists whose items all have a `name` are compared by name, others by
/// position and length; null, empty lists and empty objects count as absent.
pub fn contains(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => desired
            .iter()
            .all(|(key, value)| contains(observed.get(key).unwrap_or(&Value::Null), value)),
        (Value::Array(observed), Value::Array(desired)) if named(desired) => {
            desired.len() == observed.len()
                && desired
                    .iter()
                    .all(|item| by_name(observed, item).is_some_and(|found| contains(found, item)))
        }
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() == desired.len()
                && observed.iter().zip(desired).all(|(o, d)| contains(o, d))
        }
        (Value::Null, desired) => is_empty(desired),
        (observed, desired) => observed == desired,
    }
}

/// What `observed` says at the places that `desired` speaks of: two objects with the same projection are the same to us,
/// however the API server normalises what we wrote.
pub fn project(observed: &Value, desired: &Value) -> Value {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => Value::Object(
            desired
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), project(observed.get(key)?, value))))
                .collect::<Map<_, _>>(),
        ),
        (Value::Array(observed), Value::Array(desired)) if named(desired) => Value::Array(
            desired
                .iter()
                .map(|item| {
                    by_name(observed, item).map_or(Value::Null, |found| project(found, item))
                })
                .collect(),
        ),
        (observed, _) => observed.clone(),
    }
}

/// SHA-256 (hex, 16 digits) of the canonical JSON: keys sorted, no spaces.
pub fn digest(value: &Value) -> String {
    let mut text = Vec::with_capacity(4096);
    canonical(value, &mut text);
    hex::encode(&Sha256::digest(&text)[..8])
}

fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (key, value) in members {
                write(key, out);
                out.push(b':');
                canonical(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        scalar => write(scalar, out),
    }
}

/// A key or a scalar as JSON.
fn write(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Nothing can go wrong: it goes into memory, and strings, numbers, booleans and null are all JSON.
    let _ = serde_json::to_writer(out, value);
}

fn named(items: &[Value]) -> bool {
    !items.is_empty()
        && items
            .iter()
            .all(|i| i.get("name").is_some_and(Value::is_string))
}

fn by_name<'a>(items: &'a [Value], like: &Value) -> Option<&'a Value> {
    items.iter().find(|i| i.get("name") == like.get("name"))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_of_the_server_are_no_difference_and_our_fields_are() {
        let desired = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}], "volumes": []}}}});
        let observed = json!({"spec": {"replicas": 1, "paused": false, "template": {"spec": {"containers": [{"name": "a", "image": "x:1", "imagePullPolicy": "IfNotPresent"}], "dnsPolicy": "ClusterFirst"}}}});
        assert!(contains(&observed, &desired));
        for (path, value) in [
            ("/spec/replicas", json!(2)),
            ("/spec/template/spec/containers/0/image", json!("x:2")),
            ("/spec/template/spec/containers", json!([])),
        ] {
            let mut other = observed.clone();
            *other.pointer_mut(path).unwrap() = value;
            assert!(!contains(&other, &desired), "{path}");
        }
    }

    #[test]
    fn named_lists_compare_by_name_and_an_item_too_many_is_a_difference() {
        let desired = json!([{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]);
        assert!(contains(
            &json!([{"name": "b", "value": "2"}, {"name": "a", "value": "1"}]),
            &desired
        ));
        assert!(!contains(
            &json!([{"name": "a", "value": "1"}, {"name": "b", "value": "2"}, {"name": "c"}]),
            &desired
        ));
    }

    #[test]
    fn a_projection_is_the_same_for_what_the_server_normalised_once() {
        let desired = json!({"cpu": "1000m", "list": [{"name": "a", "cpu": "1000m"}]});
        let first = json!({"cpu": "1", "list": [{"name": "a", "cpu": "1", "x": 1}], "status": 1});
        let later = json!({"cpu": "1", "list": [{"name": "a", "cpu": "1", "x": 2}], "status": 2});
        assert_eq!(project(&first, &desired), project(&later, &desired));
        let touched = json!({"cpu": "2", "list": [{"name": "a", "cpu": "1"}]});
        assert_ne!(project(&first, &desired), project(&touched, &desired));
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_of_keys() {
        assert_eq!(
            digest(&json!({"a": 1, "b": {"c": 2, "d": 3}})),
            digest(&json!({"b": {"d": 3, "c": 2}, "a": 1}))
        );
        assert_ne!(digest(&json!({"a": 1})), digest(&json!({"a": "1"})));
    }
}
