//! What others do to what we serve with: autoscalers, people who edit our children, releases that claim one Service, servers that crash,
//! gateways that hear nothing. Kubernetes' own controllers are real, nodes are stood in for (and their gateways' addresses are in no
//! EndpointSlice, so nothing is Available here).

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{
    Place, eventually, faults::Faults, nodes::Nodes, on_cluster, operator::Operator,
};

const API: &str = "perennial.dev/v1alpha1";

/// A release of this name, with this spec beside its model and server.
async fn release(place: &Place, name: &str, more: Value) {
    let container = json!({"name": "server", "image": "registry.example/server:1"});
    let mut object = json!({
        "apiVersion": API, "kind": "ModelDeployment", "metadata": {"name": name, "namespace": place.namespace},
        "spec": {
            "model": {"uri": "s3://models/m", "digest": format!("sha256:{}", "0".repeat(64))},
            "server": {"template": {"spec": {"containers": [container]}}},
            "rollout": {"steps": [{"setWeight": 50}, {"pause": {}}], "bake": "1s", "analysis": {"interval": "1s", "gates": []}},
        },
    });
    for (key, value) in more.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    place.create(&object).await.unwrap();
}

async fn status(place: &Place, name: &str) -> Option<Value> {
    let object = place.get(API, "ModelDeployment", name).await?;
    Some(object["status"].clone())
}

/// Waits until the status is as wanted.
async fn until(place: &Place, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let last = std::sync::Mutex::new(Value::Null);
    let look = eventually(what, || async {
        let status = status(place, name).await?;
        last.lock().unwrap().clone_from(&status);
        Some(status).filter(|s| is(s))
    });
    tokio::select! {
        status = look => status,
        () = tokio::time::sleep(Duration::from_secs(50)) => {
            panic!("waited in vain until {what}: {:#}", last.lock().unwrap())
        }
    }
}

