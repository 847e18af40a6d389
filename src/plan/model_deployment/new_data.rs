//! The trigger on new data: what its looks have seen, and when the next is due.
//!
//! What is there at the first look counts as known. A change is remembered until a run starts, whoever starts it: that one reads what is there. A look
//! that can't see all neither fires nor clears.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    look::{self, Come, Wanted},
    reason::retraining as reason,
    recipe::Recipe,
    retraining::{Input, result},
    trigger::{ARMED, FIRED, Look, PENDING},
};
use crate::{
    api::{
        condition::bounded,
        model_deployment::{DatasetSeen, NewDataTrigger, RetrainingStatus, TriggerStatus},
        training_job::{Dataset, TrainingJobSpec},
    },
    plan::revision::hash,
};

/// How often it looks, where the trigger doesn't say.
const EVERY: SignedDuration = SignedDuration::from_hours(1);
/// Looks in a shorter time would be more pods than news.
const SHORTEST: SignedDuration = SignedDuration::from_secs(10);
/// How the message of a trigger begins that can't see its data.
pub(super) const UNSEEN: &str = "can't look at the data: ";

/// A trigger on new data.
pub(super) struct Trigger<'a> {
    pub name: &'a str,
    pub new_data: &'a NewDataTrigger,
}

impl Trigger<'_> {
    /// Looks at the trigger, and says which Job is to look at the data now.
    pub(super) fn look(
        &self,
        input: &Input<'_>,
        runs: &RetrainingStatus,
        recipe: Option<&Recipe>,
        now: Timestamp,
    ) -> (Look, Option<Wanted>) {
        let before = runs.triggers.iter().find(|t| t.name == self.name);
        let mut status = before.cloned().unwrap_or_default();
        self.name.clone_into(&mut status.name);
        if status.state.is_empty() {
            ARMED.clone_into(&mut status.state);
        }
        if status.state == FIRED {
            ended(&mut status, runs);
        }
        let mut look = Look {
            status,
            ..Look::default()
        };
        let wanted = recipe.and_then(|recipe| self.see(input, recipe, &mut look, now));
        let status = &mut look.status;
        if recipe.is_none() && status.state == ARMED {
            "waits for the recipe, which says what is read".clone_into(&mut status.message);
        }
        let changed = status.datasets.iter().filter(|d| d.changed.is_some());
        let changed: Vec<&str> = changed.map(|d| d.name.as_str()).collect();
        if !changed.is_empty() {
            let due = format!("there is new data: {}", changed.join(", "));
            status.message.clone_from(&due);
            look.due = Some(due);
        } else if status.state == PENDING {
            let last = runs.runs.iter().rfind(|r| r.trigger == self.name);
            match last.filter(|r| r.result == result::FAILED) {
                Some(run) => {
                    look.due = Some(format!("retraining {} on new data failed", run.firing));
                }
                None => ARMED.clone_into(&mut status.state),
            }
        }
        if look.due.is_some() {
            // Also where it was disarmed: this is what it was waiting for.
            PENDING.clone_into(&mut look.status.state);
            look.status.disarmed_for = None;
        }
        (look, wanted)
    }

    /// Takes what the look that is due has seen, and says which one is to be made.
    fn see(
        &self,
        input: &Input<'_>,
        recipe: &Recipe,
        look: &mut Look,
        now: Timestamp,
    ) -> Option<Wanted> {
        let status = &mut look.status;
        let datasets = match watched(self.new_data, &recipe.spec) {
            Ok(datasets) => datasets,
            Err((_, why)) => {
                status.message = why;
                return None;
            }
        };
        let every = self.new_data.every.as_ref();
        let every = every.map_or(EVERY, |every| every.to_signed()).max(SHORTEST);
        let next = now.checked_add(every).unwrap_or(Timestamp::MAX);
        // An edited interval counts from now.
        let at = status.next_time.as_ref().map_or(now, |t| t.0.min(next));
        status.next_time = Some(Time(at));
        if at > now {
            look.check_at = Some(at);
            return None;
        }
        let release = input.deployment.name_any();
        let name = look::name(&release, self.name, &datasets, at.as_second());
        let says = status.state == ARMED || status.state == PENDING;
        let come = input.looks.come(&name);
        match come {
            Come::Waits(trouble) => {
                if let Some(why) = trouble.filter(|_| says) {
                    status.message = bounded(format!("{UNSEEN}{why}"));
                } else if status.message.is_empty() {
                    "looks at the data".clone_into(&mut status.message);
                }
                return Some(Wanted {
                    name,
                    datasets,
                    template: recipe.spec.template.clone(),
                });
            }
            Come::Failed(why) => {
                if says {
                    status.message = bounded(format!(
                        "{UNSEEN}{why}: it neither fires nor clears, and looks again at {next}"
                    ));
                }
            }
            Come::Seen(seen) => {
                status.counted_until = Some(Time(now));
                let mut found = Vec::new();
                for dataset in &datasets {
                    let Some(listing) = seen.listings.get(&dataset.name) else {
                        continue;
                    };
                    // Data elsewhere is other data.
                    let listing = hash(&serde_json::json!([dataset.uri, listing]), 0);
                    let known = status.datasets.iter().find(|d| d.name == dataset.name);
                    let known = known.map_or(&listing, |d| &d.known);
                    found.push(DatasetSeen {
                        name: dataset.name.clone(),
                        known: known.clone(),
                        changed: (*known != listing).then_some(listing.clone()),
                    });
                }
                status.datasets = found;
                if says {
                    status.message = format!("nothing new at {now}: looks again at {next}");
                }
            }
        }
        status.next_time = Some(Time(next));
        look.check_at = Some(next);
        None
    }
}

