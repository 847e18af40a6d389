//! `kubectl perennial validate`: what the API server would say of a file, with nothing written.

use std::io::Read;

use kube::{
    Api, Client, Resource,
    api::{DynamicObject, GroupVersionKind},
    core::ApiResource,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Place, connect::connect};
use crate::api::{GROUP, VERSION};

/// Reads of an object that somebody else writes at the same time.
const TRIES: u32 = 5;

/// Checks every object of ours in the files (`-`: standard input) against the cluster's schemas, rules and policies.
pub async fn run(place: &Place, files: &[String]) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let (mut good, mut bad) = (0, 0);
    for file in files {
        for object in objects(file)? {
            let Some(resource) = resource(&object) else {
                println!("{}: not ours, left out", name(&object));
                continue;
            };
            match check(&client, &namespace, &resource, &object).await {
                Ok(()) => {
                    good += 1;
                    println!("{}: valid", name(&object));
                }
                Err(why) => {
                    bad += 1;
                    println!("{}: {why}", name(&object));
                }
            }
        }
    }
    match (good, bad) {
        (0, 0) => Err("there is no object of ours in it".to_owned()),
        (_, 0) => Ok(()),
        (_, bad) => Err(format!("{bad} of {} would be refused", good + bad)),
    }
}

/// The objects of a file: YAML documents or JSON, lists taken apart.
pub(super) fn objects(file: &str) -> Result<Vec<Value>, String> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        path => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|e| format!("{file}: {e}"))?;
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document).map_err(|e| format!("{file}: {e}"))?;
        match value {
            Value::Null => {} // Between two `---`, or only a comment.
            Value::Object(ref map) if map.contains_key("items") => {
                objects.extend(value["items"].as_array().cloned().unwrap_or_default());
            }
            other => objects.push(other),
        }
    }
    Ok(objects)
}

fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{}/{}",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    )
}

/// Our kinds, by name; an unknown one of our group is asked about too, so that the API server says so.
fn resource(object: &Value) -> Option<ApiResource> {
    let kind = object["kind"].as_str()?;
    let (group, version) = object["apiVersion"].as_str()?.split_once('/')?;
    (group == GROUP).then(|| {
        let plural = format!("{}s", kind.to_lowercase());
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
    })
}

async fn check(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    object: &Value,
) -> Result<(), String> {
    if resource.version != VERSION {
        return Err(format!(
            "apiVersion: there is {GROUP}/{VERSION}, not {}",
            resource.api_version
        ));
    }
    let mut object = object.clone();
    let metadata = object["metadata"].clone();
    let namespace = metadata["namespace"].as_str().unwrap_or(namespace);
    let name = metadata["name"].as_str().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let url = DynamicObject::url_path(resource, Some(namespace));
    // Strictly, as kubectl does it: a field that there isn't is an error.
    let how = "dryRun=All&fieldValidation=Strict&fieldManager=kubectl-perennial";
    let mut tries = 1;
    loop {
        let live = match name {
            "" => None,
            name => api.get_opt(name).await.map_err(said)?,
        };
        let request = match live {
            None => http::Request::post(format!("{url}?{how}")),
            Some(live) => {
                object["metadata"]["resourceVersion"] = live.metadata.resource_version.into();
                http::Request::put(format!("{url}/{name}?{how}"))
            }
        };
        let request = request
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .map_err(|e| format!("its name or namespace makes no address: {e}"))?;
        match client.request::<Value>(request).await {
            // Somebody wrote in between, most likely the operator a status.
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => tries += 1,
            answer => return answer.map(|_| ()).map_err(said),
        }
    }
}

/// The API server's own words.
fn said(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_hold_documents_lists_and_things_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let text = "# only this\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\n\
            apiVersion: perennial.dev/v1alpha1\nkind: Evaluation\nmetadata: {name: e}\n---\n\
            apiVersion: v1\nkind: List\nitems:\n- {apiVersion: perennial.dev/v1alpha1, kind: PromptRelease, metadata: {name: p}}\n";
        std::fs::write(&path, text).unwrap();
        let objects = objects(path.to_str().unwrap()).unwrap();
        let names: Vec<String> = objects.iter().map(name).collect();
        assert_eq!(names, ["Secret/s", "Evaluation/e", "PromptRelease/p"]);
        let plurals: Vec<Option<String>> = objects
            .iter()
            .map(|o| resource(o).map(|r| r.plural))
            .collect();
        let expected = [None, Some("evaluations"), Some("promptreleases")];
        assert_eq!(plurals, expected.map(|p| p.map(str::to_owned)));
    }
}
