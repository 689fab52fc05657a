//! A cluster's schema on the embedded engine, which has no Keeper: the Distributed tables are real, over a
//! cluster of this one server, and under them are plain tables. Included by tests that have an engine.

use std::path::Path;

use flowtrail_schema::sql::{Cluster, Form, MIGRATIONS, Retention};

/// What is added to the engine's configuration: the cluster `one` has one shard, `two` has two. Each shard is
/// the engine itself, so of `two` every row is read twice.
const CLUSTERS: &str = "<clickhouse>
    <tcp_port>9000</tcp_port>
    <remote_servers>
        <one>
            <shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9000</port></replica></shard>
        </one>
        <two>
            <shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9000</port></replica></shard>
            <shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9000</port></replica></shard>
        </two>
    </remote_servers>
</clickhouse>
";

/// Makes the clusters known to an engine that is opened on a folder next: ClickHouse adds to a configuration
/// what is in the folder of its name with `.d`.
pub(crate) fn configure(data: &Path) {
    let folder = data.join("clickhouse.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("clusters.xml"), CLUSTERS).unwrap();
}

/// The statements that lay a database out, with what needs Keeper taken away.
pub(crate) fn keeperless(cluster: &str, database: &str) -> Vec<String> {
    let named = Cluster::new(cluster, database).unwrap();
    let made = [named.create_database(), named.schema_migrations()];
    let form = Form { cluster: Some(named), retention: Retention::default() };
    let record = MIGRATIONS.iter().map(|step| {
        let (version, name) = (step.version, step.name);
        format!("INSERT INTO schema_migrations (version, name) VALUES ({version}, '{name}')")
    });
    let all = made.into_iter().chain(form.steps().unwrap().concat());
    all.map(|statement| plain(&statement, cluster)).chain(record).collect()
}

fn plain(statement: &str, cluster: &str) -> String {
    let mut text = statement.replace(&format!(" ON CLUSTER `{cluster}`"), "");
    if let Some(from) = text.find("('/clickhouse/tables/") {
        let to = from + text[from..].find(')').unwrap();
        text.replace_range(from..=to, "");
    }
    text.replace("ENGINE = Replicated", "ENGINE = ")
        .replace(", replicated_deduplication_window_seconds = 604800", "")
        .replace(" replicated_deduplication_window =", " non_replicated_deduplication_window =")
}
