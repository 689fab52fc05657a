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

/// An index given by its creator, as when an interface comes from another namespace with its own.
#[test]
fn an_interface_with_the_index_and_name_of_one_before_is_another() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    let add = format!("link add calipod index 77 type veth peer name eth0 netns {}", pod.name);
    node.ip(&add);
    let name = node.name.clone();
    let inside = node.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut interfaces = watch(Selection::PodsAndUplinks).await.unwrap();
            let first = interfaces.first.interfaces[&77].clone();
            assert!(interfaces.first.excluded.is_empty());
            // At once: no reading comes between.
            let file = std::env::temp_dir().join(&name);
            std::fs::write(&file, format!("link del calipod\n{add}\n")).unwrap();
            run(&format!("ip -n {name} -batch {}", file.display()));
            std::fs::remove_file(&file).unwrap();
            let changed = async {
                loop {
                    let watched = interfaces.changes.recv().await.unwrap();
                    if let Some(second) = watched.interfaces.get(&77)
                        && second.life != first.life
                    {
                        break second.clone();
                    }
                }
            };
            let second = timeout(PATIENCE, changed).await.unwrap();
            assert_eq!(second.interface, first.interface);
        });
    });
    inside.join().unwrap();
}

/// Many pods at once, while nobody reads the events: the kernel gives up telling (ENOBUFS).
#[test]
fn an_overrun_of_events_is_made_up_for() {
    const PODS: usize = 400;
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    let (name, pod_name) = (node.name.clone(), pod.name.clone());
    let inside = node.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut interfaces = watch(Selection::PodsAndUplinks).await.unwrap();
            let commands: String = (0..PODS)
                .map(|number| {
                    format!(
                        "link add veth{number} type veth peer name eth{number} netns {pod_name}\n\
                         link set veth{number} up\nlink set veth{number} down\n\
                         link set veth{number} alias many{number}\n"
                    )
                })
                .collect();
            let file = std::env::temp_dir().join(&name);
            std::fs::write(&file, commands).unwrap();
            // This blocks the runtime's only thread.
            run(&format!("ip -n {name} -batch {}", file.display()));
            std::fs::remove_file(&file).unwrap();
            let dropped: u64 = std::fs::read_to_string("/proc/thread-self/net/netlink")
                .unwrap()
                .lines()
                .filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok())
                .sum();
            assert!(dropped > 0, "the events did not overrun their queue");
            let all =
                async { while interfaces.changes.recv().await.unwrap().interfaces.len() < PODS {} };
            assert!(timeout(PATIENCE, all).await.is_ok(), "not all pods are seen");
            run(&format!("ip -n {name} link del veth7"));
            let gone = async {
                while interfaces.changes.recv().await.unwrap().interfaces.len() == PODS {}
            };
            assert!(timeout(PATIENCE, gone).await.is_ok(), "what follows is not seen");
        });
    });
    inside.join().unwrap();
}

#[test]
fn what_leaves_a_bridge_or_stays_unwanted_is_no_new_interface() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    node.ip("link add cni0 type bridge");
    node.connect("vethpod", &pod);
    node.ip("link set vethpod master cni0");
    let name = node.name.clone();
    let inside = node.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut interfaces = watch(Selection::PodsAndUplinks).await.unwrap();
            let first = interfaces.first.clone();
            assert_eq!(first.unwanted.len(), 2, "lo and the bridge: {:?}", first.unwanted);
            run(&format!("ip -n {name} link set vethpod nomaster"));
            // A change that is one, to have an end.
            run(&format!("ip -n {name} addr add 192.0.2.1/32 dev lo"));
            let last = async {
                loop {
                    let watched = interfaces.changes.recv().await.unwrap();
                    assert_eq!(watched.interfaces, first.interfaces);
                    if watched.node_addresses.contains(&"192.0.2.1".parse().unwrap()) {
                        break;
                    }
                }
            };
            timeout(PATIENCE, last).await.unwrap();
            // Known for long enough by then.
            let excluded = async {
                while interfaces.changes.recv().await.unwrap().excluded != first.unwanted {}
            };
            timeout(PATIENCE, excluded).await.unwrap();
        });
    });
    inside.join().unwrap();
}
