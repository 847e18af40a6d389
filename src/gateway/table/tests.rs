//! What the table says of whom.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    sync::atomic::Ordering,
    time::Duration,
};

use super::*;
use crate::gateway::{
    objects::{ModelRevisionObject, Objects, ReleaseObject, Side, Slice},
    policy::EjectionRule,
    route::{self, Why},
};

/// A release `m` with stable `aaaaaaaaaa` and candidate `bbbbbbbbbb`, each with one endpoint.
pub fn objects(weight: i32, epoch: i64) -> Objects {
    let mut objects = Objects::default();
    let side = |hash: &str| {
        Some(Side {
            revision: hash.repeat(10),
            version: Some(format!("v-{hash}")),
        })
    };
    objects.releases.insert(
        (Kind::Model, "m".into()),
        ReleaseObject {
            uid: "9e0f5c5e-0000-4000-8000-000000000001".into(),
            port: Some(20001),
            stable: side("a"),
            candidate: side("b"),
            weight,
            epoch,
            ..ReleaseObject::default()
        },
    );
    for (hash, port) in [("a", 9001), ("b", 9002)] {
        let hash = hash.repeat(10);
        objects.revisions.insert(
            (Kind::Model, "m".into(), hash.clone()),
            RevisionObject::Model(ModelRevisionObject {
                port,
                model: Some("arrival".into()),
                ..ModelRevisionObject::default()
            }),
        );
        let service = format!("m-{hash}");
        objects.slices.insert(
            format!("{service}-1"),
            Slice {
                service,
                sick: Vec::new(),
                ready: vec![[127, 0, 0, 1].into()],
                port: None,
            },
        );
    }
    objects
}

/// The release of [`objects`].
pub fn release_of(table: &Table) -> Arc<Release> {
    table.by_port(20001).unwrap().clone()
}

fn build(objects: &Objects, before: &Table) -> Table {
    Table::build(objects, before, &BTreeSet::new())
}

fn release(objects: &Objects) -> Arc<Release> {
    let table = build(objects, &Table::default());
    table.by_port(20001).unwrap().clone()
}

fn candidates(weight: i32, callers: usize) -> HashSet<usize> {
    let release = release(&objects(weight, 1));
    (0..callers)
        .filter(|i| {
            let key = format!("caller-{i}");
            route::choose(&release, Some(&key), None, || 0).is_some_and(|c| c.candidate)
        })
        .collect()
}

#[test]
fn the_split_of_these_keyed_callers_is_within_half_a_percent_at_ten_thousand() {
    for weight in [0, 1, 10, 50, 90, 100] {
        let share = candidates(weight, 10_000).len() as f64 / 10_000.0;
        assert!(
            (share - f64::from(weight) / 100.0).abs() <= 0.005,
            "{weight}: {share}"
        );
    }
}

#[test]
fn of_ten_thousand_requests_without_a_key_the_share_is_the_weight_wherever_one_begins_to_count() {
    const REQUESTS: u64 = 10_000;
    for weight in 0..=100 {
        let release = release(&objects(weight, 1));
        for (start, first) in [(0, 0), (1 << 63, 1), (0x1234_5678_9abc_def0, 98_765)] {
            let to_candidate = |n: &u64| {
                let turn = || route::place(start, *n);
                route::choose(&release, None, None, turn).is_some_and(|c| c.candidate)
            };
            let tried = (first..first + REQUESTS).filter(to_candidate).count();
            let share = tried as f64 / REQUESTS as f64;
            assert!(
                (share - f64::from(weight) / 100.0).abs() <= 0.001,
                "{weight}: {share}"
            );
        }
    }
}

#[test]
fn turns_go_on_through_changes_of_the_weight() {
    let before = build(&objects(10, 1), &Table::default());
    let turns = before.by_port(20001).unwrap().turns.clone();
    let after = build(&objects(50, 2), &before);
    assert!(Arc::ptr_eq(&turns, &after.by_port(20001).unwrap().turns));
}

#[test]
fn raising_the_weight_only_moves_callers_from_stable_to_candidate() {
    let mut before = HashSet::new();
    for weight in [0, 1, 5, 10, 25, 50, 75, 100] {
        let now = candidates(weight, 3_000);
        assert!(before.is_subset(&now), "somebody went back at {weight}");
        before = now;
    }
}

#[test]
fn each_candidate_is_tried_on_other_callers() {
    let first: HashSet<usize> = (0..2_000)
        .filter(|i| route::bucket("u", "aaaaaaaaaa", &format!("{i}")) < 0.1)
        .collect();
    let second: HashSet<usize> = (0..2_000)
        .filter(|i| route::bucket("u", "bbbbbbbbbb", &format!("{i}")) < 0.1)
        .collect();
    assert!(first.intersection(&second).count() < first.len() / 2);
    // Bits of SHA-256("uck"), computed apart.
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b"uck"));
    let bits = u64::from_str_radix(&digest[..16], 16).unwrap() >> 11;
    assert!(
        (route::bucket("u", "c", "k") - bits as f64 / 9_007_199_254_740_992.0).abs() < f64::EPSILON
    );
}

