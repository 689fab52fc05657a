//! Several rings that share the packets: what each of them gets of real connections.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::time::Duration;

use afpacket::sync::RawPacketStream;
use etherparse::{IpHeaders, IpNumber, Ipv4Header, PacketBuilder};
use flowtrail_capture::packet::{Parser, Segment};
use flowtrail_capture::ring::{Filter, PacketSocket, Ring};
use flowtrail_schema::Endpoint;

use crate::support::Namespace;

const RINGS: usize = 4;
const CONNECTIONS: usize = 200;

/// One packet: interface, direction, and what its TCP header says.
type Seen = (u32, bool, Segment);

/// Everything that is in a ring, until nothing more comes.
fn drain(ring: &mut Ring) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Some(frames) = ring.next_block(Duration::from_millis(300)).unwrap() {
        seen.extend(frames.filter_map(|frame| {
            let segment =
                Parser::default().parse(frame.link, frame.bytes, frame.wire_length).ok()?;
            Some((frame.interface_index, frame.outgoing, segment))
        }));
    }
    seen
}

/// The two ends in an order that does not depend on the direction.
fn connection((interface, _, segment): &Seen) -> (u32, [Endpoint; 2]) {
    let mut ends = [segment.source, segment.destination];
    ends.sort();
    (*interface, ends)
}

fn converse(server: &Namespace, client: &Namespace, addresses: &[&str]) {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let listeners = addresses.clone();
    let listeners = server
        .spawn(move || listeners.into_iter().map(|at| TcpListener::bind(at).unwrap()).collect())
        .join();
    let listeners: Vec<TcpListener> = listeners.unwrap();
    let served = server.spawn(move || {
        for _ in 0..CONNECTIONS {
            for listener in &listeners {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                stream.read_to_end(&mut request).unwrap();
                stream.write_all(&request).unwrap();
            }
        }
    });
    let asked = client.spawn(move || {
        for _ in 0..CONNECTIONS {
            for address in &addresses {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&[7; 5_000]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut response = Vec::new();
                stream.read_to_end(&mut response).unwrap();
                assert_eq!(response.len(), 5_000);
            }
        }
    });
    asked.join().unwrap();
    served.join().unwrap();
}

fn group() -> Vec<PacketSocket> {
    PacketSocket::open_group(NonZeroUsize::new(RINGS).unwrap()).unwrap()
}

#[test]
fn a_connections_packets_all_come_out_of_one_ring() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    node.connect("vethpod", &pod);
    for (namespace, device, last) in [(&node, "vethpod", 1), (&pod, "eth0", 2)] {
        namespace.ip(&format!("addr add 10.9.1.{last}/24 dev {device}"));
        namespace.ip(&format!("addr add fd00:1::{last}/64 dev {device} nodad"));
    }
    let (rings, alone) = node
        .spawn(|| {
            let filter = Filter::new([], false);
            let alone = PacketSocket::open().unwrap().start(&filter).unwrap();
            let rings: Vec<_> =
                group().into_iter().map(|socket| socket.start(&filter).unwrap()).collect();
            // Another agent on this machine, whose group is its own.
            (rings, (alone, group()))
        })
        .join()
        .unwrap();
    converse(&node, &pod, &["10.9.1.1:9000", "[fd00:1::1]:9000"]);

    let (mut alone, _other_group) = alone;
    let expected = drain(&mut alone);
    let mut ring_of = HashMap::new();
    let mut shares = [0; RINGS];
    let mut counts: HashMap<String, i32> = HashMap::new();
    for (number, mut ring) in rings.into_iter().enumerate() {
        for seen in drain(&mut ring) {
            let ring = ring_of.entry(connection(&seen)).or_insert(number);
            assert_eq!(*ring, number, "{seen:?} came out of two rings");
            *counts.entry(format!("{seen:?}")).or_default() += 1;
        }
        assert_eq!(ring.take_dropped().unwrap(), 0);
    }
    assert_eq!(ring_of.len(), 2 * CONNECTIONS);
    for ((_, ends), number) in &ring_of {
        if ends[0].ip.is_ipv4() {
            shares[*number] += 1;
        }
    }
    let fair = CONNECTIONS / RINGS;
    assert!(shares.iter().all(|share| *share > fair / 2), "IPv4 shares of the rings: {shares:?}");
    for seen in expected {
        *counts.entry(format!("{seen:?}")).or_default() -= 1;
    }
    counts.retain(|_, count| *count != 0);
    assert!(counts.is_empty(), "seen twice, or lost (-1): {counts:?}");
}

