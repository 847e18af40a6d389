use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::world::{World, quick, server};
use crate::{
    api::revision::ArtifactCache,
    plan::{
        claim::Claim,
        model_deployment::{children, refused},
    },
    stats::bucket::LogReport,
};

const V1: &str = "20130401-000000-aaaaaa";
const V2: &str = "20130501-000000-bbbbbb";
const V3: &str = "20130601-000000-cccccc";

fn stable(world: &World) -> (String, String) {
    let stable = world.status().stable.clone().expect("a stable revision");
    (stable.revision, stable.version.unwrap_or_default())
}

fn serving() -> World {
    let mut world = World::new(quick(json!({})));
    world.train("q1", V1, "sha256:d1");
    world.pass(3);
    assert_eq!(stable(&world).1, V1);
    world
}

#[test]
fn a_model_without_a_version_waits_and_says_so_without_writing_again() {
    let mut world = World::new(quick(json!({})));
    world.settle();
    let (status, reason, message) = world.condition("Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NoVersion"));
    assert!(
        message.contains("TrainingJob") && message.contains("churn"),
        "{message}"
    );
    world.pass(30);
    assert!(world.names("Deployment").is_empty());
}

#[test]
fn the_first_version_serves_behind_the_releases_own_port() {
    let world = serving();
    let (hash, _) = stable(&world);
    let name = format!("churn-{hash}");
    assert_eq!(
        world.condition("Ready").0,
        "True",
        "{:?}",
        world.condition("Ready")
    );
    assert_eq!(world.names("Deployment"), [name.as_str()]);
    assert_eq!(world.names("Service"), ["churn", name.as_str()]);
    assert_eq!(world.names("ControllerRevision"), [name.as_str()]);
    let port = world.status().gateway.as_ref().unwrap().port;
    assert_eq!(
        world.object("Service", "churn").unwrap()["spec"]["ports"][0]["targetPort"],
        port
    );
    assert_eq!(world.status().url.as_deref(), Some("http://churn.ml.svc"));
    assert_eq!(
        world.status().selector.as_deref(),
        Some(children::selector_text("churn").as_str())
    );
}

#[test]
fn scaling_takes_effect_without_a_new_revision() {
    let mut world = serving();
    let before = stable(&world);
    world.edit(|r| r.spec.replicas = Some(3));
    world.pass(2);
    assert_eq!(stable(&world), before);
    let name = format!("churn-{}", before.0);
    assert_eq!(
        world.object("Deployment", &name).unwrap()["spec"]["replicas"],
        3
    );
    assert_eq!(world.names("PodDisruptionBudget"), [name.as_str()]);
    world.edit(|r| r.spec.replicas = Some(1));
    world.pass(2);
    assert!(world.names("PodDisruptionBudget").is_empty());
    assert_eq!(world.status().replicas, 1);
}

#[test]
fn a_newer_version_is_tried_and_the_old_pods_go_after_the_bake() {
    let mut world = serving();
    let before = stable(&world);
    world.train("q2", V2, "sha256:d2");
    world.settle();
    assert_eq!(world.names("Deployment").len(), 2, "{:?}", world.status());
    world.pass(5);
    let after = stable(&world);
    assert_eq!(after.1, V2);
    assert_eq!(world.names("Deployment"), [format!("churn-{}", after.0)]);
    assert_eq!(world.names("ControllerRevision").len(), 2);
    assert_ne!(before.0, after.0);
}

#[test]
fn a_version_that_vanished_changes_nothing() {
    let mut world = serving();
    let before = stable(&world);
    world.jobs.clear();
    world.pass(5);
    assert_eq!(stable(&world), before);
    assert!(world.status().candidate.is_none());
    assert_eq!(world.condition("Ready").0, "True");
}

#[test]
fn a_rejected_version_is_passed_over_and_an_older_good_one_is_tried() {
    let mut world = serving();
    world.train("q2", V2, "sha256:d2");
    world.train("q3", V3, "sha256:d3");
    world.settle();
    let candidate = world.status().candidate.clone().unwrap();
    assert_eq!(candidate.version.as_deref(), Some(V3));
    world.annotate("perennial.dev/abort", format!("{}/1", candidate.revision));
    world.pass(6);
    assert!(
        world
            .status()
            .rejected_revisions
            .iter()
            .any(|r| r.version.as_deref() == Some(V3)),
        "{:?}",
        world.status()
    );
    assert_eq!(stable(&world).1, V2);
}

