//! What carrying a plan out does to a real API server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use perennial::{
    api::PromptRelease,
    plan::{Action, Plan},
};
use serde_json::{Value, json};

use crate::{
    harness::{Place, eventually, faults::Faults, on_cluster, operator::Operator},
    scripted::{Scripted, config_map, deployment, well},
};

fn plan(
    actions: Vec<Action<perennial::api::prompt_release::PromptReleaseStatus>>,
) -> Plan<perennial::api::prompt_release::PromptReleaseStatus> {
    Plan {
        actions,
        ..Plan::default()
    }
}

fn status(release: &PromptRelease) -> Action<perennial::api::prompt_release::PromptReleaseStatus> {
    Action::Status(Box::new(well(release)))
}

/// Waits for Ready to be this for the newest generation; gives the condition.
async fn ready(place: &Place, name: &str, value: &str) -> Value {
    eventually(&format!("{name} is Ready={value}"), || async {
        let release = place
            .get("perennial.dev/v1alpha1", "PromptRelease", name)
            .await?;
        let generation = release["metadata"]["generation"].clone();
        let conditions = release["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| {
            c["type"] == "Ready" && c["status"] == value && c["observedGeneration"] == generation
        })
    })
    .await
}

/// Wakes the object `times` times and waits until it was planned for again.
async fn wake(place: &Place, controller: &Scripted, name: &str, times: usize) {
    for i in 0..times {
        let before = controller.plans();
        let nonce = json!({"metadata": {"annotations": {"test/nonce": format!("{i}-{before}")}}});
        place
            .patch("perennial.dev/v1alpha1", "PromptRelease", name, nonce)
            .await
            .unwrap();
        eventually("it is planned for again", || async {
            (controller.plans() > before).then_some(())
        })
        .await;
    }
}

#[test]
fn nothing_to_do_writes_nothing() {
    on_cluster(|place| async move {
        let controller = Scripted::new(|release, _| {
            plan(vec![
                Action::Apply(config_map(release, "a", json!({"k": "v"}))),
                Action::Apply(deployment(release, "b", "registry.example/x:1")),
                Action::Create(config_map(release, "c", json!({"k": "v"}))),
                status(release),
            ])
        });
        let operator = Operator::new(&place, Faults::none())
            .await
            .with(controller.clone())
            .start()
            .await;
        place.create(&place.prompt_release("r")).await.unwrap();
        ready(&place, "r", "True").await;
        // Echoes of our own writes and of the Deployment's controller come to rest.
        wake(&place, &controller, "r", 2).await;
        let writes = operator.faults.writes();
        assert_eq!(writes, 4, "{:?}", operator.faults.written());
        wake(&place, &controller, "r", 3).await;
        assert_eq!(
            operator.faults.writes(),
            writes,
            "{:?}",
            operator.faults.written()
        );
        operator.kill().await;

        // A fresh process knows nothing of what it wrote: the normalised quantity costs one apply, once, and changes nothing.
        let before = place.get("apps/v1", "Deployment", "b").await.unwrap();
        let operator = Operator::new(&place, Faults::none())
            .await
            .with(controller.clone())
            .start()
            .await;
        wake(&place, &controller, "r", 3).await;
        assert!(
            operator.faults.writes() <= 1,
            "{:?}",
            operator.faults.written()
        );
        let after = place.get("apps/v1", "Deployment", "b").await.unwrap();
        assert_eq!(
            before["metadata"]["resourceVersion"],
            after["metadata"]["resourceVersion"]
        );
        operator.kill().await;
    });
}

