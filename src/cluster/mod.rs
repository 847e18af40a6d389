//! All IO with the cluster: caches, carrying plans out, status, events, leader election, reading from our pods.

pub mod act;
pub mod cache;
pub mod compare;
pub mod error;
pub mod event;
pub mod kind;
pub mod lease;
pub mod measure;
pub mod prometheus;
pub mod shell;
pub mod store;
pub mod subject;
pub mod supervisor;

pub use cache::{Caches, Kind, MANAGED_BY, MANAGED_BY_US};
pub use error::{Error, Refusal, RefusalReason};
pub use kind::{Change, Key, Owner};
pub use shell::{Settings, Shell};
pub use store::{AnyStore, Store};
