//! The laws of the decision, over logs of three agents that see some clients, servers and what passes
//! through; that come late, are away for a while, or drain what they folded meanwhile.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::connections::Restored;
use crate::identity::IdentityIndex;
use crate::naming::{directed, named};

const AGENTS: [&str; 3] = ["a", "b", "c"];
/// Clients, and servers: each behind an interface of one agent, or of none.
const ENDS: usize = 3;
const INTERVALS: usize = 14;
const LENGTH_S: u64 = 10;

/// What an agent does in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    OnTime,
    /// Its batch waits for the next interval in which it is on time.
    CutOff,
    /// It sees nothing.
    Away,
}

#[derive(Clone, Debug)]
struct Made {
    client: usize,
    server: usize,
    from: usize,
    intervals: usize,
    /// The server's side shows the client's half of the id first.
    partial: bool,
}

/// Who sees what, and when that is told.
#[derive(Clone, Debug)]
struct World {
    clients: [Option<usize>; ENDS],
    servers: [Option<usize>; ENDS],
    /// Agents that all packets pass through.
    routers: [bool; 3],
    connections: Vec<Made>,
    states: Vec<[State; 3]>,
    /// The agents' order in the log, in each interval.
    order: Vec<Index>,
    /// Until when what waits is folded, and into what.
    fold: Option<(usize, u64)>,
}

impl World {
    fn log(&self) -> Vec<FlowBatch> {
        let (mut log, mut waiting) = (Vec::new(), [const { Vec::new() }; 3]);
        let mut announced = [const { Vec::new() }; 3];
        for (number, states) in self.states.iter().enumerate() {
            let mut agents = vec![0, 1, 2];
            for _ in 0..AGENTS.len() {
                let agent = agents.remove(self.order[number].index(agents.len()));
                if states[agent] == State::Away {
                    waiting[agent].clear();
                    continue;
                }
                let records = self.seen(agent, number);
                for record in &records {
                    if record.reporter == Reporter::Client
                        && !announced[agent].contains(&record.client.ip)
                    {
                        announced[agent].push(record.client.ip);
                    }
                }
                waiting[agent].push((number, records));
                if states[agent] == State::OnTime {
                    log.push(self.told(
                        agent,
                        std::mem::take(&mut waiting[agent]),
                        &announced[agent],
                    ));
                }
            }
        }
        log
    }

    /// The batch of what waited, the oldest first.
    fn told(
        &self,
        agent: usize,
        waited: Vec<(usize, Vec<FlowRecord>)>,
        announced: &[IpAddr],
    ) -> FlowBatch {
        let mut told = batch(AGENTS[agent], 0, vec![], &[]);
        let report = told.coverage.remove(0);
        told.announced_addresses = announced.to_vec();
        let newest = waited.last().map_or(0, |(number, _)| *number);
        for (number, records) in waited {
            let interval = interval(number, LENGTH_S);
            told.coverage.push(Coverage { interval, ..report });
            let folded = self.fold.filter(|(until, _)| number < *until && number < newest);
            told.records.extend(records.into_iter().map(|mut record| {
                if let Some((_, length)) = folded {
                    let summary = summary(0, length, record.reporter);
                    record.interval = IntervalLength::from_seconds(length)
                        .unwrap()
                        .interval_at(record.interval.start_us());
                    (record.detail, record.id_kind) = (summary.detail, summary.id_kind);
                }
                record
            }));
        }
        told
    }

    /// What an agent sees in an interval. `age_us` says of which connection a record is, `sent` of how many
    /// intervals.
    fn seen(&self, agent: usize, number: usize) -> Vec<FlowRecord> {
        let mut records = Vec::new();
        for (index, made) in self.connections.iter().enumerate() {
            let mut views = Vec::new();
            if self.clients[made.client] == Some(agent) {
                views.push((Reporter::Client, format!("client-{}", made.client)));
            }
            if self.servers[made.server] == Some(agent) {
                views.push((Reporter::Server, format!("server-{}", made.server)));
            }
            if self.routers[agent] {
                views.push((Reporter::Transit, "eth0".to_owned()));
            }
            if !(made.from..made.from + made.intervals).contains(&number) {
                continue;
            }
            for (rank, (reporter, interface)) in views.into_iter().enumerate() {
                let isn = index as u64 + 1;
                let partial = made.partial && reporter == Reporter::Server && number == made.from;
                let id = isn << 32 | if partial { 0 } else { 100 + isn };
                let mut record = record(number as u64 * LENGTH_S, id, &interface, reporter);
                record.interval = interval(number, LENGTH_S);
                record.local_primary = rank == 0;
                record.client = Endpoint {
                    ip: [10, 0, 0, made.client as u8].into(),
                    port: 40_000 + index as u16,
                };
                // The Service at the client, the pod at the server.
                let net = if reporter == Reporter::Client { 96 } else { 0 };
                record.server = Endpoint { ip: [10, net, 1, made.server as u8].into(), port: 80 };
                (record.age_us, record.sent.packets) = (index as u64, 1);
                records.push(record);
            }
        }
        records
    }
}

