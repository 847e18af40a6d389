//! Commands: an annotation is set, and the operator's echo is waited for.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    Place,
    connect::connect,
    release::{self, ReleaseKind},
    view::Release,
};
use crate::api::{ModelDeployment, PromptRelease, annotation, rollout::Outcome};

/// How long the operator's echo is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command and the revision it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Promote the candidate.
    Promote,
    /// Abort the rollout.
    Abort,
    /// Take a revision out of the ledger.
    Retry(Option<String>),
    /// Go back to a revision.
    Rollback(Option<String>),
    /// Approve the candidate, as whom the API server takes us for.
    Approve,
    /// Retrain.
    Retrain,
}

impl Command {
    fn annotation(&self) -> &'static str {
        match self {
            Self::Promote => annotation::PROMOTE,
            Self::Abort => annotation::ABORT,
            Self::Retry(_) => annotation::RETRY,
            Self::Rollback(_) => annotation::ROLLBACK_TO,
            Self::Approve => annotation::APPROVE,
            Self::Retrain => annotation::RETRAIN,
        }
    }

    /// The revision that it is for, or why there is none.
    fn revision(&self, release: &Release) -> Result<String, String> {
        let name = &release.name;
        let candidate = || {
            release
                .candidate
                .as_ref()
                .map(|c| c.revision.clone())
                .ok_or_else(|| format!("{name} has no candidate: there is no rollout to act on"))
        };
        let stable = || {
            release
                .stable
                .as_ref()
                .map(|s| s.revision.clone())
                .ok_or_else(|| format!("{name} has no stable revision yet"))
        };
        match self {
            Self::Promote | Self::Abort | Self::Approve => candidate(),
            Self::Retry(Some(revision)) | Self::Rollback(Some(revision)) => Ok(revision.clone()),
            Self::Retry(None) => release
                .rejected
                .last()
                .map(|r| r.revision.clone())
                .ok_or_else(|| format!("{name} has no rejected revision")),
            Self::Rollback(None) => {
                let stable = stable()?;
                let promoted = release
                    .history
                    .iter()
                    .rev()
                    .filter(|h| h.outcome == Outcome::Promoted)
                    .map(|h| &h.revision);
                promoted
                    .into_iter()
                    .find(|r| **r != stable)
                    .cloned()
                    .ok_or_else(|| {
                        format!("{name} has no earlier stable revision in its history: name one")
                    })
            }
            Self::Retrain if release.kind == ReleaseKind::Prompt => Err(format!(
                "{name} is a PromptRelease: there is nothing to retrain"
            )),
            Self::Retrain => stable(),
        }
    }
}

/// Sets the annotation and waits for the echo.
pub async fn run(place: &Place, which: &str, command: Command) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let before = release::find(&client, &namespace, which).await?;
    let revision = command.revision(&before)?;
    // Any value that was never used will do as nonce.
    let nonce = Timestamp::now().as_nanosecond();
    let value = match command {
        Command::Approve => format!("{revision}.{nonce}/{}", user(&client).await?),
        _ => format!("{revision}/{nonce}"),
    };
    annotate(&client, &namespace, &before, command.annotation(), &value).await?;
    let name = command.annotation().rsplit('/').next().unwrap_or_default();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let now = release::find(&client, &namespace, which).await?;
        if let Some(handled) = now.commands.iter().find(|c| c.value == value) {
            let result = handled.result.trim_start_matches("refused: ");
            if !result.starts_with("Done") {
                return Err(format!("{name} {revision} was refused: {result}"));
            }
            println!("{name} {revision}: {result}");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Err(format!(
        "{name} is set, but the operator hasn't answered within {} s: is it running? It does it as soon as it is back",
        PATIENCE.as_secs()
    ))
}

/// Whom the API server takes us for.
async fn user(client: &Client) -> Result<String, String> {
    let ask = SelfSubjectReview::default();
    let asked = Api::<SelfSubjectReview>::all(client.clone())
        .create(&PostParams::default(), &ask)
        .await
        .map_err(|e| format!("the API server doesn't say who you are: {e}"))?;
    let user = asked.status.and_then(|s| s.user_info);
    user.and_then(|u| u.username)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| "the API server doesn't say who you are".to_owned())
}

async fn annotate(
    client: &Client,
    namespace: &str,
    release: &Release,
    annotation: &str,
    value: &str,
) -> Result<(), String> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {annotation: value}}}));
    let parameters = PatchParams {
        field_manager: Some("kubectl-perennial".to_owned()),
        ..PatchParams::default()
    };
    let failed = |e: kube::Error| format!("{}: {e}", release.name);
    match release.kind {
        ReleaseKind::Model => {
            Api::<ModelDeployment>::namespaced(client.clone(), namespace)
                .patch_metadata(&release.name, &parameters, &patch)
                .await
                .map_err(failed)?;
        }
        ReleaseKind::Prompt => {
            Api::<PromptRelease>::namespaced(client.clone(), namespace)
                .patch_metadata(&release.name, &parameters, &patch)
                .await
                .map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(status: serde_json::Value) -> Release {
        let object: ModelDeployment = serde_json::from_value(json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "churn"},
            "spec": {"server": {"template": {"spec": {"containers": [{"name": "server"}]}}}}, "status": status,
        }))
        .unwrap();
        Release::from(&object)
    }

    #[test]
    fn a_command_names_the_revision_it_is_for_or_says_why_there_is_none() {
        let idle = release(json!({"stable": {"revision": "aaaa"}}));
        let busy = release(json!({
            "stable": {"revision": "aaaa"}, "candidate": {"revision": "bbbb"},
            "rejectedRevisions": [{"revision": "cccc", "reason": "GateFailed", "message": "m", "time": "2026-01-01T00:00:00Z"}],
            "history": [{"revision": "dddd", "outcome": "Promoted", "reason": "r", "message": "m", "endTime": "2026-01-01T00:00:00Z"},
                        {"revision": "aaaa", "outcome": "Promoted", "reason": "r", "message": "m", "endTime": "2026-01-02T00:00:00Z"}],
        }));
        assert!(
            Command::Promote
                .revision(&idle)
                .unwrap_err()
                .contains("no candidate")
        );
        assert_eq!(Command::Promote.revision(&busy).as_deref(), Ok("bbbb"));
        assert_eq!(Command::Approve.revision(&busy).as_deref(), Ok("bbbb"));
        assert_eq!(Command::Retry(None).revision(&busy).as_deref(), Ok("cccc"));
        assert_eq!(
            Command::Rollback(None).revision(&busy).as_deref(),
            Ok("dddd")
        );
        assert_eq!(Command::Retrain.revision(&idle).as_deref(), Ok("aaaa"));
    }
}
