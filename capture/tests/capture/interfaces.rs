//! Which interfaces are watched, and that changes are followed.

use flowtrail_capture::interfaces::{Selection, Watched, watch};
use flowtrail_schema::InterfaceKind;

use tokio::time::timeout;

use crate::support::{Namespace, PATIENCE, run};

fn names(watched: &Watched) -> Vec<(String, InterfaceKind)> {
    let mut names: Vec<_> = watched
        .interfaces
        .values()
        .map(|watched| (watched.interface.name.clone(), watched.interface.kind))
        .collect();
    names.sort();
    names
}

#[test]
fn pods_and_uplinks_are_followed() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    for command in [
        "link add cni0 type bridge",
        "link add samenode type veth peer name samenodepeer",
        "link add uplink4 type veth peer name uplink4peer",
        "link add uplink6 type veth peer name uplink6peer",
        "link add unused type veth peer name unusedpeer",
        "addr add 192.0.2.1/24 dev uplink4",
        "addr add 2001:db8::1/64 dev uplink6 nodad",
        "link set uplink4 up",
        "link set uplink4peer up",
        "link set uplink6 up",
        "link set uplink6peer up",
        "link set unused up",
        "link set unusedpeer up",
        "route add default via 192.0.2.254",
        "-6 route add default via 2001:db8::fe dev uplink6",
    ] {
        node.ip(command);
    }
    node.connect("calipod", &pod);
    node.ip("addr add 169.254.1.1/32 dev calipod");

    let name = node.name.clone();
    let inside = node.spawn(move || {
        let ip = |arguments: &str| run(&format!("ip -n {name} {arguments}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut interfaces = watch(Selection::PodsAndUplinks).await.unwrap();
            let pod = ("calipod".to_owned(), InterfaceKind::Pod);
            let uplink = |name: &str| (name.to_owned(), InterfaceKind::Uplink);
            let first = &interfaces.first;
            assert_eq!(names(first), [pod.clone(), uplink("uplink4"), uplink("uplink6")]);
            let owns = |address: &str| first.node_addresses.contains(&address.parse().unwrap());
            assert!(owns("192.0.2.1") && owns("2001:db8::1") && owns("127.0.0.1"));
            assert!(!owns("169.254.1.1"), "an address on a pod's veth");
            let mut until = async |change: &str, is_so: &dyn Fn(&Watched) -> bool| {
                let changed = async { while !is_so(&interfaces.changes.recv().await.unwrap()) {} };
                assert!(timeout(PATIENCE, changed).await.is_ok(), "not seen: {change}");
            };
            ip("route del default");
            until("the route is gone", &|w| names(w) == [pod.clone(), uplink("uplink6")]).await;
            ip("addr add 192.0.2.7/24 dev unused");
            let added = "192.0.2.7".parse().unwrap();
            until("the address", &|w| w.node_addresses.contains(&added)).await;
            ip("link set calipod name renamed");
            let renamed = ("renamed".to_owned(), InterfaceKind::Pod);
            until("the name", &|w| names(w).contains(&renamed)).await;
            ip("link del renamed");
            until("the pod is gone", &|w| names(w) == [uplink("uplink6")]).await;
        });
    });
    inside.join().unwrap();
}