/// Sends SYNs from, or SYN-ACKs to, a hundred ports: whole ones and first fragments, under options
/// and tags. What a packet socket sends has its tags in the frame.
fn send_oddities(device: &'static str, to_server: bool) {
    let mut socket = RawPacketStream::new().unwrap();
    socket.bind(device).unwrap();
    let tags: [&[u8]; 3] = [&[], &[0x81, 0, 0x40, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]];
    for port in 1_000..1_100 {
        for (tag, more_fragments, options) in
            [(0, false, 0), (0, true, 0), (0, true, 40), (1, false, 0), (2, true, 0)]
        {
            let [mut source, mut destination] = [[192, 0, 2, 1], [192, 0, 2, 2]];
            let mut ports = [port, 9_000];
            if !to_server {
                (source, destination) = (destination, source);
                ports.reverse();
            }
            let mut ip = Ipv4Header::new(0, 64, IpNumber::TCP, source, destination).unwrap();
            ip.more_fragments = more_fragments;
            ip.options = vec![1; options].as_slice().try_into().unwrap();
            let mut frame = vec![2; 12];
            frame.extend(tags[tag]);
            frame.extend([0x08, 0x00]);
            PacketBuilder::ip(IpHeaders::Ipv4(ip, Default::default()))
                .tcp(ports[0], ports[1], 7, 1_000)
                .write(&mut frame, &[])
                .unwrap();
            socket.write_all(&frame).unwrap();
        }
    }
}

#[test]
fn first_fragments_and_tagged_packets_come_out_of_their_connections_ring() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    node.connect("vethpod", &pod);
    let rings = node.spawn(|| {
        let filter = Filter::new([], false);
        let rings = group().into_iter().map(|socket| socket.start(&filter).unwrap());
        rings.collect::<Vec<_>>()
    });
    let mut rings = rings.join().unwrap();
    pod.spawn(|| send_oddities("eth0", true)).join().unwrap();
    node.spawn(|| send_oddities("vethpod", false)).join().unwrap();
    let mut connections = 0;
    for ring in &mut rings {
        let mut packets: HashMap<u16, u32> = HashMap::new();
        for (_, _, segment) in drain(ring) {
            let ports = [segment.source.port, segment.destination.port];
            *packets.entry(ports[0].min(ports[1])).or_default() += 1;
        }
        assert!(packets.values().all(|count| *count == 10), "torn apart: {packets:?}");
        connections += packets.len();
    }
    assert_eq!(connections, 100);
}

/// The filter is replaced under traffic; excluded interfaces fall silent, unknown ones never.
#[test]
fn a_filter_excludes_interfaces_and_can_be_replaced() {
    let (node, pod) = (Namespace::new("node"), Namespace::new("pod"));
    node.connect("vethpod", &pod);
    node.ip("addr add 10.9.1.1/24 dev vethpod");
    pod.ip("addr add 10.9.1.2/24 dev eth0");
    let path = "cat /sys/class/net/vethpod/ifindex";
    let index: u32 = node.exec(path).trim().parse().unwrap();
    let mut ring = node
        .spawn(|| PacketSocket::open().unwrap().start(&Filter::new([], false)).unwrap())
        .join()
        .unwrap();
    let others = (1..=500).filter(|other| *other != index).take(499);
    for (excluded, is_seen) in [
        (vec![], true),
        (vec![index], false),
        (others.clone().collect(), true),
        (others.chain([index]).collect(), false),
        (vec![index + 1], true),
    ] {
        assert!(ring.set_filter(&Filter::new(excluded.clone(), true)).unwrap(), "memory suffices");
        converse(&node, &pod, &["10.9.1.1:9000"]);
        let interfaces: HashSet<u32> = drain(&mut ring).iter().map(|seen| seen.0).collect();
        assert_eq!(interfaces.contains(&index), is_seen, "{} excluded", excluded.len());
    }

    // What a socket's filters may take was 20 KiB before Linux 6.9, and is less where someone said so.
    let most = Filter::new(1_000..1_500, true);
    for (bytes, fits) in [(20_480, true), (6_000, false)] {
        node.exec(&format!("sysctl -q net.core.optmem_max={bytes}"));
        for _ in 0..2 {
            assert_eq!(ring.set_filter(&most).unwrap(), fits, "500 excluded in {bytes} bytes");
        }
        converse(&node, &pod, &["10.9.1.1:9000"]);
        assert!(drain(&mut ring).iter().any(|seen| seen.0 == index));
    }
}
