//! The CRDs as the API server takes them, and the examples.

use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use serde_json::{Value, json};

use crate::harness::on_cluster;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_api_server_takes_every_crd_without_a_complaint() {
    on_cluster(|place| async move {
        let crds: Api<CustomResourceDefinition> = Api::all(place.client.clone());
        for crd in perennial::api::crds() {
            let name = crd["metadata"]["name"].as_str().unwrap();
            let conditions = crds
                .get(name)
                .await
                .unwrap()
                .status
                .unwrap()
                .conditions
                .unwrap();
            for condition in &conditions {
                assert!(
                    condition.type_ != "NonStructuralSchema" || condition.status != "True",
                    "{name}: {condition:?}"
                );
            }
        }
    });
}

#[test]
fn the_least_examples_apply_as_they_are() {
    on_cluster(|place| async move {
        let text = std::fs::read_to_string(root().join("docs/examples/minimal.yaml")).unwrap();
        let mut kinds = Vec::new();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object: Value = serde::Deserialize::deserialize(document).unwrap();
            object["metadata"]["namespace"] = json!(place.namespace);
            place.create(&object).await.unwrap();
            kinds.push(object["kind"].as_str().unwrap().to_owned());
        }
        assert_eq!(
            kinds,
            [
                "TrainingJob",
                "ModelDeployment",
                "Evaluation",
                "PromptRelease"
            ]
        );
    });
}

#[test]
fn the_example_of_a_whole_model_deployment_applies_as_it_is() {
    on_cluster(|place| async move {
        let file = root().join("docs/examples/model-deployment.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        let mut object: Value = serde_yaml::from_str(&text).unwrap();
        object["metadata"]["namespace"] = json!(place.namespace);
        place.create(&object).await.unwrap();
    });
}

#[test]
fn the_examples_of_whole_evaluations_apply_as_they_are() {
    on_cluster(|place| async move {
        let file = root().join("docs/examples/evaluation.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        let mut names = Vec::new();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object: Value = serde::Deserialize::deserialize(document).unwrap();
            object["metadata"]["namespace"] = json!(place.namespace);
            place.create(&object).await.unwrap();
            names.push(object["metadata"]["name"].as_str().unwrap().to_owned());
        }
        assert_eq!(
            names,
            [
                "arrival-delay-quality",
                "october-against-september",
                "support-reply-quality"
            ]
        );
    });
}

#[test]
fn every_manifest_of_the_quickstart_applies() {
    on_cluster(|place| async move {
        let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("manifests/quickstart"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
            .collect();
        files.sort();
        let mut checked = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for document in serde_yaml::Deserializer::from_str(&text) {
                let mut object: Value = serde::Deserialize::deserialize(document).unwrap();
                if object["apiVersion"] != "perennial.dev/v1alpha1" {
                    continue;
                }
                let name = format!("q{checked}");
                object["metadata"] = json!({"namespace": place.namespace, "name": name, "annotations": object["metadata"]["annotations"]});
                place
                    .create(&object)
                    .await
                    .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
                checked += 1;
            }
        }
        assert!(checked > 0);
    });
}

#[test]
fn the_scale_subresource_scales() {
    on_cluster(|place| async move {
        let object = json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": place.namespace},
            "spec": {"server": {"template": {"spec": {"containers": [{"name": "server", "image": "x"}]}}}},
        });
        place.create(&object).await.unwrap();
        let api: Api<perennial::api::ModelDeployment> = place.typed();
        let patch = kube::api::Patch::Merge(json!({"spec": {"replicas": 3}}));
        api.patch_scale("m", &Default::default(), &patch)
            .await
            .unwrap();
        assert_eq!(api.get("m").await.unwrap().spec.replicas, Some(3));
    });
}
