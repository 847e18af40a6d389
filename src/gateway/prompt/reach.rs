//! Whether prompts' backends can be reached, for the operator: what calls show, and where there are none, connections made to see.
//!
//! One failure is no news: a backend is called unreachable when for a while nothing else was seen, and reachable again when for a
//! while nothing else was. One that comes and goes is believed later each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::future::join_all;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use tower_service::Service;

use super::template::CompiledPrompt;
use crate::gateway::{Shared, table::Table};

/// Connections to LLM backends, with TLS or without.
pub type Connector = HttpsConnector<HttpConnector>;

/// How often it is looked at who is to be tried. All times here are milliseconds of [`Shared::now`].
const TICK: Duration = Duration::from_millis(250);
/// While what is seen contradicts what is thought, and before anything is known, it is tried so often.
const EAGER: u64 = 1000;
/// … one that can't be reached.
const DOWN: u64 = 5000;
/// … and one that nobody has called for so long.
const QUIET: u64 = 20_000;
/// For so long nothing but failures must be seen.
const BELIEVED: u64 = 2000;
/// For so long nothing but success, twice as long with each relapse, at most so many times.
const TRUSTED: u64 = 2000;
const MOST_RELAPSES: u32 = 6;
/// A failure so long after the last one is no relapse.
const FORGIVEN: u64 = 600_000;
/// The longest that a try may take.
const TRY: Duration = Duration::from_secs(3);
/// Backends that are tried at most, and at once; of more only calls tell.
const MOST: usize = 256;
const AT_ONCE: usize = 16;

/// What is known of backends, by scheme, host and port.
pub struct Reach {
    connector: Connector,
    known: Mutex<BTreeMap<Arc<str>, Seen>>,
}

/// What was seen of one backend.
#[derive(Debug, Default)]
struct Seen {
    /// Why it is called unreachable: what was said first, so that the sentence stands still.
    down: Option<String>,
    /// What contradicts that: since when, how often, and what it was.
    against: Option<(u64, u32)>,
    last: Option<u64>,
    relapses: u32,
    up_since: Option<u64>,
}

impl Seen {
    fn saw(&mut self, now: u64, what: Result<(), String>) {
        self.last = Some(now);
        if what.is_err() == self.down.is_some() {
            self.against = None;
            return;
        }
        let (since, times) = self.against.get_or_insert((now, 0));
        *times += 1;
        let enough = *times > 1;
        let for_long = now.saturating_sub(*since);
        match what {
            Err(why) if enough && for_long >= BELIEVED => {
                let relapsed = self.up_since.is_some_and(|up| now - up < FORGIVEN);
                self.relapses = match relapsed {
                    true => (self.relapses + 1).min(MOST_RELAPSES),
                    false => 0,
                };
                (self.down, self.against) = (Some(why), None);
            }
            Ok(()) if enough && for_long >= TRUSTED << self.relapses => {
                (self.down, self.against, self.up_since) = (None, None, Some(now));
            }
            _ => {}
        }
    }

    /// Whether what is thought of it may change soon.
    fn is_open(&self) -> bool {
        self.last.is_none() || self.against.is_some()
    }

    fn is_due(&self, now: u64) -> bool {
        let every = match (self.is_open(), &self.down) {
            (true, _) => EAGER,
            (false, Some(_)) => DOWN,
            (false, None) => QUIET,
        };
        self.last
            .is_none_or(|last| now.saturating_sub(last) >= every)
    }
}

impl Reach {
    /// Nothing is known yet.
    pub fn new(connector: Connector) -> Self {
        Self {
            connector,
            known: Mutex::default(),
        }
    }

    /// Tries the backends of the prompts that serve, until the gateway is gone.
    pub fn start(shared: &Arc<Shared>) {
        let weak = Arc::downgrade(shared);
        tokio::spawn(watch(weak));
    }

    /// A call reached the backend, or didn't.
    pub fn saw(&self, backend: &Arc<str>, now: u64, what: Result<(), String>) {
        // One that is called only by address keeps no caller waiting.
        if let Some(seen) = self.known().get_mut(backend) {
            seen.saw(now, what);
        }
    }

    /// Why callers of this prompt aren't answered, if its backend can't be reached; and whether that may change soon.
    pub fn problem(&self, prompt: &CompiledPrompt) -> (Option<String>, bool) {
        let known = self.known();
        let Some(seen) = known.get(&prompt.backend) else {
            return (None, known.len() < MOST);
        };
        let sentence = seen.down.as_ref().map(|why| {
            format!(
                "the backend {} can't be reached: {why}. Bring it up, or correct spec.backend.url; if it is up, let the gateway's pods \
                 reach it (a NetworkPolicy or a firewall may be in the way)",
                prompt.backend
            )
        });
        (sentence, seen.is_open())
    }

