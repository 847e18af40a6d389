//! How a run ends badly.

use std::future::Future;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    api::run::{EXIT_DEADLINE, Report, Summary},
    data,
};

/// What ended a run, and with which exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// Whether trying again can't help.
    pub permanent: bool,
    /// Whether it says that there is too little for a verdict, rather than that something is broken.
    pub inconclusive: bool,
    /// Exit code of this process.
    pub code: i32,
    /// Exit code of the trainer.
    pub exit_code: Option<i32>,
    /// The trainer's last line.
    pub last_line: Option<String>,
}

impl Failure {
    /// A failure that trying again may mend.
    #[must_use]
    pub fn new(reason: &'static str, message: String, code: i32) -> Self {
        Self {
            reason,
            message,
            permanent: false,
            inconclusive: false,
            code,
            exit_code: None,
            last_line: None,
        }
    }

    /// From an error about data: `subject: error`.
    #[must_use]
    pub fn of(reason: &'static str, subject: &str, error: &data::Error, code: i32) -> Self {
        let mut failure = Self::new(reason, format!("{subject}: {error}"), code);
        failure.permanent = error.is_permanent();
        failure
    }

    /// Says that trying again can't help.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.permanent = true;
        self
    }

    /// Says that it is no verdict for want of data.
    #[must_use]
    pub fn inconclusive(mut self) -> Self {
        self.inconclusive = true;
        self
    }

    /// The report that says so.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            summary: Summary {
                succeeded: false,
                reason: Some(self.reason.to_owned()),
                message: self.message.clone(),
                permanent: self.permanent,
                inconclusive: self.inconclusive,
                exit_code: self.exit_code,
                last_line: self.last_line.clone(),
                ..Summary::default()
            },
            ..Report::default()
        }
    }
}

/// Why a run is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The deadline has passed.
    Deadline,
    /// The pod is being taken away.
    Terminated,
}

impl Stop {
    /// Watches the deadline and the wish of the kubelet.
    pub fn watch(
        deadline: Option<Timestamp>,
        mut asked: watch::Receiver<bool>,
    ) -> watch::Receiver<Option<Self>> {
        let (sender, receiver) = watch::channel(None);
        let left = deadline.map(|deadline| {
            std::time::Duration::try_from(deadline.duration_since(Timestamp::now()))
                .unwrap_or_default()
        });
        tokio::spawn(async move {
            let deadline = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            let asked = async {
                if asked.wait_for(|asked| *asked).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let stop = tokio::select! {
                () = deadline => Self::Deadline,
                () = asked => Self::Terminated,
                () = sender.closed() => return,
            };
            let _ = sender.send(Some(stop));
            sender.closed().await;
        });
        receiver
    }

    /// As a failure.
    #[must_use]
    pub fn failure(self) -> Failure {
        match self {
            Self::Deadline => Failure::new(
                "DeadlineExceeded",
                "the run's deadline has passed: give it more time in activeDeadlineSeconds, or less to do".to_owned(),
                EXIT_DEADLINE,
            )
            .permanent(),
            Self::Terminated => Failure::new(
                "Terminated",
                "the pod was asked to end (a drain, preemption or deletion)".to_owned(),
                // 128 + SIGTERM, as shells say it.
                143,
            ),
        }
    }
}

/// Waits until the run shall stop.
pub async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await {
        Ok(stop) => stop.unwrap_or(Stop::Terminated),
        Err(_) => std::future::pending().await,
    }
}

/// The work's result, or why it was given up.
///
/// # Errors
/// What the work says, or that it was stopped.
pub async fn until_stopped<T>(
    stop: &mut watch::Receiver<Option<Stop>>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        stop = stopped(stop) => Err(stop.failure()),
    }
}

/// Runs blocking work on another thread.
///
/// # Errors
/// What it says; a panic is an `InternalError`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        Failure::new(
            "InternalError",
            format!("the supervisor itself failed: {e}; please report this"),
            1,
        )
    })
}
