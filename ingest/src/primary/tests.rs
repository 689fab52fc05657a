//! The laws of the decision: at most one observation of a connection is primary, whatever the log;
//! and the same log decides the same.

use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::{
    Closed, Counters, Coverage, Endpoint, IdKind, Interface, InterfaceKind, Measure,
};
use proptest::prelude::*;

use super::*;
use crate::connections::{Connections, Restored};

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
}

impl Decider {
    fn new() -> Self {
        let connections = Connections::new(1_000, Counter::default());
        Self { announced: Announcements::default(), connections }
    }

    /// The decision about each record of a log, in its order.
    fn decide<'a>(&mut self, log: &'a [FlowBatch]) -> Vec<(&'a FlowBatch, &'a FlowRecord, bool)> {
        let mut decided = Vec::new();
        for batch in log {
            self.announced.renew(batch);
            for record in &batch.records {
                let connection = self.connections.observe(record, &batch.agent, &batch.node);
                let primary = is_primary(record, &batch.agent, connection, &self.announced);
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

fn reporters() -> impl Strategy<Value = Reporter> {
    proptest::sample::select(Reporter::ALL)
}

fn logs() -> impl Strategy<Value = Vec<FlowBatch>> {
    let drawn = (0_u64..3, 0_usize..2, reporters(), any::<bool>(), any::<bool>());
    let records = proptest::collection::vec(drawn, 0..4);
    let drawn = (
        0_usize..3,
        0_u64..60,
        records,
        proptest::sample::subsequence(vec!["10.0.0.1", "10.0.0.2"], 0..=2),
    );
    proptest::collection::vec(drawn, 0..25).prop_map(|batches| {
        let batches = batches.into_iter().map(|(agent, seconds, records, announced)| {
            let records = records.into_iter().map(|(id, interface, reporter, local, partial)| {
                let id = (id + 1) << 32 | if partial { 0 } else { id + 1 };
                let mut record = record(seconds, id, ["v0", "v1"][interface], reporter);
                record.local_primary = local;
                record
            });
            batch(["a", "b", "c"][agent], seconds, records.collect(), &announced)
        });
        batches.collect()
    })
}

/// What a record's row tells later.
fn row(batch: &FlowBatch, record: &FlowRecord, primary: bool) -> Restored {
    Restored {
        connection_id: record.connection_id,
        id_kind: record.id_kind,
        agent: Arc::clone(&batch.agent),
        node: Arc::clone(&batch.node),
        interface: Arc::clone(&record.interface),
        reporter: record.reporter,
        client: record.client,
        server: record.server,
        first_seen_us: record.first_seen_us,
        last_seen_us: record.last_seen_us,
        primary,
        names: None,
        inferred_server: None,
    }
}

proptest! {
    #[test]
    fn at_most_one_observation_is_primary(log in logs()) {
        let mut seen = std::collections::HashMap::new();
        for (agent, interface, id) in decide(&log) {
            let point = (agent, interface);
            // All times are within a minute, so a client's number stands for one connection.
            let first = seen.entry(id >> 32).or_insert_with(|| point.clone());
            prop_assert_eq!(&*first, &point, "of connection {:x}", id);
        }
    }

    #[test]
    fn a_restored_table_decides_like_the_original(log in logs(), position in any::<prop::sample::Index>()) {
        let (past, future) = log.split_at(position.index(log.len() + 1));
        let (mut original, mut restored) = (Decider::new(), Decider::new());
        for (batch, record, primary) in original.decide(past) {
            restored.connections.restore(row(batch, record, primary));
        }
        past.iter().for_each(|batch| restored.announced.renew(batch));
        prop_assert_eq!(restored.decide(future), original.decide(future));
    }

    #[test]
    fn the_same_log_decides_the_same(log in logs()) {
        prop_assert_eq!(decide(&log), decide(&log));
    }
}

#[test]
fn a_flood_of_announcements_is_refused_in_no_time_and_makes_room_when_leases_run_out() {
    let refused = Counter::default();
    let mut announced = Announcements::new(refused.clone());
    let flood = |agent, seconds, first: u32, count: u32| {
        let addresses = (first..first + count).map(|bits| std::net::Ipv4Addr::from(bits).into());
        FlowBatch { announced_addresses: addresses.collect(), ..batch(agent, seconds, vec![], &[]) }
    };
    let cap = MAX_ANNOUNCED as u32;
    announced.renew(&flood("a", 0, 0, cap));
    let begun = std::time::Instant::now();
    announced.renew(&flood("b", 0, cap, 10_000));
    // Looking through all leases for each address took half a minute.
    assert!(begun.elapsed().as_secs() < 5);
    assert_eq!((announced.leases.len(), refused.get()), (MAX_ANNOUNCED, 10_000));
    announced.renew(&flood("b", 60, cap, 10_000));
    assert_eq!((announced.leases.len(), refused.get()), (10_000, 10_000));
}
