//! Numbers, times and verdicts as people read them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::gate::{GateStatus, Verdict};

pub(super) fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "✔",
        Verdict::Failed | Verdict::Error => "✖",
        Verdict::Pending | Verdict::Running => "…",
        Verdict::Inconclusive => "?",
    }
}

pub(super) fn words(verdict: Verdict, message: &str) -> String {
    if message.is_empty() {
        format!("{verdict:?}")
    } else {
        format!("{verdict:?}, {message}")
    }
}

pub(super) fn gate(gate: &GateStatus) -> String {
    let mut line = format!("{} {} {}", mark(gate.verdict), gate.metric, gate.bound);
    if let Some(value) = gate.value {
        line.push_str(&format!("  candidate {}", number(value)));
    }
    if let Some(stable) = gate.stable {
        line.push_str(&format!("  stable {}", number(stable)));
    }
    if let (Some(lower), Some(upper)) = (gate.lower, gate.upper) {
        line.push_str(&format!("  [{}, {}]", number(lower), number(upper)));
    }
    line.push_str(&format!(
        "  n={}  {}",
        gate.samples,
        words(gate.verdict, &gate.message)
    ));
    line
}

/// A prompt's version is a whole SHA-256; the first twelve digits are enough for people.
pub(super) fn version(version: Option<&str>) -> &str {
    match version {
        Some(hash) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            &hash[..12]
        }
        Some(version) => version,
        None => "?",
    }
}

pub(super) fn ago(time: &Time, now: Timestamp) -> String {
    format!(
        "{} ago",
        length(now.duration_since(time.0).as_secs().max(0))
    )
}

pub(super) fn length(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn number(value: f64) -> String {
    if value == 0.0 || (value.abs() >= 0.001 && value.abs() < 100_000.0) {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.2e}")
    }
}