#[test]
fn a_foreign_edit_of_our_field_is_undone_and_a_foreign_field_is_left() {
    on_cluster(|place| async move {
        let controller = Scripted::new(|release, _| {
            plan(vec![
                Action::Apply(config_map(release, "a", json!({"ours": "1"}))),
                status(release),
            ])
        });
        let operator = Operator::new(&place, Faults::none())
            .await
            .with(controller)
            .start()
            .await;
        place.create(&place.prompt_release("r")).await.unwrap();
        ready(&place, "r", "True").await;
        let edit = json!({"data": {"ours": "2", "theirs": "3"}});
        place.patch("v1", "ConfigMap", "a", edit).await.unwrap();
        eventually("our field is back", || async {
            let map = place.get("v1", "ConfigMap", "a").await?;
            (map["data"] == json!({"ours": "1", "theirs": "3"})).then_some(())
        })
        .await;
        place
            .typed::<ConfigMap>()
            .delete("a", &Default::default())
            .await
            .unwrap();
        eventually("it is made again", || async {
            place.get("v1", "ConfigMap", "a").await
        })
        .await;
        operator.kill().await;
    });
}

#[test]
fn a_field_that_is_no_longer_said_is_removed() {
    on_cluster(|place| async move {
        let controller = Scripted::new(|release, _| {
            let mut data = json!({"a": "1"});
            if release.metadata.generation == Some(1) {
                data["b"] = json!("2");
            }
            plan(vec![
                Action::Apply(config_map(release, "a", data)),
                status(release),
            ])
        });
        let operator = Operator::new(&place, Faults::none())
            .await
            .with(controller)
            .start()
            .await;
        place.create(&place.prompt_release("r")).await.unwrap();
        ready(&place, "r", "True").await;
        let edit = json!({"spec": {"backend": {"model": "large"}}});
        place
            .patch("perennial.dev/v1alpha1", "PromptRelease", "r", edit)
            .await
            .unwrap();
        ready(&place, "r", "True").await;
        let map = place.get("v1", "ConfigMap", "a").await.unwrap();
        assert_eq!(map["data"], json!({"a": "1"}));
        operator.kill().await;
    });
}

#[test]
fn an_object_that_is_not_ours_is_never_written_over() {
    on_cluster(|place| async move {
        let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": place.namespace}, "data": {"theirs": "1"}});
        let foreign = place.create(&foreign).await.unwrap();
        for action in [
            Action::Apply as fn(Value) -> _,
            Action::Create as fn(Value) -> _,
        ] {
            let controller = Scripted::new(move |release, _| {
                plan(vec![
                    action(config_map(release, "a", json!({"ours": "1"}))),
                    status(release),
                ])
            });
            let operator = Operator::new(&place, Faults::none())
                .await
                .with(controller.clone())
                .start()
                .await;
            place.create(&place.prompt_release("r")).await.unwrap();
            let condition = eventually("the name is taken", || async {
                let release = place
                    .get("perennial.dev/v1alpha1", "PromptRelease", "r")
                    .await?;
                release.pointer("/status/conditions/0").cloned()
            })
            .await;
            assert_eq!(condition["reason"], "NameTaken");
            assert_eq!(
                condition["message"],
                "NameTaken: ConfigMap a is there already and isn't managed by Perennial; rename or delete it"
            );
            let writes = operator.faults.writes();
            wake(&place, &controller, "r", 3).await;
            assert_eq!(
                operator.faults.writes(),
                writes,
                "it isn't tried again and again: {:?}",
                operator.faults.written()
            );
            operator.kill().await;
            place
                .typed::<PromptRelease>()
                .delete("r", &Default::default())
                .await
                .unwrap();
        }
        let now = place.get("v1", "ConfigMap", "a").await.unwrap();
        assert_eq!(
            now["metadata"]["resourceVersion"],
            foreign["metadata"]["resourceVersion"]
        );
    });
}

