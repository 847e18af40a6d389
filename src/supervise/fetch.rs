//! `perennial fetch`: the init container of a model server, which brings the artifact and verifies it; and the pod that finds out
//! an artifact's digest.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    board, cache,
    failure::{Failure, blocking},
    output,
};
use crate::{
    api::run::{EXIT_INPUT, FetchRun, Summary, VOLUME_DIR},
    data::{
        self, Error,
        digest::{self, Content},
        store::{self, Environment},
        uri::Uri,
    },
};

/// Name under which the claim is mounted.
const MOUNT: &str = "model";

/// Runs the role: the spec is [`crate::api::run::RUN_ENV`].
///
/// # Errors
/// Never; what goes wrong is a termination message and an exit code.
pub async fn run() -> Result<ExitCode, Error> {
    let log = Path::new("/dev/termination-log");
    let ended = match super::spec::<FetchRun>() {
        Ok(spec) => {
            let environment = Environment::prefixed("PERENNIAL_CRED_0_");
            fetch(&spec, &environment, &Path::new(VOLUME_DIR).join(MOUNT)).await
        }
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

/// Brings the artifact to its target and verifies it; without a digest to verify, finds it out (a claim's content is then only
/// read, not copied).
///
/// # Errors
/// `InputUnreadable` or `DigestMismatch`.
pub async fn fetch(
    spec: &FetchRun,
    environment: &Environment,
    mount: &Path,
) -> Result<Summary, Failure> {
    let uri: Uri = spec.uri.parse().map_err(|e| unreadable(&e))?;
    let target = PathBuf::from(&spec.target);
    if let (Some(cache), Some(digest), None) = (&spec.cache, &spec.digest, uri.mounted(mount)) {
        let place = cache::Place::new(cache, &spec.uri, digest);
        return shared(spec, &uri, environment, place).await;
    }
    let path = match uri.mounted(mount) {
        Some(source) if !source.exists() => {
            return Err(unreadable(&Error::NotFound(format!(
                "{uri} isn't there: the claim is mounted, but has no such file or directory"
            ))));
        }
        Some(source) if spec.digest.is_none() => source,
        Some(source) => blocking(move || copy(&source, &target))
            .await?
            .map_err(|e| unreadable(&e))?,
        None => download(&uri, environment, &target).await?,
    };
    let content = blocking(move || digest::of_path(&path, |file| file == output::MANIFEST))
        .await?
        .map_err(|e| unreadable(&e))?;
    verified(spec, &content)
}

fn unreadable(error: &Error) -> Failure {
    Failure::of("InputUnreadable", "the model artifact", error, EXIT_INPUT)
}

/// Downloads into a directory that is emptied before.
async fn download(uri: &Uri, environment: &Environment, target: &Path) -> Result<PathBuf, Failure> {
    let emptied = target.to_owned();
    blocking(move || output::clear(&emptied))
        .await?
        .map_err(|e| unreadable(&e))?;
    let path = store::download(uri, environment, target).await;
    path.map_err(|e| unreadable(&e))
}

/// As [`fetch`], from what another pod has kept, or keeping it for the others. Without the cache it goes on as if there were none.
async fn shared(
    spec: &FetchRun,
    uri: &Uri,
    environment: &Environment,
    place: cache::Place,
) -> Result<Summary, Failure> {
    let target = PathBuf::from(&spec.target);
    let to = target.clone();
    let vacancy = match blocking(move || place.take(&to)).await? {
        Ok(cache::Found::Copied(content)) => {
            return Ok(with(verified(spec, &content)?, "from the cache"));
        }
        Ok(cache::Found::Vacant(vacancy, spoilt)) => Ok((vacancy, spoilt)),
        Err(error) => Err(error),
    };
    let path = download(uri, environment, &target).await?;
    let file = (path != target).then(|| path.file_name().unwrap_or_default());
    let file = file.map(|name| name.to_string_lossy().into_owned());
    let read = target.clone();
    let all = blocking(move || digest::of_path(&read, |_| false))
        .await?
        .map_err(|e| unreadable(&e))?;
    let summary = verified(spec, &cache::of_artifact(&all, file.as_deref()))?;
    let (kept, spoilt) = match vacancy {
        Ok((vacancy, spoilt)) => {
            let fill = move || vacancy.fill(&target, &all, file.as_deref());
            (blocking(fill).await?, spoilt)
        }
        Err(error) => (Err(error), None),
    };
    let kept = match (kept, spoilt) {
        (Ok(()), None) => "fetched for the cache".to_owned(),
        (Ok(()), Some(why)) => format!("fetched anew for the cache: {why}"),
        (Err(error), _) => format!("fetched, and not kept in the cache: {error}"),
    };
    Ok(with(summary, &kept))
}

fn with(summary: Summary, how: &str) -> Summary {
    Summary {
        message: format!("{}, {how}", summary.message),
        ..summary
    }
}

fn verified(spec: &FetchRun, content: &Content) -> Result<Summary, Failure> {
    if content.files.is_empty() {
        let empty = Error::NotFound(format!("{} holds no file", spec.uri));
        return Err(Failure::of(
            "InputUnreadable",
            "the model artifact",
            &empty,
            EXIT_INPUT,
        ));
    }
    let (files, bytes, digest) = (content.files.len(), content.bytes, content.digest.clone());
    match &spec.digest {
        Some(wanted) if *wanted != digest => Err(Failure::new(
            "DigestMismatch",
            format!(
                "{} has the digest {digest}, not {wanted}: it isn't what was released; restore it, or release what is there now",
                spec.uri
            ),
            EXIT_INPUT,
        )
        .permanent()),
        _ => Ok(Summary {
            succeeded: true,
            message: format!("{}: {files} files, {bytes} bytes, {digest}", spec.uri),
            digest: Some(digest),
            ..Summary::default()
        }),
    }
}

/// Copies a file into the target directory, or a tree as the target directory, readable for all.
pub(super) fn copy(source: &Path, target: &Path) -> data::Result<PathBuf> {
    output::clear(target)?;
    let single = source.is_file();
    for (relative, from) in digest::list(source)? {
        let to = if single {
            target.join(source.file_name().unwrap_or_default())
        } else {
            target.join(relative)
        };
        let failed = |e: &std::io::Error| Error::file("copying to", &to, e);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(|e| failed(&e))?;
        }
        // Bytes only: the mode may be one that nobody else can read.
        let mut reader =
            std::fs::File::open(&from).map_err(|e| Error::file("opening", &from, &e))?;
        let mut writer = std::fs::File::create(&to).map_err(|e| failed(&e))?;
        std::io::copy(&mut reader, &mut writer).map_err(|e| failed(&e))?;
        writer
            .set_permissions(std::fs::Permissions::from_mode(0o644))
            .map_err(|e| failed(&e))?;
        if single {
            return Ok(to);
        }
    }
    Ok(target.to_owned())
}
