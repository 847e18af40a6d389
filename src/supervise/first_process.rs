//! Being process 1 of a container: forwards signals to the supervisor proper, and reaps what others leave behind.

use std::{os::unix::process::ExitStatusExt, process::Command};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Starts this program again with the same arguments, and waits for it; gives its exit code.
pub async fn run() -> i32 {
    let arguments = std::env::args_os().skip(1);
    let started = std::env::current_exe().and_then(|own| Command::new(own).args(arguments).spawn());
    let child = match started {
        Ok(child) => child,
        Err(e) => {
            tracing::error!("the supervisor can't be started: {e}");
            return 1;
        }
    };
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return 1;
    };
    for (kind, send) in [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
    ] {
        if let Ok(mut stream) = signal(kind) {
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    // It may have just ended.
                    let _ = kill_process(pid, send);
                }
            });
        }
    }
    let code = tokio::task::spawn_blocking(move || reap_until(pid)).await;
    code.unwrap_or(1)
}

fn reap_until(pid: Pid) -> i32 {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == pid => {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                return status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child is left, though ours was not seen to end.
            Err(_) => return 1,
        }
    }
}
