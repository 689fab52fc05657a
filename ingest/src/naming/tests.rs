//! Names stay for a connection's life; only what was unknown becomes known.

use std::net::SocketAddr;

use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::{Closed, Counters, Detail, Interface, InterfaceKind, Measure};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use super::*;
use crate::connections::{Connections, Restored};
use crate::objects::{Object, Pod, Service};
use crate::points::Point;

const START_US: u64 = 1_700_000_000_000_000;

fn record(seconds: u64, interface: &str, reporter: Reporter, server: &str) -> FlowRecord {
    let time_us = START_US + seconds * 1_000_000;
    let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
    FlowRecord {
        interval: IntervalLength::default().interval_at(time_us),
        interface: Arc::new(Interface { name: interface.into(), kind: InterfaceKind::Pod }),
        reporter,
        local_primary: true,
        connection_id: 7 << 32 | 9,
        id_kind: IdKind::Complete,
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        detail: Detail::Flow,
        client: end("10.0.0.1:40000"),
        server: end(server),
        first_seen_us: time_us,
        last_seen_us: time_us,
        age_us: 0,
        sent: Counters { bytes: 1, ..Counters::default() },
        received: Counters { bytes: 2, ..Counters::default() },
        opened: 0,
        joined: 0,
        open_at_start: 0,
        closed: Closed { reset_by_client: 1, ..Closed::default() },
        syn_to_synack: Measure::default(),
        synack_to_ack: Measure::default(),
        first_response: Measure::default(),
        duration: Measure::default(),
    }
}

fn pod(name: &str, ip: &str) -> Object {
    let pod = json!({"metadata": {"name": name}, "status": {"podIP": ip}});
    serde_json::from_value::<Pod>(pod).unwrap().into()
}

fn service(name: &str, ip: &str) -> Object {
    let service = json!({"metadata": {"name": name}, "spec": {"clusterIP": ip}});
    serde_json::from_value::<Service>(service).unwrap().into()
}

fn point(record: &FlowRecord) -> Arc<Point> {
    Point::new("n".into(), "n".into(), Arc::clone(&record.interface)).into()
}

/// Observes and names a record at once: client, server and Service.
fn name(connections: &mut Connections, index: &IdentityIndex, record: &FlowRecord) -> [String; 3] {
    let (_, connection) = connections.observe(record, &point(record));
    let names = named(record, "n", Some(connection), index);
    let service = names.service.as_ref().map(|called| called.name.to_string()).unwrap_or_default();
    [names.client.identity.name.to_string(), names.server.identity.name.to_string(), service]
}

#[test]
fn the_backend_is_learned_when_its_side_is_seen_and_names_stay() {
    let mut connections = Connections::new(10, Counter::default());
    let mut index = IdentityIndex::default();
    index.apply(&pod("client", "10.0.0.1"), START_US);
    index.apply(&pod("backend", "10.0.0.2"), START_US);
    index.apply(&service("shop", "10.96.0.1"), START_US);
    let from_client = |seconds| record(seconds, "va", Reporter::Client, "10.96.0.1:80");
    let from_server = |seconds| record(seconds, "vb", Reporter::Server, "10.0.0.2:8080");
    assert_eq!(name(&mut connections, &index, &from_client(0)), ["client", "shop", "shop"]);
    assert_eq!(name(&mut connections, &index, &from_server(0)), ["client", "backend", "shop"]);
    assert_eq!(name(&mut connections, &index, &from_client(10)), ["client", "backend", "shop"]);
    // The addresses belong to others by now: this connection is still theirs.
    index.delete(&pod("client", "10.0.0.1"), START_US + 15_000_000);
    index.delete(&pod("backend", "10.0.0.2"), START_US + 15_000_000);
    assert_eq!(name(&mut connections, &index, &from_client(20)), ["client", "backend", "shop"]);
}

#[test]
fn settled_names_still_learn_the_service_by_which_the_server_was_called() {
    let mut connections = Connections::new(10, Counter::default());
    let mut index = IdentityIndex::default();
    index.apply(&pod("client", "10.0.0.1"), START_US);
    index.apply(&pod("backend", "10.0.0.2"), START_US);
    let from_client = |seconds| record(seconds, "va", Reporter::Client, "10.96.0.1:80");
    let from_server = |seconds| record(seconds, "vb", Reporter::Server, "10.0.0.2:8080");
    for seconds in [0, 10] {
        let names = name(&mut connections, &index, &from_server(seconds));
        assert_eq!(names, ["client", "backend", ""]);
    }
    assert_eq!(name(&mut connections, &index, &from_client(10)), ["client", "backend", ""]);
    // The Service is listed late.
    index.apply(&service("shop", "10.96.0.1"), START_US);
    assert_eq!(name(&mut connections, &index, &from_server(20)), ["client", "backend", "shop"]);
}

