//! The one task that owns what is known: takes changes in, opens ports, swaps the table, keeps it on disk.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
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
    /// A write that is going on: disks may take their time, and changes don't wait for it.
    saving: Option<JoinHandle<io::Result<()>>>,
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
            saving: None,
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
                warn!(%error, "the table on disk is broken and isn't used; waiting for the API server")
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
                () = tokio::time::sleep_until(self.save_at.unwrap_or(far)), if self.saving.is_none() => self.save(),
                saved = written(&mut self.saving) => {
                    self.saving = None;
                    report(saved);
                }
                () = tokio::time::sleep_until(retry_at) => self.show().await,
            }
        }
        self.end_saving().await;
        if self.save_at.is_some() {
            self.save();
            self.end_saving().await;
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

    fn save(&mut self) {
        self.save_at = None;
        let Some(directory) = self.directory.clone() else {
            return;
        };
        match serde_json::to_vec(&self.objects) {
            Ok(bytes) => {
                let write = move || write(&directory, &bytes);
                self.saving = Some(tokio::task::spawn_blocking(write));
            }
            Err(error) => report(Err(error.into())),
        }
    }

    async fn end_saving(&mut self) {
        if self.saving.is_some() {
            report(written(&mut self.saving).await);
            self.saving = None;
        }
    }
}

/// Waits for a write that is going on; for ever if there is none.
async fn written(saving: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    match saving {
        Some(saving) => saving.await.unwrap_or_else(|e| Err(io::Error::other(e))),
        None => std::future::pending().await,
    }
}

fn report(saved: io::Result<()>) {
    if let Err(error) = saved {
        warn!(%error, "the table can't be kept on disk; a restart would need the API server");
    }
}

/// Whole or not at all, also if the node goes down: the bytes are on the disk before the name is, and the name before this ends.
fn write(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = directory.join(format!("{FILE}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    File::open(directory)?.sync_all()
}

fn load(directory: &Path) -> io::Result<Option<Objects>> {
    match fs::read(directory.join(FILE)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
