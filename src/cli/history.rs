//! `kubectl perennial history`.

use jiff::Timestamp;

use super::{Place, connect::connect, release, view};

/// Shows what has ended.
pub async fn run(place: &Place, which: &str) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let release = release::find(&client, &namespace, which).await?;
    println!(
        "{}",
        view::history(&release, Timestamp::now()).lines().join("\n")
    );
    Ok(())
}
