use super::*;
use crate::sql::{Form, MIGRATIONS, Retention};

const MADE: [&str; 5] = [
    "CREATE TABLE raw (at DateTime, partition UInt32, x UInt8) ENGINE = MergeTree ORDER BY at",
    "CREATE TABLE sums (at DateTime, x UInt64) ENGINE = SummingMergeTree(x) ORDER BY (at)",
    "CREATE MATERIALIZED VIEW raw_view TO sums AS SELECT at, sum(x) AS x FROM raw GROUP BY at",
    "CREATE VIEW shown AS SELECT * FROM sums",
    "CREATE TABLE owners (a IPv6, b String) ENGINE = ReplacingMergeTree() ORDER BY toString(a) SETTINGS c = 1",
];

fn cluster() -> Cluster {
    Cluster::new("main", "flow'trail").unwrap()
}

fn form(statement: &str) -> Result<Vec<String>, UnknownForm> {
    Ok(cluster().forms(&[statement.to_owned()], MADE)?.concat())
}

#[track_caller]
fn becomes(statement: &str, expected: &[&str]) {
    assert_eq!(form(statement).unwrap(), expected);
}

#[track_caller]
fn is_unknown(statement: &str, reason: &str) {
    let error = form(statement).unwrap_err().to_string();
    assert!(error.contains(reason) && error.contains(&statement[..10]), "{error}");
}

#[test]
fn all_steps_are_as_they_were_reviewed() {
    let cluster = Cluster::new("main", "flowtrail").unwrap();
    let made = format!("{};\n{};\n\n", cluster.create_database(), cluster.schema_migrations());
    let form = Form { cluster: Some(cluster), retention: Retention::default() };
    let printed = made + &form.print().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cluster.sql");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &printed).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, (found, reviewed)) in printed.lines().zip(golden.lines()).enumerate() {
        let hint = "review it, then run the test with UPDATE_GOLDEN=1";
        assert_eq!(found, reviewed, "line {} of {path}: {hint}", line + 1);
    }
    assert_eq!(printed.len(), golden.len(), "{path} is of another length");
}

#[test]
fn the_plain_form_is_the_files() {
    let steps = Form::default().steps().unwrap();
    assert!(steps.iter().zip(MIGRATIONS).all(|(step, file)| *step == [file.statement]));
}

#[test]
fn rows_of_a_chunk_are_on_one_shard_and_those_that_merge_too() {
    let key = |statement: &str| {
        let distributed = form(statement).unwrap().pop().unwrap();
        distributed.rsplit_once("_local', ").unwrap().1.to_owned()
    };
    assert_eq!(key(MADE[0]), "partition)");
    assert_eq!(key(MADE[1]), "rand())");
    assert_eq!(key(MADE[4]), "cityHash64(toString(a)))");
}

#[test]
fn a_table_is_made_replicated_and_distributed() {
    becomes(
        "-- Why.\nCREATE TABLE IF NOT EXISTS sums\n(\n    at DateTime COMMENT 'ENGINE = MergeTree'\n)\nENGINE = SummingMergeTree(x)\nORDER BY (at)\nSETTINGS non_replicated_deduplication_window = 7, a = 1\n",
        &[
            "CREATE TABLE IF NOT EXISTS sums_local ON CLUSTER `main`\n(\n    at DateTime COMMENT 'ENGINE = MergeTree'\n)\n\
             ENGINE = ReplicatedSummingMergeTree('/clickhouse/tables/main/{shard}/{database}/{table}', '{replica}', x)\n\
             ORDER BY (at)\n\
             SETTINGS replicated_deduplication_window = 7, replicated_deduplication_window_seconds = 604800, a = 1",
            "CREATE TABLE IF NOT EXISTS sums ON CLUSTER `main` AS sums_local\n\
             ENGINE = Distributed('main', 'flow\\'trail', 'sums_local', rand())",
        ],
    );
}

#[test]
fn views_stay_within_a_shard() {
    becomes(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS raw_view TO sums AS SELECT at, sum(raw.x) AS x FROM raw WHERE x > 0 GROUP BY at",
        &[
            "CREATE MATERIALIZED VIEW IF NOT EXISTS raw_view ON CLUSTER `main` TO sums_local AS SELECT at, sum(raw.x) AS x FROM raw_local AS raw WHERE x > 0 GROUP BY at",
        ],
    );
    becomes(
        "ALTER TABLE raw_view MODIFY QUERY SELECT at, x FROM (SELECT * FROM raw r)",
        &[
            "ALTER TABLE raw_view ON CLUSTER `main` MODIFY QUERY SELECT at, x FROM (SELECT * FROM raw_local r)",
        ],
    );
    becomes(MADE[3], &["CREATE VIEW shown ON CLUSTER `main` AS SELECT * FROM sums"]);
    becomes("DROP VIEW IF EXISTS shown", &["DROP VIEW IF EXISTS shown ON CLUSTER `main`"]);
    becomes("DROP TABLE raw_view", &["DROP TABLE raw_view ON CLUSTER `main`"]);
}