fn interval(number: usize, length: u64) -> flowtrail_schema::interval::Interval {
    let length = IntervalLength::from_seconds(length).unwrap();
    length.interval_at(START_US + number as u64 * LENGTH_S * 1_000_000)
}

fn worlds(states: impl Strategy<Value = Vec<[State; 3]>>) -> impl Strategy<Value = World> {
    let home = || prop::array::uniform3(prop::option::weighted(0.8, 0_usize..3));
    let made = (0..ENDS, 0..ENDS, 0..INTERVALS, 1..INTERVALS, any::<bool>());
    let made = made.prop_map(|(client, server, from, intervals, partial)| Made {
        client,
        server,
        from,
        intervals,
        partial,
    });
    let drawn = (
        home(),
        home(),
        prop::array::uniform3(any::<bool>()),
        vec(made, 1..6),
        states,
        vec(any::<Index>(), INTERVALS),
    );
    drawn.prop_map(|(clients, servers, routers, connections, states, order)| World {
        clients,
        servers,
        routers,
        connections,
        states,
        order,
        fold: None,
    })
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![6 => Just(State::OnTime), 2 => Just(State::CutOff), 1 => Just(State::Away)]
}

/// Agents that come and go.
fn any_world() -> impl Strategy<Value = World> {
    worlds(vec(prop::array::uniform3(any_state()), INTERVALS))
}

/// All are there, always.
fn calm() -> impl Strategy<Value = World> {
    worlds(Just(vec![[State::OnTime; 3]; INTERVALS]))
}

/// All are cut off at once, fold, and come back one after the other.
fn outage() -> impl Strategy<Value = World> {
    let drawn = (2_usize..4, 1_usize..6, prop::array::uniform3(0_usize..3), any::<bool>());
    drawn.prop_flat_map(|(from, intervals, back, minutes)| {
        let until = from + intervals;
        let state = move |number: usize| {
            back.map(|back| {
                if (from..until + back).contains(&number) { State::CutOff } else { State::OnTime }
            })
        };
        let fold = Some((until, if minutes { 60 } else { LENGTH_S }));
        worlds(Just((0..INTERVALS).map(state).collect()))
            .prop_map(move |world| World { fold, ..world })
    })
}

type Decision<'a> = (&'a FlowBatch, &'a FlowRecord, bool);

/// Of each connection: where it was primary, and in which intervals it was observed and counted.
#[derive(Debug, Default)]
struct Counted {
    points: Vec<(String, String)>,
    packets: BTreeMap<u64, u64>,
}

fn counted(decided: &[Decision<'_>]) -> BTreeMap<u64, Counted> {
    let mut connections: BTreeMap<u64, Counted> = BTreeMap::new();
    for (batch, record, primary) in decided {
        let counted = connections.entry(record.age_us).or_default();
        let packets = counted.packets.entry(record.interval.start_us()).or_default();
        if *primary {
            *packets += record.sent.packets;
            let point = (batch.agent.to_string(), record.interface.name.clone());
            if record.detail == Detail::Flow && !counted.points.contains(&point) {
                counted.points.push(point);
            }
        }
    }
    connections
}

/// What a record's row tells later.
fn row((batch, record, primary): &Decision<'_>) -> Restored {
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
        primary: *primary,
        names: None,
        inferred_server: None,
    }
}

/// The rows of each connection's observation as one.
fn together(rows: Vec<Restored>) -> Vec<Restored> {
    let mut together: BTreeMap<(u64, Arc<str>, String), Restored> = BTreeMap::new();
    for row in rows {
        let point = (row.connection_id, Arc::clone(&row.agent), row.interface.name.clone());
        let all = together.entry(point).or_insert_with(|| row.clone());
        all.first_seen_us = all.first_seen_us.min(row.first_seen_us);
        all.last_seen_us = all.last_seen_us.max(row.last_seen_us);
        all.primary |= row.primary;
    }
    let mut rows: Vec<_> = together.into_values().collect();
    rows.sort_by_key(|row| row.last_seen_us);
    rows
}

/// When the last lease of some batches runs out.
fn leased_until_us(log: &[FlowBatch]) -> u64 {
    let reports = log.iter().flat_map(|batch| &batch.coverage);
    reports.map(|report| report.interval.start_us() + 3 * LENGTH_S * 1_000_000).max().unwrap_or(0)
}

