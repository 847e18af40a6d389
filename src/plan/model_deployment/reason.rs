//! Reasons of conditions that a ModelDeployment has beside the rollout's: each a constant with what it means.

/// The model that the spec names has no version yet, or not this one.
pub const NO_VERSION: &str = "NoVersion";
/// The artifact is being read to pin its digest.
pub const RESOLVING: &str = "Resolving";
/// The artifact can't be read.
pub const MODEL_UNREADABLE: &str = "ModelUnreadable";
/// A ConfigMap that the server's template names is not there, or lacks a key that it reads.
pub const CONFIG_MAP_MISSING: &str = "ConfigMapMissing";
/// A pod can't start because a PersistentVolumeClaim can't be shared as it needs to be; the message has the remedy.
pub const VOLUME_NOT_SHAREABLE: &str = "VolumeNotShareable";
/// The API server refuses the pod template; the message has its own words.
pub const TEMPLATE_REFUSED: &str = "TemplateRefused";
/// An Evaluation that the spec names does not exist.
pub const UNKNOWN_EVALUATION: &str = "UnknownEvaluation";
/// The rollout names an Evaluation that measures something else, so that no candidate can pass it.
pub const EVALUATION_ELSEWHERE: &str = "EvaluationElsewhere";
/// A metric can't be asked of Prometheus: its source isn't in the operator's configuration or not for this namespace, or its query makes no sense.
pub const METRIC_REFUSED: &str = "MetricRefused";
/// Columns of live inputs are beyond their thresholds and beyond noise.
pub const COLUMNS_DRIFTED: &str = "ColumnsDrifted";
/// What stable predicts differs from its first window beyond threshold and noise, and no column of its inputs does.
pub const PREDICTIONS_DRIFTED: &str = "PredictionsDrifted";
/// No column is beyond its threshold.
pub const WITHIN_THRESHOLDS: &str = "WithinThresholds";
/// No column of the profile was in requests.
pub const NOTHING_COMPARABLE: &str = "NothingComparable";
/// `monitoring.drift.season`, and nobody knows what like hours are like: the training data has no times or is of too few days, or requests come at other hours. That is not "no drift".
pub const SEASON_UNKNOWN: &str = "SeasonUnknown";
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

/// Somebody else keeps changing an object of ours; the message says which, and who. It is set right once a minute.
pub const CONTESTED: &str = "Contested";

/// The constant of this name; [`INVALID`] for none.
pub fn known(reason: &str) -> &'static str {
    let all = [
        NO_VERSION,
        RESOLVING,
        MODEL_UNREADABLE,
        CONFIG_MAP_MISSING,
        VOLUME_NOT_SHAREABLE,
        TEMPLATE_REFUSED,
        UNKNOWN_EVALUATION,
        EVALUATION_ELSEWHERE,
        METRIC_REFUSED,
        COLUMNS_DRIFTED,
        PREDICTIONS_DRIFTED,
        WITHIN_THRESHOLDS,
        NOTHING_COMPARABLE,
        SEASON_UNKNOWN,
        NOT_ENOUGH_SAMPLES,
        FEATURES_UNKNOWN,
        NO_PROFILE,
        NAME_TAKEN,
        INVALID,
        FORBIDDEN,
        CONTESTED,
    ];
    all.into_iter().find(|r| *r == reason).unwrap_or(INVALID)
}

