//! What `flowtrail schema audit` says of tables that are whole, and of tables that somebody has tampered
//! with: every kind of damage is found, and named.

use flowtrail_ingest::Config;
use flowtrail_schema::Reporter;
use flowtrail_service::store::ClickHouseArgs;

use crate::common::*;

/// Twelve batches with a record each, every one a chunk of its own.
async fn delivered(database: &str) -> ClickHouseArgs {
    let store = store(database).await;
    let batches = (0..12).map(|sequence| {
        let (client, server) = ("10.1.0.5:40000", "10.1.1.7:5432");
        let record = observed(sequence + 1, "veth1", Reporter::Client, client, server);
        message(&batch("node-a", sequence, vec![record], &["10.1.0.5"]))
    });
    let config = Config { chunk_rows: 1.try_into().unwrap(), ..Config::default() };
    let summary = ingest(&store, config, batches.collect()).await;
    assert_eq!((summary.chunks, summary.primary_records), (12, 12));
    store
}

/// Everything found, a line each.
async fn findings(store: &ClickHouseArgs) -> Vec<String> {
    let start_ms = (START_US / 1_000) as i64;
    let report = store.audit(start_ms, start_ms + 10_000).await.unwrap();
    let all = report.checks.iter().flat_map(|check| &check.findings);
    all.map(|finding| format!("{}: {}: {}", finding.problem, finding.place, finding.detail))
        .collect()
}

async fn damaged(database: &str, statement: &str) -> Vec<String> {
    let store = delivered(database).await;
    assert_eq!(findings(&store).await, [""; 0]);
    let client = store.client().with_setting("mutations_sync", "1");
    client.query(statement).execute().await.unwrap();
    findings(&store).await
}

/// In the order in which they are looked at.
const ROLLUPS: [&str; 5] =
    ["edges_1m", "edges_1h", "edges_1d", "workload_edges_1h", "workload_edges_1d"];

#[tokio::test]
async fn a_delivery_that_is_missing_is_a_gap_of_offsets_and_numbers_and_its_rows_are_nobodys() {
    let found = damaged("audit_gap", "ALTER TABLE deliveries DELETE WHERE chunk_start = 5").await;
    assert_eq!(
        found,
        [
            "gap: topic flowtrail.flows.v1 (run) partition 0: offsets 5 to 5 are of no chunk",
            "gap: agent node-a started 2026-01-01T00:59:59Z, partition 0: batches 5 to 5 never came",
            "duplicate: topic run partition 0 chunk 5: flows has 1 rows of 0, coverage 1 of 0",
        ]
    );
}

#[tokio::test]
async fn a_row_that_is_missing_is_told_with_its_chunk_and_the_rollups_that_still_have_it() {
    let found = damaged("audit_row", "ALTER TABLE flows DELETE WHERE chunk_start = 5").await;
    assert_eq!(found.len(), 6, "{found:#?}");
    assert_eq!(
        found[0],
        "missing: topic run partition 0 chunk 5: flows has 0 rows of 1, coverage 1 of 1"
    );
    let at = ["01:00:00Z", "01:00:00Z", "00:00:00Z", "01:00:00Z", "00:00:00Z"];
    for ((rollup, at), found) in ROLLUPS.into_iter().zip(at).zip(&found[1..]) {
        assert!(found.starts_with(&format!("rollup: {rollup} 2026-01-01T{at}")), "{found}");
    }
}

#[tokio::test]
async fn a_chunk_that_was_inserted_twice_is_found() {
    let found = damaged(
        "audit_twice",
        "INSERT INTO deliveries SELECT * FROM deliveries WHERE chunk_start = 5",
    )
    .await;
    assert_eq!(
        found,
        [
            "duplicate: topic flowtrail.flows.v1 (run) partition 0: offsets 5 to 5 are of two chunks",
            "duplicate: agent node-a started 2026-01-01T00:59:59Z, partition 0: batch 5 was accepted twice",
            "missing: topic run partition 0 chunk 5: flows has 1 rows of 2, coverage 1 of 2",
        ]
    );
}

#[tokio::test]
async fn a_week_that_is_not_what_its_days_are_is_found() {
    let store = delivered("audit_week").await;
    let tables = [("edges_1w", "edges_1d"), ("workload_edges_1w", "workload_edges_1d")];
    for (weeks, _) in tables {
        let insert = format!(
            "INSERT INTO {weeks} (start, client_kind, server_kind, open_at_start) \
             VALUES ('2025-12-29 00:00:00', 'pod', 'pod', 1)"
        );
        store.client().query(&insert).execute().await.unwrap();
    }
    let found = findings(&store).await;
    assert_eq!(found.len(), 2, "{found:#?}");
    for ((weeks, days), found) in tables.into_iter().zip(&found) {
        let place = format!("rollup: {weeks} 2025-12-29T00:00:00Z / to /: ");
        assert!(found.starts_with(&place), "{found}");
        let sums = format!(
            "(12,12000,24000,60,60,12,0,1,12,96000,2160,0), {days} has (12,12000,24000,60,60,12,0,0,"
        );
        assert!(found.contains(&sums), "{found}");
    }
}

#[tokio::test]
async fn a_rollup_that_does_not_add_up_is_found() {
    let found = damaged(
        "audit_rollup",
        "INSERT INTO edges_1h (start, client_kind, server_kind, sent_payload_bytes) \
         VALUES ('2026-01-01 01:00:00', 'pod', 'pod', 1)",
    )
    .await;
    // And what is made of it; weeks are held against days.
    assert_eq!(found.len(), 4, "{found:#?}");
    for (rollup, found) in ROLLUPS.into_iter().skip(1).zip(&found) {
        assert!(found.starts_with(&format!("rollup: {rollup} ")), "{found}");
        let sums = "(12,12001,24000,60,60,12,0,0,12,96000,2160,0), flows has (12,12000,";
        assert!(found.contains(sums), "{found}");
    }
}