/// Waits until the first revision serves and nothing goes on; the name of its children.
async fn served(place: &Place, name: &str) -> String {
    let status = until(place, name, "it serves", |s| {
        s["rollout"]["state"] == "Idle"
            && s["gateway"]["applied"] == 1
            && s["stable"]["availableReplicas"].as_i64() >= Some(1)
    })
    .await;
    format!("{name}-{}", status["stable"]["revision"].as_str().unwrap())
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .find(|c| c["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// What an autoscaler does: the subresource `scale`, under the name of Kubernetes' own controllers.
async fn scale(place: &Place, api_version: &str, kind: &str, name: &str, pods: i64) {
    let api = place.api(api_version, kind);
    let params = PatchParams {
        field_manager: Some("kube-controller-manager".to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"spec": {"replicas": pods}}));
    api.patch_scale(name, &params, &patch).await.unwrap();
}

async fn pods_of(place: &Place, name: &str) -> i64 {
    let server = place.get("apps/v1", "Deployment", name).await;
    server.map_or(0, |s| s["spec"]["replicas"].as_i64().unwrap_or_default())
}

/// Waits until a Deployment says so many pods.
async fn until_pods(place: &Place, name: &str, pods: i64) {
    eventually(&format!("{name} has {pods} pods"), || async {
        (pods_of(place, name).await == pods).then_some(())
    })
    .await;
}

async fn edit(place: &Place, name: &str, patch: Value) {
    place
        .patch(API, "ModelDeployment", name, patch)
        .await
        .unwrap();
}

/// An edit that makes another revision.
fn another(number: i32) -> Value {
    let container = json!({"name": "server", "image": "registry.example/server:1", "env": [{"name": "N", "value": number.to_string()}]});
    json!({"spec": {"server": {"template": {"spec": {"containers": [container]}}}}})
}

async fn operator(place: &Place) -> Operator {
    Operator::new(place, Faults::none())
        .await
        .with_all()
        .start()
        .await
}

#[test]
fn an_autoscalers_number_of_pods_is_never_fought_over_and_a_rollout_respects_it() {
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}});
        let autoscaling = json!({"minReplicas": 2, "maxReplicas": 8, "metrics": [cpu], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}}});
        release(&place, "m", json!({"autoscaling": autoscaling})).await;
        let stable = served(&place, "m").await;
        until_pods(&place, &stable, 2).await;
        let autoscaler = eventually("the autoscaler is there", || {
            place.get("autoscaling/v2", "HorizontalPodAutoscaler", &stable)
        })
        .await;
        let bounds = |a: &Value| {
            (
                a["spec"]["minReplicas"].clone(),
                a["spec"]["maxReplicas"].clone(),
            )
        };
        assert_eq!(bounds(&autoscaler), (json!(2), json!(8)));

        // The number is the autoscaler's from its first write on: we say none.
        scale(&place, "apps/v1", "Deployment", &stable, 6).await;
        until(&place, "m", "status knows", |s| {
            s["stable"]["replicas"] == 6
        })
        .await;
        let server = place.get("apps/v1", "Deployment", &stable).await.unwrap();
        let managers = server["metadata"]["managedFields"].as_array().unwrap();
        let owners: Vec<&str> = managers
            .iter()
            .filter(|m| m.pointer("/fieldsV1/f:spec/f:replicas").is_some())
            .filter_map(|m| m["manager"].as_str())
            .collect();
        assert_eq!(owners, ["kube-controller-manager"]);

        // A candidate has what its share needs, stable may not shrink meanwhile, and after the promotion nothing is lost.
        edit(&place, "m", another(1)).await;
        let paused = until(&place, "m", "the candidate has 50 %", |s| {
            s["rollout"]["weight"] == 50 && s["rollout"]["state"] == "Paused"
        })
        .await;
        let hash = paused["candidate"]["revision"].as_str().unwrap().to_owned();
        let candidate = format!("m-{hash}");
        assert_eq!(pods_of(&place, &candidate).await, 3);
        assert_eq!(pods_of(&place, &stable).await, 6);
        let held = place
            .get("autoscaling/v2", "HorizontalPodAutoscaler", &stable)
            .await
            .unwrap();
        assert_eq!(bounds(&held), (json!(6), json!(8)));
        edit(
            &place,
            "m",
            json!({"metadata": {"annotations": {"perennial.dev/promote": format!("{hash}/1")}}}),
        )
        .await;
        until(&place, "m", "it is stable and the bake has ended", |s| {
            s["stable"]["revision"] == hash.as_str() && s["rollout"]["state"] == "Idle"
        })
        .await;
        assert_eq!(pods_of(&place, &candidate).await, 6);
        eventually("the one before is gone", || async {
            let gone = place.get("apps/v1", "Deployment", &stable).await.is_none()
                && place
                    .get("autoscaling/v2", "HorizontalPodAutoscaler", &stable)
                    .await
                    .is_none();
            gone.then_some(())
        })
        .await;
        // Kubernetes' own autoscaler has looked at it by then, and has no metrics here: its words are ours.
        let said = until(
            &place,
            "m",
            "the autoscaler's words are in the status",
            |s| condition(s, "Autoscaled")["reason"] == "AutoscalerInactive",
        )
        .await;
        let message = condition(&said, "Autoscaled")["message"].as_str().unwrap();
        assert!(message.contains("FailedGetResourceMetric"), "{message}");
        operator.quiet(Duration::from_secs(5)).await;

        // Back to a number of one's own.
        edit(
            &place,
            "m",
            json!({"spec": {"autoscaling": null, "replicas": 3}}),
        )
        .await;
        until_pods(&place, &candidate, 3).await;
        eventually("the autoscaler is gone", || async {
            let autoscaler = place
                .get("autoscaling/v2", "HorizontalPodAutoscaler", &candidate)
                .await;
            autoscaler.is_none().then_some(())
        })
        .await;
        operator.kill().await;
    });
}

