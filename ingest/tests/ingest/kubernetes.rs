//! A double of the Kubernetes API that speaks its list and watch protocol: lists in pages with a
//! resourceVersion, watches as streams of JSON lines, bookmarks, ends, 410 Gone, and an outage.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// The API's state: pods in earnest, all other kinds empty.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<ApiState>>);

#[derive(Default)]
pub(crate) struct ApiState {
    /// Pods as JSON texts.
    pub(crate) pods: Vec<String>,
    pub(crate) version: u64,
    /// Open watches on pods.
    pub(crate) watches: Vec<mpsc::UnboundedSender<io::Result<String>>>,
    /// The versions that watches on pods began at.
    pub(crate) watched_from: Vec<String>,
    /// Pages of pods asked for.
    pub(crate) pages: usize,
    /// What was asked for: the path, and whether to watch it.
    pub(crate) asked: BTreeSet<(String, bool)>,
    /// Kinds that the caller may not list.
    pub(crate) forbidden: Option<&'static str>,
    /// The API server is away.
    pub(crate) down: bool,
    /// The oldest version that a watch may begin at.
    pub(crate) oldest: u64,
}

impl Api {
    /// Serves it on a port of its own, at the address returned.
    pub(crate) async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        uri
    }

    /// Serves it, and a client of it.
    pub(crate) async fn client(&self) -> kube::Client {
        client(&self.serve().await)
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut ApiState) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// Puts a version on an object and tells all watches of it.
    pub(crate) fn send(&self, event: &str, mut object: Value) {
        self.with(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let line = format!("{}\n", json!({"type": event, "object": object}));
            state.watches.retain(|watch| watch.send(Ok(line.clone())).is_ok());
        });
    }

    /// The server breaks off all it was saying and answers 503 from now on.
    pub(crate) fn go_down(&self) {
        self.with(|state| {
            state.down = true;
            for watch in state.watches.drain(..) {
                let _ = watch.send(Err(io::Error::other("the server is restarting")));
            }
        });
    }
}

pub(crate) fn client(uri: &str) -> kube::Client {
    let mut config = kube::Config::new(uri.parse().unwrap());
    flowtrail_ingest::watch::prepare(&mut config);
    kube::Client::try_from(config).unwrap()
}

async fn answer(
    State(api): State<Api>,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let is_pods = uri.path() == "/api/v1/pods";
    api.with(|state| {
        let failure = |code: StatusCode, reason| {
            let status = json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code.as_u16(),
                "message": "no", "metadata": {}});
            (code, status.to_string()).into_response()
        };
        if state.down {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
        }
        if state.forbidden.is_some_and(|kind| uri.path().ends_with(kind)) {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        let is_watch = query.get("watch").is_some_and(|watch| watch != "false");
        state.asked.insert((uri.path().to_owned(), is_watch));
        if !is_watch {
            return if is_pods { state.page(&query) } else { list(state.version, "", "") };
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        if is_pods {
            let from = query.get("resourceVersion").cloned().unwrap_or_default();
            if from.parse::<u64>().unwrap() < state.oldest {
                sender.send(Ok(format!("{}\n", json!({"type": "ERROR", "object": gone()})))).unwrap();
            }
            state.watched_from.push(from);
            state.watches.push(sender);
        } else {
            // Nothing ever changes: the watch stays open.
            std::mem::forget(sender);
        }
        let lines = futures::stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        Body::from_stream(lines).into_response()
    })
}

impl ApiState {
    /// The page of a list that `continue` and `limit` name.
    fn page(&mut self, query: &HashMap<String, String>) -> Response {
        self.pages += 1;
        let number = |name| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let from = number("continue").unwrap_or(0).min(self.pods.len());
        let to = number("limit").map_or(self.pods.len(), |limit| from + limit).min(self.pods.len());
        let more = if to < self.pods.len() { to.to_string() } else { String::new() };
        list(self.version, &more, &self.pods[from..to].join(","))
    }
}

fn list(version: u64, more: &str, items: &str) -> Response {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": more});
    format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":[{items}]}}"#)
        .into_response()
}

/// What the API says when a version is too old.
pub(crate) fn gone() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410})
}

/// A running pod.
pub(crate) fn pod(name: &str, ip: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1",
            "managedFields": [{"manager": "kubelet"}], "annotations": {"a": "b"}},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIP": ip, "startTime": "2026-01-01T00:00:00Z"}})
}