#[test]
fn a_template_change_applies_to_stables_version_when_a_newer_one_was_rejected() {
    let mut world = serving();
    world.train("q2", V2, "sha256:d2");
    world.settle();
    let candidate = world.status().candidate.clone().unwrap().revision;
    world.annotate("perennial.dev/abort", format!("{candidate}/1"));
    world.pass(3);
    assert_eq!(stable(&world).1, V1);
    world.edit(|r| r.spec.server = serde_json::from_value(server("s:2")).unwrap());
    world.pass(5);
    let (hash, version) = stable(&world);
    assert_eq!(version, V1);
    let deployment = world
        .object("Deployment", &format!("churn-{hash}"))
        .unwrap();
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        "s:2"
    );
}

#[test]
fn an_unknown_evaluation_is_named() {
    let mut world =
        World::new(json!({"server": server("s:1"), "rollout": {"evaluations": ["quality"]}}));
    world.train("q1", V1, "sha256:d1");
    world.settle();
    let (status, reason, message) = world.condition("Stalled");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("True", "UnknownEvaluation")
    );
    assert!(
        message.contains("quality") && message.contains("create it"),
        "{message}"
    );
    world.pass(20);
}

#[test]
fn what_the_pods_say_is_in_the_status_word_for_word() {
    let mut world = World::new(quick(json!({})));
    world.healthy = false;
    world.train("q1", V1, "sha256:d1");
    world.settle();
    let hash = world
        .status()
        .candidate
        .as_ref()
        .or(world.status().stable.as_ref())
        .unwrap()
        .revision
        .clone();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "labels": {"perennial.dev/revision": hash}},
        "status": {"containerStatuses": [{"name": "server", "image": "nowhere/x:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"nowhere/x:1\""}}}]},
    }))
    .unwrap();
    world.pods = vec![pod];
    world.settle();
    let text = serde_json::to_string(world.status()).unwrap();
    assert!(
        text.contains("ImagePullBackOff") && text.contains("Back-off pulling image"),
        "{text}"
    );
}

#[test]
fn a_refused_template_is_said_in_the_api_servers_words() {
    let mut world = World::new(quick(json!({})));
    world.train("q1", V1, "sha256:d1");
    world.settle();
    let mut status = world.status().clone();
    let name = world.names("Deployment")[0].to_owned();
    let words =
        "Deployment.apps \"x\" is invalid: spec.template.spec.containers[0].image: Required value";
    refused(
        &mut status,
        "churn",
        ("Deployment", &name),
        ("Invalid", words),
        Some(1),
        world.now,
    );
    let ready = status
        .conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .unwrap();
    assert_eq!(
        (ready.reason.as_str(), ready.message.as_str()),
        ("TemplateRefused", words)
    );
}

#[test]
fn a_uri_without_digest_is_read_before_the_first_pod_and_pinned() {
    let mut world = World::new(quick(
        json!({"model": {"uri": "https://models.example/m.tar"}}),
    ));
    world.settle();
    assert!(world.names("Deployment").is_empty());
    let job = world.names("Job")[0].to_owned();
    let digest = format!("sha256:{}", "a".repeat(64));
    let summary = json!({"succeeded": true, "message": "read", "digest": digest}).to_string();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "r", "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "u"}]},
        "status": {"containerStatuses": [{"name": "resolve", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "message": summary}}}]},
    }))
    .unwrap();
    world.pods = vec![pod];
    world.settle();
    world.pods.clear();
    world.pass(3);
    assert!(world.names("Job").is_empty(), "{:?}", world.names("Job"));
    assert_eq!(
        world.status().stable.as_ref().unwrap().digest.as_deref(),
        Some(digest.as_str())
    );
}

#[test]
fn a_template_that_meets_the_restricted_standard_still_does() {
    let world = serving();
    let name = world.names("Deployment")[0].to_owned();
    let deployment = world.object("Deployment", &name).unwrap();
    let fetch = &deployment["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(fetch["name"], "perennial-fetch");
    for (field, expected) in [
        ("runAsNonRoot", json!(true)),
        ("allowPrivilegeEscalation", json!(false)),
        ("readOnlyRootFilesystem", json!(true)),
        ("capabilities", json!({"drop": ["ALL"]})),
        ("seccompProfile", json!({"type": "RuntimeDefault"})),
    ] {
        assert_eq!(fetch["securityContext"][field], expected, "{field}");
    }
    let spec = &deployment["spec"]["template"]["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(
        &json!({"name": "perennial-model", "mountPath": "/mnt/model", "readOnly": true})
    ));
    assert_eq!(
        spec["containers"][0]["readinessProbe"]["httpGet"]["path"],
        "/v2/health/ready"
    );
}

