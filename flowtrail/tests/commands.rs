//! The binary as its user meets it when something is wrong: each error says what to do, and nothing
//! readable is lost. Needs the engine (`make engine`).

#![allow(clippy::unwrap_used, reason = "tests: helpers too")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn flowtrail(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtrail"));
    command.args(words).stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    flowtrail(words).output().unwrap()
}

#[track_caller]
fn fails_saying(words: &[&str], expected: &[&str]) {
    let output = run(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{words:?} succeeded: {said}");
    assert!(expected.iter().all(|text| said.contains(text)), "{words:?} said: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// A capture with one SYN in it, its answer, and the beginning of a third packet.
fn broken_capture() -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(101_u32.to_le_bytes()); // LINKTYPE_RAW
    let ends = [[10, 0, 0, 1], [10, 0, 0, 2]];
    for (number, flags) in [0x02_u8, 0x12].into_iter().enumerate() {
        let (from, to) = (ends[number], ends[1 - number]);
        let ports: [u16; 2] = if number == 0 { [40_000, 80] } else { [80, 40_000] };
        file.extend(1_700_000_000_u32.to_le_bytes());
        file.extend((number as u32).to_le_bytes());
        file.extend([40_u32.to_le_bytes(), 40_u32.to_le_bytes()].concat());
        file.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        file.extend([from, to].concat());
        file.extend(ports.map(u16::to_be_bytes).concat());
        file.extend((100 + number as u32).to_be_bytes());
        file.extend((101 * number as u32).to_be_bytes());
        file.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    }
    file.extend([1, 2, 3]);
    file
}

#[test]
fn a_missing_engine_says_how_to_get_it() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    fails_saying(
        &[
            "up",
            "--engine",
            "/nowhere/libchdb.so",
            "--data",
            data,
            "--clickhouse-listen",
            "127.0.0.1:0",
        ],
        &["/nowhere/libchdb.so", "make engine", "--engine"],
    );
}

#[test]
fn a_busy_port_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    fails_saying(
        &["up", "--data", data, "--clickhouse-listen", &address],
        &["in use", "--clickhouse-listen", &address],
    );
}

#[test]
fn bad_configuration_is_told_before_anything_starts() {
    fails_saying(&["capture", "--interval", "7s"], &["divide a minute", "10"]);
    fails_saying(&["capture", "--interface", "eth["], &["--interface"]);
    fails_saying(&["up", "--names", "/nowhere.json", "--check-config"], &["/nowhere.json"]);
    fails_saying(&["up", "--idle-timeout", "15"], &["15min"]);
    let checked = run(&["capture", "--output", "null", "--check-config"]);
    assert!(checked.status.success());
}

