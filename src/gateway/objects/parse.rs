//! Reading the cluster's objects, leniently: a newer operator's status has more than routing needs.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use super::{Kind, LabelTerms, ModelRevisionObject, ReleaseObject, RevisionObject, Side, Slice};
use crate::api::{
    model_deployment::ServerSpec, payload_log::PayloadLog, revision::Signature,
    rollout::LabelsMetric, traffic::Traffic,
};

/// Label of an EndpointSlice with the name of its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Only what routing needs, so that neither an older nor a newer operator's status is refused for something else.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    stable: Option<Side>,
    candidate: Option<Side>,
    rollout: Rollout,
    gateway: GatewayPort,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rollout {
    weight: i32,
    mirror: i32,
    epoch: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GatewayPort {
    port: Option<u16>,
}

pub(super) fn release(object: &DynamicObject) -> Result<ReleaseObject, String> {
    let status: Status = match object.data.get("status") {
        Some(status) if !status.is_null() => {
            serde_json::from_value(status.clone()).map_err(|e| e.to_string())?
        }
        _ => Status::default(),
    };
    let uid = object.metadata.uid.clone().ok_or("it has no uid")?;
    if !(0..=100).contains(&status.rollout.weight) {
        return Err(format!("weight {} is not 0 to 100", status.rollout.weight));
    }
    let traffic = match object.data.get("spec").and_then(|s| s.get("traffic")) {
        Some(traffic) if !traffic.is_null() => {
            serde_json::from_value(traffic.clone()).map_err(|e| format!("spec.traffic: {e}"))?
        }
        _ => Traffic::default(),
    };
    let metrics = object.data.get("spec").and_then(|s| s.get("metrics"));
    let log = object.data.pointer("/spec/monitoring/payloadLog");
    Ok(ReleaseObject {
        uid,
        traffic,
        labels: metrics.and_then(terms),
        // One that can't be understood keeps nobody from being served.
        log: log.and_then(|log| PayloadLog::deserialize(log).ok()),
        port: status.gateway.port.filter(|port| *port > 0),
        stable: status.stable,
        candidate: status.candidate,
        weight: status.rollout.weight,
        mirror: status.rollout.mirror.clamp(0, 100),
        epoch: status.rollout.epoch,
    })
}

/// What metrics want labels for; one that can't be understood wants none.
fn terms(metrics: &Value) -> Option<LabelTerms> {
    let labels = metrics.as_array()?.iter().filter_map(|m| m.get("labels"));
    let known = labels.filter_map(|l| LabelsMetric::deserialize(l).ok());
    let terms = known.map(|of| LabelTerms {
        horizon: of.horizon_seconds(),
        kept: of.kept_seconds(),
    });
    terms.reduce(|a, b| LabelTerms {
        horizon: a.horizon.max(b.horizon),
        kept: a.kept.max(b.kept),
    })
}

/// The gateway's part of the data, leniently.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelData {
    #[serde(default)]
    model: ModelPart,
    server: ServerSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ModelPart {
    name: Option<String>,
    version: Option<String>,
    signature: Option<Signature>,
}

pub(super) type RevisionKey = (Kind, String, String);

pub(super) fn revision(
    object: &DynamicObject,
) -> Result<Option<(RevisionKey, RevisionObject)>, String> {
    let Some(owner) = object
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true) || owner.kind.ends_with("Release"))
        .or_else(|| object.metadata.owner_references.as_ref()?.first())
    else {
        return Ok(None);
    };
    let kind = match owner.kind.as_str() {
        "ModelDeployment" => Kind::Model,
        "PromptRelease" => Kind::Prompt,
        _ => return Ok(None),
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let hash = name
        .strip_prefix(&owner.name)
        .and_then(|rest| rest.strip_prefix('-'))
        .ok_or_else(|| {
            format!(
                "its name doesn't begin with that of its owner, {}",
                owner.name
            )
        })?;
    let data = object.data.get("data").cloned().unwrap_or(Value::Null);
    let revision = match kind {
        Kind::Model => {
            let data: ModelData = serde_json::from_value(data).map_err(|e| e.to_string())?;
            RevisionObject::Model(ModelRevisionObject {
                model: data.model.name,
                version: data.model.version,
                port: data.server.port(),
                grpc_port: data.server.grpc_port(),
                protocol: data.server.protocol(),
                tls: data.server.tls,
                signature: data.model.signature,
            })
        }
        Kind::Prompt => {
            RevisionObject::Prompt(serde_json::from_value(data).map_err(|e| e.to_string())?)
        }
    };
    Ok(Some((
        (kind, owner.name.clone(), hash.to_owned()),
        revision,
    )))
}

pub(super) fn slice(object: &DynamicObject) -> Result<Option<Slice>, String> {
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|l| l.get(SERVICE_NAME)) else {
        return Ok(None);
    };
    let is_hash = |text: &str| text.len() == 10 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !service
        .rsplit_once('-')
        .is_some_and(|(_, hash)| is_hash(hash))
    {
        return Ok(None); // Some other Service of the namespace.
    }
    let value = serde_json::to_value(object).map_err(|e| e.to_string())?;
    let slice: EndpointSlice = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let (mut ready, mut sick) = (Vec::new(), Vec::new());
    for endpoint in &slice.endpoints {
        let says = endpoint.conditions.clone().unwrap_or_default();
        let addresses = endpoint
            .addresses
            .iter()
            .filter_map(|a| a.parse::<IpAddr>().ok());
        // Absent means ready, as the API says.
        if says.ready.unwrap_or(true) {
            ready.extend(addresses);
        } else if !says.terminating.unwrap_or(false) {
            sick.extend(addresses);
        }
    }
    let ports = slice.ports.unwrap_or_default();
    let port = ports
        .iter()
        .find(|p| p.name.as_deref() == Some("http"))
        .or(ports.first())
        .and_then(|p| p.port);
    Ok(Some(Slice {
        service: service.clone(),
        ready,
        sick,
        port: port.and_then(|p| u16::try_from(p).ok()),
    }))
}
