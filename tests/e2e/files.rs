//! Evaluations of files, which a web server hands out to those who have its password.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    installation,
    space::{Space, condition},
    words::BUSYBOX,
};

/// Delays that are foretold half a minute too high.
fn table() -> String {
    let mut text = String::from("minutes,prediction\n");
    for row in 0..400 {
        let minutes = f64::from(row * 37 % 101);
        writeln!(text, "{minutes},{}", minutes + 0.5).unwrap();
    }
    text
}

/// A web server with the table, which asks for a name and a password, and the Secret with them.
fn server(table: &str) -> String {
    let container = json!({
        "name": "server", "image": BUSYBOX, "command": ["httpd", "-f", "-p", "8080", "-h", "/www", "-c", "/etc/httpd/httpd.conf"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "www", "mountPath": "/www"}, {"name": "conf", "mountPath": "/etc/httpd"}],
    });
    let volumes = json!([{"name": "www", "configMap": {"name": "www"}}, {"name": "conf", "configMap": {"name": "conf"}}]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "www"}, "data": {"predictions.csv": table}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"httpd.conf": "/:reader:open-sesame\n"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reader"}, "stringData": {"HTTP_USERNAME": "reader", "HTTP_PASSWORD": "open-sesame"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "files"}, "spec": {"selector": {"app": "files"}, "ports": [{"port": 8080}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "files"}, "spec": {
            "selector": {"matchLabels": {"app": "files"}},
            "template": {"metadata": {"labels": {"app": "files"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes}},
        }},
    ]})
    .to_string()
}

fn evaluation(name: &str, more: Value, most: f64) -> String {
    let mut predictions = json!({"uri": "http://files:8080/predictions.csv", "label": "minutes"});
    predictions
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": name}, "spec": {
        "target": {"predictions": predictions}, "gates": [{"metric": "mae", "max": most}],
    }})
    .to_string()
}

#[tokio::test]
async fn a_file_behind_a_password_is_measured_only_if_it_is_the_one_that_was_meant() {
    let _peace = installation::in_peace().await;
    let space = Space::new("files").await;
    let table = table();
    space.apply(&server(&table)).await;
    space
        .until_condition("Deployment", "files", 60, "Available", "True")
        .await;
    let digest = format!("sha256:{:x}", Sha256::digest(&table));
    let credentials = json!({"secretName": "reader"});
    let (good, other) = (
        json!({"digest": digest, "credentials": credentials}),
        json!({"digest": format!("sha256:{}", "0".repeat(64)), "credentials": credentials}),
    );
    for object in [
        evaluation("good", good.clone(), 0.6),
        evaluation("bad", good, 0.4),
        evaluation("other", other, 0.6),
        evaluation("nobody", json!({}), 0.6),
    ] {
        space.apply(&object).await;
    }
    let verdict = async |name: &str, verdict: &str| {
        let what = format!("its verdict is {verdict}");
        space
            .until("Evaluation", name, 120, &what, |e| {
                e["status"]["verdict"] == verdict
            })
            .await
    };

    // The label is a number, so without evaluators it is a regression.
    let passed = verdict("good", "Passed").await;
    let metrics = passed["status"]["lastRun"]["metrics"]
        .as_array()
        .unwrap()
        .clone();
    let value = |name: &str| {
        metrics
            .iter()
            .find(|m| m["name"] == name)
            .and_then(|m| m["value"].as_f64())
            .unwrap()
    };
    for (name, expected) in [("mae", 0.5), ("rmse", 0.5), ("meanError", 0.5)] {
        assert!(
            (value(name).abs() - expected).abs() < 1e-6,
            "{name}: {metrics:?}"
        );
    }
    assert!(
        value("baseline.mae") > 10.0,
        "always the same says nothing: {metrics:?}"
    );
    assert_eq!(passed["status"]["lastRun"]["rows"], 400);
    assert_eq!(condition(&passed, "Ready").0, "True");
    let failed = verdict("bad", "Failed").await;
    assert!(
        failed["status"]["lastRun"]["gates"][0]["message"]
            .as_str()
            .unwrap()
            .contains("0.4"),
        "{}",
        failed["status"]
    );

    for (name, words) in [
        ("other", ["digest", "sha256:000"]),
        ("nobody", ["401", "credentials"]),
    ] {
        let refused = verdict(name, "Error").await;
        let said = refused["status"]["lastRun"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            words.iter().all(|w| said.contains(w)),
            "{name}: {}",
            refused["status"]
        );
    }
}
