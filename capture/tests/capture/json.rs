//! Records as lines on standard output, from a file on standard input: in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use flowtrail_capture::{Agent, Output};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::files::{PACKETS_PER_CONNECTION, START_US, pcap};
use crate::support::config;

/// `flowtrail capture --read - --output json`, as near as this crate comes to it.
fn start(test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "run by the tests below, with a capture on standard input"]
async fn child_prints_standard_input() {
    let agent = Agent::new(config(&["--read", "-", "--agent", "a"]), Output::Json, &Metrics::new());
    let ready = Readiness::default().part("capture");
    let ended = agent.unwrap().run(ready, CancellationToken::new()).await;
    // Before the test harness prints to what may be closed.
    std::process::exit(if ended.is_ok() { 0 } else { 3 });
}

#[test]
fn each_record_is_a_line_of_json() {
    let mut child = start("json::child_prints_standard_input");
    child.stdin.take().unwrap().write_all(&pcap(3)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let records: Vec<serde_json::Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 3);
    for (record, second) in records.iter().zip(0..) {
        assert_eq!(record["agent"], "a");
        assert_eq!(record["node"], "node-a");
        assert_eq!(record["interface"], "-");
        assert_eq!(record["interval_start"], START_US + second * 1_000_000);
        assert_eq!(record["client"]["ip"], "192.0.2.1");
        assert_eq!(record["server"]["port"], 80);
        assert_eq!(record["sent"]["packets"], 4);
        assert_eq!(record["sent"]["payload_bytes"], 5);
        assert_eq!(record["closed"]["fin"], 1);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = start("json::child_prints_standard_input");
    let mut input = child.stdin.take().unwrap();
    // More than the pipe holds, and the input stays open after it.
    let written = std::thread::spawn(move || {
        let _ = input.write_all(&pcap(5_000));
        input
    });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with('{')));
    drop(lines);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    drop(written.join().unwrap());
}

#[tokio::test]
#[ignore = "run by the test below, with standard input left open"]
async fn child_is_stopped_while_it_waits_for_input() {
    let metrics = Metrics::new();
    let agent = Agent::new(config(&["--read", "-"]), Output::Null, &metrics).unwrap();
    let shutdown = CancellationToken::new();
    let running = agent.run(Readiness::default().part("capture"), shutdown.clone());
    let all = format!("capture_packets_total {}\n", 2 * PACKETS_PER_CONNECTION);
    let stopping = async {
        while !metrics.encode().contains(&all) {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
    };
    let (summary, ()) = tokio::join!(running, stopping);
    let summary = summary.unwrap();
    assert_eq!((summary.packets, summary.records), (2 * PACKETS_PER_CONNECTION, 2));
}

#[test]
fn a_shutdown_ends_the_waiting_for_input() {
    let mut child = start("json::child_is_stopped_while_it_waits_for_input");
    let mut input = child.stdin.take().unwrap();
    input.write_all(&pcap(2)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    drop(input);
}
