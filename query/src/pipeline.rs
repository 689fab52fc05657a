//! The pipeline: request → window → plan → filter → sql → edges → graph → answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use crate::answer::{Coverage, Graph};
use crate::graph::{Folded, Opened};
use crate::params::{GraphRequest, GroupBy};
use crate::planner::{Plan, Tier};
use crate::reports::GONE_AFTER_S;
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
        // The reports are asked for again below, and then are there.
        let reports = store.reports(&request.filter.scope, plan.bounds);
        let (kept, _) = tokio::try_join!(store.kept(request, &plan), reports)?;
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
    // Never waited for: all of this is one task.
    let folded = Mutex::new(Folded::new(*group_by));
    let ((), reported) = tokio::try_join!(
        store.edges(*group_by, filter, plan, kept, |row| of(&folded).add_edge(row)),
        reported(store, request, plan, kept, &folded),
    )?;
    let mut folded = folded.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Reported { coverage, seen, complete_until_s, open } = reported;
    open.at_start.iter().for_each(|opened| folded.add_open_at_start(opened));
    open.at_end.iter().for_each(|opened| folded.add_open_at_end(opened));

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
    folded: &Mutex<Folded>,
) -> Result<Reported, StoreError> {
    let (scope, bounds) = (&request.filter.scope, plan.bounds);
    // The end of a window in the past has been reported on, nearly always: what is open there is asked meanwhile.
    let early = async {
        match is_past(bounds.to_s) {
            true => open(store, request, plan, kept, bounds.to_s, folded).await.map(Some),
            false => Ok(None),
        }
    };
    let (reports, early) = tokio::try_join!(store.reports(scope, bounds), early)?;
    let complete_until_s = reports.complete_until_s;
    // Beyond what has been reported nothing is known to be open.
    let end_s = if reports.coverage.agents > 0 { complete_until_s } else { bounds.to_s };

    let opened = async {
        match early.filter(|_| end_s == bounds.to_s) {
            Some(open) => Ok(open),
            None => open(store, request, plan, kept, end_s, folded).await,
        }
    };
    let (open, blind) = tokio::try_join!(opened, store.blind_spots(scope, bounds, &reports))?;

    let seen = Seen { agents: reports.agents.clone(), is_whole: reports.is_whole };
    let coverage = reports.with_blind_spots(blind);
    Ok(Reported { coverage, seen, complete_until_s, open })
}

/// Whether agents' reports on an instant, in seconds since the epoch, have arrived by now, most likely.
fn is_past(time_s: u32) -> bool {
    let due_s = time_s.saturating_add(GONE_AFTER_S);
    UNIX_EPOCH.elapsed().is_ok_and(|now| now.as_secs() > due_s.into())
}

/// What is open at a window's ends.
#[derive(Default)]
struct Open {
    /// Without what the window's sums have.
    at_start: Vec<Opened>,
    at_end: Vec<Opened>,
}

/// Asks for what is open at a window's start, where its sums do not have it, and at its end or `end_s`.
async fn open(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
    end_s: u32,
    folded: &Mutex<Folded>,
) -> Result<Open, StoreError> {
    let GraphRequest { group_by, filter, .. } = request;
    let rows_tell_end = plan.end_tier == Tier::Raw;
    let start_s = plan.open_at_start_s();
    let mut instants: Vec<_> = start_s.into_iter().chain(rows_tell_end.then_some(end_s)).collect();
    instants.dedup();
    let (mut open, mut at_boundary) = (Open::default(), Vec::new());
    let at_instants = store.open_at(*group_by, filter, &instants, kept, |row| {
        if start_s == Some(row.at_s) {
            open.at_start.push(of(folded).opened(row.clone()));
        }
        if rows_tell_end && end_s == row.at_s {
            open.at_end.push(of(folded).opened(row));
        }
    });
    let tier = plan.end_tier;
    let at_end = async {
        if rows_tell_end {
            return Ok(());
        }
        let take = |row: OpenRow<'_>| at_boundary.push(of(folded).opened(row));
        store.open_at_boundary(*group_by, filter, end_s, tier, kept, take).await
    };
    tokio::try_join!(at_instants, at_end)?;
    open.at_end.append(&mut at_boundary);
    Ok(open)
}

/// The graph in the making, for a moment.
fn of(folded: &Mutex<Folded>) -> MutexGuard<'_, Folded> {
    folded.lock().unwrap_or_else(PoisonError::into_inner)
}
