//! Agents that are known to the record: they observe connections between the pods of their nodes, from both
//! sides, and publish what they must, at any speed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::topic::partition_of;
use flowtrail_schema::{
    Closed, Counters, Coverage, Detail, Endpoint, FlowBatch, FlowRecord, IdKind, Interface,
    InterfaceKind, Measure, Reporter, wire,
};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::{Value, json};

/// Agents, one a node.
pub const AGENTS: u32 = 5;
/// Connections that begin at each agent in each interval.
const CONNECTIONS: u32 = 8;
/// Intervals that a connection lasts, at most.
const LONGEST: u64 = 6;
const SECOND_US: u64 = 1_000_000;

/// What was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Messages.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Connections that the records are of, each observed from both sides.
    pub connections: u64,
    /// Bytes that clients sent, each connection's once.
    pub sent_bytes: u64,
    /// Agents' reports.
    pub reports: u64,
}

/// The agents, and where they publish.
pub struct Agents {
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    topic: String,
    partitions: u32,
    start_us: u64,
    interval: u64,
    sequences: HashMap<(u32, u32), u64>,
    open: Vec<Open>,
    random: fastrand::Rng,
    published: Published,
}

/// A connection under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u64,
    client: u32,
    server: u32,
    port: u16,
    first: u64,
    last: u64,
}

impl Agents {
    /// Agents that begin to observe at an instant, microseconds since the epoch, on an interval's boundary.
    ///
    /// # Errors
    /// If no producer can be made.
    pub fn new(
        brokers: &str,
        topic: &str,
        partitions: u32,
        start_us: u64,
        seed: u64,
    ) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "5")
            .create()?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
            partitions,
            start_us,
            interval: 0,
            sequences: HashMap::new(),
            open: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            published: Published::default(),
        })
    }

    /// Publishes what all agents saw in the next interval. Returns its start, microseconds since the epoch.
    ///
    /// # Errors
    /// If a message cannot be queued.
    pub fn publish_interval(&mut self) -> Result<u64> {
        let length = IntervalLength::default();
        let interval = length.interval_at(self.start_us + self.interval * 10 * SECOND_US);
        self.open_connections();
        let mut records: HashMap<(u32, u32), Vec<FlowRecord>> = HashMap::new();
        for open in &self.open {
            let partition = partition_of(open.id, IdKind::Complete, self.partitions);
            let (opens, closes) = (open.first == self.interval, open.last == self.interval);
            let sent = u64::from(self.random.u16(1..));
            self.published.sent_bytes += sent;
            for reporter in [Reporter::Client, Reporter::Server] {
                let agent = if reporter == Reporter::Client { open.client } else { open.server };
                let record = record(open, reporter, interval, sent, opens, closes);
                records.entry((agent % AGENTS, partition)).or_default().push(record);
                self.published.records += 1;
            }
        }
        let mut order: Vec<(u32, u32)> = (0..AGENTS)
            .flat_map(|agent| (0..self.partitions).map(move |partition| (agent, partition)))
            .collect();
        self.random.shuffle(&mut order);
        for (agent, partition) in order {
            let records = records.remove(&(agent, partition)).unwrap_or_default();
            let sequence = self.sequences.entry((agent, partition)).or_default();
            let batch = FlowBatch {
                agent: format!("node-{agent}").into(),
                node: format!("node-{agent}").into(),
                agent_start_us: self.start_us - 1,
                partition,
                sequence: *sequence,
                coverage: vec![Coverage {
                    interval,
                    interfaces: 1,
                    packets_seen: records.len() as u64,
                    packets_dropped: 0,
                    flows_evicted: 0,
                    records_emitted: records.len() as u64,
                    records_dropped: 0,
                }],
                records,
                announced_addresses: pods(agent).map(pod_address).collect(),
            };
            *sequence += 1;
            let payload = wire::encode(&batch);
            let message = BaseRecord::<(), [u8]>::to(&self.topic)
                .partition(partition.cast_signed())
                .payload(&payload);
            self.producer.send(message).map_err(|(error, _)| error)?;
            self.published.batches += 1;
        }
        self.published.reports += u64::from(AGENTS);
        let now = self.interval;
        self.open.retain(|open| open.last > now);
        self.interval += 1;
        Ok(interval.start_us())
    }

    /// Waits until Kafka has everything. Returns what that is.
    ///
    /// # Errors
    /// If it does not within a minute.
    pub fn finish(&self) -> Result<Published> {
        self.producer
            .flush(std::time::Duration::from_secs(60))
            .context("kafka does not take the last messages")?;
        Ok(self.published)
    }

    fn open_connections(&mut self) {
        for agent in 0..AGENTS {
            for _ in 0..CONNECTIONS {
                let client = agent + AGENTS * self.random.u32(0..PODS);
                let server = self.random.u32(0..AGENTS * PODS);
                self.published.connections += 1;
                self.open.push(Open {
                    id: self.random.u64(..) | 1 << 32 | 1,
                    client,
                    server,
                    port: self.random.u16(30_000..),
                    first: self.interval,
                    last: self.interval + self.random.u64(0..LONGEST),
                });
            }
        }
    }
}

