//! `kubectl perennial status`.

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    runtime::watcher::{self, watcher},
};

use super::{Place, connect::connect, release, view};
use crate::api::{ModelDeployment, PromptRelease};

/// Shows one release, or all of the namespace; with `watch` again whenever something changes.
pub async fn run(place: &Place, which: Option<&str>, watch: bool) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let mut shown = show(&client, &namespace, which).await?;
    println!("{shown}");
    if !watch {
        return Ok(());
    }
    let models = watcher(
        Api::<ModelDeployment>::namespaced(client.clone(), &namespace),
        watcher::Config::default(),
    )
    .map(|_| ())
    .boxed();
    let prompts = watcher(
        Api::<PromptRelease>::namespaced(client.clone(), &namespace),
        watcher::Config::default(),
    )
    .map(|_| ())
    .boxed();
    let mut changes = stream::select(models, prompts).ready_chunks(64);
    while changes.next().await.is_some() {
        let next = show(&client, &namespace, which).await?;
        if next != shown {
            println!("\n{}\n{next}", Timestamp::now().strftime("── %H:%M:%S"));
            shown = next;
        }
    }
    Ok(())
}

async fn show(client: &Client, namespace: &str, which: Option<&str>) -> Result<String, String> {
    let releases = match which {
        Some(name) => vec![release::find(client, namespace, name).await?],
        None => release::all(client, namespace).await?,
    };
    if releases.is_empty() {
        return Ok(format!(
            "There is no ModelDeployment or PromptRelease in namespace {namespace}."
        ));
    }
    let now = Timestamp::now();
    Ok(releases
        .iter()
        .map(|r| view::tree(r, now).lines().join("\n"))
        .collect::<Vec<_>>()
        .join("\n\n"))
}