#[test]
fn columns_are_altered_in_both_and_all_else_where_the_rows_are() {
    becomes(
        "ALTER TABLE sums ADD COLUMN IF NOT EXISTS y Array(UInt8) AFTER x, DROP COLUMN z, MODIFY ORDER BY (at, y), MODIFY SETTING a = 1, b = 2",
        &[
            "ALTER TABLE sums_local ON CLUSTER `main` ADD COLUMN IF NOT EXISTS y Array(UInt8) AFTER x, DROP COLUMN z, MODIFY ORDER BY (at, y), MODIFY SETTING a = 1, b = 2",
            "ALTER TABLE sums ON CLUSTER `main` ADD COLUMN IF NOT EXISTS y Array(UInt8) AFTER x, DROP COLUMN z",
        ],
    );
    becomes(
        "ALTER TABLE raw MODIFY SETTING non_replicated_deduplication_window = 5",
        &[
            "ALTER TABLE raw_local ON CLUSTER `main` MODIFY SETTING replicated_deduplication_window = 5, replicated_deduplication_window_seconds = 604800",
        ],
    );
    becomes(
        "ALTER TABLE raw MODIFY TTL at + INTERVAL 1 DAY",
        &["ALTER TABLE raw_local ON CLUSTER `main` MODIFY TTL at + INTERVAL 1 DAY"],
    );
}

#[test]
fn a_dropped_table_leaves_nothing_behind() {
    becomes(
        "DROP TABLE IF EXISTS sums",
        &[
            "DROP TABLE IF EXISTS sums ON CLUSTER `main`",
            "DROP TABLE IF EXISTS sums_local ON CLUSTER `main` SYNC",
        ],
    );
}

#[test]
fn what_is_there_is_summed_by_one_node_for_all() {
    becomes(
        "INSERT INTO sums (at, x) SELECT at, sum(x) FROM raw GROUP BY at",
        &[
            "INSERT INTO sums (at, x) SETTINGS distributed_foreground_insert = 1, parallel_distributed_insert_select = 0, distributed_product_mode = 'global' SELECT at, sum(x) FROM raw GROUP BY at",
        ],
    );
}

#[test]
fn what_has_no_form_is_told_and_not_guessed() {
    is_unknown("RENAME TABLE raw TO rows", "none of the statements");
    is_unknown("TRUNCATE TABLE raw", "none of the statements");
    is_unknown("CREATE TABLE other (a UInt8) ENGINE = MergeTree ORDER BY a", "no step makes");
    is_unknown("CREATE TABLE raw AS sums", "columns");
    is_unknown("CREATE TABLE raw (a UInt8) ENGINE = Memory", "MergeTree family");
    is_unknown("CREATE TABLE raw (a UInt8) ENGINE = ReplacingMergeTree", "no key");
    is_unknown("CREATE TABLE raw (a UInt8)", "no engine");
    is_unknown(
        "CREATE MATERIALIZED VIEW raw_view TO sums AS SELECT 1 FROM raw JOIN owners USING a",
        "joins",
    );
    is_unknown(
        "CREATE MATERIALIZED VIEW raw_view TO sums AS SELECT 1 FROM raw WHERE x IN (SELECT b FROM owners)",
        "only a shard",
    );
    is_unknown("CREATE MATERIALIZED VIEW raw_view ENGINE = Log AS SELECT 1 FROM raw", "TO a table");
    is_unknown(
        "CREATE MATERIALIZED VIEW raw_view TO sums AS SELECT 1 FROM d.raw",
        "names a database",
    );
    is_unknown("INSERT INTO sums VALUES (1, 2)", "than a SELECT");
    is_unknown("INSERT INTO sums SETTINGS a = 1 SELECT 1", "settings of its own");
    is_unknown("ALTER TABLE raw FREEZE", "to be altered");
    is_unknown("ALTER TABLE", "before a name");
}

#[test]
fn a_cluster_has_a_name_that_needs_no_quotes() {
    for name in ["", "a b", "a'b", "`"] {
        assert!(Cluster::new(name, "flowtrail").is_err(), "{name}");
    }
}
