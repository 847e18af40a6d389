//! ConfigMaps that a pod template names: which, what of them must be there, and their names replaced by those of copies.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};

use super::{pod::template_value, revision::sha256};
use crate::api::PodTemplate;

/// What a template needs of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Whether no pod starts without it: at least one reference isn't `optional`.
    pub required: bool,
    /// Keys that no pod starts without.
    pub keys: BTreeSet<String>,
}

/// The ConfigMaps that a template names, in volumes (projected ones too), `envFrom` and `env`.
pub fn named(template: &PodTemplate) -> BTreeMap<String, Need> {
    let (_, _, mut spec) = template_value(template);
    let mut found: BTreeMap<String, Need> = BTreeMap::new();
    for reference in references(&mut spec) {
        let text = |key: &str| reference.get(key).and_then(Value::as_str);
        let Some(name) = text("name").filter(|n| !n.is_empty()) else {
            continue; // The API server says so.
        };
        let need = found.entry(name.to_owned()).or_default();
        if reference.get("optional") == Some(&json!(true)) {
            continue;
        }
        need.required = true;
        let items = reference.get("items").and_then(Value::as_array);
        let of_items = items
            .into_iter()
            .flatten()
            .filter_map(|item| item.get("key")?.as_str());
        need.keys
            .extend(of_items.chain(text("key")).map(str::to_owned));
    }
    found
}

/// Makes a pod spec read these ConfigMaps instead of those: by name, the name of the copy.
pub fn rename(spec: &mut Map<String, Value>, copies: &BTreeMap<String, &str>) {
    for reference in references(spec) {
        let copy = reference
            .get("name")
            .and_then(Value::as_str)
            .and_then(|name| copies.get(name));
        if let Some(copy) = copy {
            reference.insert("name".to_owned(), json!(copy));
        }
    }
}

/// SHA-256 (hex) of what a ConfigMap holds, whatever it is called.
pub fn digest(config_map: &ConfigMap) -> String {
    let data = config_map.data.as_ref().filter(|d| !d.is_empty());
    let binary = config_map.binary_data.as_ref().filter(|d| !d.is_empty());
    sha256(&json!({"data": data, "binaryData": binary}))
}

/// Whether a ConfigMap has this key.
pub fn has_key(config_map: &ConfigMap, key: &str) -> bool {
    let text = config_map.data.as_ref();
    let binary = config_map.binary_data.as_ref();
    text.is_some_and(|d| d.contains_key(key)) || binary.is_some_and(|d| d.contains_key(key))
}

/// Every object of a pod spec that names a ConfigMap.
fn references(spec: &mut Map<String, Value>) -> Vec<&mut Map<String, Value>> {
    let mut found = Vec::new();
    for (key, list) in spec.iter_mut() {
        for item in items(list) {
            match key.as_str() {
                "volumes" => of_volume(item, &mut found),
                "containers" | "initContainers" => of_container(item, &mut found),
                _ => {}
            }
        }
    }
    found
}

fn of_volume<'a>(volume: &'a mut Value, found: &mut Vec<&'a mut Map<String, Value>>) {
    for (key, source) in members(volume) {
        match key.as_str() {
            "configMap" => found.extend(source.as_object_mut()),
            "projected" => {
                let sources = source.get_mut("sources").into_iter().flat_map(items);
                found.extend(sources.filter_map(|s| s.get_mut("configMap")?.as_object_mut()));
            }
            _ => {}
        }
    }
}

fn of_container<'a>(container: &'a mut Value, found: &mut Vec<&'a mut Map<String, Value>>) {
    for (key, list) in members(container) {
        match key.as_str() {
            "envFrom" => {
                found.extend(items(list).filter_map(|e| e.get_mut("configMapRef")?.as_object_mut()))
            }
            "env" => found.extend(items(list).filter_map(|e| {
                e.get_mut("valueFrom")?
                    .get_mut("configMapKeyRef")?
                    .as_object_mut()
            })),
            _ => {}
        }
    }
}

fn items(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

fn members(object: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    object.as_object_mut().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> PodTemplate {
        serde_json::from_value(json!({"spec": {
            "containers": [{
                "name": "server",
                "envFrom": [{"configMapRef": {"name": "all"}}, {"secretRef": {"name": "s"}}],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "a"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "b", "optional": true}}},
                    {"name": "C", "value": "one"},
                ],
            }],
            "initContainers": [{"name": "init", "envFrom": [{"configMapRef": {"name": "early", "optional": true}}]}],
            "volumes": [
                {"name": "v", "configMap": {"name": "files", "items": [{"key": "x", "path": "y"}]}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "part"}}, {"secret": {"name": "s"}}]}},
                {"name": "e", "emptyDir": {}},
            ],
        }}))
        .unwrap()
    }

    fn need(required: bool, keys: &[&str]) -> Need {
        Need {
            required,
            keys: keys.iter().map(|k| (*k).to_owned()).collect(),
        }
    }

    #[test]
    fn every_place_that_names_a_config_map_is_found() {
        let found = named(&template());
        let expected = [
            ("all", need(true, &[])),
            ("one", need(true, &["a"])),
            ("early", need(false, &[])),
            ("files", need(true, &["x"])),
            ("part", need(true, &[])),
        ];
        let expected: BTreeMap<String, Need> = expected
            .into_iter()
            .map(|(name, need)| (name.to_owned(), need))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn names_are_replaced_everywhere_and_nothing_else_is() {
        let (_, _, mut spec) = template_value(&template());
        let before = Value::Object(spec.clone()).to_string();
        let names = ["all", "one", "early", "files", "part"];
        let copies = names.map(|n| (n.to_owned(), n.to_uppercase()));
        let copies = copies.iter().map(|(n, c)| (n.clone(), c.as_str()));
        rename(&mut spec, &copies.collect());
        let mut expected = before;
        for name in names {
            expected = expected.replace(
                &format!("\"name\":\"{name}\""),
                &format!("\"name\":\"{}\"", name.to_uppercase()),
            );
        }
        assert_eq!(Value::Object(spec).to_string(), expected);
    }

    #[test]
    fn the_digest_is_of_the_content_alone() {
        let parse = |value: Value| serde_json::from_value::<ConfigMap>(value).unwrap();
        let one = parse(json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
        let same = parse(
            json!({"metadata": {"name": "b", "labels": {"x": "y"}}, "data": {"k": "v"}, "binaryData": {}, "immutable": true}),
        );
        let other = parse(json!({"data": {"k": "w"}}));
        let binary = parse(json!({"binaryData": {"k": "dg=="}}));
        assert_eq!(digest(&one), digest(&same));
        assert_ne!(digest(&one), digest(&other));
        assert_ne!(digest(&one), digest(&binary));
        assert!(has_key(&binary, "k") && !has_key(&binary, "v"));
    }
}
