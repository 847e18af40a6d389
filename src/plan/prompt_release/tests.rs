use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        GATEWAY_RELEASE_PORTS, PromptRelease, annotation,
        condition::{self, kind},
        model_deployment::ReleasePhase,
        rollout::{Outcome, RolloutState},
    },
    plan::{Action, Plan},
    stats::bucket::{Gateway, ReleaseMeasurements},
};

/// A release, its ControllerRevisions and its gateway, with everything that is planned carried out.
struct World {
    observed: Observed,
    now: Timestamp,
    writes: Vec<String>,
}

fn release(content: &str, extra: Value) -> PromptRelease {
    let mut spec = json!({
        "prompt": {"messages": [{"role": "user", "content": content}]},
        "backend": {"url": "http://llm.models.svc:8000/v1", "model": "small"},
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "perennial.dev/v1alpha1", "kind": "PromptRelease",
        "metadata": {"name": "greet", "namespace": "apps", "uid": "u-1", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

impl World {
    fn new(release: PromptRelease) -> Self {
        Self {
            observed: Observed {
                release: Arc::new(release),
                complete: true,
                evaluations: BTreeMap::new(),
                revisions: Vec::new(),
                live: ReleaseMeasurements {
                    gateways: vec![Gateway {
                        pod: "gateway".into(),
                        ready: true,
                        ..Gateway::default()
                    }],
                    ..ReleaseMeasurements::default()
                },
                ports: Vec::new(),
            },
            now: "2026-03-02T09:00:00Z".parse().unwrap(),
            writes: Vec::new(),
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut PromptRelease)) {
        let release = Arc::make_mut(&mut self.observed.release);
        change(release);
        release.metadata.generation = release.metadata.generation.map(|g| g + 1);
    }

    fn round(&mut self) -> Plan<Status> {
        self.now += jiff::SignedDuration::from_secs(5);
        let plan = plan(&self.observed, self.now);
        self.writes.clear();
        for action in &plan.actions {
            match action {
                Action::Apply(value) if value["kind"] == "ControllerRevision" => {
                    let object: ControllerRevision = serde_json::from_value(value.clone()).unwrap();
                    let name = object.metadata.name.clone();
                    let same = |r: &Arc<ControllerRevision>| r.metadata.name == name;
                    let revisions = &mut self.observed.revisions;
                    match revisions.iter().position(same) {
                        Some(at) if *revisions[at] == object => continue,
                        Some(at) => revisions[at] = Arc::new(object),
                        None => revisions.push(Arc::new(object)),
                    }
                    self.writes.push("ControllerRevision".into());
                }
                Action::Apply(value) => self.writes.push(value["kind"].as_str().unwrap().into()),
                Action::Status(status) => {
                    let release = Arc::make_mut(&mut self.observed.release);
                    if release.status.as_ref() != Some(status) {
                        release.status = Some((**status).clone());
                        self.writes.push("Status".into());
                    }
                }
                other => self.writes.push(format!("{other:?}")),
            }
        }
        let epoch = self.status().rollout.as_ref().map(|r| r.epoch);
        self.observed.live.gateways[0].epoch = epoch;
        plan
    }

    fn rounds(&mut self, n: usize) {
        for _ in 0..n {
            self.round();
        }
    }

    fn status(&self) -> &Status {
        self.observed.release.status.as_ref().unwrap()
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let found = condition::get(&self.status().conditions, kind).unwrap();
        (
            found.status.clone(),
            found.reason.clone(),
            found.message.clone(),
        )
    }
}

#[test]
fn a_release_is_not_ready_before_its_service_leads_to_the_gateway() {
    let mut world = World::new(release("Greet {{ name }} in one line.", json!({})));
    world.observed.live.unreachable = Some("Service greet has no ready endpoint".into());
    world.rounds(4);
    for kind in [kind::READY, kind::AVAILABLE] {
        let (status, reason, message) = world.condition(kind);
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "ServiceUnreachable")
        );
        assert!(message.contains("Service greet"), "{message}");
    }
    world.observed.live.unreachable = None;
    world.round();
    assert_eq!(world.condition(kind::READY).0, "True");
}

#[test]
fn the_first_version_serves_at_its_own_port_and_then_nothing_is_written() {
    let mut world = World::new(release("Greet {{ name }} in one line.", json!({})));
    let first = world.round();
    let Action::Apply(revision) = &first.actions[0] else {
        panic!("{:?}", first.actions[0]);
    };
    assert_eq!(revision["kind"], "ControllerRevision");
    assert!(matches!(first.actions[1], Action::Status(_)));
    world.rounds(3);
    let status = world.status();
    assert_eq!(status.phase, ReleasePhase::Healthy, "{}", status.message);
    assert_eq!(
        status
            .stable
            .as_ref()
            .unwrap()
            .version
            .as_ref()
            .unwrap()
            .len(),
        64
    );
    assert_eq!(status.url.as_deref(), Some("http://greet.apps.svc"));
    let port = status.gateway.as_ref().unwrap().port;
    assert!(GATEWAY_RELEASE_PORTS.contains(&u16::try_from(port).unwrap()));
    let service = first.actions.iter().find_map(|a| match a {
        Action::Apply(v) if v["kind"] == "Service" => Some(v.clone()),
        _ => None,
    });
    assert_eq!(service.unwrap()["spec"]["ports"][0]["targetPort"], port);
    assert_eq!(world.condition(kind::READY).0, "True");
    assert_eq!(world.condition(kind::RENDERED).0, "True");
    let marks = world.observed.revisions[0].metadata.annotations.clone();
    assert!(marks.unwrap().contains_key(annotation::STABLE_SINCE));
    world.round();
    // The Service is applied again and again; the shell leaves out what is there.
    assert_eq!(world.writes, ["Service"]);
}

#[test]
fn a_new_text_is_a_new_version_and_a_new_backend_only_a_new_revision() {
    let mut world = World::new(release("Greet {{ name }}.", json!({})));
    world.rounds(4);
    let before = world.status().stable.clone().unwrap();
    world.edit(|r| r.spec.backend.model = "large".into());
    world.rounds(2);
    let candidate = world.status().candidate.clone().unwrap();
    assert_eq!(candidate.version, before.version);
    assert_ne!(candidate.revision, before.revision);
    world.edit(|r| r.spec.prompt.messages[0].content = "Welcome {{ name }}.".into());
    world.rounds(2);
    let candidate = world.status().candidate.clone().unwrap();
    assert_ne!(candidate.version, before.version);
    let history = &world.status().history;
    assert_eq!(history.last().unwrap().outcome, Outcome::Superseded);
    assert_eq!(world.status().rollout.as_ref().unwrap().weight, 10);
}

#[test]
fn a_template_that_cannot_be_rendered_leaves_stable_alone_and_is_named() {
    let variables =
        json!({"variables": {"type": "object", "properties": {"question": {"type": "string"}}}});
    let mut world = World::new(release("Answer {{ question }}.", json!({})));
    world.edit(|r| {
        r.spec.prompt.variables = serde_json::from_value(variables["variables"].clone()).unwrap();
    });
    world.rounds(4);
    assert_eq!(world.status().phase, ReleasePhase::Healthy);
    world.edit(|r| r.spec.prompt.messages[0].content = "Answer {{ qestion }}.".into());
    world.rounds(3);
    let (status, reason, message) = world.condition(kind::RENDERED);
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "VariableUndeclared")
    );
    assert!(
        message.contains("messages[0]") && message.contains("`qestion`"),
        "{message}"
    );
    assert!(
        message.contains("question"),
        "it says what there is: {message}"
    );
    assert_eq!(world.condition(kind::READY).1, "VariableUndeclared");
    assert_eq!(world.condition(kind::STALLED).0, "True");
    assert_eq!(world.condition(kind::AVAILABLE).0, "True");
    assert!(world.status().candidate.is_none());
    assert_eq!(world.observed.revisions.len(), 1);
    world.edit(|r| r.spec.prompt.messages[0].content = "Answer {{ question ".into());
    world.rounds(2);
    assert_eq!(world.condition(kind::RENDERED).1, "TemplateInvalid");
    world.edit(|r| r.spec.prompt.messages[0].content = "Answer {{ question }}.".into());
    world.rounds(2);
    assert_eq!(world.condition(kind::READY).0, "True");
}

