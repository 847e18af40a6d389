//! Lives of an Evaluation with a schedule.

use super::*;

/// Every night at two, from one second past three.
fn nightly() -> Observed {
    let mut world = observed();
    world.evaluation.spec.schedule = Some("0 2 * * *".to_owned());
    release(&mut world, serving());
    world
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn numbers(world: &Observed) -> Vec<i64> {
    status(world).history.iter().map(|h| h.number).collect()
}

/// Measures what runs, and says when that was.
fn finish(world: &mut Observed, auc: f64, now: Timestamp) {
    answer(world, auc);
    step(world, now);
}

#[test]
fn stable_is_measured_every_night_and_each_value_is_fresh() {
    let mut world = nightly();
    step(&mut world, start());
    assert_eq!(
        status(&world).last_run.as_ref().unwrap().scheduled_time,
        None
    );
    finish(&mut world, 0.7, start());
    let quiet = plan(&world, at("2026-01-03T01:59:59Z"));
    assert_eq!(quiet.check_at, Some(at("2026-01-03T02:00:00Z")));
    for (day, auc) in [(3, 0.8), (4, 0.5)] {
        let due = at(&format!("2026-01-0{day}T02:00:00Z"));
        step(&mut world, due);
        let run = status(&world).last_run.clone().unwrap();
        assert_eq!((run.scheduled_time.unwrap().0, run.attempt), (due, 0));
        let end = due + SignedDuration::from_mins(1);
        finish(&mut world, auc, end);
        // Where a trigger looks: the last run of stable's revision.
        let last = status(&world)
            .runs
            .iter()
            .rfind(|r| r.revision.as_deref() == Some("aaaa"));
        let last = last.unwrap();
        assert_eq!(
            (
                last.completion_time.as_ref().unwrap().0,
                last.metrics[0].value
            ),
            (end, Some(auc))
        );
    }
    assert_eq!(numbers(&world), [1, 2, 3]);
    assert_eq!(status(&world).runs.len(), 1, "one for each key");
    assert_eq!(status(&world).history[2].values[0].value, 0.5);
    assert_eq!(status(&world).verdict, Verdict::Failed);
}

#[test]
fn nights_that_were_missed_are_made_up_for_once() {
    let mut world = nightly();
    step(&mut world, start());
    finish(&mut world, 0.7, start());
    let back = at("2026-01-09T12:00:00Z");
    step(&mut world, back);
    let run = status(&world).last_run.clone().unwrap();
    assert_eq!(run.scheduled_time.unwrap().0, at("2026-01-03T02:00:00Z"));
    finish(&mut world, 0.7, back);
    step(&mut world, back);
    assert_eq!(status(&world).count, 2);
    assert_eq!(
        status(&world).next_run_time.as_ref().unwrap().0,
        at("2026-01-10T02:00:00Z")
    );
}

#[test]
fn there_is_no_second_run_beside_a_running_one() {
    let mut world = nightly();
    step(&mut world, at("2026-01-03T01:59:00Z"));
    step(&mut world, at("2026-01-03T02:00:00Z"));
    assert_eq!((status(&world).count, world.jobs.len()), (1, 1));
    let later = at("2026-01-03T02:05:00Z");
    finish(&mut world, 0.7, later);
    step(&mut world, later);
    let run = status(&world).last_run.clone().unwrap();
    assert_eq!(
        (run.number, run.scheduled_time.unwrap().0),
        (2, at("2026-01-03T02:00:00Z"))
    );
}

#[test]
fn a_candidate_goes_first_and_the_night_is_made_up_for() {
    let mut world = nightly();
    step(&mut world, start());
    finish(&mut world, 0.7, start());
    let night = at("2026-01-03T02:00:00Z");
    step(&mut world, night);
    world.jobs.retain(|name, _| name == "quality-2");
    release(&mut world, trying(1));
    step(&mut world, night);
    let run = status(&world).last_run.clone().unwrap();
    assert_eq!((run.number, run.revision.as_deref()), (3, Some("bbbb")));
    assert_eq!(world.jobs.keys().collect::<Vec<_>>(), ["quality-3"]);
    finish(&mut world, 0.8, night);
    step(&mut world, night);
    let run = status(&world).last_run.clone().unwrap();
    assert_eq!(
        (
            run.number,
            run.revision.as_deref(),
            run.scheduled_time.map(|t| t.0)
        ),
        (4, Some("aaaa"), Some(night))
    );
    finish(&mut world, 0.7, night);
    // The candidate's verdict is still there for its rollout.
    let of = |revision: &str| {
        status(&world)
            .runs
            .iter()
            .filter(|r| r.revision.as_deref() == Some(revision))
            .count()
    };
    assert_eq!((of("aaaa"), of("bbbb")), (1, 1));
}

#[test]
fn a_suspended_schedule_begins_nothing_and_counts_from_when_it_goes_on() {
    let mut world = nightly();
    step(&mut world, start());
    finish(&mut world, 0.7, start());
    world.evaluation.spec.suspend = Some(true);
    step(&mut world, at("2026-01-05T02:00:00Z"));
    assert_eq!(
        (status(&world).count, &status(&world).next_run_time),
        (1, &None)
    );
    world.evaluation.spec.suspend = Some(false);
    step(&mut world, at("2026-01-05T03:00:00Z"));
    assert_eq!(status(&world).count, 1);
    assert_eq!(
        status(&world).next_run_time.as_ref().unwrap().0,
        at("2026-01-06T02:00:00Z")
    );
}

#[test]
fn a_schedule_that_can_not_be_read_is_said_and_candidates_are_measured_all_the_same() {
    let mut world = nightly();
    world.evaluation.spec.time_zone = Some("Mars/Base".to_owned());
    step(&mut world, start());
    assert_eq!(status(&world).verdict, Verdict::Running);
    finish(&mut world, 0.7, start());
    let ready = condition::get(&status(&world).conditions, "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", reason::INVALID_SCHEDULE)
    );
    assert!(ready.message.contains("Mars/Base"), "{}", ready.message);
    assert_eq!(status(&world).verdict, Verdict::Passed);
}

