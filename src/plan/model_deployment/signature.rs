//! Whether a candidate takes other inputs than stable does.

use super::Status;
use crate::{
    api::revision::{ModelRevision, Signature},
    plan::revision::Named,
};

/// Features that are named at most.
const NAMED: usize = 5;

/// What is different in the candidate's inputs, as a sentence; `None`: nothing, or one of the signatures isn't known.
pub(super) fn change(status: &Status, known: &[Named<ModelRevision>]) -> Option<String> {
    let of = |hash: &str| {
        let revision = known.iter().find(|k| k.hash == hash)?;
        revision.revision.model.signature.as_ref()
    };
    let stable = of(&status.stable.as_ref()?.revision)?;
    let candidate = of(&status.candidate.as_ref()?.revision)?;
    let differences = differences(stable, candidate);
    if differences.is_empty() {
        return None;
    }
    let more = differences.len().saturating_sub(NAMED);
    let mut text = differences
        .into_iter()
        .take(NAMED)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    Some(format!("its inputs are others than stable's ({text})"))
}

fn differences(stable: &Signature, candidate: &Signature) -> Vec<String> {
    let find = |signature: &Signature, name: &str| {
        let mut features = signature.features.iter();
        features.find(|f| f.name == name).map(|f| f.kind.clone())
    };
    let gone = stable
        .features
        .iter()
        .filter(|f| find(candidate, &f.name).is_none())
        .map(|f| format!("`{}` is gone", f.name));
    let new = candidate.features.iter().filter_map(|f| {
        let (name, kind) = (&f.name, &f.kind);
        match find(stable, name) {
            None => Some(format!("`{name}` is new")),
            Some(before) if before != *kind => {
                Some(format!("`{name}` is a {kind}, was a {before}"))
            }
            Some(_) => None,
        }
    });
    let mut all: Vec<String> = gone.chain(new).collect();
    let order = |s: &Signature| {
        s.features
            .iter()
            .map(|f| f.name.clone())
            .collect::<Vec<_>>()
    };
    if all.is_empty() && order(stable) != order(candidate) {
        all.push("their order is another".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::revision::Feature;

    fn signature(features: &[(&str, &str)]) -> Signature {
        let feature = |(name, kind): &(&str, &str)| Feature {
            name: (*name).into(),
            kind: (*kind).into(),
        };
        Signature {
            features: features.iter().map(feature).collect(),
            label: None,
        }
    }

    #[test]
    fn what_is_new_gone_of_another_type_or_elsewhere_is_said() {
        let stable = signature(&[("a", "Number"), ("b", "String")]);
        assert!(differences(&stable, &stable).is_empty());
        let another = signature(&[("c", "Number"), ("b", "Number")]);
        assert_eq!(
            differences(&stable, &another),
            ["`a` is gone", "`c` is new", "`b` is a Number, was a String"]
        );
        let turned = signature(&[("b", "String"), ("a", "Number")]);
        assert_eq!(differences(&stable, &turned), ["their order is another"]);
    }
}
