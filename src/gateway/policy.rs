//! A release's `spec.traffic`, with the gateway's defaults.

use std::{net::IpAddr, time::Duration};

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
    /// Who may say what a caller's request looked like before it came here.
    pub trusted: Vec<Network>,
    /// What becomes of requests with other inputs than the model's.
    pub signature: Option<SignatureCheck>,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As IPv6, IPv4 mapped into it.
    address: u128,
    bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, or an address alone.
    fn of(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            "" => most,
            length => length.parse().ok().filter(|bits| *bits <= most)?,
        };
        Some(Self {
            address: mapped(address),
            bits: 128 - most + length,
        })
    }

    fn has(&self, address: IpAddr) -> bool {
        let different = self.address ^ mapped(address);
        different.leading_zeros() >= self.bits
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
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
            trusted: traffic
                .trusted_proxies
                .iter()
                .filter_map(|text| Network::of(text))
                .collect(),
            signature: traffic.signature,
        }
    }

    /// Whether this peer is a proxy that is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.has(peer))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (network, address, is_in) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("192.168.1.7", "192.168.1.7", true),
            ("192.168.1.7", "192.168.1.6", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fd12::1", true),
        ] {
            let network = Network::of(network).unwrap();
            assert_eq!(network.has(address.parse().unwrap()), is_in, "{address}");
        }
        for wrong in ["10.0.0.0/33", "10.0.0/8", "x", "fd00::/129", ""] {
            assert_eq!(Network::of(wrong), None, "{wrong}");
        }
    }
}