#[test]
fn the_schema_is_printed_as_it_was_asked_for() {
    let printed = |words: &[&str]| {
        let output = run(words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = printed(&["schema", "print", "--retain-flows", "30d"]);
    assert!(plain.contains("TTL interval_start + INTERVAL 30 DAY\n"), "{plain}");
    assert!(!plain.contains("CLUSTER"), "{plain}");
    let cluster = printed(&["schema", "print", "--cluster", "main", "--retain-hours", "3y"]);
    for text in
        ["edges_1h_local ON CLUSTER `main`", "TTL start + INTERVAL 3 YEAR\n", "Distributed("]
    {
        assert!(cluster.contains(text), "no {text} in {cluster}");
    }
    fails_saying(&["schema", "print", "--cluster", "a b"], &["--cluster a b", "letters"]);
    fails_saying(
        &["schema", "print", "--retain-minutes", "3d"],
        &["--retain-minutes", "--retain-flows"],
    );
    fails_saying(
        &["schema", "apply", "--retain-flows", "10d", "--retain-coverage", "9d", "--check-config"],
        &["--retain-coverage", "audit"],
    );
    fails_saying(&["up", "--read", "x.pcap", "--retain-flows", "9d"], &["--read", "--retain"]);
}

#[test]
fn a_store_that_is_away_says_where_it_was_looked_for() {
    fails_saying(
        &["query", "--clickhouse-url", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"],
        &["http://127.0.0.1:1", "--clickhouse-url"],
    );
    fails_saying(&["graph", "--url", "http://127.0.0.1:1"], &["flowtrail up", "--url"]);
    fails_saying(&["graph", "--url", "127.0.0.1:8480"], &["--url", "write http://"]);
}

#[test]
fn what_is_readable_of_a_broken_capture_is_served_and_the_byte_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken.pcap");
    let bytes = broken_capture();
    std::fs::write(&path, &bytes).unwrap();
    let mut up =
        flowtrail(&["up", "--listen", "127.0.0.1:0", "--clickhouse-listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(directory.path().join("data"))
            .arg("--read")
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

    let lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let url = lines.into_iter().find(|line| line.starts_with("http://")).expect("no address");
    let answer = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    let ready = url.split_once("/api/").map(|(service, _)| format!("{service}/readyz")).unwrap();
    assert_eq!(ureq::get(&ready).call().unwrap().status(), 200, "what reads the file is done");
    let graph: Value = serde_json::from_str(&answer).unwrap();
    let edge = &graph["edges"][0];
    assert_eq!(edge["opened"], 1, "{graph}");
    assert_eq!((&edge["sent"]["bytes"], &edge["received"]["bytes"]), (&40.into(), &40.into()));

    // Twice, as `timeout` does: still one request to end in order.
    for _ in 0..2 {
        assert!(Command::new("kill").arg(up.id().to_string()).status().unwrap().success());
    }
    let mut said = String::new();
    up.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(1), "a broken file is a failure in the end");
    let byte = format!("byte {}", bytes.len() - 3);
    assert!(said.contains(&byte) && said.contains("breaks off"), "{said}");
}

#[test]
fn the_graph_of_a_capture_from_a_service_with_tokens_and_from_its_folder() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (data, tokens, token) = (path("data"), path("tokens"), path("token"));
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(&tokens, format!("me {secret} *\n")).unwrap();
    std::fs::write(&token, format!("{secret}\n")).unwrap();
    let capture =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../capture/tests/golden/answered_late.pcap");
    let words = ["up", "--data", &data, "--read", capture, "--listen", "127.0.0.1:0"];
    let mut up = flowtrail(&words)
        .args(["--clickhouse-listen", "127.0.0.1:0", "--token-file", &tokens])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.into_iter().find(|line| line.starts_with("flowtrail graph ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let (url, window) = (words[2], &words[3..]);
    let printed = |from: &[&str], format: &str| {
        let output = run(&[&["graph", "--format", format], window, from].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{format}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let service = ["--url", url, "--token-file", &token];

    let graph: Value = serde_json::from_str(&printed(&service, "json")).unwrap();
    let edge = &graph["edges"][0];
    let table = printed(&service, "table");
    assert!(table.contains("CLIENT") && table.contains("reports by 1 agent"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    let csv = printed(&service, "csv");
    let bytes = format!(",{},", edge["sent"]["bytes"]);
    assert!(csv.starts_with("id,source,target,") && csv.contains(&bytes), "{csv}");
    assert!(printed(&service, "dot").contains(" -> "));
    assert!(printed(&service, "mermaid").starts_with("flowchart LR\n  n0["));

    fails_saying(&["graph", "--url", url], &["takes a token", "--token-file"]);
    let words = ["graph", "--port", "http"];
    fails_saying(&[&words[..], &service].concat(), &["400", "port", "1 to 65535"]);
    fails_saying(&["graph", "--data", &data], &["`flowtrail up` runs", "--url"]);
    fails_saying(&["graph", "--data", "/nowhere"], &["/nowhere", "flowtrail up --data"]);

    assert!(Command::new("kill").arg(up.id().to_string()).status().unwrap().success());
    assert!(up.wait().unwrap().success());
    let kept: Value = serde_json::from_str(&printed(&["--data", &data], "json")).unwrap();
    assert_eq!(kept["edges"], graph["edges"]);
}

#[test]
fn what_others_reach_asks_for_tokens_or_says_that_it_does_not() {
    fails_saying(
        &["query", "--listen", "0.0.0.0:0", "--check-config"],
        &["--token-file", "--no-tokens"],
    );
    let checked = run(&["query", "--listen", "0.0.0.0:0", "--no-tokens", "--check-config"]);
    assert!(checked.status.success());
}
