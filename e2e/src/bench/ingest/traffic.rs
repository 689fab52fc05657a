//! What the agents of the cluster say: connections between its pods and to the outside, each seen on
//! both sides, as batches in the order of a topic.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fastrand::Rng;
use flowtrail_schema::batch::MAX_RECORDS;
use flowtrail_schema::interval::{Interval, IntervalLength};
use flowtrail_schema::topic::{Message, partition_of};
use flowtrail_schema::{
    Closed, Counters, Coverage, Detail, Endpoint, FlowBatch, FlowRecord, IdKind, Interface,
    Measure, Reporter, wire,
};

use super::world::{NODES, POD_PORT, SERVICE_PORT, World, node_name, service_ip};

/// Partitions of the topic.
pub const PARTITIONS: u32 = 4;
/// Connections that are open for long. In a minute's first interval each says so.
const LONG_LIVED: usize = 60_000;
/// Connections that open and close within one interval.
const SHORT_LIVED: usize = 50_000;
/// Of a hundred connections, how many go outside, and how many of the others through a Service.
const OUTSIDE: u8 = 10;
const THROUGH_SERVICE: u8 = 60;
/// Of a hundred long-lived connections, how many have packets in an interval, and how many close.
const ACTIVE: u8 = 60;
const CLOSING: u8 = 5;

/// The agents' messages, interval after interval; the same every time.
#[derive(Debug)]
pub struct Traffic {
    world: World,
    rng: Rng,
    interval: Interval,
    long_lived: Vec<Connection>,
    agents: Vec<Agent>,
    start_us: u64,
}

#[derive(Debug)]
struct Agent {
    name: Arc<str>,
    announced: Vec<IpAddr>,
    sequences: [u64; PARTITIONS as usize],
}

/// One connection, from a pod.
#[derive(Clone, Copy, Debug)]
struct Connection {
    id: u64,
    client: usize,
    client_port: u16,
    server: Server,
    opened_us: u64,
}

#[derive(Clone, Copy, Debug)]
enum Server {
    Pod { at: usize, through_service: bool },
    Outside(Ipv4Addr),
}

/// What a connection does in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Opens,
    OpensAndCloses,
    Goes,
    Closes,
    Nothing,
}

impl Traffic {
    /// Traffic from a time on, microseconds since the epoch.
    pub fn from(start_us: u64) -> Self {
        let world = World::new();
        let agents = (0..NODES)
            .map(|node| Agent {
                name: node_name(node).into(),
                announced: world.on(node).map(|pod| pod.ip.into()).collect(),
                sequences: [0; PARTITIONS as usize],
            })
            .collect();
        let interval = IntervalLength::default().interval_at(start_us);
        let rng = Rng::with_seed(1);
        Self { world, rng, interval, long_lived: Vec::new(), agents, start_us }
    }

    /// The next interval's messages: every agent's to every partition, spread as agents do.
    pub fn next_interval(&mut self) -> Vec<Message> {
        let mut records: Vec<[Vec<FlowRecord>; PARTITIONS as usize]> =
            (0..NODES).map(|_| Default::default()).collect();
        let mut long_lived = std::mem::take(&mut self.long_lived);
        for connection in &mut long_lived {
            let does = if self.rng.u8(..100) < CLOSING {
                Does::Closes
            } else if self.rng.u8(..100) < ACTIVE {
                Does::Goes
            } else {
                Does::Nothing
            };
            self.observe(connection, does, &mut records);
            if does == Does::Closes {
                *connection = self.connection();
                self.observe(connection, Does::Opens, &mut records);
            }
        }
        while long_lived.len() < LONG_LIVED {
            let connection = self.connection();
            self.observe(&connection, Does::Opens, &mut records);
            long_lived.push(connection);
        }
        self.long_lived = long_lived;
        for _ in 0..SHORT_LIVED {
            let connection = self.connection();
            self.observe(&connection, Does::OpensAndCloses, &mut records);
        }
        let messages = self.messages(records);
        self.interval = self.interval.next();
        messages
    }

    fn connection(&mut self) -> Connection {
        let rng = &mut self.rng;
        let client = rng.usize(..self.world.pods.len());
        let server = if rng.u8(..100) < OUTSIDE {
            Server::Outside(Ipv4Addr::new(34, 0, rng.u8(..20), rng.u8(1..)))
        } else {
            let through_service = rng.u8(..100) < THROUGH_SERVICE;
            Server::Pod { at: self.world.called(rng), through_service }
        };
        // Neither half is 0.
        let id = u64::from(rng.u32(1..)) << 32 | u64::from(rng.u32(1..));
        let opened_us = self.interval.start_us() + rng.u64(..self.interval.length().us());
        Connection { id, client, client_port: rng.u16(32_768..60_999), server, opened_us }
    }