fn oldest_us(log: &[FlowBatch]) -> u64 {
    let records = log.iter().flat_map(|batch| &batch.records);
    records.map(|record| record.interval.start_us()).min().unwrap_or(u64::MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn at_most_one_observation_is_primary_and_stays_it(world in any_world()) {
        let log = world.log();
        let decided = Decider::new().decide(&log);
        for (connection, counted) in counted(&decided) {
            prop_assert!(counted.points.len() <= 1, "{connection}: {counted:?}");
            prop_assert!(counted.packets.values().all(|packets| *packets <= 1), "{connection}: {counted:?}");
            let Some((agent, interface)) = counted.points.first() else { continue };
            let here = decided.iter().filter(|(batch, record, _)| {
                record.age_us == connection && *batch.agent == **agent && record.interface.name == *interface
            });
            prop_assert!(here.skip_while(|(.., primary)| !primary).all(|(.., primary)| *primary));
        }
    }

    #[test]
    fn exactly_one_is_when_every_agent_is_on_time(world in calm()) {
        for (connection, counted) in counted(&Decider::new().decide(&world.log())) {
            prop_assert!(counted.packets.values().all(|packets| *packets == 1), "{connection}: {counted:?}");
        }
    }

    #[test]
    fn exactly_one_side_of_what_all_folded_counts_whoever_drains_first(world in outage()) {
        let (until, length) = world.fold.unwrap();
        let from = world.states.iter().position(|states| states[0] == State::CutOff).unwrap();
        let log = world.log();
        let decided = Decider::new().decide(&log);
        let mut packets: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (_, record, primary) in decided {
            if record.detail != Detail::Flow {
                let key = (record.age_us, record.interval.start_us());
                *packets.entry(key).or_default() += if primary { record.sent.packets } else { 0 };
            }
        }
        for ((connection, start_us), packets) in packets {
            // Some agent, if there is one, told before the outage that it sees the client.
            let made = &world.connections[connection as usize];
            let home = world.clients[made.client];
            let told = |other: &Made| other.client == made.client && other.from < from;
            prop_assume!(home.is_some() && world.connections.iter().any(told));
            let within = |number: &usize| {
                (made.from..made.from + made.intervals).contains(number)
                    && interval(*number, length).start_us() == start_us
            };
            let expected = (from..until).filter(within).count() as u64;
            prop_assert_eq!(packets, expected, "{} at {}", connection, start_us);
        }
    }

    #[test]
    fn chunks_and_their_names_decide_nothing(world in any_world(), cuts in vec(any::<Index>(), 0..5)) {
        let log = world.log();
        let whole = Decider::new().decide(&log);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(log.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(log.len());
        let (mut decider, mut decided, mut from) = (Decider::new(), Vec::new(), 0);
        for cut in cuts {
            let chunk = decider.decide(&log[from..cut]);
            for (batch, record, _) in &chunk {
                let mut connection = decider.connections.find(record, &batch.agent);
                let index = IdentityIndex::default();
                let record = directed(record, &batch.node, connection.as_deref_mut(), &index);
                named(&record, &batch.node, connection, &index);
            }
            decided.extend(chunk);
            from = cut;
        }
        prop_assert_eq!(decided, whole);
    }

    #[test]
    fn a_restored_table_decides_like_the_original(world in any_world(), position in any::<Index>(), one_each in any::<bool>()) {
        let log = world.log();
        let (past, future) = log.split_at(position.index(log.len() + 1));
        let (mut original, mut restored) = (Decider::new(), Decider::new());
        let rows: Vec<_> = original.decide(past).iter().map(row).collect();
        let rows = if one_each { rows } else { together(rows) };
        rows.into_iter().for_each(|row| restored.connections.restore(row));
        past.iter().for_each(|batch| restored.announced.renew(batch));
        prop_assert_eq!(restored.decide(future), original.decide(future));
    }

    #[test]
    fn announcements_need_only_what_reaches_into_the_records_to_come(world in any_world(), position in any::<Index>()) {
        let log = world.log();
        let position = position.index(log.len() + 1);
        let (past, future) = log.split_at(position);
        let mut original = Decider::new();
        let rows: Vec<_> = original.decide(past).iter().map(row).collect();
        let wanted_us = oldest_us(future);
        let enough = |start: &usize| leased_until_us(&log[..*start]) <= wanted_us;
        let start = (0..=position).rev().find(enough).unwrap();
        let mut restored = Decider::new();
        rows.into_iter().for_each(|row| restored.connections.restore(row));
        log[start..position].iter().for_each(|batch| restored.announced.renew(batch));
        prop_assert_eq!(restored.decide(future), original.decide(future));
    }

    #[test]
    fn a_connection_that_began_since_is_decided_alike_without_its_rows(world in any_world(), start in any::<Index>()) {
        let log = world.log();
        let start = start.index(log.len() + 1);
        let leased_us = leased_until_us(&log[..start]);
        let whole = Decider::new().decide(&log);
        let reread = Decider::new().decide(&log[start..]);
        let skipped = whole.len() - reread.len();
        let before = |connection| whole[..skipped].iter().any(|(_, record, _)| record.age_us == connection);
        let oldest_us = |connection| {
            let records = reread.iter().filter(|(_, record, _)| record.age_us == connection);
            records.map(|(_, record, _)| record.interval.start_us()).min()
        };
        for (is, should) in reread.iter().zip(&whole[skipped..]) {
            let connection = is.1.age_us;
            if !before(connection) && oldest_us(connection) >= Some(leased_us) {
                prop_assert_eq!(is, should);
            }
        }
    }
}