/// Mounts of the first init container and of the server, and the volumes.
fn mounts(world: &World) -> [String; 3] {
    let name = world.names("Deployment")[0].to_owned();
    let deployment = world.object("Deployment", &name).unwrap();
    let spec = &deployment["spec"]["template"]["spec"];
    [
        &spec["initContainers"][0],
        &spec["containers"][0],
        &spec["volumes"],
    ]
    .map(Value::to_string)
}

#[test]
fn pods_share_what_they_fetch_in_the_cache_of_their_revision_and_servers_never_see_it() {
    let cache = Some(ArtifactCache {
        claim_name: "artifacts".to_owned(),
        bytes: 7,
    });
    let digest = format!("sha256:{}", "a".repeat(64));
    let of = |uri: &str| quick(json!({"model": {"uri": uri, "digest": digest}}));
    let mut world = World::new(of("s3://models/churn"));
    world.cache = cache.clone();
    world.pass(3);
    let with = mounts(&world);
    let [fetch, server, volumes] = &with;
    assert!(
        fetch.contains(r#"{"name":"perennial-cache","mountPath":"/perennial/cache"}"#)
            && fetch.contains(r#"\"cache\":{\"directory\":\"/perennial/cache\",\"bytes\":7}"#),
        "{fetch}"
    );
    assert!(!server.contains("cache"), "{server}");
    assert!(
        volumes.contains(r#""persistentVolumeClaim":{"claimName":"artifacts"}"#),
        "{volumes}"
    );
    // It is frozen: without the setting no pod is made anew.
    world.cache = None;
    world.pass(3);
    assert_eq!(mounts(&world), with);

    let mut world = World::new(of("s3://models/churn"));
    world.pass(3);
    let without = mounts(&world);
    assert!(!without.concat().contains("cache"), "{without:?}");
    world.cache = cache.clone();
    world.pass(3);
    assert_eq!(mounts(&world), without);

    let mut world = World::new(of("pvc://models/churn"));
    world.cache = cache;
    world.pass(3);
    let claim = mounts(&world).concat();
    assert!(!claim.contains("cache"), "{claim}");
}

#[test]
fn a_leaving_server_sleeps_for_less_than_the_time_it_has() {
    for (grace, sleep) in [
        (json!(null), json!(5)),
        (json!(4), json!(3)),
        (json!(1), json!(null)),
    ] {
        let mut spec = quick(json!({}));
        if !grace.is_null() {
            spec["server"]["template"]["spec"]["terminationGracePeriodSeconds"] = grace;
        }
        let mut world = World::new(spec);
        world.train("q1", V1, "sha256:d1");
        world.pass(3);
        let name = format!("churn-{}", stable(&world).0);
        let server = world.object("Deployment", &name).unwrap();
        let containers = &server["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            containers[0]["lifecycle"]["preStop"]["sleep"]["seconds"],
            sleep
        );
    }
}

#[test]
fn the_pods_of_a_revision_are_rendered_as_ever() {
    // Another rendering restarts every server of every user at the next upgrade: change this line only for a good reason.
    let world = serving();
    let name = world.names("Deployment")[0].to_owned();
    let template = &world.object("Deployment", &name).unwrap()["spec"]["template"];
    assert_eq!(crate::plan::revision::hash(template, 0), "abab0455df");
}

#[test]
fn an_upgrade_of_the_operator_restarts_no_pod() {
    let mut world = serving();
    let before = world.objects.clone();
    let mut observed = world.observed();
    observed.image = "perennial:2".to_owned();
    let plan = crate::plan::model_deployment::plan(&observed, world.now);
    for action in plan.actions {
        if let crate::plan::Action::Apply(value) = action {
            let mut value: Value = value;
            let key = (
                value["kind"].as_str().unwrap().to_owned(),
                value["metadata"]["name"].as_str().unwrap().to_owned(),
            );
            value["metadata"]["uid"] = before[&key]["metadata"]["uid"].clone();
            assert_eq!(value, before[&key], "{key:?}");
        }
    }
    world.settle();
}

#[test]
fn a_crash_after_any_write_ends_in_the_same_place() {
    let story = |crash: Option<(usize, usize)>| {
        let mut world = World::new(quick(json!({})));
        world.train("q1", V1, "sha256:d1");
        let mut round = 0;
        let mut run = |world: &mut World, rounds: usize| {
            for _ in 0..rounds {
                match crash {
                    Some((at, most)) if at == round => world.step(most),
                    _ => world.step(usize::MAX),
                };
                round += 1;
                world.now += jiff::SignedDuration::from_secs(10);
            }
        };
        run(&mut world, 30);
        world.train("q2", V2, "sha256:d2");
        run(&mut world, 60);
        let mut objects = world.objects.clone();
        for value in objects.values_mut() {
            // The time at which it became stable may differ.
            value["metadata"]["annotations"] = json!(null);
        }
        (
            stable(&world),
            objects,
            world.status().attempts,
            world.status().history.len(),
        )
    };
    let undisturbed = story(None);
    assert_eq!(undisturbed.0.1, V2);
    // The rounds in which something is written: the first version comes, then the second.
    for round in (0..5).chain(30..37) {
        for most in 0..8 {
            assert_eq!(
                story(Some((round, most))),
                undisturbed,
                "crash in round {round} after {most} writes"
            );
        }
    }
}

#[test]
fn names_of_children_fit() {
    let mut world = serving();
    world.release.metadata.name = Some("a".repeat(40));
    assert!(children::name(&world.release.name_any(), "0123456789").len() <= 63);
}

#[test]
fn a_claim_for_one_pod_serves_one_pod_and_is_named_when_more_are_needed() {
    let mut world = World::new(quick(json!({})));
    world.claims.insert("models".to_owned(), Claim::OnePod);
    world.train("q1", V1, "sha256:d1");
    world.pass(3);
    assert_eq!(world.condition("Ready").0, "True");
    world.edit(|r| r.spec.replicas = Some(2));
    world.settle();
    let (status, reason, message) = world.condition("Ready");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "VolumeNotShareable")
    );
    assert!(message.contains("PersistentVolumeClaim models") && message.contains("ReadWriteMany"));
    assert_eq!(world.condition("Stalled").0, "True");
    world.pass(3);
    let said = |e: &&String| *e == "VolumeNotShareable";
    assert_eq!(world.events.iter().filter(said).count(), 1);
    world.edit(|r| r.spec.replicas = Some(1));
    world.settle();
    assert_eq!(world.condition("Ready").0, "True");
}

#[test]
fn a_volume_that_another_node_holds_is_named_once_a_pod_waits_for_it() {
    let mut world = serving();
    let hash = stable(&world).0;
    let words = "0/2 nodes are available: 2 node(s) had volume node affinity conflict.";
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "labels": {"perennial.dev/revision": hash}},
        "spec": {"containers": [], "volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}]},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": words}]},
    }))
    .unwrap();
    world.pods.push(pod);
    world.settle();
    assert_eq!(
        world.condition("Ready").0,
        "True",
        "nothing is known of the claim"
    );
    let nodes = std::collections::BTreeSet::from(["a".to_owned()]);
    world
        .claims
        .insert("models".to_owned(), Claim::OneNode(nodes));
    world.settle();
    assert_eq!(world.condition("Ready").1, "VolumeNotShareable");
    world.pods.clear();
    world.settle();
    assert_eq!(world.condition("Ready").0, "True");
}

