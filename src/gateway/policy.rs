//! A release's `spec.traffic`, with the gateway's defaults.

use std::time::Duration;

use http::HeaderName;

use super::Limits;
use crate::api::traffic::{SignatureCheck, StickyKey, Traffic};

/// How a release's callers and pods are treated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    connect: Option<Duration>,
    first_byte: Option<Duration>,
    body: Option<u64>,
    /// From the request's first byte to the answer's last.
    pub request: Option<Duration>,
    /// Requests that are open at once and those that wait, of each revision.
    pub concurrency: Option<(usize, usize)>,
    /// When a pod is left out.
    pub ejection: EjectionRule,
    /// Where a caller's key is, after `x-perennial-key`.
    pub sticky: Vec<KeyPlace>,
    /// The header by which callers choose the side.
    pub side_header: Option<HeaderName>,
    /// Secret with the certificate that callers are shown.
    pub tls: Option<String>,
    /// What becomes of requests with other inputs than the model's.
    pub signature: Option<SignatureCheck>,
}

/// When a pod is left out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionRule {
    /// Failures one after another; 0: never.
    pub failures: u32,
    /// The first time.
    pub time: Duration,
    /// At most.
    pub longest: Duration,
}

impl Default for EjectionRule {
    fn default() -> Self {
        Self {
            failures: 5,
            time: Duration::from_secs(10),
            longest: Duration::from_secs(300),
        }
    }
}

/// Where a caller's key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A header.
    Header(HeaderName),
    /// A cookie, by name.
    Cookie(String),
    /// A field of the JSON body, by the names on the way to it.
    Field(Vec<String>),
}

impl KeyPlace {
    fn of(key: &StickyKey) -> Option<Self> {
        let header = key.header.as_ref().and_then(|h| h.parse().ok());
        let field = |path: &String| path.split('.').map(str::to_owned).collect();
        header
            .map(KeyPlace::Header)
            .or_else(|| key.cookie.clone().map(KeyPlace::Cookie))
            .or_else(|| key.field.as_ref().map(field).map(KeyPlace::Field))
    }
}

impl Policy {
    /// Reads `spec.traffic`.
    pub fn of(traffic: &Traffic) -> Self {
        let timeouts = traffic.timeouts.clone().unwrap_or_default();
        let limits = traffic.limits.clone().unwrap_or_default();
        let ejection = traffic.ejection.clone().unwrap_or_default();
        let time = |d: &Option<crate::api::Duration>| d.as_ref().map(crate::api::Duration::to_std);
        let count = |n: Option<i32>| n.and_then(|n| usize::try_from(n).ok());
        let usual = EjectionRule::default();
        Self {
            connect: time(&timeouts.connect),
            first_byte: time(&timeouts.first_byte),
            body: limits.body_bytes.and_then(|n| u64::try_from(n).ok()),
            request: time(&timeouts.request),
            concurrency: count(limits.concurrent)
                .map(|most| (most.max(1), count(limits.pending).unwrap_or(0))),
            ejection: EjectionRule {
                failures: ejection
                    .consecutive_failures
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(usual.failures),
                time: time(&ejection.time).unwrap_or(usual.time),
                longest: time(&ejection.max_time).unwrap_or(usual.longest),
            },
            sticky: traffic.sticky.iter().filter_map(KeyPlace::of).collect(),
            side_header: traffic
                .side_override
                .as_ref()
                .and_then(|o| o.header.parse().ok()),
            tls: traffic.tls.as_ref().map(|t| t.secret_name.clone()),
            signature: traffic.signature,
        }
    }

    /// Wait for a connection to a pod.
    pub fn connect(&self, limits: &Limits) -> Duration {
        self.connect.unwrap_or(limits.connect)
    }

    /// Wait for an answer to begin.
    pub fn first_byte(&self, limits: &Limits) -> Duration {
        self.first_byte.unwrap_or(limits.response)
    }

    /// Longest body.
    pub fn body(&self, limits: &Limits) -> u64 {
        self.body.unwrap_or(limits.body)
    }

    /// Whether a caller's key may be in the body.
    pub fn reads_body(&self) -> bool {
        let in_body = |place: &KeyPlace| matches!(place, KeyPlace::Field(_));
        self.sticky.iter().any(in_body)
    }
}
