//! A rollout goes as its ladder says: no caller beyond the step that it is at, and no step beyond one that wasn't fulfilled.

use std::collections::{BTreeMap, BTreeSet};

use perennial::{api::annotation, cluster::Kind};
use serde_json::Value;

use crate::{
    api::{Commit, number, text},
    check::{Broken, must},
};

/// What people have said in annotations, by revision.
#[derive(Default)]
pub struct Said {
    /// Approvals, word for word.
    approved: BTreeMap<String, BTreeSet<String>>,
    /// Revisions that somebody promoted.
    promoted: BTreeSet<String>,
}

impl Said {
    /// Takes note of what somebody wrote.
    pub fn hear(&mut self, commit: &Commit) {
        let (Kind::ModelDeployment | Kind::PromptRelease, Some(new)) = (commit.kind, &commit.new)
        else {
            return;
        };
        let said = |name: &str| new["metadata"]["annotations"][name].as_str();
        let of = |value: &str| {
            value
                .split(['/', '.'])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        if let Some(value) = said(annotation::APPROVE) {
            let all = self.approved.entry(of(value)).or_default();
            all.insert(value.to_owned());
        }
        if let Some(value) = said(annotation::PROMOTE) {
            self.promoted.insert(of(value));
        }
    }
}

/// What a new status breaks of the ladder, if it breaks something.
pub fn check(said: &Said, before: &Value, after: &Value, models: bool) -> Broken {
    let (was, is) = (&before["rollout"], &after["rollout"]);
    let state = text(is, "/state");
    let at = usize::try_from(number(is, "/step")).unwrap_or(0);
    let (weight, mirror) = (number(is, "/weight"), number(is, "/mirror"));
    let steps = is["steps"]
        .as_array()
        .map_or(&[] as &[Value], Vec::as_slice);
    let begun = || steps.iter().take(at + 1).rev();
    must!((0..=100).contains(&mirror), "{mirror} % are mirrored");
    let tried = match state {
        "Baking" => &after["stable"],
        _ => &after["candidate"],
    };
    let revision = text(tried, "/revision");
    if mirror > 0 {
        must!(
            matches!(state, "Stepping" | "Paused") && !revision.is_empty(),
            "in {state}, {mirror} % are mirrored to `{revision}`"
        );
        let said = begun().find_map(|step| match &step["setMirror"]["percent"] {
            Value::Null if number(step, "/setWeight") > 0 => Some(0),
            percent => percent.as_i64(),
        });
        must!(
            said == Some(mirror),
            "{mirror} % are mirrored where the ladder says {said:?}"
        );
        must!(
            !models || mirror <= number(was, "/mirror") || number(tried, "/availableReplicas") > 0,
            "{mirror} % are mirrored to a candidate without available pods"
        );
    }
    if matches!(state, "Preparing" | "Stepping" | "Paused") {
        let most = match at >= steps.len() {
            true => 100,
            false => begun().find_map(|s| s["setWeight"].as_i64()).unwrap_or(0),
        };
        must!(
            weight <= most,
            "{weight} % of callers where the ladder says {most} %"
        );
    }
    let approvals = is["approvals"].as_array().into_iter().flatten();
    let approved: Vec<i64> = approvals.clone().map(|a| number(a, "/step")).collect();
    if !matches!(state, "Idle" | "RollingBack") {
        for (index, step) in steps.iter().enumerate().take(at) {
            must!(
                step["approval"].is_null() || approved.contains(&(index as i64)),
                "{revision} went beyond step {} without the approval that it asks for",
                index + 1
            );
        }
        let words = said.approved.get(revision);
        must!(
            approved.len() <= words.map_or(0, BTreeSet::len),
            "{revision} has more approvals than were given"
        );
        for approval in approvals {
            let (user, end) = (
                text(approval, "/user"),
                format!("/{}", text(approval, "/user")),
            );
            must!(
                words.is_some_and(|all| all.iter().any(|v| v.ends_with(&end))),
                "{revision} is approved by {user}, who didn't"
            );
        }
    }
    let attempt = |status: &Value| number(status, "/candidate/attempt");
    let same = before.is_object() && attempt(before) == attempt(after) && attempt(after) > 0;
    if same {
        must!(
            was["steps"] == is["steps"],
            "the ladder changed under the rollout"
        );
        let from = usize::try_from(number(was, "/step")).unwrap_or(0);
        let onwards = matches!(state, "Stepping" | "Paused" | "Promoting");
        for step in steps.iter().take(at).skip(from).filter(|_| onwards) {
            for name in step["evaluate"]["names"].as_array().into_iter().flatten() {
                let evaluations = is["evaluations"].as_array().into_iter().flatten();
                let mut passed =
                    evaluations.filter(|e| e["name"] == *name && e["verdict"] == "Passed");
                must!(
                    passed.next().is_some() || said.promoted.contains(revision),
                    "{revision} went on, and Evaluation {name} has not passed"
                );
            }
        }
    }
    looks(was, is).or_else(|| measured(before, after))
}

/// A gate's failure counts once in an interval, which is ten seconds in every life.
fn looks(was: &Value, is: &Value) -> Broken {
    let gates = |rollout: &Value| rollout["gates"].as_array().cloned().unwrap_or_default();
    let time = |gate: &Value| text(gate, "/failureTime").parse::<jiff::Timestamp>().ok();
    let known = gates(was);
    for gate in gates(is).iter().filter(|g| number(g, "/failures") > 0) {
        let same = |g: &&Value| g["metric"] == gate["metric"] && g["bound"] == gate["bound"];
        let Some(old) = known.iter().find(same) else {
            continue;
        };
        let more = number(gate, "/failures") - number(old, "/failures");
        let passed = time(gate).zip(time(old)).map(|(a, b)| a.duration_since(b));
        must!(
            more <= 1 && (more < 1 || passed.is_none_or(|p| p.as_secs() >= 10)),
            "gate {} failed {more} times more in {passed:?}",
            gate["metric"]
        );
    }
    None
}

/// A bake ends well only when callers were measured, unless another spec cut it short or it was a way back.
fn measured(before: &Value, after: &Value) -> Broken {
    if text(before, "/rollout/state") != "Baking" || text(after, "/rollout/state") == "Baking" {
        return None;
    }
    if text(after, "/rollout/state") != "Idle" {
        return None; // The next one began at once, with gates of its own.
    }
    let last = after["history"].as_array().and_then(|h| h.last());
    let last = last.filter(|h| h["outcome"] == "Promoted")?;
    let back = text(before, "/stable/source") == "Rollback";
    let cut = text(last, "/message").contains("cut short");
    let gates = after["rollout"]["gates"].as_array().into_iter().flatten();
    let mut seen = gates.filter(|g| g["metric"] == "requests" && g["verdict"] == "Passed");
    must!(
        back || cut || seen.next().is_some(),
        "{} was promoted at the end of a bake in which too few callers were measured",
        text(last, "/revision")
    );
    None
}
