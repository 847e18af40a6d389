//! The operator on a real cluster with real pods, installed as users install it: by its Helm chart.
//!
//! `hack/test e2e` brings up the cluster, loads the images and runs this where the cluster's addresses can be reached. Each test has a
//! namespace of its own, and they run side by side: they wait more than they compute.

mod bad_input;
mod caller;
mod commands;
mod containers;
mod evaluations;
mod files;
mod gateway;
mod installation;
mod labels;
mod minimal;
mod mirrored;
mod new_data;
mod peer;
mod prometheus;
mod prompts;
mod retraining;
mod rollout;
mod route;
mod s3;
mod serving;
mod shared;
mod space;
mod survival;
mod within;
mod without;
mod words;
