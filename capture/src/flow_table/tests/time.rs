//! What time does: intervals, heartbeats, late packets, timeouts, eviction, the end.

use std::time::Duration;

use flowtrail_schema::IdKind;
use flowtrail_schema::connection_id::from_isns;

use super::*;

#[test]
fn a_syn_at_the_end_of_an_interval_may_be_answered_in_the_next() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see(9.999, talk.send(Client, "S", 0));
    watch.see(10.001, talk.send(Server, "SA", 0));
    watch.see(10.002, talk.send(Client, "A", 0));
    let [first] = watch.until(10.5).try_into().unwrap();
    let [second] = watch.until(20.5).try_into().unwrap();
    assert_eq!((first.opened, first.id_kind), (1, IdKind::Partial));
    assert_eq!((second.opened, second.open_at_start, second.id_kind), (0, 0, IdKind::Complete));
    assert_eq!(second.syn_to_synack.sum_us, 2_000);
    assert_eq!((second.sent.packets, second.received.packets), (1, 1));
    assert!(first.local_primary && second.local_primary);
}

#[test]
fn an_idle_connection_closes_and_keeps_its_id_when_it_comes_back() {
    let mut watch = Watch::new();
    let mut talk = Talk::between("10.0.0.1:80", "10.0.0.2:40000");
    watch.see_all(5.0, open(&mut talk));
    watch.until(2_000.0);
    assert_eq!(watch.sum().life(), (1, 0, &[("idle", 1)][..]));
    assert_eq!(watch.table.len(), 0);
    assert_eq!(watch.table.stats().tombstones, 1);
    watch.see(2_100.0, talk.send(Server, "A", 10));
    watch.until(2_200.0);
    assert_eq!(watch.sum().life(), (1, 1, &[("idle", 1)][..]));
    let back = watch.records.last().unwrap();
    assert_eq!(back.connection_id, from_isns(CLIENT_ISN, SERVER_ISN));
    assert_eq!(back.client, end("10.0.0.1:80"), "though its port is the lower one");
    assert!(back.local_primary && !back.direction_inferred);
}

#[test]
fn an_open_connection_is_in_the_first_interval_of_each_minute() {
    let mut watch = Watch::new();
    watch.see_all(5.0, open(&mut Talk::new()));
    let mut records = watch.until(181.0);
    records.remove(0);
    assert_eq!(records.iter().map(second).collect::<Vec<_>>(), [60, 120]);
    for beat in &records {
        assert_eq!((beat.open_at_start, beat.sent.packets, beat.opened), (1, 0, 0));
        assert_eq!(beat.first_seen_us, beat.interval.start_us());
        assert_eq!(beat.age_us, beat.interval.end_us() - us(5.0));
    }
    assert_eq!(watch.until(190.5).len(), 1);
}

#[test]
fn a_minute_has_its_heartbeat_even_if_the_next_interval_has_begun() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see_all(5.0, open(&mut talk));
    watch.until(65.0);
    // Between the end of the minute's first interval and its cut.
    watch.see(70.1, talk.send(Client, "R", 0));
    let records = watch.until(80.5);
    let seen: Vec<_> =
        records.iter().map(|r| (second(r), r.open_at_start, r.closed.total())).collect();
    assert_eq!(seen, [(60, 1, 0), (70, 1, 1)]);
}

#[test]
fn a_packet_late_for_its_interval_makes_another_record_of_it() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see_all(5.0, open(&mut talk));
    watch.see(15.0, talk.send(Client, "A", 10));
    watch.see(21.0, talk.send(Client, "A", 10));
    watch.see(16.0, talk.send(Server, "A", 10));
    watch.until(31.0);
    let seen: Vec<_> = watch
        .records
        .iter()
        .map(|r| (second(r), r.sent.packets, r.received.packets, r.open_at_start))
        .collect();
    assert_eq!(seen, [(0, 2, 1, 0), (10, 1, 0, 1), (20, 1, 0, 1), (10, 0, 1, 0)]);
}

#[test]
fn a_full_table_forgets_the_closed_and_then_evicts_the_idle() {
    let mut watch = Watch::with(FlowTableConfig { max_flows: 2, ..FlowTableConfig::default() });
    let mut talks: Vec<_> =
        (1..=3).map(|n| Talk::between(&format!("10.0.0.{n}:40000"), "10.0.0.9:80")).collect();
    watch.see_all(1.0, whole(&mut talks[0]));
    watch.see_all(2.0, open(&mut talks[1]));
    watch.see_all(3.0, open(&mut talks[2]));
    assert_eq!((watch.table.stats().forgotten, watch.table.stats().evicted), (1, 0));
    let mut fourth = Talk::between("10.0.0.4:40000", "10.0.0.9:80");
    watch.see_all(15.0, open(&mut fourth));
    assert_eq!((watch.table.stats().evicted, watch.table.len()), (1, 2));
    // The evicted one comes back, and the one that is idle for longest goes.
    watch.see(16.0, talks[1].send(Client, "A", 10));
    watch.until(30.0);
    assert_eq!(watch.sum().life(), (4, 1, &[("evicted", 2), ("fin", 1)][..]));
    let back = watch.records.iter().find(|record| record.joined == 1).unwrap();
    assert_eq!((back.client, back.id_kind), (end("10.0.0.2:40000"), IdKind::Complete));
}

