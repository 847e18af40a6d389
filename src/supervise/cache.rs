//! Artifacts that the pods of a node share, in a claim: the first pod fetches and keeps a copy, the others copy that.
//!
//! `<key>/content` is what was fetched, `<key>/entry.json` what it was; an entry is written beside its place and renamed. Nothing here is trusted: each pod
//! copies an entry into its own volume, which is what the server gets, and takes the digest of the copy. Locks are the kernel's (`flock`), so that a pod
//! that is killed leaves none behind.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{fetch, output};
use crate::{
    api::run::CacheRun,
    data::{
        self, Error,
        digest::{self, Content},
    },
};

/// How long a pod waits for another that fetches the same artifact; then it fetches for itself.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// Entries share so many locks: files of locks can't be removed safely, so there is a number of them.
const LOCKS: u8 = 64;
const ENTRY: &str = "entry.json";
const CONTENT: &str = "content";
const PARTIAL: &str = ".partial";

/// What an entry holds.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Digest of all files, also of those that the artifact's digest leaves out.
    digest: String,
    bytes: u64,
    /// Name of the only file, where the artifact is a file.
    file: Option<String>,
}

/// Place of one artifact in the cache.
pub struct Place {
    directory: PathBuf,
    limit: u64,
    key: String,
    digest: String,
}

/// What was found at it.
pub enum Found {
    /// The artifact, copied and verified.
    Copied(Content),
    /// Nothing that could be used, for the second reason if something was there: whoever has this may fill it, and nobody else meanwhile.
    Vacant(Vacancy, Option<String>),
}

/// A place that is held for being filled.
pub struct Vacancy {
    place: Place,
    _lock: File,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    let what = what.to_owned();
    move |e| Error::file(&what, &path, &e)
}

/// Opens a file to lock.
fn open(path: &Path) -> data::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path);
    file.map_err(failed("opening", path))
}

/// Waits for a lock.
fn wait(path: &Path, lock: impl Fn() -> Result<(), TryLockError>) -> data::Result<()> {
    let until = Instant::now() + LONGEST_WAIT;
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(failed("locking", path)(e)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                let seconds = LONGEST_WAIT.as_secs();
                return Err(Error::Unavailable(format!(
                    "another pod has held {} for {seconds} s",
                    path.display()
                )));
            }
        }
    }
}

/// What was fetched is a tree, or the only file of its directory: what of `all` the artifact's digest is about.
pub fn of_artifact(all: &Content, file: Option<&str>) -> Content {
    let files = all.files.iter();
    let counts = |path: &str| match file {
        Some(only) => path == only,
        None => path != output::MANIFEST,
    };
    let files: Vec<_> = files.filter(|f| counts(&f.path)).cloned().collect();
    Content {
        digest: match (file, files.as_slice()) {
            (Some(_), [only]) => only.digest.clone(),
            _ => digest::of_listing(&files),
        },
        bytes: files.iter().map(|f| f.bytes).sum(),
        files,
    }
}

impl Place {
    /// The place of what this URI names, if it has this digest: another URI's may have another `manifest.json`, which no digest counts.
    pub fn new(cache: &CacheRun, uri: &str, digest: &str) -> Self {
        let key = digest::of_bytes(format!("{uri}\n{digest}").as_bytes());
        Self {
            directory: cache.directory.clone().into(),
            limit: cache.bytes,
            key: key.trim_start_matches("sha256:").to_owned(),
            digest: digest.to_owned(),
        }
    }

    /// Copies the artifact into a directory, or holds the place to be filled. Waits while another pod fills it.
    ///
    /// # Errors
    /// If the cache can't be used.
    pub fn take(self, target: &Path) -> data::Result<Found> {
        let path = self.lock_of(&self.key);
        let lock = open(&path)?;
        if self.entry().exists() {
            wait(&path, || lock.try_lock_shared())?;
            let copied = self.copy(target);
            if let Ok(content) = copied {
                return Ok(Found::Copied(content));
            }
            lock.unlock().map_err(failed("unlocking", &path))?;
        }
        wait(&path, || lock.try_lock())?;
        let mut spoilt = None;
        let entry = self.entry();
        if entry.exists() {
            match self.copy(target) {
                Ok(content) => return Ok(Found::Copied(content)),
                Err(error) => {
                    fs::remove_dir_all(&entry).map_err(failed("removing", &entry))?;
                    spoilt = Some(error.to_string());
                }
            }
        }
        let place = self;
        Ok(Found::Vacant(Vacancy { place, _lock: lock }, spoilt))
    }

