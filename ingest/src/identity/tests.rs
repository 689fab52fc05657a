//! Cases of ownership, each from objects as the API gives them; and the law that a lookup is what a
//! scan over all ownerships finds.

mod stored;

use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::objects::{EndpointSlice, Job, Node, Pod, ReplicaSet, Service};

/// Seconds after 2026-01-01T00:00:00Z, as microseconds since the epoch.
fn at(seconds: u64) -> u64 {
    (1_767_225_600 + seconds) * 1_000_000
}

/// The same instant as Kubernetes writes it.
fn time(seconds: u64) -> String {
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    format!("2026-01-01T{:02}:{:02}:{seconds:02}Z", minutes / 60, minutes % 60)
}

fn object<K: serde::de::DeserializeOwned + Into<Object>>(value: serde_json::Value) -> Object {
    serde_json::from_value::<K>(value).unwrap().into()
}

fn pod(name: &str, ip: &str, node: &str, from: u64) -> serde_json::Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": time(from)},
        "spec": {"nodeName": node, "containers": [{"ports": [{"containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "podIP": ip, "hostIP": "192.168.0.1",
            "conditions": [{"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": time(from)}]},
    })
}

fn owned_by(mut object: serde_json::Value, kind: &str, name: &str) -> serde_json::Value {
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": name, "controller": true}]);
    object
}

fn metadata(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": time(0)}})
}

fn service(name: &str) -> serde_json::Value {
    let mut service = metadata(name);
    service["spec"] = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"],
        "externalIPs": ["198.51.100.7"], "ports": [{"port": 80, "nodePort": 30080}]});
    service["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}, {"hostname": "x"}]}});
    service
}

fn slice(name: &str, service: &str, pods: &[&str]) -> serde_json::Value {
    let mut slice = metadata(name);
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": service});
    slice["endpoints"] = pods
        .iter()
        .map(|pod| json!({"targetRef": {"kind": "Pod", "name": pod, "namespace": "shop", "uid": pod}}))
        .collect();
    slice
}

