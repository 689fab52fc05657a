//! `kill -9` while rows are inserted: what was acknowledged is there when the engine is opened again, whole
//! and once, and that takes seconds.

// Helpers of tests, where a panic is the failing assertion.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clickhouse::{Client, Row};
use flowtrail_embedded::{Config, Engine, serve};
use flowtrail_service::metrics::Metrics;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const FOLDER: &str = "FLOWTRAIL_TEST_FOLDER";
const FIRST: &str = "FLOWTRAIL_TEST_FIRST_BATCH";

/// Rows in a batch: one insert, one block.
const ROWS: u64 = 1_000;
/// Inserts at the same time.
const WRITERS: usize = 4;
/// Acknowledgements before the kill.
const ACKNOWLEDGED: usize = 100;
/// More than a life has time for: ends what nobody kills.
const MAX_BATCHES: u64 = 20_000;
/// Longest start: opening, and reading all tables.
const START: Duration = Duration::from_secs(10);

#[derive(Row, Serialize)]
struct Numbered {
    batch: u64,
    n: u64,
}

#[derive(Row, Deserialize)]
struct Counted {
    batch: u64,
    rows: u64,
    numbers: u64,
}

async fn begin() -> Client {
    let data = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { engine: None, data: Some(data), clickhouse_listen: address };
    let engine = Engine::open(&config).unwrap_or_else(|error| panic!("{error}"));
    tokio::spawn(serve(engine, listener, &Metrics::new(), CancellationToken::new()));
    let client = Client::default().with_url(format!("http://{address}"));
    let create = "CREATE TABLE IF NOT EXISTS numbers (batch UInt64, n UInt64) ENGINE = MergeTree ORDER BY (batch, n)";
    client.query(create).execute().await.unwrap();
    client
}

/// Inserts batches, and says which are acknowledged, until it is killed.
#[tokio::test]
#[ignore = "run by the test below"]
async fn inserting() {
    let client = begin().await;
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let next = Arc::new(AtomicU64::new(first));
    let writers = (0..WRITERS).map(|_| {
        let (client, next) = (client.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let batch = next.fetch_add(1, Ordering::SeqCst);
                if batch > first + MAX_BATCHES {
                    return;
                }
                let mut insert = client.insert::<Numbered>("numbers").await.unwrap();
                for n in 0..ROWS {
                    insert.write(&Numbered { batch, n }).await.unwrap();
                }
                insert.end().await.unwrap();
                println!("acknowledged {batch}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Says which batches there are, and how long it took until that was known.
#[tokio::test]
#[ignore = "run by the test below"]
async fn counting() {
    let started = Instant::now();
    let client = begin().await;
    let counts: Vec<Counted> = client
        .query("SELECT batch, count() AS rows, uniqExact(n) AS numbers FROM numbers GROUP BY batch")
        .fetch_all()
        .await
        .unwrap();
    println!("started in {} ms", started.elapsed().as_millis());
    for Counted { batch, rows, numbers } in counts {
        println!("counted {batch} {rows} {numbers}");
    }
    std::process::exit(0);
}

fn child(test: &str, folder: &Path, first: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped());
    command
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded-killed");
    let _ = std::fs::remove_dir_all(&folder);
    let mut acknowledged = Vec::new();
    for first in [0, 100_000, 200_000] {
        let mut inserting = child("inserting", &folder, first).spawn().unwrap();
        let said = BufReader::new(inserting.stdout.take().unwrap()).lines();
        let mut this_life = 0;
        for line in said.map_while(Result::ok) {
            if let Some((_, batch)) = line.split_once("acknowledged ") {
                acknowledged.push(batch.parse::<u64>().unwrap());
                this_life += 1;
                if this_life == ACKNOWLEDGED {
                    // SIGKILL. What it had said by then is read to its end.
                    inserting.kill().unwrap();
                }
            }
        }
        assert!(!inserting.wait().unwrap().success());
        assert!(this_life >= ACKNOWLEDGED, "{this_life}");

        let counted = child("counting", &folder, first).output().unwrap();
        assert!(counted.status.success(), "{counted:?}");
        let said = String::from_utf8(counted.stdout).unwrap();
        let took = said.lines().find_map(|line| {
            line.split_once("started in ")?.1.strip_suffix(" ms")?.parse::<u64>().ok()
        });
        assert!(took.is_some_and(|took| u128::from(took) < START.as_millis()), "{took:?}");
        let counts: HashMap<u64, (u64, u64)> = said.lines().filter_map(counts).collect();
        for batch in &acknowledged {
            assert_eq!(counts.get(batch), Some(&(ROWS, ROWS)), "batch {batch}");
        }
        // What was not acknowledged is there as a whole, or not at all.
        assert!(counts.values().all(|rows| *rows == (ROWS, ROWS)), "{counts:?}");
        assert!(counts.len() <= acknowledged.len() + 3 * WRITERS);
    }
}

/// A line `counted BATCH ROWS NUMBERS`.
fn counts(line: &str) -> Option<(u64, (u64, u64))> {
    let mut numbers = line.split_once("counted ")?.1.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some((next()?, (next()?, next()?)))
}