    /// Knows these backends and no others; those that are due.
    fn due(&self, backends: &BTreeMap<Arc<str>, Uri>, now: u64) -> Vec<(Arc<str>, Uri)> {
        let mut known = self.known();
        known.retain(|backend, _| backends.contains_key(backend));
        let mut due = Vec::new();
        for (backend, uri) in backends {
            let seen = known.entry(backend.clone()).or_default();
            if seen.is_due(now) && due.len() < AT_ONCE {
                due.push((backend.clone(), uri.clone()));
            }
        }
        due
    }

    async fn try_once(&self, uri: Uri) -> Result<(), String> {
        let mut connector = self.connector.clone();
        match tokio::time::timeout(TRY, connector.call(uri)).await {
            Ok(Ok(_connection)) => Ok(()),
            Ok(Err(error)) => Err(explain(&*error)),
            Err(_) => Err(format!("no connection in {} s", TRY.as_secs())),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Seen>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(weak: Weak<Shared>) {
    let mut of: Option<Arc<Table>> = None;
    let mut backends = BTreeMap::new();
    loop {
        tokio::time::sleep(TICK).await;
        let Some(shared) = weak.upgrade() else { return };
        let table = shared.table();
        if !of.as_ref().is_some_and(|old| Arc::ptr_eq(old, &table)) {
            backends = serving(&table);
            of = Some(table);
        }
        let due = shared.reach.due(&backends, shared.now());
        let tries = due.into_iter().map(|(backend, uri)| {
            let shared = &shared;
            async move {
                let what = shared.reach.try_once(uri).await;
                shared.reach.saw(&backend, shared.now(), what);
            }
        });
        join_all(tries).await;
    }
}

/// Backends of the prompts that have callers.
fn serving(table: &Table) -> BTreeMap<Arc<str>, Uri> {
    let prompts = table.releases().flat_map(|release| release.prompts());
    let mut seen = BTreeSet::new();
    let different = prompts.filter(|prompt| seen.insert(prompt.backend.clone()));
    let all = different.map(|prompt| (prompt.backend.clone(), prompt.uri.clone()));
    all.take(MOST).collect()
}

/// The innermost cause: `Connection refused` rather than `client error (Connect)`.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    loop {
        let known = cause.downcast_ref::<io::Error>();
        if known.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return "no connection in time".to_owned();
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: fn() -> Result<(), String> = || Err("refused".into());

    #[test]
    fn a_backend_is_unreachable_when_nothing_else_was_seen_for_a_while() {
        let mut seen = Seen::default();
        assert!(seen.is_open() && seen.is_due(0));
        seen.saw(0, NO());
        seen.saw(1000, NO());
        assert!(seen.down.is_none() && seen.is_open());
        // One success in between, and it begins anew.
        seen.saw(1500, Ok(()));
        assert!(!seen.is_open() && !seen.is_due(21_499) && seen.is_due(21_500));
        seen.saw(2000, NO());
        seen.saw(3000, NO());
        assert!(seen.down.is_none());
        seen.saw(4000, Err("no such host".into()));
        assert_eq!(seen.down.as_deref(), Some("no such host"));
        // What is said stands still.
        seen.saw(9000, NO());
        assert_eq!(seen.down.as_deref(), Some("no such host"));
        seen.saw(14_000, Ok(()));
        assert!(seen.down.is_some() && seen.is_open());
        seen.saw(16_000, Ok(()));
        assert!(seen.down.is_none());
    }

    #[test]
    fn one_failure_alone_is_no_news_however_old_it_is() {
        let mut seen = Seen::default();
        seen.saw(0, NO());
        assert!(seen.down.is_none());
        seen.saw(60_000, Ok(()));
        seen.saw(120_000, NO());
        assert!(seen.down.is_none());
    }

    #[test]
    fn a_backend_that_comes_and_goes_is_believed_later_each_time() {
        let (mut seen, mut changes, mut was) = (Seen::default(), 0, false);
        // Two hours of five seconds up, five seconds down.
        for second in 0..7200u64 {
            let up = (second / 5) % 2 == 0;
            seen.saw(second * 1000, if up { Ok(()) } else { NO() });
            changes += u32::from(seen.down.is_some() != was);
            was = seen.down.is_some();
        }
        assert!(changes <= 5, "{changes} changes");
        for second in 7200..7400u64 {
            seen.saw(second * 1000, Ok(()));
        }
        assert!(seen.down.is_none(), "it is trusted again in the end");
    }
}
