//! One question over the network, bounded in time and size; and what its answer says.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header,
};
use serde::Deserialize;

use super::source::Source;
use crate::stats::asked::Answer;

/// Longest answer: one number needs a few hundred bytes.
const LONGEST: usize = 256 << 10;
/// Longest quote of what a server says.
const QUOTE: usize = 200;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// A client for one source, made anew when its certificate authorities change.
pub(super) struct Asker {
    made: Mutex<Option<(Option<Vec<u8>>, reqwest::Client)>>,
}

impl Asker {
    pub fn new() -> Self {
        // The first to come chooses it for the process; all choose the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            made: Mutex::new(None),
        }
    }

    /// Asks; whatever goes wrong is an answer that names the source.
    pub async fn ask(&self, source: &Source, query: &str) -> Answer {
        let name = &source.name;
        let wait = source.timeout();
        let asked = tokio::time::timeout(wait, self.fetch(source, query));
        let failed = |problem: String| {
            Answer::Failed(format!(
                "Prometheus source {name} ({}) {problem}",
                source.url
            ))
        };
        match asked.await {
            Err(_) => failed(format!("gave no answer within {} s", wait.as_secs())),
            Ok(Err(problem)) => failed(problem),
            Ok(Ok((status, body))) => match read(status, &body) {
                Ok(Ok(value)) => Answer::Value(value),
                Ok(Err(nothing)) => Answer::Nothing(format!("Prometheus source {name} {nothing}")),
                Err(problem) => failed(problem),
            },
        }
    }

    async fn fetch(&self, source: &Source, query: &str) -> Result<(StatusCode, Vec<u8>), String> {
        let mut url = source.url.clone();
        let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .append_pair("timeout", &format!("{}s", source.timeout().as_secs()))
            .finish();
        let mut request = self
            .client(source)
            .await?
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        if let Some(file) = &source.bearer_token_file {
            request = request.bearer_auth(secret(file).await?);
        }
        if let Some(auth) = &source.basic_auth {
            let password = secret(&auth.password_file).await?;
            request = request.basic_auth(secret(&auth.username_file).await?, Some(password));
        }
        let mut answer = request
            .send()
            .await
            .map_err(|e| format!("can't be reached: {}", root_cause(&e)))?;
        let status = answer.status();
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(None) => return Ok((status, body)),
                Ok(Some(more)) if body.len() + more.len() > LONGEST => {
                    return Err(format!(
                        "answered with more than {} KiB: let the query give one number, such as sum(…)",
                        LONGEST >> 10
                    ));
                }
                Ok(Some(more)) => body.extend_from_slice(&more),
                Err(e) => return Err(format!("broke off its answer: {}", root_cause(&e))),
            }
        }
    }

    async fn client(&self, source: &Source) -> Result<reqwest::Client, String> {
        let authorities = match &source.ca_file {
            Some(file) => Some(contents(file).await?),
            None => None,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*made
            && *of == authorities
        {
            return Ok(client.clone());
        }
        let certificates = match &authorities {
            Some(pem) => reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|e| format!("has a caFile that can't be used: {}", root_cause(&e)))?,
            None => webpki_root_certs::TLS_SERVER_ROOT_CERTS
                .iter()
                .filter_map(|der| reqwest::Certificate::from_der(der).ok())
                .collect(),
        };
        let client = reqwest::Client::builder()
            .tls_certs_only(certificates)
            .connect_timeout(CONNECT)
            // Only the configuration says where questions go.
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Arc::new(Resolver))
            .no_proxy()
            .pool_max_idle_per_host(4)
            .user_agent(concat!("perennial/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("can't be asked: {}", root_cause(&e)))?;
        *made = Some((authorities, client.clone()));
        Ok(client)
    }
}

/// Names, as the system knows them, but for those that lead where no Prometheus is.
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.filter(|a| !is_of_the_link(a.ip())).collect();
            if found.is_empty() {
                return Err(
                    "its name leads to a link-local address, which nobody is asked at".into(),
                );
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address means something on one link only: there clouds tell nodes their secrets.
pub(super) fn is_of_the_link(ip: IpAddr) -> bool {
    /// Of one cloud, though not link-local.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == METADATA,
    }
}

async fn contents(file: &Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(file)
        .await
        .map_err(|e| format!("needs {}, which can't be read: {e}", file.display()))
}

async fn secret(file: &Path) -> Result<String, String> {
    let bytes = contents(file).await?;
    let text = String::from_utf8(bytes).map_err(|_| {
        format!(
            "needs {}, which isn't text in UTF-8: write it anew",
            file.display()
        )
    })?;
    Ok(text.trim().to_owned())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    status: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

/// A time and a number in text.
type Sample = (serde_json::Value, String);

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    value: Option<Sample>,
}

/// The number in an answer; within, why there is no data; without, what is wrong with it.
fn read(status: StatusCode, body: &[u8]) -> Result<Result<f64, String>, String> {
    let document: Document = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(_) if !status.is_success() => return Err(format!("answered {status}")),
        Err(e) => return Err(format!("gave an answer that makes no sense: {e}")),
    };
    if document.status != "success" || !status.is_success() {
        let error = document.error.unwrap_or_else(|| status.to_string());
        let error: String = error.chars().take(QUOTE).collect();
        return Err(format!("refused the query: {error}"));
    }
    let Some(Data {
        result_type,
        result,
    }) = document.data
    else {
        return Err("gave an answer without data".to_owned());
    };
    let broken = |e: serde_json::Error| format!("gave an answer that makes no sense: {e}");
    let sample: Sample = match result_type.as_str() {
        "scalar" => serde_json::from_value(result).map_err(broken)?,
        "vector" => {
            let mut series: Vec<Series> = serde_json::from_value(result).map_err(broken)?;
            match (series.len(), series.pop()) {
                (0, _) | (_, None) => return Ok(Err("has no series for this query".to_owned())),
                (1, Some(Series { value: Some(value) })) => value,
                (1, Some(_)) => {
                    return Err(
                        "gave a histogram: ask for a number, such as histogram_quantile(…)"
                            .to_owned(),
                    );
                }
                (many, _) => {
                    return Err(format!(
                        "gave {many} series: let the query give one number, such as sum(…)"
                    ));
                }
            }
        }
        other => {
            let other: String = other.chars().take(QUOTE).collect();
            return Err(format!(
                "gave a {other}: let the query give one number at this time"
            ));
        }
    };
    let (_, text) = sample;
    match text.parse::<f64>() {
        Ok(value) if value.is_nan() => Ok(Err(
            "answered NaN, as a division of nothing by nothing does".to_owned(),
        )),
        Ok(value) if value.is_infinite() => {
            Err(format!("answered {value}: is something divided by 0?"))
        }
        Ok(value) => Ok(Ok(value)),
        Err(_) => Err("gave a value that is no number".to_owned()),
    }
}

/// The innermost error: `Connection refused` rather than `error sending request`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
