//! The HTTP interface: routes, limits on what runs at once, and errors as problems.
//!
//! ```text
//! request ─ measure ─ guard ─ uniform ─ catch panics ─ compress ─ conditional ─ route
//! ```

mod admission;
mod answers;
mod asked;
mod caching;
mod door;
mod problems;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::time::timeout;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tracing::error;

use self::admission::Admission;
use self::answers::{Answers, Told};
pub(crate) use self::asked::Asked;
use self::caching::Answer;
use crate::access::Access;
use crate::answer::Graph;
use crate::call::Call;
use crate::connections::{self, Connections};
use crate::coverage::CoverageSteps;
use crate::diff::{self, Diff};
use crate::infinity;
use crate::metrics::QueryMetrics;
use crate::nodegraph;
use crate::openapi;
use crate::params::{
    ConnectionsRequest, CoverageRequest, DiffRequest, GraphRequest, NodeGraphRequest,
    SeriesRequest, Stat, ValuesRequest,
};
use crate::problem::Problem;
use crate::store::{Store, StoreError};
use crate::timeseries::TimeSeries;
use crate::values::Values;

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    store: Store,
    metrics: QueryMetrics,
    timeout: Duration,
    admission: Admission,
    answers: Answers,
}

/// The routes of the API, and those of operations, behind one door.
pub(crate) fn router(app: App, access: Access, operations: Router) -> Router {
    behind_the_door(routes(), app, access, operations)
}

fn behind_the_door(routes: Router<App>, app: App, access: Access, operations: Router) -> Router {
    let metrics = app.metrics.clone();
    routes
        .layer(middleware::from_fn_with_state(access.asks(), caching::conditional))
        // The least effort: the rest of a large answer takes longer than sending it.
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .layer(CatchPanicLayer::custom(problems::panicked))
        .layer(middleware::from_fn(problems::uniform))
        .with_state(app)
        .merge(operations)
        .layer(middleware::from_fn_with_state(access, door::guard))
        .layer(middleware::from_fn_with_state(metrics, measure))
}

fn routes() -> Router<App> {
    Router::new()
        .route("/api/v1/graph", get(graph))
        .route("/api/v1/graph/nodes", get(panel_nodes))
        .route("/api/v1/graph/edges", get(panel_edges))
        .route("/api/v1/coverage", get(coverage_steps))
        .route("/api/v1/diff", get(two_windows))
        .route("/api/v1/timeseries", get(timeseries))
        .route("/api/v1/values/{of}", get(choices))
        .route("/api/v1/connections", get(connections))
        .route("/nodegraph/api/health", get(|| async { "ok\n" }))
        .route("/nodegraph/api/graph/fields", get(nodegraph_fields))
        .route("/nodegraph/api/graph/data", get(nodegraph_data))
        .route("/openapi.json", get(openapi))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
}

impl App {
    pub(crate) fn new(
        store: Store,
        metrics: QueryMetrics,
        timeout: Duration,
        at_once: u16,
    ) -> Self {
        let admission = Admission::new(at_once, timeout);
        Self { store, metrics, timeout, admission, answers: Answers::default() }
    }

    /// A graph for a panel that takes a bare array, what it is ranked by, and whether it is settled.
    async fn panel(&self, asked: Asked) -> Result<(Arc<Graph>, Stat, bool), Problem> {
        let when = asked.when();
        let request = GraphRequest::parse(asked, when.now_ms)?;
        let stat = request.stat;
        let Told { window, graph } = self.graph(request).await?;
        let settled = when.is_settled(&window, &graph.coverage);
        Ok((graph, stat, settled))
    }

    /// Computes an answer once it may be started, if it is there in time.
    async fn within_limits<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Problem> {
        let _permit = self.admission.enter().await?;
        let _running = self.metrics.running();
        self.in_time(answer).await
    }

    /// An answer, if it is there in time.
    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Problem> {
        match timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(store_problem(&failure)),
            Err(_) => Err(too_slow()),
        }
    }
}

async fn graph(State(app): State<App>, asked: Asked) -> Result<Answer<Told>, Problem> {
    let when = asked.when();
    let body = app.graph(GraphRequest::parse(asked, when.now_ms)?).await?;
    Ok(Answer { settled: when.is_settled(&body.window, &body.graph.coverage), body })
}

async fn panel_nodes(
    State(app): State<App>,
    asked: Asked,
) -> Result<Answer<Json<Vec<infinity::PanelNode>>>, Problem> {
    let (graph, stat, settled) = app.panel(asked).await?;
    Ok(Answer { body: Json(infinity::nodes(&graph, stat)), settled })
}

async fn panel_edges(
    State(app): State<App>,
    asked: Asked,
) -> Result<Answer<Json<Vec<infinity::PanelEdge>>>, Problem> {
    let (graph, stat, settled) = app.panel(asked).await?;
    Ok(Answer { body: Json(infinity::edges(&graph, stat)), settled })
}

