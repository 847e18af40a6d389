//! The container beside a server that asks it what `server.warmUp` says, and is ready once all of it was answered: as long as it isn't, the
//! pod isn't either.

use serde_json::{Value, json};

use crate::{
    api::{
        model_deployment::ServerSpec,
        run::{RUN_ENV, WARM_UP_PORT, WarmUpRun},
        serving::WarmUp,
    },
    plan::pod::{literal, restricted},
};

/// Name of the container.
pub const WARM_UP: &str = "perennial-warm-up";

/// The container: an init container that goes on running, so that it is there before the server and ends after it.
pub fn container(image: &str, server: &ServerSpec, warm_up: &WarmUp) -> Value {
    let run = WarmUpRun {
        port: server.port(),
        requests: warm_up.requests.clone(),
        rounds: warm_up.rounds.unwrap_or(1),
    };
    let run = serde_json::to_string(&run).unwrap_or_default();
    json!({
        "name": WARM_UP,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "args": ["warm-up"],
        "env": [{"name": RUN_ENV, "value": literal(&run)}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": WARM_UP_PORT}, "periodSeconds": 1, "timeoutSeconds": 2},
        "securityContext": restricted(),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    })
}
