//! A double of the Docker Engine API on a socket: what version 20.10 wrote (`docker/`), of containers that come
//! and go as a test says.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use flowtrail_ingest::containers::EngineAddress;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A network of the recorded ones, a bridge.
pub(crate) const NETWORK: &str = "2e84aece95b2499e62133a1b53484e10933d0c87d485aef46b77c69038a905ca";

/// The engine, and where it listens.
#[derive(Clone)]
pub(crate) struct Engine {
    state: Arc<Mutex<EngineState>>,
    socket: PathBuf,
}

#[derive(Default)]
pub(crate) struct EngineState {
    /// Running containers by id, as they are inspected.
    pub(crate) containers: BTreeMap<String, Value>,
    /// Open streams of events.
    pub(crate) streams: Vec<mpsc::UnboundedSender<io::Result<String>>>,
    /// What was asked for: method and path, without the version.
    pub(crate) requests: Vec<String>,
    /// A path that a proxy does not let through.
    pub(crate) forbidden: Option<&'static str>,
    server: Option<JoinHandle<()>>,
    ids: u64,
}

impl Engine {
    /// An engine that listens on a socket in the folder.
    pub(crate) fn start(folder: &Path) -> Self {
        let engine = Self { state: Arc::default(), socket: folder.join("docker.sock") };
        engine.come_up();
        engine
    }

    pub(crate) fn address(&self) -> EngineAddress {
        EngineAddress::Unix(self.socket.clone())
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut EngineState) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Breaks off all it was saying, and listens no more.
    pub(crate) fn go_down(&self) {
        let _ = std::fs::remove_file(&self.socket);
        self.with(|state| {
            state.server.take().unwrap().abort();
            state.streams.clear();
        });
    }

    pub(crate) fn come_up(&self) {
        let listener = tokio::net::UnixListener::bind(&self.socket).unwrap();
        let routes = Router::new().fallback(answer).with_state(self.clone());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        self.with(|state| state.server = Some(server));
    }

    /// Runs a container of the project `shop`, with an address in [`NETWORK`]. Returns its id.
    pub(crate) fn run(&self, service: &str, ip: &str) -> String {
        let (id, endpoint) = (self.id(), self.id());
        let mut container: Value =
            serde_json::from_str(include_str!("docker/inspect.json")).unwrap();
        container["Id"] = json!(id);
        container["Name"] = json!(format!("/shop-{service}-1"));
        container["Config"]["Labels"]["com.docker.compose.service"] = json!(service);
        container["State"]["StartedAt"] = json!(now().1);
        let mut place = container["NetworkSettings"]["Networks"]["shop_back"].take();
        place["EndpointID"] = json!(endpoint);
        place["IPAddress"] = json!(ip);
        container["NetworkSettings"]["Networks"] = json!({"shop_back": place});
        self.with(|state| state.containers.insert(id.clone(), container));
        self.tell("network", "connect", NETWORK, json!({"container": id, "type": "bridge"}));
        self.tell("container", "start", &id, json!({}));
        id
    }

    /// Changes a container that runs.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        self.with(|state| change(state.containers.get_mut(id).unwrap()));
    }

    /// Ends a container and removes it.
    pub(crate) fn remove(&self, id: &str) {
        self.with(|state| state.containers.remove(id));
        self.tell("container", "die", id, json!({"exitCode": "0"}));
        self.tell("network", "disconnect", NETWORK, json!({"container": id}));
        self.tell("container", "destroy", id, json!({}));
    }

    /// Tells all who listen of an event.
    pub(crate) fn tell(&self, kind: &str, action: &str, id: &str, attributes: Value) {
        let nanos = now().0;
        let event = json!({"Type": kind, "Action": action, "scope": "local",
            "Actor": {"ID": id, "Attributes": attributes}, "time": nanos / 1_000_000_000, "timeNano": nanos});
        self.with(|state| {
            state.streams.retain(|stream| stream.send(Ok(format!("{event}\n"))).is_ok());
        });
    }

    fn id(&self) -> String {
        self.with(|state| {
            state.ids += 1;
            format!("{:064x}", state.ids)
        })
    }
}

/// Now, in nanoseconds since the epoch and as the engine writes it.
fn now() -> (u64, String) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let time = k8s_openapi::jiff::Timestamp::from_nanosecond(since.as_nanos() as i128).unwrap();
    (since.as_nanos() as u64, time.to_string())
}

async fn answer(
    State(engine): State<Engine>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let path = uri.path().trim_start_matches("/v1.41");
    engine.with(|state| {
        state.requests.push(format!("{method} {path}"));
        let failure =
            |code: StatusCode| (code, json!({"message": "no"}).to_string()).into_response();
        if state.forbidden == Some(path) {
            return failure(StatusCode::FORBIDDEN);
        }
        match path {
            "/version" => {
                json!({"Version": "20.10.24", "ApiVersion": "1.41"}).to_string().into_response()
            }
            "/info" => json!({"ID": "3D7Z", "Name": "laptop"}).to_string().into_response(),
            "/networks" => include_str!("docker/networks.json").into_response(),
            "/containers/json" => state.list().into_response(),
            "/events" => {
                let filters: Value = serde_json::from_str(&query["filters"]).unwrap();
                assert_eq!(filters["type"], json!(["container", "network"]));
                assert!(query["since"].parse::<u64>().is_ok(), "{query:?}");
                let (sender, receiver) = mpsc::unbounded_channel();
                state.streams.push(sender);
                let lines = futures::stream::unfold(receiver, |mut receiver| async {
                    Some((receiver.recv().await?, receiver))
                });
                Body::from_stream(lines).into_response()
            }
            _ => {
                let id =
                    path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json"));
                match id.and_then(|id| state.containers.get(id)) {
                    Some(container) => container.to_string().into_response(),
                    None => failure(StatusCode::NOT_FOUND),
                }
            }
        }
    })
}

impl EngineState {
    fn list(&self) -> String {
        let mut summary: Value = serde_json::from_str(include_str!("docker/summary.json")).unwrap();
        let all = self.containers.iter().map(|(id, container)| {
            summary["Id"] = json!(id);
            summary["Names"] = json!([container["Name"]]);
            summary.clone()
        });
        Value::Array(all.collect()).to_string()
    }
}
