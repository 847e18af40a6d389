//! Server-side apply of one manager, as far as the operator uses it.

use serde_json::{Map, Value};

/// What `live` becomes when a manager that applied `before` applies `desired`, with force: its fields are as it says, those that
/// it no longer says are gone, everything else stays.
pub fn apply(live: &Value, before: Option<&Value>, desired: &Value) -> Value {
    let mut result = live.clone();
    if let Some(before) = before {
        prune(&mut result, before, desired);
    }
    merge(&mut result, desired);
    result
}

/// The member by which items of a list are told apart; `None` for lists that are replaced whole.
fn key_of(items: &[Value]) -> Option<&'static str> {
    ["uid", "mountPath", "name", "type"]
        .into_iter()
        .find(|key| {
            !items.is_empty()
                && items
                    .iter()
                    .all(|i| i.get(key).is_some_and(Value::is_string))
        })
}

fn find<'a>(items: &'a [Value], key: &str, like: &Value) -> Option<&'a Value> {
    items.iter().find(|i| i.get(key) == like.get(key))
}

/// Takes out what `before` said and `desired` doesn't.
fn prune(live: &mut Value, before: &Value, desired: &Value) {
    match (live, before) {
        (Value::Object(live), Value::Object(before)) => {
            for (name, old) in before {
                match desired.get(name) {
                    None => {
                        live.remove(name);
                    }
                    Some(new) => {
                        if let Some(there) = live.get_mut(name) {
                            prune(there, old, new);
                        }
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(before)) => {
            let (Some(key), Value::Array(desired)) = (key_of(before), desired) else {
                return;
            };
            live.retain(|item| {
                find(before, key, item).is_none() || find(desired, key, item).is_some()
            });
            for item in live.iter_mut() {
                if let (Some(old), Some(new)) = (find(before, key, item), find(desired, key, item))
                {
                    prune(item, old, new);
                }
            }
        }
        _ => {}
    }
}

fn merge(live: &mut Value, desired: &Value) {
    match desired {
        Value::Object(desired) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            if let Value::Object(live) = live {
                for (name, new) in desired {
                    merge(live.entry(name.clone()).or_insert(Value::Null), new);
                }
            }
        }
        Value::Array(items) => {
            let key = key_of(items);
            match (key, live) {
                (Some(key), Value::Array(live)) => {
                    for item in items {
                        match live.iter_mut().find(|i| i.get(key) == item.get(key)) {
                            Some(there) => merge(there, item),
                            None => live.push(item.clone()),
                        }
                    }
                }
                (_, live) => *live = Value::Array(items.clone()),
            }
        }
        scalar => *live = scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_manager_no_longer_says_is_gone_and_what_others_said_stays() {
        let before = json!({"a": 1, "b": 2, "list": [{"name": "x", "v": 1}, {"name": "y"}]});
        let live = json!({"a": 1, "b": 2, "c": 3, "list": [{"name": "x", "v": 1, "w": 2}, {"name": "y"}, {"name": "z"}]});
        let after = apply(
            &live,
            Some(&before),
            &json!({"a": 5, "list": [{"name": "x"}]}),
        );
        assert_eq!(
            after,
            json!({"a": 5, "c": 3, "list": [{"name": "x", "w": 2}, {"name": "z"}]})
        );
        assert_eq!(apply(&Value::Null, None, &before), before);
    }
}
