//! What can go wrong between us and the API server, by what is to be done about it.

use super::{cache::Kind, kind::Key};

/// Closed kinds of errors.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// May work later: back off.
    #[error("{0}")]
    Transient(String),
    /// Somebody else wrote first: read again, at once.
    #[error("{0}")]
    Conflict(String),
    /// The API server, or an object that isn't ours, stands against this write until something changes.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// The namespace is being deleted: nothing more is made in it.
    #[error("{0}")]
    Leaving(String),
    /// We did something that makes no sense.
    #[error("{0}")]
    Bug(String),
    /// We may not write (any more).
    #[error("not the leader")]
    NotLeader,
}

impl Error {
    /// Value of the label `outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Transient(_) => "transient",
            Self::Conflict(_) => "conflict",
            Self::Refused(_) => "refused",
            Self::Leaving(_) => "leaving",
            Self::Bug(_) => "bug",
            Self::NotLeader => "not_leader",
        }
    }
}

/// A write that was refused, and isn't tried again before the plan or the generation changes or some time has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was to be written.
    pub kind: Kind,
    /// Which object.
    pub key: Key,
    /// Why.
    pub reason: RefusalReason,
    /// A sentence; for `Invalid` and `Forbidden` with the API server's own words.
    pub message: String,
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// An object of that name isn't ours.
    NameTaken,
    /// The API server doesn't take the object: a template with a mistake in it.
    Invalid,
    /// Quota, admission policy, or missing permission.
    Forbidden,
    /// Somebody else keeps changing an object of ours: it is set right once a minute, and the rest goes on.
    Contested,
}

impl RefusalReason {
    /// Reason for a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NameTaken => "NameTaken",
            Self::Invalid => "Invalid",
            Self::Forbidden => "Forbidden",
            Self::Contested => "Contested",
        }
    }

    /// Time after which it is tried again although nothing changed that we would hear of.
    pub fn retry_after(self) -> std::time::Duration {
        std::time::Duration::from_secs(match self {
            Self::Invalid => 600,
            Self::NameTaken | Self::Forbidden | Self::Contested => 60,
        })
    }
}

/// Whether it says that the namespace is being deleted.
pub fn is_leaving(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    status.code == 403
        && causes
            .into_iter()
            .any(|c| c.reason == "NamespaceTerminating")
}

/// What an answer of the API server means for a write of this object.
pub fn classify(kind: Kind, key: &Key, error: kube::Error) -> Error {
    let kube::Error::Api(status) = error else {
        return Error::Transient(format!("{} {key}: {error}", kind.as_str()));
    };
    let reason = match status.code {
        400 | 422 => RefusalReason::Invalid,
        403 if is_leaving(&status) => {
            return Error::Leaving(format!(
                "namespace {} is being deleted: nothing is made there any more",
                key.namespace
            ));
        }
        403 => RefusalReason::Forbidden,
        409 => {
            return Error::Conflict(format!("{} {key}: {}", kind.as_str(), status.message));
        }
        _ => {
            return Error::Transient(format!(
                "{} {key}: {} ({})",
                kind.as_str(),
                status.message,
                status.code
            ));
        }
    };
    Error::Refused(Box::new(Refusal {
        kind,
        key: key.clone(),
        reason,
        message: format!(
            "the API server refuses {} {}: {}",
            kind.as_str(),
            key.name,
            status.message
        ),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_that_is_being_deleted_is_no_refusal_of_the_object() {
        let answer = |causes| {
            let status = json!({"status": "Failure", "message": "no", "reason": "Forbidden", "code": 403, "details": {"causes": causes}});
            let status: kube::core::Status = serde_json::from_value(status).unwrap();
            classify(
                Kind::Service,
                &Key::new("ns", "m"),
                kube::Error::Api(status.boxed()),
            )
        };
        let cause = json!([{"reason": "NamespaceTerminating", "message": "namespace ns is being terminated", "field": "metadata.namespace"}]);
        assert_eq!(answer(cause).label(), "leaving");
        assert_eq!(answer(json!([])).label(), "refused");
    }
}
