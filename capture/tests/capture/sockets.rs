//! Whose a connection is: what sock_diag says of real sockets.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use flowtrail_capture::sockets::Sockets;
use flowtrail_schema::Endpoint;

use crate::support::Namespace;

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { ip: address.ip().to_canonical(), port: address.port() }
}

/// Listens on the first address and connects to the second. Says what belongs to the namespace of
/// each end: the connection as that end sees it.
fn connect(
    (server, listen): (&Namespace, &str),
    (client, connect): (&Namespace, &str),
) -> (TcpStream, TcpStream, TcpListener) {
    let (listen, connect): (SocketAddr, SocketAddr) =
        (listen.parse().unwrap(), connect.parse().unwrap());
    let listener = server.spawn(move || TcpListener::bind(listen).unwrap()).join().unwrap();
    let connected = client.spawn(move || TcpStream::connect(connect).unwrap()).join().unwrap();
    let accepted = listener.accept().unwrap().0;
    (accepted, connected, listener)
}

/// The ends of a stream: its own and the other one.
fn ends(stream: &TcpStream) -> [Endpoint; 2] {
    [stream.local_addr().unwrap(), stream.peer_addr().unwrap()].map(endpoint)
}

/// What a namespace's kernel says of connections, in turn.
fn owns(namespace: &Namespace, questions: Vec<[Endpoint; 2]>) -> Vec<Option<bool>> {
    let asked = namespace.spawn(move || {
        let mut sockets = Sockets::open().unwrap();
        questions.into_iter().map(|[local, remote]| sockets.owns(local, remote)).collect()
    });
    asked.join().unwrap()
}

fn node_and_pod() -> (Namespace, Namespace) {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    node.connect("vethpod", &pod);
    for (namespace, device, last) in [(&node, "vethpod", 1), (&pod, "eth0", 2)] {
        namespace.ip(&format!("addr add 10.9.1.{last}/24 dev {device}"));
        namespace.ip(&format!("addr add fd00:1::{last}/64 dev {device} nodad"));
    }
    (node, pod)
}

#[test]
fn a_connected_socket_is_owned_and_a_listener_is_not() {
    let (node, pod) = node_and_pod();
    for (listen, address) in [
        ("10.9.1.1:9000", "10.9.1.1:9000"),
        ("[fd00:1::1]:9001", "[fd00:1::1]:9001"),
        // An IPv6 socket that speaks IPv4.
        ("[::]:9002", "10.9.1.1:9002"),
    ] {
        let (accepted, connected, listener) = connect((&node, listen), (&pod, address));
        let [local, remote] = ends(&accepted);
        let nobody = Endpoint { port: 1, ..remote };
        let elsewhere = Endpoint { port: 9_999, ..local };
        let mapped = [local, remote].map(|end| {
            let ip = match end.ip {
                std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
                ip => ip,
            };
            Endpoint { ip, ..end }
        });
        let questions =
            vec![[local, remote], mapped, [local, nobody], [elsewhere, remote], [remote, local]];
        assert_eq!(
            owns(&node, questions),
            [Some(true), Some(true), Some(false), Some(false), Some(false)],
            "{listen}"
        );
        assert_eq!(owns(&pod, vec![ends(&connected), [local, remote]]), [Some(true), Some(false)]);
        drop((accepted, connected, listener));
    }
}

#[test]
fn a_masqueraded_connection_is_not_the_nodes() {
    let (node, pod) = node_and_pod();
    let outside = Namespace::new("outside");
    node.connect("uplink", &outside);
    node.ip("addr add 192.0.2.1/24 dev uplink");
    outside.ip("addr add 192.0.2.2/24 dev eth0");
    pod.ip("route add default via 10.9.1.1");
    node.exec("sysctl -q net.ipv4.ip_forward=1");
    for command in [
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100 ; }",
        "add rule ip nat out oifname uplink masquerade",
    ] {
        node.exec(&format!("nft {command}"));
    }
    let from_pod = connect((&outside, "192.0.2.2:9000"), (&pod, "192.0.2.2:9000"));
    let from_node = connect((&outside, "192.0.2.2:9001"), (&node, "192.0.2.2:9001"));
    let questions: Vec<_> = [&from_pod.0, &from_node.0]
        .map(|accepted| {
            let [server, client] = ends(accepted);
            assert_eq!(client.ip.to_string(), "192.0.2.1", "both have the node's address");
            [client, server]
        })
        .to_vec();
    assert_eq!(owns(&node, questions), [Some(false), Some(true)]);
}

#[test]
fn questions_are_cheap() {
    let node = Namespace::new("node");
    let (accepted, connected, _listener) =
        connect((&node, "127.0.0.1:9000"), (&node, "127.0.0.1:9000"));
    let (client, server) = (ends(&connected), ends(&accepted));
    let asked = node.spawn(move || {
        let mut sockets = Sockets::open().unwrap();
        let start = Instant::now();
        for _ in 0..5_000 {
            let known = [client, server].map(|[local, remote]| sockets.owns(local, remote));
            assert_eq!(known, [Some(true), Some(true)]);
        }
        start.elapsed() / 10_000
    });
    let each = asked.join().unwrap();
    println!("{each:?} a question");
    assert!(each.as_micros() < 1_000, "{each:?} a question");
}
