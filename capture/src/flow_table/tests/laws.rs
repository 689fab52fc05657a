//! Laws that hold for any packets, in whatever order and however time is cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowtrail_schema::connection_id::from_isns;
use flowtrail_schema::interval::IntervalLength;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::SavedFlows;
use super::super::flow::Phase;
use super::*;

/// A packet and how many seconds after the one before it comes.
type Step = (f64, Segment);

/// Packets between a few ends with a few sequence numbers, so that they meet often.
fn any_segment() -> impl Strategy<Value = Segment> {
    let port = || prop_oneof![Just(80_u16), Just(4000), Just(4001)];
    let number = || prop_oneof![4 => 0_u32..4, 1 => any::<u32>()];
    let flags =
        prop_oneof![Just("S"), Just("SA"), Just("A"), Just("FA"), Just("R"), Just("RA"), Just("")];
    let payload = prop_oneof![3 => Just(0_u32), 2 => 1_u32..3, 1 => 1_u32..3_000_000_000];
    (port(), port(), any::<bool>(), number(), number(), flags, 0_u16..2, payload).prop_map(
        |(from, to, turned, sequence, acknowledgment, flags, window, payload_bytes)| {
            let mut ends = [(1, from), (2, to)]
                .map(|(host, port)| Endpoint { ip: [10, 0, 0, host].into(), port });
            if turned {
                ends.reverse();
            }
            Segment {
                source: ends[0],
                destination: ends[1],
                sequence,
                acknowledgment,
                flags: Flags {
                    syn: flags.contains('S'),
                    ack: flags.contains('A'),
                    fin: flags.contains('F'),
                    rst: flags.contains('R'),
                },
                window,
                ip_bytes: 40 + payload_bytes,
                payload_bytes,
            }
        },
    )
}

fn any_pause() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => Just(0.001),
        2 => 0.0..1.0,
        2 => 5.0..15.0,
        1 => 50.0..140.0,
        1 => Just(1_000.0),
    ]
}

/// Feeds packets; before some of them time is told, or a packet comes late.
fn run(watch: &mut Watch, steps: &[Step], advance: impl Fn(usize) -> bool, late: f64) -> f64 {
    let mut seconds = 0.0;
    for (n, (pause, segment)) in steps.iter().enumerate() {
        if advance(n) {
            watch.until(seconds + pause / 2.0);
        }
        seconds += pause;
        let seen = if n % 5 == 4 { (seconds - late).max(0.0) } else { seconds };
        watch.see(seen, *segment);
    }
    seconds
}

fn sums(records: &[FlowRecord]) -> (u64, u64, u64) {
    let counters = records.iter().flat_map(|record| [record.sent, record.received]);
    counters.fold((0, 0, 0), |(packets, bytes, payload), counters| {
        (packets + counters.packets, bytes + counters.bytes, payload + counters.payload_bytes)
    })
}

