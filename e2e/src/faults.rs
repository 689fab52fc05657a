//! A door to ClickHouse that fails as a test tells it: what comes through is slow, refused, done without an
//! answer, or the death of the process that asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

/// Largest statement that is carried: a chunk in these tests is far smaller.
const MAX_BYTES: usize = 256 << 20;

/// What becomes of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done and answered.
    None,
    /// The same, after a while.
    Slow(Duration),
    /// An error is the answer; nothing is done.
    Refuse,
    /// It is done, and the connection breaks before the answer.
    LoseAnswer,
    /// A process is killed; nothing is done.
    KillBefore(u32),
    /// It is done, and the process is killed before the answer.
    KillAfter(u32),
    /// A process is killed; what it asked for is done after a while all the same.
    KillAndDoLater(u32, Duration),
    /// A process is stopped (SIGSTOP) before anything is done; once it runs again, the insert goes on.
    StopBefore(u32),
}

/// Tells what is to become of an insert into a table.
type Plan = Box<dyn FnMut(&str) -> Fault + Send>;

/// The door. Closed when dropped.
pub struct Door {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    _runtime: Runtime,
}

struct Behind {
    plan: Arc<Mutex<Plan>>,
    store: String,
}

impl Door {
    /// Opens a door to a store; at first everything passes.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn open(store: &str) -> Result<Self> {
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let plan: Arc<Mutex<Plan>> = Arc::new(Mutex::new(Box::new(|_| Fault::None)));
        let behind = Arc::new(Behind { plan: Arc::clone(&plan), store: store.to_owned() });
        let router = Router::new().fallback(carry).with_state(behind);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, plan, _runtime: runtime })
    }

    /// Where to knock.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, what becomes of inserts.
    pub fn plan(&self, plan: impl FnMut(&str) -> Fault + Send + 'static) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(plan);
    }
}

async fn carry(State(behind): State<Arc<Behind>>, request: Request) -> Response {
    // Goes on when the client is gone, as a server does that has the whole statement.
    let carried = tokio::spawn(async move {
        let (parts, body) = request.into_parts();
        // A body that breaks off is of a process that died: its insert never was.
        let body = to_bytes(body, MAX_BYTES).await?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let fault = table_of(&path).map_or(Fault::None, |table| {
            let mut plan = behind.plan.lock().unwrap_or_else(PoisonError::into_inner);
            (*plan)(&table)
        });
        match fault {
            Fault::Slow(pause) => tokio::time::sleep(pause).await,
            Fault::Refuse => {
                return Ok((
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Code: 242. DB::Exception: told to refuse. (TABLE_IS_READ_ONLY)",
                )
                    .into_response());
            }
            Fault::KillBefore(process) => {
                signal(process, Signal::SIGKILL)?;
                return Err(anyhow!("the process is dead"));
            }
            Fault::KillAndDoLater(process, pause) => {
                signal(process, Signal::SIGKILL)?;
                tokio::time::sleep(pause).await;
            }
            Fault::StopBefore(process) => {
                signal(process, Signal::SIGSTOP)?;
                while is_stopped(process)? {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Fault::None | Fault::LoseAnswer | Fault::KillAfter(_) => {}
        }
        let url = format!("{}{path}", behind.store);
        let answer = tokio::task::spawn_blocking(move || forward(&url, &parts.headers, &body));
        let answer = answer.await??;
        match fault {
            Fault::LoseAnswer => Err(anyhow!("told to lose the answer")),
            Fault::KillAfter(process) => {
                signal(process, Signal::SIGKILL)?;
                Err(anyhow!("the process is dead"))
            }
            _ => Ok::<_, anyhow::Error>(answer),
        }
    });
    match carried.await {
        Ok(Ok(answer)) => answer,
        // What a broken connection is to the client: an answer without an end.
        Ok(Err(_)) | Err(_) => {
            let broken = futures::stream::once(async { Err::<bytes::Bytes, _>("broken off") });
            Body::from_stream(broken).into_response()
        }
    }
}

fn forward(url: &str, headers: &axum::http::HeaderMap, body: &[u8]) -> Result<Response> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder().http_status_as_error(false).build(),
    );
    let mut request = agent.post(url);
    for (name, value) in headers {
        if name == "content-type" || name.as_str().starts_with("x-clickhouse") {
            request = request.header(name, value);
        }
    }
    let mut answer = request.send(body).context("the store does not answer")?;
    let bytes = answer.body_mut().with_config().limit(MAX_BYTES as u64).read_to_vec()?;
    let mut response = (answer.status(), bytes).into_response();
    for (name, value) in answer.headers() {
        if name.as_str().starts_with("x-clickhouse") {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// The table that a request inserts into.
fn table_of(path: &str) -> Option<String> {
    let (_, query) = path
        .split_once("query=INSERT+INTO+")
        .or_else(|| path.split_once("query=INSERT%20INTO%20"))?;
    let name = query.replace("%60", "").replace('`', "");
    Some(name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
}

fn signal(process: u32, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(process.cast_signed()), signal)?)
}

/// Whether a process is stopped; not one that is gone.
fn is_stopped(process: u32) -> Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    Ok(stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')))
}
