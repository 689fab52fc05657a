//! Answers to the questions of dashboards, each computed once for all who ask the same of the same intervals.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::caching::{MAX_AGE, is_settled};
use crate::answer::{Coverage, Edge, Graph, Node, Window};
use crate::call;
use crate::coverage::{self, AgentCoverage, CoverageSteps};
use crate::params::{CoverageRequest, GraphRequest, SeriesRequest, ValuesRequest};
use crate::pipeline;
use crate::problem::Problem;
use crate::shared::{Computed, MOMENT, Shared};
use crate::store::StoreError;
use crate::timeseries::{self, Point, TimeSeries};
use crate::values::{self, Value, Values};
use crate::window::Requested;

/// What graphs that are kept take at most, and other answers of each kind: some hundred graphs of a thousand
/// edges.
const MAX_GRAPH_BYTES: usize = 96 << 20;
const MAX_BYTES: usize = 16 << 20;

/// A node, an edge, a point takes as much again in texts, about, which are not counted one by one.
const WITH_TEXTS: usize = 2;
/// A Service, port or address that is listed of one.
const LISTED_BYTES: usize = 64;

/// The answers that are kept, and those being computed. Clones share them.
#[derive(Clone)]
pub(super) struct Answers {
    /// With the length of intervals that each was computed for.
    graphs: Kept<(GraphRequest, u32), Graph>,
    series: Kept<SeriesRequest, TimeSeries>,
    coverage: Kept<CoverageRequest, CoverageSteps>,
    values: Kept<ValuesRequest, Values>,
}

type Kept<R, T> = Shared<R, Arc<T>, Problem>;

impl Default for Answers {
    fn default() -> Self {
        Self {
            graphs: Shared::new(MAX_GRAPH_BYTES),
            series: Shared::new(MAX_BYTES),
            coverage: Shared::new(MAX_BYTES),
            values: Shared::new(MAX_BYTES),
        }
    }
}

/// An answer as it is to one of those who asked for it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) window: Window,
    pub(super) graph: Arc<Graph>,
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        match self.graph.text(&self.window) {
            Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
            }
        }
    }
}

impl App {
    /// The graph is computed while the store says how long the window's intervals are, for what it said last: a cluster
    /// has one interval. Where it says otherwise now, it is computed again.
    pub(super) async fn graph(&self, request: GraphRequest) -> Result<Told, Problem> {
        let interval_s = self.in_time(self.store.interval_s(request.window));
        let Some(likely_s) = self.store.likely_interval_s() else {
            return self.graph_of_intervals(&request, interval_s.await?).await;
        };
        // The graph of another interval is not waited for.
        let confirmed = async {
            match interval_s.await {
                Ok(interval_s) if interval_s == likely_s => Ok(()),
                other => Err(other),
            }
        };
        let graph = async { Ok(self.graph_of_intervals(&request, likely_s).await) };
        match tokio::try_join!(graph, confirmed) {
            Ok((graph, ())) => graph,
            Err(interval_s) => self.graph_of_intervals(&request, interval_s?).await,
        }
    }

    async fn graph_of_intervals(
        &self,
        request: &GraphRequest,
        interval_s: u32,
    ) -> Result<Told, Problem> {
        let requested = request.window;
        let request = GraphRequest { window: requested.whole(interval_s), ..request.clone() };
        let compute = Box::pin(pipeline::graph(&self.store, &request, interval_s));
        let key = (request.clone(), interval_s);
        let graph = self.shared(&self.answers.graphs, &key, compute).await?;
        Ok(Told { window: asked_for(graph.window, requested), graph })
    }

    pub(super) async fn series(&self, mut request: SeriesRequest) -> Result<TimeSeries, Problem> {
        let requested = request.graph.window;
        request.graph.window = self.whole_intervals(requested).await?;
        let compute = Box::pin(timeseries::timeseries(&self.store, &request));
        let series = self.shared(&self.answers.series, &request, compute).await?;
        let window = asked_for(series.window, requested);
        Ok(TimeSeries { window, ..Arc::unwrap_or_clone(series) })
    }

    pub(super) async fn coverage(
        &self,
        mut request: CoverageRequest,
    ) -> Result<CoverageSteps, Problem> {
        let requested = request.window;
        request.window = self.whole_intervals(requested).await?;
        let compute = Box::pin(coverage::steps(&self.store, &request));
        let steps = self.shared(&self.answers.coverage, &request, compute).await?;
        let window = asked_for(steps.window, requested);
        Ok(CoverageSteps { window, ..Arc::unwrap_or_clone(steps) })
    }

    pub(super) async fn values(&self, mut request: ValuesRequest) -> Result<Values, Problem> {
        let requested = request.window;
        request.window = self.whole_intervals(requested).await?;
        let compute = Box::pin(values::values(&self.store, &request));
        let values = self.shared(&self.answers.values, &request, compute).await?;
        let window = asked_for(values.window, requested);
        Ok(Values { window, ..Arc::unwrap_or_clone(values) })
    }

    /// The whole intervals that a window touches. What is computed is theirs, and so the same for all windows
    /// that touch the same.
    async fn whole_intervals(&self, requested: Requested) -> Result<Requested, Problem> {
        let interval_s = self.in_time(self.store.interval_s(requested)).await?;
        Ok(requested.whole(interval_s))
    }

    /// What is kept of a question, or else computed within limits.
    async fn shared<R: Clone + PartialEq + Send + 'static, T: Dated + Send + Sync + 'static>(
        &self,
        kept: &Kept<R, T>,
        request: &R,
        compute: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Arc<T>, Problem> {
        let compute = async {
            let value = self.within_limits(compute).await?;
            let now_ms = chrono::Utc::now().timestamp_millis();
            let settled = is_settled(value.window(), value.coverage(), now_ms);
            let keep = if settled { MAX_AGE } else { MOMENT };
            let bytes = value.bytes();
            Ok(Computed { value: Arc::new(value), keep, bytes })
        };
        let (value, origin) = kept.get(request, compute).await?;
        call::origin(origin);
        self.metrics.came_from(origin);
        Ok(value)
    }
}

fn asked_for(window: Window, Requested { from_ms, to_ms }: Requested) -> Window {
    Window { requested_from: from_ms, requested_to: to_ms, ..window }
}

/// What tells how long an answer may be kept, and what that takes.
trait Dated {
    fn window(&self) -> &Window;
    fn coverage(&self) -> &Coverage;
    /// In memory, about.
    fn bytes(&self) -> usize;
}

fn of<T>(answer: &T, count: fn(&T) -> usize) -> usize {
    count(answer)
}

macro_rules! dated {
    ($answer:ty, $($list:ident: $item:ty),+ $(; $listed:expr)?) => {
        impl Dated for $answer {
            fn window(&self) -> &Window {
                &self.window
            }

            fn coverage(&self) -> &Coverage {
                &self.coverage
            }

            fn bytes(&self) -> usize {
                let items = 0 $(+ self.$list.len() * size_of::<$item>())+;
                let listed: usize = 0 $(+ of(self, $listed))?;
                WITH_TEXTS * items + LISTED_BYTES * listed
            }
        }
    };
}

dated!(Graph, nodes: Node, edges: Edge; |graph| {
    let of_nodes = graph.nodes.iter().map(|node| node.addresses.len());
    let of_edges = graph.edges.iter().map(|edge| edge.services.len() + edge.server_ports.len());
    of_nodes.chain(of_edges).sum::<usize>()
});
dated!(TimeSeries, points: Point);
dated!(CoverageSteps, points: AgentCoverage);
dated!(Values, values: Value);
