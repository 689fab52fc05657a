//! What is fuzzed: any bytes go in, and what must hold for all of them is asserted. The fuzz targets and the
//! replay of their corpora in the tests are the same functions.
#![allow(dead_code, unreachable_pub, reason = "each target uses one")]

use std::io::{Cursor, Read};
use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_capture::flow_table::{FlowTable, FlowTableConfig, Origin, Shared};
use flowtrail_capture::packet::{Flags, LinkType, Parser, Segment, Skipped};
use flowtrail_capture::pcap::PcapReader;
use flowtrail_schema::{Endpoint, FlowRecord, Interface, InterfaceKind, wire};

/// A captured packet: the first byte says the link layer and whether tunnels are opened, the
/// next two its length on the wire.
pub fn packet(bytes: &[u8]) {
    let [flags, high, low, frame @ ..] = bytes else { return };
    let link = LinkType::ALL[usize::from(*flags) % LinkType::ALL.len()];
    let wire_length = frame.len() as u32 + u32::from(u16::from_be_bytes([*high, *low]));
    let parser = Parser { decapsulate: flags & 0x80 != 0 };
    let [closed, opened] =
        [false, true].map(|decapsulate| Parser { decapsulate }.parse(link, frame, wire_length));
    // How tunnels are read makes no difference to what is none.
    assert!(opened == closed || closed == Err(Skipped::Tunnel), "{closed:?}, {opened:?}");
    if let Ok(segment) = parser.parse(link, frame, wire_length) {
        assert!(segment.payload_bytes + 40 <= segment.ip_bytes, "{segment:?}");
        assert_eq!(segment.source.ip.is_ipv4(), segment.destination.ip.is_ipv4());
        // What was cut off does not matter, as long as the headers are there.
        let longer = [frame, &[0; 64]].concat();
        assert!(parser.parse(link, &longer, wire_length + 64).is_ok());
    }
}

/// A capture file, read to its end: the same packets however its bytes come.
pub fn pcap(bytes: &[u8]) {
    let whole = read(Cursor::new(bytes.to_vec()));
    let in_pieces = read(Pieces(Cursor::new(bytes.to_vec())));
    assert!(whole == in_pieces, "it depends on how the bytes come");
    let length: usize = whole.iter().map(|(_, _, length, _)| length).sum();
    // A compressed file may hold more than its own length; none holds this much in a few kilobytes.
    assert!(length <= bytes.len().saturating_mul(2_048));
}

/// Link layer, time, captured length and wire length of each packet.
fn read(source: impl Read + Send + 'static) -> Vec<(LinkType, u64, usize, u32)> {
    let mut packets = Vec::new();
    let Ok(mut reader) = PcapReader::new(source) else { return packets };
    while let Ok(Some(packet)) = reader.next_packet() {
        packets.push((packet.link, packet.time_us, packet.bytes.len(), packet.wire_length));
        let _ = Parser::default().parse(packet.link, packet.bytes, packet.wire_length);
    }
    packets
}

/// Seven bytes at most at once, as from a slow pipe.
struct Pieces(Cursor<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(7);
        self.0.read(&mut buffer[..length])
    }
}

/// Packets for a small flow table, eight bytes each, so that connections meet, and time passes in many
/// ways. All of them must come out again.
pub fn flow_table(bytes: &[u8]) {
    const START_US: u64 = 1_700_000_000_000_000;
    let shared = Shared::default();
    let points: Vec<_> = [InterfaceKind::Pod, InterfaceKind::Uplink]
        .into_iter()
        .filter_map(|kind| shared.add_point(Arc::new(Interface { name: kind.to_string(), kind })))
        .collect();
    let config = FlowTableConfig { max_flows: 6, ..FlowTableConfig::default() };
    let mut table = FlowTable::new(config, shared.clone());
    let (mut now_us, mut fed) = (START_US, (0, 0, 0));
    let mut records = Vec::new();
    for step in bytes.chunks_exact(8) {
        let [ends, place, sequence, acknowledgment, flags, payload, pause, window] = *step else {
            return;
        };
        now_us += match pause {
            0..=99 => u64::from(pause) * 100,
            100..=199 => u64::from(pause - 100) * 200_000,
            200..=250 => u64::from(pause - 200) * 7_000_000,
            _ => 1_000_000_000,
        };
        let end = |host: u8, port: u8| Endpoint {
            ip: match place & 4 {
                0 => IpAddr::from([10, 0, 0, host]),
                _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
            },
            port: [80, 4_000, 4_001, 0][usize::from(port % 4)],
        };
        let (a, b) = (end(1 + (ends & 1), ends >> 1), end(1 + (ends >> 3 & 1), ends >> 4));
        let payload_bytes = [0, 1, 100, 1_448, 65_000, 4_000_000_000][usize::from(payload % 6)];
        let segment = Segment {
            source: a,
            destination: b,
            sequence: sequence as i8 as u32,
            acknowledgment: acknowledgment as i8 as u32,
            flags: Flags {
                fin: flags & 1 != 0,
                syn: flags & 2 != 0,
                rst: flags & 4 != 0,
                ack: flags & 8 != 0,
            },
            window: u16::from(window),
            ip_bytes: payload_bytes + 40,
            payload_bytes,
        };
        if flags & 16 != 0 {
            table.advance(now_us, &mut records);
        }
        let origin =
            [Origin::Inside, Origin::Outside, Origin::Unknown][usize::from(place >> 3) % 3];
        // Some come late.
        let time_us = if flags & 32 != 0 { now_us - u64::from(pause) * 50_000 } else { now_us };
        table.packet(points[usize::from(place & 1)], origin, time_us, &segment);
        fed = (fed.0 + 1, fed.1 + u64::from(segment.ip_bytes), fed.2 + u64::from(payload_bytes));
    }
    while !table.finish(now_us, &mut records) {}
    let sums = records.iter().flat_map(|record: &FlowRecord| [record.sent, record.received]);
    let sums = sums.fold((0, 0, 0), |sum, it| {
        (sum.0 + it.packets, sum.1 + it.bytes, sum.2 + it.payload_bytes)
    });
    assert_eq!(sums, fed, "what was fed and what came out");
    assert!(table.stats().flows <= 6);
    for record in &records {
        assert!(record.interval.contains(record.first_seen_us));
        assert!(record.interval.contains(record.last_seen_us));
        assert!(record.closed.total() <= 1 && record.open_at_start <= 1);
    }
}

/// A message from Kafka.
pub fn batch(bytes: &[u8]) {
    if let Ok(decoded) = wire::decode(bytes) {
        // What was understood is said again in the same way.
        let again = wire::decode(&wire::encode(&decoded.batch)).map(|again| again.batch);
        assert_eq!(again.ok().as_ref(), Some(&decoded.batch));
    }
}
