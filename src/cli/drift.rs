//! `kubectl perennial drift`.

use jiff::Timestamp;

use super::{Place, connect::connect, release, release::ReleaseKind, view};

/// Shows what live inputs are compared with, column by column.
pub async fn run(place: &Place, which: &str) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let release = release::find(&client, &namespace, which).await?;
    if release.kind == ReleaseKind::Prompt {
        return Err(format!(
            "{} is a PromptRelease: drift is of a model's inputs",
            release.name
        ));
    }
    println!("{}", view::drift(&release, Timestamp::now()));
    Ok(())
}
