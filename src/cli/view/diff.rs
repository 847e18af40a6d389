//! What differs between two revisions.

use serde_json::Value;

use super::Node;

/// Values longer than this are cut: a prompt's text may be pages.
const LONGEST: usize = 200;

/// What differs, as a tree of one level: a path for each value that is other, new or gone. Lists of things with names are compared by name.
pub fn diff(title: String, from: &Value, to: &Value) -> Node {
    let mut lines = Vec::new();
    compare("", from, to, &mut lines);
    if lines.is_empty() {
        lines.push("nothing differs".to_owned());
    }
    Node {
        text: title,
        children: lines.into_iter().map(Node::leaf).collect(),
    }
}

fn compare(path: &str, from: &Value, to: &Value, lines: &mut Vec<String>) {
    if from == to {
        return;
    }
    if let (Some(a), Some(b)) = (members(from), members(to)) {
        let mut names: Vec<&String> = a.iter().map(|(name, _)| name).collect();
        names.extend(
            b.iter()
                .map(|(name, _)| name)
                .filter(|name| a.iter().all(|(other, _)| other != *name)),
        );
        let value = |of: &[(String, &Value)], name: &str| {
            let found = of.iter().find(|(other, _)| other == name);
            found.map_or(Value::Null, |(_, value)| (*value).clone())
        };
        for name in names {
            let dot = match path.is_empty() || name.starts_with('[') {
                true => "",
                false => ".",
            };
            let below = format!("{path}{dot}{name}");
            compare(&below, &value(&a, name), &value(&b, name), lines);
        }
        return;
    }
    lines.push(match (from, to) {
        (Value::Null, to) => format!("+ {path}: {}", short(to)),
        (from, Value::Null) => format!("- {path}: {}", short(from)),
        (from, to) => format!("~ {path}: {} → {}", short(from), short(to)),
    });
}

/// Members by name: of an object, or of a list whose things all have different names.
fn members(value: &Value) -> Option<Vec<(String, &Value)>> {
    match value {
        Value::Object(map) => Some(map.iter().map(|(k, v)| (k.clone(), v)).collect()),
        Value::Array(list) => {
            let named: Option<Vec<(String, &Value)>> = list
                .iter()
                .map(|item| Some((format!("[{}]", item["name"].as_str()?), item)))
                .collect();
            let named = named?;
            let unique: std::collections::BTreeSet<&String> = named.iter().map(|n| &n.0).collect();
            (unique.len() == named.len() && !named.is_empty()).then_some(named)
        }
        _ => None,
    }
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_names_the_path_of_what_is_other_new_or_gone() {
        let from = json!({"model": {"version": "v1"}, "server": {"port": 8080, "template": {"spec": {"containers": [
            {"name": "server", "args": ["x", "y"], "image": "a:1"}, {"name": "side"}]}}}});
        let to = json!({"model": {"version": "v2"}, "server": {"port": 8080, "template": {"spec": {"containers": [
            {"name": "server", "args": ["x", "z"], "image": "a:2", "env": [{"name": "A", "value": "1"}]}]}}}});
        let text = diff("stable → candidate".to_owned(), &from, &to).lines();
        assert_eq!(
            text,
            [
                "stable → candidate",
                "├─ ~ model.version: v1 → v2",
                "├─ ~ server.template.spec.containers[server].args: [\"x\",\"y\"] → [\"x\",\"z\"]",
                "├─ ~ server.template.spec.containers[server].image: a:1 → a:2",
                "├─ + server.template.spec.containers[server].env: [{\"name\":\"A\",\"value\":\"1\"}]",
                "└─ - server.template.spec.containers[side]: {\"name\":\"side\"}",
            ]
        );
        assert_eq!(
            diff("same".to_owned(), &from, &from).lines(),
            ["same", "└─ nothing differs"]
        );
    }
}
