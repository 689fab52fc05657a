//! The pipeline: request → window → plan → filter → sql → edges → graph → answer.

use crate::answer::Graph;
use crate::graph::{self, Rows};
use crate::params::GraphRequest;
use crate::planner::Tier;
use crate::store::{Store, StoreError};
use crate::window::starts_minute;

/// Computes what a request asks for.
///
/// Connections in `[a, c)` are those open at `a`, and those opened or joined since. At a minute
/// boundary the rows say themselves what was open; elsewhere the store is asked.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn graph(store: &Store, request: &GraphRequest) -> Result<Graph, StoreError> {
    let GraphRequest { window: requested, group_by, filter, stat, limit } = request;

    let plan = store.plan(*requested).await?;
    let bounds = plan.bounds;
    let (coverage, complete_until_s) = store.coverage(bounds).await?;
    let window = bounds.answer(*requested, complete_until_s);
    // Beyond what has been reported nothing is known to be open.
    let end_s =
        if coverage.agents > 0 { (window.complete_until / 1_000) as u32 } else { bounds.to_s };

    let opening = async {
        if starts_minute(bounds.from_s) {
            Ok(Vec::new())
        } else {
            store.open_at(*group_by, filter, bounds.from_s, Tier::Raw).await
        }
    };
    let (edges, open_at_start, open_at_end) = tokio::try_join!(
        store.edges(*group_by, filter, &plan),
        opening,
        store.open_at(*group_by, filter, end_s, plan.end_tier),
    )?;

    let rows = Rows { edges, open_at_start, open_at_end };
    let (nodes, edges) = graph::graph(rows, *group_by, &filter.q, *stat, *limit, window.from);
    Ok(Graph { window, coverage, nodes, edges })
}
