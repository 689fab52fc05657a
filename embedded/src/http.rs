//! The interface's port: who gets in, what runs, and the head of every answer.

mod head;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::net::names_this_machine;
use flowtrail_service::serve::serve_router;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use crate::access::Role;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::insert::Insert;
use crate::metrics::{EmbeddedMetrics, Kind, KindLabel};
use crate::request::{self, MAX_STATEMENT_BYTES, Plan};
use crate::{command, insert, query};
use head::Head;

/// Statements of clients run at once: two dashboards' panels and some tools. More are refused with
/// ClickHouse's code 202, and counted.
const MAX_RUNNING: usize = 64;

/// As many of this process's own services: ingest writes a few at a time. They are counted apart, so
/// that no client keeps rows from being inserted.
const MAX_RUNNING_SERVICES: usize = 16;

/// How long requests under way may take once the end is asked for. Ours are done by then; a client
/// that does not read, write or end must not keep the process from ending.
const DRAIN: Duration = Duration::from_secs(5);

/// Largest form, in bytes: a statement and as much again of parameters.
const MAX_FORM_BYTES: usize = 2 * MAX_STATEMENT_BYTES;

/// What requests share.
pub(crate) struct Server {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: EmbeddedMetrics,
    /// All that works on the engine: it is stopped when these have ended.
    pub(crate) jobs: TaskTracker,
    /// Only programs of this machine reach the port.
    loopback: bool,
    slots: Arc<Semaphore>,
    service_slots: Arc<Semaphore>,
    /// Query ids of what is running; as many as slots of both kinds at most.
    running: Arc<Mutex<HashSet<String>>>,
}

/// The right to run one statement, given back when dropped.
pub(crate) struct Ticket {
    pub(crate) role: Role,
    query_id: String,
    running: Arc<Mutex<HashSet<String>>>,
    metrics: EmbeddedMetrics,
    _slot: OwnedSemaphorePermit,
}

/// Serves ClickHouse's HTTP interface until the token is cancelled; then finishes the requests
/// under way and stops the engine. What takes longer than five seconds ends with the process.
/// The metrics are registered at once.
pub fn serve(
    engine: Engine,
    listener: TcpListener,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    if !loopback && engine.users().are_open() {
        warn!(
            "the embedded clickhouse listens beyond this machine, and its user default has no password: give it one with --clickhouse-default-password-file"
        );
    }
    let server = Arc::new(Server {
        engine: Arc::new(engine),
        metrics: EmbeddedMetrics::register(metrics),
        jobs: TaskTracker::new(),
        loopback,
        slots: Arc::new(Semaphore::new(MAX_RUNNING)),
        service_slots: Arc::new(Semaphore::new(MAX_RUNNING_SERVICES)),
        running: Arc::default(),
    });
    let router = Router::new()
        .route("/", get(statement).post(statement))
        .route("/ping", get(|| async { "Ok.\n" }))
        .fallback(|uri: Uri| async move {
            (StatusCode::NOT_FOUND, format!("There is no handle {}\n", uri.path()))
        })
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(Arc::clone(&server));
    async move {
        let overdue = {
            let shutdown = shutdown.clone();
            async move {
                shutdown.cancelled().await;
                sleep(DRAIN).await;
            }
        };
        let ended = async {
            serve_router(listener, router, shutdown).await;
            server.jobs.close();
            server.jobs.wait().await;
            let engine = Arc::clone(&server.engine);
            if let Err(error) = tokio::task::spawn_blocking(move || engine.stop()).await {
                error!(%error, "cannot stop the embedded engine");
            }
        };
        tokio::select! {
            () = ended => {}
            () = overdue => warn!("clients of the embedded engine do not end, stopping without them"),
        }
    }
}

async fn statement(State(server): State<Arc<Server>>, request: Request) -> Response {
    let answer = match refuse_foreign_pages(request.headers(), server.loopback) {
        Ok(()) => run(&server, request).await,
        Err(exception) => Err(exception),
    };
    answer.unwrap_or_else(|exception| {
        debug!(code = exception.code, error = exception.message, "statement failed");
        server.metrics.failed(&exception);
        exception.into_response()
    })
}

