//! The rollout engine, for models and prompts alike.
//!
//! ```text
//! none ─► Preparing ─► Step 1…n ─► Promoting ─► Baking ─► Idle
//!             │           │ ▲          │           │
//!             │           ▼ │ promote  │           │
//!             │         Paused         │           │
//!             └───────────┴─ RollingBack ◄─────────┘
//! ```
//!
//! `decide(&Input, now) -> Decision` is the one entry. A planner fills an [`Input`], then: creates the ControllerRevision of the
//! target (if missing), records `decision.state` in its status (`into_model`, `into_prompt`) together with [`conditions`], applies
//! pods as `decision.pods` says (growing ones may come before the status, shrinking and deleting ones only after), sets the marks.

mod conditions;
mod decision;
mod input;
mod state;

pub use conditions::conditions;
pub use decision::{Decision, Mark, Saying, Summary};
pub use input::{Command, Commands, Desired, EvaluationView, Input, Revision, Target};
pub use state::State;