#[test]
fn a_template_that_the_api_server_refuses_is_in_the_status_word_for_word_and_is_not_tried_again() {
    let cases: [(&str, Value, &str); 3] = [
        (
            "/spec/template/spec/containers/0/resourcess",
            json!({}),
            "unknown field \"spec.template.spec.containers[0].resourcess\"",
        ),
        (
            "/spec/template/spec/containers/0/ports",
            json!([{"containerPort": 99999}]),
            "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
    ];
    on_cluster(|place| async move {
        for (i, (pointer, value, words)) in cases.into_iter().enumerate() {
            let name = format!("r{i}");
            let controller = Scripted::new(move |release, _| {
                let mut wrong = deployment(
                    release,
                    &format!("d-{}", release.metadata.name.as_deref().unwrap()),
                    "registry.example/x:1",
                );
                if release.metadata.generation == Some(1) {
                    let (parent, key) = pointer.rsplit_once('/').unwrap();
                    wrong.pointer_mut(parent).unwrap()[key] = value.clone();
                }
                plan(vec![status(release), Action::Apply(wrong)])
            });
            let operator = Operator::new(&place, Faults::none())
                .await
                .with(controller.clone())
                .start()
                .await;
            place.create(&place.prompt_release(&name)).await.unwrap();
            let condition = ready(&place, &name, "False").await;
            assert_eq!(condition["reason"], "Invalid", "{condition}");
            let message = condition["message"].as_str().unwrap();
            assert!(message.contains(words), "{message}");
            wake(&place, &controller, &name, 1).await;
            let writes = operator.faults.writes();
            wake(&place, &controller, &name, 3).await;
            assert_eq!(
                operator.faults.writes(),
                writes,
                "{:?}",
                operator.faults.written()
            );
            let edit = json!({"spec": {"backend": {"model": "large"}}});
            place
                .patch("perennial.dev/v1alpha1", "PromptRelease", &name, edit)
                .await
                .unwrap();
            ready(&place, &name, "True").await;
            let made = place.typed::<Deployment>();
            eventually("the corrected child is made", || async {
                made.get_opt(&format!("d-{name}")).await.unwrap()
            })
            .await;
            operator.kill().await;
            place
                .typed::<PromptRelease>()
                .delete(&name, &Default::default())
                .await
                .unwrap();
        }
    });
}

/// argo-rollouts#720: paused twice for one step, on a stale read. argo-rollouts#4073: refused (409) for ever after an edit.
#[test]
fn no_step_is_replayed_before_our_own_write_is_visible() {
    on_cluster(|place| async move {
        // Each plan takes one step as long as the status that it sees says so: a stale read would take a step twice.
        let controller = Scripted::new(|release, _| {
            let mut next = release.status.clone().unwrap_or_default();
            next.attempts = (next.attempts + 1).min(20);
            let step = config_map(release, &format!("step-{}", next.attempts), json!({}));
            plan(vec![Action::Status(Box::new(next)), Action::Create(step)])
        });
        let operator = Operator::new(&place, Faults::none())
            .await
            .with(controller)
            .start()
            .await;
        place.create(&place.prompt_release("r")).await.unwrap();
        // Somebody else writes at the same time.
        let edits = 10;
        for i in 0..edits {
            let edit = json!({"metadata": {"annotations": {"test/edit": i.to_string()}}});
            place
                .patch("perennial.dev/v1alpha1", "PromptRelease", "r", edit)
                .await
                .unwrap();
        }
        eventually("twenty steps are taken", || async {
            let release = place
                .get("perennial.dev/v1alpha1", "PromptRelease", "r")
                .await?;
            (release["status"]["attempts"] == 20).then_some(())
        })
        .await;
        eventually("the last step is made", || async {
            place.get("v1", "ConfigMap", "step-20").await
        })
        .await;
        let written = operator.faults.written();
        let statuses = written.iter().filter(|w| w.ends_with("/status")).count();
        assert!(
            (20..=20 + edits).contains(&statuses),
            "at most one conflict for each edit: {written:?}"
        );
        let creates = written.iter().filter(|w| w.starts_with("POST")).count();
        assert_eq!(creates, 20, "{written:?}");
        operator.kill().await;
    });
}

#[test]
fn an_object_that_panics_or_fails_does_not_stop_the_others_and_backs_off() {
    on_cluster(|place| async move {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let controller = Scripted::new(move |release, _| {
            match release.metadata.name.as_deref() {
                Some("panics") => panic!("on purpose"),
                Some("fails") => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    // A child without our label is a mistake of ours.
                    plan(vec![Action::Apply(
                        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": release.metadata.namespace}}),
                    )])
                }
                _ => plan(vec![status(release)]),
            }
        });
        let operator = Operator::new(&place, Faults::none())
            .await
            .with(controller)
            .start()
            .await;
        for name in ["panics", "fails"] {
            place.create(&place.prompt_release(name)).await.unwrap();
        }
        eventually("it was tried", || async {
            (tries.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        for i in 0..5 {
            let edit = json!({"metadata": {"annotations": {"test/edit": i.to_string()}}});
            place
                .patch("perennial.dev/v1alpha1", "PromptRelease", "fails", edit)
                .await
                .unwrap();
        }
        place.create(&place.prompt_release("good")).await.unwrap();
        ready(&place, "good", "True").await;
        assert_eq!(
            tries.load(Ordering::SeqCst),
            1,
            "events don't shorten a back-off"
        );
        operator.kill().await;
    });
}

#[test]
fn without_leadership_nothing_is_written() {
    on_cluster(|place| async move {
        use perennial::cluster::{Caches, Error, Settings, Shell, act, lease::Leadership};
        let faults = Faults::none();
        let caches = Caches::new(std::slice::from_ref(&place.namespace));
        let settings = Settings {
            write_limit: Duration::from_secs(5),
            ..Settings::default()
        };
        let shell = Shell::new(faults.client().await, caches, settings, Leadership::none());
        let release = place.create(&place.prompt_release("r")).await.unwrap();
        let release: PromptRelease = serde_json::from_value(release).unwrap();
        let actions = vec![
            status(&release),
            Action::Apply(config_map(&release, "a", json!({}))),
        ];
        let acted = act::carry_out(&shell, &release, actions, |status, _| status, &mut false).await;
        assert_eq!(acted, Err(Error::NotLeader));
        assert_eq!(faults.writes(), 0);
    });
}

#[test]
fn an_event_is_written_once_and_counted_when_it_is_said_again() {
    on_cluster(|place| async move {
        use k8s_openapi::api::events::v1::Event;
        let controller = Scripted::new(|release, _| Plan {
            events: vec![
                perennial::plan::Event {
                    warning: true,
                    reason: "RolledBack",
                    action: "Rollout",
                    note: "errorRate 0.2 is above 0.02".to_owned(),
                },
                perennial::plan::Event {
                    warning: false,
                    reason: "RolledBack",
                    action: "Rollout",
                    note: "another note under the same reason".to_owned(),
                },
            ],
            ..plan(vec![status(release)])
        });
        let operator = Operator::new(&place, Faults::none())
            .await
            .with(controller.clone())
            .start()
            .await;
        place.create(&place.prompt_release("r")).await.unwrap();
        wake(&place, &controller, "r", 2).await;
        let events = eventually("both Events are there and were counted", || async {
            let events = place
                .typed::<Event>()
                .list(&Default::default())
                .await
                .ok()?
                .items;
            let counted = events
                .iter()
                .filter(|e| e.series.as_ref().is_some_and(|s| s.count >= 2))
                .count();
            (counted == 2).then_some(events)
        })
        .await;
        assert_eq!(events.len(), 2, "{events:?}");
        let warning = events
            .iter()
            .find(|e| e.type_.as_deref() == Some("Warning"))
            .unwrap();
        assert_eq!(warning.note.as_deref(), Some("errorRate 0.2 is above 0.02"));
        assert_eq!(
            warning.regarding.as_ref().unwrap().kind.as_deref(),
            Some("PromptRelease")
        );
        operator.kill().await;
    });
}
