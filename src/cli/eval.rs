//! `kubectl perennial eval`.

use jiff::Timestamp;
use kube::Api;

use super::{Place, connect::connect, view};
use crate::api::Evaluation;

/// Shows an Evaluation's runs with gates and metrics.
pub async fn run(place: &Place, which: &str) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let name = match which.split_once('/') {
        Some(("pev" | "evaluation" | "evaluations", name)) => name,
        Some((kind, _)) => {
            return Err(format!(
                "`{kind}` is not an Evaluation: write NAME or pev/NAME"
            ));
        }
        None => which,
    };
    let found = Api::<Evaluation>::namespaced(client, &namespace)
        .get_opt(name)
        .await
        .map_err(|e| format!("{name}: {e}"))?
        .ok_or_else(|| format!("there is no Evaluation {name} in namespace {namespace}"))?;
    println!(
        "{}",
        view::evaluation(&found, Timestamp::now())
            .lines()
            .join("\n")
    );
    Ok(())
}
