//! Reasons of a TrainingJob's conditions and Events.

/// The attempt's Job was made.
pub const STARTED: &str = "Started";
/// The trainer runs.
pub const RUNNING: &str = "Running";
/// An attempt failed and another follows.
pub const RESTARTING: &str = "Restarting";
/// The version exists and is recorded.
pub const SUCCEEDED: &str = "Succeeded";
/// A PersistentVolumeClaim that a URI names doesn't exist.
pub const CLAIM_NOT_FOUND: &str = "ClaimNotFound";
/// The pod can't start because a PersistentVolumeClaim can't be shared as it needs to be; the message has the remedy.
pub const VOLUME_NOT_SHAREABLE: &str = "VolumeNotShareable";
/// All restarts are used up.
pub const RESTARTS_EXHAUSTED: &str = "RestartsExhausted";
/// `activeDeadlineSeconds` have passed.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
/// The pod can't start: scheduling, image or configuration; the cluster's own words are in the message.
pub const POD_NOT_STARTING: &str = "PodNotStarting";
/// The attempt failed in a way that trying again can't mend; the supervisor's reason is in the message.
pub const PERMANENT_FAILURE: &str = "PermanentFailure";
/// The version exists, but its report could not be read: no metrics, no profile.
pub const REPORT_MISSED: &str = "ReportMissed";
