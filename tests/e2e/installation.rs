//! The operator, installed by its chart: once for all tests, cluster-wide for those that want peace, then for a list of namespaces.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Weak},
};

use serde_json::Value;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::space::Space;

/// Where the operator is installed.
pub const NAMESPACE: &str = "perennial-system";
/// Beginning of the namespace of the test that closes the loop.
pub const LOOP: &str = "loop";
/// Beginning of the namespace of the test that stops the API server.
pub const DARK: &str = "dark";
/// Beginnings of the namespaces that the operator is given when it is installed for a list of them.
pub const GIVEN: [&str; 9] = [
    "given",
    "crash",
    "crash-back",
    "crash-again",
    DARK,
    "gone",
    "gone-rights",
    "gone-kinds",
    LOOP,
];

/// Held for reading by tests that want to be left in peace, for writing by those that kill the operator.
static PEACE: RwLock<()> = RwLock::const_new(());
/// Held for reading by tests that mind nothing but the API server, for writing by the one that stops it.
static LIGHT: RwLock<()> = RwLock::const_new(());
/// Held by all of those that kill it.
static KILLERS: Mutex<Weak<RwLockWriteGuard<'static, ()>>> = Mutex::const_new(Weak::new());
/// How it is installed now, or why that failed.
static INSTALLED: Mutex<Option<Result<Mode, String>>> = Mutex::const_new(None);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// One operator, with a ClusterRole.
    Everywhere,
    /// Two, with a Role in each of [`GIVEN`]; and two pods for each gateway.
    Given,
}

/// The operator works everywhere, and nobody kills it while this is held.
pub async fn in_peace() -> RwLockReadGuard<'static, ()> {
    let guard = PEACE.read().await;
    installed(Some(Mode::Everywhere)).await;
    guard
}

/// The operator works in the given namespaces, and everybody else minds as little as this test what happens to it. The test's namespace
/// must begin with one of [`GIVEN`] and be entered, not made new. Whoever asks after this waits for it: these tests are in the last
/// modules, as tests start in the order of their names.
pub async fn among_killers() -> Arc<RwLockWriteGuard<'static, ()>> {
    let mut killers = KILLERS.lock().await;
    let held = match killers.upgrade() {
        Some(held) => held,
        None => Arc::new(PEACE.write().await),
    };
    *killers = Arc::downgrade(&held);
    installed(Some(Mode::Given)).await;
    held
}

/// The operator works in the given namespaces, and no other test runs while this is held.
pub async fn alone() -> (RwLockWriteGuard<'static, ()>, RwLockWriteGuard<'static, ()>) {
    let held = (PEACE.write().await, LIGHT.write().await);
    installed(Some(Mode::Given)).await;
    held
}

/// The operator is installed, one way or the other, and may be killed or installed again at any time.
pub async fn whatever_happens() -> RwLockReadGuard<'static, ()> {
    let guard = LIGHT.read().await;
    installed(None).await;
    guard
}

/// What is installed was taken apart: the next test installs it anew.
pub async fn forget() {
    *INSTALLED.lock().await = None;
}

async fn installed(wanted: Option<Mode>) {
    let mut installed = INSTALLED.lock().await;
    if let Some(Ok(mode)) = *installed
        && wanted.is_none_or(|wanted| wanted == mode)
    {
        return;
    }
    if installed.as_ref().is_none_or(Result::is_ok) {
        let mode = wanted.unwrap_or(Mode::Everywhere);
        let mut outcome = install_where_there_is_room(mode).await;
        // A test that ends meanwhile takes its namespace with it.
        if outcome
            .as_ref()
            .is_err_and(|error| error.contains("is being terminated"))
        {
            outcome = install_where_there_is_room(mode).await;
        }
        *installed = Some(outcome.map(|()| mode));
    }
    if let Some(Err(error)) = &*installed {
        panic!("{error}");
    }
}

