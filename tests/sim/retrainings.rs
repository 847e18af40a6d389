//! Retrainings keep their cooldown and their limit, by what status says of them.

use jiff::Timestamp;
use perennial::api::Duration;
use serde_json::Value;

use crate::{
    api::{number, text},
    check::{Broken, must},
};

fn runs(status: &Value) -> &[Value] {
    let runs = status.pointer("/retraining/runs").and_then(Value::as_array);
    runs.map_or(&[], Vec::as_slice)
}

fn time(run: &Value) -> Option<Timestamp> {
    text(run, "/time").parse().ok()
}

fn length(value: &Value) -> Option<jiff::SignedDuration> {
    let length: Duration = serde_json::from_value(value.clone()).ok()?;
    Some(length.to_signed())
}

/// What new runs break, if they break something.
pub fn check(before: &Value, after: &Value, spec: &Value) -> Broken {
    let known = number(before, "/retraining/firing");
    let all = runs(after);
    // Of what was rebuilt from TrainingJobs nobody knows whether someone said `retrain`.
    let exempt = |run: &Value| run["trigger"] == "retrain" || run["trigger"] == "unknown";
    let new = |run: &Value| number(run, "/firing") > known && !exempt(run);
    for (index, run) in all.iter().enumerate().filter(|(_, run)| new(run)) {
        let (earlier, firing) = (&all[..index], number(run, "/firing"));
        let failed = earlier.iter().rev().take_while(|r| r["result"] == "Failed");
        let doublings = u32::try_from(failed.count()).unwrap_or(0).min(4);
        let since = |then: &Value| Some(time(run)?.duration_since(time(then)?));
        if let (Some(passed), Some(cooldown)) =
            (earlier.last().and_then(since), length(&spec["cooldown"]))
        {
            must!(
                passed >= cooldown * (1 << doublings),
                "retraining {firing} began {passed:#} after the one before, within the cooldown"
            );
        }
        let most = usize::try_from(number(spec, "/limit/runs")).unwrap_or(0);
        let first = earlier.len().checked_sub(most).filter(|_| most > 0);
        if let (Some(passed), Some(per)) = (
            first.and_then(|n| since(&earlier[n])),
            length(&spec["limit"]["per"]),
        ) {
            must!(
                passed >= per,
                "retraining {firing} is one more than {most} within {per:#}"
            );
        }
    }
    None
}
