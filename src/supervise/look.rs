//! `perennial look`: the pod that looks whether a recipe's datasets are what they were, for a trigger on new data.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use super::{board, failure::Failure};
use crate::{
    api::run::{EXIT_INPUT, LookRun, Summary, VOLUME_DIR},
    data::{Error, listing, store::Environment, uri::Uri},
};

/// Runs the role: the spec is [`crate::api::run::RUN_ENV`].
///
/// # Errors
/// Never; what goes wrong is a termination message and an exit code.
pub async fn run() -> Result<ExitCode, Error> {
    let log = Path::new("/dev/termination-log");
    let ended = match super::spec::<LookRun>() {
        Ok(spec) => look(&spec, Environment::prefixed, Path::new(VOLUME_DIR)).await,
        Err(failure) => Err(failure),
    };
    match ended {
        Ok(summary) => {
            tracing::info!("{}", summary.message);
            board::write_summary(log, &summary);
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            tracing::error!(reason = failure.reason, "{}", failure.message);
            board::write_summary(log, &failure.report().summary);
            Ok(super::exit(failure.code))
        }
    }
}

/// Looks at every dataset. One that can't be seen is an error of all: a run would have to read them all.
///
/// # Errors
/// `InputUnreadable`.
pub async fn look(
    spec: &LookRun,
    environment: impl Fn(&str) -> Environment,
    volumes: &Path,
) -> Result<Summary, Failure> {
    let mut listings = BTreeMap::new();
    let mut files = 0;
    for (index, source) in spec.datasets.iter().enumerate() {
        let name = &source.name;
        let unreadable =
            |e: &Error| Failure::of("InputUnreadable", &format!("dataset {name}"), e, EXIT_INPUT);
        let uri: Uri = source.uri.parse().map_err(|e| unreadable(&e))?;
        let environment = environment(&format!("PERENNIAL_CRED_{index}_"));
        let seen = listing::look(&uri, &environment, &volumes.join(name))
            .await
            .map_err(|e| unreadable(&e))?;
        files += seen.files;
        listings.insert(name.clone(), seen.listing);
    }
    Ok(Summary {
        succeeded: true,
        message: format!("{files} files in {} datasets", listings.len()),
        listings,
        ..Summary::default()
    })
}
