//! `kubectl perennial eval`.

use jiff::Timestamp;
use kube::{Api, Client};

use super::{Place, connect::connect, view};
use crate::api::Evaluation;

/// Shows an Evaluation's runs with gates and metrics.
pub async fn run(place: &Place, which: &str) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let found = find(&client, &namespace, which).await?;
    println!(
        "{}",
        view::evaluation(&found, Timestamp::now())
            .lines()
            .join("\n")
    );
    Ok(())
}

/// The Evaluation `NAME` or `pev/NAME`.
pub(super) async fn find(
    client: &Client,
    namespace: &str,
    which: &str,
) -> Result<Evaluation, String> {
    let name = match which.split_once('/') {
        Some(("pev" | "evaluation" | "evaluations", name)) => name,
        Some((kind, _)) => {
            return Err(format!(
                "`{kind}` is not an Evaluation: write NAME or pev/NAME"
            ));
        }
        None => which,
    };
    Api::<Evaluation>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(|e| format!("{name}: {e}"))?
        .ok_or_else(|| format!("there is no Evaluation {name} in namespace {namespace}"))
}
