//! Real TCP connections between namespaces, against what nftables counts of the same packets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use afpacket::sync::RawPacketStream;
use etherparse::PacketBuilder;
use flowtrail_schema::{Counters, FlowRecord, InterfaceKind, Reporter};

use crate::support::{Namespace, RunningAgent, records};

const REQUEST: usize = 300_000;
const RESPONSE: usize = 1_000_000;

/// One connection on port 9000: a request, a response, both ends closed.
fn converse(server: &Namespace, client: &Namespace, address: &str) {
    let address: SocketAddr = format!("{address}:9000").parse().unwrap();
    let listener = server.spawn(move || TcpListener::bind(address).unwrap()).join().unwrap();
    let served = server.spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; REQUEST];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(&vec![1; RESPONSE]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut request).unwrap(), 0);
    });
    let asked = client.spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&vec![2; REQUEST]).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        assert_eq!(response.len(), RESPONSE);
    });
    asked.join().unwrap();
    served.join().unwrap();
}

/// Lets nftables count the packets of port 9000 as they enter and leave a namespace.
pub(crate) fn count_packets(namespace: &Namespace) {
    for command in [
        "add table inet count",
        "add chain inet count in { type filter hook input priority 0 ; }",
        "add chain inet count out { type filter hook output priority 0 ; }",
        "add counter inet count to_server_in",
        "add counter inet count to_server_out",
        "add counter inet count to_client_in",
        "add counter inet count to_client_out",
        "add rule inet count in tcp dport 9000 counter name to_server_in",
        "add rule inet count out tcp dport 9000 counter name to_server_out",
        "add rule inet count in tcp sport 9000 counter name to_client_in",
        "add rule inet count out tcp sport 9000 counter name to_client_out",
    ] {
        namespace.exec(&format!("nft {command}"));
    }
}

/// (packets, bytes) of a counter.
pub(crate) fn counted(namespace: &Namespace, counter: &str) -> (u64, u64) {
    let text = namespace.exec(&format!("nft list counter inet count {counter}"));
    let after = |word: &str| {
        let rest = text.split(word).nth(1).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (after("packets"), after("bytes"))
}

pub(crate) fn sum(records: &[FlowRecord], of: impl Fn(&FlowRecord) -> Counters) -> Counters {
    let mut sum = Counters::default();
    records.iter().for_each(|record| sum += of(record));
    sum
}

fn assert_one_connection(records: &[FlowRecord]) {
    assert!(!records.is_empty(), "nothing was captured");
    assert_eq!(records.iter().map(|record| record.opened).sum::<u32>(), 1, "{records:?}");
    assert_eq!(records.iter().map(|record| record.closed.fin).sum::<u32>(), 1, "{records:?}");
    assert!(records.iter().all(|record| record.server.port == 9000));
}

/// Both ways, what the records say is what nftables counted and the programs sent.
fn assert_counts(node: &Namespace, records: &[FlowRecord], [sent, received]: [&str; 2]) {
    assert_one_connection(records);
    let (to_server, to_client) = (sum(records, |r| r.sent), sum(records, |r| r.received));
    assert_eq!((to_server.packets, to_server.bytes), counted(node, sent));
    assert_eq!((to_client.packets, to_client.bytes), counted(node, received));
    assert_payloads(to_server, to_client);
}

/// What the programs sent; the kernel may have sent some of it twice.
fn assert_payloads(to_server: Counters, to_client: Counters) {
    for (counters, payload) in [(to_server, REQUEST), (to_client, RESPONSE)] {
        let more = counters.payload_bytes.checked_sub(payload as u64).unwrap();
        assert_eq!(more > 0, counters.retransmitted_packets > 0, "{counters:?}");
    }
}

pub(crate) fn node_and_pod(subnet: &str) -> (Namespace, Namespace) {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    node.connect("vethpod", &pod);
    node.ip(&format!("addr add {subnet}1/64 dev vethpod nodad"));
    pod.ip(&format!("addr add {subnet}2/64 dev eth0 nodad"));
    (node, pod)
}

#[test]
fn records_add_up_to_what_was_sent_to_a_pod() {
    let (node, pod) = node_and_pod("fd00:9::");
    count_packets(&node);
    let agent = RunningAgent::start(&node, &["--workers", "3"]);
    converse(&pod, &node, "[fd00:9::2]");
    let (summary, batches) = agent.stop();
    let records = records(&batches);
    assert_counts(&node, &records, ["to_server_out", "to_client_in"]);
    for record in &records {
        assert_eq!(record.interface.name, "vethpod");
        assert_eq!(record.interface.kind, InterfaceKind::Pod);
        assert_eq!(record.reporter, Reporter::Server);
        assert!(record.interval.contains(record.first_seen_us));
    }
    assert_eq!(summary.dropped, 0);
    assert_eq!(summary.records, records.len() as u64);
    assert!(summary.first_packet_us.unwrap() <= summary.last_packet_us.unwrap());

    let reports: Vec<_> =
        batches.iter().filter(|b| b.partition == 0).flat_map(|b| &b.coverage).collect();
    assert!(reports.windows(2).all(|two| two[0].interval.next() == two[1].interval));
    let packets: u64 = reports.iter().map(|report| report.packets_seen).sum();
    assert_eq!(packets, summary.packets);
    let emitted: u64 = reports.iter().map(|report| report.records_emitted).sum();
    assert_eq!(emitted, summary.records);
    assert!(reports.iter().all(|report| report.interfaces == 1));
}

#[test]
fn the_loopbacks_packets_count_once() {
    let node = Namespace::new("node");
    count_packets(&node);
    let agent = RunningAgent::start(&node, &["--interface", "lo"]);
    converse(&node, &node, "127.0.0.1");
    let (_, batches) = agent.stop();
    assert_counts(&node, &records(&batches), ["to_server_in", "to_client_in"]);
}

/// What a packet socket in the pod sends arrives as it is: a SYN under no tag, one and two.
#[test]
fn tagged_packets_are_seen_under_their_tags() {
    let (node, pod) = node_and_pod("fd00:9::");
    let agent = RunningAgent::start(&node, &[]);
    let tags: [&[u8]; 3] = [&[], &[0x81, 0, 0, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]];
    let sent = pod.spawn(move || {
        let mut socket = RawPacketStream::new().unwrap();
        socket.bind("eth0").unwrap();
        for (tag, port) in tags.into_iter().zip(1_000..) {
            let mut frame = vec![0x02; 12];
            frame.extend(tag);
            frame.extend([0x08, 0x00]);
            let syn = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
            syn.tcp(port, 9_000, 7, 1_000).syn().write(&mut frame, b"").unwrap();
            socket.write_all(&frame).unwrap();
        }
    });
    sent.join().unwrap();
    let (_, batches) = agent.stop();
    let mut seen: Vec<_> = records(&batches)
        .iter()
        .map(|record| (record.client.port, record.sent.packets, record.sent.bytes, record.opened))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [(1_000, 1, 40, 1), (1_001, 1, 40, 1), (1_002, 1, 40, 1)]);
}

