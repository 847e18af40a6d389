//! Digests: what says that data is the same data.
//!
//! A file's digest is `sha256:` and the SHA-256 of its bytes. A tree's is that of its listing as `sha256sum` writes it, one
//! line `<hex>  <path>\n` per file with paths relative to the tree's root, sorted by the paths' bytes:
//! `find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum` gives the same. Links are
//! followed; empty directories and modes don't count, nor does `lost+found` at the root of a volume.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{Error, Result};

/// Directories deeper than this are taken for a loop of links.
const MAX_DEPTH: usize = 64;

/// A file below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Path below the root, with `/`.
    pub path: String,
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// Its bytes.
    pub bytes: u64,
}

/// What lies at a path: a file, or a tree of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// `sha256:…` of the file or the tree.
    pub digest: String,
    /// All bytes.
    pub bytes: u64,
    /// The files of a tree, sorted; for a file, itself under its own name.
    pub files: Vec<FileDigest>,
}

/// The files below a directory (or the file itself, with an empty path), sorted by path.
///
/// # Errors
/// If a directory can't be read, a name isn't UTF-8, or links go in a circle.
pub fn list(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let kind = fs::metadata(root).map_err(|e| Error::file("reading", root, &e))?;
    if kind.is_file() {
        return Ok(vec![(String::new(), root.to_owned())]);
    }
    let mut found = Vec::new();
    let mut open = vec![(String::new(), root.to_owned(), 0)];
    while let Some((prefix, directory, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::Content(format!(
                "{} is more than {MAX_DEPTH} directories deep: does a link lead back to its own parent?",
                directory.display()
            )));
        }
        let failed = |e: &std::io::Error| Error::file("listing", &directory, e);
        for entry in fs::read_dir(&directory).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let name = entry.file_name().into_string().map_err(|name| {
                Error::Content(format!(
                    "{}: the name {name:?} isn't UTF-8, so that it has no digest: rename it",
                    directory.display()
                ))
            })?;
            // Belongs to the file system of a volume, and only root may read it.
            if prefix.is_empty() && name == "lost+found" {
                continue;
            }
            let path = entry.path();
            let kind = fs::metadata(&path).map_err(|e| Error::file("reading", &path, &e))?;
            let relative = format!("{prefix}{name}");
            if kind.is_dir() {
                open.push((format!("{relative}/"), path, depth + 1));
            } else if kind.is_file() {
                found.push((relative, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Digest of a reader's bytes, and how many they were.
///
/// # Errors
/// What the reader says.
pub fn of_reader(mut reader: impl Read) -> std::io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok((format!("sha256:{}", hex::encode(hash.finalize())), bytes)),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// Digest of bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Digest of a file or tree. Files of a tree for which `skip` holds (given their relative path) don't count.
///
/// # Errors
/// If something can't be read.
pub fn of_path(root: &Path, skip: impl Fn(&str) -> bool) -> Result<Content> {
    let is_file = root.is_file();
    let mut files = Vec::new();
    for (relative, path) in list(root)? {
        if skip(&relative) {
            continue;
        }
        let file = fs::File::open(&path).map_err(|e| Error::file("opening", &path, &e))?;
        let (digest, bytes) = of_reader(file).map_err(|e| Error::file("reading", &path, &e))?;
        let name = if is_file {
            root.file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default()
        } else {
            relative
        };
        files.push(FileDigest {
            path: name,
            digest,
            bytes,
        });
    }
    let digest = match files.as_slice() {
        [only] if is_file => only.digest.clone(),
        files => of_listing(files),
    };
    Ok(Content {
        digest,
        bytes: files.iter().map(|f| f.bytes).sum(),
        files,
    })
}

/// Digest of a tree from those of its files, which must be sorted by path.
#[must_use]
pub fn of_listing(files: &[FileDigest]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.digest.trim_start_matches("sha256:"));
        hash.update("  ");
        hash.update(&file.path);
        hash.update("\n");
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_the_digest_that_sha256sum_gives() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("b/2.txt", "two"),
            ("a.txt", "one"),
            ("b-c.txt", "three"),
            ("sp ace.txt", ""),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let ours = of_path(root.path(), |_| false).unwrap();
        let theirs = std::process::Command::new("sh")
            .args(["-c", "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"])
            .current_dir(root.path())
            .output()
            .unwrap();
        let theirs = String::from_utf8(theirs.stdout).unwrap();
        assert_eq!(ours.digest, format!("sha256:{}", &theirs[..64]));
        assert_eq!((ours.bytes, ours.files.len()), (11, 4));
        assert_eq!(ours.files[1].path, "b-c.txt");
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        fs::write(&path, "abc").unwrap();
        let content = of_path(&path, |_| false).unwrap();
        assert_eq!(
            content.digest,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(content.digest, of_bytes(b"abc"));
        assert_eq!(content.files[0].path, "x");
    }

    #[test]
    fn a_circle_of_links_is_an_error_and_not_endless() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("again")).unwrap();
        let error = list(root.path()).unwrap_err();
        assert!(
            matches!(error, Error::Content(_) | Error::Unavailable(_)),
            "{error}"
        );
    }
}
