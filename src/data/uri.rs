//! Where data lies: `s3://BUCKET/KEY` (`gs://`, `az://`), `http(s)://…`, `pvc://CLAIM/PATH`, or a path of this machine.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::Error;

/// Whose object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, and whoever speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage; its bucket is a container.
    Azure,
}

impl Cloud {
    /// What stands before `://`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// A place for data, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uri {
    /// An object, or all objects below a prefix.
    Bucket {
        /// Whose.
        cloud: Cloud,
        /// The bucket.
        bucket: String,
        /// Key or prefix, without slashes at the ends; may be empty.
        key: String,
    },
    /// A file of a web server.
    Http(url::Url),
    /// A file or directory of a PersistentVolumeClaim, mounted by the pod.
    Pvc {
        /// Name of the claim.
        claim: String,
        /// Path below its root, without slashes at the ends; may be empty.
        path: String,
    },
    /// A path of this machine: for the command line, never in a resource.
    File(PathBuf),
}

impl Uri {
    /// The last segment: the file's or directory's own name; empty at a root.
    #[must_use]
    pub fn name(&self) -> &str {
        let path = match self {
            Self::Bucket { key, .. } => key,
            Self::Pvc { path, .. } => path,
            Self::Http(url) => url.path(),
            Self::File(path) => {
                return path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
            }
        };
        path.trim_end_matches('/').rsplit('/').next().unwrap_or("")
    }

    /// Where a mounted claim has it: `mount` holds the parent directory of what the URI names. `None` for other schemes.
    #[must_use]
    pub fn mounted(&self, mount: &Path) -> Option<PathBuf> {
        match self {
            Self::Pvc { path, .. } if path.is_empty() => Some(mount.to_owned()),
            Self::Pvc { .. } => Some(mount.join(self.name())),
            Self::File(path) => Some(path.clone()),
            Self::Bucket { .. } | Self::Http(_) => None,
        }
    }
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Err(Error::Invalid(format!("`{text}` {what}")));
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() {
                wrong("is no URI: write s3://BUCKET/KEY, https://…, or pvc://CLAIM/PATH")
            } else {
                Ok(Self::File(PathBuf::from(text)))
            };
        };
        let (first, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/').to_owned();
        if first.is_empty() {
            return wrong("names no bucket, host or claim after ://");
        }
        if matches!(scheme, "s3" | "gs" | "az" | "pvc")
            && path
                .split('/')
                .any(|part| part == ".." || part == "." || (part.is_empty() && !path.is_empty()))
        {
            return wrong("has an empty, `.` or `..` segment: write the path without them");
        }
        let in_bucket = |cloud| {
            Ok(Self::Bucket {
                cloud,
                bucket: first.to_owned(),
                key: path.clone(),
            })
        };
        match scheme {
            "s3" => in_bucket(Cloud::S3),
            "gs" => in_bucket(Cloud::Google),
            "az" => in_bucket(Cloud::Azure),
            "pvc" => Ok(Self::Pvc {
                claim: first.to_owned(),
                path,
            }),
            "http" | "https" => match url::Url::parse(text) {
                Ok(url) if !url.username().is_empty() || url.password().is_some() => wrong(
                    "carries a password, which would be seen in status: put HTTP_USERNAME and HTTP_PASSWORD into a Secret and name it under credentials",
                ),
                Ok(url) => Ok(Self::Http(url)),
                Err(error) => wrong(&format!("is no URL: {error}")),
            },
            _ => wrong(
                "has a scheme that isn't known: write s3://, gs://, az://, http(s):// or pvc://",
            ),
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket { cloud, bucket, key } => {
                write!(f, "{}://{bucket}/{key}", cloud.scheme())
            }
            Self::Http(url) => write!(f, "{url}"),
            Self::Pvc { claim, path } => write!(f, "pvc://{claim}/{path}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_says_where_and_what_it_is_called() {
        for (text, name, mounted) in [
            ("s3://models/churn/1/", "1", None),
            ("s3://models", "", None),
            ("gs://models/churn.tar", "churn.tar", None),
            ("az://models/churn/1", "1", None),
            ("https://host/a/b.csv?x=1", "b.csv", None),
            (
                "pvc://flights/2013/q1.parquet",
                "q1.parquet",
                Some("/v/q1.parquet"),
            ),
            ("pvc://flights/tree/", "tree", Some("/v/tree")),
            ("pvc://flights", "", Some("/v")),
            ("/tmp/a.csv", "a.csv", Some("/tmp/a.csv")),
        ] {
            let uri: Uri = text.parse().unwrap();
            assert_eq!(uri.name(), name, "{text}");
            assert_eq!(
                uri.mounted(Path::new("/v")),
                mounted.map(PathBuf::from),
                "{text}"
            );
            let bare = text.trim_end_matches('/');
            assert_eq!(uri.to_string().trim_end_matches('/'), bare, "{text}");
        }
    }

    #[test]
    fn what_is_no_uri_is_said_in_a_sentence() {
        for (text, word) in [
            ("", "is no URI"),
            ("ftp://a/b", "scheme"),
            ("s3:///key", "no bucket"),
            ("pvc://a/../b", "`..`"),
            ("s3://a/b//c", "empty"),
            ("https://me:secret@host/x", "Secret"),
        ] {
            let error = text.parse::<Uri>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
