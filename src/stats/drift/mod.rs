//! Drift: whether a sample comes from the same distribution as a reference.
//!
//! [`live`] compares merged sketches of traffic with a profile.

pub mod live;
