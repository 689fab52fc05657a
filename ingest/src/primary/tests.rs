//! The decision, case by case. Its laws, over any log, are in `laws.rs`.

mod laws;

use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::{
    Closed, Counters, Coverage, Endpoint, FlowBatch, IdKind, Interface, InterfaceKind, Measure,
};
use prometheus_client::metrics::counter::Counter;

use super::*;
use crate::connections::{ConnectionKey, Connections};
use crate::points::Points;

const START_US: u64 = 1_700_000_000_000_000;

fn record(seconds: u64, id: u64, interface: &str, reporter: Reporter) -> FlowRecord {
    let time_us = START_US + seconds * 1_000_000;
    let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    FlowRecord {
        interval: IntervalLength::default().interval_at(time_us),
        interface: Arc::new(Interface { name: interface.into(), kind: InterfaceKind::Pod }),
        reporter,
        local_primary: true,
        connection_id: id,
        id_kind: if id as u32 == 0 { IdKind::Partial } else { IdKind::Complete },
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        detail: flowtrail_schema::Detail::Flow,
        client: end("10.0.0.1:40000"),
        server: end("10.0.0.2:80"),
        first_seen_us: time_us,
        last_seen_us: time_us,
        age_us: 0,
        sent: Counters::default(),
        received: Counters::default(),
        opened: 0,
        joined: 0,
        open_at_start: 0,
        closed: Closed::default(),
        syn_to_synack: Measure::default(),
        synack_to_ack: Measure::default(),
        first_response: Measure::default(),
        duration: Measure::default(),
    }
}

