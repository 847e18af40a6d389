//! Who is served by which revision: pure.

use sha2::{Digest, Sha256};

use super::table::{Release, Revision};
use std::sync::Arc;

/// Where a caller falls, in [0, 1): the first 53 bits of SHA-256(release UID ‖ candidate hash ‖ key) / 2^53. Every gateway
/// computes the same, nothing is stored, and each candidate is tried on other callers.
pub fn bucket(uid: &str, candidate: &str, key: &str) -> f64 {
    let digest = Sha256::new()
        .chain_update(uid)
        .chain_update(candidate)
        .chain_update(key)
        .finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    unit(u64::from_be_bytes(first))
}

/// 64 random bits as a number in [0, 1).
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// 2^64 divided by the golden ratio, to the next odd number.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The n-th of places that fill [0, 2^64) as evenly as places can that come one after another: n/φ mod 1 from `start` (Knuth, The Art
/// of Computer Programming, volume 3, section 6.4, theorem S). Of any 10,000 in a row the share below a bound is that bound within
/// a tenth of a percentage point.
pub fn place(start: u64, n: u64) -> u64 {
    start.wrapping_add(n.wrapping_mul(GOLDEN))
}

/// Why a request goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// By the caller's key.
    Key,
    /// The caller has no key: by turns.
    Turn,
    /// The caller sent a version back that is being served.
    Version,
    /// The caller chose the side.
    Override,
    /// It was the candidate's, which has no ready endpoint.
    FellBack,
}

/// Where a request goes.
#[derive(Clone)]
pub struct Chosen {
    /// The revision that answers.
    pub revision: Arc<Revision>,
    /// Whether it is the candidate.
    pub candidate: bool,
    /// Why.
    pub why: Why,
}

/// A side that a caller chose: `stable`, or `candidate` while that has traffic, or copies of it, and can answer. Anything else is no choice.
pub fn choose_side(release: &Release, side: &str) -> Option<Chosen> {
    let (revision, candidate) = match side {
        "stable" => (release.stable.as_ref()?, false),
        "candidate" => {
            let open = release.weight > 0 || release.mirror > 0;
            let tried = release.candidate.as_ref().filter(|_| open);
            (tried.filter(|r| r.is_available())?, true)
        }
        _ => return None,
    };
    Some(Chosen {
        revision: revision.clone(),
        candidate,
        why: Why::Override,
    })
}

/// Chooses the revision for a request; `None` if the release has none that could serve. `turn` is asked for the next place of those
/// without a key; `version` is what the caller sent as `x-perennial-version`.
pub fn choose(
    release: &Release,
    key: Option<&str>,
    version: Option<&str>,
    turn: impl FnOnce() -> u64,
) -> Option<Chosen> {
    let stable = |why| {
        release.stable.as_ref().map(|revision| Chosen {
            revision: revision.clone(),
            candidate: false,
            why,
        })
    };
    let candidate = |revision: &Arc<Revision>, why| {
        Some(Chosen {
            revision: revision.clone(),
            candidate: true,
            why,
        })
    };
    let by_caller = if key.is_some() { Why::Key } else { Why::Turn };
    let Some(tried) = release.candidate.as_ref().filter(|_| release.weight > 0) else {
        return stable(by_caller);
    };
    if let Some(version) = version {
        if release
            .stable
            .as_ref()
            .is_some_and(|s| s.is_version(version))
        {
            return stable(Why::Version);
        }
        if tried.is_version(version) && tried.is_available() {
            return candidate(tried, Why::Version);
        }
    }
    let place = match key {
        Some(key) => bucket(&release.uid, &tried.hash, key),
        None => unit(turn()),
    };
    if place >= f64::from(release.weight) / 100.0 {
        return stable(by_caller);
    }
    if tried.is_available() || release.stable.is_none() {
        return candidate(tried, by_caller);
    }
    stable(Why::FellBack)
}
