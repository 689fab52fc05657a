//! Names of containers, against a double of the Docker Engine API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flowtrail_ingest::containers;
use flowtrail_ingest::names::Names;
use flowtrail_schema::row::EntityKind;
use flowtrail_service::metrics::Metrics;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::docker::{Engine, NETWORK};
use crate::pipeline::until;

/// An engine whose containers are followed.
struct Followed {
    engine: Engine,
    names: Names,
    metrics: Metrics,
    _folder: TempDir,
    _end: DropGuard,
}

impl Followed {
    /// Follows an engine after something was done to it.
    async fn start(before: impl FnOnce(&Engine)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::start(folder.path());
        before(&engine);
        let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
        let names = Names::new(&metrics);
        let listed = containers::start(&engine.address(), &names, &shutdown);
        tokio::time::timeout(Duration::from_secs(20), listed).await.unwrap().unwrap();
        until("events are followed", || engine.with(|state| state.streams.len() == 1)).await;
        Self { engine, names, metrics, _folder: folder, _end: shutdown.drop_guard() }
    }

    /// What an address was, and whether that is uncertain.
    fn at(&self, ip: &str, instant_us: u64) -> (String, bool) {
        let identity = self.names.read().lookup(ip.parse().unwrap(), 80, instant_us, "");
        (identity.name.to_string(), identity.uncertain)
    }

