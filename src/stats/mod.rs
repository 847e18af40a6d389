//! Statistics, all pure: no clock, no randomness but a seeded one, no IO.
//!
//! | module | what it answers |
//! | --- | --- |
//! | [`bucket`] | what gateways count of live requests, and what planners read of it |
//! | [`labels`] | how good live predictions were, by labels that came later |
//! | [`predictions`] | what live answers predict, and how much windows of them differ |
//! | [`mirror`] | how the candidate answered copies of stable's requests, beside stable |
//! | [`sketch`] | what did this column, or these latencies, look like: bounded, mergeable, the same bytes in whatever order |
//! | [`profile`] | what did the training data look like, and how much do samples of it differ from the whole |
//! | [`drift`] | is this sample from the same distribution as that one: tests, distances, live comparison |
//! | [`fairness`] | does a classifier treat groups alike |
//! | [`text`] | how close are texts to their references, and to what they were given |
//! | [`agreement`] | how far do two raters agree |
//! | [`ranking`] | how good is an order of items: NDCG, MAP, MRR, recall at k |
//! | [`paired`] | do two models differ on the same rows |
//! | [`performance`] | how good are predictions, with intervals, beside the constant predictor |
//! | [`sequential`] | is the candidate worse than stable: bounds that hold however often one looks |
//! | [`random`] | the one seeded generator that bootstraps and simulations use |

pub mod agreement;
pub mod asked;
pub mod bucket;
pub mod drift;
pub mod fairness;
pub mod labels;
pub mod mirror;
pub mod paired;
pub mod performance;
pub mod predictions;
pub mod profile;
pub mod random;
pub mod ranking;
pub mod sequential;
pub mod sketch;
pub mod text;
