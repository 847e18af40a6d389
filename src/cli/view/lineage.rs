//! Where a version comes from: the run that made it, and what that run read.

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use super::{
    Node, Release,
    words::{ago, version},
};
use crate::api::{
    TrainingJob, annotation,
    revision::{ModelReference, ModelRevision, PromptRevision},
};

/// A kept revision, with the TrainingJob that made its version if that is still there.
pub struct Version {
    /// Hash of the revision.
    pub revision: String,
    /// What the revision was made of.
    pub data: Value,
    /// The run.
    pub job: Option<TrainingJob>,
}

impl Version {
    /// Name of the TrainingJob that made it.
    pub fn made_by(data: &Value) -> Option<&str> {
        data.pointer("/model/trainingJob")?.as_str()
    }
}

/// The release with its kept revisions, newest first: version, artifact, run, and digests of what it was trained on.
pub fn lineage(release: &Release, versions: &[Version], now: Timestamp) -> Node {
    let mut root = Node::leaf(format!("{} {}", release.kind.as_str(), release.name));
    let is = |role: &Option<crate::api::rollout::RevisionStatus>, hash: &str| {
        role.as_ref().is_some_and(|r| r.revision == hash)
    };
    for one in versions.iter().rev() {
        let hash = &one.revision;
        let role = match (is(&release.stable, hash), is(&release.candidate, hash)) {
            (true, _) => "stable  ",
            (_, true) => "candidate  ",
            _ if release.rejected.iter().any(|r| r.revision == *hash) => "rejected  ",
            _ => "",
        };
        root.children.push(
            if let Ok(revision) = serde_json::from_value::<ModelRevision>(one.data.clone()) {
                model(role, hash, &revision.model, one.job.as_ref(), now)
            } else if let Ok(revision) = serde_json::from_value::<PromptRevision>(one.data.clone())
            {
                let mut node = Node::leaf(format!(
                    "{role}{}  revision {hash}",
                    version(Some(&revision.version))
                ));
                node.children
                    .push(Node::leaf(format!("prompt sha256:{}", revision.version)));
                node.children
                    .push(Node::leaf(format!("model {}", revision.backend.model)));
                node
            } else {
                Node::leaf(format!("{role}revision {hash}: its data can't be read"))
            },
        );
    }
    root
}

fn model(
    role: &str,
    hash: &str,
    model: &ModelReference,
    job: Option<&TrainingJob>,
    now: Timestamp,
) -> Node {
    let mut node = Node::leaf(format!(
        "{role}{}  revision {hash}",
        version(model.version.as_deref())
    ));
    let digest = model.digest.as_deref().unwrap_or("no digest yet");
    node.children
        .push(Node::leaf(format!("{}  {digest}", model.uri)));
    let Some(name) = &model.training_job else {
        let text = "from elsewhere: no TrainingJob made it";
        node.children.push(Node::leaf(text));
        return node;
    };
    let trained = model.trained_time.as_ref();
    let mut run = Node::leaf(format!(
        "TrainingJob {name}{}{}",
        trained
            .map(|time| format!(", {}", ago(time, now)))
            .unwrap_or_default(),
        if job.is_none() {
            " (not there any more; this is what the revision kept)"
        } else {
            ""
        }
    ));
    let because = job.and_then(|j| j.annotations().get(annotation::FIRED_BECAUSE).cloned());
    run.children
        .extend(because.map(|why| Node::leaf(format!("retraining: {why}"))));
    let parameters = job.map(|j| j.spec.parameters.clone()).unwrap_or_default();
    run.children.extend(
        parameters
            .iter()
            .map(|(name, value)| Node::leaf(format!("parameter {name}={value}"))),
    );
    let read = job.and_then(|j| j.status.clone()).unwrap_or_default();
    for (dataset, digest) in &model.datasets {
        let known = read.datasets.iter().find(|d| d.name == *dataset);
        let more = known.map_or(String::new(), |d| {
            let rows = d.rows.map(|n| format!("  {n} rows")).unwrap_or_default();
            format!("  {}{rows}", d.uri)
        });
        run.children
            .push(Node::leaf(format!("data {dataset}{more}  {digest}")));
    }
    node.children.push(run);
    node
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ModelDeployment;

    #[test]
    fn lineage_goes_from_the_revision_to_the_run_and_the_digests_it_read() {
        let object: ModelDeployment = serde_json::from_value(json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "churn"},
            "spec": {"server": {"template": {"spec": {"containers": [{"name": "server"}]}}}},
            "status": {"stable": {"revision": "bbbb"}},
        }))
        .unwrap();
        let job: TrainingJob = serde_json::from_value(json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": "churn-abcdef-1", "annotations": {"perennial.dev/fired-because": "drift 0.33 > 0.25"}},
            "spec": {"model": {"name": "churn", "output": "pvc://m/churn"}, "parameters": {"lr": "0.1"},
                "template": {"spec": {"containers": [{"name": "trainer", "command": ["x"]}]}}},
            "status": {"datasets": [{"name": "train", "uri": "pvc://d/h1.parquet", "digest": "sha256:22", "rows": 20000}]},
        }))
        .unwrap();
        let data = |version: &str, job: &str, digest: &str| {
            json!({"model": {"version": version, "uri": format!("pvc://m/churn/{version}"), "digest": format!("sha256:{version}"),
                    "trainingJob": job, "datasets": {"train": digest}, "trainedTime": "2026-01-01T00:00:00Z"},
                "server": {"template": {"spec": {"containers": [{"name": "server"}]}}}, "helperImage": "i"})
        };
        let versions = [
            Version {
                revision: "aaaa".to_owned(),
                data: data("v1", "churn-1", "sha256:11"),
                job: None,
            },
            Version {
                revision: "bbbb".to_owned(),
                data: data("v2", "churn-abcdef-1", "sha256:22"),
                job: Some(job),
            },
        ];
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let text = lineage(&Release::from(&object), &versions, now)
            .lines()
            .join("\n");
        let expected = "\
ModelDeployment churn
├─ stable  v2  revision bbbb
│  ├─ pvc://m/churn/v2  sha256:v2
│  └─ TrainingJob churn-abcdef-1, 60m ago
│     ├─ retraining: drift 0.33 > 0.25
│     ├─ parameter lr=0.1
│     └─ data train  pvc://d/h1.parquet  20000 rows  sha256:22
└─ v1  revision aaaa
   ├─ pvc://m/churn/v1  sha256:v1
   └─ TrainingJob churn-1, 60m ago (not there any more; this is what the revision kept)
      └─ data train  sha256:11";
        assert_eq!(text, expected, "\n{text}");
    }
}
