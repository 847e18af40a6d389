//! Random lives of releases, with the operator's real code and everything around it simulated; see docs/simulation.md.

mod api;
mod check;
mod cluster;
mod complaints;
mod end;
mod faults;
mod gateway;
mod health;
mod inputs;
mod ladder;
mod life;
mod merge;
mod nature;
mod past;
mod process;
mod retrainings;
mod script;
mod world;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use faults::{Fault, Weather};
use life::{Ended, live};
use script::Script;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of a run that says nothing else: a life takes a second in code that isn't optimised.
const SEEDS: u64 = 40;

/// Lives a seed: in bad weather and, where the end must be the same, in calm.
fn lives(seed: u64, traced: bool) -> Ended {
    let script = Script::new(seed);
    let weather = if script.paced {
        Weather::Soft
    } else {
        Weather::Wild
    };
    let mut ended = live(seed, &script, weather, traced);
    if script.paced && ended.violation.is_none() {
        let calm = live(seed, &script, Weather::Calm, traced);
        ended.steps += calm.steps;
        if let Some(violation) = calm.violation {
            ended.violation = Some(format!("in calm weather: {violation}"));
        } else if calm.state != ended.state {
            ended.violation = Some(format!(
                "it ended as\n{}and in calm weather as\n{}",
                ended.state, calm.state
            ));
        }
        ended.trace = format!(
            "{}\n===== the same life in calm weather\n{}",
            ended.trace, calm.trace
        );
    }
    ended
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|v| !v.is_empty())?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not `{value}`")),
    )
}

/// `SEED=n` replays one life; `SEEDS=n START=m` runs so many from there.
#[test]
fn random_lives_keep_every_invariant_and_end_as_they_would_have_in_calm_weather() {
    if let Some(seed) = setting("SEED") {
        println!("{:#?}", Script::new(seed));
        let ended = lives(seed, true);
        println!("{}\n{}", ended.trace, ended.state);
        assert!(
            ended.violation.is_none(),
            "seed {seed}: {}",
            ended.violation.unwrap_or_default()
        );
        return;
    }
    let start = setting("START").unwrap_or(0);
    let count = setting("SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let (next, steps, stop) = (
        AtomicU64::new(start),
        AtomicU64::new(0),
        AtomicBool::new(false),
    );
    let counts = Mutex::new(vec![0u64; Fault::ALL.len()]);
    let failures = Mutex::new(Vec::new());
    let most = usize::try_from(setting("FAILURES").unwrap_or(1)).unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= start + count {
                        return;
                    }
                    let ended = std::panic::catch_unwind(|| lives(seed, false));
                    let violation = match ended {
                        Ok(ended) => {
                            steps.fetch_add(ended.steps, Ordering::Relaxed);
                            let mut counts = counts.lock().unwrap();
                            for (sum, more) in counts.iter_mut().zip(ended.faults) {
                                *sum += more;
                            }
                            ended.violation
                        }
                        Err(_) => Some("it panicked".to_owned()),
                    };
                    if let Some(violation) = violation {
                        println!(
                            "\nseed {seed}: {violation}\nreplay it with: make sim SEED={seed}"
                        );
                        let mut failures = failures.lock().unwrap();
                        failures.push(seed);
                        if failures.len() >= most {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let lived = next.load(Ordering::Relaxed).min(start + count) - start;
    println!(
        "{lived} seeds from {start}, {} steps, {:.1} s",
        steps.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64()
    );
    for (fault, count) in Fault::ALL.iter().zip(counts.lock().unwrap().iter()) {
        println!("{count:>10}  {}", fault.words());
    }
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "lives that went wrong: {failures:?}");
}