async fn coverage_steps(
    State(app): State<App>,
    asked: Asked,
) -> Result<Answer<Json<CoverageSteps>>, Problem> {
    let when = asked.when();
    let request = CoverageRequest::parse(asked, when.now_ms)?;
    let body = app.coverage(request).await?;
    Ok(Answer { settled: when.is_settled(&body.window, &body.coverage), body: Json(body) })
}

async fn timeseries(
    State(app): State<App>,
    asked: Asked,
) -> Result<Answer<Json<TimeSeries>>, Problem> {
    let when = asked.when();
    let request = SeriesRequest::parse(asked, when.now_ms)?;
    let body = app.series(request).await?;
    Ok(Answer { settled: when.is_settled(&body.window, &body.coverage), body: Json(body) })
}

async fn two_windows(State(app): State<App>, asked: Asked) -> Result<Json<Diff>, Problem> {
    let when = asked.when();
    let request = DiffRequest::parse(asked, when.now_ms)?;
    Ok(Json(app.within_limits(diff::diff(&app.store, &request)).await?))
}

async fn choices(
    State(app): State<App>,
    of: Result<Path<String>, PathRejection>,
    asked: Asked,
) -> Result<Answer<Json<Values>>, Problem> {
    let Path(of) =
        of.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let when = asked.when();
    let request = ValuesRequest::parse(&of, asked, when.now_ms)?;
    let body = app.values(request).await?;
    Ok(Answer { settled: when.is_settled(&body.window, &body.coverage), body: Json(body) })
}

async fn connections(State(app): State<App>, asked: Asked) -> Result<Json<Connections>, Problem> {
    let when = asked.when();
    let request = ConnectionsRequest::parse(asked, when.now_ms)?;
    Ok(Json(app.within_limits(connections::connections(&app.store, &request)).await?))
}

async fn nodegraph_fields(asked: Asked) -> Result<Json<nodegraph::Fields>, Problem> {
    let when = asked.when();
    let request = NodeGraphRequest::parse(asked, when.now_ms)?;
    Ok(Json(nodegraph::fields(request.stats_type)))
}

async fn nodegraph_data(
    State(app): State<App>,
    asked: Asked,
) -> Result<Answer<Json<nodegraph::Data>>, Problem> {
    let when = asked.when();
    let request = NodeGraphRequest::parse(asked, when.now_ms)?;
    let Told { window, graph } = app.graph(request.graph).await?;
    let settled = when.is_settled(&window, &graph.coverage);
    Ok(Answer { body: Json(nodegraph::data(&graph, request.stats_type)), settled })
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document())
}

async fn unknown_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(100).collect();
    let detail = format!("there is nothing at {path}; the graph is at /api/v1/graph");
    Problem::new(StatusCode::NOT_FOUND, detail)
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "all requests are GET")
}

/// Counts and times every answer.
async fn measure(State(metrics): State<QueryMetrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let call = Call::new(asks_anew(request.headers()));
    let mut response = call.answer(next.run(request)).await;
    let (route, took) = (route.as_ref().map(MatchedPath::as_str), started.elapsed());
    metrics.answered(route, response.status().as_u16(), took);
    if let Ok(timing) = HeaderValue::from_str(&call.header(took)) {
        response.headers_mut().insert("server-timing", timing);
    }
    response
}

/// Whether a caller wants no answer that is kept (RFC 9111, 5.2.1.4): to see what is there this instant.
fn asks_anew(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let mut words =
        values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case("no-cache"))
}

/// What the caller is told of a store's failure; the log has the store's own words.
fn store_problem(failure: &StoreError) -> Problem {
    let source = std::error::Error::source(failure).map(ToString::to_string).unwrap_or_default();
    error!(error = %failure, source, "query failed");

    match failure {
        StoreError::Away(_) | StoreError::Retention(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "cannot reach ClickHouse; check that it runs, then try again",
        ),
        StoreError::Busy(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ClickHouse is busy; try again in a moment",
        ),
        StoreError::TooSlow(_) => too_slow(),
        StoreError::TooLarge(_) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too much to compute at once; narrow the window, filter, use a coarser group_by for a graph, \
             or raise --query-max-memory-mib",
        ),
        StoreError::ReadsTooMuch(_) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too many rows to read for one answer; narrow the window, use a coarser group_by without \
             include, exclude or ip, or raise --query-max-rows",
        ),
        StoreError::Pattern(_) => Problem::new(
            StatusCode::BAD_REQUEST,
            "a regular expression uses what RE2 syntax does not have",
        ),
        StoreError::Refused(_) => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "ClickHouse refused the question; the log of flowtrail query says why",
        ),
        StoreError::Malformed(_) => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "ClickHouse's answer cannot be read; the log of flowtrail query says why",
        ),
    }
}

fn too_slow() -> Problem {
    let detail = "the answer took too long; narrow the window, filter, or raise --query-timeout";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

#[cfg(test)]
mod tests;