#[test]
fn a_payload_log_that_can_not_be_written_is_a_condition_of_its_own() {
    let mut world = serving();
    let said = |world: &World| {
        let conditions = &world.status().conditions;
        let said = conditions.iter().find(|c| c.type_ == "PayloadLogged");
        said.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    };
    assert_eq!(said(&world), None);
    let log = json!({"payloadLog": {"uri": "s3://logs/churn", "sampling": 0.25}});
    world.edit(|release| release.spec.monitoring = serde_json::from_value(log).unwrap());
    let reason = |world: &World| said(world).unwrap().1;
    world.settle();
    assert_eq!(reason(&world), "LogStarting");
    for (problem, expected) in [
        (
            Some("CredentialsMissing: Secret s3 isn't mounted"),
            "CredentialsMissing",
        ),
        (
            Some("LogUnwritable: there is no such bucket"),
            "LogUnwritable",
        ),
        (None, "Logging"),
    ] {
        world.log = Some(LogReport {
            problem: problem.map(str::to_owned),
        });
        world.settle();
        assert_eq!(reason(&world), expected);
        assert_eq!(world.condition("Ready").0, "True");
    }
    let (status, _, message) = said(&world).unwrap();
    assert_eq!(
        (status.as_str(), message.as_str()),
        ("True", "25 % of the requests are logged to s3://logs/churn")
    );
    world.edit(|release| release.spec.monitoring = None);
    world.settle();
    assert_eq!(reason(&world), "NotLogged");
}