    fn is_now(&self, ip: &str, name: &str) -> bool {
        self.at(ip, now_us()) == (name.to_owned(), false)
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.encode().contains(&format!("flowtrail_ingest_names_{line}"))
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

#[tokio::test]
async fn names_follow_containers_that_come_and_go() {
    let followed = Followed::start(|engine| drop(engine.run("web", "172.18.0.2"))).await;
    let engine = &followed.engine;
    assert!(followed.is_now("172.18.0.2", "shop-web-1"));
    assert!(followed.is_now("172.18.0.1", "laptop"), "the gateway is the host");
    let web = followed.names.read().lookup("172.18.0.2".parse().unwrap(), 80, now_us(), "");
    assert_eq!((web.kind, &*web.namespace, &*web.node), (EntityKind::Pod, "shop", "laptop"));
    assert_eq!((&*web.workload, &*web.workload_kind), ("web", "ComposeService"));

    let api = engine.run("api", "172.18.0.3");
    until("the api is named", || followed.is_now("172.18.0.3", "shop-api-1")).await;
    let while_api_us = now_us();
    engine.remove(&api);
    until("the api is gone", || followed.is_now("172.18.0.3", "")).await;
    engine.run("db", "172.18.0.3");
    until("the db is named", || followed.is_now("172.18.0.3", "shop-db-1")).await;
    assert_eq!(followed.at("172.18.0.3", while_api_us), ("shop-api-1".to_owned(), false));
    assert!(
        !followed.counted("undecodable_total 1") && followed.counted("container_lists_total 1")
    );
}

#[tokio::test]
async fn a_container_in_another_network_has_its_addresses_too() {
    let followed = Followed::start(|_| {}).await;
    let id = followed.engine.run("web", "172.18.0.2");
    until("it is named", || followed.is_now("172.18.0.2", "shop-web-1")).await;
    followed.engine.change(&id, |container| {
        container["NetworkSettings"]["Networks"]["six"] = json!({"NetworkID": "c2cfc4", "EndpointID": "ab",
            "IPAddress": "172.30.0.9", "GlobalIPv6Address": "fd00:30::9", "Gateway": "", "IPv6Gateway": ""});
    });
    let attributes = json!({"container": id});
    followed.engine.tell("network", "connect", "c2cfc4", attributes.clone());
    until("it has both families", || followed.is_now("fd00:30::9", "shop-web-1")).await;
    assert!(followed.is_now("172.30.0.9", "shop-web-1"));
    let connected_us = now_us();
    followed.engine.change(&id, |container| {
        container["NetworkSettings"]["Networks"].as_object_mut().unwrap().remove("six");
        container["Name"] = json!("/renamed");
    });
    followed.engine.tell("network", "disconnect", "c2cfc4", attributes);
    until("it left", || followed.is_now("fd00:30::9", "")).await;
    assert_eq!(followed.at("fd00:30::9", connected_us), ("shop-web-1".to_owned(), false));
    followed.engine.tell("container", "rename", &id, json!({"oldName": "/shop-web-1"}));
    until("it has another name", || followed.is_now("172.18.0.2", "renamed")).await;
}

#[tokio::test]
async fn an_engine_that_restarts_is_a_gap_and_no_more() {
    let followed = Followed::start(|_| {}).await;
    let engine = &followed.engine;
    engine.run("kept", "172.18.0.2");
    let gone = engine.run("gone", "172.18.0.3");
    until("both are named", || followed.is_now("172.18.0.3", "shop-gone-1")).await;
    engine.go_down();
    until("that is noticed", || followed.counted("container_failures_total 1")).await;
    assert!(followed.is_now("172.18.0.3", "shop-gone-1"), "names stay while the engine is away");
    let during_us = now_us();
    engine.remove(&gone);
    engine.run("new", "172.18.0.4");
    engine.come_up();
    until("the new one is listed", || followed.is_now("172.18.0.4", "shop-new-1")).await;
    assert_eq!(followed.at("172.18.0.2", during_us), ("shop-kept-1".to_owned(), false));
    assert_eq!(followed.at("172.18.0.3", during_us), ("shop-gone-1".to_owned(), true));
    assert!(followed.is_now("172.18.0.3", ""));
    until("events are followed", || engine.with(|state| state.streams.len() == 1)).await;
    engine.run("later", "172.18.0.5");
    until("events are heard again", || followed.is_now("172.18.0.5", "shop-later-1")).await;
}

#[tokio::test]
async fn a_container_that_cannot_be_read_does_not_stop_the_others() {
    let followed = Followed::start(|engine| {
        let bad = engine.run("bad", "172.18.0.2");
        engine.change(&bad, |container| container["NetworkSettings"]["Networks"] = json!(7));
        let worse = engine.run("worse", "172.18.0.999");
        engine.change(&worse, |container| container["State"]["Health"] = json!([]));
        engine.run("address", "172.18.0.999");
        engine.run("web", "172.18.0.3");
    })
    .await;
    assert!(followed.is_now("172.18.0.3", "shop-web-1"));
    assert!(followed.counted("undecodable_total 3"), "{}", followed.metrics.encode());

    // In an event: what was known of it stays, and the events after it are heard.
    let engine = &followed.engine;
    let web = engine.with(|state| {
        let mut all = state.containers.iter();
        all.find(|(_, container)| container["Name"] == "/shop-web-1").unwrap().0.clone()
    });
    engine.change(&web, |container| container["Config"] = json!("text"));
    engine.tell("container", "rename", &web, json!({}));
    let api = engine.run("api", "172.18.0.4");
    until("the api is named", || followed.is_now("172.18.0.4", "shop-api-1")).await;
    assert!(followed.is_now("172.18.0.3", "shop-web-1") && followed.counted("undecodable_total 4"));

    // One that is gone before anybody asks has no name, and is counted.
    engine.with(|state| state.containers.remove(&api));
    engine.tell("container", "die", &api, json!({}));
    let short = format!("{:064x}", 0xabc);
    engine.tell("network", "connect", NETWORK, json!({"container": short}));
    engine.tell("container", "start", &short, json!({}));
    engine.tell("container", "die", &short, json!({}));
    until("it is counted", || followed.counted("containers_missed_total 1")).await;
    assert!(followed.is_now("172.18.0.4", ""));
}

#[tokio::test]
async fn nothing_is_asked_for_that_changes_anything() {
    let followed = Followed::start(|engine| {
        engine.run("web", "172.18.0.2");
        engine.with(|state| state.forbidden = Some("/info"));
    })
    .await;
    assert!(followed.is_now("172.18.0.2", "shop-web-1"));
    assert!(followed.is_now("172.18.0.1", ""), "whoever refuses the host's name leaves it out");
    let known = ["/version", "/info", "/networks", "/containers/json", "/events"];
    for request in followed.engine.with(|state| state.requests.clone()) {
        let path = request.strip_prefix("GET ").unwrap();
        let inspects = path.starts_with("/containers/") && path.ends_with("/json");
        assert!(known.contains(&path) || inspects, "{request}");
    }
}