/// Sources that are forged never acknowledge, whether the server answers them or not.
#[test]
fn a_flood_displaces_no_established_connection() {
    for answered in [false, true] {
        let config = FlowTableConfig { max_flows: 100, ..FlowTableConfig::default() };
        let mut watch = Watch::with(config);
        let mut talks: Vec<_> =
            (0..50).map(|n| Talk::between(&format!("10.1.0.{n}:4000"), "10.0.0.9:80")).collect();
        for (n, talk) in (1..).zip(&mut talks) {
            *talk = talk.clone().with_isns(n, n);
            let segments = open(talk);
            watch.see_all(1.0, segments);
        }
        for n in 0..10_000_u32 {
            let source = format!("10.2.{}.{}:5000", n / 256, n % 256);
            let mut flood = Talk::between(&source, "10.0.0.9:80").with_isns(1_000 + n, n);
            let seconds = 2.0 + f64::from(n) / 1e3;
            watch.see(seconds, flood.send(Client, "S", 0));
            if answered {
                watch.see(seconds, flood.send(Server, "SA", 0));
            }
            assert!(watch.table.len() <= 100);
        }
        for talk in &mut talks {
            watch.see(13.0, talk.send(Client, "A", 10));
        }
        watch.finish(13.0);
        let mut established = watch.records.iter().filter(|it| it.client.port == 4_000);
        assert!(established.all(|record| record.closed.total() + record.joined == 0));
        assert_eq!(watch.sum().opened, 10_050, "{answered}");
    }
}

#[test]
fn the_end_takes_what_is_counted_and_closes_nothing() {
    let mut watch = Watch::new();
    watch.see_all(5.0, open(&mut Talk::new()));
    watch.see(6.0, Talk::between("10.0.0.3:1000", "10.0.0.9:80").send(Client, "S", 0));
    let records = watch.finish(6.5);
    assert_eq!(records.len(), 2);
    assert_eq!(watch.sum().life(), (2, 0, &[][..]));
    assert!(records.iter().all(|record| record.local_primary));
}

#[test]
fn a_long_hole_in_time_costs_nothing() {
    let mut watch = Watch::with(FlowTableConfig {
        idle_timeout: Duration::from_secs(60),
        ..FlowTableConfig::default()
    });
    watch.see_all(5.0, open(&mut Talk::new()));
    watch.until(1e9);
    watch.see_all(1e9, open(&mut Talk::new().with_isns(1, 2)));
    watch.table.packet(watch.point, Origin::Unknown, u64::MAX, &Talk::new().send(Client, "S", 0));
    watch.until(2e9);
    watch.finish(2e9);
    assert_eq!(watch.sum().opened, 3);
    assert!(watch.records.len() < 20);
}

#[test]
fn the_heartbeats_of_a_hole_in_time_come_one_interval_at_a_time() {
    let mut watch = Watch::new();
    watch.see_all(5.0, open(&mut Talk::new()));
    let mut starts = Vec::new();
    loop {
        let mut records = Vec::new();
        let is_done = watch.table.advance(us(185.0), &mut records);
        assert!(records.len() <= 1, "{}", records.len());
        starts.extend(records.iter().map(second));
        if is_done {
            break;
        }
    }
    assert_eq!(starts, [0, 60, 120]);
}

#[test]
fn four_gigabytes_in_an_interval_are_not_lost() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see_all(5.0, open(&mut talk));
    for _ in 0..3 {
        let mut huge = talk.send(Client, "A", 0);
        (huge.ip_bytes, huge.payload_bytes) = (2_000_000_040, 2_000_000_000);
        watch.see(6.0, huge);
    }
    watch.until(20.0);
    assert_eq!(watch.sum().bytes[0], 3 * 2_000_000_040 + 80);
    assert_eq!(watch.sum().opened, 1);
}

#[test]
fn a_flow_is_small() {
    // `make bench-capture` measures what one takes in all: this, its observation, and two indices.
    let bytes = size_of::<super::super::flow::Flow>();
    assert!(bytes <= 200, "{bytes} bytes");
}
