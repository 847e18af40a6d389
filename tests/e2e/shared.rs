//! Artifacts that the pods of a node share.

use perennial::data::digest::{FileDigest, of_bytes, of_listing};
use serde_json::{Value, json};

use crate::{caller, installation, s3, space::Space};

/// The claim that the chart is told of.
pub const CLAIM: &str = "artifacts";

const TEXT: &str = "a model that is fetched once\n";

/// A volume that is each node's own directory, as the documentation has it.
fn volume(space: &Space) -> Value {
    let name = format!("artifacts-{}", space.name);
    let asked = json!({"storage": "1Gi"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteMany"], "capacity": asked, "storageClassName": "artifacts", "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": space.name, "name": CLAIM},
            "hostPath": {"path": format!("/var/tmp/perennial-{name}"), "type": "DirectoryOrCreate"}}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": {
            "accessModes": ["ReadWriteMany"], "resources": {"requests": asked}, "storageClassName": "artifacts", "volumeName": name}},
    ]})
}

/// Runs a script as root where the cache is `/cache`.
async fn script(space: &Space, name: &str, script: &str) {
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {"spec": {
        "restartPolicy": "Never",
        "containers": [{"name": "sh", "image": "docker.io/perennial/busybox:1", "command": ["sh", "-ec", script],
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}],
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }}}});
    space.apply(&job.to_string()).await;
    space.until_complete(name, 60).await;
}

/// What the release's pods say of how they got the artifact, sorted, once all but these are gone and so many are there.
async fn ways(space: &Space, before: &[String], wanted: usize) -> (Vec<String>, Vec<String>) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
    loop {
        let (mut names, mut ways) = (Vec::new(), Vec::new());
        for pod in space.list("Pod", "perennial.dev/role=server").await {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            let ended =
                &pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"];
            if let (false, Some(text)) = (before.contains(&name), ended.as_str()) {
                let summary: Value = serde_json::from_str(text).unwrap();
                ways.push(summary["message"].as_str().unwrap().to_owned());
                names.push(name);
            }
        }
        if ways.len() == wanted {
            ways.sort_by_key(|way| way.rsplit(", ").next().map(str::to_owned));
            return (names, ways);
        }
        assert!(tokio::time::Instant::now() < deadline, "{ways:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn pods_of_a_node_fetch_an_artifact_once_and_anew_when_the_copy_is_spoilt() {
    let _peace = installation::in_peace().await;
    let space = Space::new("shared").await;
    let store = s3::store(&space).await;
    s3::put(&store, "words/v1/words", TEXT).await;
    let file = FileDigest {
        path: "words".to_owned(),
        digest: of_bytes(TEXT.as_bytes()),
        bytes: TEXT.len() as u64,
    };
    space.apply(&volume(&space).to_string()).await;
    script(&space, "open", "chmod 0777 /cache").await;
    let deployment = json!({"apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "words"}, "spec": {
        "model": {"uri": "s3://models/words/v1", "digest": of_listing(&[file]), "credentials": {"secretName": "s3"}},
        "replicas": 2,
        "server": {"protocol": "HTTP", "template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "server", "image": "docker.io/perennial/busybox:1", "command": ["httpd", "-f", "-p", "8080", "-h", "/mnt/model"],
            "readinessProbe": {"httpGet": {"path": "/words", "port": 8080}, "periodSeconds": 1},
        }]}}},
    }});
    space.apply(&deployment.to_string()).await;
    let (first, how) = ways(&space, &[], 2).await;
    assert!(how[0].ends_with(", fetched for the cache"), "{how:?}");
    assert!(how[1].ends_with(", from the cache"), "{how:?}");
    space
        .until_condition("ModelDeployment", "words", 90, "Ready", "True")
        .await;

    let spoil = "for f in $(find /cache -path '*/content/*' -type f); do echo spoilt > $f; done";
    script(&space, "spoil", spoil).await;
    for pod in &first {
        space.kill(pod).await;
    }
    let (second, how) = ways(&space, &first, 2).await;
    assert!(
        how.iter()
            .any(|way| way.contains("fetched anew for the cache")),
        "{how:?}"
    );
    assert!(
        how.iter().any(|way| way.ends_with(", from the cache")),
        "{how:?}"
    );

    // A new pod on the node needs the store no more.
    let scale = ["scale", "deployment", "s3", "--replicas=0"];
    space.kubectl(&scale, "").await.unwrap();
    let before = [first, second].concat();
    space.kill(before.last().unwrap()).await;
    let (_, how) = ways(&space, &before, 1).await;
    assert!(how[0].ends_with(", from the cache"), "{how:?}");
    space
        .until_condition("ModelDeployment", "words", 90, "Ready", "True")
        .await;
    let address = caller::address(&space, "words").await;
    let (http, url) = (caller::http(), format!("{address}/words"));
    let (status, _, body) = caller::ask(&http, &url, None, &Value::Null).await.unwrap();
    assert_eq!((status, body.as_ref()), (200, TEXT.as_bytes()));

    script(&space, "clear", "rm -rf /cache/*").await;
    let volume = format!("artifacts-{}", space.name);
    let delete = ["delete", "persistentvolume", &volume, "--wait=false"];
    space.kubectl(&delete, "").await.unwrap();
}
