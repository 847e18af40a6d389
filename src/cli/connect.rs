//! A client for the cluster of the user's kubeconfig.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::Place;

/// Client and namespace.
pub async fn connect(place: &Place) -> Result<(Client, String), String> {
    let mut config = match &place.context {
        Some(context) => {
            let file =
                Kubeconfig::read().map_err(|e| format!("the kubeconfig can't be read: {e}"))?;
            let options = KubeConfigOptions {
                context: Some(context.clone()),
                ..KubeConfigOptions::default()
            };
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|e| format!("context {context}: {e}"))?
        }
        None => Config::infer()
            .await
            .map_err(|e| format!("no cluster is configured (KUBECONFIG, ~/.kube/config): {e}"))?,
    };
    let namespace = place
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    config.headers.push(crate::telemetry::user_agent("kubectl"));
    let client = Client::try_from(config)
        .map_err(|e| format!("no client can be made from the kubeconfig: {e}"))?;
    Ok((client, namespace))
}