async fn install_where_there_is_room(mode: Mode) -> Result<(), String> {
    if mode == Mode::Given {
        for prefix in GIVEN {
            Space::make(&Space::client().await, &Space::name_of(prefix)).await; // Roles need their namespace.
        }
    }
    let outcome = tokio::task::spawn_blocking(move || install(mode)).await;
    outcome.expect("helm doesn't panic")
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Image of the quickstart: Python, MLServer and the stand-in for a language model.
pub fn quickstart_image() -> String {
    std::env::var("PERENNIAL_QUICKSTART_IMAGE")
        .unwrap_or_else(|_| "docker.io/perennial/quickstart:dev".to_owned())
}

fn install(mode: Mode) -> Result<(), String> {
    if std::env::var_os("KUBECONFIG").is_none() {
        return Err("KUBECONFIG isn't set: run `hack/test e2e`".to_owned());
    }
    let names = GIVEN.map(Space::name_of).join(",");
    let values = match mode {
        Mode::Everywhere => vec![
            format!("artifacts.cache.claimName={}", crate::shared::CLAIM),
            "prometheus.sources[0].name=default".to_owned(),
            format!(
                "prometheus.sources[0].url=http://prometheus.{}.svc:9090",
                Space::name_of(crate::prometheus::NAMESPACE)
            ),
        ],
        Mode::Given => vec![
            format!("namespaces={{{names}}}"),
            "replicas=2".to_owned(),
            "gateway.replicas=2".to_owned(),
        ],
    };
    helm_install("perennial", NAMESPACE, &values)
}

/// Installs the chart or upgrades it, with these values and the defaults for all others.
fn helm_install(release: &str, namespace: &str, values: &[String]) -> Result<(), String> {
    let default = concat!("docker.io/perennial/perennial:", env!("CARGO_PKG_VERSION"));
    let image = std::env::var("PERENNIAL_IMAGE").unwrap_or_else(|_| default.to_owned());
    let (repository, tag) = image
        .rsplit_once(':')
        .ok_or_else(|| format!("PERENNIAL_IMAGE is {image}: it needs a tag"))?;
    let chart = root().join("charts/perennial");
    let image = [
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
    ];
    let helm = Command::new("helm")
        .args(["upgrade", "--install", release])
        .arg(chart)
        .args(["--namespace", namespace, "--create-namespace"])
        .args(image.iter().chain(values).flat_map(|v| ["--set", v]))
        .args(["--wait", "--timeout", "90s"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("helm can't be run: {error}"))?;
    if !helm.status.success() {
        let logs = Command::new("kubectl")
            .args(["--namespace", namespace, "logs", "--tail=20"])
            .arg(format!("deployment/{release}"))
            .stdin(Stdio::null())
            .output();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let logs = logs.map(|output| text(&output.stdout)).unwrap_or_default();
        return Err(format!("helm failed: {}\n{logs}", text(&helm.stderr)));
    }
    Ok(())
}

/// The holder of the lease: nothing if it was given back or isn't there.
fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn of_two_operators_the_other_takes_over_at_once_from_one_that_leaves_and_soon_from_one_that_was_killed()
 {
    let _light = whatever_happens().await; // for its CRDs
    let space = Space::new("second").await;
    let namespace = space.name.clone();
    let values = |replicas: u8| -> Vec<String> {
        let given = format!("namespaces={{{namespace}}}");
        [
            given,
            format!("replicas={replicas}"),
            "crds.install=false".to_owned(),
            "admissionPolicies.enabled=false".to_owned(),
            "aggregateRoles.enabled=false".to_owned(),
        ]
        .into()
    };
    let helm = async |values: Vec<String>| {
        let namespace = namespace.clone();
        let install = move || helm_install("second", &namespace, &values);
        tokio::task::spawn_blocking(install).await.unwrap().unwrap();
    };
    helm(values(2)).await;
    let lease = space
        .until("Lease", "second", 30, "somebody leads", |l| {
            !holder(l).is_empty()
        })
        .await;
    let first = holder(&lease).to_owned();
    let pods = space
        .list("Pod", "app.kubernetes.io/component=operator")
        .await;
    let names: Vec<&str> = pods
        .iter()
        .map(|p| p["metadata"]["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&first.as_str()) && names.len() == 2,
        "{names:?}, {first} leads"
    );

    // Told to leave, it gives the lease back: nobody waits until it has run out.
    let given_back = Cell::new(false);
    let taken = space.until("Lease", "second", 60, "another leads", |l| {
        given_back.set(given_back.get() || holder(l).is_empty());
        !["", &first].contains(&holder(l))
    });
    let (lease, ()) = tokio::join!(taken, space.delete("Pod", &first));
    assert!(given_back.get(), "the lease was not given back: {lease}");
    let second = holder(&lease).to_owned();

    // Killed, it can't; the lease runs out.
    let taken = space.until("Lease", "second", 60, "yet another leads", |l| {
        !["", &first, &second].contains(&holder(l))
    });
    tokio::join!(taken, space.kill(&second));

    // Uninstalled, nothing of it is left that the next one would have to wait for.
    let uninstall = ["uninstall", "second", "--namespace", &namespace, "--wait"].map(str::to_owned);
    let gone = tokio::task::spawn_blocking(|| {
        Command::new("helm")
            .args(uninstall)
            .stdin(Stdio::null())
            .output()
    });
    let gone = gone.await.unwrap().unwrap();
    assert!(
        gone.status.success(),
        "{}",
        String::from_utf8_lossy(&gone.stderr)
    );
    assert_eq!(space.read("Lease", "second").await, None);
    helm(values(1)).await;
    let pods = || async {
        space
            .list("Pod", "app.kubernetes.io/component=operator")
            .await
    };
    let name = pods().await[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    space
        .until("Lease", "second", 10, "the new one leads", |l| {
            holder(l) == name
        })
        .await;
}
