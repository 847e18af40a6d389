//! What Argo CD shows: the chart's health script, run by a real Lua on every kind of status that lives bring about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    api::text,
    faults::{Faults, Weather},
    life::lived,
    script::Script,
};

/// Seeds whose lives have each shape, in bad weather and in calm.
const SEEDS: u64 = 12;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The scripts, by kind.
fn scripts() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("charts/perennial/files/argo-cd.yaml")).unwrap();
    let patch: Value = serde_yaml::from_str(&text).unwrap();
    let scripts = patch["data"].as_object().unwrap().iter();
    scripts
        .map(|(key, script)| {
            let kind = key.strip_prefix("resource.customizations.health.perennial.dev_");
            let script = script.as_str().unwrap().to_owned();
            (kind.unwrap().to_owned(), script)
        })
        .collect()
}

/// A value as Lua writes it; what is null isn't there.
fn literal(value: &Value) -> String {
    let quoted = |text: &str| {
        let escaped = text.bytes().map(|b| match b {
            b' '..=b'~' if b != b'"' && b != b'\\' => char::from(b).to_string(),
            _ => format!("\\{b:03}"),
        });
        format!("\"{}\"", escaped.collect::<String>())
    };
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(literal).collect();
            format!("{{{}}}", all.join(","))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(k, v)| format!("[{}]={}", quoted(k), literal(v)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}

/// The health of each object, and its message.
fn health(objects: &[Value]) -> Vec<(String, String)> {
    // As Argo CD's, this is Lua 5.1.
    let installed = Command::new(root().join("hack/cluster/packages"))
        .arg("lua5.1")
        .status();
    assert!(
        installed.is_ok_and(|s| s.success()),
        "this test needs Debian's lua5.1"
    );
    let mut program = String::from("local script = {}\n");
    for (kind, script) in scripts() {
        let _ = writeln!(program, "script.{kind} = function(obj)\n{script}\nend");
    }
    program += "local function say(obj)\nlocal found = script[obj.kind](obj)\nprint(found.status .. \"\\t\" .. tostring(found.message))\nend\n";
    for object in objects {
        let _ = writeln!(program, "say({})", literal(object));
    }
    let file = std::env::temp_dir().join(format!("perennial-health-{}.lua", std::process::id()));
    std::fs::write(&file, program).unwrap();
    let output = Command::new("lua5.1").arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().map(|line| {
        let (status, message) = line.split_once('\t').unwrap();
        (status.to_owned(), message.to_owned())
    });
    lines.collect()
}

fn is(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c["type"] == kind && c["status"] == "True")
}

/// kserve#3973, #4791, #1859: Progressing for ever in Argo CD; Ready while it crashes.
#[test]
fn argo_cd_shows_every_status_as_what_it_is_and_nothing_at_rest_as_progressing() {
    assert_eq!(
        scripts().into_keys().collect::<Vec<_>>(),
        [
            "Evaluation",
            "ModelDeployment",
            "PromptRelease",
            "TrainingJob"
        ]
    );
    let (mut written, mut resting) = (BTreeMap::new(), Vec::new());
    let mut shapes = BTreeSet::new();
    for seed in 0..SEEDS {
        let script = Script::new(seed);
        shapes.insert(format!("{:?}", script.shape));
        for weather in [Weather::Calm, Weather::Soft, Weather::Wild] {
            // What only wild scripts say is not for other weather, and the other way round.
            if (weather == Weather::Wild) == script.paced {
                continue;
            }
            let mut faults = Faults::new(seed, weather);
            faults.sampled = true;
            let ended = lived(seed, &script, faults, false, false);
            assert_eq!(ended.violation, None, "seed {seed}");
            written.extend(ended.samples);
            resting.extend(ended.resting);
        }
    }
    assert_eq!(shapes.len(), 3, "{shapes:?}");
    let written: Vec<Value> = written.into_values().collect();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (object, (status, message)) in written.iter().zip(health(&written)) {
        let (kind, phase) = (text(object, "/kind"), text(object, "/status/phase"));
        *seen.entry(format!("{kind} {status}")).or_default() += 1;
        let what = || format!("{status} \"{message}\": {object:#}");
        assert!(!message.is_empty() && message != "nil", "{}", what());
        match status.as_str() {
            "Healthy" => assert!(is(object, "Ready"), "{}", what()),
            "Degraded" => assert!(
                is(object, "Stalled") || is(object, "Failed") || phase == "Degraded",
                "{}",
                what()
            ),
            "Suspended" => assert!(
                is(object, "Paused") || message.contains("replicas is 0"),
                "{}",
                what()
            ),
            "Progressing" => assert!(is(object, "Reconciling"), "{}", what()),
            other => panic!("Argo CD knows no {other}"),
        }
        // What serves, serves.
        if kind == "ModelDeployment" || kind == "PromptRelease" {
            assert!(status != "Healthy" || is(object, "Available"), "{}", what());
        }
    }
    for wanted in [
        "Evaluation Healthy",
        "Evaluation Progressing",
        "ModelDeployment Degraded",
        "ModelDeployment Healthy",
        "ModelDeployment Progressing",
        "ModelDeployment Suspended",
        "PromptRelease Healthy",
        "PromptRelease Progressing",
        "TrainingJob Degraded",
        "TrainingJob Healthy",
        "TrainingJob Progressing",
    ] {
        assert!(seen.contains_key(wanted), "{wanted} isn't among {seen:?}");
    }
    for (object, (status, message)) in resting.iter().zip(health(&resting)) {
        assert!(
            status != "Progressing",
            "at rest, and for ever: \"{message}\": {object:#}"
        );
    }
    // A spec that the operator hasn't seen isn't healthy because the one before was.
    let mut unseen: Vec<Value> = resting
        .iter()
        .filter(|object| is(object, "Ready"))
        .cloned()
        .collect();
    for object in &mut unseen {
        object["metadata"]["generation"] = 1_000_000.into();
    }
    unseen.push(serde_json::json!({"kind": "TrainingJob", "metadata": {"generation": 1}}));
    assert!(
        health(&unseen)
            .iter()
            .all(|(status, _)| status == "Progressing")
    );
}