#[test]
fn a_candidate_without_ready_endpoints_gets_nobody_and_its_epoch_is_not_served() {
    let mut objects = objects(100, 7);
    objects.slices.retain(|_, s| s.service.ends_with('a'));
    let release = release(&objects);
    let chosen = route::choose(&release, Some("k"), None, || 0).unwrap();
    assert_eq!((chosen.candidate, chosen.why), (false, Why::FellBack));
    assert!(release.served.epoch < 7 && release.served.waiting.is_some());
}

#[test]
fn when_no_pod_is_ready_those_that_are_there_are_asked_rather_than_nobody() {
    let mut objects = objects(0, 7);
    for slice in objects.slices.values_mut() {
        slice.sick = std::mem::take(&mut slice.ready);
    }
    let release = release(&objects);
    let stable = release.stable.as_ref().unwrap();
    assert!(!stable.is_available());
    let Backend::Model { endpoints, .. } = &stable.backend else {
        panic!()
    };
    assert!(endpoints.pick(&[], 0).is_some());
}

#[test]
fn an_epoch_that_was_served_stays_served_when_pods_come_and_go() {
    let first = build(&objects(10, 7), &Table::default());
    assert_eq!(first.by_port(20001).unwrap().served.epoch, 7);
    let mut gone = objects(10, 7);
    gone.slices.retain(|_, s| s.service.ends_with('a'));
    let second = build(&gone, &first);
    assert_eq!(second.by_port(20001).unwrap().served.epoch, 7);
    gone.releases.values_mut().for_each(|r| r.epoch = 8);
    let third = build(&gone, &second);
    assert_eq!(third.by_port(20001).unwrap().served.epoch, 7);
    // Back to stable: what the candidate lacks matters no more.
    gone.releases
        .values_mut()
        .for_each(|r| (r.epoch, r.weight) = (9, 0));
    assert_eq!(build(&gone, &third).by_port(20001).unwrap().served.epoch, 9);
}

#[test]
fn a_caller_without_a_key_has_its_turn_and_one_with_a_version_stays() {
    let release = release(&objects(50, 1));
    let side = |turn| {
        route::choose(&release, None, None, || turn)
            .map(|c| (c.candidate, c.why))
            .unwrap()
    };
    assert_eq!(
        (side(0), side(u64::MAX)),
        ((true, Why::Turn), (false, Why::Turn))
    );
    let pinned = |version| {
        let no_turn = || panic!("turns are of those without a key");
        route::choose(&release, Some("k"), Some(version), no_turn)
            .map(|c| (c.candidate, c.why))
            .unwrap()
    };
    assert_eq!(pinned("aaaaaaaaaa"), (false, Why::Version));
    assert_eq!(pinned("bbbbbbbbbb"), (true, Why::Version));
    assert_eq!(pinned("v0").1, Why::Key);
    let stopped = self::release(&objects(0, 2));
    let chosen = route::choose(&stopped, Some("k"), Some("bbbbbbbbbb"), || 0).unwrap();
    assert!(
        !chosen.candidate,
        "weight 0 is nobody, whatever they ask for"
    );
}

#[test]
fn what_did_not_change_is_taken_over_with_its_counters() {
    let objects = objects(10, 1);
    let first = build(&objects, &Table::default());
    let a = first.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
    let second = build(&objects, &first);
    assert!(Arc::ptr_eq(
        a,
        second.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap()
    ));
    let mut more = objects.clone();
    more.slices.insert(
        "x".into(),
        Slice {
            service: "m-aaaaaaaaaa".into(),
            ready: vec![[127, 0, 0, 2].into()],
            sick: Vec::new(),
            port: None,
        },
    );
    let third = build(&more, &second);
    let b = third.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
    assert_eq!(b.endpoints().len(), 2);
    assert!(Arc::ptr_eq(&a.endpoints()[0], &b.endpoints()[0]));
}

#[test]
fn of_two_releases_with_one_port_the_smaller_uid_has_it() {
    let mut objects = objects(0, 1);
    let mut other = objects.releases[&(Kind::Model, "m".to_owned())].clone();
    other.uid = "0".into();
    objects.releases.insert((Kind::Model, "n".into()), other);
    let table = build(&objects, &Table::default());
    assert_eq!(table.by_port(20001).unwrap().name, "n");
    assert!(
        table
            .by_name(Kind::Model, "m")
            .unwrap()
            .served
            .waiting
            .is_some()
    );
}

