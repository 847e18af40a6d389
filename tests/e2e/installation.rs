//! The operator, installed once for all tests.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Where the operator is installed.
pub const NAMESPACE: &str = "perennial-system";

/// Held for reading by tests that want to be left in peace, for writing by those that kill the operator.
static PEACE: RwLock<()> = RwLock::const_new(());

/// The operator runs, and nobody kills it while this is held.
pub async fn in_peace() -> RwLockReadGuard<'static, ()> {
    let guard = PEACE.read().await;
    installed().await;
    guard
}

/// The operator runs, and no other test minds what happens to it.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    let guard = PEACE.write().await;
    installed().await;
    guard
}

async fn installed() {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = tokio::task::spawn_blocking(|| INSTALLED.get_or_init(install).clone());
    outcome.await.unwrap().unwrap();
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

fn install() -> Result<(), String> {
    if std::env::var_os("KUBECONFIG").is_none() {
        return Err("KUBECONFIG isn't set: run `hack/test e2e`".to_owned());
    }
    let default = concat!("docker.io/perennial/perennial:", env!("CARGO_PKG_VERSION"));
    let image = std::env::var("PERENNIAL_IMAGE").unwrap_or_else(|_| default.to_owned());
    let (repository, tag) = image
        .rsplit_once(':')
        .ok_or_else(|| format!("PERENNIAL_IMAGE is {image}: it needs a tag"))?;
    let chart = root().join("charts/perennial");
    let helm = Command::new("helm")
        .args(["upgrade", "--install", "perennial"])
        .arg(chart)
        .args(["--namespace", NAMESPACE, "--create-namespace"])
        .args(["--set", &format!("image.repository={repository}")])
        .args(["--set", &format!("image.tag={tag}")])
        .args(["--wait", "--timeout", "90s"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("helm can't be run: {error}"))?;
    if !helm.status.success() {
        let logs = Command::new("kubectl")
            .args([
                "--namespace",
                NAMESPACE,
                "logs",
                "deployment/perennial",
                "--tail=20",
            ])
            .stdin(Stdio::null())
            .output();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let logs = logs.map(|output| text(&output.stdout)).unwrap_or_default();
        return Err(format!("helm failed: {}\n{logs}", text(&helm.stderr)));
    }
    Ok(())
}
