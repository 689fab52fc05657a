//! What the tables tell of a partition's past: how far it was delivered, what was decided and named in the
//! minutes before, and the rows of a chunk that another process may have left half done.

use std::net::Ipv6Addr;
use std::sync::Arc;

use clickhouse::error::Error;
use clickhouse::{Client, Row};
use flowtrail_schema::row::EntityKind;
use flowtrail_schema::{Endpoint, IdKind, Interface, InterfaceKind, Reporter};
use serde::Deserialize;

use crate::chunk::ChunkId;
use crate::connections::{MAX_CONNECTIONS, Restored};
use crate::identity::Identity;
use crate::naming::{ConnectionNames, End};
use crate::native::{self, read_native};
use crate::partition::DAY_S;
use crate::points::Point;
use crate::writer::{MAX_BLOCK_ROWS, Written};

/// How far back announcements are read again, seconds of record time: far beyond their lease of three
/// intervals.
const RECALL_S: u32 = 600;

/// How far back connections are taken from the table, seconds of record time: an open one has a row every
/// minute, and one that was silent for three is another.
const CONNECTIONS_S: u32 = 240;

/// How far back batches are told from new ones, seconds of record time: a producer repeats what it has not
/// seen acknowledged, within minutes.
const NUMBERS_S: u32 = 3_600;

/// Reads `flows` and `deliveries`.
pub(crate) struct Journal {
    client: Client,
    /// The cluster that the tables are of.
    cluster: Option<String>,
}

/// What a partition's decisions rest on, as of an offset.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// From where announcements are to be read again; `None` if nothing came before.
    pub(crate) recall_from: Option<u64>,
    /// Connections in the order they were last seen, one item an observation.
    pub(crate) connections: Vec<Restored>,
    /// Numbers of batches that were seen.
    pub(crate) numbers: Vec<Numbers>,
}

/// Batches `first` to `last` of an agent's process.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) agent: String,
    /// Microseconds since the epoch.
    pub(crate) agent_start_us: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// A delivered chunk, as far as the past is concerned.
#[derive(Row, Deserialize)]
struct Delivered {
    chunk_start: u64,
    min_interval_start: u32,
    max_interval_start: u32,
}

impl Journal {
    /// Reads from a store whose schema was checked.
    pub(crate) fn new(client: Client, cluster: Option<&str>) -> Self {
        Self { client, cluster: cluster.map(str::to_owned) }
    }

    /// First offset after all that was delivered of a partition; `None` if nothing was.
    pub(crate) async fn delivered(
        &self,
        topic_id: &str,
        partition: u32,
    ) -> Result<Option<u64>, Error> {
        #[derive(Row, Deserialize)]
        struct Last {
            chunks: u64,
            end: u64,
        }
        let sql = "SELECT count() AS chunks, max(chunk_end) AS end FROM deliveries \
                   WHERE topic_id = ? AND partition = ?";
        let last: Last = self.client.query(sql).bind(topic_id).bind(partition).fetch_one().await?;
        Ok((last.chunks > 0).then_some(last.end))
    }

    /// Whether a chunk is in all tables.
    pub(crate) async fn has(&self, topic_id: &str, chunk: ChunkId) -> Result<bool, Error> {
        let sql = "SELECT count() FROM deliveries \
                   WHERE topic_id = ? AND partition = ? AND chunk_start = ?";
        let query = self.client.query(sql).bind(topic_id).bind(chunk.partition).bind(chunk.start);
        Ok(query.fetch_one::<u64>().await? > 0)
    }

    /// What was known of a partition when everything before an offset was read.
    pub(crate) async fn past(
        &self,
        topic_id: &str,
        partition: u32,
        before: u64,
    ) -> Result<Past, Error> {
        let sql = "WITH (SELECT max(max_interval_start) FROM deliveries \
                   WHERE topic_id = {topic:String} AND partition = {partition:UInt32} \
                   AND chunk_end <= {before:UInt64}) AS newest \
                   SELECT chunk_start, toUInt32(min_interval_start) AS min_interval_start, \
                   toUInt32(max_interval_start) AS max_interval_start FROM deliveries \
                   WHERE topic_id = {topic:String} AND partition = {partition:UInt32} \
                   AND chunk_end <= {before:UInt64} AND records > 0 \
                   AND max_interval_start >= newest - toUInt32({seconds:UInt32}) \
                   ORDER BY chunk_start";
        let chunks: Vec<Delivered> = self
            .client
            .query(sql)
            .param("topic", topic_id)
            .param("partition", partition)
            .param("before", before)
            .param("seconds", NUMBERS_S)
            .fetch_all()
            .await?;
        let newest = chunks.iter().map(|chunk| chunk.max_interval_start).max().unwrap_or(0);
        let since = |seconds: u32| {
            let recent =
                |chunk: &&Delivered| chunk.max_interval_start.saturating_add(seconds) >= newest;
            chunks.iter().filter(recent).map(|chunk| chunk.chunk_start).min()
        };
        let Some(recall_from) = since(RECALL_S) else { return Ok(Past::default()) };
        let range = |seconds| since(seconds).unwrap_or(before)..before;
        Ok(Past {
            recall_from: Some(recall_from),
            connections: self
                .connections(topic_id, partition, range(CONNECTIONS_S), &chunks)
                .await?,
            numbers: self.numbers(topic_id, partition, range(NUMBERS_S)).await?,
        })
    }

