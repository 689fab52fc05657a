//! The live watch against a double of the Kubernetes API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flowtrail_ingest::names::Names;
use flowtrail_ingest::watch;
use flowtrail_service::metrics::Metrics;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::{Api, gone, pod};
use crate::pipeline::until;

/// What an address is now, and whether that is uncertain.
fn now(names: &Names, ip: &str) -> (String, bool) {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let identity = names.read().lookup(ip.parse().unwrap(), 1, now_us, "");
    (identity.name.to_string(), identity.uncertain)
}

#[tokio::test]
async fn names_follow_the_cluster_through_ends_and_gaps() {
    let api = Api::default();
    api.with(|state| (state.pods, state.version) = (vec![pod("a", "10.0.0.1").to_string()], 10));
    let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
    let names = Names::new(&metrics);
    let client = api.client().await;
    let missing = watch::start(&client, &names, &shutdown).wait(Duration::from_secs(20)).await;
    assert_eq!(missing, [""; 0]);
    assert_eq!(now(&names, "10.0.0.1").0, "a");
    until("the pods are watched", || api.with(|state| state.watches.len() == 1)).await;

    api.send("ADDED", pod("b", "10.0.0.2"));
    until("b is added", || now(&names, "10.0.0.2").0 == "b").await;
    api.send("DELETED", pod("a", "10.0.0.1"));
    until("a is deleted", || now(&names, "10.0.0.1").0.is_empty()).await;

    // The server ends a watch now and then: the next begins where a bookmark says.
    api.send("BOOKMARK", json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}}));
    api.with(|state| state.watches.clear());
    until("the pods are watched again", || api.with(|state| state.watches.len() == 1)).await;
    assert_eq!(api.with(|state| state.watched_from.clone()), ["10", "13"]);

    // The version is too old: a new list, in which b is gone and c is there.
    api.with(|state| (state.pods, state.version) = (vec![pod("c", "10.0.0.3").to_string()], 90));
    let before_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    api.send("ERROR", gone());
    until("c is listed", || now(&names, "10.0.0.3").0 == "c").await;
    assert_eq!(now(&names, "10.0.0.2").0, "");
    let b = names.read().lookup("10.0.0.2".parse().unwrap(), 1, before_us, "");
    assert_eq!((&*b.name, b.uncertain), ("b", true), "b went some time in the gap");
    let lists = "flowtrail_ingest_names_watch_lists_total{kind=\"Pod\"} 2";
    assert!(metrics.encode().contains(lists), "{}", metrics.encode());
    shutdown.cancel();
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_is_said_and_the_others_go_on() {
    let api = Api::default();
    api.with(|state| {
        (state.pods, state.forbidden) = (vec![pod("a", "10.0.0.1").to_string()], Some("jobs"))
    });
    let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
    let names = Names::new(&metrics);
    let first = watch::start(&api.client().await, &names, &shutdown);
    assert_eq!(first.wait(Duration::from_secs(2)).await, ["Job"]);
    assert_eq!(now(&names, "10.0.0.1").0, "a");
    assert!(metrics.encode().contains("flowtrail_ingest_names_watch_failures_total{kind=\"Job\"}"));
    shutdown.cancel();
}

#[tokio::test]
async fn objects_that_cannot_be_decoded_do_not_stop_the_others() {
    let api = Api::default();
    let mut bad = pod("bad", "10.0.0.9");
    bad["status"]["podIPs"] = json!(7);
    let worse = json!({"kind": "Pod", "metadata": "text"});
    api.with(|state| {
        state.pods = vec![bad.to_string(), worse.to_string(), pod("a", "10.0.0.1").to_string()];
        state.version = 10;
    });
    let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
    let names = Names::new(&metrics);
    let first = watch::start(&api.client().await, &names, &shutdown);
    assert_eq!(first.wait(Duration::from_secs(20)).await, [""; 0]);
    assert_eq!(now(&names, "10.0.0.1").0, "a");
    until("the pods are watched", || api.with(|state| state.watches.len() == 1)).await;

    // In an event: what was known of it stays, and the events after it come.
    let mut broken = pod("a", "10.0.0.1");
    broken["metadata"]["labels"] = json!([1]);
    api.send("MODIFIED", broken.clone());
    api.send("ADDED", pod("b", "10.0.0.2"));
    until("b is added", || now(&names, "10.0.0.2").0 == "b").await;
    assert_eq!(now(&names, "10.0.0.1").0, "a");
    let counted = "flowtrail_ingest_names_undecodable_total 3";
    assert!(metrics.encode().contains(counted), "{}", metrics.encode());
    // And when it is deleted, it is.
    api.send("DELETED", broken);
    until("a is deleted", || now(&names, "10.0.0.1").0.is_empty()).await;
    assert_eq!(api.with(|state| state.watched_from.clone()), ["10"], "without a new list");
    shutdown.cancel();
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let api = Api::default();
    let ip = |number: u32| std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
    let pods = (0..1_201).map(|number| pod(&format!("p{number}"), &ip(number)).to_string());
    api.with(|state| state.pods = pods.collect());
    let shutdown = CancellationToken::new();
    let names = Names::new(&Metrics::new());
    let first = watch::start(&api.client().await, &names, &shutdown);
    assert_eq!(first.wait(Duration::from_secs(20)).await, [""; 0]);
    assert_eq!(now(&names, &ip(0)).0, "p0");
    assert_eq!(now(&names, &ip(1_200)).0, "p1200");
    assert_eq!(api.with(|state| state.pages), 3);
    shutdown.cancel();
}

