//! Two quarters of an hour of traffic of a small cluster, an hour apart, as a capture and as kubectl's objects:
//! something for every panel to show.

use etherparse::PacketBuilder;
use serde_json::{Value, json};

/// How long before the window the traffic is that it is compared with, seconds.
const BASE_S: u64 = 3_600;

const LINK_TYPE_ETHERNET: u32 = 1;

/// How a conversation ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Fin,
    Open,
    Reset,
    Refused,
    Unanswered,
}

type Address = ([u8; 4], u16);

const VISITOR: [u8; 4] = [10, 1, 0, 1];
const WEB: [u8; 4] = [10, 1, 0, 2];
const API: [u8; 4] = [10, 1, 0, 3];
const SCANNER: [u8; 4] = [10, 1, 0, 4];
const CRON: [u8; 4] = [10, 1, 0, 5];
/// Service shop/web.
const WEB_SERVICE: [u8; 4] = [10, 96, 0, 10];
const PAYMENTS: [u8; 4] = [203, 0, 113, 10];
const ELSEWHERE: [u8; 4] = [198, 51, 100, 7];
const NOBODY: [u8; 4] = [10, 1, 0, 99];

/// A capture file of the traffic in the quarter of an hour from `start_s`, and in that before.
pub(crate) fn capture(start_s: u64) -> Vec<u8> {
    let mut trace = Trace::default();
    for (at, requests, client, server, end) in [
        // Gone, and less than later.
        (10, 1, CRON, (API, 8_080), End::Fin),
        (20, 1, WEB, (API, 8_080), End::Fin),
        (30, 1, API, (PAYMENTS, 443), End::Fin),
        (40, 1, VISITOR, (WEB_SERVICE, 80), End::Fin),
    ] {
        trace.converse((start_s - BASE_S + at) * 1_000_000, client, server, requests, end);
    }
    for (at, requests, client, server, end) in [
        (0, 3, VISITOR, (WEB_SERVICE, 80), End::Fin),
        (5, 20, WEB, (API, 8_080), End::Fin),
        (6, 20, WEB, (API, 8_080), End::Open),
        (8, 2, WEB, (API, 8_080), End::Reset),
        (12, 5, API, (PAYMENTS, 443), End::Fin),
        (65, 9, API, (ELSEWHERE, 443), End::Fin),
        (70, 0, SCANNER, (API, 6_379), End::Refused),
        (71, 0, SCANNER, (NOBODY, 22), End::Unanswered),
        // So that the attempt's time runs out, and the last intervals are cut.
        (130, 2, VISITOR, (WEB_SERVICE, 80), End::Fin),
        (180, 2, VISITOR, (WEB_SERVICE, 80), End::Fin),
    ] {
        trace.converse((start_s + at) * 1_000_000, client, server, requests, end);
    }
    trace.file()
}

#[derive(Default)]
struct Trace {
    packets: Vec<(u64, Vec<u8>)>,
    connections: u32,
}

/// One side's place in the sequence.
struct Side {
    address: Address,
    sequence: u32,
}

impl Trace {
    fn converse(&mut self, at_us: u64, client: [u8; 4], server: Address, requests: u32, end: End) {
        self.connections += 1;
        let port = 40_000 + self.connections as u16;
        let mut client = Side { address: (client, port), sequence: self.connections << 20 };
        let mut server = Side { address: server, sequence: self.connections << 21 };
        let mut at_us = at_us;
        let mut send = |from: &mut Side, to: &Side, flags: &str, payload: usize| {
            let has = |flag| flags.contains(flag);
            let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            let ip = link.ipv4(from.address.0, to.address.0, 64);
            let mut tcp = ip.tcp(from.address.1, to.address.1, from.sequence, 64_240);
            tcp = if has('S') { tcp.syn() } else { tcp };
            tcp = if has('F') { tcp.fin() } else { tcp };
            tcp = if has('R') { tcp.rst() } else { tcp };
            tcp = if has('A') { tcp.ack(to.sequence) } else { tcp };
            let mut packet = Vec::new();
            tcp.write(&mut packet, &vec![b'x'; payload]).unwrap();
            self.packets.push((at_us, packet));
            at_us += 700;
            from.sequence += payload as u32 + u32::from(has('S') || has('F'));
        };
        send(&mut client, &server, "S", 0);
        match end {
            End::Refused => return send(&mut server, &client, "RA", 0),
            End::Unanswered => return,
            _ => {}
        }
        send(&mut server, &client, "SA", 0);
        send(&mut client, &server, "A", 0);
        for _ in 0..requests {
            send(&mut client, &server, "A", 300);
            send(&mut server, &client, "A", 1_200);
        }
        match end {
            End::Reset => send(&mut server, &client, "RA", 0),
            End::Fin => {
                send(&mut client, &server, "FA", 0);
                send(&mut server, &client, "FA", 0);
                send(&mut client, &server, "A", 0);
            }
            _ => {}
        }
    }

    /// Classic pcap, microseconds (draft-ietf-opsawg-pcap).
    fn file(mut self) -> Vec<u8> {
        self.packets.sort_by_key(|(at_us, _)| *at_us);
        let mut file = Vec::new();
        file.extend(0xa1b2_c3d4_u32.to_le_bytes());
        file.extend([2, 0, 4, 0]);
        file.extend([0; 8]);
        file.extend(65_535_u32.to_le_bytes());
        file.extend(LINK_TYPE_ETHERNET.to_le_bytes());
        for (at_us, packet) in self.packets {
            let (seconds, micros) = (at_us / 1_000_000, at_us % 1_000_000);
            let length = packet.len() as u32;
            let record = [seconds as u32, micros as u32, length, length];
            file.extend(record.map(u32::to_le_bytes).concat());
            file.extend(packet);
        }
        file
    }
}

fn address(ip: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(ip).to_string()
}

/// The cluster's objects as kubectl prints them, since `created` (RFC 3339).
pub(crate) fn names(created: &str) -> Value {
    let pod = |namespace: &str, workload: &str, ip: [u8; 4]| {
        let ip = address(ip);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{workload}-0"), "namespace": namespace,
                "uid": format!("pod-{namespace}-{workload}"),
                "creationTimestamp": created, "labels": {"app": workload},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": workload,
                    "uid": format!("set-{namespace}-{workload}"), "controller": true,
                }],
            },
            "spec": {"nodeName": "n1", "containers": [{"name": workload, "image": workload}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": created},
        })
    };
    let metadata = |kind: &str, namespace: &str, name: &str| {
        let uid = format!("{kind}-{namespace}-{name}");
        json!({"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": created})
    };
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": metadata("slice", "shop", "web-1"),
        "ports": [{"name": "", "protocol": "TCP", "port": 80}],
        "endpoints": [{
            "addresses": [address(WEB)], "conditions": {"ready": true}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "pod-shop-web"},
        }],
    });
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
    let service = address(WEB_SERVICE);
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [
        pod("clients", "visitor", VISITOR),
        pod("shop", "web", WEB),
        pod("shop", "api", API),
        pod("security", "scanner", SCANNER),
        pod("shop", "cron", CRON),
        {
            "apiVersion": "v1", "kind": "Service", "metadata": metadata("service", "shop", "web"),
            "spec": {
                "type": "ClusterIP", "clusterIP": service, "clusterIPs": [service], "selector": {"app": "web"},
                "ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}],
            },
        },
        slice,
    ]})
}