fn node(name: &str, ip: &str) -> serde_json::Value {
    let mut node = metadata(name);
    node["status"] = json!({"addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]});
    node
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl IdentityIndex {
    fn name_at(&self, address: &str, instant: u64) -> String {
        self.lookup(ip(address), 8080, at(instant), "other").name.to_string()
    }
}

#[test]
fn a_pod_owns_its_address_from_its_sandbox_until_it_is_deleted() {
    let mut index = IdentityIndex::default();
    let web = object::<Pod>(pod("web", "10.1.0.5", "n1", 100));
    index.apply(&web, at(101));
    index.delete(&web, at(200));
    index.apply(&object::<Pod>(pod("db", "10.1.0.5", "n1", 230)), at(231));
    for (instant, name) in [(99, ""), (100, "web"), (199, "web"), (200, ""), (229, ""), (230, "db")]
    {
        assert_eq!(index.name_at("10.1.0.5", instant), name, "at {instant}");
    }
    let nobody = index.lookup(ip("10.1.0.5"), 80, at(210), "");
    assert_eq!((nobody.kind, nobody.uncertain), (EntityKind::Unknown, false));
}

#[test]
fn a_finished_job_frees_its_address() {
    let mut index = IdentityIndex::default();
    let mut done = owned_by(pod("job-x", "10.1.0.5", "n1", 10), "Job", "nightly-1");
    index.apply(&object::<Pod>(done.clone()), at(11));
    done["status"]["phase"] = json!("Succeeded");
    done["status"]["conditions"] = json!([
        {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": time(52)},
        {"type": "Ready", "status": "False", "lastTransitionTime": time(50)},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": time(60)}]);
    index.apply(&object::<Pod>(done.clone()), at(70));
    index.apply(&object::<Job>(owned_by(metadata("nightly-1"), "CronJob", "nightly")), at(70));
    assert_eq!(index.name_at("10.1.0.5", 51), "job-x");
    assert_eq!(index.name_at("10.1.0.5", 52), "");
    // Seen for the first time when it was over: the same, from startTime on.
    let mut late = IdentityIndex::default();
    done["status"]["startTime"] = json!(time(8));
    late.apply(&object::<Pod>(done), at(70));
    assert_eq!(late.name_at("10.1.0.5", 8), "job-x");
    assert_eq!(late.name_at("10.1.0.5", 52), "");
    let identity = index.lookup(ip("10.1.0.5"), 0, at(20), "");
    assert_eq!((&*identity.workload, &*identity.workload_kind), ("nightly", "CronJob"));
}

#[test]
fn the_later_start_wins_but_on_its_own_node_the_pod_there() {
    let mut index = IdentityIndex::default();
    index.apply(&object::<Pod>(pod("old", "10.1.0.5", "n1", 100)), at(100));
    index.apply(&object::<Pod>(pod("new", "10.1.0.5", "n2", 200)), at(200));
    let seen_on = |node| index.lookup(ip("10.1.0.5"), 1, at(300), node).name.to_string();
    assert_eq!([seen_on("n1"), seen_on("n2"), seen_on("n3")], ["old", "new", "new"]);
    assert_eq!(index.name_at("10.1.0.5", 150), "old");
}

#[test]
fn a_list_tells_what_vanished_and_since_when_that_is_uncertain() {
    let mut index = IdentityIndex::default();
    let gone = object::<Pod>(pod("gone", "10.1.0.5", "n1", 0));
    let kept = object::<Pod>(pod("kept", "10.1.0.6", "n1", 0));
    index.replace(Kind::Pod, &[gone.clone(), kept.clone()], at(100));
    index.replace(Kind::Node, &[], at(150));
    index.replace(Kind::Pod, &[kept], at(200));
    let seen = |seconds| index.lookup(ip("10.1.0.5"), 1, at(seconds), "");
    assert_eq!((&*seen(99).name, seen(99).uncertain), ("gone", false));
    assert_eq!((&*seen(100).name, seen(100).uncertain), ("gone", true));
    assert_eq!(&*seen(200).name, "");
    assert_eq!(index.name_at("10.1.0.6", 200), "kept");
    // A list that was cut short and is whole again: the pod was there all the time.
    index.replace(Kind::Pod, &[gone], at(300));
    assert_eq!(index.name_at("10.1.0.5", 250), "gone");
}

#[test]
fn workloads_are_the_top_owners() {
    let mut index = IdentityIndex::default();
    index.apply(
        &object::<Pod>(owned_by(pod("web-1-a", "10.1.0.1", "n", 0), "ReplicaSet", "web-1")),
        at(1),
    );
    index.apply(
        &object::<Pod>(owned_by(pod("db-0", "10.1.0.2", "n", 0), "StatefulSet", "db")),
        at(1),
    );
    index.apply(&object::<Pod>(owned_by(pod("static", "10.1.0.3", "n", 0), "Node", "n")), at(1));
    index.apply(&object::<Pod>(pod("alone", "10.1.0.4", "n", 0)), at(1));
    let replica_set = object::<ReplicaSet>(owned_by(metadata("web-1"), "Deployment", "web"));
    index.apply(&replica_set, at(2));
    // Pods outlive it for a moment, and late records for longer.
    index.delete(&replica_set, at(3));
    let of = |address| {
        let identity = index.lookup(ip(address), 1, at(10), "");
        format!("{}/{}", identity.workload_kind, identity.workload)
    };
    assert_eq!(of("10.1.0.1"), "Deployment/web");
    assert_eq!(of("10.1.0.2"), "StatefulSet/db");
    assert_eq!(of("10.1.0.3"), "Pod/static");
    assert_eq!(of("10.1.0.4"), "Pod/alone");
}

#[test]
fn a_service_has_its_addresses_and_the_one_workload_behind_it() {
    let mut index = IdentityIndex::default();
    let behind = slice("web-slice", "web", &["web-a", "web-b", "not-listed-yet"]);
    index.apply(&object::<Service>(service("web")), at(1));
    index.apply(&object::<EndpointSlice>(behind.clone()), at(1));
    for name in ["web-a", "web-b"] {
        let pod = owned_by(pod(name, "10.1.0.1", "n", 0), "ReplicaSet", "web-1");
        index.apply(&object::<Pod>(pod), at(1));
    }
    let seen = |index: &IdentityIndex, address| index.lookup(ip(address), 80, at(10), "");
    assert_eq!(&*seen(&index, "10.96.0.10").workload, "web-1");
    let deployment = owned_by(metadata("web-1"), "Deployment", "web-deployment");
    index.apply(&object::<ReplicaSet>(deployment), at(2));
    for address in ["10.96.0.10", "fd00::a", "198.51.100.7", "198.51.100.8", "::ffff:10.96.0.10"] {
        let identity = seen(&index, address);
        assert_eq!((identity.kind, &*identity.name), (EntityKind::Service, "web"), "{address}");
        assert_eq!(&*identity.workload, "web-deployment");
    }
    // Scaled to nothing it keeps the workload; with a second workload behind it has none.
    index.apply(&object::<EndpointSlice>(slice("web-slice", "web", &[])), at(3));
    assert_eq!(&*seen(&index, "10.96.0.10").workload, "web-deployment");
    index.apply(&object::<Pod>(pod("other", "10.1.0.9", "n", 0)), at(4));
    index.apply(&object::<EndpointSlice>(slice("web-slice", "web", &["web-a", "other"])), at(4));
    assert_eq!(&*seen(&index, "10.96.0.10").workload, "");
}

#[test]
fn a_nodes_port_tells_who_listens_there() {
    let mut index = IdentityIndex::default();
    index.apply(&object::<Node>(node("n1", "192.168.0.1")), at(1));
    index.apply(&object::<Service>(service("web")), at(1));
    let mut proxy = pod("proxy", "192.168.0.1", "n1", 5);
    proxy["spec"]["hostNetwork"] = json!(true);
    index.apply(&object::<Pod>(proxy), at(5));
    let mut ingress = pod("ingress", "10.1.0.7", "n1", 5);
    ingress["spec"]["containers"] = json!([{"ports": [{"containerPort": 8443, "hostPort": 443}]}]);
    index.apply(&object::<Pod>(ingress), at(5));
    let name = |port| index.lookup(ip("192.168.0.1"), port, at(10), "n1").name.to_string();
    assert_eq!(
        [name(8080), name(443), name(30080), name(40000)],
        ["proxy", "ingress", "web", "n1"]
    );
    assert_eq!(index.lookup(ip("10.1.0.7"), 1, at(10), "").kind, EntityKind::Pod);
    // A NodePort is one of nodes only.
    assert_eq!(index.lookup(ip("10.1.0.7"), 30080, at(10), "").kind, EntityKind::Pod);
    let listens = |address, port| index.listens(ip(address), port, at(10), "");
    assert!(
        listens("192.168.0.1", 30080) && listens("192.168.0.1", 443) && listens("10.1.0.7", 8443)
    );
    assert!(listens("10.96.0.10", 80) && !listens("10.96.0.10", 81) && !listens("192.168.0.1", 22));
}

#[test]
fn the_gateway_of_a_nodes_pods_is_the_node_unless_a_pod_has_its_address() {
    let mut index = IdentityIndex::default();
    let mut with_pods = node("n1", "192.168.0.1");
    with_pods["spec"] =
        json!({"podCIDR": "10.1.7.0/24", "podCIDRs": ["10.1.7.0/24", "fd00:7::/64"]});
    index.apply(&object::<Node>(with_pods), at(1));
    let kind = |index: &IdentityIndex, address| index.lookup(ip(address), 1, at(10), "n1").kind;
    for own in ["192.168.0.1", "10.1.7.0", "10.1.7.1", "fd00:7::1"] {
        assert_eq!(kind(&index, own), EntityKind::Node, "{own}");
    }
    assert_eq!(kind(&index, "10.1.7.2"), EntityKind::Unknown);
    index.apply(&object::<Pod>(pod("web", "10.1.7.1", "n1", 5)), at(5));
    assert_eq!(kind(&index, "10.1.7.1"), EntityKind::Pod);
}

#[test]
fn services_that_share_a_nodes_address_have_their_own_ports_of_it() {
    // As k3s' load balancer does it: the nodes' addresses are every Service's ingress.
    let mut index = IdentityIndex::default();
    index.apply(&object::<Node>(node("n1", "192.168.0.1")), at(1));
    for (name, port) in [("web", 80), ("mail", 25)] {
        let mut service = metadata(name);
        service["spec"] = json!({"ports": [{"port": port}]});
        service["status"] =
            json!({"loadBalancer": {"ingress": [{"ip": "192.168.0.1"}, {"ip": "192.0.2.9"}]}});
        index.apply(&object::<Service>(service), at(1));
    }
    let seen = |address, port| {
        let identity = index.lookup(ip(address), port, at(10), "n1");
        (identity.kind, identity.name.to_string())
    };
    assert_eq!(seen("192.168.0.1", 80), (EntityKind::Service, "web".into()));
    assert_eq!(seen("192.168.0.1", 25), (EntityKind::Service, "mail".into()));
    assert_eq!(seen("192.168.0.1", 10_250), (EntityKind::Node, "n1".into()));
    assert_eq!(seen("192.0.2.9", 25), (EntityKind::Service, "mail".into()));
    assert_eq!(seen("192.0.2.9", 9).0, EntityKind::Service, "still no other's address");
    assert!(
        index.listens(ip("192.168.0.1"), 80, at(10), "")
            && index.listens(ip("192.0.2.9"), 25, at(10), "")
    );
}

#[test]
fn a_service_keeps_the_workload_that_nobody_had_asked_for() {
    let mut index = IdentityIndex::default();
    index.apply(&object::<Service>(service("web")), at(1));
    index.apply(&object::<Pod>(pod("alone", "10.1.0.9", "n", 0)), at(1));
    index.apply(&object::<EndpointSlice>(slice("s", "web", &["alone"])), at(1));
    index.apply(&object::<EndpointSlice>(slice("s", "web", &[])), at(2));
    assert_eq!(&*index.lookup(ip("10.96.0.10"), 80, at(10), "").workload, "alone");
}

#[test]
fn a_slice_given_to_another_service_is_behind_that_one_only() {
    let mut index = IdentityIndex::default();
    for name in ["alone", "other"] {
        index.apply(&object::<Pod>(pod(name, "10.1.0.9", "n", 0)), at(1));
    }
    index.apply(&object::<Service>(service("web")), at(1));
    index.apply(&object::<EndpointSlice>(slice("moved", "web", &["other"])), at(1));
    index.apply(&object::<EndpointSlice>(slice("moved", "else", &["other"])), at(2));
    index.apply(&object::<EndpointSlice>(slice("stays", "web", &["alone"])), at(2));
    assert_eq!(&*index.lookup(ip("10.96.0.10"), 80, at(10), "").workload, "alone");
}

#[test]
fn one_object_cannot_claim_without_end() {
    let mut index = IdentityIndex::default();
    let mut greedy = service("greedy");
    let external = |first: u32, count| -> serde_json::Value {
        (first..first + count).map(|bits| json!(std::net::Ipv4Addr::from(bits))).collect()
    };
    greedy["spec"] = json!({"externalIPs": external(0x0b00_0000, 100_000)});
    index.apply(&object::<Service>(greedy.clone()), at(1));
    // With its load balancer's.
    assert_eq!(index.counts().ownerships_forgotten, 100_001 - MAX_CLAIMS as u64);
    // What it gives up stays known for late records, the latest of it at least.
    for second in 2..12 {
        greedy["spec"]["externalIPs"] = external(0x0c00_0000 + second * 1_000, 1_000);
        index.apply(&object::<Service>(greedy.clone()), at(second.into()));
    }
    assert_eq!(index.entities.get("greedy").unwrap().claims.len(), MAX_CLAIMS);
    let of = |bits: u32, second| {
        index.lookup(std::net::Ipv4Addr::from(bits).into(), 1, at(second), "").kind
    };
    assert_eq!(of(0x0c00_0000 + 10_000, 10), EntityKind::Service);
    assert_eq!(of(0x0c00_0000 + 2_000, 2), EntityKind::External);
}

#[test]
fn objects_written_by_hand_may_lack_uids_and_times_but_not_names() {
    let mut index = IdentityIndex::default();
    index.apply(
        &object::<Pod>(json!({"metadata": {"name": "a"}, "status": {"podIP": "10.0.0.1"}})),
        5,
    );
    index.apply(&object::<Pod>(json!({"metadata": {}, "status": {"podIP": "10.0.0.2"}})), 5);
    assert_eq!(&*index.lookup(ip("10.0.0.1"), 1, 0, "").name, "a");
    let owned = |owner: &str, name: &str| {
        json!({"metadata": {"name": name, "ownerReferences": [{"kind": owner, "name": "set"}]},
            "status": {"podIP": "10.0.0.3"}})
    };
    index.apply(&object::<Pod>(owned("ReplicaSet", "b")), 5);
    index.apply(&object::<ReplicaSet>(owned("Deployment", "set")), 5);
    let identity = index.lookup(ip("10.0.0.3"), 1, 0, "");
    assert_eq!((&*identity.workload_kind, &*identity.workload), ("Deployment", "set"));
    assert_eq!((index.counts().objects, index.counts().refused), (3, 1));
}

/// One pod in the property: index of its address and node, start, and end if it was deleted.
type Spell = (u8, u8, u64, Option<u64>);

fn spells() -> impl Strategy<Value = Vec<Spell>> {
    let spell = (0_u8..3, 0_u8..3, 0_u64..50, proptest::option::of(0_u64..60));
    proptest::collection::vec(spell, 1..25)
}

proptest! {
    #[test]
    fn a_lookup_is_what_a_scan_finds(spells in spells(), address in 0_u8..3, instant in 0_u64..60, seen_on in 0_u8..3) {
        let mut index = IdentityIndex::default();
        for (number, (address, node, start, end)) in spells.iter().enumerate() {
            let (name, ip) = (format!("p{number:02}"), format!("10.0.0.{address}"));
            let object = object::<Pod>(pod(&name, &ip, &format!("n{node}"), *start));
            index.apply(&object, at(*start));
            if let Some(end) = end {
                index.delete(&object, at(*end));
            }
        }
        let scanned = spells
            .iter()
            .enumerate()
            .filter(|(_, (at_address, _, start, end))| {
                *at_address == address && *start <= instant && end.is_none_or(|end| instant < end)
            })
            .max_by_key(|(number, (_, node, start, _))| (*node == seen_on, *start, *number));
        let found = index.lookup(ip(&format!("10.0.0.{address}")), 1, at(instant), &format!("n{seen_on}"));
        let expected = scanned.map(|(number, _)| format!("p{number:02}")).unwrap_or_default();
        prop_assert_eq!(&*found.name, expected);
    }

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(spells in spells(), instant in 0_u64..60) {
        let pods: Vec<_> = spells.iter().enumerate().map(|(number, (address, node, start, _))| {
            object::<Pod>(pod(&format!("p{number}"), &format!("10.0.0.{address}"), &format!("n{node}"), *start))
        }).collect();
        let (mut forwards, mut backwards) = (IdentityIndex::default(), IdentityIndex::default());
        pods.iter().for_each(|pod| forwards.apply(pod, at(99)));
        pods.iter().rev().for_each(|pod| backwards.apply(pod, at(99)));
        for address in ["10.0.0.0", "10.0.0.1", "10.0.0.2"] {
            prop_assert_eq!(
                forwards.lookup(ip(address), 1, at(instant), "n1"),
                backwards.lookup(ip(address), 1, at(instant), "n1")
            );
        }
    }
}

#[test]
fn memory_is_bounded() {
    let mut index = IdentityIndex::default();
    for number in 0..ownership::MAX_OWNERS as u64 + 10 {
        let pod = object::<Pod>(pod(&format!("p{number}"), "10.0.0.1", "n", number));
        index.apply(&pod, at(number));
        index.delete(&pod, at(number + 1));
    }
    assert_eq!(index.counts().ownerships_forgotten, 10);
    assert_eq!(index.name_at("10.0.0.1", 9), "", "the earliest is forgotten");
    assert_eq!(index.name_at("10.0.0.1", 10), "p10");
}
