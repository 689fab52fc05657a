//! The HTTP interface: routes, limits on what runs at once, and errors as problems.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::error;

use crate::answer::Graph;
use crate::coverage::{self, CoverageSteps};
use crate::diff::{self, Diff};
use crate::infinity;
use crate::metrics::QueryMetrics;
use crate::nodegraph;
use crate::params::{CoverageRequest, DiffRequest, GraphRequest, NodeGraphRequest, SeriesRequest};
use crate::pipeline;
use crate::problem::Problem;
use crate::store::{Store, StoreError};
use crate::timeseries::{self, TimeSeries};

/// What the routes share.
#[derive(Clone)]
pub(crate) struct App {
    store: Store,
    metrics: QueryMetrics,
    timeout: Duration,
    /// Graphs that may still be started: bounds what answers take here and in ClickHouse.
    permits: Arc<Semaphore>,
}

/// The parameters of a URL, in order.
type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The routes of the API.
pub(crate) fn router(app: App) -> Router {
    let metrics = app.metrics.clone();
    Router::new()
        .route("/api/v1/graph", get(graph))
        .route("/api/v1/graph/nodes", get(panel_nodes))
        .route("/api/v1/graph/edges", get(panel_edges))
        .route("/api/v1/coverage", get(coverage_steps))
        .route("/api/v1/diff", get(two_windows))
        .route("/api/v1/timeseries", get(timeseries))
        .route("/nodegraph/api/health", get(|| async { "ok\n" }))
        .route("/nodegraph/api/graph/fields", get(nodegraph_fields))
        .route("/nodegraph/api/graph/data", get(nodegraph_data))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(metrics, measure))
        .with_state(app)
}

impl App {
    pub(crate) fn new(
        store: Store,
        metrics: QueryMetrics,
        timeout: Duration,
        at_once: u16,
    ) -> Self {
        Self { store, metrics, timeout, permits: Arc::new(Semaphore::new(at_once.into())) }
    }

    async fn graph(&self, request: &GraphRequest) -> Result<Graph, Problem> {
        self.within_limits(pipeline::graph(&self.store, request)).await
    }

    /// Computes an answer if it may be started now and is there in time.
    async fn within_limits<T>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Problem> {
        let Ok(_permit) = self.permits.try_acquire() else {
            let detail = "as many graphs as allowed are being computed; try again in a moment, \
                          or raise --max-concurrent-queries";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail));
        };
        let _running = self.metrics.running();
        match timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(store_problem(&failure)),
            Err(_) => Err(too_slow()),
        }
    }
}

async fn graph(State(app): State<App>, pairs: Pairs) -> Result<Json<Graph>, Problem> {
    let request = GraphRequest::parse(given(pairs)?, now_ms())?;
    Ok(Json(app.graph(&request).await?))
}

async fn panel_nodes(
    State(app): State<App>,
    pairs: Pairs,
) -> Result<Json<Vec<infinity::PanelNode>>, Problem> {
    let request = GraphRequest::parse(given(pairs)?, now_ms())?;
    Ok(Json(infinity::nodes(&app.graph(&request).await?, request.stat)))
}

async fn panel_edges(
    State(app): State<App>,
    pairs: Pairs,
) -> Result<Json<Vec<infinity::PanelEdge>>, Problem> {
    let request = GraphRequest::parse(given(pairs)?, now_ms())?;
    Ok(Json(infinity::edges(&app.graph(&request).await?, request.stat)))
}

async fn coverage_steps(
    State(app): State<App>,
    pairs: Pairs,
) -> Result<Json<CoverageSteps>, Problem> {
    let request = CoverageRequest::parse(given(pairs)?, now_ms())?;
    Ok(Json(app.within_limits(coverage::steps(&app.store, &request)).await?))
}

async fn timeseries(State(app): State<App>, pairs: Pairs) -> Result<Json<TimeSeries>, Problem> {
    let request = SeriesRequest::parse(given(pairs)?, now_ms())?;
    Ok(Json(app.within_limits(timeseries::timeseries(&app.store, &request)).await?))
}

async fn two_windows(State(app): State<App>, pairs: Pairs) -> Result<Json<Diff>, Problem> {
    let request = DiffRequest::parse(given(pairs)?, now_ms())?;
    Ok(Json(app.within_limits(diff::diff(&app.store, &request)).await?))
}

async fn nodegraph_fields(pairs: Pairs) -> Result<Json<nodegraph::Fields>, Problem> {
    let request = NodeGraphRequest::parse(given(pairs)?, now_ms())?;
    Ok(Json(nodegraph::fields(request.stats_type)))
}

async fn nodegraph_data(
    State(app): State<App>,
    pairs: Pairs,
) -> Result<Json<nodegraph::Data>, Problem> {
    let request = NodeGraphRequest::parse(given(pairs)?, now_ms())?;
    let graph = app.graph(&request.graph).await?;
    Ok(Json(nodegraph::data(&graph, request.stats_type)))
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
    let response = next.run(request).await;
    let route = route.as_ref().map(MatchedPath::as_str);
    metrics.answered(route, response.status().as_u16(), started.elapsed());
    response
}

fn given(pairs: Pairs) -> Result<Vec<(String, String)>, Problem> {
    match pairs {
        Ok(Query(pairs)) => Ok(pairs),
        Err(rejection) => Err(Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())),
    }
}

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
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
            "too many edges to compute at once; narrow the window, filter, or use a coarser group_by",
        ),
        StoreError::Pattern(_) => Problem::new(
            StatusCode::BAD_REQUEST,
            "a regular expression uses what RE2 syntax does not have",
        ),
        StoreError::Refused(_) => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "ClickHouse refused the question; the log of flowtrail query says why",
        ),
    }
}

fn too_slow() -> Problem {
    let detail = "the answer took too long; narrow the window, filter, or raise --query-timeout";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

#[cfg(test)]
mod tests;