async fn run(server: &Arc<Server>, request: Request) -> Result<Response, Exception> {
    let Some((mut options, plan)) = request::read(request).await? else {
        return Ok("Ok.\n".into_response());
    };
    let admitted = server.engine.users().role(&options.credentials).and_then(|role| {
        plan.check(role)?;
        server.admit(role, options.query_id.take())
    });
    let ticket = match admitted {
        Ok(ticket) => ticket,
        Err(exception) => {
            plan.discard().await;
            return Err(exception);
        }
    };
    let kind = match plan {
        Plan::Query { .. } => Kind::Query,
        Plan::Insert { .. } => Kind::Insert,
        Plan::Command { .. } => Kind::Command,
    };
    server.metrics.requests.get_or_create(&KindLabel { kind }).inc();
    match plan {
        Plan::Query { head, tail, format } => {
            query::run(server, options, (head, tail), format, ticket).await
        }
        Plan::Insert { head, format, first, rest } => {
            insert::run(server, options, Insert { head, format, first, rest }, ticket).await
        }
        Plan::Command { text, format } => command::run(server, options, text, format, ticket).await,
    }
}

/// A page of another site, open in a browser on this machine, can post to a loopback port. Browsers
/// say so (W3C Fetch Metadata), and no other client does; but not if the page's own name leads
/// here (DNS rebinding): so a loopback port is addressed as an address, or as localhost.
fn refuse_foreign_pages(headers: &HeaderMap, loopback: bool) -> Result<(), Exception> {
    let refused = |why: &str| Err(Exception::new(497, "ACCESS_DENIED", why));
    match headers.get("sec-fetch-site") {
        Some(site) if site != "same-origin" && site != "none" => {
            return refused("Pages of other sites may not use this interface");
        }
        _ => {}
    }
    match headers.get(header::HOST) {
        Some(host) if loopback && !host.to_str().is_ok_and(names_this_machine) => {
            refused("This interface is on loopback: address it as localhost or by its IP address")
        }
        _ => Ok(()),
    }
}

impl Server {
    /// Admits a statement, under its id or a new one.
    fn admit(&self, role: Role, query_id: Option<String>) -> Result<Ticket, Exception> {
        let (slots, most) = match role {
            Role::Service => (&self.service_slots, MAX_RUNNING_SERVICES),
            Role::Client | Role::Reader => (&self.slots, MAX_RUNNING),
        };
        let slot = Arc::clone(slots).try_acquire_owned().map_err(|_| {
            self.metrics.refused.inc();
            Exception::new(
                202,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                &format!("{most} statements are running: try again when one has ended"),
            )
        })?;
        let query_id = query_id.unwrap_or_else(|| format!("{:016x}{:016x}", random(), random()));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.insert(query_id.clone()) {
            return Err(Exception::new(
                216,
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                &format!("Query with id = {query_id} is already running"),
            ));
        }
        self.metrics.running.inc();
        Ok(Ticket {
            role,
            query_id,
            running: Arc::clone(&self.running),
            metrics: self.metrics.clone(),
            _slot: slot,
        })
    }

    /// The head of an answer.
    pub(crate) fn head(&self, query_id: &str, format: &str) -> Head {
        Head::new(&self.engine, query_id, format)
    }
}

impl Ticket {
    pub(crate) fn query_id(&self) -> &str {
        &self.query_id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.metrics.running.dec();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.query_id);
    }
}

/// What a blocking job gave, were it even a panic.
pub(crate) fn joined<T>(job: Result<Result<T, Exception>, JoinError>) -> Result<T, Exception> {
    job.unwrap_or_else(|error| {
        error!(%error, "a statement's thread ended early");
        Err(Exception::new(1002, "UNKNOWN_EXCEPTION", "The statement's thread ended early"))
    })
}

/// A number that is not to be guessed from others, for ids and tags: the standard library seeds
/// each of these hashers from the system's randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}
