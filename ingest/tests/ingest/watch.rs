//! The live watch against a double of the Kubernetes API that speaks its list and watch protocol:
//! lists with a resourceVersion, watches as streams of JSON lines, bookmarks, ends and 410 Gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use flowtrail_ingest::names::Names;
use flowtrail_ingest::watch;
use flowtrail_service::metrics::Metrics;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The API's state: pods in earnest, all other kinds empty.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<ApiState>>);

#[derive(Default)]
struct ApiState {
    pods: Vec<Value>,
    version: u64,
    /// Open watches on pods.
    watches: Vec<mpsc::UnboundedSender<String>>,
    /// The versions that watches on pods began at.
    watched_from: Vec<String>,
    /// Kinds that the caller may not list.
    forbidden: Option<&'static str>,
}

impl Api {
    async fn serve(&self) -> kube::Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        kube::Client::try_from(kube::Config::new(uri.parse().unwrap())).unwrap()
    }

    fn with<T>(&self, change: impl FnOnce(&mut ApiState) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn send(&self, event: &str, mut object: Value) {
        self.with(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let line = format!("{}\n", json!({"type": event, "object": object}));
            state.watches.retain(|watch| watch.send(line.clone()).is_ok());
        });
    }
}

async fn answer(
    State(api): State<Api>,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let is_pods = uri.path() == "/api/v1/pods";
    api.with(|state| {
        if state.forbidden.is_some_and(|kind| uri.path().ends_with(kind)) {
            let status = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
                "message": "no", "metadata": {}});
            return (StatusCode::FORBIDDEN, status.to_string()).into_response();
        }
        if query.get("watch").is_none_or(|watch| watch == "false") {
            let items = if is_pods { state.pods.clone() } else { vec![] };
            let version = state.version.to_string();
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
            return list.to_string().into_response();
        }
        let (sender, receiver) = mpsc::unbounded_channel::<String>();
        if is_pods {
            state.watched_from.push(query.get("resourceVersion").cloned().unwrap_or_default());
            state.watches.push(sender);
        } else {
            // Nothing ever changes: the watch stays open.
            std::mem::forget(sender);
        }
        let lines = futures::stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        Body::from_stream(futures::StreamExt::map(lines, Ok::<_, std::io::Error>)).into_response()
    })
}

fn pod(name: &str, ip: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1",
            "managedFields": [{"manager": "kubelet"}], "annotations": {"a": "b"}},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIP": ip, "startTime": "2026-01-01T00:00:00Z"}})
}

/// What an address is now, and whether that is uncertain.
fn now(names: &Names, ip: &str) -> (String, bool) {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let identity = names.read().lookup(ip.parse().unwrap(), 1, now_us, "");
    (identity.name.to_string(), identity.uncertain)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut polls = 0;
    while !holds() {
        polls += 1;
        assert!(polls < 3_000, "waited 30 s until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn names_follow_the_cluster_through_ends_and_gaps() {
    let api = Api::default();
    api.with(|state| (state.pods, state.version) = (vec![pod("a", "10.0.0.1")], 10));
    let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
    let names = Names::new(&metrics);
    let client = api.serve().await;
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
    api.with(|state| (state.pods, state.version) = (vec![pod("c", "10.0.0.3")], 90));
    let before_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410});
    api.send("ERROR", gone);
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
    api.with(|state| (state.pods, state.forbidden) = (vec![pod("a", "10.0.0.1")], Some("jobs")));
    let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
    let names = Names::new(&metrics);
    let first = watch::start(&api.serve().await, &names, &shutdown);
    assert_eq!(first.wait(Duration::from_secs(2)).await, ["Job"]);
    assert_eq!(now(&names, "10.0.0.1").0, "a");
    assert!(metrics.encode().contains("flowtrail_ingest_names_watch_failures_total{kind=\"Job\"}"));
    shutdown.cancel();
}
