//! The operator as a process of its own.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::{
    net::TcpListener,
    process::{Child, Command, ExitStatus, Stdio},
};

use k8s_openapi::api::coordination::v1::Lease;

use crate::harness::{Place, eventually};

/// A running operator; killed when dropped.
pub struct Process {
    child: Child,
    /// Its name in the lease.
    pub name: &'static str,
    port: u16,
}

impl Process {
    /// Starts one that works in the place's namespace.
    pub fn start(place: &Place, name: &'static str) -> Self {
        Self::with(place, name, &["--namespaces", &place.namespace])
    }

    /// Starts one that works in the whole cluster; its lease is in the place's namespace.
    pub fn everywhere(place: &Place, name: &'static str) -> Self {
        Self::with(place, name, &[])
    }

    fn with(place: &Place, name: &'static str, arguments: &[&str]) -> Self {
        // Free a moment ago; should it be taken since, the test says so.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(env!("CARGO_BIN_EXE_perennial"))
            .args(["operator", "--lease-name", "l", "--log-format", "json"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--lease-namespace", &place.namespace])
            .args(arguments)
            .env("POD_NAME", name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, name, port }
    }

    /// Sends it a signal, as `kill` takes it.
    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    /// Asks its server.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.port))
            .await
            .ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Its present and highest resident memory in MiB.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kib: u64 = line
                .unwrap()
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .unwrap();
            kib / 1024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// The sum of the series of this name that it shows.
    pub async fn sum(&self, metric: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.unwrap();
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(metric);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        series.filter_map(value).sum()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        eventually("the operator is ready", || async {
            (self.get("/readyz").await?.0 == 200).then_some(())
        })
        .await;
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        eventually("the process ends", || async {
            child.borrow_mut().try_wait().unwrap()
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who holds its lease.
pub async fn holder(place: &Place) -> Option<String> {
    let lease = place.typed::<Lease>().get_opt("l").await.unwrap()?;
    lease
        .spec?
        .holder_identity
        .filter(|holder| !holder.is_empty())
}