#[test]
fn an_autoscaler_of_the_users_on_the_scale_subresource_is_followed_without_a_fight() {
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        // The API server serves no scale where the number isn't written.
        release(&place, "m", json!({"replicas": 1})).await;
        let stable = served(&place, "m").await;
        let scale = place
            .api(API, "ModelDeployment")
            .get_scale("m")
            .await
            .unwrap();
        let selector = scale.status.unwrap().selector.unwrap();
        assert_eq!(
            selector,
            "perennial.dev/model-deployment=m,perennial.dev/role=server"
        );
        // What KEDA makes of a ScaledObject, or a user by hand.
        let target = json!({"apiVersion": API, "kind": "ModelDeployment", "name": "m"});
        let mut autoscaler = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "users"},
            "spec": {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5},
        });
        autoscaler["metadata"]["namespace"] = json!(place.namespace);
        place.create(&autoscaler).await.unwrap();
        until_pods(&place, &stable, 3).await;
        until(&place, "m", "there are three", |s| {
            s["stable"]["availableReplicas"] == 3
        })
        .await;
        let object = place.get(API, "ModelDeployment", "m").await.unwrap();
        assert_eq!(
            object["spec"]["replicas"], 3,
            "written by the autoscaler, at `scale`"
        );
        operator.quiet(Duration::from_secs(20)).await;
        operator.kill().await;
    });
}

#[test]
fn an_autoscaler_that_targets_our_child_is_named_and_not_fought() {
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        release(&place, "m", json!({})).await;
        let stable = served(&place, "m").await;
        let before = operator.faults.written().len();
        let mut overrides = 0;
        let said = eventually("it is said who changes it", || {
            overrides += 1;
            async {
                scale(&place, "apps/v1", "Deployment", &stable, 4).await;
                let status = status(&place, "m").await?;
                (condition(&status, "Ready")["reason"] == "Contested").then_some(status)
            }
        })
        .await;
        let message = condition(&said, "Ready")["message"].as_str().unwrap();
        for words in [
            "is changed again and again by kube-controller-manager (scale)",
            "an autoscaler has to target the ModelDeployment",
        ] {
            assert!(message.contains(words), "{message}");
        }
        // It goes on, and we write nothing to the child for a minute.
        for _ in 0..20 {
            scale(&place, "apps/v1", "Deployment", &stable, 4).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let written = operator.faults.written();
        let repairs = written[before..]
            .iter()
            .filter(|w| w.contains("/deployments/"))
            .count();
        assert!(
            (1..=5).contains(&repairs),
            "{repairs} repairs: {written:#?}"
        );
        // A rollout goes through all the same.
        edit(&place, "m", another(1)).await;
        until(&place, "m", "the candidate has 50 %", |s| {
            s["rollout"]["weight"] == 50
        })
        .await;
        operator.kill().await;
    });
}