/// Reasons of the condition Retraining, and of Events about retrainings.
pub mod retraining {
    /// `spec.retraining` is not set any more.
    pub const NOT_CONFIGURED: &str = "NotConfigured";
    /// No trigger is due.
    pub const ARMED: &str = "Armed";
    /// A trigger is due, and something stands against a run now: cooldown, limit, a rollout, another run, the recipe.
    pub const WAITING: &str = "Waiting";
    /// A retraining is going on.
    pub const RUNNING: &str = "Running";
    /// The TrainingJob that `retraining.from` names is not there.
    pub const RECIPE_UNKNOWN: &str = "RecipeUnknown";
    /// The recipe that was copied from a TrainingJob can't be read any more.
    pub const RECIPE_UNREADABLE: &str = "RecipeUnreadable";
    /// `retraining.datasets` names a dataset that the recipe doesn't read.
    pub const DATASET_UNKNOWN: &str = "DatasetUnknown";
    /// A window in `retraining.maintenanceWindows` can't be read.
    pub const MAINTENANCE_WINDOW_UNREADABLE: &str = "MaintenanceWindowUnreadable";
    /// Nobody measures what `retraining.requireImprovement` names, or it isn't known whether more of it is better.
    pub const IMPROVEMENT_UNMEASURABLE: &str = "ImprovementUnmeasurable";
    /// A trigger watches a metric or a column that isn't there.
    pub const METRIC_UNKNOWN: &str = "MetricUnknown";
    /// A trigger watches a metric that has one value for each stable revision.
    pub const METRIC_NEVER_CHANGES: &str = "MetricNeverChanges";
    /// A trigger on new data watches what the recipe pins by digest.
    pub const DATA_NEVER_CHANGES: &str = "DataNeverChanges";
    /// A trigger on new data can't look at it; the message says why.
    pub const DATA_UNREADABLE: &str = "DataUnreadable";
    /// A version that passes the gate on a metric can fire the trigger on it at once, and so for ever.
    pub const STRICTER_THAN_GATE: &str = "StricterThanGate";
    /// A run would read, or has read, what was trained on already, with the same recipe: the trigger is disarmed.
    pub const NO_NEW_DATA: &str = "NoNewData";
    /// The value is still beyond the bound after the retraining: the trigger is disarmed.
    pub const DID_NOT_HELP: &str = "RetrainingDidNotHelp";
    /// A trigger fired, or someone said `retrain`.
    pub const STARTED: &str = "RetrainingStarted";
    /// The run made a version.
    pub const SUCCEEDED: &str = "RetrainingSucceeded";
    /// The run made no version.
    pub const FAILED: &str = "RetrainingFailed";
    /// The run's version became stable.
    pub const PROMOTED: &str = "RetrainingPromoted";
    /// The run's version was refused; stable stays.
    pub const REJECTED: &str = "RetrainingRejected";
    /// The run's version was neither taken nor refused: it was superseded or withdrawn, or there was too little data.
    pub const UNDECIDED: &str = "RetrainingUndecided";
}

/// Reasons of the conditions Autoscaled and Routed.
pub mod serving {
    /// `spec.autoscaling` is not set any more.
    pub const NOT_AUTOSCALED: &str = "NotAutoscaled";
    /// Stable's autoscaler computes how many pods it needs.
    pub const AUTOSCALER_ACTIVE: &str = "AutoscalerActive";
    /// Stable's autoscaler can't compute how many pods it needs; the message has its own words. As many as there are stay.
    pub const AUTOSCALER_INACTIVE: &str = "AutoscalerInactive";
    /// Stable's autoscaler has said nothing yet.
    pub const AUTOSCALER_STARTING: &str = "AutoscalerStarting";
    /// `spec.route` is not set any more.
    pub const NO_ROUTE: &str = "NoRoute";
    /// The cluster doesn't know HTTPRoutes; the message says what to install.
    pub const GATEWAY_API_MISSING: &str = "GatewayApiMissing";
    /// Every parent has accepted the HTTPRoute.
    pub const ROUTE_ACCEPTED: &str = "RouteAccepted";
    /// A parent refuses the HTTPRoute; the message has its own words.
    pub const ROUTE_REFUSED: &str = "RouteRefused";
    /// Not every parent has said something of the HTTPRoute yet.
    pub const ROUTE_PENDING: &str = "RoutePending";
}

/// Reasons of the condition PayloadLogged.
pub mod log {
    /// `spec.monitoring.payloadLog` is not set any more.
    pub const NOT_LOGGED: &str = "NotLogged";
    /// No gateway has said yet how its log is doing.
    pub const STARTING: &str = "LogStarting";
    /// Files reach the store, or none was due yet.
    pub const LOGGING: &str = "Logging";
    /// The Secret that the log is written with isn't mounted in a gateway; releases are served all the same.
    pub const CREDENTIALS_MISSING: &str = "CredentialsMissing";
    /// The store doesn't take files; the message has its words. What there is no room for is dropped, and callers notice nothing.
    pub const UNWRITABLE: &str = "LogUnwritable";
}
