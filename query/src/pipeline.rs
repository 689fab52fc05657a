//! The pipeline: request → window → plan → filter → sql → edges → graph → answer.

use crate::answer::{Coverage, Graph};
use crate::graph::Folded;
use crate::params::{GraphRequest, GroupBy};
use crate::planner::{Plan, Tier};
use crate::sql::{Kept, OpenRow};
use crate::store::{Store, StoreError};
use crate::window::Bounds;

/// Pods and addresses come and go. In so many seconds more pairs of them talk than are folded here as fast as
/// in the store, or at all.
const MANY_PAIRS_S: u32 = 12 * 3_600;

/// Computes what a request asks for.
///
/// Connections in `[a, c)` are those open at `a`, and those opened or joined since. At a minute
/// boundary the rows say themselves what was open; elsewhere the store is asked.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn graph(store: &Store, request: &GraphRequest) -> Result<Graph, StoreError> {
    Ok(seen(store, request).await?.0)
}

/// Who saw a window.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Agents that reported on it, by name.
    pub(crate) agents: Vec<String>,
    /// They saw all there was, until `complete_until`.
    pub(crate) is_whole: bool,
}

/// The same, and who saw it.
pub(crate) async fn seen(
    store: &Store,
    request: &GraphRequest,
) -> Result<(Graph, Seen), StoreError> {
    let GraphRequest { window: requested, group_by, .. } = request;

    let plan = store.plan(*requested).await?;
    let ranked_first = matches!(group_by, GroupBy::Pod | GroupBy::Ip) && {
        let Bounds { from_s, to_s, .. } = plan.bounds;
        to_s - from_s >= MANY_PAIRS_S
    };
    if ranked_first {
        let kept = store.kept(request, &plan).await?;
        return computed(store, request, &plan, kept.as_ref()).await;
    }
    match computed(store, request, &plan, None).await {
        Err(StoreError::TooLarge(error)) => match store.kept(request, &plan).await? {
            Some(kept) => computed(store, request, &plan, Some(&kept)).await,
            None => Err(StoreError::TooLarge(error)),
        },
        answer => answer,
    }
}

/// The graph of a plan, with the edges that are `kept` if not all are.
async fn computed(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
) -> Result<(Graph, Seen), StoreError> {
    let GraphRequest { window: requested, group_by, filter, stat, limit } = request;
    let mut folded = Folded::new(*group_by);
    let ((), reported) = tokio::try_join!(
        store.edges(*group_by, filter, plan, kept, |row| folded.add_edge(row)),
        reported(store, request, plan, kept),
    )?;
    let Reported { coverage, seen, complete_until_s, open_at_start, open_at_end } = reported;
    open_at_start.into_iter().for_each(|row| folded.add_open_at_start(row));
    open_at_end.into_iter().for_each(|row| folded.add_open_at_end(row));

    let window = plan.bounds.answer(*requested, complete_until_s);
    let (nodes, edges) = folded.graph(&filter.q, *stat, *limit, window.from);
    Ok((Graph { window, coverage, nodes, edges }, seen))
}

/// What the agents reported, and what is open as far as they did.
struct Reported {
    coverage: Coverage,
    seen: Seen,
    complete_until_s: u32,
    open_at_start: Vec<OpenRow>,
    open_at_end: Vec<OpenRow>,
}

async fn reported(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
) -> Result<Reported, StoreError> {
    let GraphRequest { group_by, filter, .. } = request;
    let bounds = plan.bounds;
    let reports = store.reports(&filter.scope, bounds).await?;
    let complete_until_s = reports.complete_until_s;
    // Beyond what has been reported nothing is known to be open.
    let end_s = if reports.coverage.agents > 0 { complete_until_s } else { bounds.to_s };

    let from_rows = plan.end_tier == Tier::Raw;
    let start_s = plan.open_at_start_s();
    let mut instants: Vec<_> = start_s.into_iter().chain(from_rows.then_some(end_s)).collect();
    instants.dedup();
    let at_end = async {
        if from_rows {
            return Ok(Vec::new());
        }
        store.open_at_boundary(*group_by, filter, end_s, plan.end_tier, kept).await
    };
    let (open, mut open_at_end, blind) = tokio::try_join!(
        store.open_at(*group_by, filter, &instants, kept),
        at_end,
        store.blind_spots(&filter.scope, bounds, &reports),
    )?;

    let at = |time_s: u32| open.iter().filter(move |row| row.at_s == time_s).cloned();
    let open_at_start = start_s.into_iter().flat_map(at).collect();
    if from_rows {
        open_at_end = at(end_s).collect();
    }
    let seen = Seen { agents: reports.agents.clone(), is_whole: reports.is_whole };
    let coverage = reports.with_blind_spots(blind);
    Ok(Reported { coverage, seen, complete_until_s, open_at_start, open_at_end })
}
