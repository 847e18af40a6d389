//! Back-off of one object: 1 s doubling to 5 min, with jitter from its uid.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// The shortest wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(300);

/// The wait after this many failures in a row (from 1). Jitter spreads objects that failed together: up to a fifth, the same for one
/// object each time.
pub fn after(failures: u32, uid: &str) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    let wait = doubled.min(LONGEST);
    wait - wait.mul_f64(spread(uid) / 5.0)
}

/// A number from 0 to 1 that is the same for one uid.
pub fn spread(uid: &str) -> f64 {
    let hash = Sha256::digest(uid.as_bytes());
    f64::from(u16::from_be_bytes([hash[0], hash[1]])) / 65536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_a_second_to_five_minutes_and_differ_between_objects() {
        for uid in ["a", "b", "c"] {
            let waits: Vec<f64> = (1..=12).map(|n| after(n, uid).as_secs_f64()).collect();
            assert!((0.8..=1.0).contains(&waits[0]), "{waits:?}");
            assert!((1.6..=2.0).contains(&waits[1]), "{waits:?}");
            assert!(
                waits.iter().all(|w| *w <= 300.0) && waits[11] >= 240.0,
                "{waits:?}"
            );
        }
        assert_ne!(after(5, "a"), after(5, "b"));
    }
}
