//! What the engine tells of containers, networks and events, cut down to what names need.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use bollard::models::{
    ContainerInspectResponse, EndpointSettings, EventMessage, EventMessageTypeEnum as EventType,
    Network as NetworkResponse,
};
use k8s_openapi::jiff::Timestamp;

/// Namespace of containers without a compose project or a stack. Kubernetes' rules for names hold for it, so
/// that a token can be limited to it.
pub const NO_PROJECT: &str = "no-project";

/// Bytes of a name, at most: as in Kubernetes. A container with a longer one is not taken in.
const MAX_NAME_BYTES: usize = 253;

/// Networks of one container, at most: each needs an interface in it.
const MAX_ENDPOINTS: usize = 256;

/// Ports of a container that count as such that it listens on, the lowest: `--expose 1-65535` says nothing.
const MAX_PORTS: usize = 256;

/// A container, as far as names need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    /// The compose project, or the stack of a swarm.
    pub(super) namespace: String,
    /// Kind and name of what it belongs to.
    pub(super) workload: (&'static str, String),
    /// When it was last started, microseconds since the epoch; 0 before that.
    pub(super) started_us: u64,
    pub(super) running: bool,
    /// TCP ports that its image or its configuration tells.
    pub(super) ports: Vec<u16>,
    /// Its place in each network in which it has an address.
    pub(super) endpoints: Vec<Endpoint>,
}

/// A container's place in a network: made when the one is connected to the other or started, and gone for
/// good when it is disconnected or stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The engine's id for it.
    pub(super) id: String,
    pub(super) network: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) gateways: Vec<IpAddr>,
}

/// A network whose gateway is the host itself: a bridge. That of others (macvlan, say) is someone else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) id: String,
    /// Microseconds since the epoch.
    pub(super) created_us: u64,
    pub(super) gateways: BTreeSet<IpAddr>,
}

/// Something that may have changed names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// When, microseconds since the epoch by the engine's clock.
    pub(super) at_us: u64,
    pub(super) what: What,
}

/// What happened to which container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It came to a network.
    Connected { container: String, network: String },
    /// It runs.
    Started(String),
    /// It left a network, or has another name.
    Changed(String),
    /// It runs no more.
    Ended(String),
    /// None: networks came or went.
    Networks,
}

impl Container {
    /// Reads what the engine tells.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(told: ContainerInspectResponse) -> Result<Self, String> {
        let id = told.id.filter(|id| !id.is_empty()).ok_or("it has no Id")?;
        let state = told.state.unwrap_or_default();
        let config = told.config.unwrap_or_default();
        let network = told.network_settings.unwrap_or_default();
        let running = state.running.unwrap_or_default();
        let started_us = time_us("State.StartedAt", state.started_at.as_deref())?;
        let name = own_name(&id, told.name.as_deref().unwrap_or_default());
        let labels = config.labels.unwrap_or_default();
        let (namespace, workload) = belongs_to(&labels, &name);
        for name in [&name, &namespace, &workload.1] {
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                return Err(format!(
                    "a name of it is empty or has more than {MAX_NAME_BYTES} bytes"
                ));
            }
        }
        let told_ports = network.ports.unwrap_or_default();
        let exposed = config.exposed_ports.unwrap_or_default();
        let ports: BTreeSet<u16> =
            exposed.iter().chain(told_ports.keys()).filter_map(|port| tcp_port(port)).collect();
        let ports: BTreeSet<u16> = ports.into_iter().take(MAX_PORTS).collect();
        let networks = network.networks.unwrap_or_default();
        if networks.len() > MAX_ENDPOINTS {
            return Err(format!("it is in more than {MAX_ENDPOINTS} networks"));
        }
        let mut endpoints = Vec::new();
        for (name, endpoint) in networks {
            endpoints.extend(
                Endpoint::read(&id, started_us, endpoint)
                    .map_err(|error| format!("network {name}: {error}"))?,
            );
        }
        endpoints.sort_by(|one, other| one.id.cmp(&other.id));
        let ports = ports.into_iter().collect();
        Ok(Self { id, name, namespace, workload, started_us, running, ports, endpoints })
    }
}

impl Endpoint {
    /// `None` without an address: those of containers that do not run, and the host's network.
    fn read(
        container: &str,
        started_us: u64,
        told: EndpointSettings,
    ) -> Result<Option<Self>, String> {
        let addresses = ip_addresses([told.ip_address, told.global_ipv6_address])?;
        if addresses.is_empty() {
            return Ok(None);
        }
        let network = told.network_id.unwrap_or_default();
        // Not every engine that speaks this API gives endpoints an id.
        let id = told
            .endpoint_id
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| format!("{container}/{network}/{started_us}"));
        let gateways = ip_addresses([told.gateway, told.ipv6_gateway])?;
        Ok(Some(Self { id, network, addresses, gateways }))
    }
}

