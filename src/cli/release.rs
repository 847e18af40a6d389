//! Finding a release by what the user typed.

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::Value;

use super::view::Release;
use crate::api::{ModelDeployment, PromptRelease, label};

/// The kinds that roll out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseKind {
    /// ModelDeployment.
    Model,
    /// PromptRelease.
    Prompt,
}

impl ReleaseKind {
    /// The kind as the API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "ModelDeployment",
            Self::Prompt => "PromptRelease",
        }
    }

    /// The label of the revisions with the release's name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Model => label::MODEL_DEPLOYMENT,
            Self::Prompt => label::PROMPT_RELEASE,
        }
    }
}

/// `NAME`, `pmd/NAME`, `modeldeployment/NAME`, `ppr/NAME`, `promptrelease/NAME`.
pub fn parse(text: &str) -> Result<(Option<ReleaseKind>, &str), String> {
    let Some((kind, name)) = text.split_once('/') else {
        return Ok((None, text));
    };
    let kind = match kind
        .trim_end_matches(".perennial.dev")
        .to_lowercase()
        .as_str()
    {
        "pmd" | "modeldeployment" | "modeldeployments" => ReleaseKind::Model,
        "ppr" | "promptrelease" | "promptreleases" => ReleaseKind::Prompt,
        _ => {
            return Err(format!(
                "`{kind}` doesn't roll out: write pmd/NAME for a ModelDeployment or ppr/NAME for a PromptRelease"
            ));
        }
    };
    Ok((Some(kind), name))
}

/// The release that was meant.
pub async fn find(client: &Client, namespace: &str, text: &str) -> Result<Release, String> {
    let (kind, name) = parse(text)?;
    let failed = |e: kube::Error| format!("{text}: {e}");
    let model = match kind {
        Some(ReleaseKind::Prompt) => None,
        _ => Api::<ModelDeployment>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await
            .map_err(failed)?,
    };
    let prompt = match kind {
        Some(ReleaseKind::Model) => None,
        _ => Api::<PromptRelease>::namespaced(client.clone(), namespace)
            .get_opt(name)
            .await
            .map_err(failed)?,
    };
    match (model, prompt) {
        (Some(_), Some(_)) => Err(format!(
            "there is a ModelDeployment and a PromptRelease {name}: write pmd/{name} or ppr/{name}"
        )),
        (Some(model), None) => Ok(Release::from(&model)),
        (None, Some(prompt)) => Ok(Release::from(&prompt)),
        (None, None) => Err(format!(
            "there is no ModelDeployment or PromptRelease {name} in namespace {namespace}"
        )),
    }
}

/// All releases of a namespace, by kind and name.
pub async fn all(client: &Client, namespace: &str) -> Result<Vec<Release>, String> {
    let failed =
        |e: kube::Error| format!("the releases of namespace {namespace} can't be listed: {e}");
    let mut models = Api::<ModelDeployment>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await
        .map_err(failed)?
        .items;
    let mut prompts = Api::<PromptRelease>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await
        .map_err(failed)?
        .items;
    models.sort_by_key(ResourceExt::name_any);
    prompts.sort_by_key(ResourceExt::name_any);
    Ok(models
        .iter()
        .map(Release::from)
        .chain(prompts.iter().map(Release::from))
        .collect())
}

/// What a revision was made of, by its hash, oldest first.
pub async fn revisions(
    client: &Client,
    namespace: &str,
    release: &Release,
) -> Result<Vec<(String, Value)>, String> {
    let labels = format!("{}={}", release.kind.label(), release.name);
    let mut found = Api::<ControllerRevision>::namespaced(client.clone(), namespace)
        .list(&ListParams::default().labels(&labels))
        .await
        .map_err(|e| format!("the revisions of {} can't be listed: {e}", release.name))?
        .items;
    found.sort_by_key(|revision| revision.revision);
    let prefix = format!("{}-", release.name);
    Ok(found
        .into_iter()
        .filter_map(|revision| {
            let name = revision.name_any();
            let hash = name.strip_prefix(&prefix)?.to_owned();
            Some((hash, revision.data?.0))
        })
        .collect())
}
