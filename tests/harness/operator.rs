//! An operator inside the test: caches, driver and controllers as in the program, limited to one namespace.

use std::time::Duration;

use perennial::{
    cluster::{Caches, Settings, Shell, lease::Leadership, prometheus::Sources},
    controller::{Controller, gateway::Gateways, operator, round},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Place, faults::Faults};

/// A running operator.
pub struct Operator {
    /// What its controllers share.
    pub shell: Shell,
    /// What happened to its requests.
    pub faults: Faults,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Operator {
    /// An operator without controllers yet; add them with [`Operator::with`], then [`Operator::start`] it.
    pub async fn new(place: &Place, faults: Faults) -> Self {
        let settings = Settings {
            namespaces: vec![place.namespace.clone()],
            identity: "test".to_owned(),
            image: "registry.example/perennial:test".to_owned(),
            ..Settings::default()
        };
        let caches = Caches::new(&settings.namespaces);
        let shell = Shell::new(
            faults.client().await,
            caches,
            settings,
            Leadership::always(),
        );
        Self {
            shell,
            faults,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Waits until nothing was written for this long: there is nothing else by which one could see that no write comes.
    pub async fn quiet(&self, time: Duration) {
        for _ in 0..10 {
            let before = self.faults.writes();
            tokio::time::sleep(time).await;
            if self.faults.writes() == before {
                return;
            }
        }
        let written = self.faults.written();
        let last = written.len().saturating_sub(20);
        panic!("it goes on writing: {:#?}", &written[last..]);
    }

    /// Adds a controller.
    pub fn with<C: Controller>(mut self, controller: C) -> Self {
        self.tasks.spawn(round::run(
            controller,
            self.shell.clone(),
            self.stop.clone(),
        ));
        self
    }

    /// Adds every controller that the program has.
    pub fn with_all(mut self) -> Self {
        let gateways = Gateways {
            replicas: 1,
            operator_namespace: None,
        };
        operator::start(
            &self.shell,
            gateways,
            Sources::default(),
            &self.stop,
            &mut self.tasks,
        );
        self
    }

    /// Starts the watches and waits until the caches are complete.
    pub async fn start(self) -> Self {
        self.shell.caches.start(&self.shell.client, &self.stop);
        tokio::select! {
            () = self.shell.caches.wait_ready() => {}
            () = self.faults.died() => {}
        }
        self
    }

    /// Ends it at once, as SIGKILL does.
    pub async fn kill(mut self) {
        self.stop.cancel();
        self.tasks.shutdown().await;
    }
}
