use super::{loops::drifting, world::World};

const V1: &str = "20130401-000000-aaaaaa";
const V2: &str = "20130701-000000-bbbbbb";

/// Retrained by command on the same data: nothing new came of it. Then the status is lost.
fn lost() -> World {
    let mut world = drifting();
    let stable = world.status().stable.as_ref().unwrap().revision.clone();
    world.annotate("perennial.dev/retrain", format!("{stable}/1"));
    world.pass(2);
    assert_eq!(world.created, ["churn-abcdef-1"]);
    world.finish("churn-abcdef-1", V2, "sha256:d1");
    world.pass(2);
    assert_eq!(
        world.status().retraining.as_ref().unwrap().runs[0].result,
        "NoNewData"
    );
    world.release.status = None;
    world.events.clear();
    world.pass(5);
    world
}

#[test]
fn stable_and_retrainings_are_there_again_and_what_brought_nothing_new_is_not_tried() {
    let world = lost();
    let status = world.status();
    assert_eq!(status.stable.as_ref().unwrap().version.as_deref(), Some(V1));
    assert!(status.candidate.is_none(), "{:?}", status.candidate);
    let retraining = status.retraining.as_ref().unwrap();
    assert_eq!(retraining.firing, 1);
    assert_eq!(retraining.runs.len(), 1);
    assert_eq!(retraining.runs[0].result, "NoNewData");
    let rebuilt = world.events.iter().filter(|e| *e == "StatusRebuilt");
    assert_eq!(rebuilt.count(), 1, "{:?}", world.events);
}

#[test]
fn retrain_is_not_done_again_and_a_new_one_has_a_number_of_its_own() {
    let mut world = lost();
    assert_eq!(world.created, ["churn-abcdef-1"]);
    let handled = &world.status().last_handled_commands[0];
    assert!(handled.result.starts_with("not done again"), "{handled:?}");
    let stable = world.status().stable.as_ref().unwrap().revision.clone();
    world.annotate("perennial.dev/retrain", format!("{stable}/2"));
    world.pass(2);
    assert_eq!(world.created, ["churn-abcdef-1", "churn-abcdef-2"]);
}
