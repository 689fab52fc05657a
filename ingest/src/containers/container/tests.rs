//! What an engine of version 20.10 wrote, and what it would not write.

use serde_json::{Value, json};

use super::*;

const INSPECT: &str = include_str!("../../../tests/ingest/docker/inspect.json");
const NETWORKS: &str = include_str!("../../../tests/ingest/docker/networks.json");
const EVENTS: &str = include_str!("../../../tests/ingest/docker/events.jsonl");

fn inspect() -> Value {
    serde_json::from_str(INSPECT).unwrap()
}

fn read(told: Value) -> Result<Container, String> {
    Container::read(serde_json::from_value(told).unwrap())
}

#[test]
fn a_container_of_a_project_has_an_endpoint_in_each_network() {
    let container = read(inspect()).unwrap();
    assert_eq!((&*container.name, &*container.namespace), ("shop-web-1", "shop"));
    assert_eq!(container.workload, ("ComposeService", "web".to_owned()));
    assert_eq!(container.ports, [80, 443, 9000]);
    assert_eq!(container.started_us, 1_795_649_486_007_678);
    assert!(container.running);
    let ips = |texts: &[&str]| texts.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let [default, back] = &container.endpoints[..] else { panic!("{container:?}") };
    assert_eq!(default.addresses, ips(&["172.30.0.2", "fd00:30::2"]));
    assert_eq!(default.gateways, ips(&["172.30.0.1", "fd00:30::1"]));
    assert_eq!(back.addresses, ips(&["172.18.0.2"]));
    assert!(default.network.starts_with("c2cfc4") && back.network.starts_with("2e84ae"));
}

#[test]
fn labels_tell_where_a_container_belongs() {
    let labelled = |labels: Value| {
        let mut told = inspect();
        told["Config"]["Labels"] = labels;
        let container = read(told).unwrap();
        let (kind, name) = container.workload;
        format!("{}/{kind}/{name}", container.namespace)
    };
    assert_eq!(labelled(Value::Null), "no-project/Container/shop-web-1");
    let (service, stack) = ("com.docker.swarm.service.name", "com.docker.stack.namespace");
    assert_eq!(labelled(json!({service: "web"})), "no-project/SwarmService/web");
    assert_eq!(labelled(json!({service: "shop_web", stack: "shop"})), "shop/SwarmService/web");
    let (project, service) = ("com.docker.compose.project", "com.docker.compose.service");
    assert_eq!(labelled(json!({project: "a", service: "b"})), "a/ComposeService/b");
    assert_eq!(labelled(json!({project: "", service: "b"})), "no-project/Container/shop-web-1");
}

#[test]
fn a_container_without_addresses_has_no_endpoints() {
    let mut host = inspect();
    host["NetworkSettings"]["Networks"] =
        json!({"host": {"NetworkID": "n", "EndpointID": "e", "IPAddress": ""}});
    assert_eq!(read(host).unwrap().endpoints, []);
    let mut sidecar = inspect();
    sidecar["NetworkSettings"]["Networks"] = json!({});
    assert_eq!(read(sidecar).unwrap().endpoints, []);
    let mut created = inspect();
    created["State"]["StartedAt"] = json!("0001-01-01T00:00:00Z");
    assert_eq!(read(created).unwrap().started_us, 0);
}

#[test]
fn the_name_that_compose_gives_while_it_makes_another_is_not_told() {
    let mut old = inspect();
    old["Name"] = json!("/e31daf349ab2_shop-web-1");
    assert_eq!(read(old).unwrap().name, "shop-web-1");
    assert_eq!(own_name("e31daf349ab2", "/0123456789ab_web"), "0123456789ab_web");
}

#[test]
fn what_cannot_be_read_says_why() {
    let broken = |path: &str, value: Value| {
        let mut told = inspect();
        *told.pointer_mut(path).unwrap() = value;
        read(told).unwrap_err()
    };
    let address = "/NetworkSettings/Networks/shop_back/IPAddress";
    assert!(broken(address, json!("172.18.0")).contains("\"172.18.0\" is no address"));
    assert!(broken("/State/StartedAt", json!("yesterday")).contains("State.StartedAt"));
    assert!(broken("/Name", json!("/")).contains("empty"));
    assert!(broken("/Name", json!("x".repeat(254))).contains("253 bytes"));
    assert!(broken("/Id", Value::Null).contains("Id"));
}

#[test]
fn bridges_tell_gateways_or_not() {
    let told: Vec<NetworkResponse> = serde_json::from_str(NETWORKS).unwrap();
    let read: Vec<_> = told.into_iter().map(|network| Bridge::read(network).unwrap()).collect();
    assert_eq!(read.len(), 5);
    let bridges: Vec<_> = read.into_iter().flatten().collect();
    let gateways: Vec<_> = bridges.iter().map(|bridge| bridge.gateways.len()).collect();
    assert_eq!(gateways, [0, 0, 1], "docker0, one of given pools, one of the engine's pools");
    assert!(bridges.iter().all(|bridge| bridge.created_us > 1_795_000_000_000_000));
}

#[test]
fn events_are_read_as_an_engine_writes_them() {
    let told = EVENTS.lines().map(|line| serde_json::from_str::<EventMessage>(line).unwrap());
    let events: Vec<_> = told.filter_map(Event::read).collect();
    let shorty: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::Connected { container, .. } => Some((container, "connected")),
            What::Started(container) => Some((container, "started")),
            What::Changed(container) => Some((container, "changed")),
            What::Ended(container) => Some((container, "ended")),
            What::Networks => None,
        })
        .filter(|(container, _)| container.starts_with("895bf9"))
        .map(|(_, what)| what)
        .collect();
    assert_eq!(shorty, ["connected", "started", "ended", "changed", "ended"]);
    assert_eq!(events.iter().filter(|event| event.what == What::Networks).count(), 3);
    assert!(events.windows(2).all(|pair| pair[0].at_us <= pair[1].at_us));
}

#[test]
fn an_id_that_is_a_path_is_none() {
    let told =
        json!({"Type": "container", "Action": "start", "Actor": {"ID": "../../info"}, "time": 1});
    assert_eq!(Event::read(serde_json::from_value(told).unwrap()), None);
}
