//! `kubectl perennial lineage`.

use jiff::Timestamp;
use kube::Api;

use super::{
    Place,
    connect::connect,
    release,
    view::{self, Version},
};
use crate::api::TrainingJob;

/// Shows where each kept revision's version comes from.
pub async fn run(place: &Place, which: &str) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let release = release::find(&client, &namespace, which).await?;
    let jobs = Api::<TrainingJob>::namespaced(client.clone(), &namespace);
    let mut versions = Vec::new();
    for (revision, data) in release::revisions(&client, &namespace, &release).await? {
        let job = match Version::made_by(&data) {
            Some(name) => jobs
                .get_opt(name)
                .await
                .map_err(|e| format!("TrainingJob {name}: {e}"))?,
            None => None,
        };
        versions.push(Version {
            revision,
            data,
            job,
        });
    }
    println!(
        "{}",
        view::lineage(&release, &versions, Timestamp::now())
            .lines()
            .join("\n")
    );
    Ok(())
}