fn batch(agent: &str, seconds: u64, records: Vec<FlowRecord>, announced: &[&str]) -> FlowBatch {
    let interval = IntervalLength::default().interval_at(START_US + seconds * 1_000_000);
    FlowBatch {
        agent: agent.into(),
        node: agent.into(),
        agent_start_us: 1,
        partition: 0,
        sequence: 0,
        records,
        coverage: vec![Coverage {
            interval,
            interfaces: 0,
            packets_seen: 0,
            packets_dropped: 0,
            flows_evicted: 0,
            records_emitted: 0,
            records_dropped: 0,
        }],
        announced_addresses: announced.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// Agent, interface and id of a record that is primary.
type Primary = (String, String, u64);

/// One partition's state, as far as decisions need it.
struct Decider {
    announced: Announcements,
    connections: Connections,
    points: Points,
    /// Of each record so far.
    keys: Vec<Option<ConnectionKey>>,
}

impl Decider {
    fn new() -> Self {
        let connections = Connections::new(1_000, Counter::default());
        let (points, keys) = (Points::default(), vec![]);
        Self { announced: Announcements::default(), connections, points, keys }
    }

    /// The decision about each record of a log, in its order.
    fn decide<'a>(&mut self, log: &'a [FlowBatch]) -> Vec<(&'a FlowBatch, &'a FlowRecord, bool)> {
        let mut decided = Vec::new();
        for batch in log {
            self.announced.renew(batch);
            let mut points = self.points.of_batch(&batch.agent, &batch.node);
            for record in &batch.records {
                let point = points.point(&record.interface);
                let (key, primary) = if record.detail == Detail::Flow {
                    let (key, connection) = self.connections.observe(record, &point);
                    (Some(key), is_primary(record, &point, connection, &self.announced))
                } else {
                    (None, is_primary_summary(record, &batch.agent, &self.announced))
                };
                self.keys.push(key);
                decided.push((batch, record, primary));
            }
        }
        decided
    }
}

/// What is primary of a log, in its order.
fn decide(log: &[FlowBatch]) -> Vec<Primary> {
    let decided = Decider::new().decide(log);
    let primary =
        decided.into_iter().filter(|(_, _, primary)| *primary).map(|(batch, record, _)| {
            (batch.agent.to_string(), record.interface.name.clone(), record.connection_id)
        });
    primary.collect()
}

const ID: u64 = 7 << 32 | 9;

fn at(seconds: u64, interface: &str, reporter: Reporter) -> Vec<FlowRecord> {
    vec![record(seconds, ID, interface, reporter)]
}

#[test]
fn the_clients_side_counts_if_some_agent_announces_the_client() {
    let server = |seconds| batch("b", seconds, at(seconds, "vb", Reporter::Server), &["10.0.0.2"]);
    let client = |seconds| batch("a", seconds, at(seconds, "va", Reporter::Client), &["10.0.0.1"]);
    let announced = batch("a", 0, vec![], &["10.0.0.1"]);
    let agents = |log: &[FlowBatch]| -> String { decide(log).into_iter().map(|p| p.0).collect() };
    assert_eq!(agents(&[announced.clone(), server(10), client(10), server(20)]), "a");
    // Nobody announced the client, so the server's side counts, and that stays.
    assert_eq!(agents(&[server(10), client(10), client(20), server(20)]), "bb");
    // The lease is three intervals from the one it was given in.
    assert_eq!(agents(&[announced.clone(), server(29)]), "");
    assert_eq!(agents(&[announced, server(30)]), "b");
}

#[test]
fn in_transit_is_for_connections_whose_ends_nobody_sees() {
    let transit = batch("t", 10, at(10, "eth0", Reporter::Transit), &[]);
    let other = |address| batch("b", 0, vec![], &[address]);
    assert_eq!(decide(std::slice::from_ref(&transit)).len(), 1);
    assert_eq!(decide(&[other("10.0.0.1"), transit.clone()]).len(), 0);
    assert_eq!(decide(&[other("10.0.0.2"), transit.clone()]).len(), 0);
    // The agent's own announcement: it has no better observation, or it would be the local primary.
    let own = batch("t", 10, at(10, "eth0", Reporter::Transit), &["10.0.0.1"]);
    assert_eq!(decide(&[own]).len(), 1);
}

#[test]
fn the_decision_on_a_partial_id_holds_for_the_complete_one() {
    let partial = |agent| batch(agent, 9, vec![record(9, 7 << 32, "v", Reporter::Client)], &[]);
    let complete = |agent| batch(agent, 10, at(10, "v", Reporter::Client), &[]);
    let agents = |log: &[FlowBatch]| -> String { decide(log).into_iter().map(|p| p.0).collect() };
    assert_eq!(agents(&[partial("a"), complete("b"), complete("a")]), "aa");
    assert_eq!(agents(&[complete("a"), partial("b"), partial("a")]), "aa");
}

#[test]
fn connections_of_one_client_number_are_told_apart() {
    let one = record(10, 7 << 32 | 1, "va", Reporter::Client);
    let two = record(10, 7 << 32 | 2, "vb", Reporter::Client);
    assert_eq!(decide(&[batch("a", 10, vec![one], &[]), batch("b", 10, vec![two], &[])]).len(), 2);
    // A port used again on one interface, both unanswered: two attempts by what they show.
    let mut again = record(11, 7 << 32, "va", Reporter::Client);
    again.client.port += 1;
    let log = [batch("a", 10, vec![record(10, 7 << 32, "va", Reporter::Client), again], &[])];
    assert_eq!(decide(&log).len(), 2);
}

/// The summary of an interval, or of a minute.
fn summary(seconds: u64, length: u64, reporter: Reporter) -> FlowRecord {
    let length = IntervalLength::from_seconds(length).unwrap();
    let interval = length.interval_at(START_US + seconds * 1_000_000);
    let detail =
        if length == IntervalLength::MINUTE { Detail::MinuteSummary } else { Detail::Summary };
    FlowRecord { interval, detail, id_kind: IdKind::TupleHash, ..record(seconds, 1, "v", reporter) }
}

#[test]
fn a_batch_announces_for_all_its_intervals_whatever_their_order() {
    let server = |seconds| batch("b", seconds, at(seconds, "vb", Reporter::Server), &["10.0.0.2"]);
    // An outage ends: one batch tells of three intervals, and later comes what is older still.
    let mut drained = batch("a", 200, at(100, "va", Reporter::Transit), &["10.0.0.1"]);
    drained.records.extend(at(300, "va", Reporter::Transit));
    drained.records.iter_mut().for_each(|record| record.local_primary = false);
    let older = batch("a", 10, vec![], &["10.0.0.1"]);
    let log = [drained, older];
    for covered in [10, 30, 100, 120, 200, 220, 300, 320] {
        assert_eq!(decide(&[&log[..], &[server(covered)]].concat()).len(), 0, "{covered} s");
    }
    for free in [0, 40, 90, 130, 190, 230, 290, 330] {
        assert_eq!(decide(&[&log[..], &[server(free)]].concat()).len(), 1, "{free} s");
    }
}

#[test]
fn a_summary_of_a_minute_is_judged_by_its_whole_minute_and_announces_for_no_more() {
    // START_US is 20 s into a minute.
    let of_server = |seconds| vec![summary(seconds, 60, Reporter::Server)];
    let server = |seconds| batch("b", 1_000, of_server(seconds), &[]);
    let client = |seconds| batch("a", seconds, vec![], &["10.0.0.1"]);
    // The agent came in the minute's last interval, or went in its first; and it is heard later.
    for seen in [90, 20] {
        let log = [client(seen), batch("a", 900, vec![], &[]), server(40)];
        assert_eq!(decide(&log).len(), 0, "{seen} s");
    }
    for seen in [100, 0] {
        let log = [client(seen), batch("a", 900, vec![], &[]), server(40)];
        assert_eq!(decide(&log).len(), 1, "{seen} s");
    }
    let mut minute = batch("a", 900, vec![summary(40, 60, Reporter::Client)], &["10.0.0.1"]);
    minute.coverage.truncate(1);
    let at_most =
        |seconds| [minute.clone(), batch("b", seconds, at(seconds, "v", Reporter::Server), &[])];
    assert_eq!(decide(&at_most(90)).len(), 1, "the client's");
    assert_eq!(decide(&at_most(100)).len(), 2);
}

#[test]
fn of_who_is_silent_the_last_word_holds_for_summaries() {
    let client = batch("a", 0, vec![], &["10.0.0.1"]);
    let server =
        |seconds| batch("b", seconds, vec![summary(seconds, 10, Reporter::Server)], &["10.0.0.2"]);
    // Both were cut off, and the server's side is the first to be heard again.
    assert_eq!(decide(&[client.clone(), server(600)]).len(), 0);
    // Not for ever, not if it was heard meanwhile, and not for what was not folded.
    assert_eq!(decide(&[client.clone(), server(3_620)]).len(), 0);
    assert_eq!(decide(&[client.clone(), server(3_630)]).len(), 1);
    assert_eq!(decide(&[client.clone(), batch("a", 100, vec![], &[]), server(600)]).len(), 1);
    let flow = batch("b", 600, at(600, "vb", Reporter::Server), &[]);
    assert_eq!(decide(&[client, flow]).len(), 1);
}

/// What must be read again to judge summaries alike: the last word of every agent that is silent.
#[test]
fn reread_from_the_last_word_of_who_is_silent_summaries_are_judged_alike() {
    let client = |seconds| batch("a", seconds, vec![], &["10.0.0.1"]);
    let server = batch("b", 600, vec![summary(600, 10, Reporter::Server)], &["10.0.0.2"]);
    let log = [client(0), client(100), batch("b", 590, vec![], &[]), server];
    for (start, primaries) in [(0, 0), (1, 0), (2, 1)] {
        assert_eq!(decide(&log[start..]).len(), primaries, "from {start}");
    }
}

#[test]
fn an_address_that_every_node_has_tells_nothing() {
    let nodes: Vec<String> = (0..20).map(|node| format!("n{node}")).collect();
    let mut log: Vec<_> = nodes.iter().map(|node| batch(node, 0, vec![], &["10.0.0.1"])).collect();
    // Also the first ones, whose own announcement is forgotten by now.
    log.push(batch("n0", 10, at(10, "v", Reporter::Server), &[]));
    assert_eq!(decide(&log).len(), 1);
}
