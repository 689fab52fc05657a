//! The pipeline: request → window → plan → filter → sql → edges → graph → answer.

use bytes::Bytes;
use chrono::Utc;

use crate::answer::{Coverage, Graph};
use crate::graph::Folded;
use crate::params::{GraphRequest, GroupBy};
use crate::planner::{Plan, Tier, plan};
use crate::sql::{Kept, Malformed, OpenRow, parse_rows};
use crate::store::{Store, StoreError};
use crate::window::{Bounds, has_settled, ms};

/// Pods and addresses come and go. In so many seconds more pairs of them talk than are folded here as fast as
/// in the store, or at all.
const MANY_PAIRS_S: u32 = 12 * 3_600;

/// Computes what a request asks for, of a window whose intervals are of `interval_s` ([`Store::interval_s`]).
///
/// Connections in `[a, c)` are those open at `a`, and those opened or joined since. At a minute
/// boundary the rows say themselves what was open; elsewhere the store is asked.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn graph(
    store: &Store,
    request: &GraphRequest,
    interval_s: u32,
) -> Result<Graph, StoreError> {
    let plan = plan(request.window, interval_s, &store.held().await?);
    Ok(seen(store, request, &plan).await?.0)
}

/// Who saw a window.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Agents that reported on it, by name.
    pub(crate) agents: Vec<String>,
    /// They saw all there was, until `complete_until`.
    pub(crate) is_whole: bool,
}

/// The same of a plan, and who saw it.
pub(crate) async fn seen(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
) -> Result<(Graph, Seen), StoreError> {
    let ranked_first = matches!(request.group_by, GroupBy::Pod | GroupBy::Ip) && {
        let Bounds { from_s, to_s, .. } = plan.bounds;
        to_s - from_s >= MANY_PAIRS_S
    };
    if ranked_first {
        let kept = store.kept(request, plan).await?;
        return computed(store, request, plan, kept.as_ref()).await;
    }
    match computed(store, request, plan, None).await {
        Err(StoreError::TooLarge(error)) => match store.kept(request, plan).await? {
            Some(kept) => computed(store, request, plan, Some(&kept)).await,
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
    let (edges, reported) = tokio::try_join!(
        store.edges(*group_by, filter, plan, kept),
        reported(store, request, plan, kept),
    )?;
    let Reported { coverage, seen, complete_until_s, open } = reported;
    let mut folded = Folded::new(*group_by);
    for row in parse_rows(&edges)? {
        folded.add_edge(row?)?;
    }
    open.fold(&mut folded)?;

    let window = plan.bounds.answer(*requested, complete_until_s);
    let (nodes, edges) = folded.graph(&filter.q, *stat, *limit, window.from);
    Ok((Graph { window, coverage, nodes, edges }, seen))
}

/// What the agents reported, and what is open as far as they did.
struct Reported {
    coverage: Coverage,
    seen: Seen,
    complete_until_s: u32,
    open: Open,
}

async fn reported(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
) -> Result<Reported, StoreError> {
    let (scope, bounds) = (&request.filter.scope, plan.bounds);
    // Long after a window all of it has been reported on, nearly always: what is open at its end is asked beside the
    // reports. Where rows are still catching up then, it may lack those that come meanwhile, as its edges do.
    let is_past = has_settled(ms(bounds.to_s), Utc::now().timestamp_millis());
    let at_end = async {
        if !is_past {
            return Ok(None);
        }
        open(store, request, plan, kept, bounds.to_s).await.map(Some)
    };
    let at_reported = async {
        let reports = store.reports(scope, bounds).await?;
        // Beyond what has been reported nothing is known to be open.
        let end_s =
            if reports.coverage.agents > 0 { reports.complete_until_s } else { bounds.to_s };
        let earlier = async {
            if is_past && end_s == bounds.to_s {
                return Ok(None);
            }
            open(store, request, plan, kept, end_s).await.map(Some)
        };
        let (open, blind) = tokio::try_join!(earlier, store.blind_spots(scope, bounds, &reports))?;
        Ok((reports, open, blind))
    };
    let (at_end, (reports, at_reported, blind)) = tokio::try_join!(at_end, at_reported)?;
    let open = at_reported.or(at_end).unwrap_or_default();
    let complete_until_s = reports.complete_until_s;

    let seen = Seen { agents: reports.agents.clone(), is_whole: reports.is_whole };
    let coverage = reports.with_blind_spots(blind);
    Ok(Reported { coverage, seen, complete_until_s, open })
}

/// What is open at a window's start, where its sums do not have it, and at its end.
#[derive(Default)]
struct Open {
    start_s: Option<u32>,
    end_s: Option<u32>,
    /// At whichever of these there are.
    at_instants: Option<Bytes>,
    /// At the end, where rollups tell it.
    at_boundary: Option<Bytes>,
}

impl Open {
    fn fold<'a>(&'a self, folded: &mut Folded<'a>) -> Result<(), Malformed> {
        if let Some(answer) = &self.at_instants {
            for row in parse_rows::<OpenRow<'_>>(answer)? {
                let row = row?;
                let at = Some(row.at_s);
                folded.add_open(row, at == self.start_s, at == self.end_s)?;
            }
        }
        if let Some(answer) = &self.at_boundary {
            for row in parse_rows(answer)? {
                folded.add_open(row?, false, true)?;
            }
        }
        Ok(())
    }
}

/// Asks for what is open at a window's start, where its sums do not have it, and at its end or `end_s`.
async fn open(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
    end_s: u32,
) -> Result<Open, StoreError> {
    let GraphRequest { group_by, filter, .. } = request;
    let start_s = plan.open_at_start_s();
    let rows_tell_end = plan.end_tier == Tier::Raw;
    let at_end_s = rows_tell_end.then_some(end_s);
    let mut instants: Vec<_> = start_s.into_iter().chain(at_end_s).collect();
    instants.dedup();
    let at_instants = async {
        if instants.is_empty() {
            return Ok(None);
        }
        store.open_at(*group_by, filter, &instants, kept).await.map(Some)
    };
    let at_boundary = async {
        if rows_tell_end {
            return Ok(None);
        }
        let (at_s, tier) = (plan.open_until_s(end_s), plan.end_tier);
        store.open_at_boundary(*group_by, filter, at_s, tier, kept).await.map(Some)
    };
    let (at_instants, at_boundary) = tokio::try_join!(at_instants, at_boundary)?;
    Ok(Open { start_s, end_s: at_end_s, at_instants, at_boundary })
}