#[test]
fn children_that_a_user_edits_are_set_right_with_one_write_each() {
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        release(&place, "m", json!({"replicas": 2})).await;
        let stable = served(&place, "m").await;
        operator.quiet(Duration::from_secs(2)).await;
        let rows = [
            (
                "apps/v1",
                "Deployment",
                stable.as_str(),
                json!({"spec": {"replicas": 5}}),
                "/spec/replicas",
                json!(2),
            ),
            (
                "apps/v1",
                "Deployment",
                stable.as_str(),
                json!({"metadata": {"labels": {"perennial.dev/role": "mine"}}}),
                "/metadata/labels/perennial.dev~1role",
                json!("server"),
            ),
            (
                "v1",
                "Service",
                "m",
                json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1}]}}),
                "/spec/ports/0/targetPort",
                Value::Null,
            ),
            (
                "v1",
                "Service",
                stable.as_str(),
                json!({"spec": {"selector": {"perennial.dev/role": "mine"}}}),
                "/spec/selector/perennial.dev~1role",
                json!("server"),
            ),
            (
                "policy/v1",
                "PodDisruptionBudget",
                stable.as_str(),
                json!({"spec": {"maxUnavailable": 2}}),
                "/spec/maxUnavailable",
                json!(1),
            ),
        ];
        for (api_version, kind, name, change, pointer, right) in rows {
            let object = place.get(api_version, kind, name).await.unwrap();
            let right = if right.is_null() {
                object.pointer(pointer).cloned().unwrap()
            } else {
                right
            };
            let before = operator.faults.written().len();
            place
                .patch(api_version, kind, name, change.clone())
                .await
                .unwrap();
            eventually(
                &format!("{kind} {name} is right again after {change}"),
                || async {
                    let object = place.get(api_version, kind, name).await?;
                    (object.pointer(pointer) == Some(&right)).then_some(())
                },
            )
            .await;
            let written = operator.faults.written()[before..].to_vec();
            let to_it = written
                .iter()
                .filter(|w| w.contains(&format!("s/{name}")) && !w.ends_with("/status"))
                .count();
            assert_eq!(to_it, 1, "{change}: {written:#?}");
        }
        // One that is deleted comes back.
        let api: kube::Api<DynamicObject> = place.api("apps/v1", "Deployment");
        api.delete(&stable, &Default::default()).await.unwrap();
        until_pods(&place, &stable, 2).await;
        operator.kill().await;
    });
}

#[test]
fn of_two_releases_that_claim_one_service_the_first_has_it_and_the_other_says_so() {
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        release(&place, "both", json!({})).await;
        let stable = served(&place, "both").await;
        let service = place.get("v1", "Service", "both").await.unwrap();
        place.create(&place.prompt_release("both")).await.unwrap();
        let said = eventually("the prompt says that the name is taken", || async {
            let prompt = place.get(API, "PromptRelease", "both").await?;
            let ready = condition(&prompt["status"], "Ready").clone();
            (ready["reason"] == "NameTaken").then_some(ready)
        })
        .await;
        let message = said["message"].as_str().unwrap();
        assert!(
            message.contains("Service both is there already and belongs to ModelDeployment both"),
            "{message}"
        );
        operator.quiet(Duration::from_secs(3)).await;
        let after = place.get("v1", "Service", "both").await.unwrap();
        assert_eq!(
            after["metadata"]["resourceVersion"],
            service["metadata"]["resourceVersion"]
        );
        assert_eq!(served(&place, "both").await, stable);
        operator.kill().await;
    });
}

#[test]
fn a_crashing_stable_does_not_hold_up_a_healthy_candidate() {
    on_cluster(|place| async move {
        let nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        release(&place, "m", json!({"rollout": {"steps": [{"setWeight": 50}, {"pause": {"duration": "2s"}}], "bake": "1s", "analysis": {"interval": "1s", "minRequests": 0, "gates": []}}})).await;
        let stable = served(&place, "m").await;
        // Its container crashes, as the kubelet tells it.
        let hash = stable.rsplit('-').next().unwrap();
        let pods = place.list("v1", "Pod").await.unwrap();
        for pod in pods
            .iter()
            .filter(|p| p.metadata.labels.iter().flatten().any(|(_, v)| v == hash))
        {
            let crash = json!({"status": {
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": jiff::Timestamp::now()}],
                "containerStatuses": [{
                    "name": "server", "image": "x", "imageID": "", "ready": false, "restartCount": 4,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": jiff::Timestamp::now(), "finishedAt": jiff::Timestamp::now()}},
                }],
            }});
            let api = place.api("v1", "Pod");
            let name = pod.metadata.name.as_ref().unwrap();
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(&crash))
                .await
                .unwrap();
        }
        let sick = until(&place, "m", "stable is sick", |s| {
            condition(s, "Available")["reason"] == "StableUnavailable"
        })
        .await;
        assert_eq!(condition(&sick, "Available")["reason"], "StableUnavailable");
        let message = condition(&sick, "Available")["message"].as_str().unwrap();
        assert!(
            message.contains("container server of pod")
                && message.contains("OOMKilled, exit code 137"),
            "{message}"
        );
        assert_eq!(sick["phase"], "Degraded");
        // A candidate may be the repair: it goes its way, and ends as stable.
        edit(&place, "m", another(1)).await;
        let healed = until(&place, "m", "the candidate is stable", |s| {
            s["history"].as_array().is_some_and(|h| h.len() == 2) && s["rollout"]["state"] == "Idle"
        })
        .await;
        assert_eq!(
            healed["history"][1]["outcome"], "Promoted",
            "{}",
            healed["history"]
        );
        until(&place, "m", "callers are answered", |s| {
            condition(s, "Available")["reason"] != "StableUnavailable"
        })
        .await;
        drop(nodes);
        operator.kill().await;
    });
}

