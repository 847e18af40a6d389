//! `kubectl perennial diff`.

use serde_json::Value;

use super::{
    Place,
    connect::connect,
    release,
    view::{self, Release},
};
use crate::api::rollout::Outcome;

/// Shows what differs between two revisions of a release.
pub async fn run(
    place: &Place,
    which: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<(), String> {
    let (client, namespace) = connect(place).await?;
    let release = release::find(&client, &namespace, which).await?;
    let kept = release::revisions(&client, &namespace, &release).await?;
    let (from, to) = sides(&release, from, to)?;
    let data = |hash: &str| {
        let found = kept.iter().find(|(kept, _)| kept == hash);
        found.map(|(_, data)| plain(data)).ok_or_else(|| {
            let all: Vec<&str> = kept.iter().map(|(hash, _)| hash.as_str()).collect();
            format!(
                "revision {hash} of {} is not kept; there are {}",
                release.name,
                all.join(", ")
            )
        })
    };
    let (kind, name) = (release.kind.as_str(), &release.name);
    let title = format!("{kind} {name}  {from} → {to}");
    let lines = view::diff(title, &data(&from)?, &data(&to)?).lines();
    println!("{}", lines.join("\n"));
    Ok(())
}

/// The revisions that are meant: stable and candidate, else the one that was stable before and stable.
fn sides(
    release: &Release,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<(String, String), String> {
    let name = &release.name;
    let stable = release.stable.as_ref().map(|s| s.revision.clone());
    let candidate = release.candidate.as_ref().map(|c| c.revision.clone());
    if let Some(from) = from {
        let to = to.map(str::to_owned).or(candidate).or(stable);
        let to = to.ok_or_else(|| format!("{name} has no stable revision yet: name two"))?;
        return Ok((from.to_owned(), to));
    }
    let stable = stable.ok_or_else(|| format!("{name} has no stable revision yet"))?;
    if let Some(candidate) = candidate {
        return Ok((stable, candidate));
    }
    let promoted = release.history.iter().rev();
    let before = promoted
        .filter(|h| h.outcome == Outcome::Promoted)
        .find(|h| h.revision != stable);
    match before {
        Some(before) => Ok((before.revision.clone(), stable)),
        None => Err(format!(
            "{name} has no candidate and had no other stable revision: there is nothing to compare"
        )),
    }
}

/// What people decide about: not the image that we put in, nor where pods share what they fetch.
fn plain(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(map) = data.as_object_mut() {
        map.remove("helperImage");
        map.remove("cache");
    }
    data
}