impl Bridge {
    /// Reads what the engine tells. `None` for networks that are no bridges.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(told: NetworkResponse) -> Result<Option<Self>, String> {
        if told.driver.as_deref() != Some("bridge") {
            return Ok(None);
        }
        let id = told.id.filter(|id| !id.is_empty()).ok_or("it has no Id")?;
        let created_us = time_us("Created", told.created.as_deref())?;
        let pools = told.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        // Not told of every pool: containers tell the others.
        let gateways = ip_addresses(pools.into_iter().map(|pool| pool.gateway))?;
        Ok(Some(Self { id, created_us, gateways: gateways.into_iter().collect() }))
    }
}

impl Event {
    /// Reads what the engine tells. `None` if it changes no names.
    pub(super) fn read(told: EventMessage) -> Option<Self> {
        let nanos = told.time_nano.or_else(|| told.time?.checked_mul(1_000_000_000));
        let at_us = (nanos.unwrap_or(0) / 1_000).try_into().unwrap_or(0);
        let actor = told.actor.unwrap_or_default();
        let id = actor.id.filter(|id| is_id(id));
        let container = actor.attributes.and_then(|mut all| all.remove("container"));
        let container = container.filter(|id| is_id(id));
        let what = match (told.typ?, told.action.as_deref()?) {
            (EventType::CONTAINER, "start") => What::Started(id?),
            (EventType::CONTAINER, "rename") => What::Changed(id?),
            (EventType::CONTAINER, "die" | "destroy") => What::Ended(id?),
            (EventType::NETWORK, "connect") => {
                What::Connected { container: container?, network: id? }
            }
            (EventType::NETWORK, "disconnect") => What::Changed(container?),
            (EventType::NETWORK, "create" | "destroy") => What::Networks,
            _ => return None,
        };
        Some(Self { at_us, what })
    }
}

/// Whether it is an id, and not something else that would be part of a URL.
pub(super) fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The name without its slash; and without the id that compose puts before it while it makes another
/// container of that name.
fn own_name(id: &str, name: &str) -> String {
    let name = name.trim_start_matches('/');
    let short_id = id.get(..12).unwrap_or(id);
    let renamed = name.strip_prefix(short_id).and_then(|rest| rest.strip_prefix('_'));
    renamed.filter(|rest| !rest.is_empty()).unwrap_or(name).to_owned()
}

/// Namespace, and kind and name of the workload.
fn belongs_to(labels: &HashMap<String, String>, name: &str) -> (String, (&'static str, String)) {
    let label =
        |label: &str| labels.get(label).filter(|value| !value.is_empty()).map(|value| clean(value));
    if let Some(project) = label("com.docker.compose.project") {
        let service = label("com.docker.compose.service").unwrap_or_else(|| name.to_owned());
        return (project, ("ComposeService", service));
    }
    if let Some(service) = label("com.docker.swarm.service.name") {
        let Some(stack) = label("com.docker.stack.namespace") else {
            return (NO_PROJECT.to_owned(), ("SwarmService", service));
        };
        // A stack's services are named after it.
        let own = service.strip_prefix(&stack).and_then(|rest| rest.strip_prefix('_'));
        let service = own.map_or_else(|| service.clone(), str::to_owned);
        return (stack, ("SwarmService", service));
    }
    (NO_PROJECT.to_owned(), ("Container", name.to_owned()))
}

/// A label is anybody's text, and becomes part of ids, where `/` and `>` divide names: what compose and stacks
/// do not take in a name is `_`.
fn clean(label: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    label.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

/// The number of a port such as `80/tcp`.
fn tcp_port(port: &str) -> Option<u16> {
    port.strip_suffix("/tcp")?.parse().ok().filter(|port| *port != 0)
}

/// The addresses among the texts, of which some are absent or empty.
fn ip_addresses(texts: impl IntoIterator<Item = Option<String>>) -> Result<Vec<IpAddr>, String> {
    let texts = texts.into_iter().flatten().filter(|text| !text.is_empty());
    texts.map(|text| text.parse().map_err(|_| format!("{text:?} is no address"))).collect()
}

/// Microseconds since the epoch; 0 for none, and for the engine's "never", which is long before that.
fn time_us(field: &str, text: Option<&str>) -> Result<u64, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
    let time = text.parse::<Timestamp>().map_err(|_| format!("{field}, {text:?}, is no time"))?;
    Ok(time.as_microsecond().try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests;
