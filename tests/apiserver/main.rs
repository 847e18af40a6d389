//! Against a real API server, without pods: `hack/test apiserver`.

#[path = "../harness/mod.rs"]
mod harness;

mod act;
mod approvals;
mod bad_input;
mod config_maps;
mod crds;
mod kill;
mod kill_rollout;
mod lease;
mod program;
mod rejections;
mod scripted;
mod watch;