#[test]
fn an_abort_ends_at_stable_while_gateways_hear_nothing_and_they_follow_once_they_hear_again() {
    on_cluster(|place| async move {
        let deaf = Faults::none();
        let nodes = Nodes::with_gateways(&place, deaf.clone());
        let operator = operator(&place).await;
        let rollout = json!({"steps": [{"setWeight": 50}, {"pause": {}}], "bake": "1s", "progressDeadline": "20s", "analysis": {"interval": "1s", "gates": []}});
        release(&place, "m", json!({"rollout": rollout})).await;
        let stable = served(&place, "m").await;
        edit(&place, "m", another(1)).await;
        let paused = until(&place, "m", "the candidate has 50 %", |s| {
            s["rollout"]["state"] == "Paused"
        })
        .await;
        let hash = paused["candidate"]["revision"].as_str().unwrap().to_owned();
        deaf.cut_watches();
        edit(
            &place,
            "m",
            json!({"metadata": {"annotations": {"perennial.dev/abort": format!("{hash}/1")}}}),
        )
        .await;
        let going = until(&place, "m", "it waits for its gateways", |s| {
            s["rollout"]["weight"] == 0 && s["gateway"]["applied"] == 0
        })
        .await;
        assert_eq!(going["rollout"]["state"], "RollingBack");
        // The candidate's pods stay while a gateway may still send callers there.
        assert_eq!(pods_of(&place, &format!("m-{hash}")).await, 1);
        let ended = until(&place, "m", "the rollout has ended", |s| {
            s["rollout"]["state"] == "Idle"
        })
        .await;
        assert_eq!(ended["history"][1]["outcome"], "Aborted");
        assert_eq!(
            format!("m-{}", ended["stable"]["revision"].as_str().unwrap()),
            stable
        );
        assert_eq!(
            ended["gateway"]["applied"], 0,
            "and it says that they are behind"
        );
        deaf.mend();
        until(&place, "m", "gateways serve it", |s| {
            s["gateway"]["applied"] == 1
        })
        .await;
        drop(nodes);
        operator.kill().await;
    });
}