    fn entry(&self) -> PathBuf {
        self.directory.join(&self.key)
    }

    fn lock_of(&self, key: &str) -> PathBuf {
        let first = key
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let number = first.unwrap_or_default() % LOCKS;
        self.directory.join(format!("lock-{number:02}"))
    }

    fn copy(&self, target: &Path) -> data::Result<Content> {
        let (path, content) = (self.entry().join(ENTRY), self.entry().join(CONTENT));
        let entry = read(&self.entry())?;
        fetch::copy(&content, target)?;
        let all = digest::of_path(target, |_| false)?;
        let artifact = of_artifact(&all, entry.file.as_deref());
        if all.digest != entry.digest || artifact.digest != self.digest {
            return Err(Error::Content(format!(
                "what was kept at {} has changed",
                self.entry().display()
            )));
        }
        // The last use, by which the oldest goes first. If that can't be noted, it goes earlier.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        Ok(artifact)
    }

    /// Removes what was used longest ago until so many bytes fit, but nothing that is being copied.
    fn make_room(&self, bytes: u64) -> data::Result<()> {
        let listing = || failed("listing", &self.directory);
        let mut kept = Vec::new();
        for found in fs::read_dir(&self.directory).map_err(listing())? {
            let path = found.map_err(listing())?.path();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if name.ends_with(PARTIAL) {
                // Of a pod that was killed: whoever writes one holds the lock that we hold now.
                fs::remove_dir_all(&path).map_err(failed("removing", &path))?;
            } else if is_key(name) {
                let used = fs::metadata(path.join(ENTRY)).and_then(|m| m.modified());
                let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
                let bytes = read(&path).map_or(0, |entry| entry.bytes);
                kept.push((used, name.to_owned(), bytes));
            }
        }
        kept.sort();
        let mut sum: u64 = kept.iter().map(|(_, _, bytes)| bytes).sum();
        for (used, key, size) in kept {
            if sum.saturating_add(bytes) <= self.limit && used != SystemTime::UNIX_EPOCH {
                break;
            }
            let lock = open(&self.lock_of(&key))?;
            if lock.try_lock().is_ok() {
                let path = self.directory.join(&key);
                fs::remove_dir_all(&path).map_err(failed("removing", &path))?;
                sum = sum.saturating_sub(size);
            }
        }
        if sum.saturating_add(bytes) > self.limit {
            return Err(Error::Unavailable(format!(
                "its {bytes} bytes don't fit into the {} of the cache now",
                self.limit
            )));
        }
        Ok(())
    }
}

fn is_key(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn read(entry: &Path) -> data::Result<Entry> {
    let path = entry.join(ENTRY);
    let text = fs::read(&path).map_err(failed("reading", &path))?;
    serde_json::from_slice(&text).map_err(|e| Error::Content(format!("{}: {e}", path.display())))
}

impl Vacancy {
    /// Keeps a copy of what was fetched into a directory (all of it, and the name of the file if the artifact is one).
    ///
    /// # Errors
    /// If there is no room, or it can't be written. Nothing is left then.
    pub fn fill(self, source: &Path, all: &Content, file: Option<&str>) -> data::Result<()> {
        let Place {
            directory,
            limit,
            key,
            ..
        } = &self.place;
        if all.bytes > *limit {
            return Err(Error::Unavailable(format!(
                "its {} bytes are more than the {limit} of the cache",
                all.bytes
            )));
        }
        let room = directory.join("lock-room");
        let lock = open(&room)?;
        wait(&room, || lock.try_lock())?;
        self.place.make_room(all.bytes)?;
        let partial = directory.join(format!("{key}{PARTIAL}"));
        let written = self.write(&partial, source, all, file);
        if written.is_err() {
            // The next who makes room tries again.
            let _ = fs::remove_dir_all(&partial);
        }
        written
    }

    fn write(
        &self,
        partial: &Path,
        source: &Path,
        all: &Content,
        file: Option<&str>,
    ) -> data::Result<()> {
        let content = partial.join(CONTENT);
        fs::create_dir_all(&content).map_err(failed("making", &content))?;
        fetch::copy(source, &content)?;
        let entry = Entry {
            digest: all.digest.clone(),
            bytes: all.bytes,
            file: file.map(str::to_owned),
        };
        let text = serde_json::to_vec(&entry).unwrap_or_default();
        let path = partial.join(ENTRY);
        fs::write(&path, text).map_err(failed("writing", &path))?;
        let entry = self.place.entry();
        fs::rename(partial, &entry).map_err(failed("renaming", &entry))
    }
}

#[cfg(test)]
mod tests;
