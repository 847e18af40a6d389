//! The rollout engine, for models and prompts alike.
//!
//! ```text
//! none ─► Preparing ─► Step 1…n ─► Promoting ─► Baking ─► Idle
//!             │           │ ▲          │           │
//!             │           ▼ │ promote, approve     │
//!             │         Paused         │           │
//!             └───────────┴─ RollingBack ◄─────────┘
//! ```
//!
//! [`decide`] is the one entry. A planner fills an [`Input`], then: creates the ControllerRevision of the target (if missing),
//! records `decision.state` in its status (`into_model`, `into_prompt`) together with [`conditions`], applies pods as
//! `decision.pods` says (growing ones may come before the status, shrinking and deleting ones only after), sets the marks.
//!
//! What holds whatever happens (tested over random lives):
//! - stable's and the candidate's weights sum to 100, as only the candidate's is kept;
//! - the candidate has callers only while a pod of it can answer, and never when its hash is in the ledger;
//! - every state but those that wait for a person has a deadline;
//! - deciding twice decides nothing new.

mod asked;
mod climb;
mod commands;
mod conditions;
mod copies;
mod decision;
mod end;
mod engine;
mod evaluated;
mod gates;
mod improvement;
mod input;
mod labelled;
mod marks;
mod measure;
mod policy;
pub mod reason;
mod size;
mod state;
mod states;
mod status;
mod summary;

use jiff::Timestamp;

pub use asked::{Asking, Question, Questions, questions, side};
pub use conditions::conditions;
pub use decision::{Decision, Mark, Saying, Summary};
pub use evaluated::{is_in_steps, step_to_come};
pub use input::{Command, Commands, Desired, EvaluationView, Improvement, Input, Revision, Target};
pub use labelled::{computed, refused as labels_refused};
pub use marks::rebuilt;
pub use state::State;

/// What is to be true of this release now.
pub fn decide(input: &Input, now: Timestamp) -> Decision {
    engine::Engine::new(input, now).decide()
}
