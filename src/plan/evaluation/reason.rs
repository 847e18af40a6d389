//! Reasons of an Evaluation's conditions and Events.

/// There is nothing to measure now.
pub const IDLE: &str = "Idle";
/// A run is going on.
pub const RUNNING: &str = "Running";
/// What there is to measure is measured; the verdict says how.
pub const MEASURED: &str = "Measured";
/// The run's gates passed.
pub const PASSED: &str = "Passed";
/// A gate of the run failed.
pub const FAILED: &str = "Failed";
/// Too little data for a verdict.
pub const INCONCLUSIVE: &str = "Inconclusive";
/// The run could not measure.
pub const RUN_FAILED: &str = "RunFailed";
/// A PersistentVolumeClaim that a URI names doesn't exist.
pub const CLAIM_NOT_FOUND: &str = "ClaimNotFound";
/// The run's pod can't start because a PersistentVolumeClaim can't be shared as it needs to be; the message has the remedy.
pub const VOLUME_NOT_SHAREABLE: &str = "VolumeNotShareable";
/// `schedule` or `timeZone` can't be read: only candidates are measured.
pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
/// `activeDeadlineSeconds` have passed.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
