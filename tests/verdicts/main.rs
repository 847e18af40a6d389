//! How often rollouts are wrong, and how soon they find what is worse: simulated lives, decided by the operator's own engine.
//!
//! `make verdicts` runs 10,000 of each (`ROLLOUTS=…`) and prints what it found; `make test` runs some hundreds.

mod simulation;

use std::collections::BTreeMap;

use simulation::{End, LONG_BAKE, Scenario, USUAL, many, taken_back, within};

/// How often a rollout may be taken back wrongly, over all its gates, steps and bake: what `docs/rollouts.md` states.
const STATED: f64 = 0.01;

/// Wrong ones allowed among so many: the stated share, and three standard deviations of counting.
fn allowed(rollouts: u64) -> usize {
    let expected = STATED * rollouts as f64;
    (expected + 3.0 * expected.sqrt()) as usize
}

/// Two equal versions, four gates with no room at all.
fn equal() -> [(&'static str, Scenario); 5] {
    let sticky = Scenario::equal();
    let errors = 0.12;
    let long = Scenario {
        rollout: LONG_BAKE,
        ..sticky
    };
    [
        ("one caller makes 30 % of the traffic", sticky),
        ("some callers always fail", Scenario { errors, ..sticky }),
        ("nobody has a key", sticky.without_keys()),
        ("a bake of an hour", long),
        ("a bake of an hour, nobody has a key", long.without_keys()),
    ]
}

/// Real regressions, and the callers (requests, where nobody has a key) of the candidate within which 95 % of rollouts are taken back:
/// what `docs/rollouts.md` states.
fn regressions() -> [(&'static str, Scenario, usize); 4] {
    let usual = Scenario {
        rollout: USUAL,
        callers: 2_000,
        rate: 300.0,
        ..Scenario::equal()
    };
    let (more_errors, slower) = (5.0, 2.0);
    [
        (
            "five times the errors",
            Scenario {
                more_errors,
                ..usual
            },
            1_500,
        ),
        ("twice as slow", Scenario { slower, ..usual }, 400),
        (
            "three times as slow",
            Scenario {
                slower: 3.0,
                ..usual
            },
            150,
        ),
        (
            "twice as slow, nobody has a key",
            Scenario {
                slower,
                ..usual.without_keys()
            },
            400,
        ),
    ]
}

/// Runs two equal versions; says so, and gives the wrong ones.
fn wrong(name: &str, scenario: Scenario, rollouts: u64) -> usize {
    let ends = many(0..rollouts, scenario);
    let wrong = taken_back(&ends);
    println!(
        "the same version, {name}: {} of {rollouts} rollouts were taken back, {} are allowed",
        wrong.len(),
        allowed(rollouts)
    );
    for (gate, count) in by_gate(&wrong) {
        println!("    {count} by {gate}");
    }
    wrong.len()
}

/// Runs a real regression; says so, and gives the callers within which 95 % were taken back.
fn found(name: &str, scenario: Scenario, stated: usize, rollouts: u64) -> Option<usize> {
    let ends = many(0..rollouts, scenario);
    let found = within(&ends, 0.95);
    let shown = found.map_or("not".to_owned(), |n| format!("within {n}"));
    let half = within(&ends, 0.5).map_or("-".to_owned(), |n| n.to_string());
    println!(
        "{name}: 95 % of {rollouts} rollouts were taken back {shown} callers of the candidate, half within {half}; stated are {stated}"
    );
    found
}

/// Which gates were wrong.
fn by_gate(wrong: &[&End]) -> BTreeMap<String, usize> {
    let mut gates = BTreeMap::new();
    for end in wrong {
        let gate: Vec<&str> = end.why.split(' ').take(3).collect();
        *gates.entry(gate.join(" ")).or_default() += 1;
    }
    gates
}

#[test]
fn rollouts_of_the_same_version_are_taken_back_no_more_often_than_stated() {
    // Not optimised, a rollout takes seconds.
    for ((name, scenario), rollouts) in equal().into_iter().zip([40, 15, 15, 10, 20]) {
        let wrong = wrong(name, scenario, rollouts);
        assert!(wrong <= allowed(rollouts), "{name}: {wrong}");
    }
}

#[test]
fn a_candidate_three_times_as_slow_is_found_within_the_stated_number_of_callers() {
    let [.., (name, scenario, stated), _] = regressions();
    let within = found(name, scenario, stated, 4);
    assert!(within.is_some_and(|n| n <= stated), "{name}: {within:?}");
}

#[test]
#[ignore = "`make verdicts`: some minutes"]
fn ten_thousand_rollouts_keep_the_stated_numbers() {
    let asked = std::env::var("ROLLOUTS").ok().and_then(|n| n.parse().ok());
    let all: u64 = asked.unwrap_or(10_000);
    let mut broken = Vec::new();
    for (at, (name, scenario)) in equal().into_iter().enumerate() {
        // All of the first kind; of its variations a fifth each.
        let rollouts = if at == 0 { all } else { (all / 5).max(1) };
        if wrong(name, scenario, rollouts) > allowed(rollouts) {
            broken.push(name);
        }
    }
    for (name, scenario, stated) in regressions() {
        if found(name, scenario, stated, (all / 100).max(10)).is_none_or(|n| n > stated) {
            broken.push(name);
        }
    }
    assert!(broken.is_empty(), "these don't hold: {broken:?}");
}