#[test]
fn history_is_as_long_as_the_limit_says() {
    let mut world = nightly();
    world.evaluation.spec.history_limit = Some(2);
    step(&mut world, start());
    finish(&mut world, 0.7, start());
    for day in 3..8 {
        let night = at(&format!("2026-01-0{day}T02:00:00Z"));
        step(&mut world, night);
        finish(&mut world, 0.7, night);
    }
    assert_eq!(numbers(&world), [5, 6]);
}

#[test]
fn a_file_is_measured_again_when_the_schedule_says_so() {
    let mut world = nightly();
    let target = json!({"predictions": {"uri": "pvc://data/p.csv", "label": "late"}});
    world.evaluation.spec.target = serde_json::from_value(target).unwrap();
    world.release = None;
    step(&mut world, start());
    finish(&mut world, 0.7, start());
    let night = at("2026-01-03T02:00:00Z");
    step(&mut world, night);
    finish(&mut world, 0.9, night);
    assert_eq!(numbers(&world), [1, 2]);
}

#[test]
fn old_runs_keep_what_gates_and_triggers_look_at() {
    let mut world = observed();
    for attempt in 1..=8 {
        release(&mut world, trying(attempt));
        step(&mut world, start());
        answer(&mut world, 0.7);
        let metrics = &mut world.answers.report.as_mut().unwrap().metrics;
        for name in [
            "stable.rocAuc",
            "drift.temp",
            "equalizedOddsDifference.carrier",
        ] {
            metrics.push(MetricValue {
                name: name.to_owned(),
                value: Some(0.1),
                ..MetricValue::default()
            });
        }
        step(&mut world, start());
    }
    let lengths: Vec<usize> = status(&world)
        .runs
        .iter()
        .map(|r| r.metrics.len())
        .collect();
    assert_eq!(lengths, [2, 2, 2, 4, 4, 4, 4, 4]);
}