#[test]
fn what_was_unknown_may_become_known() {
    let mut connections = Connections::new(10, Counter::default());
    let mut index = IdentityIndex::default();
    let record = |seconds| record(seconds, "va", Reporter::Client, "10.0.0.2:80");
    assert_eq!(name(&mut connections, &index, &record(0)), ["", "", ""]);
    index.apply(&pod("late", "10.0.0.1"), START_US + 5_000_000);
    assert_eq!(name(&mut connections, &index, &record(10)), ["late", "", ""]);
}

#[test]
fn another_connection_of_the_same_id_much_later_has_its_own_names() {
    let mut connections = Connections::new(10, Counter::default());
    let mut index = IdentityIndex::default();
    index.apply(&pod("first", "10.0.0.1"), START_US);
    let record = |seconds| record(seconds, "va", Reporter::Client, "10.0.0.2:80");
    assert_eq!(name(&mut connections, &index, &record(0))[0], "first");
    index.delete(&pod("first", "10.0.0.1"), START_US + 100_000_000);
    assert_eq!(name(&mut connections, &index, &record(1_000))[0], "");
}

#[test]
fn a_restored_connection_keeps_its_names_and_its_direction() {
    let mut index = IdentityIndex::default();
    index.apply(&pod("client", "10.0.0.1"), START_US);
    index.apply(&service("shop", "10.96.0.1"), START_US);
    let from_client = record(0, "va", Reporter::Client, "10.96.0.1:80");
    let row = |record: &FlowRecord, names, inferred_server| Restored {
        connection_id: record.connection_id,
        id_kind: record.id_kind,
        point: point(record),
        reporter: record.reporter,
        client: record.client,
        server: record.server,
        first_seen_us: record.first_seen_us,
        last_seen_us: record.last_seen_us,
        primary: true,
        names,
        inferred_server,
    };
    let mut connections = Connections::new(10, Counter::default());
    let (_, connection) = connections.observe(&from_client, &point(&from_client));
    let names = named(&from_client, "n", Some(connection), &index);
    // Ingest starts anew; the client's address is another's by now, and the backend shows.
    let mut restored = Connections::new(10, Counter::default());
    restored.restore(row(&from_client, Some(names), None));
    index.delete(&pod("client", "10.0.0.1"), START_US + 5_000_000);
    index.apply(&pod("other", "10.0.0.1"), START_US + 5_000_000);
    index.apply(&pod("backend", "10.0.0.2"), START_US);
    let from_server = record(10, "vb", Reporter::Server, "10.0.0.2:8080");
    assert_eq!(name(&mut restored, &index, &from_server), ["client", "backend", "shop"]);
    assert_eq!(name(&mut restored, &index, &from_client), ["client", "backend", "shop"]);

    // The row of a connection that was turned round has its ends turned round too.
    let mut midstream = record(0, "va", Reporter::Client, "10.0.0.3:50000");
    midstream.direction_inferred = true;
    midstream.id_kind = IdKind::TupleHash;
    let turned = turned_round(&midstream);
    restored.restore(row(&turned, None, Some(turned.server)));
    midstream.first_seen_us += 1;
    let (_, connection) = restored.observe(&midstream, &point(&midstream));
    assert_eq!(connection.inferred_server, Some(turned.server));
    assert_eq!(directed(&midstream, "n", Some(connection), &index).server, turned.server);
}

#[test]
fn turning_round_swaps_all_that_has_a_side() {
    let mut inferred = record(0, "va", Reporter::Client, "10.0.0.2:80");
    inferred.direction_inferred = true;
    let turned = turned_round(&inferred);
    assert_eq!((turned.client, turned.server), (inferred.server, inferred.client));
    assert_eq!((turned.sent.bytes, turned.received.bytes), (2, 1));
    assert_eq!((turned.closed.reset_by_client, turned.closed.reset_by_server), (0, 1));
    assert_eq!(turned.reporter, Reporter::Server);
    assert_eq!(turned_round(&turned), inferred);
}

#[test]
fn the_table_is_bounded_and_forgets_the_least_recently_seen() {
    let overflowed = Counter::default();
    let mut connections = Connections::new(2, overflowed.clone());
    let of = |isn: u64| FlowRecord {
        connection_id: isn << 32 | 1,
        ..record(0, "va", Reporter::Client, "10.0.0.2:80")
    };
    let mut observe = |isn| connections.observe(&of(isn), &point(&of(isn))).0;
    let [first, second, again, third] = [1, 2, 1, 3].map(&mut observe);
    assert_eq!(overflowed.get(), 1);
    assert_eq!(first, again);
    let known = [first, second, third].map(|key| connections.get(key).is_some());
    assert_eq!(known, [true, false, true]);
}
