//! Reasons of conditions that a ModelDeployment has beside the rollout's: each a constant with what it means.

/// The model that the spec names has no version yet, or not this one.
pub const NO_VERSION: &str = "NoVersion";
/// The artifact is being read to pin its digest.
pub const RESOLVING: &str = "Resolving";
/// The artifact can't be read.
pub const MODEL_UNREADABLE: &str = "ModelUnreadable";
/// The API server refuses the pod template; the message has its own words.
pub const TEMPLATE_REFUSED: &str = "TemplateRefused";
/// An Evaluation that the spec names does not exist.
pub const UNKNOWN_EVALUATION: &str = "UnknownEvaluation";
/// Columns of live inputs are beyond their thresholds and beyond noise.
pub const COLUMNS_DRIFTED: &str = "ColumnsDrifted";
/// No column is beyond its threshold.
pub const WITHIN_THRESHOLDS: &str = "WithinThresholds";
/// No column of the profile was in requests.
pub const NOTHING_COMPARABLE: &str = "NothingComparable";
/// Too few rows were seen: that is not "no drift".
pub const NOT_ENOUGH_SAMPLES: &str = "NotEnoughSamples";
/// The inputs of requests are not understood.
pub const FEATURES_UNKNOWN: &str = "FeaturesUnknown";
/// There is nothing to compare live inputs with.
pub const NO_PROFILE: &str = "NoProfile";
/// An object of a name that we need isn't ours.
pub const NAME_TAKEN: &str = "NameTaken";
/// The API server refuses an object.
pub const INVALID: &str = "Invalid";
/// Quota, admission policy or missing permission.
pub const FORBIDDEN: &str = "Forbidden";

/// The constant of this name; [`INVALID`] for none.
pub fn known(reason: &str) -> &'static str {
    let all = [
        NO_VERSION,
        RESOLVING,
        MODEL_UNREADABLE,
        TEMPLATE_REFUSED,
        UNKNOWN_EVALUATION,
        COLUMNS_DRIFTED,
        WITHIN_THRESHOLDS,
        NOTHING_COMPARABLE,
        NOT_ENOUGH_SAMPLES,
        FEATURES_UNKNOWN,
        NO_PROFILE,
        NAME_TAKEN,
        INVALID,
        FORBIDDEN,
    ];
    all.into_iter().find(|r| *r == reason).unwrap_or(INVALID)
}