/// kserve#2232, and Omnia: the operator rewrites the spec, which differs from Git for ever.
#[test]
fn of_the_fields_of_a_spec_none_is_ever_the_operators() {
    on_cluster(|place| async move {
        let _nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        release(
            &place,
            "m",
            json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 2}}),
        )
        .await;
        place.create(&place.prompt_release("p")).await.unwrap();
        place.create(&place.training_job("t")).await.unwrap();
        let evaluation = json!({
            "apiVersion": API, "kind": "Evaluation", "metadata": {"name": "e", "namespace": place.namespace},
            "spec": {
                "target": {"modelDeployment": {"name": "m"}},
                "dataset": {"uri": "s3://data/holdout.csv", "label": "late"}, "gates": [{"metric": "accuracy", "min": 0.5}],
            },
        });
        place.create(&evaluation).await.unwrap();
        served(&place, "m").await;
        edit(&place, "m", another(1)).await;
        let paused = until(&place, "m", "the candidate has 50 %", |s| {
            s["rollout"]["state"] == "Paused"
        })
        .await;
        let hash = paused["candidate"]["revision"].as_str().unwrap();
        let promote =
            json!({"metadata": {"annotations": {"perennial.dev/promote": format!("{hash}/1")}}});
        edit(&place, "m", promote).await;
        until(&place, "m", "it is promoted", |s| {
            s["history"].as_array().is_some_and(|h| h.len() == 2) && s["rollout"]["state"] == "Idle"
        })
        .await;
        for (kind, name) in [
            ("ModelDeployment", "m"),
            ("PromptRelease", "p"),
            ("TrainingJob", "t"),
            ("Evaluation", "e"),
        ] {
            let object = eventually(&format!("{kind} {name} has a status"), || async {
                let object = place.get(API, kind, name).await?;
                object["status"].is_object().then_some(object)
            })
            .await;
            let managers = object["metadata"]["managedFields"].as_array().unwrap();
            let ours = |m: &&Value| {
                m["manager"]
                    .as_str()
                    .is_some_and(|m| m.starts_with("perennial"))
            };
            let ours: Vec<&Value> = managers.iter().filter(ours).collect();
            assert!(!ours.is_empty(), "{kind}: {managers:?}");
            for manager in ours {
                let fields = manager["fieldsV1"].as_object().unwrap();
                let fields: Vec<&String> = fields.keys().collect();
                assert_eq!(fields, ["f:status"], "{kind} {name}: {manager}");
                assert_eq!(manager["subresource"], "status");
            }
        }
        operator.kill().await;
    });
}

/// A CRD of the Gateway API, as its module has it; `hack/cluster/extras gateway-api` fetches it.
fn gateway_api(kind: &str) -> Value {
    let cache = std::env::var("PERENNIAL_CACHE").unwrap_or_else(|_| {
        format!(
            "{}/.cache/perennial",
            std::env::var("HOME").unwrap_or_default()
        )
    });
    let path = format!("{cache}/gateway-api/{kind}.yaml");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{path}: {e}; `hack/cluster/extras gateway-api` fetches it"));
    let mut documents = serde_yaml::Deserializer::from_str(&text);
    let crd = documents.find_map(|d| {
        let value: Value = serde::Deserialize::deserialize(d).unwrap();
        value.is_object().then_some(value)
    });
    crd.unwrap()
}

