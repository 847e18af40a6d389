//! Programs of others that run beside the cluster, where its pods can be reached, and their kinds: `hack/cluster/extras` has them in the cache.

use std::{
    fs::{self, File},
    net::TcpListener,
    process::Stdio,
};

use tokio::process::{Child, Command};

use crate::{installation, space::Space};

/// One of them, with the cluster's KUBECONFIG. It ends with this.
pub struct Peer {
    _process: Child,
}

impl Peer {
    /// Starts it; what it says is in `target/test/NAME.log`.
    pub fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = installation::root().join("target/test");
        fs::create_dir_all(&folder).unwrap();
        let log = File::create(folder.join(format!("{name}.log"))).unwrap();
        let process = Command::new(name)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}; `hack/cluster/extras {name}` builds it"));
        Self { _process: process }
    }
}

/// A port that nobody listens at.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().unwrap().port()
}

/// A CRD as its module has it, of one of the extras.
pub fn cached(extra: &str, file: &str) -> String {
    let cache = std::env::var("PERENNIAL_CACHE").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/perennial")
    });
    let path = format!("{cache}/{extra}/{file}.yaml");
    fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{path}: {e}; `hack/cluster/extras {extra}` fetches it"))
}

/// Installs that CRD; afterwards the API server serves its kind.
pub async fn install(space: &Space, extra: &str, file: &str) {
    let crd = cached(extra, file);
    let apply = ["apply", "--server-side", "-f", "-"];
    space.kubectl(&apply, &crd).await.unwrap();
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        "-",
    ];
    space.kubectl(&wait, &crd).await.unwrap();
}