/// Pods on each node.
const PODS: u32 = 4;

fn pods(agent: u32) -> impl Iterator<Item = u32> {
    (0..PODS).map(move |pod| agent + AGENTS * pod)
}

fn pod_address(pod: u32) -> IpAddr {
    Ipv4Addr::from(0x0a01_0000 + pod + 1).into()
}

fn record(
    open: &Open,
    reporter: Reporter,
    interval: flowtrail_schema::interval::Interval,
    sent: u64,
    opens: bool,
    closes: bool,
) -> FlowRecord {
    let start_us = interval.start_us();
    let counters = |bytes| Counters { bytes, packets: 1, ..Counters::default() };
    FlowRecord {
        interval,
        interface: Arc::new(Interface {
            name: format!(
                "veth{}",
                if reporter == Reporter::Client { open.client } else { open.server }
            ),
            kind: InterfaceKind::Pod,
        }),
        reporter,
        // An agent that sees both sides counts one.
        local_primary: reporter == Reporter::Client || open.client % AGENTS != open.server % AGENTS,
        connection_id: open.id,
        id_kind: IdKind::Complete,
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        detail: Detail::Flow,
        client: Endpoint { ip: pod_address(open.client), port: open.port },
        server: Endpoint { ip: pod_address(open.server), port: 80 },
        first_seen_us: start_us + 1,
        last_seen_us: start_us + 2,
        age_us: 1,
        sent: counters(sent),
        received: counters(2 * sent),
        opened: u32::from(opens),
        joined: 0,
        open_at_start: u32::from(!opens),
        closed: Closed { fin: u32::from(closes), ..Closed::default() },
        syn_to_synack: if opens { Measure::sample(sent) } else { Measure::default() },
        synack_to_ack: Measure::default(),
        first_response: Measure::default(),
        duration: if closes { Measure::sample(sent) } else { Measure::default() },
    }
}

/// The pods of all nodes, as `kubectl get -o json` lists them; their workloads are of a generation.
pub fn names(generation: u32) -> Value {
    let items: Vec<Value> = (0..AGENTS * PODS)
        .map(|pod| {
            json!({
                "kind": "Pod",
                "metadata": {
                    "name": format!("pod-{pod}"), "namespace": "shop", "uid": format!("pod-{pod}"),
                    "creationTimestamp": "2020-01-01T00:00:00Z",
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "StatefulSet", "controller": true,
                        "name": format!("app-{}-{generation}", pod % 7), "uid": format!("app-{}", pod % 7),
                    }],
                },
                "spec": { "nodeName": format!("node-{}", pod % AGENTS) },
                "status": { "phase": "Running", "podIP": pod_address(pod), "startTime": "2020-01-01T00:00:00Z" },
            })
        })
        .collect();
    json!({ "kind": "List", "items": items })
}
