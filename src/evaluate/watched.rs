//! Whether what a run read is still what its digest was taken of. A file is read more than once (its digest, its types, its columns), and numbers of
//! two states of it would be of neither.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    data::{self, digest},
    supervise::failure::Failure,
};

/// What the file system says of a file: any write, replacement or touch shows in it (`ctime` can't be set back).
type Stamp = (String, u64, u64, u64, i64, i64);

/// Two writes within a tick of the file system's clock look alike: what was written so lately is read again in any case.
const LATELY: Duration = Duration::from_secs(2);

/// A file or tree as it was before it was read.
#[derive(Clone, Debug)]
pub struct Watched {
    name: String,
    uri: String,
    path: PathBuf,
    stamps: Vec<Stamp>,
    lately: bool,
    digest: String,
}

fn stamps(path: &Path) -> data::Result<Vec<Stamp>> {
    let stamp = |(name, path): (String, PathBuf)| {
        let seen = fs::metadata(&path).map_err(|e| data::Error::file("reading", &path, &e))?;
        let (dev, ino, size) = (seen.dev(), seen.ino(), seen.size());
        Ok((name, dev, ino, size, seen.ctime(), seen.ctime_nsec()))
    };
    digest::list(path)?.into_iter().map(stamp).collect()
}

impl Watched {
    /// Takes the digest, and remembers how the files were before.
    ///
    /// # Errors
    /// If something can't be read.
    pub fn begin(name: &str, uri: &str, path: &Path) -> data::Result<(Self, digest::Content)> {
        let stamps = stamps(path)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let bound = now.unwrap_or_default().saturating_sub(LATELY).as_secs();
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        let content = digest::of_path(path, |_| false)?;
        let watched = Self {
            name: name.to_owned(),
            uri: uri.to_owned(),
            path: path.to_owned(),
            lately: stamps.iter().any(|(.., seconds, _)| *seconds >= bound),
            stamps,
            digest: content.digest.clone(),
        };
        Ok((watched, content))
    }

    fn changed(&self, before: &str, now: &str) -> Failure {
        let Self { name, uri, .. } = self;
        let message = format!(
            "{name} ({uri}) changed while it was measured: it had the digest {before}, {now}; write new data to a new place, or when no run reads the old"
        );
        Failure::new("DatasetChanged", message, 1)
    }

    /// It had another digest when others of the run read it.
    #[must_use]
    pub fn changed_since(&self, before: &str) -> Failure {
        self.changed(before, &format!("and now has {}", self.digest))
    }

    /// Looks again, after all was read. A file that was only touched is read once more, and is the same.
    ///
    /// # Errors
    /// `DatasetChanged`, which another run may be free of.
    pub fn end(&self) -> Result<(), Failure> {
        let changed = |now: &str| Err(self.changed(&self.digest, now));
        match stamps(&self.path) {
            Ok(stamps) if stamps == self.stamps && !self.lately => return Ok(()),
            Ok(_) => {}
            Err(error) => return changed(&format!("and now {error}")),
        }
        match digest::of_path(&self.path, |_| false) {
            Ok(content) if content.digest == self.digest => Ok(()),
            Ok(content) => changed(&format!("and now has {}", content.digest)),
            Err(error) => changed(&format!("and now {error}")),
        }
    }
}
