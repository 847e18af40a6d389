//! Credentials of backends: files that the cluster mounts and renews. Never logged, never in an answer.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::api::prompt_release::KeyReference;

/// How old what was read may be.
const FRESH: Duration = Duration::from_secs(1);
/// Longest credential.
const MAX_LENGTH: u64 = 64 << 10;

/// Reads `<directory>/<secret>/<key>`.
pub struct Credentials {
    directory: PathBuf,
    read: Mutex<HashMap<SecretKey, (Instant, HeaderValue)>>,
}

type SecretKey = (String, String);

impl Credentials {
    /// Files below this directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            read: Mutex::default(),
        }
    }

    /// `Bearer …`, for an `authorization` header.
    ///
    /// # Errors
    /// A sentence that names the Secret and the key.
    pub fn bearer(&self, key: &KeyReference) -> Result<HeaderValue, String> {
        let id = (key.secret_name.clone(), key.key.clone());
        let known = |read: &HashMap<_, (Instant, HeaderValue)>| {
            let (at, value) = read.get(&id)?;
            (at.elapsed() < FRESH).then(|| value.clone())
        };
        if let Some(value) = known(&self.read.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(value);
        }
        let value = self.read_file(key)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.retain(|_, (at, _)| at.elapsed() < FRESH);
        read.insert(id, (Instant::now(), value.clone()));
        Ok(value)
    }

    fn read_file(&self, key: &KeyReference) -> Result<HeaderValue, String> {
        let wrong = |why: &str| format!("key `{}` of Secret {} {why}", key.key, key.secret_name);
        // Names of Secrets and their keys have no slashes; `..` as a key would leave the directory.
        if key.secret_name.contains('/')
            || key.key.contains('/')
            || key.key == ".."
            || key.secret_name == ".."
        {
            return Err(wrong("is no name of a file"));
        }
        let path = self.directory.join(&key.secret_name).join(&key.key);
        // A small file in memory: as fast as any lock.
        let length = std::fs::metadata(&path).map(|m| m.len());
        match length {
            Err(_) => {
                return Err(wrong(
                    "isn't mounted here: create it in this namespace, and it will be within a minute",
                ));
            }
            Ok(length) if length > MAX_LENGTH => return Err(wrong("is too long for a credential")),
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(|_| wrong("can't be read as text"))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(wrong("is empty"));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}"))
            .map_err(|_| wrong("can't be sent in a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_is_not_there_is_named_and_one_that_comes_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::new(directory.path());
        let key = KeyReference {
            secret_name: "llm".into(),
            key: "api-key".into(),
        };
        let sentence = credentials.bearer(&key).unwrap_err();
        assert!(sentence.contains("`api-key` of Secret llm"), "{sentence}");
        std::fs::create_dir(directory.path().join("llm")).unwrap();
        std::fs::write(directory.path().join("llm/api-key"), "s3cret\n").unwrap();
        let value = credentials.bearer(&key).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer s3cret");
        assert!(value.is_sensitive());
        let outside = KeyReference {
            secret_name: "..".into(),
            key: "x".into(),
        };
        assert!(credentials.bearer(&outside).is_err());
    }
}
