//! What ingest asks of ClickHouse besides when its tables are a cluster's: that what it was told is there is
//! there for whoever comes after, and that a chunk is there once. `docs/cluster.md` says why.

use clickhouse::Client;

/// Settings of every statement, on a cluster.
const SETTINGS: [(&str, &str); 8] = [
    // A shard's answer is the insert's: nothing waits on the disk of the node that was asked.
    ("distributed_foreground_insert", "1"),
    // More than half of a shard's replicas have what is said to be inserted.
    ("insert_quorum", "auto"),
    // Partitions do not wait for each other; one partition's chunks come one after the other anyway.
    ("insert_quorum_parallel", "1"),
    // Milliseconds: below the time limit of an insert, so that it is this that is told.
    ("insert_quorum_timeout", "200000"),
    // Reads go where writes went: to the first replica of a shard that is up, from whatever node is asked.
    ("load_balancing", "in_order"),
    ("prefer_localhost_replica", "0"),
    // Seconds: one that was down is not read from before it has caught up ..
    ("max_replica_delay_for_distributed_queries", "5"),
    // .. not even if no other is up: what it lacks would be taken for never written.
    ("fallback_to_stale_replicas_for_distributed_queries", "0"),
];

/// A client for tables of that cluster, or of one server.
pub(crate) fn client(client: Client, cluster: Option<&str>) -> Client {
    let settings = SETTINGS.iter().filter(|_| cluster.is_some());
    settings.fold(client, |client, (name, value)| client.with_setting(*name, *value))
}