    async fn connections(
        &self,
        topic_id: &str,
        partition: u32,
        offsets: std::ops::Range<u64>,
        chunks: &[Delivered],
    ) -> Result<Vec<Restored>, Error> {
        let within = chunks.iter().filter(|chunk| offsets.contains(&chunk.chunk_start));
        // Names the days to look at.
        let from = within.clone().map(|chunk| chunk.min_interval_start).min().unwrap_or(0);
        let to = within.map(|chunk| chunk.max_interval_start).max().unwrap_or(0);
        let rows: Vec<RestoredRow> = self
            .client
            .query(CONNECTIONS)
            .param("topic", topic_id)
            .param("partition", partition)
            .param("start", offsets.start)
            .param("end", offsets.end)
            .param("from", from)
            .param("to", to)
            .param("limit", 2 * MAX_CONNECTIONS as u64)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().rev().filter_map(RestoredRow::into_restored).collect())
    }

    async fn numbers(
        &self,
        topic_id: &str,
        partition: u32,
        offsets: std::ops::Range<u64>,
    ) -> Result<Vec<Numbers>, Error> {
        let sql = "SELECT agent, agent_start_us, min(sequence) AS first, max(sequence) AS last FROM ( \
                   SELECT agent, agent_start_us, sequence, sequence - row_number() OVER \
                   (PARTITION BY agent, agent_start_us ORDER BY sequence) AS range FROM ( \
                   SELECT DISTINCT toString(batches.agent) AS agent, \
                   toUInt64(toUnixTimestamp64Micro(batches.agent_start)) AS agent_start_us, \
                   batches.sequence AS sequence FROM deliveries ARRAY JOIN batches \
                   WHERE topic_id = ? AND partition = ? AND chunk_start >= ? AND chunk_start < ?)) \
                   GROUP BY agent, agent_start_us, range ORDER BY agent_start_us, agent, first";
        self.client
            .query(sql)
            .bind(topic_id)
            .bind(partition)
            .bind(offsets.start)
            .bind(offsets.end)
            .fetch_all()
            .await
    }

    /// What is in `flows` of a chunk, by days since the epoch, within a span of interval starts (seconds since the epoch).
    pub(crate) async fn written(
        &self,
        topic_id: &str,
        chunk: ChunkId,
        span_s: (u32, u32),
    ) -> Result<Written, Error> {
        #[derive(Row, Deserialize)]
        struct Day {
            day: u64,
            rows: u64,
        }
        let filter = "topic_id = ? AND partition = ? AND chunk_start = ? \
                      AND interval_start BETWEEN toDateTime(?) AND toDateTime(?)";
        let query = |sql: &str| {
            let query =
                self.client.query(sql).bind(topic_id).bind(chunk.partition).bind(chunk.start);
            query.bind(span_s.0).bind(span_s.1)
        };
        let days = format!(
            "SELECT toUInt64(intDiv(toUnixTimestamp(interval_start), {DAY_S})) AS day, \
             count() AS rows FROM flows WHERE {filter} GROUP BY day"
        );
        // Sorted rows come as one block, as they were inserted: only so does the token tell them.
        let rows = format!(
            "SELECT * FROM flows WHERE {filter} AND intDiv(toUnixTimestamp(interval_start), {DAY_S}) = ? \
             ORDER BY connection_id SETTINGS max_block_size = {MAX_BLOCK_ROWS}, max_threads = 1, \
             asterisk_include_alias_columns = 0"
        );
        let mut written = Written::new();
        for Day { day, rows: count } in query(&days).fetch_all::<Day>().await? {
            let bytes = read_native(query(&rows).bind(day)).await?;
            let rows = native::Rows { count: count as usize, pieces: vec![bytes] };
            if !rows.is_one_block() {
                return Err(Error::Custom("the rows of a chunk came in pieces".to_owned()));
            }
            written.insert(day, rows);
        }
        Ok(written)
    }

    /// Whether a query of this id runs. ClickHouse takes an id once at a time (its code 216), so asking
    /// anything under it tells, on a server as on the embedded engine. On a cluster each node does, so all that
    /// answer are asked; of what runs on another, having the same token, a shard takes nothing twice.
    pub(crate) async fn is_running(&self, query_id: &str) -> Result<bool, Error> {
        if let Some(cluster) = &self.cluster {
            let running = "SELECT count() FROM clusterAllReplicas(?, system.processes) \
                           WHERE initial_query_id = ? SETTINGS skip_unavailable_shards = 1";
            let asked = self.client.query(running).bind(cluster).bind(query_id);
            return Ok(asked.fetch_one::<u64>().await? > 0);
        }
        let asked = self.client.query("SELECT 1").with_setting("query_id", query_id);
        match asked.fetch_one::<u8>().await {
            Ok(_) => Ok(false),
            Err(error) if is_running_already(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Whether ClickHouse refused a query because one of its id runs.
fn is_running_already(error: &Error) -> bool {
    matches!(error, Error::BadResponse(text) if text.contains("QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING"))
}

/// One observation of a connection: its latest names, whether it is the primary one.
const CONNECTIONS: &str = "SELECT connection_id, id_kind, toString(agent) AS agent, toString(node) AS node, \
    toString(interface) AS interface, interface_kind, reporter, \
    client_ip, client_port, server_ip, server_port, \
    toUInt64(ifNull(minOrNullIf(toUnixTimestamp64Micro(last_seen) - toInt64(age_us), \
        sent_packets + received_packets > 0), min(toUnixTimestamp64Micro(first_seen)))) AS first_seen_us, \
    toUInt64(max(toUnixTimestamp64Micro(last_seen))) AS last_seen_us, \
    max(primary) AS primary, max(direction_inferred) AS direction_inferred, \
    argMax((client_real_ip, client_real_port, client_kind, toString(client_namespace), \
        toString(client_name), toString(client_workload), toString(client_workload_kind), \
        toString(client_node), client_uncertain), chunk_start) AS client, \
    argMax((server_real_ip, server_real_port, server_kind, toString(server_namespace), \
        toString(server_name), toString(server_workload), toString(server_workload_kind), \
        toString(server_node), server_uncertain), chunk_start) AS server, \
    argMax((toString(service_namespace), toString(service_name)), chunk_start) AS service \
    FROM flows \
    WHERE topic_id = {topic:String} AND partition = {partition:UInt32} \
    AND chunk_start >= {start:UInt64} AND chunk_start < {end:UInt64} \
    AND interval_start BETWEEN toDateTime({from:UInt32}) AND toDateTime({to:UInt32}) AND detail = 'flow' \
    GROUP BY connection_id, id_kind, agent, node, interface, interface_kind, reporter, \
        client_ip, client_port, server_ip, server_port \
    ORDER BY last_seen_us DESC, agent, interface LIMIT {limit:UInt64}";

#[derive(Row, Deserialize)]
struct RestoredRow {
    connection_id: u64,
    id_kind: i8,
    agent: String,
    node: String,
    interface: String,
    interface_kind: i8,
    reporter: i8,
    client_ip: Ipv6Addr,
    client_port: u16,
    server_ip: Ipv6Addr,
    server_port: u16,
    first_seen_us: u64,
    last_seen_us: u64,
    primary: bool,
    direction_inferred: bool,
    client: EndRow,
    server: EndRow,
    service: (String, String),
}

/// Address, port, kind, namespace, name, workload, its kind, node, uncertain.
type EndRow = (Ipv6Addr, u16, i8, String, String, String, String, String, bool);

impl RestoredRow {
    /// `None` if an enum holds what this program does not know.
    fn into_restored(self) -> Option<Restored> {
        let id_kind = IdKind::from_number(self.id_kind.into())?;
        let kind = InterfaceKind::from_number(self.interface_kind.into())?;
        let interface = Interface { name: self.interface, kind };
        let server = endpoint(self.server_ip, self.server_port);
        let names = ConnectionNames {
            client: end(self.client)?,
            server: end(self.server)?,
            service: Some(self.service).filter(|(_, name)| !name.is_empty()).map(
                |(namespace, name)| {
                    let named = Identity::named(EntityKind::Service, name.into());
                    Identity { namespace: namespace.into(), ..named }.into()
                },
            ),
        };
        Some(Restored {
            connection_id: self.connection_id,
            id_kind,
            point: Point::new(self.agent.into(), self.node.into(), interface.into()).into(),
            reporter: Reporter::from_number(self.reporter.into())?,
            client: endpoint(self.client_ip, self.client_port),
            server,
            first_seen_us: self.first_seen_us,
            last_seen_us: self.last_seen_us,
            primary: self.primary,
            // A partial id is named record by record.
            names: (id_kind != IdKind::Partial).then(|| Arc::new(names)),
            inferred_server: self.direction_inferred.then_some(server),
        })
    }
}

fn endpoint(ip: Ipv6Addr, port: u16) -> Endpoint {
    Endpoint { ip: std::net::IpAddr::V6(ip).to_canonical(), port }
}

fn end(row: EndRow) -> Option<End> {
    let (ip, port, kind, namespace, name, workload, workload_kind, node, uncertain) = row;
    let identity = Identity {
        kind: EntityKind::from_number(kind.into())?,
        namespace: namespace.into(),
        name: name.into(),
        workload: workload.into(),
        workload_kind: workload_kind.into(),
        node: node.into(),
        uncertain,
    };
    Some(End { real: endpoint(ip, port), identity: identity.into() })
}
