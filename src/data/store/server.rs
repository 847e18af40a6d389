//! Object stores for tests: a real S3 server, versitygw, whose binary `PERENNIAL_VERSITYGW` names (`hack/cluster/extras versitygw`), and others.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::Environment;

pub(crate) const KEY: &str = "perennial-tests";
pub(crate) const SECRET: &str = "not-a-secret-000";

/// A server; it ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) root: tempfile::TempDir,
    pub(crate) endpoint: String,
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn environment(pairs: &[(&str, &str)]) -> Environment {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    Environment::of(pairs.iter().map(owned))
}

impl Server {
    /// Starts a server with the bucket `models`.
    pub(crate) async fn start() -> Self {
        let binary = std::env::var("PERENNIAL_VERSITYGW")
            .expect("PERENNIAL_VERSITYGW names the S3 server's binary");
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("models")).unwrap();
        let port = free_port();
        let mut command = Command::new(binary);
        command
            .args(["--port", &format!("127.0.0.1:{port}"), "posix"])
            .arg(root.path())
            .envs([("ROOT_ACCESS_KEY", KEY), ("ROOT_SECRET_KEY", SECRET)]);
        Self::run(command, root, port).await
    }

    /// Starts another server, which keeps its data in `root`, and waits until it listens.
    pub(crate) async fn run(mut command: Command, root: tempfile::TempDir, port: u16) -> Self {
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the server doesn't start"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self {
            child,
            root,
            endpoint: format!("http://127.0.0.1:{port}"),
        }
    }

    pub(crate) fn environment(&self, secret: &str) -> Environment {
        environment(&[
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_ENDPOINT_URL", &self.endpoint),
        ])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