#[test]
fn loops_globals_and_what_the_gateway_gives_are_no_undeclared_variables() {
    let text = "{% for m in messages %}{{ loop.index }}: {{ m.content }}{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{{ input }}";
    let release = release(
        text,
        json!({"prompt": {
            "messages": [{"role": "user", "content": text}],
            "variables": {"type": "object", "properties": {}},
        }}),
    );
    assert!(template::variables(&release.spec.prompt).is_ok());
}

#[test]
fn the_examples_render() {
    for (text, variables) in [
        (
            include_str!("../../../docs/examples/minimal.yaml"),
            vec!["name"],
        ),
        (
            include_str!("../../../docs/examples/prompt-release.yaml"),
            vec!["context", "question"],
        ),
    ] {
        let document = text
            .split("\n---\n")
            .find(|d| d.contains("kind: PromptRelease"));
        let value: Value = serde_yaml::from_str(document.unwrap()).unwrap();
        let prompt = serde_json::from_value(value["spec"]["prompt"].clone()).unwrap();
        let found = template::variables(&prompt).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), variables);
    }
}

#[test]
fn an_evaluation_that_is_not_there_is_said_at_once() {
    let mut world = World::new(release(
        "Hello {{ name }}",
        json!({"rollout": {"evaluations": ["quality"]}}),
    ));
    world.rounds(2);
    let (_, reason, message) = world.condition(kind::READY);
    assert_eq!(reason, "UnknownEvaluation");
    assert!(message.contains("quality"), "{message}");
    assert!(world.status().stable.is_none());
}