proptest! {
    #[test]
    fn every_packet_is_in_exactly_one_record(
        steps in vec((any_pause(), any_segment()), 1..60),
        max_flows in 1_usize..12,
        advance in any::<u64>(),
        late in 0.0..20.0,
    ) {
        let mut watch = Watch::with(FlowTableConfig { max_flows, ..FlowTableConfig::default() });
        let end = run(&mut watch, &steps, |n| advance >> (n % 64) & 1 == 1, late);
        watch.finish(end);
        let segments = steps.iter().map(|(_, segment)| segment);
        let fed = segments.fold((0, 0, 0), |(packets, bytes, payload), segment| {
            (packets + 1, bytes + u64::from(segment.ip_bytes), payload + u64::from(segment.payload_bytes))
        });
        prop_assert_eq!(sums(&watch.records), fed);

        for record in &watch.records {
            prop_assert!(record.interval.contains(record.first_seen_us));
            prop_assert!(record.interval.contains(record.last_seen_us));
            prop_assert!(record.first_seen_us <= record.last_seen_us);
            prop_assert!(record.closed.total() <= 1 && record.opened + record.joined <= 2);
        }
    }

    #[test]
    fn every_connection_that_began_is_closed_or_still_there(
        steps in vec((any_pause(), any_segment()), 1..60),
        max_flows in 1_usize..12,
    ) {
        let mut watch = Watch::with(FlowTableConfig { max_flows, ..FlowTableConfig::default() });
        let end = run(&mut watch, &steps, |_| false, 0.0);
        watch.finish(end);
        let slots = &watch.table.slots;
        let there = slots.places()
            .filter(|slot| slots.find(&slots[*slot].key) == Some(*slot))
            .filter(|slot| matches!(slots[*slot].phase, Phase::HalfOpen | Phase::Open))
            .count() as u32;
        let begun: u32 = watch.records.iter().map(|record| record.opened + record.joined).sum();
        let closed: u32 = watch.records.iter().map(|record| record.closed.total()).sum();
        prop_assert_eq!(begun, closed + there);
        let mut starts = HashMap::<_, u32>::new();
        for record in &watch.records {
            let (client, server) = (record.client, record.server);
            let tuple = (client.min(server), client.max(server));
            *starts.entry((tuple, record.interval)).or_default() += record.open_at_start;
        }
        prop_assert!(starts.values().all(|count| *count <= 1), "open at start once per interval");
        // And everything is forgotten in the end.
        watch.until(end + 5_000.0);
        let begun: u32 = watch.records.iter().map(|record| record.opened + record.joined).sum();
        let closed: u32 = watch.records.iter().map(|record| record.closed.total()).sum();
        prop_assert_eq!(begun, closed);
        prop_assert!(watch.table.slots.is_empty());
        prop_assert!(watch.shared.lock().observations.is_empty());
    }

    #[test]
    fn telling_time_more_often_changes_no_record(
        steps in vec((any_pause(), any_segment()), 1..60),
        advance in any::<u64>(),
    ) {
        let [mut often, mut never] = [Watch::new(), Watch::new()];
        run(&mut often, &steps, |n| advance >> (n % 64) & 1 == 1, 0.0);
        let end = run(&mut never, &steps, |_| false, 0.0);
        often.finish(end);
        never.finish(end);
        // What a cut brings may leave before or after what comes meanwhile.
        let sorted = |watch: &Watch| {
            let mut records: Vec<_> = watch.records.iter().map(|it| format!("{it:?}")).collect();
            records.sort_unstable();
            records
        };
        prop_assert_eq!(sorted(&often), sorted(&never));
    }

    #[test]
    fn the_length_of_intervals_changes_no_total(
        steps in vec((any_pause(), any_segment()), 1..60),
        seconds in prop::sample::select(&[1_u64, 5, 60][..]),
    ) {
        let interval = IntervalLength::from_seconds(seconds).unwrap();
        let mut ten = Watch::new();
        let mut other = Watch::with(FlowTableConfig { interval, ..FlowTableConfig::default() });
        for watch in [&mut ten, &mut other] {
            let end = run(watch, &steps, |_| false, 0.0);
            watch.until(end + 5_000.0);
        }
        let (ten_sum, other_sum) = (ten.sum(), other.sum());
        prop_assert_eq!(ten_sum.life(), other_sum.life());
        prop_assert_eq!(sums(&ten.records), sums(&other.records));
        // Open connections are counted at the same minutes.
        let at_minutes = |watch: &Watch| -> BTreeMap<u64, u32> {
            let mut open = BTreeMap::new();
            for record in watch.records.iter().filter(|record| record.interval.starts_minute()) {
                *open.entry(record.interval.start_us()).or_default() += record.open_at_start;
            }
            open.retain(|_, count| *count > 0);
            open
        };
        prop_assert_eq!(at_minutes(&ten), at_minutes(&other));
    }

    #[test]
    fn observations_of_a_connection_agree_and_one_is_primary(
        talks in vec((any::<u32>(), 1_u32.., 1_u8..8, 0_usize..3, 0.0_f64..30.0), 1..8),
        delays in prop::array::uniform3(0.0_f64..0.3),
        pauses in vec(any_pause(), 9),
        advance in any::<u64>(),
        tables in 1_usize..4,
        mut restarts in prop::option::of(0_usize..60),
    ) {
        // NAT gives each point a tuple of its own, so they may be with different workers.
        let mut watch = Watch::new();
        let new_table = |_| FlowTable::new(FlowTableConfig::default(), watch.shared.clone());
        let mut tables: Vec<_> = (0..tables).map(new_table).collect();
        let mut points = vec![
            add_point(&watch.shared, "veth1", InterfaceKind::Pod),
            add_point(&watch.shared, "veth2", InterfaceKind::Pod),
            add_point(&watch.shared, "eth0", InterfaceKind::Uplink),
        ];
        let mut isns = BTreeSet::new();
        let mut packets = Vec::new();
        let mut ids = HashMap::new();
        for (n, (client_isn, server_isn, at, missed, start)) in talks.iter().enumerate() {
            if !isns.insert(*client_isn) {
                continue;
            }
            ids.insert(n, from_isns(*client_isn, *server_isn));
            let (client, server) = (format!("10.0.1.{n}:{}", 30_000 + n), format!("10.0.2.{n}:80"));
            let mut talk = Talk::between(&client, &server).with_isns(*client_isn, *server_isn);
            let mut seconds = *start;
            for (segment, pause) in whole(&mut talk).into_iter().zip(&pauses).skip(*missed) {
                // One missed is joined at the SYN-ACK, and seen so everywhere.
                seconds += pause.min(20.0);
                for p in (0..3).filter(|p| at >> p & 1 == 1) {
                    // Each point has a translation of its own.
                    let segment = translated(segment, &client, &format!("10.{p}.1.{n}:{}", 40_000 + n));
                    let segment = translated(segment, &server, &format!("10.{p}.2.{n}:{}", 8_000 + p));
                    packets.push((seconds + delays[p], p, segment));
                }
            }
        }
        packets.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (n, (seconds, point, segment)) in packets.iter().enumerate() {
            // An agent reads its rings out before it ends, so all points have seen as much.
            let before = n.checked_sub(1).map_or(0.0, |before| packets[before].0);
            if restarts.is_some_and(|it| n >= it) && seconds - before > 0.3 {
                restarts = None;
                restart_all(&mut watch, &mut tables, &mut points, *seconds);
            }
            for table in &mut tables {
                if advance >> (n % 64) & 1 == 1 {
                    while !table.advance(us(*seconds), &mut watch.records) {}
                }
            }
            let origin = if segment.source.port >= 40_000 { Origin::Inside } else { Origin::Outside };
            let worker = point % tables.len();
            tables[worker].packet(points[*point], origin, us(*seconds), segment);
        }
        for table in &mut tables {
            while !table.advance(us(2_000.0), &mut watch.records) {}
        }

        let mut primaries = HashMap::<usize, BTreeSet<&str>>::new();
        for record in &watch.records {
            let n = usize::from(record.client.port.max(record.server.port) - 40_000);
            if record.id_kind == flowtrail_schema::IdKind::Complete {
                prop_assert_eq!(record.connection_id, ids[&n]);
            }
            let primary = primaries.entry(n).or_default();
            if record.local_primary {
                primary.insert(&record.interface.name);
            }
        }
        // Joined after the handshake, NAT hides that observations belong together.
        for (n, at) in primaries {
            if talks[n].3 < 2 {
                prop_assert_eq!(at.len(), 1, "connection {} at {:?}", n, at);
            }
        }
    }
}

