//! JUnit's XML, as pytest, Maven, Gradle, Jest and others write it: `passRate` over the test cases that ran, and `skippedTests`.
//!
//! A case with `error` could not be tried (pytest: its set-up broke), one with `failure` was, and did not pass.

use quick_xml::{Reader, events::Event};

use super::{Results, mean, number};
use crate::api::gate::MetricValue;

/// Elements within elements: suites may hold suites.
const DEEPEST: usize = 64;

/// How one case ended; the worst counts where there are several.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Ending {
    Passed,
    Skipped,
    Failed,
    Error,
}

pub(super) fn parse(bytes: &[u8], seed: u64) -> Result<Results, String> {
    let mut reader = Reader::from_reader(bytes);
    let mut open: Vec<Vec<u8>> = Vec::new();
    let (mut cases, mut current) = (Vec::new(), None);
    let mut root = false;
    loop {
        let at = reader.buffer_position();
        let wrong = |what: String| format!("at byte {at}: {what}");
        let event = reader
            .read_event()
            .map_err(|e| wrong(format!("it is no XML: {e}")))?;
        let (element, empty) = match &event {
            Event::Start(element) => (element, false),
            Event::Empty(element) => (element, true),
            Event::End(_) => {
                if open.pop().as_deref() == Some(b"testcase") {
                    cases.extend(current.take());
                }
                continue;
            }
            Event::Eof => break,
            _ => continue,
        };
        let name = element.name().as_ref().to_vec();
        if open.is_empty() {
            if root || !matches!(name.as_slice(), b"testsuites" | b"testsuite") {
                return Err(format!(
                    "the element `{}` stands where JUnit has one testsuites or testsuite",
                    String::from_utf8_lossy(&name)
                ));
            }
            root = true;
        }
        let ending = match name.as_slice() {
            b"failure" => Some(Ending::Failed),
            b"error" => Some(Ending::Error),
            b"skipped" => Some(Ending::Skipped),
            _ => None,
        };
        let within = open.last().map(Vec::as_slice) == Some(b"testcase");
        if let (Some(ending), true, Some(worst)) = (ending, within, current.as_mut())
            && ending > *worst
        {
            *worst = ending;
        }
        if name == b"testcase" {
            if current.is_some() {
                return Err(wrong("a testcase stands within another".to_owned()));
            }
            match empty {
                true => cases.push(Ending::Passed),
                false => current = Some(Ending::Passed),
            }
        }
        if !empty {
            if open.len() >= DEEPEST {
                return Err(wrong(format!("elements stand more than {DEEPEST} deep")));
            }
            open.push(name);
        }
    }
    if let Some(name) = open.last() {
        return Err(format!(
            "it ends within the element `{}`",
            String::from_utf8_lossy(name)
        ));
    }
    if !root {
        return Err("it has no element testsuites or testsuite".to_owned());
    }
    if cases.is_empty() {
        return Err("it has no testcase: nothing was tested".to_owned());
    }
    let of = |ending: Ending| cases.iter().filter(|e| **e == ending).count() as u64;
    let (failed, errors, skipped) = (of(Ending::Failed), of(Ending::Error), of(Ending::Skipped));
    let ran = cases.iter().filter_map(|ending| match ending {
        Ending::Passed => Some(1.0),
        Ending::Failed => Some(0.0),
        Ending::Skipped | Ending::Error => None,
    });
    let items = cases.len() as u64 - skipped;
    Ok(Results {
        metrics: vec![
            mean("passRate", ran.collect(), None, seed),
            MetricValue {
                samples: i64::try_from(cases.len()).ok(),
                ..number("skippedTests", Some(skipped as f64))
            },
        ],
        items,
        errors,
        failed,
        ..Results::default()
    })
}