#[test]
fn an_evaluation_that_can_not_measure_the_candidate_is_said_at_once() {
    for (target, words) in [
        (
            json!({"modelDeployment": {"name": "greet"}}),
            "measures something else",
        ),
        (
            json!({"promptRelease": {"name": "other"}}),
            "measures other",
        ),
        (
            json!({"promptRelease": {"name": "greet", "revision": "Stable"}}),
            "measures stable only",
        ),
    ] {
        let mut world = World::new(release(
            "Hello {{ name }}",
            json!({"rollout": {"steps": [{"evaluate": {"names": ["quality"]}}]}}),
        ));
        let evaluation = json!({
            "apiVersion": "perennial.dev/v1alpha1", "kind": "Evaluation", "metadata": {"name": "quality", "namespace": "apps"},
            "spec": {"target": target, "dataset": {"uri": "s3://b/d", "label": "y"}},
        });
        let evaluation = Arc::new(serde_json::from_value(evaluation).unwrap());
        world.observed.evaluations = BTreeMap::from([("quality".to_owned(), evaluation)]);
        world.rounds(2);
        let (_, reason, message) = world.condition(kind::READY);
        assert_eq!(reason, "EvaluationElsewhere");
        assert!(
            message.contains(words) && message.contains("correct its spec.target"),
            "{message}"
        );
    }
}

#[test]
fn what_a_prompt_takes_of_a_row_is_its_variables_and_the_callers_message() {
    let takes = |content: &str, variables: Value| {
        let prompt =
            json!({"messages": [{"role": "user", "content": content}], "variables": variables});
        let prompt = serde_json::from_value(prompt).unwrap();
        serde_json::to_value(template::takes(&prompt).unwrap()).unwrap()
    };
    let text = json!({"required": true, "kind": "Text"});
    assert_eq!(
        takes("{{ a }} {{ b }}", Value::Null),
        json!({"variables": {"a": text, "b": text}, "message": false})
    );
    assert_eq!(
        takes(
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ a }}",
            Value::Null
        ),
        json!({"variables": {"a": text}, "message": true})
    );
    let schema = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": ["string", "null"]}, "n": {"type": "integer"}, "list": {"type": "array"}, "input": {"type": "string"},
    }});
    // Declared, `input` is a variable like any other.
    assert_eq!(
        takes("{{ a }} {{ n }} {{ list }} {{ input }}", schema),
        json!({"variables": {
            "a": text, "input": {"required": false, "kind": "Text"}, "list": {"required": false, "kind": "Json"}, "n": {"required": false, "kind": "Plain"},
        }, "message": false})
    );
}

#[test]
fn a_port_that_another_release_has_is_given_up_by_the_later_uid() {
    let mut world = World::new(release("Hello", json!({})));
    world.rounds(3);
    let port = world.status().gateway.as_ref().unwrap().port;
    world.observed.ports = vec![("u-0".into(), u16::try_from(port).unwrap())];
    let moved = world.round();
    assert_ne!(world.status().gateway.as_ref().unwrap().port, port);
    let status = moved
        .actions
        .iter()
        .position(|a| matches!(a, Action::Status(_)));
    let service = moved
        .actions
        .iter()
        .position(|a| matches!(a, Action::Apply(v) if v["kind"] == "Service"));
    assert!(status < service, "the gateway opens the port by the status");
    world.observed.ports = vec![("u-9".into(), u16::try_from(port).unwrap())];
    let port = world.status().gateway.as_ref().unwrap().port;
    world.round();
    assert_eq!(world.status().gateway.as_ref().unwrap().port, port);
}

#[test]
fn old_revisions_go_but_those_in_use_stay() {
    let mut world = World::new(release(
        "Hello 0",
        json!({"rollout": {"steps": [], "bake": "0s", "analysis": {"gates": []}}}),
    ));
    world.rounds(4);
    for n in 1..15 {
        world.edit(|r| r.spec.prompt.messages[0].content = format!("Hello {n}"));
        world.rounds(6);
        let rollout = world.status().rollout.clone().unwrap();
        assert_eq!(
            rollout.state,
            RolloutState::Idle,
            "{}",
            world.status().message
        );
    }
    assert_eq!(
        world.observed.revisions.len(),
        15,
        "the test's world deletes nothing"
    );
    let plan = plan(&world.observed, world.now);
    let gone: Vec<&str> = plan
        .actions
        .iter()
        .filter_map(|a| match a {
            Action::Delete(r) => Some(r.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(gone.len(), 4, "ten are kept beside stable");
    let stable = format!("greet-{}", world.status().stable.as_ref().unwrap().revision);
    assert!(!gone.contains(&stable.as_str()));
}
