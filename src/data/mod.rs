//! Data where it lies: URIs, digests, object stores, tables.
//!
//! | module | what it answers |
//! | --- | --- |
//! | [`uri`] | where is it |
//! | [`digest`] | is it what it should be |
//! | [`listing`] | is it what it was |
//! | [`store`] | get it, put it |
//! | [`table`] | rows and columns of Parquet, Arrow, CSV and JSONL |
//! | [`profile`] | what do the columns look like |
//! | [`sample`] | columns as drift compares them |
//! | [`training_rows`] | is this a row that a model was trained on |

pub mod digest;
pub mod listing;
pub mod profile;
pub mod sample;
pub mod store;
pub mod table;
pub mod training_rows;
pub mod uri;

/// Why data could not be read or written. The text is a sentence that names what and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense: a URI, an option.
    #[error("{0}")]
    Invalid(String),
    /// It isn't there.
    #[error("{0}")]
    NotFound(String),
    /// We may not.
    #[error("{0}")]
    Denied(String),
    /// The content is not what it should be: a broken file, a column that isn't there.
    #[error("{0}")]
    Content(String),
    /// The network, the store or the disk; trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

impl Error {
    /// Whether trying again can't help, as the same bytes would be read again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Content(_))
    }

    /// An error of the file system, about this path.
    #[must_use]
    pub fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let text = format!("{doing} {} failed: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound(text),
            std::io::ErrorKind::PermissionDenied => Self::Denied(text),
            _ => Self::Unavailable(text),
        }
    }
}

/// What functions of this module give.
pub type Result<T> = std::result::Result<T, Error>;