#[test]
fn a_route_is_made_once_the_cluster_knows_routes_and_says_what_becomes_of_it() {
    on_cluster(|place| async move {
        const ROUTES: &str = "gateway.networking.k8s.io/v1";
        let crds: kube::Api<CustomResourceDefinition> = kube::Api::all(place.client.clone());
        let name = "httproutes.gateway.networking.k8s.io";
        let _ = crds.delete(name, &Default::default()).await;
        eventually("the cluster knows no routes", || async {
            crds.get_opt(name).await.ok()?.is_none().then_some(())
        })
        .await;
        let _nodes = Nodes::start(&place);
        let operator = operator(&place).await;
        let route = json!({"parentRefs": [{"name": "web", "namespace": "infra"}], "hostnames": ["m.example.com"]});
        release(&place, "m", json!({"route": route})).await;
        let said = until(&place, "m", "it says what is missing", |s| {
            condition(s, "Routed")["reason"] == "GatewayApiMissing"
        })
        .await;
        let message = condition(&said, "Routed")["message"].as_str().unwrap();
        assert!(message.contains("install its CRDs"), "{message}");
        served(&place, "m").await;
        operator.quiet(Duration::from_secs(3)).await;

        // The real CRD comes, and the route with it.
        let crd = gateway_api("httproutes");
        crds.patch(
            name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(&crd),
        )
        .await
        .unwrap();
        let made = eventually("the route is there", || async {
            place.api(ROUTES, "HTTPRoute").get_opt("m").await.ok()?
        })
        .await;
        let made = serde_json::to_value(made).unwrap();
        assert_eq!(made["spec"]["hostnames"], json!(["m.example.com"]));
        assert_eq!(made["spec"]["rules"][0]["backendRefs"][0]["name"], "m");
        // argo-rollouts' Gateway plugin#208, argo-cd#22151: routes out of sync for ever, backends of others deleted. Others' routes and
        // others' fields are theirs.
        let theirs = json!({
            "apiVersion": ROUTES, "kind": "HTTPRoute", "metadata": {"name": "theirs", "namespace": place.namespace},
            "spec": {"parentRefs": [{"name": "web", "namespace": "infra"}], "rules": [{"backendRefs": [{"name": "m", "port": 80}, {"name": "other", "port": 80}]}]},
        });
        let theirs = place.create(&theirs).await.unwrap();
        let label = json!({"metadata": {"labels": {"example.com/team": "web"}, "annotations": {"example.com/note": "x"}}});
        place.patch(ROUTES, "HTTPRoute", "m", label).await.unwrap();
        until(&place, "m", "nobody has said anything of it", |s| {
            condition(s, "Routed")["reason"] == "RoutePending"
        })
        .await;
        operator.quiet(Duration::from_secs(3)).await;

        // What an implementation says.
        for (status, reason, words) in [
            (
                "False",
                "RouteRefused",
                "example.com/controller says of web: Accepted is False (NotAllowedByListeners): not from this namespace",
            ),
            (
                "True",
                "RouteAccepted",
                "its HTTPRoute is accepted by example.com/controller",
            ),
        ] {
            let parents = json!({"status": {"parents": [{
                "parentRef": {"name": "web", "namespace": "infra"}, "controllerName": "example.com/controller",
                "conditions": [{
                    "type": "Accepted", "status": status, "reason": "NotAllowedByListeners",
                    "message": "not from this namespace", "lastTransitionTime": jiff::Timestamp::now(),
                }],
            }]}});
            let api = place.api(ROUTES, "HTTPRoute");
            api.patch_status("m", &PatchParams::default(), &Patch::Merge(&parents))
                .await
                .unwrap();
            let said = until(&place, "m", "it is said", |s| {
                condition(s, "Routed")["reason"] == reason
            })
            .await;
            assert_eq!(condition(&said, "Routed")["message"], words);
            assert_eq!(condition(&said, "Routed")["status"], status);
        }
        let again = json!({"spec": {"route": {"hostnames": ["n.example.com"]}}});
        edit(&place, "m", again).await;
        let routed = eventually("the route follows its spec", || async {
            let route = place.get(ROUTES, "HTTPRoute", "m").await?;
            (route["spec"]["hostnames"] == json!(["n.example.com"])).then_some(route)
        })
        .await;
        assert_eq!(routed["metadata"]["labels"]["example.com/team"], "web");
        assert_eq!(routed["metadata"]["annotations"]["example.com/note"], "x");
        operator.quiet(Duration::from_secs(3)).await;
        edit(&place, "m", json!({"spec": {"route": null}})).await;
        until(&place, "m", "there is none", |s| {
            condition(s, "Routed")["reason"] == "NoRoute"
        })
        .await;
        eventually("the route is gone", || async {
            place
                .api(ROUTES, "HTTPRoute")
                .get_opt("m")
                .await
                .ok()?
                .is_none()
                .then_some(())
        })
        .await;
        let after = place.get(ROUTES, "HTTPRoute", "theirs").await.unwrap();
        assert_eq!(
            after["metadata"]["resourceVersion"],
            theirs["metadata"]["resourceVersion"]
        );
        operator.kill().await;
        crds.delete(name, &Default::default()).await.unwrap();
    });
}
