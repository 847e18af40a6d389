//! A namespace for one test: applying, waiting with deadlines, and the cluster's state when the test fails.

use std::{
    cell::RefCell,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, GroupVersionKind, ListParams},
    core::ApiResource,
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command as AsyncCommand};

use crate::installation;

/// How much longer the tests' own Jobs may take than two processors need that do nothing else. The operator's deadlines are what they are.
const PATIENCE: u64 = 3;

/// A namespace, removed at the end unless the test failed.
pub struct Space {
    /// Its name.
    pub name: String,
    /// A client of the API server.
    pub client: Client,
    /// Whether it isn't ours to remove.
    keep: bool,
}

/// The API resource of a kind that the tests look at.
fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "TrainingJob" => ("perennial.dev", "v1alpha1", "trainingjobs"),
        "ModelDeployment" => ("perennial.dev", "v1alpha1", "modeldeployments"),
        "Evaluation" => ("perennial.dev", "v1alpha1", "evaluations"),
        "PromptRelease" => ("perennial.dev", "v1alpha1", "promptreleases"),
        "Job" => ("batch", "v1", "jobs"),
        "Deployment" => ("apps", "v1", "deployments"),
        "ControllerRevision" => ("apps", "v1", "controllerrevisions"),
        "HorizontalPodAutoscaler" => ("autoscaling", "v2", "horizontalpodautoscalers"),
        "HTTPRoute" => ("gateway.networking.k8s.io", "v1", "httproutes"),
        "Pod" => ("", "v1", "pods"),
        "Service" => ("", "v1", "services"),
        "ConfigMap" => ("", "v1", "configmaps"),
        "Namespace" => ("", "v1", "namespaces"),
        "Event" => ("events.k8s.io", "v1", "events"),
        "RoleBinding" => ("rbac.authorization.k8s.io", "v1", "rolebindings"),
        "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "v1", "clusterrolebindings"),
        "Lease" => ("coordination.k8s.io", "v1", "leases"),
        _ => panic!("kind {kind} isn't known to the tests"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

impl Space {
    /// A client of the cluster.
    pub async fn client() -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::try_default()
            .await
            .expect("a KUBECONFIG that works")
    }

    /// The name of this process's namespace that begins with this.
    pub fn name_of(prefix: &str) -> String {
        format!("{prefix}-{}", std::process::id())
    }

    /// A new namespace whose name begins with this.
    pub async fn new(prefix: &str) -> Self {
        Self::named(Self::client().await, Self::name_of(prefix)).await
    }

    /// A namespace whose name begins with this, that may be there already, empty.
    pub async fn enter(prefix: &str) -> Self {
        Self::make(&Self::client().await, &Self::name_of(prefix)).await;
        Self {
            name: Self::name_of(prefix),
            client: Self::client().await,
            keep: false,
        }
    }

    /// A namespace of exactly this name; what was there before is removed.
    pub async fn named(client: Client, name: String) -> Self {
        let space = Self {
            name,
            client,
            keep: false,
        };
        let old = space.read("Namespace", &space.name).await;
        if old.is_some() {
            space.delete("Namespace", &space.name).await;
            space.until_gone("Namespace", &space.name, 60).await;
        }
        Self::make(&space.client, &space.name).await;
        space
    }

    /// A look into a namespace that isn't a test's own.
    pub fn at(client: &Client, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            client: client.clone(),
            keep: true,
        }
    }

    /// Makes a namespace that may be there already; one that is on its way out is waited for, as nothing can be made in it any more.
    pub async fn make(client: &Client, name: &str) {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let space = Self::at(client, name);
        let old = space.read("Namespace", name).await;
        if old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null()) {
            space.until_gone("Namespace", name, 60).await;
        }
        space.apply(&namespace.to_string()).await;
    }

    /// Objects of this kind in the namespace.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        match kind {
            "Namespace" => Api::all_with(self.client.clone(), &resource(kind)),
            _ => Api::namespaced_with(self.client.clone(), &self.name, &resource(kind)),
        }
    }

    /// Applies YAML as users do, with kubectl.
    pub async fn apply(&self, yaml: &str) {
        if let Err(error) = self.kubectl(&["apply", "-f", "-"], yaml).await {
            panic!("kubectl apply failed: {error}\n{yaml}");
        }
    }

    /// What kubectl says to YAML that is refused.
    pub async fn refusal(&self, yaml: &str) -> String {
        match self.kubectl(&["apply", "-f", "-"], yaml).await {
            Ok(output) => panic!("this should have been refused, but: {output}\n{yaml}"),
            Err(error) => error,
        }
    }

    /// Runs kubectl in this namespace: what it printed, or its error.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = AsyncCommand::new("kubectl")
            .args(["--namespace", &self.name])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl can be run");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin
            .write_all(input.as_bytes())
            .await
            .map_err(|e| e.to_string())?;
        drop(stdin);
        let output = child.wait_with_output().await.map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Runs the plugin, found by kubectl as `kubectl perennial`, in this namespace: what it printed, or its error.
    pub async fn perennial(&self, arguments: &[&str]) -> Result<String, String> {
        let plugin = Path::new(env!("CARGO_BIN_EXE_kubectl-perennial"));
        let folders = std::env::var("PATH").unwrap_or_default();
        let folder = plugin.parent().expect("it is in a folder").display();
        let output = AsyncCommand::new("kubectl")
            .arg("perennial")
            .args(arguments)
            .args(["--namespace", &self.name])
            .env("PATH", format!("{folder}:{folders}"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stdout) + &text(&output.stderr)),
        }
    }

    /// The object, if it is there.
    pub async fn read(&self, kind: &str, name: &str) -> Option<Value> {
        let object = self
            .api(kind)
            .get_opt(name)
            .await
            .expect("the API server answers");
        object.map(|object| serde_json::to_value(object).expect("it is JSON"))
    }

    /// The objects with these labels.
    pub async fn list(&self, kind: &str, labels: &str) -> Vec<Value> {
        listed(&self.api(kind), labels).await
    }

    /// The objects of the kind in the whole cluster.
    pub async fn everywhere(&self, kind: &str) -> Vec<Value> {
        listed(&Api::all_with(self.client.clone(), &resource(kind)), "").await
    }

    /// Deletes a pod without giving it time for anything.
    pub async fn kill(&self, pod: &str) {
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::background()
        };
        self.api("Pod")
            .delete(pod, &parameters)
            .await
            .expect("it can be killed");
    }

    /// Deletes an object that may not be there.
    pub async fn delete(&self, kind: &str, name: &str) {
        match self
            .api(kind)
            .delete(name, &DeleteParams::background())
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            outcome => {
                outcome.expect("it can be deleted");
            }
        }
    }

    /// Waits until the object is gone.
    pub async fn until_gone(&self, kind: &str, name: &str, seconds: u64) {
        let gone = await_condition(self.api(kind), name, |object: Option<&DynamicObject>| {
            object.is_none()
        });
        let outcome = tokio::time::timeout(Duration::from_secs(seconds), gone).await;
        assert!(
            outcome.is_ok(),
            "{kind} {name} is still there after {seconds} s"
        );
    }

    /// Waits, by a watch, until the object is as wanted, and gives it.
    pub async fn until(
        &self,
        kind: &str,
        name: &str,
        seconds: u64,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let last = RefCell::new(Value::Null);
        let waiting = await_condition(self.api(kind), name, |object: Option<&DynamicObject>| {
            let now = object.map_or(Value::Null, |o| {
                serde_json::to_value(o).expect("it is JSON")
            });
            let done = !now.is_null() && wanted(&now);
            *last.borrow_mut() = now;
            done
        });
        let outcome = tokio::time::timeout(Duration::from_secs(seconds), waiting).await;
        match outcome {
            Ok(result) => result.expect("the watch goes on"),
            Err(_) => panic!(
                "{kind} {}/{name}: after {seconds} s it is not so that {what}\n{}",
                self.name,
                serde_json::to_string_pretty(&last.borrow()["status"]).unwrap_or_default()
            ),
        };
        last.into_inner()
    }

    /// Waits until the condition has this status.
    pub async fn until_condition(
        &self,
        kind: &str,
        name: &str,
        seconds: u64,
        condition: &str,
        status: &str,
    ) -> Value {
        let what = format!("{condition} is {status} for its generation");
        self.until(kind, name, seconds, &what, |object| {
            is(object, condition, status)
        })
        .await
    }

    /// Waits until a Job of the test's own has done its work.
    pub async fn until_complete(&self, job: &str, seconds: u64) {
        let seconds = seconds * PATIENCE;
        self.until("Job", job, seconds, "it is complete", |object| {
            assert_ne!(
                condition(object, "Failed").0,
                "True",
                "Job {job} failed: {}",
                object["status"]
            );
            condition(object, "Complete").0 == "True"
        })
        .await;
    }

    /// A volume claim that holds these files.
    pub async fn volume(&self, claim: &str, files: &[(&str, &str)]) {
        let data: Value = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), json!(text)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            claim_of(claim),
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("fill-{claim}")}, "data": data},
            fill_job(claim, "docker.io/perennial/busybox:1", &["sh", "-c", "cp -L /from/* /to/"]),
        ]});
        self.apply(&objects.to_string()).await;
        self.until_complete(&format!("fill-{claim}"), 60).await;
    }

    /// Runs to the end for side effects: what the operator and the pods say, for a failed test.
    fn tell(&self) {
        let show = |arguments: &[&str]| {
            let output = Command::new("kubectl")
                .args(arguments)
                .stdin(Stdio::null())
                .output();
            let text = output
                .map(|o| [o.stdout, o.stderr].concat())
                .unwrap_or_default();
            eprintln!(
                "--- kubectl {}\n{}",
                arguments.join(" "),
                String::from_utf8_lossy(&text)
            );
        };
        let kinds = "trainingjobs,modeldeployments,evaluations,promptreleases";
        let conditions = "jsonpath={range .items[*]}{.kind}/{.metadata.name}: {.status.message}{\"\\n\"}{range .status.conditions[*]}    {.type}={.status} {.reason}: {.message}{\"\\n\"}{end}{end}";
        let n = self.name.as_str();
        show(&["-n", n, "get", kinds, "-o", conditions]);
        show(&[
            "-n",
            n,
            "get",
            "pods,jobs,services,controllerrevisions",
            "-o",
            "wide",
        ]);
        show(&[
            "-n",
            n,
            "get",
            "events",
            "--sort-by=.metadata.creationTimestamp",
        ]);
        show(&[
            "-n",
            n,
            "logs",
            "-l",
            "app.kubernetes.io/managed-by=perennial",
            "--all-containers",
            "--prefix",
            "--tail=15",
        ]);
        show(&["-n", installation::NAMESPACE, "get", "pods", "-o", "wide"]);
        show(&[
            "-n",
            installation::NAMESPACE,
            "logs",
            "-l",
            "app.kubernetes.io/name=perennial",
            "--prefix",
            "--tail=40",
        ]);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if std::thread::panicking() {
            eprintln!("=== the state of namespace {}, which is kept", self.name);
            self.tell();
        } else {
            let delete = Command::new("kubectl")
                .args([
                    "delete",
                    "namespace",
                    &self.name,
                    "--wait=false",
                    "--ignore-not-found",
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status();
            assert!(
                delete.is_ok_and(|status| status.success()),
                "namespace {} can't be deleted",
                self.name
            );
        }
    }
}

async fn listed(api: &Api<DynamicObject>, labels: &str) -> Vec<Value> {
    let parameters = ListParams::default().labels(labels);
    let list = api.list(&parameters).await.expect("the API server answers");
    list.items
        .into_iter()
        .map(|object| serde_json::to_value(object).expect("it is JSON"))
        .collect()
}

/// A volume claim on whatever storage the cluster has.
pub fn claim_of(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

/// A Job that writes into the claim at `/to`, from the ConfigMap `fill-CLAIM` at `/from` if there is one.
pub fn fill_job(claim: &str, image: &str, command: &[&str]) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": format!("fill-{claim}")}, "spec": {"backoffLimit": 2, "template": {"spec": {
        "restartPolicy": "Never",
        "containers": [{"name": "fill", "image": image, "command": command,
            "volumeMounts": [{"name": "to", "mountPath": "/to"}, {"name": "from", "mountPath": "/from"}]}],
        "volumes": [
            {"name": "to", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "from", "configMap": {"name": format!("fill-{claim}"), "optional": true}},
        ],
    }}}})
}

/// Status, reason and message of a condition; empty where it isn't set.
pub fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == kind);
    found.map_or_else(Default::default, |c| {
        (text(&c["status"]), text(&c["reason"]), text(&c["message"]))
    })
}

/// Whether the condition has this status and speaks of the present spec.
pub fn is(object: &Value, kind: &str, status: &str) -> bool {
    let observed = &object["status"]["observedGeneration"];
    condition(object, kind).0 == status
        && (observed.is_null() || *observed == object["metadata"]["generation"])
}