const POINTS: [(&str, InterfaceKind); 4] = [
    ("file", InterfaceKind::Other),
    ("veth1", InterfaceKind::Pod),
    ("veth2", InterfaceKind::Pod),
    ("eth0", InterfaceKind::Uplink),
];

/// Ends tables as a shutdown does, and gives the connections of each to a new one. The points are those
/// of the interfaces after the first.
fn restart_all(watch: &mut Watch, tables: &mut [FlowTable], points: &mut [PointId], seconds: f64) {
    let shared = Shared::default();
    for (name, kind) in POINTS {
        add_point(&shared, name, kind);
    }
    for table in tables.iter_mut() {
        while !table.finish(us(seconds), &mut watch.records) {}
        let mut saved = SavedFlows::default();
        let mut from = Some(0);
        while let Some(place) = from {
            from = table.save(place, &mut saved);
        }
        let name_of = |name: &str| POINTS.iter().position(|(other, _)| *other == name).unwrap();
        let found = saved.interfaces().map(|it| Some(PointId(name_of(&it.name) as u16)));
        let found: Vec<_> = found.collect();
        *table = FlowTable::new(table.config.clone(), shared.clone());
        for n in 0..saved.len() {
            assert!(table.restore(&saved, n, &found, 0), "{saved:?}");
        }
        table.restored();
    }
    for (point, id) in points.iter_mut().zip(1..) {
        *point = PointId(id);
    }
    watch.shared = shared;
}

fn restart(watch: &mut Watch, seconds: f64) {
    let config = watch.table.config.clone();
    let new = FlowTable::new(config, watch.shared.clone());
    let mut tables = [std::mem::replace(&mut watch.table, new)];
    restart_all(watch, &mut tables, &mut [], seconds);
    [watch.table] = tables;
    watch.point = PointId(0);
}

proptest! {
    #[test]
    fn restarts_lose_no_packet_and_begin_no_connection_anew(
        steps in vec((any_pause(), any_segment()), 1..60),
        restarts in any::<u64>(),
    ) {
        let mut watch = Watch::new();
        let mut seconds = 0.0;
        for (n, (pause, segment)) in steps.iter().enumerate() {
            if restarts >> (n % 64) & 3 == 3 {
                restart(&mut watch, seconds);
            }
            seconds += pause;
            watch.see(seconds, *segment);
        }
        watch.until(seconds + 5_000.0);
        let fed = steps.iter().fold((0, 0, 0), |(packets, bytes, payload), (_, it)| {
            (packets + 1, bytes + u64::from(it.ip_bytes), payload + u64::from(it.payload_bytes))
        });
        prop_assert_eq!(sums(&watch.records), fed);
        let begun: u32 = watch.records.iter().map(|record| record.opened + record.joined).sum();
        let closed: u32 = watch.records.iter().map(|record| record.closed.total()).sum();
        prop_assert_eq!(begun, closed);
        prop_assert!(watch.table.slots.is_empty());
        prop_assert!(watch.records.iter().all(|record| record.local_primary));
        let mut starts = HashMap::<_, u32>::new();
        for record in &watch.records {
            let (client, server) = (record.client, record.server);
            let tuple = (client.min(server), client.max(server));
            *starts.entry((tuple, record.interval)).or_default() += record.open_at_start;
        }
        prop_assert!(starts.values().all(|count| *count <= 1), "open at start once per interval");
    }
}