/// A run of this trigger goes on until it has ended; one that failed has trained on nothing.
fn ended(status: &mut TriggerStatus, runs: &RetrainingStatus) {
    let last = runs.runs.iter().rfind(|r| r.trigger == status.name);
    let state = match last.map(|r| r.result.as_str()) {
        Some(result::RUNNING) => FIRED,
        Some(result::FAILED) => PENDING,
        _ => ARMED,
    };
    state.clone_into(&mut status.state);
}

/// A run has started, and reads what is there. Whether that is new.
pub(super) fn read(status: &mut TriggerStatus, firing: i64) -> bool {
    if status.datasets.is_empty() {
        return false;
    }
    let mut any = false;
    for dataset in &mut status.datasets {
        if let Some(changed) = dataset.changed.take() {
            dataset.known = changed;
            any = true;
        }
    }
    if status.state == PENDING {
        ARMED.clone_into(&mut status.state);
        status.message = format!("retraining {firing} reads what is new");
    }
    any
}

/// The datasets that a trigger watches.
///
/// # Errors
/// Reason and sentence, if there is none that can change.
pub(super) fn watched(
    new_data: &NewDataTrigger,
    recipe: &TrainingJobSpec,
) -> Result<Vec<Dataset>, (&'static str, String)> {
    let can_change = recipe.datasets.iter().filter(|d| d.digest.is_none());
    let Some(names) = &new_data.datasets else {
        let all: Vec<Dataset> = can_change.cloned().collect();
        if all.is_empty() {
            let message = "newData watches nothing: the recipe pins the digests of all that it reads; name them in retraining.datasets, which drops the digest";
            return Err((reason::DATA_NEVER_CHANGES, message.to_owned()));
        }
        return Ok(all);
    };
    let mut all = Vec::new();
    for name in names {
        let Some(dataset) = recipe.datasets.iter().find(|d| d.name == *name) else {
            let message = format!(
                "newData watches the dataset {name}, which the recipe doesn't read: correct the name"
            );
            return Err((reason::DATASET_UNKNOWN, message));
        };
        if dataset.digest.is_some() {
            let message = format!(
                "newData watches the dataset {name}, whose digest the recipe pins: name it in retraining.datasets, which drops the digest"
            );
            return Err((reason::DATA_NEVER_CHANGES, message));
        }
        all.push(dataset.clone());
    }
    Ok(all)
}
