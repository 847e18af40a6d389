//! Every reader and parser of what others write, on inputs that nobody would write: no panic, no endless loop, no flood of memory.
//!
//! `make fuzz SECONDS=600` gives each target so long, with a new seed every run; as a suite of `make test` each gets the same thousand inputs every
//! time. Inputs are examples with bytes changed, cut, repeated, spliced and mixed with words of the format. What broke is written to `target/fuzz/`, and
//! `PERENNIAL_FUZZ_INPUT=FILE` runs it again. Built with the overflow checks of the dev profile.

mod targets;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use perennial::stats::random::Generator;

use targets::{TARGETS, Target};

/// Inputs without a time.
const INPUTS: u64 = 1000;
/// Longest input.
const LONGEST: usize = 1 << 16;
/// Longest that one input may take, in a debug build on a busy machine.
const SLOW: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let time = setting("PERENNIAL_FUZZ_SECONDS").map(|s| {
        let seconds = s.parse().expect("PERENNIAL_FUZZ_SECONDS is a number");
        Duration::from_secs_f64(seconds)
    });
    let seed = match (setting("PERENNIAL_FUZZ_SEED"), time) {
        (Some(seed), _) => seed.parse().expect("PERENNIAL_FUZZ_SEED is a number"),
        (None, None) => 1,
        (None, Some(_)) => std::time::UNIX_EPOCH
            .elapsed()
            .map_or(1, |t| t.as_nanos() as u64),
    };
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wanted = |target: &&Target| {
        filter.is_empty() || filter.iter().any(|f| target.name.contains(f.as_str()))
    };
    if let Some(file) = setting("PERENNIAL_FUZZ_INPUT") {
        let input = std::fs::read(&file).expect("the input can be read");
        TARGETS
            .iter()
            .filter(wanted)
            .for_each(|target| (target.run)(&input));
        return ExitCode::SUCCESS;
    }
    // Panics are reported by us, once each.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut passed, mut failed) = (0, 0);
    for target in TARGETS.iter().filter(wanted) {
        match run(target, seed, time) {
            Ok(inputs) => {
                passed += 1;
                println!("{:<12} {inputs} inputs", target.name);
            }
            Err(what) => {
                failed += 1;
                println!("{:<12} {what}", target.name);
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "seed {seed}\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    ExitCode::from(u8::from(failed > 0))
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// So long; without a time, [`INPUTS`].
fn run(target: &Target, seed: u64, time: Option<Duration>) -> Result<u64, String> {
    let mut generator = Generator::new(seed);
    let examples = (target.examples)();
    let started = Instant::now();
    let mut inputs = 0;
    // The examples as they are, then changed ones.
    let mut waiting = examples.clone();
    let more = |inputs| time.map_or(inputs < INPUTS, |time| started.elapsed() < time);
    while !waiting.is_empty() || more(inputs) {
        let input = waiting
            .pop()
            .unwrap_or_else(|| changed(&examples, target.words, &mut generator));
        let began = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let what = match ended {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                format!("panicked: {}", text.unwrap_or_default())
            }
            Ok(()) if began.elapsed() > SLOW => format!("took {:?}", began.elapsed()),
            Ok(()) => {
                inputs += 1;
                continue;
            }
        };
        return Err(kept(target, &input, &what));
    }
    Ok(inputs)
}

/// Keeps what broke.
fn kept(target: &Target, input: &[u8], what: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    let file = folder.join(format!("{}-{:016x}", target.name, hash(input)));
    let stored = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
    let place = stored.map_or_else(|e| e.to_string(), |()| file.display().to_string());
    format!(
        "{what}\n    PERENNIAL_FUZZ_INPUT={place} cargo test --test fuzz -- {}",
        target.name
    )
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// An example with one to eight changes.
fn changed(examples: &[Vec<u8>], words: &[&str], generator: &mut Generator) -> Vec<u8> {
    let mut input = pick(examples, generator).cloned().unwrap_or_default();
    for _ in 0..=generator.below(8) {
        let at = generator.below(input.len() + 1);
        let most = 1 << generator.below(10);
        let to = (at + generator.below(most)).min(input.len());
        match generator.below(9) {
            0 if at < input.len() => input[at] ^= 1 << generator.below(8),
            1 if at < input.len() => input[at] = generator.below(256) as u8,
            // Numbers that lengths and counts are made of.
            2 if at + 4 <= input.len() => {
                let number = [
                    0,
                    1,
                    u32::MAX,
                    i32::MAX as u32,
                    0x8000_0000,
                    generator.below(1 << 20) as u32,
                ];
                let number = pick(&number, generator).copied().unwrap_or_default();
                input[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            3 => {
                input.drain(at..to);
            }
            4 => {
                let part = input[at..to].to_vec();
                for _ in 0..=generator.below(16) {
                    input.splice(at..at, part.iter().copied());
                }
            }
            5 => input.truncate(at),
            6 => {
                let other = pick(examples, generator).cloned().unwrap_or_default();
                let from = generator.below(other.len() + 1);
                input.splice(at..to, other[from..].iter().copied());
            }
            _ => {
                let word = pick(words, generator).copied().unwrap_or_default();
                let end = if generator.below(2) == 0 { at } else { to };
                input.splice(at..end, word.bytes());
            }
        }
        input.truncate(LONGEST);
    }
    input
}

fn pick<'a, T>(from: &'a [T], generator: &mut Generator) -> Option<&'a T> {
    (!from.is_empty()).then(|| &from[generator.below(from.len())])
}
