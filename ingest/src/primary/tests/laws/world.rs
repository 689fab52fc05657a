//! Logs to judge: who sees what of some connections, and when that is told.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::*;

const AGENTS: [&str; 3] = ["a", "b", "c"];
/// Clients, and servers: each behind an interface of one agent, or of none.
const ENDS: usize = 3;
const INTERVALS: usize = 14;
pub(super) const LENGTH_S: u64 = 10;

/// What an agent does in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    OnTime,
    /// Its batch waits for the next interval in which it is on time.
    CutOff,
    /// It sees nothing.
    Away,
}

#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) from: usize,
    pub(super) intervals: usize,
    /// The server's side shows the client's half of the id first.
    partial: bool,
}

/// Who sees what, and when that is told.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) clients: [Option<usize>; ENDS],
    servers: [Option<usize>; ENDS],
    /// Agents that all packets pass through.
    routers: [bool; 3],
    pub(super) connections: Vec<Made>,
    pub(super) states: Vec<[State; 3]>,
    /// The agents' order in the log, in each interval.
    order: Vec<Index>,
    /// Until when what waits is folded, and into what.
    pub(super) fold: Option<(usize, u64)>,
}

impl World {
    pub(super) fn log(&self) -> Vec<FlowBatch> {
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

pub(super) fn interval(number: usize, length: u64) -> flowtrail_schema::interval::Interval {
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
pub(super) fn any_world() -> impl Strategy<Value = World> {
    worlds(vec(prop::array::uniform3(any_state()), INTERVALS))
}

/// All are there, always.
pub(super) fn calm() -> impl Strategy<Value = World> {
    worlds(Just(vec![[State::OnTime; 3]; INTERVALS]))
}

/// All are cut off at once, fold, and come back one after the other.
pub(super) fn outage() -> impl Strategy<Value = World> {
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
