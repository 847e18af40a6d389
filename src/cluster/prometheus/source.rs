//! The sources that the operator's configuration names.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use url::Url;

/// Longest wait for an answer where the configuration doesn't say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait that the configuration may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// The sources, by name.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

/// A Prometheus server, or what answers like one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// The name that `spec.metrics[].prometheus.source` uses.
    pub name: String,
    /// Its address, up to `/api/v1`.
    pub url: Url,
    /// Namespaces whose releases may ask it; none means all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// The label that holds a series' namespace, to which every selector of a query is held.
    #[serde(default = "namespace_label")]
    pub namespace_label: String,
    /// Longest wait for an answer, in seconds.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
    /// File with a bearer token, read for each question.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// User of HTTP's basic authentication.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// File with the certificate authorities that it is checked against, instead of the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// User and password, each in a file that is read for each question.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuth {
    /// File with the user's name.
    pub username_file: PathBuf,
    /// File with the password.
    pub password_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    sources: Vec<Source>,
}

fn namespace_label() -> String {
    "namespace".to_owned()
}

impl Sources {
    /// Reads `{"sources": […]}`.
    ///
    /// # Errors
    /// The file can't be read, or one of its sources makes no sense, in a sentence.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| format!("{} can't be read: {e}", file.display()))?;
        Self::parse(&text).map_err(|e| format!("{}: {e}", file.display()))
    }

    /// As [`Sources::read`], from text.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Document { sources } = serde_json::from_str(text).map_err(|e| e.to_string())?;
        for (at, source) in sources.iter().enumerate() {
            let Source {
                name,
                url,
                namespace_label,
                ..
            } = source;
            if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                return Err(format!("source {name}: `{url}` is no http or https URL"));
            }
            let address = match url.host() {
                Some(url::Host::Ipv4(ip)) => Some(ip.into()),
                Some(url::Host::Ipv6(ip)) => Some(ip.into()),
                _ => None,
            };
            if address.is_some_and(super::ask::is_of_the_link) {
                return Err(format!(
                    "source {name}: `{url}` is a link-local address, where no Prometheus is asked"
                ));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(format!(
                    "source {name}: its URL has a password; use basicAuth"
                ));
            }
            if sources.iter().take(at).any(|other| other.name == *name) {
                return Err(format!("two sources are called {name}"));
            }
            let mut letters = namespace_label.chars();
            let begins = letters
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !begins || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(format!("source {name}: `{namespace_label}` is no label"));
            }
        }
        Ok(Self(sources))
    }

    /// The source of this name, if this namespace may ask it.
    ///
    /// # Errors
    /// There is none, or it may not, in a sentence for who wrote the release.
    pub fn find(&self, name: &str, namespace: &str) -> Result<&Source, String> {
        let mut known = self.0.iter();
        let Some(source) = known.find(|s| s.name == name) else {
            let usable = self.0.iter().filter(|s| s.allows(namespace));
            let usable: Vec<&str> = usable.map(|s| s.name.as_str()).collect();
            return Err(match usable.is_empty() {
                true => format!(
                    "there is no Prometheus source `{name}`: the operator's configuration names none for this namespace (chart value prometheus.sources)"
                ),
                false => format!(
                    "there is no Prometheus source `{name}`: the operator's configuration has {}",
                    usable.join(", ")
                ),
            });
        };
        if !source.allows(namespace) {
            return Err(format!(
                "Prometheus source `{name}` is not for namespace {namespace}: add it to the source's namespaces in the operator's configuration"
            ));
        }
        Ok(source)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }
}

impl Source {
    fn allows(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace)
    }

    /// Longest wait for an answer.
    pub fn timeout(&self) -> Duration {
        let asked = self.timeout_seconds.map(Duration::from_secs);
        asked.map_or(TIMEOUT, |t| t.clamp(Duration::from_secs(1), LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_found_by_those_whom_it_is_for() {
        let sources = Sources::parse(
            r#"{"sources": [{"name": "default", "url": "http://p:9090"}, {"name": "own", "url": "https://q/x", "namespaces": ["a"]}]}"#,
        )
        .unwrap();
        assert_eq!(
            sources.find("default", "b").unwrap().namespace_label,
            "namespace"
        );
        assert!(sources.find("own", "a").is_ok());
        let error = sources.find("own", "b").unwrap_err();
        assert!(error.contains("not for namespace b"), "{error}");
        let error = sources.find("other", "b").unwrap_err();
        assert!(
            error.contains("has default") && !error.contains("own,"),
            "{error}"
        );
        let error = Sources::default().find("default", "b").unwrap_err();
        assert!(error.contains("names none"), "{error}");
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused_by_name() {
        for (text, words) in [
            (
                r#"{"sources": [{"name": "a", "url": "ftp://p"}]}"#,
                "source a",
            ),
            (
                r#"{"sources": [{"name": "a", "url": "http://u:p@h"}]}"#,
                "password",
            ),
            (
                r#"{"sources": [{"name": "a", "url": "http://p"}, {"name": "a", "url": "http://q"}]}"#,
                "two sources",
            ),
            (
                r#"{"sources": [{"name": "a", "url": "http://p", "namespaceLabel": "a}"}]}"#,
                "no label",
            ),
            (
                r#"{"sources": [{"name": "a", "url": "http://p", "token": "x"}]}"#,
                "unknown field",
            ),
            (
                r#"{"sources": [{"name": "a", "url": "http://169.254.169.254/latest"}]}"#,
                "link-local",
            ),
            (
                r#"{"sources": [{"name": "a", "url": "http://[fe80::1]"}]}"#,
                "link-local",
            ),
            // However it is written.
            (
                r#"{"sources": [{"name": "a", "url": "http://0xa9fea9fe"}]}"#,
                "link-local",
            ),
            (
                r#"{"sources": [{"name": "a", "url": "http://[::ffff:169.254.169.254]"}]}"#,
                "link-local",
            ),
        ] {
            let error = Sources::parse(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