#[test]
fn a_new_pod_is_captured_from_its_first_syn_to_its_last_packet() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    node.ip("addr add fd00:9::1/64 dev lo");
    let agent = RunningAgent::start(&node, &[]);

    node.connect("vethnew", &pod);
    pod.ip("addr add fd00:11::2/64 dev eth0 nodad");
    pod.ip("-6 route add default dev eth0");
    node.ip("-6 route add fd00:11::/64 dev vethnew");
    // The neighbours are given, so that nothing but TCP delays the first packet.
    let mac = |namespace: &Namespace, device: &str| {
        let path = format!("/sys/class/net/{device}/address");
        namespace.exec(&format!("cat {path}")).trim().to_owned()
    };
    node.ip(&format!("neigh add fd00:11::2 lladdr {} dev vethnew", mac(&pod, "eth0")));
    pod.ip(&format!("neigh add fd00:9::1 lladdr {} dev eth0", mac(&node, "vethnew")));
    converse(&node, &pod, "[fd00:9::1]");
    // The interface goes away before the kernel has handed over its last packets.
    node.ip("link del vethnew");

    let (_, batches) = agent.stop();
    let records = records(&batches);
    assert_one_connection(&records);
    for record in &records {
        assert_eq!(record.interface.name, "vethnew");
        assert_eq!(record.reporter, Reporter::Client);
    }
    assert_payloads(sum(&records, |r| r.sent), sum(&records, |r| r.received));
}

/// An agent that is shut down and started anew while a connection is open.
#[test]
fn a_restart_is_a_gap_and_not_a_new_connection() {
    let (node, pod) = node_and_pod("fd00:9::");
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--workers", "4", "--state-dir", directory.path().to_str().unwrap()];
    let address: SocketAddr = "[fd00:9::2]:9000".parse().unwrap();
    let listener = pod.spawn(move || TcpListener::bind(address).unwrap()).join().unwrap();

    let agent = RunningAgent::start(&node, &arguments);
    let mut client = node.spawn(move || TcpStream::connect(address).unwrap()).join().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"before").unwrap();
    server.read_exact(&mut [0; 6]).unwrap();
    let mut all = records(&agent.stop().1);
    assert_eq!(all.iter().map(|record| record.closed.total()).sum::<u32>(), 0);

    client.write_all(b"between").unwrap();
    server.read_exact(&mut [0; 7]).unwrap();
    let agent = RunningAgent::start(&node, &arguments);
    client.write_all(b"after").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    drop(server);
    drop(client);
    let after = records(&agent.stop().1);
    assert!(after.iter().all(|record| record.opened + record.joined == 0), "{after:?}");
    all.extend(after);
    assert_one_connection(&all);
    let ids: std::collections::HashSet<_> = all.iter().map(|it| it.connection_id).collect();
    assert_eq!(ids.len(), 1);
    assert!(all.iter().all(|record| record.local_primary && record.reporter == Reporter::Server));
    assert_eq!(sum(&all, |record| record.sent).payload_bytes, 11);
}