#[tokio::test]
async fn an_api_server_that_restarts_is_a_gap_and_no_more() {
    let api = Api::default();
    let both = ["a", "b"].map(|name| pod(name, if name == "a" { "10.0.0.1" } else { "10.0.0.2" }));
    api.with(|state| (state.pods, state.version) = (both.map(|pod| pod.to_string()).into(), 10));
    let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
    let names = Names::new(&metrics);
    let first = watch::start(&api.client().await, &names, &shutdown);
    assert_eq!(first.wait(Duration::from_secs(20)).await, [""; 0]);
    until("the pods are watched", || api.with(|state| state.watches.len() == 1)).await;

    api.go_down();
    let failed = || metrics.encode().contains("names_watch_failures_total{kind=\"Pod\"}");
    until("the watch fails", failed).await;
    assert_eq!(now(&names, "10.0.0.2").0, "b", "names stay while the api is away");
    // Meanwhile b goes and c comes, and the server forgets what it said before.
    let during_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let left = [pod("a", "10.0.0.1"), pod("c", "10.0.0.3")].map(|pod| pod.to_string());
    api.with(|state| {
        (state.pods, state.version, state.oldest, state.down) = (left.into(), 50, 50, false);
    });
    until("c is listed", || now(&names, "10.0.0.3").0 == "c").await;
    let at = |ip: &str| names.read().lookup(ip.parse().unwrap(), 1, during_us, "");
    assert_eq!((&*at("10.0.0.1").name, at("10.0.0.1").uncertain), ("a", false));
    assert_eq!((&*at("10.0.0.2").name, at("10.0.0.2").uncertain), ("b", true));
    assert_eq!(now(&names, "10.0.0.2").0, "");
    shutdown.cancel();
}

/// Memory that names of 10,000 pods may take.
const MEMORY_LIMIT_KIB: u64 = 100 * 1024;

/// Where the child process of the measurement finds the API.
const MEASURED_API: &str = "FLOWTRAIL_TEST_MEASURED_API";

#[tokio::test]
async fn ten_thousand_pods_take_less_than_100_mb() {
    if let Ok(uri) = std::env::var(MEASURED_API) {
        return measure(&uri).await;
    }
    let api = Api::default();
    let pods: Vec<_> = (0..10_000).map(crate::pods::realistic).collect();
    let bytes = pods.iter().map(String::len).sum::<usize>() / pods.len();
    assert!((7_000..10_000).contains(&bytes), "a pod is {bytes} bytes");
    api.with(|state| state.pods = pods);
    // A process of its own: the API's memory is not what is measured.
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "watch::ten_thousand_pods_take_less_than_100_mb", "--nocapture"])
        .env(MEASURED_API, api.serve().await)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(240), child).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find(|line| line.contains("10,000 pods")).unwrap();
    println!("{line} ({bytes} bytes of JSON each)");
}

/// Lists and then changes all pods, and compares the process's memory with what it was before.
async fn measure(uri: &str) {
    let client = crate::kubernetes::client(uri);
    let before = memory_kib();
    let names = Names::new(&Metrics::new());
    let shutdown = CancellationToken::new();
    let first = watch::start(&client, &names, &shutdown);
    assert_eq!(first.wait(Duration::from_secs(200)).await, [""; 0]);
    assert_eq!(names.read().counts().objects, 10_000);
    let [resident, peak] = [0, 1].map(|of| memory_kib()[of] - before[of].min(before[0]));
    println!("10,000 pods: {resident} KiB resident, {peak} KiB at the peak, more than before");
    assert!(peak < MEMORY_LIMIT_KIB, "{peak} KiB at the peak");
    shutdown.cancel();
}

/// Resident now, and at the most (proc(5): VmRSS, VmHWM).
fn memory_kib() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    ["VmRSS:", "VmHWM:"].map(|field| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}