    fn observe(
        &mut self,
        connection: &Connection,
        does: Does,
        records: &mut [[Vec<FlowRecord>; PARTITIONS as usize]],
    ) {
        if does == Does::Nothing && !self.interval.starts_minute() {
            return;
        }
        let client = &self.world.pods[connection.client];
        let partition = partition_of(connection.id, IdKind::Complete, PARTITIONS) as usize;
        let as_called = match connection.server {
            Server::Outside(ip) => Endpoint { ip: ip.into(), port: 443 },
            Server::Pod { at, through_service: false } => {
                Endpoint { ip: self.world.pods[at].ip.into(), port: POD_PORT }
            }
            Server::Pod { at, .. } => {
                Endpoint { ip: service_ip(self.world.pods[at].workload).into(), port: SERVICE_PORT }
            }
        };
        let ends = [Endpoint { ip: client.ip.into(), port: connection.client_port }, as_called];
        let interface = Arc::clone(&client.interface);
        let record = record(connection, does, self.interval, &mut self.rng, interface, ends);
        if let Server::Pod { at, .. } = connection.server {
            let server = &self.world.pods[at];
            let seen_there = FlowRecord {
                interface: Arc::clone(&server.interface),
                reporter: Reporter::Server,
                local_primary: server.node != client.node,
                server: Endpoint { ip: server.ip.into(), port: POD_PORT },
                ..record.clone()
            };
            records[server.node][partition].push(seen_there);
        }
        records[client.node][partition].push(record);
    }

    fn messages(&mut self, records: Vec<[Vec<FlowRecord>; PARTITIONS as usize]>) -> Vec<Message> {
        let mut messages = Vec::new();
        for (agent, partitions) in self.agents.iter_mut().zip(records) {
            let coverage = Coverage {
                interval: self.interval,
                interfaces: agent.announced.len() as u32,
                packets_seen: 100_000,
                packets_dropped: 0,
                flows_evicted: 0,
                records_emitted: partitions.iter().map(|records| records.len() as u64).sum(),
                records_dropped: 0,
            };
            for (partition, records) in partitions.into_iter().enumerate() {
                let mut coverage = vec![coverage];
                for records in records.chunks(MAX_RECORDS) {
                    let sequence = agent.sequences[partition];
                    agent.sequences[partition] += 1;
                    let batch = FlowBatch {
                        agent: Arc::clone(&agent.name),
                        node: Arc::clone(&agent.name),
                        agent_start_us: self.start_us,
                        partition: partition as u32,
                        sequence,
                        records: records.to_vec(),
                        coverage: std::mem::take(&mut coverage),
                        announced_addresses: agent.announced.clone(),
                    };
                    messages.push(Message {
                        partition: batch.partition,
                        payload: wire::encode(&batch),
                        records: batch.records.len() as u32,
                    });
                }
            }
        }
        messages
    }
}

/// The record on the client's side.
fn record(
    connection: &Connection,
    does: Does,
    interval: Interval,
    rng: &mut Rng,
    interface: Arc<Interface>,
    [client, server]: [Endpoint; 2],
) -> FlowRecord {
    let quiet = does == Does::Nothing;
    let opens = matches!(does, Does::Opens | Does::OpensAndCloses);
    let closes = matches!(does, Does::Closes | Does::OpensAndCloses);
    let first_seen_us = match does {
        Does::Nothing => interval.start_us(),
        _ if opens => connection.opened_us,
        _ => interval.start_us() + rng.u64(..interval.length().us() / 2),
    };
    let last_seen_us =
        if quiet { first_seen_us } else { rng.u64(first_seen_us..interval.end_us()) };
    let mut counters = || {
        let packets = rng.u64(3..200);
        let payload_bytes = packets * rng.u64(20..1_400);
        Counters {
            bytes: payload_bytes + packets * 52,
            payload_bytes,
            packets,
            retransmitted_packets: u64::from(rng.u8(..50) == 0),
            zero_window_packets: 0,
        }
    };
    let (sent, received) = if quiet { Default::default() } else { (counters(), counters()) };
    let measure = |is: bool, us: u64| if is { Measure::sample(us) } else { Measure::default() };
    let age_us = last_seen_us.saturating_sub(connection.opened_us);
    FlowRecord {
        interval,
        interface,
        reporter: Reporter::Client,
        local_primary: true,
        connection_id: connection.id,
        id_kind: IdKind::Complete,
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        detail: Detail::Flow,
        client,
        server,
        first_seen_us,
        last_seen_us,
        age_us,
        sent,
        received,
        opened: opens.into(),
        joined: 0,
        open_at_start: (!opens).into(),
        closed: Closed { fin: closes.into(), ..Closed::default() },
        syn_to_synack: measure(opens, rng.u64(50..2_000)),
        synack_to_ack: measure(opens, rng.u64(10..200)),
        first_response: measure(opens, rng.u64(200..50_000)),
        duration: measure(closes, age_us),
    }
}
