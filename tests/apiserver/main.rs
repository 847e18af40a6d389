//! Against a real API server, without pods: `hack/test apiserver`.

#[path = "../harness/mod.rs"]
mod harness;

#[allow(dead_code, reason = "the simulator uses the rest of it")]
#[path = "../sim/api.rs"]
mod api;
#[path = "../sim/conformance.rs"]
mod conformance;
#[path = "../sim/merge.rs"]
mod merge;

mod act;
mod approvals;
mod authors;
mod bad_input;
mod config_maps;
mod crds;
mod kill;
mod kill_rollout;
mod lease;
mod live;
mod memory;
mod policy;
mod process;
mod program;
mod rejections;
mod scripted;
mod serving;
mod watch;
mod windows;
