//! The one task that owns what is known: takes changes in, opens ports, swaps the table, keeps it on disk.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};

use super::{
    Shared,
    listen::Listeners,
    objects::{Change, Objects, Source},
    table::Table,
};

/// File with the table, in the state directory.
const FILE: &str = "table.json";
/// The table is written at most so often.
const SAVE: Duration = Duration::from_millis(500);
/// A port that could not be opened is tried again so often.
const RETRY: Duration = Duration::from_secs(1);
/// Changes that are taken in at once.
const BATCH: usize = 1024;

/// The task's state.
pub struct Keeper {
    shared: Arc<Shared>,
    listeners: Listeners,
    objects: Objects,
    closed: BTreeSet<u16>,
    listed: BTreeSet<Source>,
    directory: Option<PathBuf>,
    save_at: Option<Instant>,
}

impl Keeper {
    /// Starts with what is on disk, if there is any.
    pub async fn start(
        shared: Arc<Shared>,
        listeners: Listeners,
        directory: Option<PathBuf>,
    ) -> Self {
        let mut keeper = Self {
            shared,
            listeners,
            objects: Objects::default(),
            closed: BTreeSet::new(),
            listed: BTreeSet::new(),
            directory,
            save_at: None,
        };
        match keeper.directory.as_deref().map(load) {
            Some(Ok(Some(objects))) => {
                info!(
                    releases = objects.releases.len(),
                    "serving the table that was on disk"
                );
                keeper.objects = objects;
                keeper.show().await;
                keeper.shared.set_ready();
            }
            Some(Err(error)) => {
                warn!(%error, "the table on disk can't be read; waiting for the API server")
            }
            Some(Ok(None)) | None => {}
        }
        keeper
    }

    /// Takes changes in until the channel is closed; then hands the listeners back.
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut stop: tokio::sync::oneshot::Receiver<()>,
    ) -> Listeners {
        let mut batch = Vec::new();
        loop {
            let far = Instant::now() + Duration::from_secs(3600);
            let retry_at = if self.closed.is_empty() {
                far
            } else {
                Instant::now() + RETRY
            };
            tokio::select! {
                _ = &mut stop => break,
                n = changes.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        // No watch any more: what is known stays in effect.
                        let _ = stop.await;
                        break;
                    }
                    self.take(batch.drain(..)).await;
                }
                () = tokio::time::sleep_until(self.save_at.unwrap_or(far)) => self.save().await,
                () = tokio::time::sleep_until(retry_at) => self.show().await,
            }
        }
        if self.save_at.is_some() {
            self.save().await;
        }
        self.listeners
    }

    async fn take(&mut self, changes: impl Iterator<Item = Change>) {
        let mut changed = false;
        for change in changes {
            if let Change::All(source, _) = &change {
                self.listed.insert(*source);
            }
            let (different, errors) = self.objects.apply(change);
            changed |= different;
            for error in errors {
                self.shared.telemetry.undecodable.inc();
                warn!("{error}");
            }
        }
        if changed {
            self.show().await;
            self.save_at.get_or_insert(Instant::now() + SAVE);
        }
        if self.listed.len() == Source::ALL.len() {
            self.shared.set_ready();
        }
    }

    /// Opens the ports first, so that an epoch is only called served when callers can come in.
    async fn show(&mut self) {
        let ports = self.objects.releases.values().filter_map(|r| r.port);
        let failed = self.listeners.set_ports(ports).await;
        let closed: BTreeSet<u16> = failed.iter().map(|(port, _)| *port).collect();
        if closed != self.closed {
            for (port, error) in &failed {
                warn!(port, %error, "the port of a release can't be opened; trying again");
            }
        }
        self.closed = closed;
        let before = self.shared.table();
        let table = Arc::new(Table::build(&self.objects, &before, &self.closed));
        self.shared.telemetry.show(&table, &before);
        self.shared.set_table(table);
    }

    async fn save(&mut self) {
        self.save_at = None;
        let Some(directory) = self.directory.clone() else {
            return;
        };
        let saved = match serde_json::to_vec(&self.objects) {
            Ok(bytes) => tokio::task::spawn_blocking(move || write(&directory, &bytes))
                .await
                .unwrap_or_else(|e| Err(io::Error::other(e))),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = saved {
            warn!(%error, "the table can't be kept on disk; a restart would need the API server");
        }
    }
}

/// Whole or not at all.
fn write(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{FILE}.new"));
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, directory.join(FILE))
}

fn load(directory: &Path) -> io::Result<Option<Objects>> {
    match std::fs::read(directory.join(FILE)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
