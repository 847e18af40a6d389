//! The trainer, or an evaluator: a child process, watched.

use std::{
    ffi::OsString,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, Command},
    sync::watch,
};

use super::{
    GRACE,
    board::{Board, shorten},
    failure::{Failure, Stop, stopped},
    progress::Follower,
};
use crate::api::{
    Duration as Limit,
    run::{EXIT_STALLED, RUN_ENV},
};

/// How often the progress file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of the last line that are remembered.
const LAST_LINE: usize = 512;
/// Lines of two streams that come within this time came together.
const TOGETHER: Duration = Duration::from_millis(500);
/// Time for the last output of a trainer that has ended; its own children may hold the pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A stream's last line that isn't empty, and when it came.
type LastLine = Arc<Mutex<Option<(Instant, String)>>>;

/// The later line of the two; of two that came together the one on stderr, where errors are told.
fn last_of(out: &LastLine, err: &LastLine) -> Option<String> {
    let take = |line: &LastLine| line.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (take(out), take(err)) {
        (Some((at, line)), Some((err_at, _))) if at > err_at + TOGETHER => Some(line),
        (_, Some((_, line))) | (Some((_, line)), None) => Some(line),
        (None, None) => None,
    }
}

/// What is run, and who it is in messages.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// Such as `the trainer`.
    pub who: &'a str,
    /// Reason of its failure.
    pub reason: &'static str,
    /// Program and arguments.
    pub command: &'a [String],
    /// Environment besides this process's own.
    pub environment: Vec<(String, OsString)>,
    /// Where it writes progress, if it does.
    pub progress: Option<&'a Path>,
    /// How long it may write none.
    pub stall: Option<&'a Limit>,
    /// An exit code besides 0 that is no failure.
    pub accepted: Option<i32>,
}

/// Runs it to its end; gives its exit code.
///
/// # Errors
/// The task's reason, `Stalled`, or what stopped the run.
pub async fn run(
    task: &Task<'_>,
    board: &Board,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<i32, Failure> {
    let mut child = start(task)?;
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let (last_out, last_err) = (LastLine::default(), LastLine::default());
    let mut copies = tokio::task::JoinSet::new();
    if let Some(out) = child.stdout.take() {
        let (from, last) = (out.into_owned_fd(), last_out.clone());
        copies.spawn_blocking(move || {
            from.map(|from| pass_on(from.into(), std::io::stdout(), &last))
        });
    }
    if let Some(err) = child.stderr.take() {
        let (from, last) = (err.into_owned_fd(), last_err.clone());
        copies.spawn_blocking(move || {
            from.map(|from| pass_on(from.into(), std::io::stderr(), &last))
        });
    }
    let ended = watch_over(&mut child, group, task, board, stop).await;
    // What it started doesn't outlive it.
    signal(group, Signal::KILL);
    let _ = tokio::time::timeout(LAST_OUTPUT, async {
        while copies.join_next().await.is_some() {}
    })
    .await;
    let line = last_of(&last_out, &last_err);
    match ended {
        Ok(status) => match status.code() {
            Some(code) if code == 0 || task.accepted == Some(code) => Ok(code),
            _ => Err(failed(task, status, line)),
        },
        Err(mut failure) => {
            failure.last_line = line;
            Err(failure)
        }
    }
}

fn start(task: &Task<'_>) -> Result<Child, Failure> {
    let broken = |text: String| Failure::new(task.reason, text, 127).permanent();
    let Some((program, arguments)) = task.command.split_first() else {
        return Err(broken(format!(
            "no command to run: the container of {} must say its `command`",
            task.who
        )));
    };
    if let Some(progress) = task.progress {
        if let Some(parent) = progress.parent() {
            let _ = std::fs::create_dir_all(parent);
        }
        // Lines of an earlier start are not this one's.
        let _ = std::fs::remove_file(progress);
    }
    let mut child = Command::new(program);
    child
        .args(arguments)
        .env_remove(RUN_ENV)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        // Credentials are the supervisor's, not the trainer's.
        if name.to_string_lossy().starts_with("PERENNIAL_CRED_") {
            child.env_remove(name);
        }
    }
    child.envs(task.environment.iter().map(|(name, value)| (name, value)));
    child
        .spawn()
        .map_err(|e| broken(format!("the command `{program}` can't be started: {e}")))
}

async fn watch_over(
    child: &mut Child,
    group: Option<Pid>,
    task: &Task<'_>,
    board: &Board,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<ExitStatus, Failure> {
    let mut follower = Follower::default();
    let mut moved = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            status = child.wait() => {
                if let Some(file) = task.progress
                    && let (Some(progress), _) = follower.look(file, jiff::Timestamp::now())
                {
                    board.progress(progress);
                }
                return status.map_err(|e| Failure::new(task.reason, format!("{} was lost: {e}", task.who), 1));
            }
            stop = stopped(stop) => {
                end(child, group).await;
                return Err(stop.failure());
            }
            _ = look.tick() => {
                let Some(file) = task.progress else { continue };
                let (progress, new) = follower.look(file, jiff::Timestamp::now());
                if let Some(progress) = progress {
                    board.progress(progress);
                }
                if new {
                    moved = Instant::now();
                }
                if let Some(limit) = task.stall.filter(|limit| moved.elapsed() > limit.to_std()) {
                    end(child, group).await;
                    return Err(Failure::new(
                        "Stalled",
                        format!("{} wrote no progress for {limit} (progress.stallTimeout) and was ended", task.who),
                        EXIT_STALLED,
                    ));
                }
            }
        }
    }
}

/// Asks the trainer to end, then makes it.
async fn end(child: &mut Child, group: Option<Pid>) {
    signal(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        signal(group, Signal::KILL);
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The group may be gone already.
        let _ = kill_process_group(group, signal);
    }
}

fn failed(task: &Task<'_>, status: ExitStatus, line: Option<String>) -> Failure {
    // As shells say it: 128 and the signal.
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let how = match status.signal() {
        Some(9) => "was killed (signal 9), as when memory runs out".to_owned(),
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with exit code {code}"),
    };
    let words = line
        .as_deref()
        .map(|line| format!(": {line}"))
        .unwrap_or_default();
    let mut failure = Failure::new(task.reason, format!("{} {how}{words}", task.who), code);
    failure.exit_code = Some(code);
    failure.last_line = line;
    failure
}

/// Copies a stream as it comes and remembers its last line that isn't empty.
fn pass_on(mut from: std::fs::File, mut to: impl Write, last: &LastLine) {
    let mut buffer = vec![0; 16 * 1024];
    let mut line: Vec<u8> = Vec::new();
    let remember = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        if !text.is_empty() {
            *last.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((Instant::now(), shorten(text, LAST_LINE)));
        }
    };
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // A log that can't be written must not stop the training.
        let _ = to.write_all(&buffer[..n]).and_then(|()| to.flush());
        for &byte in &buffer[..n] {
            if matches!(byte, b'\n' | b'\r') {
                remember(&line);
                line.clear();
            } else if line.len() < 4 * LAST_LINE {
                line.push(byte);
            }
        }
    }
    remember(&line);
}
