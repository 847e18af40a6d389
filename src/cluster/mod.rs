//! All IO with the cluster.

pub mod measure;
