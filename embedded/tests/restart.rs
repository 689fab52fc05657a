//! An engine's life in a process: shut down while a request is under way, and opened again.

// Helpers of tests, where a panic is the failing assertion.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clickhouse::insert::Insert;
use clickhouse::{Client, Row};
use flowtrail_embedded::{Config, Engine, serve};
use flowtrail_service::metrics::Metrics;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const FOLDER: &str = "FLOWTRAIL_TEST_FOLDER";

#[derive(Row, Serialize)]
struct Number {
    n: u64,
}

/// A process that serves the engine, with a table.
struct Life {
    client: Client,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

async fn begin() -> Life {
    let folder = std::env::var_os(FOLDER).unwrap();
    let engine =
        Engine::open(&config(Path::new(&folder))).unwrap_or_else(|error| panic!("{error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = Client::default().with_url(format!("http://{}", listener.local_addr().unwrap()));
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(engine, listener, &Metrics::new(), stop.clone()));
    let create = "CREATE TABLE IF NOT EXISTS numbers (n UInt64) ENGINE = MergeTree ORDER BY n";
    client.query(create).execute().await.unwrap();
    Life { client, stop, served }
}

/// Sends more than the client's buffer, so that the request is under way.
async fn begin_insert(insert: &mut Insert<Number>) {
    for n in 0..100_000 {
        insert.write(&Number { n }).await.unwrap();
    }
}

/// One life: counts the rows, begins an insert, is told to stop, ends the insert, ends. libchdb
/// lives once a process, so this runs in processes of its own.
#[tokio::test]
#[ignore = "run by the test below"]
async fn life() {
    let Life { client, stop, served } = begin().await;
    let before: u64 = client.query("SELECT count() FROM numbers").fetch_one().await.unwrap();
    let mut insert = client.insert::<Number>("numbers").await.unwrap();
    begin_insert(&mut insert).await;
    stop.cancel();
    insert.write(&Number { n: 100_000 }).await.unwrap();
    insert.end().await.unwrap();
    served.await.unwrap();
    println!("rows before: {before}");
}

#[test]
fn rows_outlive_the_process_and_requests_the_shutdown() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded-restart");
    let _ = std::fs::remove_dir_all(&folder);
    for rows in ["rows before: 0", "rows before: 100001"] {
        let (ended, said) = run_life(&folder);
        assert!(ended && said.contains(rows), "{said}");
    }
}

#[test]
fn another_process_is_told_that_the_folder_is_in_use() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded-in-use");
    let _ = std::fs::remove_dir_all(&folder);
    let _engine = Engine::open(&config(&folder)).unwrap_or_else(|error| panic!("{error}"));
    let (ended, said) = run_life(&folder);
    assert!(!ended && said.contains("another process uses"), "{said}");
}

/// A life that ends at once, as on a second signal, with an insert open.
#[tokio::test]
#[ignore = "run by the test below"]
async fn cut_short() {
    let Life { client, .. } = begin().await;
    let mut insert = client.insert::<Number>("numbers").await.unwrap();
    begin_insert(&mut insert).await;
    std::process::exit(7);
}

#[test]
fn an_exit_without_shutdown_keeps_its_status() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded-cut-short");
    let _ = std::fs::remove_dir_all(&folder);
    for _ in 0..5 {
        let output = child("cut_short", &folder);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    }
}

/// A life that ends in order, with merges left in the background.
#[tokio::test]
#[ignore = "run by the test below"]
async fn shut_down() {
    let Life { client, stop, served } = begin().await;
    for n in 0..20 {
        let mut insert = client.insert::<Number>("numbers").await.unwrap();
        insert.write(&Number { n }).await.unwrap();
        insert.end().await.unwrap();
    }
    stop.cancel();
    served.await.unwrap();
    std::process::exit(7);
}

#[test]
fn an_exit_after_shutdown_keeps_its_status() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded-shut-down");
    let _ = std::fs::remove_dir_all(&folder);
    for _ in 0..3 {
        let output = child("shut_down", &folder);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    }
}

/// A life that is told to stop while a client neither sends on nor goes away.
#[tokio::test]
#[ignore = "run by the test below"]
async fn with_a_stuck_client() {
    let Life { client, stop, served } = begin().await;
    let mut insert = client.insert::<Number>("numbers").await.unwrap();
    begin_insert(&mut insert).await;
    stop.cancel();
    served.await.unwrap();
    std::process::exit(7);
}

#[test]
fn a_stuck_client_does_not_keep_the_process() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded-stuck");
    let _ = std::fs::remove_dir_all(&folder);
    let output = child("with_a_stuck_client", &folder);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

fn config(folder: &Path) -> Config {
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    Config { engine: None, data: Some(folder.to_owned()), clickhouse_listen: listen }
}

/// Runs [`life`] in another process; whether it went well, and all that it said.
fn run_life(folder: &Path) -> (bool, String) {
    let output = child("life", folder);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn child(test: &str, folder: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .output()
        .unwrap()
}
