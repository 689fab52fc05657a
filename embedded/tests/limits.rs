//! What the interface admits: so many statements at once, and each query id once.

// Helpers of tests, where a panic is the failing assertion.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clickhouse::insert::Insert;
use clickhouse::{Client, Row};
use flowtrail_embedded::{Config, Engine, serve};
use flowtrail_service::metrics::Metrics;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Row, Serialize)]
struct Number {
    n: u64,
}

#[tokio::test]
async fn statements_beyond_the_cap_and_second_ids_are_refused() {
    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded-limits");
    let _ = std::fs::remove_dir_all(&data);
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let config = Config { engine: None, data: Some(data), clickhouse_listen: listen };
    let engine = Engine::open(&config).unwrap_or_else(|error| panic!("{error}"));
    let listener = TcpListener::bind(listen).await.unwrap();
    let client = Client::default()
        .with_url(format!("http://{}", listener.local_addr().unwrap()))
        .with_validation(false);
    let metrics = Metrics::new();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(engine, listener, &metrics, stop.clone()));
    let create = "CREATE TABLE numbers (n UInt64) ENGINE = MergeTree ORDER BY n";
    client.query(create).execute().await.unwrap();

    let first = client.clone().with_setting("query_id", "one");
    let mut open = vec![begin(&first, 0).await];
    reached(&metrics, "requests_running 1").await;
    let error = first.query("SELECT 1").execute().await.unwrap_err();
    assert!(error.to_string().contains("Code: 216."), "{error}");

    for n in 1..64 {
        open.push(begin(&client, n).await);
    }
    reached(&metrics, "requests_running 64").await;
    let error = client.query("SELECT 1").execute().await.unwrap_err();
    assert!(error.to_string().contains("Code: 202."), "{error}");
    reached(&metrics, "requests_refused_total 1").await;

    for insert in open {
        insert.end().await.unwrap();
    }
    reached(&metrics, "requests_running 0").await;
    let sum: u64 = client.query("SELECT sum(n) FROM numbers").fetch_one().await.unwrap();
    assert_eq!(sum, 63 * 64 / 2);
    stop.cancel();
    served.await.unwrap();
}

/// An insert whose request is under way.
async fn begin(client: &Client, n: u64) -> Insert<Number> {
    let mut insert = client.insert::<Number>("numbers").await.unwrap();
    insert.write(&Number { n }).await.unwrap();
    insert
}

/// Waits until a metric has a value; it must within a minute.
async fn reached(metrics: &Metrics, line: &str) {
    let line = format!("flowtrail_embedded_{line}");
    for _ in 0..6_000 {
        if metrics.encode().lines().any(|found| found == line) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {line}:\n{}", metrics.encode());
}