#[test]
fn a_model_is_found_by_its_name_only_if_one_release_serves_it() {
    let mut objects = objects(0, 1);
    let table = build(&objects, &Table::default());
    assert_eq!(table.by_model("arrival").unwrap().name, "m");
    let mut other = objects.releases[&(Kind::Model, "m".to_owned())].clone();
    (other.uid, other.port) = ("2".into(), Some(20002));
    objects.releases.insert((Kind::Model, "n".into()), other);
    let model = objects.revisions.values().next().unwrap().clone();
    objects
        .revisions
        .insert((Kind::Model, "n".into(), "a".repeat(10)), model);
    let table = build(&objects, &Table::default());
    assert!(table.by_model("arrival").is_none() && table.by_model("n").is_some());
}

#[test]
fn endpoints_take_turns_and_the_busy_one_waits() {
    let mut objects = objects(0, 1);
    objects
        .slices
        .values_mut()
        .for_each(|s| s.ready = (1..4).map(|i| [10, 0, 0, i].into()).collect());
    let table = build(&objects, &Table::default());
    let revision = table.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
    let Backend::Model { endpoints, .. } = &revision.backend else {
        panic!("a model")
    };
    let seen: HashSet<_> = (0..3)
        .map(|_| endpoints.pick(&[], 0).unwrap().address)
        .collect();
    assert_eq!(seen.len(), 3);
    endpoints.list[0].open.store(9, Ordering::Relaxed);
    assert!((0..9).all(|_| endpoints.pick(&[], 0).unwrap().address != endpoints.list[0].address));
    let failed = endpoints.list[1].address;
    assert!((0..9).all(|_| endpoints.pick(&[failed], 0).unwrap().address != failed));
}

#[test]
fn a_pod_that_keeps_failing_is_left_out_for_longer_each_time_and_never_more_than_half_are() {
    let rule = EjectionRule {
        failures: 3,
        time: Duration::from_secs(10),
        longest: Duration::from_secs(35),
    };
    let mut objects = objects(0, 1);
    objects
        .slices
        .values_mut()
        .for_each(|s| s.ready = (1..5).map(|i| [10, 0, 0, i].into()).collect());
    let table = build(&objects, &Table::default());
    let revision = table.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
    let Backend::Model { endpoints, .. } = &revision.backend else {
        panic!("a model")
    };
    let [a, b, c, _] = &endpoints.list[..] else {
        panic!("four pods")
    };
    let fails = |e: &Endpoint, times: usize, now: u64| {
        (0..times)
            .filter(|_| endpoints.failed(e, &rule, now))
            .count()
    };
    assert_eq!(fails(a, 2, 0), 0);
    a.succeeded(0);
    assert_eq!(fails(a, 2, 0), 0, "they must follow each other");
    assert_eq!(fails(a, 1, 0), 1);
    let picked = |now: u64| -> HashSet<SocketAddr> {
        (0..20)
            .map(|_| endpoints.pick(&[], now).unwrap().address)
            .collect()
    };
    assert!(!picked(9_999).contains(&a.address) && picked(10_000).contains(&a.address));
    // Back and failing again at once: twice as long, and so on to the longest.
    for (now, length) in [(10_000, 20_000), (30_000, 35_000), (65_000, 35_000)] {
        assert_eq!(fails(a, 1, now), 1);
        assert!(a.is_ejected(now + length - 1) && !a.is_ejected(now + length));
    }
    assert_eq!(fails(b, 3, 70_000), 1);
    assert_eq!(fails(c, 9, 70_000), 0, "half of them are out");
    assert_eq!(picked(70_000).len(), 2);
    // A table that is built anew knows it still.
    let more = build(&objects, &table);
    let again = more.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
    assert!(again.endpoints()[1].is_ejected(70_001));
}

#[test]
fn a_single_pod_is_never_left_out() {
    let table = build(&objects(0, 1), &Table::default());
    let revision = table.revision(Kind::Model, "m", "aaaaaaaaaa").unwrap();
    let Backend::Model { endpoints, .. } = &revision.backend else {
        panic!("a model")
    };
    let only = &endpoints.list[0];
    assert!((0..99).all(|_| !endpoints.failed(only, &EjectionRule::default(), 0)));
}

#[test]
fn a_limit_is_taken_over_with_what_is_open_unless_it_is_another() {
    let limit = |concurrent: i32| {
        let mut objects = objects(10, 1);
        objects.releases.values_mut().for_each(|r| {
            r.traffic.limits = Some(crate::api::traffic::Limits {
                concurrent: Some(concurrent),
                ..Default::default()
            });
        });
        objects
    };
    let first = build(&limit(5), &Table::default());
    let second = build(&limit(5), &first);
    let third = build(&limit(6), &second);
    let of = |table: &Table| table.by_port(20001).unwrap().breakers["aaaaaaaaaa"].clone();
    assert!(Arc::ptr_eq(&of(&first), &of(&second)));
    assert_eq!(of(&third).concurrent, 6);
}
